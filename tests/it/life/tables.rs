//! Tables that are copied again, or taken in, while changes are followed and made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::faults::Proxy;
use harness::{DATABASE, Outcome, Pgmig, seed, wait_until};

use super::tags::stand_still;
use super::writers::{self, Writers};
use super::{EXTENSION, Life, PLAIN_WAL2JSON, Way, session};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_damaged_is_right_after_a_resync_under_load_with_the_extension() -> Outcome {
    resync(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_damaged_is_right_after_a_resync_under_load_in_plain_sql() -> Outcome {
    resync(PLAIN_WAL2JSON).await
}

async fn resync(way: Way) -> Outcome {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = writers::ALLOWED;
    life.on_source("insert into item (id, n, body) select n, n, 'kept' from generate_series(600, 700) n").await;
    let writers = Writers::start(&life.pair.source_uri(), 3, seed()).await;
    let mut run = life.run_with(&["--allow-insert-only", "--split-by", "key", "--split-tables-larger-than", "200kB"]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    assert_eq!(life.on_target("select count(*) > 1 from pgmig.part where table_name = 'item'").await, "t");
    let damage = "set session_replication_role = replica; delete from item where id between 650 and 660; \
                  update item set label = 'damaged' where id % 3 = 0; insert into item (id, n) values (-5, 0); \
                  insert into twins values (1, 'damaged'); reset session_replication_role";
    // Apply may win a deadlock.
    wait_until(Duration::from_secs(20), "the damage", async || life.target.batch_execute(damage).await.is_ok()).await;
    // Others refer to it; of the second, rows have no key.
    let request = life.on_target("select pgmig.resync_table('public.item')").await;
    writers.write_more(20).await;
    finish(&life.pgmig(&["table", "resync", "public.twins"]), "public.twins is copied and followed").await;
    let done = format!("select state = 'done' from pgmig.request where request_id = {request}");
    life.wait_for(&mut run, "the resync", &done).await;
    assert_eq!(life.on_target("select count(*) from item where id = -5 or label = 'damaged'").await, "0");
    writers.write_more(20).await;
    writers.stop().await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_in_a_resync_copies_the_table_again_before_it_applies() -> Outcome {
    let mut life = Life::begin(EXTENSION, writers::SCHEMA).await;
    life.allowed = writers::ALLOWED;
    let writers = Writers::start(&life.pair.source_uri(), 3, seed()).await;
    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &["--allow-insert-only"]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.on_target("select pgmig.resync_table('public.item')").await;
    stand_still(&life, &proxy, 1).await;
    life.kill(run).await;
    assert_eq!(life.on_target("select state from pgmig.request").await, "running");
    writers.write_more(20).await;
    let mut run = life.run_with(&["--allow-insert-only"]);
    life.wait_for(&mut run, "the resync", "select state = 'done' from pgmig.request").await;
    writers.stop().await;
    life.end(run).await;
    Ok(())
}

async fn finish(pgmig: &Pgmig, said: &str) {
    wait_until(Duration::from_secs(60), said, async || pgmig.stderr().contains(said)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_left_out_is_taken_in_under_load_with_the_extension() -> Outcome {
    add(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_left_out_is_taken_in_under_load_in_plain_sql() -> Outcome {
    add(PLAIN_WAL2JSON).await
}

async fn add(way: Way) -> Outcome {
    let life = Life::begin(
        way,
        r#"create table known (id int primary key, v text);
           insert into known select n, 'v' from generate_series(1, 500) n;
           create table "Left out" (id int generated always as identity primary key, known int references known,
                                    code text unique, body text, length int generated always as (length(body)) stored);
           create index on "Left out" (body);
           comment on table "Left out" is 'it''s here';
           insert into "Left out" (known, code, body) select n % 500 + 1, 'c' || n, md5(n::text) from generate_series(1, 9000) n"#,
    )
    .await;
    let filters = life.dir.path().join("filters.ini");
    std::fs::write(&filters, "[exclude-table]\npublic.\"Left out\"\n")?;
    let stop = Arc::new(AtomicBool::new(false));
    let (client, stopped) = (session(&life.pair.source_uri()).await, stop.clone());
    let writer = tokio::spawn(async move {
        let mut n = 0;
        while !stopped.load(Ordering::Relaxed) {
            n += 1;
            let sql = format!(
                "begin; update \"Left out\" set body = 'b {n}' where id = {0}; delete from \"Left out\" where id = {0} + 3000; \
                 insert into \"Left out\" (known, code, body) values ({n} % 500 + 1, 'new {n}', 'n'); \
                 update known set v = 'w {n}' where id = {n} % 500 + 1; commit",
                n * 7 % 3000
            );
            client.batch_execute(&sql).await.expect("a writer meets no error");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut run = life.run_with(&["--filters", &filters.display().to_string()]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    assert_eq!(life.on_target("select to_regclass('\"Left out\"') is null").await, "t");
    let nothing = life.pgmig(&["table", "add", "public.nothing"]).finish(&["error: the run did not add"]).await;
    nothing.expect_code(5);
    finish(&life.pgmig(&["table", "add", "public.\"Left out\""]), "is copied and followed").await;
    let again = life.pgmig(&["table", "add", "public.\"Left out\""]).finish(&["error: cannot add"]).await;
    assert!(again.expect_code(5).stderr.contains("pgmig.resync_table"));
    stop.store(true, Ordering::Relaxed);
    writer.await?;
    let made = "select count(*) = 1 from pg_constraint where contype = 'f' and convalidated and conrelid = '\"Left out\"'::regclass";
    life.wait_for(&mut run, "the foreign key", made).await;
    life.set_endpos(life.lsn().await).await;
    let said = ["warning: public.nothing is no table of the source"];
    run.finish(&said).await.expect_code(0);
    harness::assert_same(&life.pair).await;
    Ok(())
}
