//! What `pgmig status` shows while a migration runs, held against the server's own figures: as text, as
//! JSON, and as the full screen at several sizes.

use harness::faults::Proxy;
use harness::{DATABASE, Outcome};
use pgmig::model::status::CaughtUpAt;
use pgmig::report::{units, watch::Screen};
use pgmig::target::status;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::{EXTENSION, Life};

/// The screen as lines of text, with what a terminal of this size shows.
async fn screen(life: &Life, width: u16, height: u16) -> String {
    let found = status::status(&life.target, None, CaughtUpAt::default()).await.expect("status is read");
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test backend draws");
    let screen = Screen { status: &found[0], stale: None, colour: false };
    terminal.draw(|frame| screen.draw(frame)).expect("a test backend draws");
    terminal.backend().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_status_shows_is_what_the_server_says() -> Outcome {
    let life = Life::begin(
        EXTENSION,
        "create table big as select n, repeat(md5(n::text), 6) as body from generate_series(1, 150000) n; \
         alter table big add primary key (n); create index on big (body); \
         create table small (id int primary key references big); insert into small values (1)",
    )
    .await;
    let source = life.pair.source_uri();
    let status =
        async |args: &[&str]| life.pgmig(&[&["status"], args].concat()).finish(&[]).await.expect_code(0).stdout;
    let json = async |args: &[&str]| -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(&status(args).await).expect("JSON");
        all["migrations"][0].clone()
    };

    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &["--split-tables-larger-than", "0"]);
    let part =
        "select bytes_done > 0 and bytes_done < bytes from pgmig.parts where table_name = 'big' and state = 'copying'";
    life.wait_for(&mut run, "a part of the table", part).await;
    proxy.stall();
    // What was on its way arrives; then the figures stand.
    let figure = "select bytes_done::text from pgmig.parts where table_name = 'big'";
    let stands = async || {
        let before = life.on_target(figure).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        before == life.on_target(figure).await
    };
    harness::wait_until(std::time::Duration::from_secs(20), "the copy to stand", stands).await;
    let size: u64 = life.on_target("select bytes from pgmig.parts where table_name = 'big'").await.parse()?;
    let wide = screen(&life, 120, 30).await;
    for text in [
        "COPY",
        "running",
        "public.big",
        &units::bytes(size),
        "/3   constraints",
        "foreign keys 0/1",
        "backlog",
        "next",
    ] {
        assert!(wide.contains(text), "{text} is not on the screen:\n{wide}");
    }
    let shown = json(&["--json", "--source", &source]).await;
    assert_eq!(shown["copying"][0]["bytes_done"].to_string(), life.on_target(figure).await);
    assert_eq!((shown["running"].as_bool(), shown["caught_up"].as_bool()), (Some(true), Some(false)), "{shown}");
    assert_eq!(shown["source"]["wal_status"], "reserved", "{shown}");
    assert!(
        shown["source"]["oldest_snapshot"]["application"].as_str().is_some_and(|a| a.starts_with("pgmig")),
        "{shown}"
    );
    let text = status(&[]).await;
    assert!(text.contains("copying  public.big: ") && text.contains(&units::bytes(size)), "{text}");
    proxy.go_on();
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;

    life.wait_for(&mut run, "rates", "select replay_bytes_per_second is not null from pgmig.progress").await;
    let level = "select lag_bytes < 1000000 and lag_seconds < 5 from pgmig.progress";
    life.wait_for(&mut run, "it to be level", level).await;
    // In the room of a small terminal the phase, whether it runs and what comes next are left.
    for (width, height) in [(200, 60), (80, 24), (60, 12), (40, 6), (20, 3)] {
        let seen = screen(&life, width, height).await;
        assert!(seen.contains("FOLLOW") && seen.contains("next"), "{width} x {height}:\n{seen}");
        assert!(height < 12 || seen.contains("backlog"), "{width} x {height}:\n{seen}");
        assert!(
            width < 80 || seen.contains("CAUGHT UP") && seen.contains("indexes 3/3"),
            "{width} x {height}:\n{seen}"
        );
    }
    assert_eq!(json(&["--json", "--caught-up-at", "1GB,60s"]).await["caught_up"], true);
    life.on_target("select pgmig.pause()").await;
    assert!(screen(&life, 100, 30).await.contains("apply is held back"));
    assert!(status(&[]).await.contains("next     `pgmig resume`"));
    life.on_target("select pgmig.resume()").await;
    life.kill(run).await;
    let killed = "select not running from pgmig.progress";
    harness::wait_until(std::time::Duration::from_secs(10), "its sessions to end", async || {
        life.on_target(killed).await == "t"
    })
    .await;
    assert!(screen(&life, 100, 30).await.contains("not running"));
    assert!(status(&[]).await.contains("next     `pgmig run` goes on with it"));
    let run = life.follow().await;
    life.end(run).await;
    Ok(())
}
