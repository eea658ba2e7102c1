//! DDL on the source while it is followed: apply stops before the first row of the new form, says which
//! statements the target lacks, and goes on once they were run there.

use std::time::Duration;

use harness::{Outcome, Pgmig, assert_same, wait_until};

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, WAYS, Way, do_all};

const MADE: &str = "create table t (id int primary key, note text, n int, body text); alter table t alter body set storage external; \
                    insert into t select n, 'copied', n, repeat('x', 5000) from generate_series(1, 50) n; \
                    create table other (id int primary key, v text)";

/// Waits for the stop, and gives the statements that the hint names.
async fn stops(life: &Life, run: Pgmig, about: &str) -> String {
    let stopped = run.finish(&["error: "]).await.expect_code(6);
    assert!(stopped.stderr.contains(about), "{about}: {}", stopped.stderr);
    let hint = stopped.stderr.split("hint: ").nth(1).unwrap_or_else(|| panic!("no hint: {}", stopped.stderr));
    let mut statements: Vec<&str> =
        hint.lines().skip(1).map(str::trim).filter(|line| !line.starts_with("--")).collect();
    statements.retain(|line| !line.is_empty());
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "failed");
    statements.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_go_and_change_are_named_and_followed() -> Outcome {
    for way in WAYS {
        columns_are_followed(way).await;
    }
    Ok(())
}

