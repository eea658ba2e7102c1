//! The source's WAL: a slot that keeps too much of it, and a slot that is gone.

use std::time::{Duration, Instant};

use harness::{Outcome, Pgmig, assert_same, wait_until};
use pgmig::embedded::Cluster;

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, Way, do_all};
use crate::told::hook::Hook;

const MADE: &str = "create table t (id int primary key, body text); insert into t values (0, 'copied')";

/// Random bytes, so that the spool cannot make them small. About 11 MB of WAL.
fn megabytes(from: u32) -> String {
    format!(
        "insert into t select n, (select string_agg(md5(n || '.' || m || random()), '') from generate_series(1, 30) m) from generate_series({from}, {from} + 9999) n"
    )
}

/// Follows, and receives no more: apply is paused and the spool is at its cap.
async fn held_back(life: &Life, more: &[&str]) -> Pgmig {
    let run = life.follow_with(&[&["--spool-limit", "1MB"], more].concat()).await;
    life.on_target("select pgmig.pause()").await;
    do_all(life, &[&megabytes(1)]).await;
    says(&run, "the spool is full").await;
    run
}

async fn says(run: &Pgmig, what: &str) {
    wait_until(Duration::from_secs(30), what, async || run.stderr().contains(what)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_wal_warns_and_then_stops_with_nothing_lost() -> Outcome {
    let mut life = Life::begin(EXTENSION_WAL2JSON, MADE).await;
    life.allowed = &["the spool is full", "of WAL for slot", "error: "];
    let mut hook = Hook::listen().await?;
    let run = held_back(&life, &["--wal-budget", "48MB", "--notify", &hook.url("budget")]).await;
    do_all(&life, &[&megabytes(20_000), &megabytes(40_000)]).await;
    says(&run, "of WAL for slot `pgmig_default`, of a budget of 48.0 MiB").await;
    let danger = hook.heard_of("slot_in_danger").await;
    assert!(
        danger["message"].as_str().is_some_and(|said| said.starts_with("slot in danger: the source keeps ")),
        "{danger}"
    );
    do_all(&life, &[&megabytes(60_000)]).await;
    says(&run, "the copy is held back").await;
    // Processes that joined the copy hear of it, too.
    let told = "select wal_max_rate between 1000000 and 64 * 1024 * 1024 from pgmig.sentinel";
    wait_until(Duration::from_secs(10), "the rate", async || life.on_target(told).await == "t").await;
    do_all(&life, &[&megabytes(100_000), &megabytes(120_000)]).await;
    let stopped = run.finish(life.allowed).await.expect_code(3);
    assert!(stopped.stderr.contains("more than the budget of 48.0 MiB"), "{}", stopped.stderr);
    let ended = hook.heard_of("error").await;
    assert_eq!(ended["exit_code"], 3, "{ended}");
    // Once, not at every look.
    let dangers = hook.heard().iter().filter(|body| body.contains("\"slot_in_danger\"")).count();
    assert_eq!(dangers, 1, "{:?}", hook.heard());
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "1");
    life.on_target("select pgmig.resume()").await;
    let run = life.run();
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_wal_may_drop_the_slot_so_that_the_source_survives() -> Outcome {
    let mut life = Life::begin(PLAIN, MADE).await;
    life.allowed = &["the spool is full", "of WAL for slot", "error: "];
    let run = held_back(&life, &["--wal-budget", "20MB", "--wal-budget-policy", "drop"]).await;
    do_all(&life, &[&megabytes(20_000), &megabytes(40_000)]).await;
    let stopped = run.finish(life.allowed).await.expect_code(3);
    assert!(
        stopped.stderr.contains("the slot was dropped") && stopped.stderr.contains("begin again"),
        "{}",
        stopped.stderr
    );
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "0");
    // Nobody goes on with half a stream.
    let refused = life.run().finish(&["error: "]).await.expect_code(3);
    assert!(refused.stderr.contains("slot `pgmig_default` is gone from the source"), "{}", refused.stderr);
    // Made again by somebody, it is not the one we had.
    do_all(
        &life,
        &[
            "insert into t values (-1, 'between')",
            "select pg_create_logical_replication_slot('pgmig_default', 'pgoutput')",
        ],
    )
    .await;
    let refused = life.run().finish(&["error: "]).await.expect_code(3);
    assert!(refused.stderr.contains("is confirmed up to"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_source_gives_up_is_let_go_of_within_seconds() -> Outcome {
    let way: Way = EXTENSION;
    let source = Cluster::builder()
        .setting("max_slot_wal_keep_size", "16MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "48MB");
    let mut life = Life::between(way, source, Cluster::builder()).await;
    life.allowed = &["the spool is full", "of WAL for slot", "error: "];
    do_all(&life, &[MADE]).await;
    let run = held_back(&life, &[]).await;
    // A checkpoint waits for the walsender to end, which waits for us to read.
    let given_up = Instant::now();
    for from in [20_000, 40_000, 60_000, 80_000, 100_000, 120_000] {
        do_all(&life, &[&megabytes(from), "select pg_switch_wal()", "checkpoint"]).await;
    }
    assert_eq!(life.on_source("select wal_status from pg_replication_slots").await, "lost");
    let stopped = run.finish(life.allowed).await.expect_code(3);
    assert!(given_up.elapsed() < Duration::from_secs(60), "{:?}", given_up.elapsed());
    assert!(stopped.stderr.contains("WAL that slot `pgmig_default` needs"), "{}", stopped.stderr);
    let refused = life.run().finish(&["error: "]).await.expect_code(3);
    assert!(
        refused.stderr.contains("the source has thrown away WAL") && refused.stderr.contains("begin again"),
        "{}",
        refused.stderr
    );
    Ok(())
}
