//! The other ends of a run: without following, interrupted, refused because another runs, a change
//! that finds no row, and what cleanup leaves behind.

use std::time::Duration;

use harness::{Outcome, assert_same};

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, Way};

const TABLE: &str = "create table t (id serial primary key, note text); \
                     insert into t (note) select 'copied' from generate_series(1, 200)";

#[tokio::test(flavor = "multi_thread")]
async fn without_following_the_copy_is_all_and_the_source_is_left_alone() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        let life = Life::begin(way, TABLE).await;
        life.on_source("create sequence s increment 7; select nextval('s'), nextval('s')").await;
        life.on_source("create table keyless (a int); insert into keyless values (1), (1)").await;
        let run = life.run_with(&["--no-follow"]);
        life.finish(run).await;
        assert_same(&life.pair).await;
        assert_eq!(life.on_target("select nextval('s')").await, "15");
        let left = "select (select count(*) from pg_replication_slots) + (select count(*) from pg_publication)";
        assert_eq!(life.on_source(left).await, "0");
        let refused = life.target.simple_query("select pgmig.set_endpos('FF/0')").await;
        assert_eq!(refused.expect_err("there is nothing to stop").code().map(|code| code.code()), Some("55000"));
        life.run_with(&["--no-follow"]).finish(&[]).await.expect_code(0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_refused_and_an_interrupted_one_goes_on() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    let mut run = life.follow().await;
    let second = life.run().finish(&["another pgmig is running"]).await.expect_code(5);
    assert!(second.stderr.contains("another pgmig is running migration `default`"), "{}", second.stderr);
    let cleanup = life.pgmig(&["cleanup", "--force"]).finish(&["is running"]).await.expect_code(5);
    assert!(cleanup.stderr.contains("migration `default` is running"), "{}", cleanup.stderr);
    // The first one has not noticed.
    life.on_source("insert into t (note) values ('first')").await;
    life.wait_for(&mut run, "the row", "select count(*) = 201 from t").await;

    run.interrupt();
    let stopped = run.wait(Duration::from_secs(10)).await.finish(&["error: stopped"]).expect_code(130);
    assert!(stopped.stderr.contains("run the same command again"), "{}", stopped.stderr);
    assert_eq!(life.on_target("select phase = 'follow' and last_error is null from pgmig.progress").await, "t");
    life.on_source("insert into t (note) values ('while nobody ran'); delete from t where id = 1").await;
    let mut run = life.run();
    life.wait_for(&mut run, "the row", "select max(id) = 202 from t").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_leaves_nothing_of_pgmig_with_the_extension() -> Outcome {
    cleanup_leaves_nothing(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn cleanup_leaves_nothing_of_pgmig_in_plain_sql() -> Outcome {
    cleanup_leaves_nothing(PLAIN).await
}

async fn cleanup_leaves_nothing(way: Way) -> Outcome {
    let life = Life::begin(way, TABLE).await;
    let mut run = life.follow().await;
    run.interrupt();
    run.wait(Duration::from_secs(10)).await.finish(&["error: stopped"]).expect_code(130);
    let refused = life.pgmig(&["cleanup"]).finish(&["is not done"]).await.expect_code(5);
    assert!(refused.stderr.contains("phase follow") && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "1");
    assert_ne!(life.on_source("select count(*) from pg_publication").await, "0");
    let run = life.follow().await;
    life.end(run).await;

    let done = life.pgmig(&["cleanup"]).finish(&[]).await.expect_code(0);
    for removed in ["slot `pgmig_default`", "publications on the source", "schema pgmig on the target"] {
        assert!(done.stderr.contains(removed), "{removed}: {}", done.stderr);
    }
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "0");
    assert_eq!(life.on_source("select count(*) from pg_publication").await, "0");
    let left = "select (select count(*) from pg_namespace where nspname = 'pgmig') \
                + (select count(*) from pg_extension where extname like 'pgmig%')";
    assert_eq!(life.on_target(left).await, "0");
    assert_same(&life.pair).await;
    let again = life.pgmig(&["cleanup"]).finish(&[]).await.expect_code(0);
    assert_eq!(again.stderr, "nothing of pgmig was there\n");
    life.pgmig(&["status"]).finish(&["there is no migration"]).await.expect_code(5);
    // To migrate again would overwrite: it is refused before anything is changed.
    let refused = life.run().finish(&["the target already holds"]).await.expect_code(4);
    assert!(refused.stderr.contains("pgmig never overwrites"), "{}", refused.stderr);
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_by_force_gives_an_unfinished_migration_up() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    let run = life.follow().await;
    life.kill(run).await;
    life.pgmig(&["cleanup", "--force"]).finish(&[]).await.expect_code(0);
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "0");
    assert_eq!(life.on_target("select to_regnamespace('pgmig') is null").await, "t");
    // With the target empty again the same command begins anew, in the same folder.
    life.on_target("drop table t").await;
    life.on_source("update t set note = 'anew' where id < 50").await;
    let run = life.follow().await;
    life.on_source("update t set note = 'followed' where id < 5").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_finds_no_row_stops_the_run_with_the_extension() -> Outcome {
    a_change_that_finds_no_row(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_finds_no_row_stops_the_run_in_plain_sql() -> Outcome {
    a_change_that_finds_no_row(PLAIN).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_finds_no_row_stops_the_run_through_wal2json() -> Outcome {
    a_change_that_finds_no_row(EXTENSION_WAL2JSON).await
}

/// Nobody but pgmig writes to the target; when somebody does, it must be noticed.
async fn a_change_that_finds_no_row(way: Way) -> Outcome {
    let schema = "create schema \"My Shop\"; create table \"My Shop\".orders (\"Order Id\" int primary key, secret text); \
                  insert into \"My Shop\".orders select n, 'hush-' || n from generate_series(1, 100) n";
    let table = "\"My Shop\".orders";
    // What is done on the source, and what had been done on the target behind pgmig's back; how it is mended.
    let rows = [
        (
            format!("update {table} set secret = 'hush-new' where \"Order Id\" = 42"),
            format!("delete from {table} where \"Order Id\" = 42"),
            format!("insert into {table} values (42, 'hush-42')"),
            "Order Id",
        ),
        (
            format!("delete from {table} where \"Order Id\" = 43"),
            format!("delete from {table} where \"Order Id\" = 43"),
            format!("insert into {table} values (43, 'hush-43')"),
            "Order Id",
        ),
        (
            format!("insert into {table} values (4242, 'hush-4242')"),
            format!("insert into {table} values (4242, 'hush-other')"),
            format!("delete from {table} where \"Order Id\" = 4242"),
            "orders_pkey",
        ),
    ];
    let life = Life::begin(way, schema).await;
    let mut run = life.follow().await;
    for (round, (change, behind, mend, place)) in rows.into_iter().enumerate() {
        life.on_target(&behind).await;
        let first = format!("update {table} set secret = 'hush all, round {round}' where \"Order Id\" = 7");
        life.on_source(&format!("begin; {first}; {change}; commit")).await;
        let stopped = run.finish(&["error: cannot apply a batch"]).await.expect_code(6);
        // Of a duplicate the server names the constraint, of a missing row we name the key.
        for part in ["My Shop", "orders", place, "hint: "] {
            assert!(stopped.stderr.contains(part), "{part} is not in\n{}", stopped.stderr);
        }
        let error = life.on_target("select last_error from pgmig.progress").await;
        for said in [&stopped.stderr, &stopped.stdout, &error] {
            let told = ["hush", "42", "=43", "= 43", "(43"].iter().find(|value| said.contains(**value));
            assert_eq!(told, None, "a row's value is in\n{said}");
        }
        assert!(error.contains("orders"), "{error}");
        let at = "select phase || ' ' || interrupted_phase from pgmig.progress";
        assert_eq!(life.on_target(at).await, "failed follow");
        // Nothing of its transaction is there before the row is put back, and all of it after that.
        let there = format!("select count(*) = 1 from {table} where secret = 'hush all, round {round}'");
        assert_eq!(life.on_target(&there).await, "f");
        life.on_target(&mend).await;
        run = life.run();
        life.wait_for(&mut run, "the change to be applied", &there).await;
        assert_eq!(life.on_target("select phase = 'follow' and last_error is null from pgmig.progress").await, "t");
    }
    life.end(run).await;
    Ok(())
}
