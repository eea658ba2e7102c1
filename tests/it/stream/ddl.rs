//! DDL of the source, told in its stream: run on the target in its place between the changes, or stopped at
//! with the statement. Both databases are compared whole, schema and all.

mod partitions;
mod roles;

use harness::{Outcome, assert_same};

use crate::life::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

const SCHEMA: &str = "
create table t (id int primary key, n int, v text);
insert into t select g, g, 'old' from generate_series(1, 500) g;
create table split (id int primary key) partition by range (id);
create table split_low partition of split for values from (0) to (1000);
create schema \"Odd\";
create table \"Odd\".\"T\" (\"K\" int primary key);
create table other (id int primary key);
create table doomed (id int primary key);
insert into doomed select generate_series(1, 10);
create role reader;
create type mood as enum ('sad', 'glad');
create table felt (id int primary key, m mood[]);
create function quiet() returns trigger language plpgsql as $$ begin return new; end $$";

/// Each a transaction.
const WORK: &[&str] = &[
    "alter table t add column note text default 'none'",
    "insert into t values (1001, 1, 'a', 'b'); update t set note = 'changed' where id = 7",
    "alter table t rename column v to value",
    "update t set value = 'renamed' where id between 10 and 20",
    "alter table t alter column n type bigint",
    "update t set n = 5000000000 where id = 6",
    "alter table t alter n type numeric(20, 2) using n * 2",
    "alter table t drop column note",
    "delete from t where id = 9",
    "create index t_value on t (value, n)",
    "create unique index \"T n\" on t (n) where id < 400",
    "drop index t_value",
    "alter index \"T n\" rename to t_n",
    "insert into t values (1002, -1, 'x'); alter table t add a int; update t set a = 1 where id < 30; insert into t (id, a) values (1003, 3)",
    "set search_path = \"Odd\"; alter table \"T\" add \"X\" date default '2020-01-02'",
    "insert into \"Odd\".\"T\" select g from generate_series(1, 50) g",
    "alter table split add x int default 3",
    "insert into split select g, g from generate_series(1, 50) g",
    "alter table other add gone int",
    "insert into other values (1, 2)",
    "comment on table t is 'one;two'",
    "comment on column \"Odd\".\"T\".\"K\" is 'the key'",
    "create trigger fires before update on t for each row execute function quiet()",
    "comment on trigger fires on t is 'it''s quiet'",
    "alter trigger fires on t rename to fired",
    "create trigger gone before insert on t for each row execute function quiet()",
    "drop trigger gone on t",
    "create policy own on t using (id > 0)",
    "alter policy own on t using (id > 1)",
    "create policy gone on t using (true)",
    "drop policy gone on t",
    "create rule told as on insert to \"Odd\".\"T\" do also notify told",
    "create rule gone as on delete to \"Odd\".\"T\" do also notify told",
    "drop rule gone on \"Odd\".\"T\"",
    "create statistics pair on id, n from t",
    "create statistics gone on id, value from t",
    "drop statistics gone",
    "comment on statistics pair is 'both'",
    "create index concurrently beside on t (value)",
    "create index concurrently gone on t (n, value)",
    "drop index concurrently gone",
    "grant select, update (n) on t to reader",
    "grant all on \"Odd\".\"T\", split to reader",
    "begin; grant select on doomed to reader; savepoint s; revoke update on split from reader; commit",
    "insert into doomed values (11)",
    "drop table doomed",
    "update t set n = n where id < 5",
];

/// One transaction, statement by statement, as an application sends it.
const MIXED: &[&str] = &[
    "begin",
    "insert into t (id, n, value) select g, -g, 'mixed' from generate_series(2000, 9000) g",
    "alter table t add b int not null default 7",
    "update t set b = id where id % 3 = 0",
    "savepoint s",
    "alter table t add never int",
    "insert into t (id, never) values (1, 1) on conflict (id) do update set never = 1",
    "rollback to s",
    "alter table t rename column b to c",
    "insert into t (id, c) values (9001, 1), (9002, 2)",
    "alter table t alter column c type text",
    "update t set c = 'x' || c where id = 9001",
    "truncate split",
    "alter table split drop column x",
    "insert into split values (5)",
    "commit",
    "begin",
    "alter table t drop column c",
    "insert into t (id) values (9999)",
    "rollback",
    "insert into t (id, c) values (9003, 'after')",
];

