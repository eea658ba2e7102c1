//! SIGINT and SIGTERM, wherever a run is: one ends it within ten seconds, whatever it waits for, a second one
//! at once; it says how to go on, and the same command does. Each run is held where it is to be met by a lock.

use std::time::{Duration, Instant};

use harness::Outcome;
use nix::sys::signal::Signal;
use tokio_postgres::Client;

use super::{EXTENSION, Life, PLAIN, PLAIN_WAL2JSON, session};

/// Whoever holds the lock holds up index builds, what apply writes and the view, on that server.
const GATED: &str = "
    create function gate(text) returns text language plpgsql immutable as
        $$ begin perform pg_catalog.pg_advisory_xact_lock_shared(4711); return $1; end $$;
    create table t (id int primary key, note text);
    insert into t select n, 'copied' from generate_series(1, 20) n;
    create index on t (public.gate(note));
    create materialized view seen as select id, public.gate(note) as note from t";
/// The target makes the view anew from what it has at the end.
const LATE: &str = "insert into t values (100000, 'late'); refresh materialized view seen";
const SHUT: &str = "select pg_advisory_lock(4711)";
const OPEN: &str = "select pg_advisory_unlock(4711)";
/// A session of the run waits at the gate, in a phase.
fn held(phase: &str) -> String {
    format!(
        "select phase = '{phase}' and exists (select from pg_stat_activity where application_name like 'pgmig %' \
         and wait_event = 'advisory') from pgmig.progress"
    )
}

