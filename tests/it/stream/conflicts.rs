//! Changes that do not fit the target's rows: refused, or counted and passed over, the same in both
//! flavours.

use harness::{Outcome, assert_same};

use super::{Life, WAYS, Way, do_all};

const MADE: &str = "create table t (id int primary key, u int unique, note text); \
                    insert into t select n, n, 'copied' from generate_series(1, 100) n; \
                    create table full_rows (a int, b text); alter table full_rows replica identity full; \
                    insert into full_rows select n, 'x' from generate_series(1, 10) n; \
                    create table keyed_full (id int primary key, v text); alter table keyed_full replica identity full; \
                    insert into keyed_full values (1, 'a'), (2, 'b'); \
                    create table \"Other One\" (\"Id\" int primary key)";

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_target_is_counted_and_passed_over() -> Outcome {
    for way in WAYS {
        passed_over(way).await;
    }
    Ok(())
}

async fn passed_over(way: Way) {
    let mut life = Life::begin(way, MADE).await;
    life.allowed = &["were passed over; see pgmig.conflicts"];
    let run = life.follow_with(&["--on-conflict", "warn"]).await;
    // Somebody has written to the target: rows are gone, and rows are there.
    life.on_target(
        "delete from t where id in (1, 2, 50); delete from full_rows where a = 3; \
         update keyed_full set v = 'other' where id = 1; \
         insert into t values (1000, 1000, 'in the way'), (1001, 70000, 'in the way'); insert into \"Other One\" values (7)",
    )
    .await;
    life.on_target("select pgmig.pause()").await;
    do_all(
        &life,
        &[
            "begin; insert into t values (999, 999, 'before'); update t set note = 'gone' where id = 1; insert into t values (1002, 1002, 'after'); commit",
            "delete from t where id = 2",
            "update full_rows set b = 'y' where a = 3; delete from full_rows where a = 3; update full_rows set b = 'z' where a = 4",
            "begin; insert into t values (990, 990, 'run'), (1000, -5, 'in the middle of a run'), (1005, 1005, 'run'); insert into \"Other One\" values (7), (8); update t set u = 70000 where id = 20; update t set note = 'fits' where id between 21 and 40; commit",
            "update keyed_full set v = 'c' where id = 1; update keyed_full set v = 'd' where id = 2",
            // More than one Batch: a transaction in pieces, the first of which meets a conflict.
            "begin; update t set note = 'gone' where id = 50; insert into t select n, n, 'many' from generate_series(100000, 160000) n; commit",
            "update t set note = 'last' where id = 100",
        ],
    )
    .await;
    let after = life.lsn().await;
    life.on_target("select pgmig.resume()").await;
    life.set_endpos(&after).await;
    let done = life.finish(run).await;
    let found = "select string_agg(concat_ws(' ', schema_name, table_name, kind, key_columns, changes), '; ' order by schema_name, table_name, kind) from pgmig.conflicts";
    assert_eq!(
        life.on_target(found).await,
        "public Other One insert_exists {Id} 1; public full_rows delete_missing {a,b} 1; public full_rows update_missing {a,b} 1; \
         public keyed_full update_missing {id,v} 1; public t delete_missing {id} 1; public t insert_exists {id} 1; public t update_exists {u} 1; public t update_missing {id} 2",
        "{way:?}"
    );
    assert_eq!(life.on_target("select bool_and(lsn is not null and lsn <= replay_lsn) and count(distinct lsn) > 3 from pgmig.conflict join pgmig.sentinel using (migration)").await, "t");
    assert_eq!(life.on_target("select conflicts from pgmig.progress").await, "9");
    assert!(done.stderr.contains("9 changes did not fit the target"), "{}", done.stderr);
    let status = life.pgmig(&["status"]).finish(&[]).await.expect_code(0);
    assert!(status.stdout.contains("9 changes were passed over"), "{}", status.stdout);
    // All else has arrived: what was passed over is all there is between them.
    life.on_target(
        "delete from keyed_full where id = 1; delete from t where id in (1000, 1001); delete from full_rows where a = 3; delete from t where id in (1, 50)",
    )
    .await;
    life.on_source("delete from t where id in (1, 2, 50, 1000); update t set u = 20 where id = 20").await;
    life.on_source("delete from full_rows where a = 3; delete from keyed_full where id = 1").await;
    assert_same(&life.pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_target_stops_the_run_unless_told_otherwise() -> Outcome {
    for way in [WAYS[0], WAYS[3]] {
        let life = Life::begin(way, MADE).await;
        let run = life.follow().await;
        life.on_target("delete from t where id = 1; insert into t values (1000, 1000, 'in the way')").await;
        do_all(&life, &["update t set note = 'secret value' where id = 1"]).await;
        let stopped = run.finish(&["error: "]).await.expect_code(6);
        assert!(stopped.stderr.contains("update of public.t finds no row with key (id)"), "{}", stopped.stderr);
        // Let pass by the next run, which was told to.
        let run = life.run_with(&["--on-conflict", "warn"]);
        do_all(&life, &["insert into t values (1000, 5000, 'secret value')", "delete from t where id = 1"]).await;
        life.set_endpos(life.lsn().await).await;
        let done = run.finish(&["passed over"]).await.expect_code(0);
        assert!(!done.stderr.contains("secret value") && !stopped.stderr.contains("secret value"), "{}", done.stderr);
        life.on_target("delete from t where id = 1000").await;
        life.on_source("delete from t where id = 1000").await;
        assert_same(&life.pair).await;
    }
    Ok(())
}
