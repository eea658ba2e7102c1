//! A network that is cut for a while, in the copy and while changes are followed, with connections that
//! live through it and with connections that do not. `make torture` cuts it for two minutes each time, and
//! freezes pgmig and both servers for a minute.

use std::time::Duration;

use harness::faults::Proxy;
use harness::{DATABASE, Outcome, seed};
use nix::sys::signal::Signal;

use super::lost::TOLD_AND_INSERT_ONLY;
use super::writers::{self, Writers};
use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_for_a_while_loses_nothing() -> Outcome {
    let cut = Duration::from_secs(2);
    tokio::try_join!(cut_for(cut, EXTENSION, true), cut_for(cut, PLAIN_WAL2JSON, false))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn torture_network() -> Outcome {
    let cut = Duration::from_secs(120);
    tokio::try_join!(cut_for(cut, EXTENSION, true), cut_for(cut, PLAIN_WAL2JSON, false))?;
    Ok(())
}

/// The source hears nothing of the end of such a run, and goes on waiting for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_takes_the_slot_from_a_run_that_was_killed_behind_a_network_that_stands_still() -> Outcome {
    let mut life = Life::begin(PLAIN_WAL2JSON, writers::SCHEMA).await;
    life.allowed = writers::ALLOWED;
    let writers = Writers::start(&life.pair.source_uri(), 2, seed()).await;
    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &["--allow-insert-only"]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    let reader = "select active_pid from pg_replication_slots where slot_name = 'pgmig_default'";
    let reads = async || life.on_source(reader).await;
    // It may just be taking the stream up again.
    harness::wait_until(Duration::from_secs(30), "a reader of the slot", async || !reads().await.is_empty()).await;
    proxy.stall();
    writers.write_more(20).await;
    life.kill(run).await;
    let reads = reads().await;
    assert_ne!(reads, "");
    let run = life.run_with(&["--allow-insert-only"]);
    writers.write_more(20).await;
    writers.stop().await;
    life.end(run).await;
    assert_eq!(life.on_source(&format!("select count(*) from pg_stat_activity where pid = {reads}")).await, "0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn torture_frozen() -> Outcome {
    let time = Duration::from_secs(65);
    tokio::try_join!(frozen_for(time, PLAIN), frozen_for(time, EXTENSION_WAL2JSON))?;
    Ok(())
}

/// Longer than what servers wait for an answer of a replication client.
async fn frozen_for(time: Duration, way: Way) -> Outcome {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    life.on_source("insert into log select repeat(md5(n::text), 10), null from generate_series(1, 60000) n").await;
    let writers = Writers::start(&life.pair.source_uri(), 2, seed()).await;
    let mut run = life.run_with(&["--allow-insert-only"]);
    life.wait_for(&mut run, "the copy", "select copied_rows > 0 or phase <> 'copy' from pgmig.progress").await;
    for who in ["pgmig", "target", "source", "pgmig"] {
        match who {
            "pgmig" => run.signal(Signal::SIGSTOP),
            "target" => life.pair.target.pause(),
            _ => life.pair.source.pause(),
        }
        tokio::time::sleep(time).await;
        match who {
            "pgmig" => run.signal(Signal::SIGCONT),
            "target" => life.pair.target.unpause(),
            _ => life.pair.source.unpause(),
        }
        writers.write_more(30).await;
        // Writers that went on meanwhile may have left more than is applied in a minute.
        let bound = Duration::from_secs(60) + 3 * time;
        life.wait_within(bound, &mut run, "what was written to be applied", &applied(&life).await).await;
    }
    writers.stop().await;
    life.end(run).await;
    Ok(())
}

/// `die`: whether the connections are found broken when the network is back.
async fn cut_for(time: Duration, way: Way, die: bool) -> Outcome {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    life.on_source("insert into log select repeat(md5(n::text), 10), null from generate_series(1, 60000) n").await;
    let writers = Writers::start(&life.pair.source_uri(), 2, seed()).await;
    let (source, target) = (Proxy::to(&life.pair.source).await?, Proxy::to(&life.pair.target).await?);
    let uris = (source.uri(&life.pair.source, DATABASE), target.uri(&life.pair.target, DATABASE));
    let mut run = life.run_between(&uris.0, &uris.1, &["--allow-insert-only"]);
    life.wait_for(&mut run, "the copy", "select copied_rows > 0 or phase <> 'copy' from pgmig.progress").await;
    for phase in ["copy", "follow"] {
        for proxy in [&source, &target] {
            proxy.stall();
        }
        writers.write_more(30).await;
        tokio::time::sleep(time).await;
        assert!(run.is_running(), "{phase}: {}", run.stderr());
        for proxy in [&source, &target] {
            if die {
                proxy.cut();
            }
            proxy.go_on();
        }
        // Writers that went on meanwhile may have left more than is applied in a minute.
        let bound = Duration::from_secs(60) + 3 * time;
        life.wait_within(bound, &mut run, "what was written to be applied", &applied(&life).await).await;
    }
    writers.stop().await;
    life.end(run).await;
    Ok(())
}

/// That all is there which the source has now, and changes are followed. A row behind it has the stream say so.
async fn applied(life: &Life) -> String {
    let lsn = life.lsn().await;
    life.on_source("insert into log values ('behind', null)").await;
    format!("select phase = 'follow' and coalesce(replay_lsn >= '{lsn}', false) from pgmig.progress")
}
