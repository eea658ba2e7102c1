//! What becomes of objects that cannot be made: tried again once others exist, listed at the end where
//! the data are right without them, fatal where not.

use harness::Outcome;

use super::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_listed_or_fatal_by_what_it_means_for_the_data() -> Outcome {
    let scene = Scene::with(
        "create role stranger; create table t (id int primary key); insert into t values (1);
         grant select on t to stranger; comment on table t is 'commented';
         create materialized view never as select 1 / (id - 1) as wrong from t with no data;
         create function checked(n int) returns boolean language sql immutable as 'select true';
         alter database app set work_mem = '7MB'; alter role stranger in database app set work_mem = '7MB'",
        "select 1",
    )
    .await?;
    // Where the data are right without it, it is listed, with SQLSTATE and statement; then the same, fatal.
    let listed = [
        "could not make acl public.TABLE t: role \"stranger\" does not exist (42704)",
        "could not make database properties app",
    ];
    let stopped = scene.run(&["--no-follow", "--fail-fast"]).await.finish(&["error:"]).expect_code(4);
    assert!(stopped.stderr.contains("error: cannot make acl public.TABLE t\n"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("cause: `GRANT SELECT ON TABLE public.t TO stranger;`"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("(42704)"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("--no-owner --no-acl"), "{}", stopped.stderr);
    let done = scene.run(&["--no-follow"]).await.finish(&listed).expect_code(0);
    assert!(done.stderr.contains("could not be made: 2 objects"), "{}", done.stderr);
    assert!(done.stderr.contains("    `GRANT SELECT ON TABLE public.t TO stranger;`"), "{}", done.stderr);
    let failed =
        "select string_agg(concat_ws(' ', kind, sqlstate), '; ' order by name) from pgmig.steps where state = 'failed'";
    assert_eq!(scene.target(failed).await, "DATABASE PROPERTIES 42704; ACL 42704");
    let settings = "select setconfig from pg_db_role_setting where setdatabase > 0";
    assert_eq!(scene.target(settings).await, "{work_mem=7MB}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_failure_names_object_statement_and_what_to_do_and_the_run_goes_on_from_there() -> Outcome {
    let scene = Scene::with(
        "create role stranger; create schema s; create type s.mood as enum ('a', 'b');
         create table s.t (id int primary key, mood s.mood); alter table s.t owner to stranger; insert into s.t values (1, 'a')",
        "create schema s; create type s.mood as enum ('c')",
    )
    .await?;
    let refused = scene.run(&["--no-follow"]).await.finish(&["error:"]).expect_code(4);
    assert!(refused.stderr.contains("roles that the target does not have: stranger"), "{}", refused.stderr);
    assert!(refused.stderr.contains("create role \"stranger\";"), "{}", refused.stderr);
    scene.target("create role stranger").await;
    let stopped = scene.run(&["--no-follow"]).await.finish(&["error:"]).expect_code(4);
    assert!(stopped.stderr.contains("error: cannot make type s.mood\n"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("cause: `CREATE TYPE s.mood AS ENUM ( …`\n"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("(42710)") && stopped.stderr.contains("--drop-if-exists"), "{}", stopped.stderr);
    scene.target("drop type s.mood").await;
    scene.run(&["--no-follow"]).await.finish(&[]).expect_code(0);
    scene.assert_same().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_something_that_comes_later_is_made_once_that_is_there() -> Outcome {
    // The target lets `a` be made only once `z` is there, which the dump makes last.
    let scene = Scene::with(
        "create table a (id int primary key); create table z (id int primary key); create view over_a as select * from a;
         insert into a values (1); comment on view over_a is 'waits too'; create role r; comment on table z is 'last'",
        "create function guard() returns event_trigger language plpgsql as $$
         begin
             if to_regclass('public.a') is not null and to_regclass('public.z') is null then
                 raise undefined_table using message = 'z comes first';
             end if;
         end $$;
         create event trigger guard on ddl_command_end when tag in ('CREATE TABLE') execute function guard()",
    )
    .await?;
    scene.run(&["--no-follow"]).await.finish(&[]).expect_code(0);
    assert_eq!(scene.target("select count(*) from pgmig.steps where state <> 'done'").await, "0");
    scene.target("drop event trigger guard; drop function guard").await;
    scene.assert_same().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_refreshed_side_by_side_behind_those_they_read() -> Outcome {
    // Each takes a second; a reads b through a view and a function that no catalog knows to need it, d and e
    // stand alone.
    let scene = Scene::with(
        "create table t (id int primary key); insert into t values (1);
         create materialized view z as select id, pg_sleep(1)::text from t;
         create view y as select id from z;
         create function reads() returns bigint language plpgsql as $$ begin return (select count(*) from public.z); end $$;
         create materialized view a as select id, pg_sleep(1)::text from y;
         create materialized view b as select reads() as n;
         create materialized view d as select id, pg_sleep(1)::text from t;
         create materialized view e as select id, pg_sleep(1)::text from t;
         create index on a (id)",
        "select 1",
    )
    .await?;
    // One of the four waits for the lock on z.
    scene.run(&["--no-follow", "--restore-jobs", "4"]).await.finish(&[]).expect_code(0);
    scene.assert_same().await;
    let overlap =
        "select count(*) from pgmig.step one, pgmig.step other where one.stage = 'refresh' and other.stage = 'refresh'
                      and one.name in ('public.d', 'public.e') and other.name = 'public.z'
                      and one.started_at < other.finished_at and other.started_at < one.finished_at";
    assert_eq!(scene.target(overlap).await, "2");
    let behind = "select a.started_at >= z.finished_at from pgmig.step a, pgmig.step z
                   where a.name = 'public.a' and z.name = 'public.z' and a.stage = 'refresh' and z.stage = 'refresh'";
    assert_eq!(scene.target(behind).await, "t");
    assert_eq!(
        scene.target("select count(distinct tablename) from pg_stats where tablename in ('a', 'b', 'z')").await,
        "3"
    );
    Ok(())
}
