//! A whole life under load: copied, followed and ended while a writer writes, then compared whole.

use std::time::Duration;

use harness::{Outcome, assert_same, seed, wait_until};
use pgmig::embedded::{Workload, Writer, WriterOptions, sample};

use super::writers::{self, Writers};
use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON};

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_under_load_is_moved_whole_with_the_extension() -> Outcome {
    move_shop(Life::empty(EXTENSION).await, 120.0).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_shop_under_load_is_moved_whole_in_plain_sql() -> Outcome {
    move_shop(Life::empty(PLAIN).await, 40.0).await
}
#[tokio::test(flavor = "multi_thread")]
async fn several_writers_through_wal2json_are_followed_by_the_extension() -> Outcome {
    follow_writers(Life::empty(EXTENSION_WAL2JSON).await).await
}
#[tokio::test(flavor = "multi_thread")]
async fn several_writers_through_wal2json_are_followed_in_plain_sql() -> Outcome {
    follow_writers(Life::empty(PLAIN_WAL2JSON).await).await
}

/// `tps` is what an unoptimised build keeps up with on a small, busy machine: a test of what arrives, not of speed.
pub async fn move_shop(mut life: Life, tps: f64) -> Outcome {
    life.allowed = &["large objects are copied", "has no key: an UPDATE or DELETE", "is unlogged"];
    let uri = life.pair.source_uri();
    sample::load(&uri, 0.2).await?;
    let options = WriterOptions { tps: Some(tps), ..WriterOptions::seed(seed()) };
    let writer = Writer::start(&uri, Workload::Shop, options).await?;
    let run = life.follow_with(&["--allow-insert-only", "--split-tables-larger-than", "1MB"]).await;
    let written = writer.transactions();
    wait_until(Duration::from_secs(30), "more to be written", async || {
        writer.transactions() > written + 150 || writer.has_failed()
    })
    .await;
    let summary = writer.stop().await?;
    println!("{summary}");
    assert_eq!(summary.unexpected, Vec::<String>::new());
    let endpos = life.lsn().await;
    assert_eq!(life.set_endpos(&endpos).await, endpos);
    life.finish(run).await;
    assert_same(&life.pair).await;
    // More than one Part of one table, and more than the writer's rows: the test tests what it says.
    assert_eq!(life.on_target("select max(parts) > 1 from pgmig.parts").await, "t");
    assert_eq!(life.on_target("select applied_transactions > 100 from pgmig.progress").await, "t");
    assert_eq!(life.on_target("select replay_lsn <= endpos from pgmig.progress").await, "t");
    Ok(())
}

pub async fn follow_writers(mut life: Life) -> Outcome {
    life.source.batch_execute(writers::SCHEMA).await?;
    life.allowed = writers::ALLOWED;
    let writers = Writers::start(&life.pair.source_uri(), 4, seed()).await;
    let run = life.follow_with(&["--allow-insert-only"]).await;
    writers.write_more(400).await;
    writers.stop().await;
    life.end(run).await;
    assert_eq!(life.on_target("select plugin from pgmig.progress").await, "wal2json");
    Ok(())
}