async fn work(life: &Life) {
    for statement in WORK.iter().chain(MIXED) {
        // One statement a message, but where several are meant to be one transaction.
        let pieces: Vec<&str> = statement.split("; ").collect();
        let one = pieces.len() > 1 && !statement.starts_with("set ");
        if one {
            life.on_source("begin").await;
        }
        for piece in &pieces {
            life.on_source(piece).await;
        }
        if one {
            life.on_source("commit").await;
        }
        if statement.starts_with("set ") {
            life.on_source("reset search_path").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_is_applied_in_its_place_with_the_extension() -> Outcome {
    applied(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn ddl_is_applied_in_its_place_in_plain_sql() -> Outcome {
    applied(PLAIN_WAL2JSON).await
}

async fn applied(way: Way) -> Outcome {
    let mut life = Life::begin(way, SCHEMA).await;
    life.on_target("create role reader").await;
    let filters = life.dir.path().join("filters");
    std::fs::write(&filters, "[exclude-table]\npublic.other\n")?;
    let filters = filters.display().to_string();
    let run = life.follow_with(&["--ddl", "apply", "--filters", &filters]).await;
    work(&life).await;
    let at = life.lsn().await;
    let mut run = run;
    life.wait_for(
        &mut run,
        "the DDL",
        &format!("select replay_lsn >= '{at}' or spool_bytes = 0 and write_lsn >= '{at}' from pgmig.progress"),
    )
    .await;
    // The process dies in the middle of such a transaction, and does all of it again.
    life.kill(run).await;
    for statement in [
        "begin",
        "insert into t (id, c) select g, 'again' from generate_series(10000, 40000) g",
        "alter table t add z int",
        "update t set z = 1 where id > 30000",
        "commit",
    ] {
        life.on_source(statement).await;
    }
    life.crash = "before large transaction".into();
    assert_eq!(life.run().finish(&[]).await.code(), 128 + 9);
    life.crash = String::new();
    // It is remembered that DDL is applied.
    let run = life.follow().await;
    life.on_source("alter table t add last text").await;
    life.on_source("drop table other").await;
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    let dir = life.dir.path().display().to_string();
    let counts = "select string_agg(distinct state, ',') || ' ' || (count(*) > 40) from pgmig.ddl";
    assert_eq!(life.on_target(counts).await, "applied true");
    life.pgmig(&["cleanup", "--dir", &dir]).finish(&[]).await.expect_code(0);
    assert_eq!(life.on_source("select count(*) from pg_event_trigger").await, "0");
    assert_eq!(life.on_source("select count(*) from pg_namespace where nspname = 'pgmig'").await, "0");
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_is_in_doubt_stops_with_its_statement() -> Outcome {
    let life = Life::begin(EXTENSION_WAL2JSON, SCHEMA).await;
    let mut run = life.follow_with(&["--ddl", "apply"]).await;
    // What the source does, what stands in the error, and what is done about it.
    for (statement, words, mended) in [
        (
            "do $$ begin alter table public.t add u int; end $$",
            "by another statement",
            "alter table public.t add u int",
        ),
        (
            "alter type mood add value 'new' before 'glad'",
            "columns of public.felt are of that type",
            "alter type mood add value 'new' before 'glad'",
        ),
        (
            "grant select on t to reader",
            "role \"reader\" does not exist",
            "create role reader; grant select on t to reader",
        ),
        (
            "create trigger a before insert on t for each row execute function later(); ",
            "function later() does not exist",
            "create function later() returns trigger language plpgsql as 'begin return new; end'; create trigger a before insert on t for each row execute function later()",
        ),
        (
            "alter table t add s serial",
            "values that the source has computed for column s",
            "alter table t add s serial",
        ),
    ] {
        life.on_source("update t set v = v || '.' where id = 1").await;
        if statement.contains("later()") {
            life.on_source("create function later() returns trigger language plpgsql as 'begin return new; end'").await;
        }
        life.on_source(statement).await;
        life.on_source("update t set n = n + 1 where id = 2").await;
        let stopped = run.finish(&["error: "]).await.expect_code(6);
        assert!(stopped.stderr.contains(statement.trim_end_matches([' ', ';'])), "{}", stopped.stderr);
        assert!(stopped.stderr.contains(words), "{}", stopped.stderr);
        assert!(stopped.stderr.contains("select pgmig.ddl_done();"), "{}", stopped.stderr);
        assert_eq!(
            life.on_target("select v from t where id = 1").await,
            life.on_source("select v from t where id = 1").await,
            "what came before it is applied"
        );
        // Nobody has seen to it: it stops again.
        life.run().finish(&["error: "]).await.expect_code(6);
        life.target.batch_execute(mended).await?;
        life.on_target("select pgmig.ddl_done()").await;
        run = life.follow().await;
    }
    // The values that the source gave a column are copied again; its sequence comes along at the end.
    life.on_source("select nextval('t_s_seq')").await;
    life.on_target("select pgmig.resync_table('public.t')").await;
    life.wait_for(&mut run, "the copy", "select state = 'done' from pgmig.request").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_is_not_wanted_stops_with_its_statement() -> Outcome {
    let life = Life::begin(PLAIN, SCHEMA).await;
    let run = life.follow_with(&["--ddl", "stop"]).await;
    let statement = "comment on table public.t is 'the first'";
    life.on_source("update t set v = 'before' where id = 1").await;
    life.on_source("create view seen as select * from t").await;
    life.on_source(statement).await;
    life.on_source("update t set n = 5 where id = 2").await;
    let stopped = run.finish(&["error: "]).await.expect_code(6);
    assert!(stopped.stderr.contains(statement), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("select pgmig.ddl_done();"), "{}", stopped.stderr);
    assert_eq!(life.on_target("select v from t where id = 1").await, "before", "what came before it is applied");
    life.on_target(statement).await;
    life.on_target("select pgmig.ddl_done()").await;
    life.on_source("drop view seen").await;
    let run = life.follow().await;
    life.end(run).await;
    assert_eq!(
        life.on_target("select string_agg(tag || ' ' || state, ', ' order by at) from pgmig.ddl").await,
        "CREATE VIEW left, COMMENT done, DROP VIEW left"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_on_what_the_migration_does_not_hold_is_written_down_and_told_at_the_cutover() -> Outcome {
    for way in [PLAIN_WAL2JSON, EXTENSION] {
        let mut life = Life::begin(way, SCHEMA).await;
        let run = life.follow_with(&["--ddl", "apply", "--leave-new-tables"]).await;
        const LEFT: [(&str, &str); 9] = [
            ("CREATE TABLE", "create table fresh (id serial primary key)"),
            ("CREATE TABLE AS", "create table made as select 1 as a"),
            ("SELECT INTO", "select 2 as b into chosen"),
            ("CREATE VIEW", "create view seen as select * from t"),
            ("CREATE FUNCTION", "create function one() returns int language sql as 'select 1'"),
            ("CREATE SCHEMA", "create schema later"),
            ("CREATE SEQUENCE", "create sequence counts"),
            ("GRANT", "grant usage on schema later to reader"),
            ("DROP SEQUENCE", "drop sequence counts"),
        ];
        for (_, statement) in LEFT {
            life.on_source(statement).await;
        }
        // None of these are told.
        life.on_source("create temp table passing (id int primary key)").await;
        life.on_source("alter table fresh add x int").await;
        life.on_source("drop table passing").await;
        life.on_source("update t set n = 1 where id = 1").await;
        let at = life.lsn().await;
        let mut run = run;
        life.wait_for(
            &mut run,
            "the change",
            &format!("select replay_lsn >= '{at}' or spool_bytes = 0 and write_lsn >= '{at}' from pgmig.progress"),
        )
        .await;
        let told = "select string_agg(tag, ', ' order by at) from pgmig.ddl where state = 'left'";
        let tags: Vec<&str> = LEFT.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(life.on_target(told).await, tags.join(", "));
        let told = "select count(*) from pgmig.events where level = 'warn' and message like 'CREATE TABLE on the source is not carried over: public.fresh%'";
        assert_eq!(life.on_target(told).await, "1");
        for statement in
            ["drop table fresh, made, chosen", "drop view seen", "drop function one()", "drop schema later"]
        {
            life.on_source(statement).await;
        }
        let dir = life.dir.path().display().to_string();
        let cut = life.pgmig(&["cutover", "--dir", &dir, "--max-downtime", "60s"]);
        let cut = cut.finish(&["DDL of the source that is not carried over"]).await.expect_code(0);
        assert!(cut.stderr.contains("where state = 'left'"), "{}", cut.stderr);
        life.finish(run).await;
        life.connect_again().await;
        assert_same(&life.pair).await;
    }
    Ok(())
}
