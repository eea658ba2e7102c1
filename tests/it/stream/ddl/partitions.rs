//! Partitions that the source makes while it is followed.

use std::time::Duration;

use harness::Outcome;

use crate::life::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON};

const PARTITIONED: &str = "
create table sales (id int, day date, v text, primary key (id, day)) partition by range (day);
create table sales_1 partition of sales for values from ('2026-01-01') to ('2026-02-01');
create index on sales (v);
create table plain (id int primary key);
insert into sales select n, date '2026-01-01' + n % 30, 'v' || n from generate_series(1, 200) n";

/// Each a transaction, statement by statement.
const PARTITIONS: [&[&str]; 15] = [
    &["create table sales_2 partition of sales for values from ('2026-02-01') to ('2026-03-01')"],
    &["insert into sales select n, date '2026-02-01' + n % 20, 'two' from generate_series(1001, 1100) n"],
    &["update sales set v = v || '.', day = day + 31 where id % 7 = 0 and day < '2026-01-20'"],
    &[
        "begin",
        "insert into sales values (901, '2026-02-03', 'before')",
        "create table sales_3 partition of sales for values from ('2026-03-01') to ('2026-04-01')",
        "insert into sales values (1, '2026-03-01', 'at once'), (2, '2026-03-02', 'and gone'), (3, '2026-03-03', 'moves')",
        "delete from sales where v = 'and gone'",
        "create index on sales_3 (id, v)",
        "alter table sales_3 add constraint positive check (id > 0)",
        "update sales set day = '2026-02-14' where v = 'moves'",
        "commit",
    ],
    &[
        "begin",
        "create table sales_9 partition of sales for values from ('2026-09-01') to ('2026-10-01')",
        "insert into sales values (1, '2026-09-01', 'never')",
        "rollback",
    ],
    &[
        "begin",
        "savepoint s",
        "create table sales_9 partition of sales for values from ('2026-09-01') to ('2026-10-01')",
        "rollback to s",
        "create table sales_9 partition of sales for values from ('2026-09-01') to ('2026-09-11')",
        "insert into sales select n, date '2026-09-01' + n % 10, 'nine' from generate_series(1, 30000) n",
        "commit",
    ],
    &[
        "create table sales_4 partition of sales for values from ('2026-04-01') to ('2026-05-01') partition by list (id)",
    ],
    &["create index on sales_4 (v, id)", "alter table sales_4 add constraint four check (id > 0)"],
    &[
        "create table sales_6 partition of sales for values from ('2026-06-01') to ('2026-07-01') partition by list (id)",
        "drop table sales_6",
        "create table sales_6 partition of sales for values from ('2026-06-01') to ('2026-08-01')",
        "insert into sales values (6, '2026-07-07', 'six')",
    ],
    &[
        "begin",
        "create table sales_new partition of sales for values from ('2026-08-01') to ('2026-09-01')",
        "insert into sales values (7, '2026-08-07', 'seven')",
        "alter table sales_new rename to sales_8",
        "update sales set v = 'eight' where v = 'seven'",
        "commit",
    ],
    &["create table sales_4_rest partition of sales_4 default"],
    &["insert into sales select n, '2026-04-04', 'four' from generate_series(1, 20) n"],
    &["create index on sales_2 (day)"],
    &["truncate sales_2", "insert into sales values (5, '2026-02-05', 'after')"],
    &[
        "alter table sales add note text default 'none'",
        "update sales set note = v where id < 10",
        "drop table sales_1",
    ],
];

