//! DDL of the source, told in its stream: run on the target in its place between the changes, or stopped at
//! with the statement. Both databases are compared whole, schema and all.

use harness::{Outcome, assert_same};

use crate::life::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

const SCHEMA: &str = "
create table t (id int primary key, n int, v text);
insert into t select g, g, 'old' from generate_series(1, 500) g;
create table split (id int primary key) partition by range (id);
create table split_low partition of split for values from (0) to (1000);
create schema \"Odd\";
create table \"Odd\".\"T\" (\"K\" int primary key);
create table other (id int primary key)";

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
    let counts = "select string_agg(distinct state, ',') || ' ' || (count(*) > 15) from pgmig.ddl";
    assert_eq!(life.on_target(counts).await, "applied true");
    life.pgmig(&["cleanup", "--dir", &dir]).finish(&[]).await.expect_code(0);
    assert_eq!(life.on_source("select count(*) from pg_event_trigger").await, "0");
    assert_eq!(life.on_source("select count(*) from pg_namespace where nspname = 'pgmig'").await, "0");
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_is_in_doubt_or_not_wanted_stops_with_its_statement() -> Outcome {
    for (way, mode) in [(EXTENSION_WAL2JSON, "apply"), (PLAIN, "stop")] {
        let life = Life::begin(way, SCHEMA).await;
        let run = life.follow_with(&["--ddl", mode]).await;
        let statement = match mode {
            "apply" => "do $$ begin alter table public.t add u int; end $$",
            _ => "alter table public.t add u int",
        };
        life.on_source("update t set v = 'before' where id = 1").await;
        life.on_source(statement).await;
        life.on_source("update t set u = 5 where id = 2").await;
        let stopped = run.finish(&["error: "]).await.expect_code(6);
        assert!(stopped.stderr.contains(statement), "{}", stopped.stderr);
        assert!(stopped.stderr.contains("select pgmig.ddl_done();"), "{}", stopped.stderr);
        assert_eq!(life.on_target("select v from t where id = 1").await, "before", "what came before it is applied");
        // Nobody has seen to it: it stops again.
        life.run().finish(&["error: "]).await.expect_code(6);
        life.on_target("alter table public.t add u int").await;
        life.on_target("select pgmig.ddl_done()").await;
        let run = life.follow().await;
        life.end(run).await;
    }
    Ok(())
}
