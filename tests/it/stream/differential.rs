//! Random schemas and random work, and PostgreSQL as the judge: several writers at once while the source
//! is copied and followed, compared whole at the end. Each seed is another schema and another workload;
//! plugin, flavour and the target's version take turns. `make torture-cdc` runs many of them; `PGMIG_TEST_SEED` one again.

use std::time::Duration;

use fastrand::Rng;
use harness::{Outcome, assert_same, seed, versions};
use pgmig::embedded::Cluster;

use super::{Life, WAYS, do_all};
use schema::{Key, Schema};
use work::Work;

mod schema;
mod work;

#[tokio::test(flavor = "multi_thread")]
async fn random_work_on_random_schemas_arrives_whole() -> Outcome {
    let first = seed();
    for number in 0..4 {
        one(first.wrapping_add(number), 100, 0).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_work_arrives_whole_in_newer_versions() -> Outcome {
    let first = seed();
    for newer in 1..versions().len() {
        // An odd step: each version has the other plugin and the other flavour.
        one(first.wrapping_add(3 * newer as u64), 100, newer).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told: make torture-cdc"]
async fn torture() -> Outcome {
    let count: u64 = std::env::var("PGMIG_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let first = seed();
    for number in 0..count {
        one(first.wrapping_add(number), 600, (number / 4) as usize).await;
    }
    Ok(())
}

/// One seed: schema, copy and stream under load, comparison. `newer` counts the versions from the oldest, which
/// the source is of, to that of the target.
async fn one(seed: u64, transactions: u64, newer: usize) {
    let versions = versions();
    let target = &versions[newer % versions.len()];
    let way = WAYS[(seed % 4) as usize];
    let mut rng = Rng::with_seed(seed);
    println!("seed {seed}: {way:?} to PostgreSQL {}", target.version());
    let schema = Schema::random(&mut rng, way.plugin == "pgoutput");
    let mut life = Life::between(way, Cluster::builder(), Cluster::builder().bin_dir(target.path())).await;
    life.allowed = &["has no key: an UPDATE or DELETE"];
    for statement in schema.statements() {
        do_all(&life, &[&statement]).await;
    }
    let work = Work::start(&life.pair.source_uri(), &schema, 4, rng.fork()).await;
    work.more(20).await;
    let mut run = life.run_with(&["--allow-insert-only", "--split-tables-larger-than", "1MB"]);
    // Some of it before the copy, some beside it, some after it.
    life.wait_for(&mut run, "the slot", "select startpos is not null from pgmig.progress").await;
    work.allow(transactions);
    if rng.bool() {
        // Killed somewhere, and begun again.
        let some = format!("select phase = 'follow' or applied_transactions >= {} from pgmig.progress", rng.u8(0..30));
        life.wait_for(&mut run, "some transactions", &some).await;
        life.kill(run).await;
        run = life.run_with(&["--allow-insert-only", "--split-tables-larger-than", "1MB"]);
    }
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    work.may_truncate();
    work.more(transactions).await;
    work.stop().await;
    life.set_endpos(life.lsn().await).await;
    let done = run.wait(Duration::from_secs(120)).await.finish(life.allowed);
    assert_eq!(done.code(), 0, "seed {seed} {way:?}: {}", done.stderr);
    // What a row is identified by was altered on the source alone.
    for table in schema.tables.iter().filter(|table| table.key == Key::Primary) {
        do_all(&life, &[&format!("alter table {} replica identity default", table.name)]).await;
    }
    assert_same(&life.pair).await;
}