/// As they are made with the key of their table, whose rows are in the stream from the first on: no row of them is
/// copied, and nobody is asked.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_made_with_ddl_applied_are_followed_from_their_first_row() -> Outcome {
    for way in [EXTENSION, PLAIN, EXTENSION_WAL2JSON, PLAIN_WAL2JSON] {
        let mut life = Life::begin(way, PARTITIONED).await;
        let mut run = life.follow_with(&["--ddl", "apply"]).await;
        life.on_target("select pgmig.pause()").await;
        for transaction in PARTITIONS {
            for statement in transaction {
                life.on_source(statement).await;
            }
        }
        // Whoever looks at the catalogs meanwhile sees tables that apply has not come upon yet.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        life.on_target("select pgmig.resume()").await;
        let at = life.lsn().await;
        life.on_source("insert into plain values (1)").await;
        life.wait_for(&mut run, "the work", &format!("select replay_lsn >= '{at}' from pgmig.progress")).await;
        // One that comes while nobody follows, and with which the next run dies once the target has it.
        life.kill(run).await;
        life.on_source("create table sales_5 partition of sales for values from ('2026-05-01') to ('2026-06-01')")
            .await;
        life.on_source("insert into sales values (1, '2026-05-05', 'while nobody looked')").await;
        // And another one that takes a name.
        life.on_source("drop table sales_9").await;
        life.on_source("create table sales_9 partition of sales for values from ('2026-09-01') to ('2026-09-06')")
            .await;
        life.on_source("insert into sales values (1, '2026-09-05', 'in its place')").await;
        life.crash = "after large transaction".into();
        assert_eq!(life.run().finish(&[]).await.code(), 128 + 9);
        life.crash = String::new();
        let mut run = life.run();
        life.wait_for(&mut run, "its row", "select exists (select from sales where v = 'in its place')").await;
        let followed = "select string_agg(table_name || ' ' || copied_rows, ', ' order by table_name) from pgmig.part where snapshot = '3:3:'";
        assert_eq!(
            life.on_target(followed).await,
            "sales_2 0, sales_3 0, sales_4_rest 0, sales_5 0, sales_6 0, sales_8 0, sales_9 0",
            "{way:?}"
        );
        assert_eq!(life.on_target("select count(*) from pgmig.ddl where state <> 'applied'").await, "0", "{way:?}");
        life.end(run).await;
    }
    Ok(())
}

/// The role that makes them may have no rights on the publication, and they may come while their table is copied.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_made_by_others_while_their_table_is_copied_are_followed() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, PARTITIONED).await;
        for side in [&life.source, &life.target] {
            side.batch_execute("create role shop; create role reader; grant create on schema public to shop").await?;
        }
        life.on_source("alter table sales owner to shop").await;
        life.on_source("alter default privileges for role shop grant select, update on tables to public").await;
        life.on_source("alter default privileges for role shop grant insert on tables to reader with grant option")
            .await;
        life.on_source("insert into plain select generate_series(2, 200000)").await;
        let mut run = life.run_with(&["--ddl", "apply", "--max-rate", "1MB"]);
        life.wait_for(&mut run, "the copy", "select phase = 'copy' from pgmig.progress").await;
        // What reads or rewrites another partition meanwhile keeps nobody from it.
        let busy = crate::life::session(&life.pair.source_uri()).await;
        busy.batch_execute("begin; lock table sales_1").await?;
        life.on_source("set statement_timeout = '5s'").await;
        life.on_source("comment on table sales is 'all of them'").await;
        life.on_source("set role shop").await;
        life.on_source("create table sales_2 partition of sales for values from ('2026-02-01') to ('2026-03-01')")
            .await;
        life.on_source("insert into sales values (1, '2026-02-02', 'first'), (2, '2026-02-03', 'second')").await;
        life.on_source("reset role").await;
        busy.batch_execute("rollback").await?;
        life.on_source("update sales set v = 'changed', day = '2026-02-04' where v = 'second'").await;
        assert_eq!(life.on_target("select phase from pgmig.progress").await, "copy", "{way:?}");
        life.wait_for(&mut run, "its rows", "select count(*) = 2 from sales where day >= '2026-02-01'").await;
        let told = "select string_agg(tag || ' ' || state, ', ' order by at) from pgmig.ddl";
        assert_eq!(life.on_target(told).await, "COMMENT applied, CREATE TABLE applied", "{way:?}");
        // Its owner and privileges are compared too. Bounds that are computed may be others here: that is left to a person.
        life.on_source(
            "create table sales_x partition of sales for values from ('2027-01-01') to (date '2028-01-01' + (random() * 100000)::int)",
        )
        .await;
        life.on_source("insert into sales values (1, '2027-03-03', 'far off')").await;
        let stopped = run.finish(&["error: "]).await.expect_code(6);
        assert!(stopped.stderr.contains("on the source it is FOR VALUES FROM ('2027-01-01')"), "{}", stopped.stderr);
        let bound =
            life.on_source("select pg_get_expr(relpartbound, oid) from pg_class where relname = 'sales_x'").await;
        life.on_target(&format!("create table sales_x partition of sales {bound}")).await;
        life.on_target("select pgmig.ddl_done()").await;
        let mut run = life.run();
        life.wait_for(&mut run, "its row", "select exists (select from sales where v = 'far off')").await;
        life.end(run).await;
    }
    Ok(())
}

