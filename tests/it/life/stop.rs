//! endpos is exact: every transaction whose commit ends at or before it is on the target, and nothing
//! of any other, whatever the order of the begins, the size of a transaction or when endpos was given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Outcome, assert_same};
use pgmig::embedded::Cluster;

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way, session, value};

const TABLE: &str = "create table t (id int primary key, note text); \
                     insert into t select n, 'copied' from generate_series(1, 200) n";
const BEHIND_COPY: &str = "select coalesce(string_agg(id::text, ' ' order by id), '') from t where id > 1000";

#[tokio::test(flavor = "multi_thread")]
async fn endpos_is_exact_with_the_extension() -> Outcome {
    endpos_is_exact(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn endpos_is_exact_in_plain_sql() -> Outcome {
    endpos_is_exact(PLAIN).await
}
#[tokio::test(flavor = "multi_thread")]
async fn endpos_is_exact_through_wal2json() -> Outcome {
    endpos_is_exact(EXTENSION_WAL2JSON).await
}

async fn endpos_is_exact(way: Way) -> Outcome {
    let life = Life::begin(way, TABLE).await;
    let run = life.follow().await;
    // Held back, so that nothing is applied before endpos is known.
    life.on_target("select pgmig.pause()").await;
    let mut after = Vec::new();
    for id in 1001..=1005 {
        life.on_source(&format!("insert into t values ({id}, 'T'); update t set note = 'T{id}' where id = 7")).await;
        after.push(life.lsn().await);
    }
    life.set_endpos(&after[2]).await;
    // Somebody goes on writing until the run has ended.
    let other = session(&life.pair.source_uri()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writing = tokio::spawn(async move {
        for id in 1006.. {
            value(&other, &format!("insert into t values ({id}, 'late')")).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            if stopped.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    life.on_target("select pgmig.resume()").await;
    let done = life.finish(run).await;
    stop.store(true, Ordering::Relaxed);
    writing.await?;

    assert_eq!(life.on_target(BEHIND_COPY).await, "1001 1002 1003");
    assert_eq!(life.on_target("select note from t where id = 7").await, "T1003");
    assert!(done.stderr.contains("done: every change of the source up to endpos"), "{}", done.stderr);
    let again = life.run().finish(&[]).await.expect_code(0);
    assert!(again.stderr.contains("done already; nothing was changed"), "{}", again.stderr);
    assert_eq!(life.on_target("select endpos from pgmig.progress").await, after[2]);
    // Taken back on the source, what came later is all there was between them.
    life.on_source("delete from t where id > 1003; update t set note = 'T1003' where id = 7").await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_order_decides_at_endpos_not_begin_order_with_the_extension() -> Outcome {
    commit_order_decides(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn commit_order_decides_at_endpos_not_begin_order_in_plain_sql() -> Outcome {
    commit_order_decides(PLAIN_WAL2JSON).await
}

async fn commit_order_decides(way: Way) -> Outcome {
    let life = Life::begin(way, TABLE).await;
    let run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    let uri = life.pair.source_uri();
    let (a, b, c) = (session(&uri).await, session(&uri).await, session(&uri).await);
    // c is open before and after everything; a begins before b and commits after it.
    value(&c, "begin; insert into t values (1003, 'open across endpos')").await;
    value(&a, "begin; insert into t values (1001, 'began first'); update t set note = 'a' where id = 1").await;
    value(&b, "begin; insert into t values (1002, 'committed first'); update t set note = 'b' where id = 2").await;
    value(&a, "insert into t values (1011, 'a again')").await;
    value(&b, "insert into t values (1012, 'b again'); commit").await;
    life.set_endpos(life.lsn().await).await;
    value(&a, "commit").await;
    life.on_target("select pgmig.resume()").await;
    life.finish(run).await;
    value(&c, "commit").await;
    assert_eq!(life.on_target(BEHIND_COPY).await, "1002 1012");
    assert_eq!(life.on_target("select string_agg(note, ' ' order by id) from t where id in (1, 2)").await, "copied b");
    life.on_source("delete from t where id in (1001, 1003, 1011); update t set note = 'copied' where id = 1").await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_large_transaction_across_endpos_is_there_with_the_extension() -> Outcome {
    nothing_of_a_large_transaction(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_large_transaction_across_endpos_is_there_in_plain_sql() -> Outcome {
    nothing_of_a_large_transaction(PLAIN).await
}

async fn nothing_of_a_large_transaction(way: Way) -> Outcome {
    let life = Life::begin(way, TABLE).await;
    let run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    life.on_source("insert into t values (1001, 'small')").await;
    let large = session(&life.pair.source_uri()).await;
    // More than a Batch on either side of endpos.
    let rows =
        |from: i32| format!("insert into t select n, repeat('x', 100) from generate_series({from}, {from} + 59999) n");
    value(&large, &format!("begin; {}", rows(100_000))).await;
    life.on_source("insert into t values (1002, 'small')").await;
    let middle = life.lsn().await;
    value(&large, &format!("{}; commit", rows(200_000))).await;
    life.on_source("insert into t values (1003, 'small')").await;
    life.set_endpos(&middle).await;
    life.on_target("select pgmig.resume()").await;
    life.finish(run).await;
    assert_eq!(life.on_target(BEHIND_COPY).await, "1001 1002");
    life.on_source("delete from t where id > 1002").await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpos_given_before_the_copy_is_exact_too() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    let ahead = life.on_source("select pg_current_wal_lsn() + 3000000").await;
    let mut run = life.run_with(&["--endpos", &ahead]);
    // One writer, so that the ends of its commits can be told from before and after.
    let (mut there, mut absent) = (1000, 0);
    let mut id = 1000;
    while run.is_running() || id < 1100 {
        id += 1;
        let before = format!("select pg_current_wal_insert_lsn() >= '{ahead}'");
        let begun_behind = life.on_source(&before).await == "t";
        life.on_source(&format!("insert into t values ({id}, repeat('x', 20000))")).await;
        if life.on_source(&format!("select pg_current_wal_lsn() <= '{ahead}'")).await == "t" {
            there = id;
        } else if begun_behind && absent == 0 {
            absent = id;
        }
        assert!(id < 20_000, "pgmig does not end:\n{}", run.stderr());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    life.finish(run).await;
    assert!(there > 1000 && absent > there, "{there} {absent}");
    let last: i32 = life.on_target("select max(id) from t").await.parse()?;
    assert!((there..absent).contains(&last), "{there} <= {last} < {absent}");
    assert_eq!(life.on_target("select count(*) from t where id > 1000").await, (last - 1000).to_string());
    life.on_source(&format!("delete from t where id > {last}")).await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpos_that_the_copy_would_pass_is_refused() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    let past = life.lsn().await;
    life.on_source("insert into t values (1001, 'behind it')").await;
    let refused = life.run_with(&["--endpos", &past]).finish(&["endpos"]).await.expect_code(2);
    assert!(refused.stderr.contains(&past), "{}", refused.stderr);
    // Nothing was changed, and the next try is as good as the first.
    assert_eq!(life.on_target("select to_regclass('t') is null").await, "t");
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "0");
    let run = life.follow().await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_source_holds_nobody_up() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, TABLE).await;
        let run = life.follow().await;
        let start = Instant::now();
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        println!("{way:?} ended after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_same(&life.pair).await;
    }
    Ok(())
}

/// A prepared transaction is where its COMMIT PREPARED is.
#[tokio::test(flavor = "multi_thread")]
async fn endpos_around_a_prepared_transaction_is_exact() -> Outcome {
    for (way, behind, expected) in [(EXTENSION, false, "1002"), (PLAIN_WAL2JSON, true, "1001 1002")] {
        let source = Cluster::builder().setting("max_prepared_transactions", "4");
        let life = Life::between(way, source, Cluster::builder()).await;
        life.source.batch_execute(TABLE).await?;
        let run = life.follow().await;
        life.on_target("select pgmig.pause()").await;
        life.source.batch_execute("begin; insert into t values (1001, 'T'); prepare transaction 'two'").await?;
        life.source.batch_execute("insert into t values (1002, 'T')").await?;
        let before = life.lsn().await;
        life.source.batch_execute("commit prepared 'two'").await?;
        life.set_endpos(if behind { life.lsn().await } else { before }).await;
        life.source.batch_execute("insert into t values (1003, 'late')").await?;
        life.on_target("select pgmig.resume()").await;
        life.finish(run).await;
        assert_eq!(life.on_target(BEHIND_COPY).await, expected, "{way:?}");
    }
    Ok(())
}
