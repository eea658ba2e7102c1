//! What is no row of a table and comes with a cutover all the same, and what is only named; what a rehearsal
//! says and leaves alone; who is spared.

use harness::{Outcome, assert_same};
use pgmig::embedded::Cluster;

use crate::life::{EXTENSION, Life, PLAIN, session};

#[tokio::test(flavor = "multi_thread")]
async fn what_no_stream_holds_is_carried_over_or_named_and_a_rehearsal_stops_nothing() -> Outcome {
    let mut life =
        Life::between(EXTENSION, Cluster::builder().setting("max_prepared_transactions", "2"), Cluster::builder())
            .await;
    life.on_target("create role app login; create role watcher login").await;
    for statement in super::SHOP.split(";\n").chain([
        "create role watcher login",
        "create unlogged table scratch (id int primary key)",
        "create unlogged table still (id int primary key)",
        "create materialized view hourly as select count(*) as notes from note",
        "select lo_from_bytea(7, 'as it was')",
    ]) {
        life.on_source(statement).await;
    }
    let run = life.follow().await;
    life.on_source("insert into note (client, number) select 1, n from generate_series(1, 5000) n").await;
    life.on_source("refresh materialized view notes").await;
    life.on_source("insert into scratch values (1)").await;
    life.on_source("select lo_put(7, 0, 'changed')").await;
    life.on_source("select pg_stat_force_next_flush()").await;

    // A prepared transaction could be committed afterwards.
    life.source
        .batch_execute("begin; insert into note (client, number) values (2, 1); prepare transaction 'held'")
        .await?;
    let cut = life.cutover(&[]).finish(&["error: the cutover was undone at step check"]).await.expect_code(3);
    assert!(cut.stderr.contains("`held`") && cut.stderr.contains("ROLLBACK PREPARED"), "{}", cut.stderr);
    assert!(!cut.stderr.contains("writes were stopped"), "{}", cut.stderr);
    life.on_source("commit prepared 'held'").await;

    // The rehearsal tells how long, and what would be missing; this session outlives it, and writes.
    let changed = "since the copy, and not carried over: unlogged table public.scratch, large objects";
    let tried = life.on_target("select count(*) from pgmig.cutover").await;
    let dry = life.cutover(&["--dry-run"]).finish(&[changed]).await.expect_code(0);
    for step in ["check", "prepare", "drain", "sequences", "finish", "writes would be stopped for about "] {
        assert!(dry.stderr.contains(step), "no {step}: {}", dry.stderr);
    }
    assert!(dry.stderr.contains(changed) && dry.stderr.contains("next: pgmig cutover"), "{}", dry.stderr);
    assert!(!dry.stderr.contains("public.still"), "it was not written to: {}", dry.stderr);
    assert_eq!(life.on_target("select count(*) from pgmig.cutover").await, tried, "no step was begun");
    assert_eq!(life.on_target("select phase || ' ' || (endpos is null) from pgmig.progress").await, "follow true");
    life.on_source("insert into note (client, number) values (3, 1)").await;
    assert_eq!(life.on_source("show default_transaction_read_only").await, "off");

    // A view that moves between the preparation and the freeze; a session that is spared.
    let watcher = life.as_role("watcher", &life.pair.source_uri());
    let watcher = session(&watcher).await;
    let pid = crate::life::value(&watcher, "select pg_backend_pid()").await;
    let psql = life.pair.source.bin_dir().path().join("psql");
    let refresh = format!(
        "hook:test $PGMIG_ACTION = undo || {} -qd {} -c 'refresh materialized view hourly'",
        psql.display(),
        life.pair.source_uri()
    );
    let cut = life.cutover(&["--freeze", &refresh, "--max-downtime", "60s", "--switch", "test $PGMIG_ACTION = undo"]);
    let cut = cut.finish(&["error: the cutover was undone at step switch", changed]).await.expect_code(1);
    assert!(cut.stderr.contains("1 materialized views had moved"), "{}", cut.stderr);
    let cut = life.cutover(&["--spare", "watcher", "--max-downtime", "60s"]).finish(&[changed]).await.expect_code(0);
    assert!(cut.stderr.contains("the source is read-only"), "{}", cut.stderr);
    assert_eq!(crate::life::value(&watcher, "select pg_backend_pid()").await, pid, "the spared session lives");
    run.finish(&["unlogged", "large objects are copied"]).await.expect_code(0);
    assert_eq!(life.on_target("select notes from hourly").await, "5002", "as it was refreshed on the source");

    // Statistics were there before writes were stopped.
    let fresh = "select bool_and(last_analyze < (select max(started_at) from pgmig.cutover where step = 'freeze'))
                   from pg_stat_user_tables where relname in ('note', 'quiet')";
    assert_eq!(life.on_target(fresh).await, "t");
    assert_eq!(life.on_target("select count(*) > 3 from pg_stats where tablename = 'note'").await, "t");

    // By hand, as it was told.
    life.again().await;
    life.on_target("insert into scratch values (1); select lo_put(7, 0, 'changed')").await;
    assert_same(&life.pair).await;
    Ok(())
}

/// Behind endpos its rows are in the stream, but not on the target; and a way back that is made without it lacks it.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_made_during_a_cutover_ends_it_or_is_carried_over() -> Outcome {
    let mut life = Life::shop(PLAIN).await;
    life.on_source("create table split (id int primary key) partition by range (id)").await;
    life.on_source("create table split_low partition of split for values from (0) to (100)").await;
    let mut run = life.follow_with(&["--ddl", "apply"]).await;

    // While the target's triggers wait to be as they were.
    let busy = session(&life.pair.target_uri()).await;
    busy.batch_execute("begin; lock table quiet in row exclusive mode").await?;
    let mut cut = life.cutover(&["--freeze", "none", "--max-downtime", "60s"]);
    let waits = "select exists (select from pgmig.cutover where step = 'finish' and state = 'running')";
    life.wait_for(&mut cut, "the finish", waits).await;
    life.on_source("create table split_late partition of split for values from (100) to (200)").await;
    life.on_source("insert into split values (150)").await;
    busy.batch_execute("rollback").await?;
    let cut = cut.finish(&["error: the cutover was undone"]).await.expect_code(1);
    assert!(cut.stderr.contains("the source was written to behind endpos"), "{}", cut.stderr);
    life.wait_for(&mut run, "its row", "select exists (select from split where id = 150)").await;

    let psql = life.pair.source.bin_dir().path().join("psql");
    let make = format!(
        "hook:test $PGMIG_ACTION = undo || {} -qd {} -c 'create table split_top partition of split for values from (200) to (300)' -c 'insert into split values (250)'",
        psql.display(),
        life.pair.source_uri()
    );
    let cut = life.cutover(&["--reverse", "--freeze", &make, "--max-downtime", "60s"]);
    let cut = cut.finish(&["error: the cutover was undone at step turn"]).await.expect_code(6);
    assert!(cut.stderr.contains("public.split_top was made while the way back was, which lacks it"), "{}", cut.stderr);
    life.cutover(&["--max-downtime", "60s"]).finish(&[]).await.expect_code(0);
    run.finish(&["the cutover was undone"]).await.expect_code(0);
    life.again().await;
    assert_eq!(life.on_target("select string_agg(id::text, ' ' order by id) from split").await, "150 250");
    assert_same(&life.pair).await;
    Ok(())
}
