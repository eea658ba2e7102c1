//! Exactly once, whatever is killed and when: after `kill -9` in every phase the same command goes
//! on, and at the end both databases are equal, tables of equal rows without a key among them.

use std::time::Duration;

use fastrand::Rng;
use harness::faults::Proxy;
use harness::{DATABASE, Outcome, assert_same, seed, wait_until};

use super::writers::{self, Writers};
use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_while_it_follows_applies_everything_once_with_the_extension() -> Outcome {
    killed_while_it_follows(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_while_it_follows_applies_everything_once_in_plain_sql() -> Outcome {
    killed_while_it_follows(PLAIN).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_while_it_follows_applies_everything_once_through_wal2json() -> Outcome {
    killed_while_it_follows(EXTENSION_WAL2JSON).await
}

async fn killed_while_it_follows(way: Way) -> Outcome {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = writers::ALLOWED;
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let writers = Writers::start(&life.pair.source_uri(), 4, seed).await;
    let mut run = life.run_with(&["--allow-insert-only"]);
    for round in 0..rng.u8(3..=5) {
        // Some moment while transactions are being applied: at once, or after a few of them.
        let count: u64 = rng.u64(0..80);
        let seen = "select coalesce(max(applied_transactions), 0) from pgmig.progress";
        let before: u64 = if round == 0 { 0 } else { life.on_target(seen).await.parse()? };
        let applied = format!("select applied_transactions > {before} + {count} from pgmig.progress");
        life.wait_for(&mut run, "transactions to be applied", &applied).await;
        life.kill(run).await;
        println!("round {round}: killed after {count} transactions");
        run = life.run_with(&["--allow-insert-only"]);
    }
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    writers.write_more(50).await;
    writers.stop().await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_in_the_copy_goes_on_with_another_snapshot_with_the_extension() -> Outcome {
    killed_in_the_copy(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_in_the_copy_goes_on_with_another_snapshot_in_plain_sql() -> Outcome {
    killed_in_the_copy(PLAIN_WAL2JSON).await
}

/// Tables copied before the kill and after it carry different snapshots; the writers never stop.
async fn killed_in_the_copy(way: Way) -> Outcome {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = writers::ALLOWED;
    life.on_source(
        "create table big as select n as id, repeat(md5(n::text), 6) as body from generate_series(1, 80000) n; \
         alter table big add primary key (id); \
         create table cut as select * from big where id <= 40000; alter table cut add primary key (id)",
    )
    .await;
    let writers = Writers::start(&life.pair.source_uri(), 3, seed()).await;
    let args = ["--allow-insert-only", "--table-jobs", "1", "--split-tables-larger-than", "3MB"];
    let mut killed_at = Vec::new();
    // The largest Parts come first: one before any is done, one between Parts, one among the small tables.
    for done in [0, 2, 5] {
        // Behind the proxy the copy stands still for as long as we look at it.
        let proxy = Proxy::to(&life.pair.source).await?;
        let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &args);
        let some = format!(
            "select phase in ('copy', 'indexes') and (select count(*) from pgmig.part where state = 'done') >= {done} from pgmig.progress"
        );
        life.wait_for(&mut run, "some Parts", &some).await;
        proxy.stall();
        killed_at.push(
            life.on_target(
                "select phase || ' ' || (select count(*) from pgmig.part where state = 'done') from pgmig.progress",
            )
            .await,
        );
        life.on_source("update big set body = 'changed' where id % 1000 = 7; delete from big where id % 1000 = 8; \
                        insert into big select max(id) + 1, 'new' from big; update cut set id = -id where id % 5000 = 9 and id > 0").await;
        life.kill(run).await;
        writers.write_more(10).await;
    }
    println!("killed at {killed_at:?}");
    let mut run = life.run_with(&args);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    writers.stop().await;
    life.end(run).await;
    // Else the test has not tested what it says.
    assert_ne!(life.on_target("select count(distinct snapshot) from pgmig.parts").await, "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_killed_half_way_in_catchup_is_applied_once_with_the_extension() -> Outcome {
    killed_in_a_large_transaction(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_killed_half_way_in_catchup_is_applied_once_in_plain_sql() -> Outcome {
    killed_in_a_large_transaction(PLAIN).await
}

async fn killed_in_a_large_transaction(way: Way) -> Outcome {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = writers::ALLOWED;
    let args = ["--allow-insert-only"];
    let mut run = life.run_with(&args);
    life.wait_for(&mut run, "the slot", "select startpos is not null from pgmig.progress").await;
    // Nothing is applied before all of it is in the spool, so that the run is still in catchup.
    life.on_target("select pgmig.pause()").await;
    life.on_source("insert into log select 'large', null from generate_series(1, 60000)").await;
    life.on_source(
        "begin; insert into log select 'large', null from generate_series(1, 100000); \
         insert into twins select 9, 'large' from generate_series(1, 300); update twins set b = 'updated' where a = 9; commit",
    )
    .await;
    let lsn = life.lsn().await;
    life.on_source("insert into log values ('behind', null)").await;
    let received = format!("select flush_lsn >= '{lsn}' and interrupted_phase = 'catchup' from pgmig.progress");
    life.wait_for(&mut run, "the transactions to be received", &received).await;
    life.on_target("select pgmig.resume()").await;
    for round in 0..3 {
        let applying = "select exists (select from pg_stat_activity where application_name = 'pgmig apply' and backend_xid is not null)";
        life.wait_for(&mut run, "the transaction to be applied", applying).await;
        life.kill(run).await;
        let rows = life
            .on_target("select count(*) filter (where line = 'large') || ' ' || max(phase) from log, pgmig.progress")
            .await;
        println!("round {round}: killed with rows and phase: {rows}");
        assert!(["0 ", "60000 ", "160000 "].iter().any(|whole| rows.starts_with(whole)), "half a transaction: {rows}");
        run = life.run_with(&args);
    }
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    assert_eq!(life.on_target("select count(*) from log where line = 'large'").await, "160000");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_after_endpos_finishes_when_run_again() -> Outcome {
    let life = Life::begin(
        EXTENSION,
        "create table t (id serial primary key); insert into t select from generate_series(1, 9)",
    )
    .await;
    let run = life.follow().await;
    life.on_source("insert into t default values").await;
    life.set_endpos(life.lsn().await).await;
    // Whichever of its last steps it dies in: cutover, the end, or before either.
    let at_the_end = "select phase in ('cutover', 'done') from pgmig.progress";
    wait_until(Duration::from_secs(20), "the end", async || life.try_value(at_the_end).await.as_deref() == Some("t"))
        .await;
    let mut run = run;
    run.kill();
    run.finish(&[]).await;
    life.run().finish(&[]).await.expect_code(0);
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "done");
    assert_same(&life.pair).await;
    Ok(())
}
