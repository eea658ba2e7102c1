//! Death at a named point: before and after each commit, sync, feedback and change of phase the process
//! dies as by kill -9, and the same command goes on. One migration dies at one point after the other, so
//! that what an early death leaves behind meets the later ones; compared whole in the end. `make torture`
//! takes every point with each flavour and plugin.

use std::time::Duration;

use fastrand::Rng;
use harness::{Outcome, assert_same, seed};

use super::writers::{self, Writers};
use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

/// Points of a stage, in an order in which each is passed although the process died at those before it.
const BEGIN: &[&str] = &["before slot", "after slot", "before plan", "after plan"];
const COPY: &[&str] = &[
    "before step",
    "after step",
    "before step 3",
    "before copy",
    "after copy",
    "before part",
    "before anew",
    "after anew",
    "after part",
    "before part 2",
    "before frame",
    "after frame",
    "before sync",
    "after sync",
    "before feedback",
    "after feedback 2",
    "before indexes",
    "after indexes",
    "before catchup",
    "after catchup",
    "before batch",
    "after batch 2",
    "before follow",
    "after follow",
];
const FOLLOW: &[&str] = &[
    "before batch 3",
    "after batch 4",
    "after piece",
    "before large transaction",
    "after large transaction",
    "after frame 5",
    "after sync 3",
    "before feedback 4",
    "before segment",
    "after segment",
    "before prune",
    "after prune",
];
/// So that there are Parts of each kind: of `item` by its key, of `log` by blocks, and whole tables together.
const ARGS: &[&str] =
    &["--allow-insert-only", "--split-tables-larger-than", "300kB", "--resume-parts-larger-than", "1MB"];
const END: &[&str] =
    &["before cutover", "after cutover", "before sequences", "after sequences", "before done", "after done"];

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_a_named_point_goes_on_from_it() -> Outcome {
    let mut rng = Rng::with_seed(seed());
    // A dozen of them; `make torture` takes all.
    let (one, other) = (rng.usize(..6), rng.usize(..6));
    tokio::join!(die_at_each(EXTENSION, one, 6), die_at_each(PLAIN_WAL2JSON, other, 6));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn torture_points_pgoutput_with_the_extension() -> Outcome {
    die_at_each(EXTENSION, 0, 1).await;
    Ok(())
}
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn torture_points_pgoutput_in_plain_sql() -> Outcome {
    die_at_each(PLAIN, 0, 1).await;
    Ok(())
}
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn torture_points_wal2json_with_the_extension() -> Outcome {
    die_at_each(EXTENSION_WAL2JSON, 0, 1).await;
    Ok(())
}
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make torture"]
async fn torture_points_wal2json_in_plain_sql() -> Outcome {
    die_at_each(PLAIN_WAL2JSON, 0, 1).await;
    Ok(())
}

/// Dies at every `step`th point, from the `first` on.
async fn die_at_each(way: Way, first: usize, step: usize) {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = writers::ALLOWED;
    life.on_source("insert into log select repeat(md5(n::text), 4), null from generate_series(1, 4000) n").await;
    let writers = Writers::start(&life.pair.source_uri(), 2, 7).await;
    let all: Vec<&str> = [BEGIN, COPY, FOLLOW].concat();
    for point in all.iter().skip(first).step_by(step) {
        if FOLLOW.contains(point) {
            // More than a Batch, and than a segment of the spool holds.
            life.on_source("insert into log select (select string_agg(md5(n || '.' || m || random()), '') from generate_series(1, 5) m), null from generate_series(1, 60000) n").await;
        }
        die_at(&mut life, point).await;
    }
    writers.stop().await;
    life.crash = String::new();
    let run = life.follow_with(ARGS).await;
    life.set_endpos(life.lsn().await).await;
    let points: Vec<&str> = END.iter().skip(first).step_by(step).copied().collect();
    if points.is_empty() {
        life.finish(run).await;
    } else {
        drop(run);
        for point in points {
            die_at(&mut life, point).await;
        }
        life.crash = String::new();
        life.run_with(ARGS).finish(life.allowed).await.expect_code(0);
    }
    assert_same(&life.pair).await;
}

async fn die_at(life: &mut Life, point: &str) {
    life.crash = point.to_string();
    let died = life.run_with(ARGS).wait(Duration::from_secs(90)).await;
    println!("{:?}: {point}", life.way);
    assert_eq!(died.code(), 128 + 9, "{:?} {point}: not passed\n{}", life.way, died.stderr);
}
