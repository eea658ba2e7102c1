//! Every kind of object that a schema may hold, and every kind of change that a stream may hold:
//! made on the source, moved, changed while it is followed, and compared whole. No float and no
//! numeric, so that both plugins may carry it.

use std::time::Duration;

use harness::{Outcome, assert_same, assert_same_with, wait_until};
use pgmig::verify::{self, Kind};

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

#[tokio::test(flavor = "multi_thread")]
async fn every_object_and_change_arrives_with_the_extension() -> Outcome {
    everything_arrives(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn every_object_and_change_arrives_in_plain_sql() -> Outcome {
    everything_arrives(PLAIN).await
}
#[tokio::test(flavor = "multi_thread")]
async fn every_object_and_change_arrives_through_wal2json_with_the_extension() -> Outcome {
    everything_arrives(EXTENSION_WAL2JSON).await
}
#[tokio::test(flavor = "multi_thread")]
async fn every_object_and_change_arrives_through_wal2json_in_plain_sql() -> Outcome {
    everything_arrives(PLAIN_WAL2JSON).await
}

async fn everything_arrives(way: Way) -> Outcome {
    move_everything(Life::empty(way).await).await
}

pub async fn move_everything(mut life: Life) -> Outcome {
    life.source.batch_execute(SCHEMA).await?;
    life.allowed = &["1 large objects are copied", "public.scratch is unlogged"];
    let mut run = life.run();
    // Changes that fall between the snapshot and apply, and changes that are followed.
    life.wait_for(&mut run, "the slot", "select startpos is not null from pgmig.progress").await;
    change(&life, 0).await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    for round in 1..=2 {
        change(&life, round).await;
    }
    life.set_endpos(life.lsn().await).await;
    let done = life.finish(run).await;
    assert!(done.stderr.contains("public.fires has what fires always: trigger always, rule also"), "{}", done.stderr);
    assert_same_with(&life.pair, verify::Options { materialized_rows: true, ..verify::Options::default() }).await;
    assert_eq!(life.on_target("select count(*) from pgmig.steps where state <> 'done'").await, "0");
    // What was quiet while changes were applied is awake now.
    assert_eq!(
        life.on_target("insert into fires values (1000, 'x'); select count(*) from audit where id = 1000").await,
        "3"
    );
    Ok(())
}

/// One round of changes: each line is a transaction of its own.
async fn change(life: &Life, round: i32) {
    // A TRUNCATE before the copy of its table is a test of its own.
    let of_round = |change: &&&str| round > 0 || !change.contains("truncate parted_a");
    for statements in CHANGES.iter().filter(of_round) {
        let statements = statements.replace("$r", &round.to_string());
        life.source.batch_execute(&statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }
}

const SCHEMA: &str = r#"
    create schema "Back ""Office""";
    create type mood as enum ('sad', 'happy');
    create domain short as text check (length(value) < 40);
    create type pair as (a int, b text);
    create sequence lonely increment by 5 minvalue -100 maxvalue 1000 cycle;
    select nextval('lonely'), nextval('lonely');
    create sequence untouched start 42;
    comment on sequence lonely is 'it''s lonely';

    -- Constraints and indexes of every kind.
    create table parent (
        id int primary key, code text unique, mood mood not null default 'sad', name short, p pair,
        during int4range, constraint positive check (id > -1000000), exclude using gist (during with &&));
    create index parent_lower on parent (lower(code)) where id > 3;
    create index parent_include on parent using btree (mood) include (name);
    create statistics parent_stats (dependencies) on id, code from parent;
    comment on table parent is 'a table; with ''quotes'' and; semicolons';
    comment on column parent.id is 'the key';
    comment on constraint positive on parent is 'nearly';
    comment on index parent_lower is 'folded';
    insert into parent select n, 'code ' || n, 'happy', 'n' || n, row(n, 'x')::pair, int4range(n * 10, n * 10 + 5) from generate_series(1, 40) n;
    alter table parent add constraint later check (id <> 33) not valid;
    create domain even as int;
    create table numbers (id int primary key, n even, list even[], m int);
    insert into numbers select n, n, array[n, 2], n from generate_series(1, 10) n;
    alter domain even add constraint is_even check (value % 2 = 0) not valid;
    comment on constraint is_even on domain even is 'by now';
    create table child (
        id bigserial primary key, parent_id int references parent on delete cascade on update cascade,
        other_id int references parent (id) deferrable initially deferred,
        unique (parent_id, id) deferrable);
    insert into child (parent_id, other_id) select n, 41 - n from generate_series(1, 40) n;
    create table orphan (id int primary key, parent_id int);
    insert into orphan values (1, 1), (2, 999999);
    alter table orphan add constraint orphan_parent foreign key (parent_id) references parent not valid;
    comment on constraint orphan_parent on orphan is 'made later than its comment';
    create table tree (id int primary key, up int references tree);
    insert into tree values (1, null), (2, 1), (3, 2);

    -- Keys that are no plain primary key.
    create table swap (id int primary key, v text);
    insert into swap select n, 'v' || n from generate_series(1, 10) n;
    create table deferred (id int primary key deferrable, v text);
    alter table deferred replica identity full;
    insert into deferred select n, 'v' || n from generate_series(1, 10) n;
    create table by_index (a int, b text not null, c int not null, v text);
    create unique index by_index_key on by_index (c, b);
    alter table by_index replica identity using index by_index_key;
    insert into by_index select n, 'b' || n, n, 'v' from generate_series(1, 20) n;
    create table nullable (a int unique, b int);
    alter table nullable replica identity full;
    insert into nullable values (null, 1), (null, 1), (null, 2), (1, 1), (2, null);
    create table twins (a int, b text, c jsonb);
    alter table twins replica identity full;
    insert into twins select n % 3, null, '{"a": 1}' from generate_series(1, 12) n;

    -- Computed by the server.
    create table counted (id int generated always as identity primary key, other int generated by default as identity (start 7 increment 3), v text);
    insert into counted (v) select 'v' || n from generate_series(1, 10) n;
    create table computed (a int primary key, b int, twice int generated always as (a * 2) stored, note text default 'none');
    insert into computed (a, b) select n, n from generate_series(1, 10) n;

    -- Long values.
    create table long (id int primary key, body text, extra text, n int default 0);
    alter table long alter body set storage external;
    insert into long select n, repeat(md5(n::text), 200), (select string_agg(md5(n || '.' || m), '') from generate_series(1, 200) m) from generate_series(1, 8) n;
    create table long_full (id int, body text, n int default 0);
    alter table long_full alter body set storage external, replica identity full;
    insert into long_full select n, repeat(md5(n::text), 100) from generate_series(1, 4) n;

    -- Partitions, one of them with its columns in another order, and one below another.
    create table parted (id int, region text, v text, primary key (id, region)) partition by list (region);
    create table parted_a partition of parted for values in ('a');
    create table parted_b (v text, gone int, region text not null, id int not null);
    alter table parted_b drop gone;
    alter table parted attach partition parted_b for values in ('b');
    create table parted_c partition of parted for values in ('c') partition by range (id);
    create table parted_c1 partition of parted_c for values from (0) to (50);
    create table parted_c2 partition of parted_c for values from (50) to (maxvalue);
    create index parted_v on parted (v);
    create table to_parted (id int primary key, region text, foreign key (id, region) references parted);
    insert into parted select n, (array['a', 'b', 'c'])[n % 3 + 1], 'v' || n from generate_series(1, 90) n;
    insert into to_parted select id, region from parted where id < 20;
    create table heir (extra int) inherits (swap);
    alter table heir add primary key (id);
    insert into heir values (100, 'heir', 1);

    -- Names.
    create table "Back ""Office"""."Sélect ""from"" %$1 ☃" ("Id #" int primary key, "a.b" text, "q'uote" text, "order" int);
    insert into "Back ""Office"""."Sélect ""from"" %$1 ☃" select n, 'x', 'y', n from generate_series(1, 10) n;
    create table üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüx (üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüy int primary key, a23456789012345678901234567890123456789012345678901234567890123 text);
    insert into üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüx values (1, 'one'), (2, 'two');
    create table "Back ""Office""".nothing ();
    insert into "Back ""Office""".nothing default values;
    alter table "Back ""Office""".nothing replica identity full;
    create unlogged table scratch (id int primary key);
    insert into scratch values (1);

    -- What reads and what fires.
    create view happy as select id, code from parent where mood = 'happy' with check option;
    create materialized view summary as select mood, count(*) from parent group by mood;
    create unique index summary_mood on summary (mood);
    create materialized view of_summary as select sum(count)::bigint as total from summary;
    create materialized view empty_view as select 1 as one with no data;
    create function twice(n int) returns int language sql immutable return n * 2;
    create procedure nothing() language plpgsql as $$ begin null; end $$;
    comment on function twice(int) is 'n, twice';
    create table audit (id int, what text);
    alter table audit replica identity full;
    create table fires (id int primary key, v text);
    create function note() returns trigger language plpgsql as
        $$ begin insert into audit values (new.id, tg_name); return new; end $$;
    create trigger ordinary after insert or update on fires for each row execute function note();
    create trigger always after insert on fires for each row execute function note();
    alter table fires enable always trigger always;
    create trigger never after insert on fires for each row execute function note();
    alter table fires disable trigger never;
    comment on trigger ordinary on fires is 'fires';
    create rule also as on insert to fires do also insert into audit values (new.id, 'rule');
    alter table fires enable always rule also;
    insert into fires values (1, 'one');
    create table secret (id int primary key, owner name default current_user);
    alter table secret enable row level security, force row level security;
    create policy own on secret for select using (owner = current_user);
    create policy nobody on secret as restrictive for update using (false);
    insert into secret values (1), (2);
    create table emptied (id int primary key);
    create table emptied_too (id serial primary key, up int references emptied);
    insert into emptied values (1), (2); insert into emptied_too (up) values (1), (2), (1);
    select lo_from_bytea(0, decode(repeat('00ff5c27', 50000), 'hex'));
"#;

const CHANGES: &[&str] = &[
    "insert into parent values (100 + $r, '$r' || E'\\t\\n\\\\ \"☃', 'sad', null, row(null, 'a,\"b')::pair, 'empty')",
    "update parent set code = code || '.' where id between 5 and 9",
    // Keys change, and those that refer to them with them.
    "update child set other_id = 1 where id = 3 + $r; update child set id = id + 100 where id = 6 + $r",
    "begin; insert into child (parent_id, other_id) values (1, 5000 + $r); insert into parent (id) values (5000 + $r); commit",
    "delete from child where other_id in (20 + $r, 30 + $r); delete from parent where id = 20 + $r; update parent set id = 2000 + $r where id = 30 + $r",
    "update orphan set id = id + 10",
    "update numbers set m = m + 1; update numbers set id = id + 100 where id = 4 + $r; insert into numbers values (200 + $r, 8)",
    "update tree set up = null where id = 3; delete from tree where id = 2; insert into tree values (2, 1); update tree set up = 2 where id = 3",
    // Two rows swap their keys; all keys move up by one.
    "begin; update swap set id = -1 where id = 1; update swap set id = 1 where id = 2; update swap set id = 2 where id = -1; commit",
    "update deferred set id = id + 1",
    "update deferred set id = 9 - id where id in (4, 5); delete from deferred where v = 'v' || (8 + $r)",
    "update by_index set b = b || '.' , v = null where c = 3; update by_index set v = 'w' where c between 5 and 9; delete from by_index where c = 15 + $r",
    "update nullable set b = coalesce(b, 0) + 10; update nullable set b = 7 where ctid = (select min(ctid) from nullable where a is null)",
    "update nullable set a = null where a = 1; insert into nullable values (1, $r); delete from nullable where ctid = (select max(ctid) from nullable where a is null)",
    "update twins set b = 'one of them' where ctid = (select min(ctid) from twins where b is null)",
    "delete from twins where ctid = (select min(ctid) from twins where b is null); insert into twins values (null, null, null), (null, null, null)",
    "delete from twins where ctid = (select min(ctid) from twins where a is null)",
    "update counted set v = v || '$r' where id < 4; insert into counted (v) values ('new'); delete from counted where id = 5 + $r",
    "insert into counted (id, v) overriding system value values (500 + $r, 'own id'); update counted set id = default where id = 500 + $r",
    "update computed set a = a + 100 where a = 1 + $r; update computed set b = null where a = 6; insert into computed values (200 + $r, 3)",
    // The long values are not in the stream; then one of them is; then only the key changes.
    "update long set n = n + 1",
    "update long set body = repeat(md5('$r'), 300), n = n + 1 where id = 3; update long set extra = null where id = 4",
    "update long set id = id + 100 where id = 5 + $r",
    "begin; update long set n = 7 where id = 1; update long set body = 'short' where id = 1; update long set body = repeat('$r long', 2000) where id = 1; update long set n = 8 where id = 1; commit",
    "update long_full set n = n + 1; update long_full set id = id + 10 where id = 1 + $r",
    // Rows move between partitions, and out of those with another order of columns.
    "update parted set region = 'b' where id in (51 + 3 * $r, 52 + 3 * $r); update parted set region = 'c' where id = 61 + $r; update parted set id = id + 100 where region = 'c' and id between 23 and 27",
    "update parted set v = v || '.' where id % 7 = $r; delete from parted where id = 80 + $r; insert into parted values (1000 + $r, 'b', 'new'), (1000 + $r, 'c', 'new')",
    "insert into heir values (200 + $r, 'heir', 2); update swap set v = 'both' where id in (3, 100); delete from only swap where id = 9",
    r#"update "Back ""Office"""."Sélect ""from"" %$1 ☃" set "a.b" = null, "q'uote" = '''', "Id #" = "Id #" + 100 where "Id #" = 2 + $r; delete from "Back ""Office"""."Sélect ""from"" %$1 ☃" where "Id #" = 7 + $r"#,
    "update üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüx set a23456789012345678901234567890123456789012345678901234567890123 = 'r$r'; insert into üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüx values (10 + $r, 'x')",
    r#"insert into "Back ""Office""".nothing default values"#,
    "refresh materialized view concurrently summary",
    "refresh materialized view of_summary",
    "insert into fires values (10 + $r, 'v'); update fires set v = 'w' where id = 1",
    "insert into secret values (10 + $r, 'nobody'); update secret set owner = 'x' where id = 1",
    "truncate emptied, emptied_too restart identity",
    "insert into emptied values (1), (2); insert into emptied_too (up) values (1), (2)",
    "begin; insert into emptied values (7); truncate emptied cascade; insert into emptied values (8); insert into emptied_too (up) values (8); commit",
    "truncate parted_a cascade; insert into parted select n, 'a', 'again' from generate_series(300, 303) n",
    "select nextval('lonely')",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_of_the_source_is_reported_and_stops_nothing() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        let mut life = Life::begin(
            way,
            "create table parent (id int primary key); create table child (id int primary key, parent_id int references parent); \
             insert into parent values (1); insert into child values (1, 1); \
             set session_replication_role = replica; insert into child values (2, 777777); set session_replication_role = origin",
        )
        .await;
        life.allowed = &["could not make"];
        let run = life.follow().await;
        life.on_source("insert into child values (3, 1)").await;
        life.set_endpos(life.lsn().await).await;
        let done = life.finish(run).await;
        let failed = "select string_agg(concat_ws(' ', state, stage, name, sqlstate), '; ') from pgmig.steps where state <> 'done'";
        assert_eq!(life.on_target(failed).await, "failed validate public.child child_parent_id_fkey 23503");
        assert!(done.stderr.contains("could not be made: 1 object"), "{}", done.stderr);
        assert!(!done.stderr.contains("777777"), "{}", done.stderr);
        assert_eq!(life.on_target("select steps_failed from pgmig.progress").await, "1");
        // That it is not validated is all that differs.
        let found = life.pair.compare(verify::Options::default()).await?;
        assert!(found.holds(Kind::Constraint, "child_parent_id_fkey"), "{found}");
        assert!(
            found.differences.iter().all(|d| d.object.contains("child_parent_id_fkey") || d.what.contains("NOT VALID")),
            "{found}"
        );
        life.on_source("delete from child where id = 2").await;
        life.on_target("delete from child where id = 2; alter table child validate constraint child_parent_id_fkey")
            .await;
        assert_same(&life.pair).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_truncated_between_the_snapshot_and_its_copy_is_followed() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        let life = Life::begin(
            way,
            "create table t (id int primary key, note text); insert into t select n, 'old' from generate_series(1, 9) n",
        )
        .await;
        let mut run = life.run();
        life.wait_for(&mut run, "the slot", "select startpos is not null from pgmig.progress").await;
        // The changes are behind the snapshot; the lock of the TRUNCATE keeps the copy waiting until it is there.
        life.on_source("begin; update t set note = 'new' where id = 7; truncate t; insert into t values (8, 'new')")
            .await;
        let waits = "select count(*) > 0 from pg_locks where not granted and relation = 't'::regclass";
        wait_until(Duration::from_secs(20), "the copy to wait", async || life.on_source(waits).await == "t").await;
        life.on_source("commit").await;
        life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
        life.end(run).await;
    }
    Ok(())
}