async fn columns_are_followed(way: Way) {
    let life = Life::begin(way, MADE).await;
    let run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    // Old rows and new ones wait together in the spool.
    do_all(
        &life,
        &[
            "insert into t values (100, 'old form', 1, 'b')",
            "insert into other values (1, 'before')",
            "alter table t add column added int not null default 7, add column \"Odd one\" text",
            "begin; insert into other values (2, 'with it'); insert into t values (101, 'new form', 1, 'b', 8, 'x'); commit",
            "update t set added = 9 where id = 5",
        ],
    )
    .await;
    life.on_target("select pgmig.resume()").await;
    let ddl = stops(&life, run, "public.t was altered").await;
    assert_eq!(
        ddl,
        "alter table \"public\".\"t\" add column \"added\" integer default 7 not null;\nalter table \"public\".\"t\" add column \"Odd one\" text;"
    );
    // Everything before that transaction is there, and nothing of it.
    assert_eq!(life.on_target("select max(id) from t").await, "100");
    assert_eq!(life.on_target("select max(id) from other").await, "1");
    life.target.batch_execute(&ddl).await.expect("the DDL that was named is what the target lacks");

    let run = life.follow().await;
    do_all(
        &life,
        &[
            "alter table t drop column note",
            "update t set n = -1 where id = 6; update t set id = 200 where id = 7",
            "delete from t where id = 8",
            "insert into t (id, n) values (102, 2)",
        ],
    )
    .await;
    let ddl = stops(&life, run, "public.t was altered").await;
    assert_eq!(ddl, "alter table \"public\".\"t\" drop column \"note\";");
    life.target.batch_execute(&ddl).await.expect("the DDL that was named is what the target lacks");

    let run = life.follow().await;
    do_all(
        &life,
        &[
            "update t set n = n + 1 where id < 20",
            "alter table t rename column n to number",
            "update t set number = 0 where id = 9",
        ],
    )
    .await;
    let ddl = stops(&life, run, "public.t was altered").await;
    assert_eq!(ddl, "alter table \"public\".\"t\" rename column \"n\" to \"number\";");
    life.target.batch_execute(&ddl).await.expect("the DDL that was named is what the target lacks");

    // A type that changes is in no row: it is looked for.
    let run = life.follow().await;
    do_all(&life, &["alter table t alter column number type bigint"]).await;
    let ddl = stops(&life, run, "public.t was altered").await;
    assert_eq!(ddl, "alter table \"public\".\"t\" alter column \"number\" type bigint;");
    life.target.batch_execute(&ddl).await.expect("the DDL that was named is what the target lacks");
    do_all(&life, &["update t set number = 9007199254740993 where id = 10"]).await;
    let run = life.follow().await;
    do_all(&life, &["alter table other add column late int"]).await;
    life.set_endpos(life.lsn().await).await;
    // No row of it was written; at the end it counts all the same.
    let ddl = stops(&life, run, "public.other was altered").await;
    life.target.batch_execute(&ddl).await.expect("the DDL that was named is what the target lacks");
    let run = life.run();
    life.finish(run).await;
    assert_same(&life.pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_cannot_travel_in_binary_makes_the_stream_text() -> Outcome {
    let life = Life::begin(EXTENSION, MADE).await;
    let run = life.follow().await;
    let binary = "select query like '%binary%' from pg_stat_activity where backend_type = 'walsender'";
    wait_until(Duration::from_secs(30), "a stream in binary", async || life.on_source(binary).await == "t").await;
    life.on_target("select pgmig.pause()").await;
    let made = "create type mood as enum ('sad', 'glad')";
    life.target.batch_execute(made).await.expect("the target takes the type too");
    do_all(
        &life,
        &[
            made,
            // The same row in both forms, in one Batch; and a transaction that is begun again.
            "update t set n = 1000 where id = 1",
            "begin; insert into other values (1, 'before'); \
             alter table t add column m mood, add column list mood[]; \
             update t set n = n + 1, m = 'glad', list = '{sad,glad}' where id < 20; commit",
            "update t set n = n + 1, m = 'sad' where id < 10; delete from t where id = 2",
        ],
    )
    .await;
    wait_until(Duration::from_secs(30), "a stream of text", async || life.on_source(binary).await == "f").await;
    life.on_target("select pgmig.resume()").await;
    let ddl = stops(&life, run, "public.t was altered").await;
    assert_eq!(life.on_target("select n from t where id = 1").await, "1000");
    life.target.batch_execute(&ddl).await.expect("the DDL that was named is what the target lacks");
    let run = life.follow().await;
    wait_until(Duration::from_secs(30), "a stream of text", async || life.on_source(binary).await == "f").await;
    do_all(&life, &["update t set list = array_append(list, 'sad'::mood) where id = 3"]).await;
    life.end(run).await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_new_becomes_part_of_the_migration_once_the_target_has_it() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON, PLAIN, EXTENSION_WAL2JSON] {
        let life = Life::begin(way, MADE).await;
        let run = life.follow().await;
        do_all(
            &life,
            &[
                "insert into other values (1, 'before')",
                "create table \"New One\" (id serial primary key, \"V\" text default 'd')",
                "insert into \"New One\" (\"V\") select 'early' from generate_series(1, 100)",
                "update \"New One\" set \"V\" = 'changed' where id < 5",
                "insert into other values (2, 'after')",
            ],
        )
        .await;
        let ddl = stops(&life, run, "public.\"New One\"").await;
        assert!(ddl.contains("CREATE TABLE public.\"New One\" ("), "{ddl}");
        // Again, and it says so again.
        let ddl_again = stops(&life, life.run(), "public.\"New One\"").await;
        assert_eq!(ddl, ddl_again);
        life.target.batch_execute(&format!("set search_path = public; {ddl}")).await.expect("the DDL is whole");
        // What fires always would do again what it did on the source.
        life.on_target(
            "create rule r as on insert to \"New One\" do also notify x; alter table \"New One\" enable always rule r",
        )
        .await;
        let refused = life.run().finish(&["error: "]).await.expect_code(4);
        assert!(refused.stderr.contains("rule r"), "{}", refused.stderr);
        // A view of that name holds no rows.
        life.on_target("alter table \"New One\" rename to kept; create view \"New One\" as select * from kept").await;
        let refused = life.run().finish(&["error: "]).await.expect_code(4);
        assert!(refused.stderr.contains("none on the target"), "{}", refused.stderr);
        life.on_target("drop view \"New One\"; alter table kept rename to \"New One\"").await;
        // So does none in the place of a table that was planned from the first.
        life.on_target("alter table other rename to kept; create view other as select * from kept").await;
        let refused = life.run().finish(&["error: "]).await.expect_code(4);
        assert!(refused.stderr.contains("public.other is a table on the source and none"), "{}", refused.stderr);
        life.on_target("drop view other; alter table kept rename to other").await;
        life.on_target("drop rule r on \"New One\"").await;
        do_all(&life, &["delete from \"New One\" where id = 9"]).await;
        let mut run = life.run();
        let copied = "select exists (select from pgmig.parts where table_name = 'New One' and state = 'done')";
        life.wait_for(&mut run, "its copy", copied).await;
        do_all(
            &life,
            &["insert into \"New One\" default values; update \"New One\" set \"V\" = 'late' where id = 50; delete from \"New One\" where id = 51"],
        )
        .await;
        life.end(run).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_that_is_left_behind_holds_nobody_up() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, MADE).await;
        let run = life.follow_with(&["--leave-new-tables"]).await;
        do_all(
            &life,
            &[
                "create table late (id int primary key)",
                "begin; insert into late values (1); insert into other values (2, 'beside it'); commit",
            ],
        )
        .await;
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        life.on_source("drop table late").await;
        assert_same(&life.pair).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_away_is_noticed_and_nothing_is_lost() -> Outcome {
    for way in [EXTENSION_WAL2JSON, PLAIN] {
        let life = Life::begin(way, MADE).await;
        let run = life.follow().await;
        do_all(&life, &["alter table t replica identity nothing"]).await;
        // wal2json says nothing of these; under pgoutput the source refuses them.
        let lost = life.source.batch_execute("update t set note = 'not in the stream' where id < 10").await;
        assert_eq!(lost.is_ok(), way.plugin == "wal2json");
        let ddl = stops(&life, run, "public.t has lost the key").await;
        assert!(ddl.contains("alter table \"public\".\"t\" replica identity full;"), "{ddl}");
        do_all(&life, &["alter table t replica identity default"]).await;
        let run = life.follow().await;
        do_all(&life, &["update t set note = 'in the stream' where id between 5 and 15"]).await;
        life.end(run).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_or_column_that_takes_the_name_of_another_is_noticed_and_copied_anew() -> Outcome {
    for way in [EXTENSION_WAL2JSON, PLAIN] {
        let life = Life::begin(way, MADE).await;
        let run = life.follow().await;
        do_all(&life, &["alter table t rename to t2", "insert into t2 (id, note) values (300, 'under another name')"])
            .await;
        let back = stops(&life, run, "public.t was renamed to public.t2").await;
        // As long as it is not renamed back nothing is copied and nothing is applied.
        assert_eq!(stops(&life, life.run(), "public.t was renamed to public.t2").await, back);
        do_all(&life, &[&back, "insert into t (id, note) values (301, 'renamed back')"]).await;

        let run = life.follow().await;
        do_all(
            &life,
            &["begin; alter table t rename note to x; alter table t rename body to note; alter table t rename x to body; commit",
              "update t set note = 'swapped' where id = 3"],
        )
        .await;
        stops(&life, run, "columns of public.t have taken the names of others on the source: note, body").await;

        let run = life.follow().await;
        do_all(
            &life,
            &[
                "begin; create table o2 (like other including all); insert into o2 values (7, 'new'); \
                drop table other; alter table o2 rename to other; commit",
                "insert into other values (8, 'newer')",
            ],
        )
        .await;
        stops(&life, run, "public.other was replaced on the source").await;
        // wal2json carries what was written to it under its first name.
        if way.plugin == "wal2json" {
            stops(&life, life.run(), "public.o2, which the migration does not know and which is gone").await;
        }
        let mut run = life.follow_with(&["--leave-new-tables"]).await;
        do_all(&life, &["update other set v = 'newest' where id = 8; insert into t (id) values (400)"]).await;
        let anew = "select exists (select from other where v = 'newest')";
        life.wait_for(&mut run, "the table that is copied anew", anew).await;
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        // The order of columns and the names of indexes are the source's own by now: only rows are compared.
        for side in [&life.source, &life.target] {
            let by_name = "create table by_name as select id, note, n, body from t; drop table t; \
                           create table others as select id, v from other; drop table other";
            side.batch_execute(by_name).await.expect("the same columns are on both sides");
        }
        assert_same(&life.pair).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_targets_column_is_too_short_for_is_never_cut() -> Outcome {
    for way in [PLAIN, EXTENSION] {
        let made = "create domain short as varchar(8); create domain shorter as short check (value <> ''); \
                    create table t (id int primary key, v varchar(8), d shorter, c char(8), b varbit(4), a varchar(8)[])";
        let life = Life::begin(way, made).await;
        let run = life.follow().await;
        life.on_target("select pgmig.pause()").await;
        let row = "'a secret value', 'a secret value', 'a secret value', b'10101010', '{a secret value}'";
        do_all(
            &life,
            &[
                "insert into t values (1, 'fits', 'fits', 'fits', b'1010', '{fits}')",
                "alter table t alter v type text, alter d type text, alter c type char(20), alter b type varbit(8), alter a type text[]",
                &format!("insert into t values (2, {row})"),
                &format!("update t set (v, d, c, b, a) = row({row}) where id = 1"),
            ],
        )
        .await;
        life.on_target("select pgmig.resume()").await;
        let ddl = stops(&life, run, "public.t was altered").await;
        assert_eq!(life.on_target("select count(*) from t where v <> 'fits'").await, "0");
        life.target.batch_execute(&ddl).await.expect("the DDL that was named is what the target lacks");
        let run = life.run();
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        assert_same(&life.pair).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_source_has_computed_for_a_new_column_are_read_there() -> Outcome {
    for way in [PLAIN_WAL2JSON, EXTENSION] {
        let life = Life::begin(way, MADE).await;
        do_all(
            &life,
            &["create table refers (id int primary key, t int references t)", "insert into refers values (1, 1)"],
        )
        .await;
        let run = life.follow().await;
        do_all(
            &life,
            &[
                "insert into t (id) values (60)",
                "begin; insert into t (id) values (61); \
                 alter table t add column made timestamptz not null default clock_timestamp(), add column u uuid default gen_random_uuid(); \
                 update t set note = 'both forms' where id < 5; insert into t (id) values (62); commit",
                "insert into refers values (2, 62); delete from t where id = 7",
                "alter table other add column c text default 'the same everywhere'",
            ],
        )
        .await;
        let stopped = run.finish(&["error: "]).await.expect_code(6);
        let told = "-- what \"made\", \"u\" holds in older rows only the source knows: the table is copied anew when you run again";
        assert!(stopped.stderr.contains(told), "{}", stopped.stderr);
        let ddl = "alter table t add column made timestamptz not null default clock_timestamp(), add column u uuid default gen_random_uuid(); \
                   alter table other add column c text default 'the same everywhere'";
        // Not before the target has it.
        let stopped = life.run().finish(&["error: "]).await.expect_code(6);
        assert!(stopped.stderr.contains(told), "{}", stopped.stderr);
        life.target.batch_execute(ddl).await.expect("the DDL that was named is what the target lacks");
        do_all(&life, &["insert into t (id) values (63); update t set body = 'short' where id = 9"]).await;
        let run = life.follow().await;
        life.end(run).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_constraints_that_only_the_source_has_changed_are_named() -> Outcome {
    let made = "create type mood as enum ('sad'); create type pair as (a int, b text); create domain low as int check (value < 10); \
                create table t (id int primary key, m mood, p pair, d low, n int not null default 0, c int constraint small check (c < 10))";
    // On the source, then on the target; and a row that needs it.
    let steps = [
        ("alter type mood add value 'secret'", "insert into t (id, m) values (1, 'secret')", "22P02"),
        ("alter type pair add attribute c text", "insert into t (id, p) values (2, row(1, 'secret', 'x'))", "22P02"),
        ("alter domain low drop constraint low_check", "insert into t (id, d) values (3, 424242)", "23514"),
        ("alter table t alter n drop not null", "insert into t (id, n) values (4, null)", "23502"),
        ("alter table t drop constraint small", "insert into t (id, c) values (5, 424242)", "23514"),
    ];
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, made).await;
        let mut run = life.follow().await;
        for (ddl, row, sqlstate) in steps {
            do_all(&life, &["insert into t (id) values (0); delete from t where id = 0", ddl, row]).await;
            let stopped = run.finish(&["error: "]).await.expect_code(6);
            assert!(stopped.stderr.contains(sqlstate) && stopped.stderr.contains("hint: "), "{}", stopped.stderr);
            assert!(!stopped.stderr.contains("secret") && !stopped.stderr.contains("424242"), "{}", stopped.stderr);
            life.target.batch_execute(ddl).await.expect("the target takes what the source took");
            run = life.run();
        }
        life.end(run).await;
    }
    Ok(())
}
