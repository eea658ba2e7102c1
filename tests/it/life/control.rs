//! Steering a migration while it runs: endpos, pause and resume in SQL and on the command line, and
//! what progress and status say of it.

use std::time::{Duration, Instant};

use harness::faults::Proxy;
use harness::{Outcome, assert_same};

use super::{EXTENSION, Life, PLAIN, PLAIN_WAL2JSON, Way, value};

const TABLE: &str = "create table t (id int primary key, note text); \
                     insert into t select n, 'copied' from generate_series(1, 200) n";

#[tokio::test(flavor = "multi_thread")]
async fn setting_endpos_reaches_a_waiting_run_within_a_second() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, TABLE).await;
        let mut run = life.follow().await;
        life.on_source("insert into t values (1001, '')").await;
        life.wait_for(&mut run, "the row", "select exists (select from t where id = 1001)").await;
        let endpos = life.lsn().await;
        let start = Instant::now();
        life.set_endpos(endpos).await;
        life.wait_for(&mut run, "the end of follow", "select phase <> 'follow' from pgmig.progress").await;
        let reached = start.elapsed();
        life.finish(run).await;
        println!("{way:?}: reached after {reached:?}, ended after {:?}", start.elapsed());
        assert!(reached < Duration::from_millis(1500), "reached after {reached:?}");
        assert_same(&life.pair).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpos_that_is_passed_or_malformed_is_refused_and_changes_nothing() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    let passed = life.lsn().await;
    let mut run = life.follow().await;
    life.on_source("insert into t values (1001, '')").await;
    let applied = "select replay_lsn is not null from pgmig.progress";
    life.wait_for(&mut run, "the row", applied).await;
    let behind_replay = life.on_target("select replay_lsn - 1 from pgmig.progress").await;
    let untouched = async || {
        let found = life.on_target("select endpos is null and phase = 'follow' from pgmig.progress").await;
        assert_eq!(found, "t", "endpos is still open");
    };
    for lsn in [&passed, &behind_replay] {
        let refused = life.target.simple_query(&format!("select pgmig.set_endpos('{lsn}')")).await;
        let err = refused.expect_err("a position that is passed is refused");
        assert_eq!(err.code().map(|code| code.code()), Some("22023"), "{err:?}");
        let refused = life.pgmig(&["set-endpos", lsn]).finish(&["cannot set endpos"]).await.expect_code(2);
        assert_eq!(refused.stdout, "");
        assert!(refused.stderr.contains("is behind") && refused.stderr.contains("hint: "), "{}", refused.stderr);
        untouched().await;
    }
    for malformed in ["here", "0/", "0/1/2", "0/123456789", "-1"] {
        life.pgmig(&["set-endpos", malformed]).finish(&["error: "]).await.expect_code(2);
    }
    life.pgmig(&["set-endpos"]).finish(&["error: "]).await.expect_code(2);
    untouched().await;
    // Another migration is not there: that is another code.
    life.pgmig(&["set-endpos", "--name", "other", "FF/0"]).finish(&["cannot set endpos"]).await.expect_code(5);
    untouched().await;

    life.on_source("insert into t values (1002, '')").await;
    let set = life.pgmig(&["set-endpos", "--current"]).finish(&[]).await.expect_code(0);
    life.finish(run).await;
    assert_eq!(life.on_target("select endpos from pgmig.progress").await, set.stdout.trim());
    assert_same(&life.pair).await;
    let late = life.pgmig(&["set-endpos", "FF/0"]).finish(&["cannot set endpos"]).await.expect_code(5);
    assert!(late.stderr.contains("is done"), "{}", late.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_arrives_while_apply_is_paused_and_receiving_goes_on() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        no_row_arrives_while_paused(way).await;
    }
    Ok(())
}