/// Each ends the run, or is told, before a row of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_more_than_their_statement_says_are_left_to_a_person() -> Outcome {
    let life = Life::begin(PLAIN, PARTITIONED).await;
    // Of this one the stream says less than what tells its rows apart.
    life.on_source(
        "create table odd (id int, n int, part int generated always as (n % 10) stored, primary key (id, part)) partition by list (id)",
    )
    .await;
    life.on_source("create table odd_1 partition of odd for values in (1)").await;
    life.on_source("alter table odd_1 replica identity full").await;
    let mut run = life.follow_with(&["--ddl", "apply"]).await;
    life.on_source("create table odd_2 partition of odd for values in (2)").await;
    life.on_source("insert into odd values (2, 1), (2, 2)").await;
    life.on_source("update odd set n = 12 where id = 2 and n = 2").await;
    let stopped = run.finish(&["error: "]).await.expect_code(6);
    assert!(stopped.stderr.contains("odd_2"), "{}", stopped.stderr);
    assert_eq!(life.on_target("select count(*) from pgmig.part where snapshot = '3:3:'").await, "0");
    life.on_source("alter table odd_2 replica identity full").await;
    life.on_target("create table odd_2 partition of odd for values in (2)").await;
    life.on_target("alter table odd_2 replica identity full").await;
    run = life.run();
    life.wait_for(&mut run, "its rows", "select count(*) = 2 from odd where id = 2").await;

    // An event trigger of theirs does what the statement does not say.
    life.on_source("create function guard() returns event_trigger language plpgsql as $$
        declare made record;
        begin
            for made in select objid::regclass as name from pg_event_trigger_ddl_commands() where command_tag = 'CREATE TABLE' loop
                execute format('alter table %s enable row level security', made.name);
            end loop;
        end $$").await;
    life.on_source(
        "create event trigger guard on ddl_command_end when tag in ('CREATE TABLE') execute function guard()",
    )
    .await;
    let make = "create table sales_2 partition of sales for values from ('2026-02-01') to ('2026-03-01')";
    life.on_source(make).await;
    life.on_source("insert into sales values (1, '2026-02-02', 'guarded')").await;
    let stopped = run.finish(&["error: "]).await.expect_code(6);
    assert!(stopped.stderr.contains("on the source it has row security"), "{}", stopped.stderr);
    life.on_source("drop event trigger guard").await;
    life.on_source("drop function guard").await;
    life.on_target(make).await;
    life.on_target("alter table sales_2 enable row level security").await;
    life.on_target("select pgmig.ddl_done()").await;
    run = life.run();
    life.wait_for(&mut run, "its row", "select exists (select from sales where v = 'guarded')").await;

    // A person drops one that a function has dropped, and another one takes its name.
    life.on_source("do $$begin drop table sales_1; end$$").await;
    let stopped = run.finish(&["error: "]).await.expect_code(6);
    assert!(stopped.stderr.contains("drop table sales_1"), "{}", stopped.stderr);
    life.on_target("drop table sales_1").await;
    life.on_target("select pgmig.ddl_done()").await;
    life.on_source("create table sales_1 partition of sales for values from ('2026-01-01') to ('2026-01-15')").await;
    life.on_source("insert into sales values (1, '2026-01-03', 'again')").await;
    run = life.run();
    life.wait_for(&mut run, "its row", "select exists (select from sales where v = 'again')").await;
    life.end(run).await;
    Ok(())
}
