//! A run that is told what to do from outside: to stop, by a signal or from another machine, to hold
//! apply back, and to go easy on the source. What it had in hand is whole or not there, and the same
//! command goes on.

use std::time::{Duration, Instant};

use harness::{Outcome, wait_until};
use nix::sys::signal::Signal;

use super::{EXTENSION, Life, PLAIN, PLAIN_WAL2JSON};

/// Two dozen Parts of a megabyte and more, and rows that change.
const TABLES: &str = "create table big (id int primary key, body text); \
                      alter table big alter body set storage external; \
                      insert into big select n, repeat(md5(n::text), 32) from generate_series(1, 20000) n; \
                      create table t (id int primary key, note text); \
                      insert into t select n, 'copied' from generate_series(1, 200) n";
const SLOW: &[&str] = &["--max-rate", "2MB", "--split-tables-larger-than", "1MB", "--table-jobs", "2"];

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_interrupted_ends_at_a_part_and_goes_on() -> Outcome {
    let life = Life::begin(EXTENSION, TABLES).await;
    let mut run = life.run_with(SLOW);
    let some = "select count(*) > 0 from pgmig.parts where state = 'done'";
    life.wait_for(&mut run, "a Part", some).await;
    let start = Instant::now();
    run.signal(Signal::SIGTERM);
    let stopped = run.finish(&["error: stopped"]).await.expect_code(130);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(stopped.stderr.contains("what is in hand is finished first"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("next: run the same command again"), "{}", stopped.stderr);
    let at = "select phase || ' ' || running || ' ' || (last_error is null) from pgmig.progress";
    assert_eq!(life.on_target(at).await, "copy false true");
    // At a border: every worker has finished what it had in hand.
    let whole = "select count(*) filter (where state = 'done') > 0 and count(*) filter (where pid is not null) = 0 \
                 from pgmig.parts";
    assert_eq!(life.on_target(whole).await, "t");
    assert_eq!(life.on_target("select message from pgmig.events order by event_id desc limit 1").await, "stopped");

    // The limit it was begun with still holds, and is lifted while it runs.
    let mut run = life.run_with(&["--split-tables-larger-than", "1MB", "--table-jobs", "2"]);
    life.wait_for(&mut run, "the run", "select running from pgmig.progress").await;
    assert_eq!(life.on_target("select max_rate from pgmig.progress").await, (2 << 20).to_string());
    let lifted = life.pgmig(&["throttle", "--max-rate", "0"]).finish(&[]).await.expect_code(0);
    assert!(lifted.stderr.contains("as fast as it goes"), "{}", lifted.stderr);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_copy_at_once() -> Outcome {
    let life = Life::begin(EXTENSION, TABLES).await;
    // One Part of 20 MB at a rate that takes minutes.
    let mut run = life.run_with(&["--max-rate", "100kB"]);
    let copying = "select count(*) > 0 from pgmig.parts where state = 'copying' and bytes_done > 0";
    life.wait_for(&mut run, "the copy", copying).await;
    run.interrupt();
    wait_until(Duration::from_secs(5), "it to hear", async || run.stderr().contains("once more stops at once")).await;
    let start = Instant::now();
    run.interrupt();
    run.finish(&["error: stopped"]).await.expect_code(130);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(life.on_target("select count(*) from pgmig.parts where pid is not null").await, "0");
    let mut run = life.run_with(&["--max-rate", "0"]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_stopped_from_elsewhere_with_the_target_alone() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, TABLES).await;
        // What steers needs no source.
        let steer = async |args: &[&str]| life.pgmig_from("host=/nowhere", args).finish(&["error: "]).await;
        let mut run = life.follow().await;
        let paused = steer(&["pause"]).await.expect_code(0);
        assert!(paused.stderr.contains("pgmig resume"), "{}", paused.stderr);
        assert_eq!(life.on_target("select phase from pgmig.progress").await, "paused");
        life.on_source("insert into t select n, 'while paused' from generate_series(1001, 1100) n").await;
        let received = format!("select flush_lsn >= '{}' from pgmig.progress", life.lsn().await);
        life.wait_for(&mut run, "it to be received", &received).await;
        assert_eq!(life.on_target("select count(*) from t").await, "200");
        steer(&["resume"]).await.expect_code(0);
        life.wait_for(&mut run, "the rows", "select count(*) = 300 from t").await;

        // A transaction that is applied while it is asked to stop is whole.
        life.on_source("insert into t select n, 'large' from generate_series(2001, 42000) n").await;
        let start = Instant::now();
        let stop = steer(&["stop"]).await.expect_code(0);
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        assert!(stop.stderr.contains("the source keeps its WAL for slot `pgmig_default`"), "{}", stop.stderr);
        assert!(stop.stderr.contains("next: go on with `pgmig run`"), "{}", stop.stderr);
        run.finish(&["error: stopped"]).await.expect_code(130);
        assert!(["300", "40300"].contains(&life.on_target("select count(*) from t").await.as_str()));
        let again = steer(&["stop"]).await.expect_code(5);
        assert!(again.stderr.contains("is not running") && again.stderr.contains("hint: "), "{}", again.stderr);

        // What it was asked is not asked of the next one.
        let mut run = life.run();
        life.wait_for(
            &mut run,
            "the rest",
            "select running and count(*) = 40300 from t, pgmig.progress group by running",
        )
        .await;
        life.end(run).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_answer_loses_its_sessions() -> Outcome {
    let life = Life::begin(PLAIN, TABLES).await;
    let mut run = life.follow().await;
    run.signal(Signal::SIGSTOP);
    life.on_source("insert into t values (1001, 'unheard')").await;
    let stop = life.pgmig(&["stop", "--now"]).finish(&[]).await.expect_code(0);
    assert!(stop.stderr.contains("does not answer") && stop.stderr.contains("were ended"), "{}", stop.stderr);
    assert_eq!(life.on_target("select running from pgmig.progress").await, "f");
    run.signal(Signal::SIGCONT);
    let ended = run.wait(Duration::from_secs(60)).await;
    assert_ne!(ended.code(), 0, "{}", ended.stderr);
    let mut run = life.run();
    life.wait_for(&mut run, "the row", "select exists (select from t where id = 1001)").await;
    life.end(run).await;
    Ok(())
}

/// The steepness of the line that fits these points best.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    both / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

/// Whether more waits for a processor than there are.
pub fn busy() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    load > std::thread::available_parallelism().map_or(1, usize::from) as f64 * 1.5
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_keeps_to_the_rate_and_to_the_sessions_it_is_allowed() -> Outcome {
    let life = Life::begin(EXTENSION, TABLES).await;
    let (rate, most) = (2 << 20, 8);
    let max = (rate.to_string(), most.to_string());
    let mut run = life.run_with(&[
        "--max-rate",
        &max.0,
        "--max-source-connections",
        &max.1,
        "--table-jobs",
        "6",
        "--split-tables-larger-than",
        "1MB",
    ]);
    life.wait_for(&mut run, "the copy", "select copied_rows > 0 from pgmig.progress").await;
    let sessions = "select count(*) from pg_stat_activity where application_name like 'pgmig %'";
    let copying = "select coalesce(sum(copied_bytes), 0) from pgmig.parts";
    let start = Instant::now();
    let (mut seen, mut copied): (i32, Vec<(f64, f64)>) = (0, Vec::new());
    while start.elapsed() < Duration::from_secs(6) {
        seen = seen.max(life.on_source(sessions).await.parse()?);
        copied.push((start.elapsed().as_secs_f64(), life.on_target(copying).await.parse()?));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let measured = slope(&copied) / f64::from(rate);
    println!("{measured:.3} of the rate, {seen} sessions with the source");
    // A machine that is busy may be slower; none may be faster.
    assert!((0.5..1.05).contains(&measured), "{measured:.3} of the rate");
    assert!(measured > 0.95 || busy(), "{measured:.3} of the rate");
    assert!((3..=most).contains(&seen), "{seen} sessions, {most} allowed");
    // Turned in SQL, it reaches the workers: more of them, and faster.
    life.on_target("select pgmig.throttle(max_source_connections => 0)").await;
    let more = async || life.on_source(sessions).await.parse::<i32>().is_ok_and(|now| now > most);
    wait_until(Duration::from_secs(10), "the other workers", more).await;
    life.on_target("select pgmig.throttle(max_rate => 0)").await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}