async fn no_row_arrives_while_paused(way: Way) {
    let life = Life::begin(way, TABLE).await;
    let mut run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    assert_eq!(life.on_target("select phase || interrupted_phase from pgmig.progress").await, "pausedfollow");
    life.on_source("insert into t select n, 'late' from generate_series(1001, 1100) n").await;
    let lsn = life.lsn().await;
    life.on_source("insert into t values (1101, 'later')").await;
    let received = format!("select write_lsn >= '{lsn}' and flush_lsn >= '{lsn}' from pgmig.progress");
    life.wait_for(&mut run, "the stream to be received", &received).await;
    life.wait_for(&mut run, "the spool to grow", "select spool_bytes > 0 from pgmig.progress").await;
    assert_eq!(life.on_target("select count(*) from t").await, "200");
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "paused");
    // A paused run takes endpos, later ones too, and goes nowhere.
    life.set_endpos(&lsn).await;
    life.set_endpos("FF/0").await;
    assert_eq!(life.on_target("select count(*) from t").await, "200");

    // Killed while paused, it is paused when it comes back.
    life.kill(run).await;
    let mut run = life.run();
    life.wait_for(
        &mut run,
        "the stream to go on",
        "select stream_at > now() - interval '1 s' and source_lsn is not null from pgmig.sentinel",
    )
    .await;
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "paused");
    assert_eq!(life.on_target("select count(*) from t").await, "200");
    life.on_target("select pgmig.resume()").await;
    life.wait_for(&mut run, "the rows", "select exists (select from t where id = 1101)").await;
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "follow");

    // Open again, there is no end.
    life.on_target("select pgmig.set_endpos(null)").await;
    assert_eq!(life.on_target("select endpos is null from pgmig.progress").await, "t");
    life.on_source("insert into t values (1102, 'later')").await;
    life.wait_for(&mut run, "one more row", "select exists (select from t where id = 1102)").await;
    life.end(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_paused_during_the_copy_says_so_once_it_would_apply() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    let mut run = life.run();
    life.wait_for(&mut run, "the slot", "select startpos is not null from pgmig.progress").await;
    life.on_target("select pgmig.pause()").await;
    life.on_source("insert into t values (1001, 'during the copy')").await;
    let paused = "select phase = 'paused' and interrupted_phase = 'catchup' from pgmig.progress";
    life.wait_for(&mut run, "it to say that it is paused", paused).await;
    assert_eq!(life.on_target("select count(*) from t").await, "200");
    life.on_target("select pgmig.resume()").await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_moves_while_one_table_is_being_copied() -> Outcome {
    let life = Life::begin(
        EXTENSION,
        "create table big as select n, repeat(md5(n::text), 6) as body from generate_series(1, 150000) n; \
         alter table big add primary key (n); create table small (id int primary key); insert into small values (1)",
    )
    .await;
    let status = async |args: &[&str]| life.pgmig(&[&["status"], args].concat()).finish(&["no migration"]).await;
    let none = status(&[]).await.expect_code(5);
    assert!(none.stderr.contains("there is no migration on the target"), "{}", none.stderr);

    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, harness::DATABASE), &[]);
    let half =
        "select bytes_done > 0 and bytes_done < bytes from pgmig.parts where table_name = 'big' and state = 'copying'";
    life.wait_for(&mut run, "a part of the table", half).await;
    proxy.stall();
    let look = "select count(*) = 1 and bool_and(phase = 'copy' and bytes_done > 0 and bytes_done < bytes_total and tables_total = 2) \
                from pgmig.progress";
    life.wait_for(&mut run, "progress", look).await;
    let before: i64 = life.on_target("select bytes_done from pgmig.progress").await.parse()?;
    let during = status(&[]).await.expect_code(0);
    assert!(during.stdout.contains("copy") && during.stdout.contains("of 2"), "{}", during.stdout);
    proxy.go_on();
    life.wait_for(&mut run, "more of it", &format!("select bytes_done > {before} from pgmig.progress")).await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    let json: serde_json::Value = serde_json::from_str(&status(&["--json"]).await.expect_code(0).stdout)?;
    assert!(json["format"].is_number(), "{json}");
    assert_eq!((json["migrations"][0]["phase"].as_str(), json["migrations"][1].as_object()), (Some("follow"), None));

    life.end(run).await;
    let whole = "select bytes_done = bytes_total and tables_done = 2 and copied_rows = 150001 and phase = 'done' \
                 and done_at is not null and lag_bytes = 0 from pgmig.progress";
    assert_eq!(life.on_target(whole).await, "t");
    for view in ["parts where state = 'done' and table_name = 'big'", "steps where state = 'done'", "events"] {
        assert_ne!(life.on_target(&format!("select count(*) from pgmig.{view}")).await, "0", "{view}");
    }
    assert_eq!(life.on_target("select count(*) from pgmig.steps where state <> 'done'").await, "0");
    let after = status(&["--json"]).await.expect_code(0);
    let json: serde_json::Value = serde_json::from_str(&after.stdout)?;
    assert_eq!(json["migrations"][0]["phase"], "done");
    assert!(status(&[]).await.expect_code(0).stdout.contains("pgmig cleanup"));
    status(&["--name", "other"]).await.expect_code(5);
    value(&life.target, "select pgmig.version()").await;
    Ok(())
}
