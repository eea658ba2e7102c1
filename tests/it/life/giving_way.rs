//! A copy that gives way to the work of the source: while a probe is slow, and while a standby is behind. It
//! never stands still, comes back by itself, and does as it is told while it runs.

use std::time::{Duration, Instant};

use harness::{Outcome, Pgmig, wait_until};

use super::steered::slope;
use super::{EXTENSION, Life, PLAIN};

/// Forty megabytes, a query of the application whose time the test sets and which finds its table by name alone,
/// and one that writes.
const TABLES: &str = "create table big (id int primary key, body text); \
                      alter table big alter body set storage external; \
                      insert into big select n, repeat(md5(n::text), 32) from generate_series(1, 40000) n; \
                      create table t (id int primary key, note text); insert into t values (1, 'copied'); \
                      create table pace (ms float8 primary key); insert into pace values (5); \
                      create function application() returns int language sql volatile \
                          as $$ select 1 from (select pg_sleep(ms / 1000) from pace) slept $$; \
                      create function sly() returns int language sql as $$ delete from t returning id $$";
/// What the copy does while nobody is slow: at this rate it lasts.
const RATE: u32 = 2 << 20;
const LASTING: [&str; 6] = ["--max-rate", "2MB", "--split-tables-larger-than", "1MB", "--table-jobs", "3"];
const COPIED: &str = "select coalesce(sum(copied_bytes), 0) from pgmig.parts";
const COPYING: &str = "select copied_rows > 2000 from pgmig.progress";

async fn says(run: &Pgmig, what: &str) {
    wait_until(Duration::from_secs(60), what, async || run.stderr().contains(what)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_gives_way_while_the_probe_is_slow_and_comes_back() -> Outcome {
    let life = Life::begin(EXTENSION, TABLES).await;
    // Twenty times slower: no other work on the machine comes near that, and a hundred times does.
    let probe = ["--max-slowdown", "2000", "--probe", "select application()"];
    let mut run = life.run_with(&[&LASTING[..], &probe].concat());
    life.wait_for(&mut run, "the copy", COPYING).await;
    assert!(run.stderr().contains(" ms (p95) without the copy, which gives way above "), "{}", run.stderr());
    assert_eq!(life.on_target("select coalesce(gives_way, '-') from pgmig.progress").await, "-");

    life.on_source("update pace set ms = 1900").await;
    let half = format!("select load_max_rate <= {} and load_max_workers < 3 from pgmig.sentinel", RATE * 3 / 5);
    life.wait_for(&mut run, "it to give way", &half).await;
    let (start, mut copied) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(2) {
        copied.push((start.elapsed().as_secs_f64(), life.on_target(COPIED).await.parse()?));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    // It goes on, at half of the rate.
    let measured = slope(&copied) / f64::from(RATE);
    assert!((0.1..0.75).contains(&measured), "{measured:.3} of the rate");
    says(&run, "throttled: the source answers in ").await;
    let status = life.pgmig(&["status"]).finish(&[]).await.expect_code(0);
    assert!(status.stdout.contains("at most 2000 % slower"), "{}", status.stdout);
    assert!(status.stdout.contains("gives way: the source answers in "), "{}", status.stdout);

    life.on_source("update pace set ms = 5").await;
    let back = "select load_max_rate from pgmig.sentinel";
    let before: u64 = life.on_target(back).await.parse()?;
    let back = format!("select load_max_rate is null or load_max_rate > {before} * 1.3 from pgmig.sentinel");
    life.wait_for(&mut run, "it to come back", &back).await;
    // From here on the source may be as slow as it likes.
    life.pgmig(&["throttle", "--max-slowdown", "0"]).finish(&[]).await.expect_code(0);
    life.wait_for(&mut run, "it to be let go", "select gives_way is null from pgmig.sentinel").await;
    says(&run, "the copy does not give way any more").await;
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "copy");
    life.on_target("select pgmig.throttle(max_rate => 0)").await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    // Nothing is left of it on the source.
    let probing = "select count(*) from pg_stat_activity where application_name = 'pgmig probe'";
    wait_until(Duration::from_secs(10), "no probe", async || life.on_source(probing).await == "0").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_gives_way_while_a_standby_is_behind() -> Outcome {
    let life = Life::begin(PLAIN, TABLES).await;
    life.on_source("select pg_create_physical_replication_slot('standby', true)").await;
    let standby = life.pair.source.standby("standby", &[]).await?;
    let mut run = life.run_with(&[&LASTING[..], &["--max-standby-lag", "1500ms"]].concat());
    life.wait_for(&mut run, "the copy", COPYING).await;
    assert_eq!(life.on_target("select gives_way is null from pgmig.progress").await, "t");
    standby.sql("postgres", "select pg_wal_replay_pause()").await?;
    life.on_source("update t set note = 'not on the standby'").await;
    let behind = "select gives_way like 'standby `walreceiver` is % behind the source: at most %' from pgmig.progress";
    life.wait_for(&mut run, "it to give way", behind).await;
    standby.sql("postgres", "select pg_wal_replay_resume()").await?;
    life.wait_for(&mut run, "it to come back", "select gives_way is null from pgmig.progress").await;
    life.on_target("select pgmig.throttle(max_rate => 0)").await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_cannot_run_is_told_and_the_copy_keeps_to_its_fixed_limits() -> Outcome {
    let mut life = Life::begin(EXTENSION, TABLES).await;
    life.allowed = &["the copy cannot give way, and keeps to its fixed limits: "];
    let probe = ["--max-slowdown", "900", "--probe", "select 1 from nowhere"];
    let mut run = life.run_with(&[&LASTING[..], &probe].concat());
    life.wait_for(&mut run, "the copy", COPYING).await;
    says(&run, "relation \"nowhere\" does not exist").await;
    // None writes, whatever it is.
    life.on_target("select pgmig.throttle(probe => 'select sly()')").await;
    says(&run, "in a read-only transaction").await;
    life.on_target("select pgmig.throttle(probe => 'vacuum t')").await;
    says(&run, "the probe is no query").await;
    // Pgmig's own runs anywhere.
    let own = life.pgmig(&["throttle", "--probe", "", "--max-slowdown", "5000"]).finish(&[]).await.expect_code(0);
    assert!(own.stderr.contains("when pgmig's own probe takes more than 5000 % longer"), "{}", own.stderr);
    says(&run, " ms (p95) without the copy, which gives way above ").await;
    life.on_target("select pgmig.throttle(max_rate => 0, max_slowdown => 0)").await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}