/// One signal, then two, to runs that come to the same place.
async fn stopped_at(life: &Life, place: &str, args: &[&str], by: Signal, is_there: impl AsyncFn() -> bool) {
    for (signals, within) in [(1, Duration::from_secs(10)), (2, Duration::from_secs(4))] {
        let mut run = life.run_with(args);
        let began = Instant::now();
        // What the run before left behind may still be there.
        while run.stderr().is_empty() || !is_there().await {
            assert!(run.is_running(), "pgmig has ended before it was {place}:\n{}", run.stderr());
            assert!(began.elapsed() < Duration::from_secs(60), "it was never {place}:\n{}", run.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut asked = Instant::now();
        run.signal(by);
        if signals == 2 {
            while run.is_running() && !run.stderr().contains("once more stops at once") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            asked = Instant::now();
            run.signal(by);
        }
        let ended = run.finish(&[&["error: stopped"], life.allowed].concat()).await.expect_code(130);
        println!("{place}: {signals} of {by}: {:?}", asked.elapsed());
        assert!(asked.elapsed() < within, "{place}: {:?}\n{}", asked.elapsed(), ended.stderr);
        assert!(ended.stderr.contains("next: run the same command again"), "{place}:\n{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_run_within_ten_seconds_in_every_phase_and_a_second_one_at_once() -> Outcome {
    tokio::try_join!(at_the_beginning(), in_the_dump(), in_the_copy(), at_indexes(), while_following())?;
    Ok(())
}

async fn at_the_beginning() -> Outcome {
    let life = Life::begin(PLAIN, GATED).await;
    // The slot waits for every transaction that is open.
    let other = session(&life.pair.source_uri()).await;
    other.batch_execute("begin; select txid_current()").await?;
    let waits = "select exists (select from pg_stat_activity where wait_event = 'transactionid' and backend_type = 'walsender')";
    stopped_at(&life, "making the slot", &[], Signal::SIGINT, async || life.on_source(waits).await == "t").await;
    other.batch_execute("rollback").await?;
    // What is made on the target waits for somebody who makes the same.
    let other = session(&life.pair.target_uri()).await;
    other.batch_execute("begin; create table t ()").await?;
    let waits = "select exists (select from pg_stat_activity where wait_event = 'transactionid' and application_name like 'pgmig %')";
    stopped_at(&life, "in schema", &[], Signal::SIGTERM, async || life.on_target(waits).await == "t").await;
    other.batch_execute("rollback").await?;
    let run = life.follow().await;
    life.end(run).await;
    Ok(())
}

async fn in_the_dump() -> Outcome {
    let life = Life::begin(PLAIN, GATED).await;
    let other = session(&life.pair.source_uri()).await;
    // One whose rows nobody else looks at.
    life.on_source("create table root (id int) partition by range (id)").await;
    other.batch_execute("begin; lock table only root in access exclusive mode").await?;
    let dumps = "select count(*) filter (where wait_event_type = 'Lock') from pg_stat_activity where application_name = 'pg_dump'";
    // A slot would wait for the lock's transaction.
    let args = ["--no-follow", "--estimate-table-sizes"];
    stopped_at(&life, "in pg_dump", &args, Signal::SIGTERM, async || life.on_source(dumps).await != "0").await;
    other.batch_execute("rollback").await?;
    life.run_with(&args).finish(&[]).await.expect_code(0);
    harness::assert_same(&life.pair).await;
    Ok(())
}

async fn in_the_copy() -> Outcome {
    let life = Life::begin(EXTENSION, GATED).await;
    life.on_source("insert into t select n, repeat(md5(n::text), 30) from generate_series(21, 10000) n; refresh materialized view seen")
        .await;
    // One Part, at a rate that takes minutes.
    let copying = "select count(*) > 0 from pgmig.parts where state = 'copying' and bytes_done > 0";
    let there = async || life.try_value(copying).await.as_deref() == Some("t");
    stopped_at(&life, "in copy", &["--max-rate", "50kB"], Signal::SIGINT, there).await;
    let mut run = life.run_with(&["--max-rate", "0"]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}

async fn at_indexes() -> Outcome {
    let life = Life::begin(EXTENSION, GATED).await;
    let gate = gate(&life).await;
    stopped_at(&life, "in indexes", &[], Signal::SIGTERM, async || at(&life, "indexes").await).await;
    life.on_target("select pgmig.pause()").await;
    life.on_source(LATE).await;
    gate.batch_execute(OPEN).await?;
    let paused = "select phase = 'paused' and interrupted_phase = 'catchup' and running from pgmig.progress";
    let there = async || life.try_value(paused).await.as_deref() == Some("t");
    stopped_at(&life, "paused", &[], Signal::SIGINT, there).await;
    life.on_target("select pgmig.resume()").await;
    gate.batch_execute(SHUT).await?;
    stopped_at(&life, "in catchup", &[], Signal::SIGTERM, async || at(&life, "catchup").await).await;
    gate.batch_execute(OPEN).await?;
    let run = life.follow().await;
    life.end(run).await;
    Ok(())
}

async fn while_following() -> Outcome {
    let life = Life::begin(PLAIN_WAL2JSON, GATED).await;
    let mut run = life.follow().await;
    let gate = gate(&life).await;
    life.on_source(LATE).await;
    life.wait_for(&mut run, "apply to be held", &held("follow")).await;
    run.interrupt();
    run.wait(Duration::from_secs(10)).await.finish(&["error: stopped"]).expect_code(130);
    gate.batch_execute(OPEN).await?;
    let mut run = life.follow().await;
    life.wait_for(&mut run, "the row", "select exists (select from t where id = 100000)").await;
    // What comes last is done again on the target, from what was applied.
    gate.batch_execute(SHUT).await?;
    life.set_endpos(life.lsn().await).await;
    drop(run);
    stopped_at(&life, "in cutover", &[], Signal::SIGINT, async || at(&life, "cutover").await).await;
    gate.batch_execute(OPEN).await?;
    life.finish(life.run()).await;
    harness::assert_same(&life.pair).await;
    Ok(())
}

async fn gate(life: &Life) -> Client {
    let client = session(&life.pair.target_uri()).await;
    client.batch_execute(SHUT).await.expect("nobody else has the lock");
    client
}

async fn at(life: &Life, phase: &str) -> bool {
    life.try_value(&held(phase)).await.as_deref() == Some("t")
}
