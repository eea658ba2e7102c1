//! Tables that are partitioned on the target and not on the source: each row goes where it belongs, stays
//! findable by the source's key, and moves when an update says so.

use harness::{Outcome, assert_same};

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, do_all};

/// A key that is not what the target is partitioned by, one that is part of it, and none at all.
const MADE: &str = "
    create table orders (id bigint primary key, at date not null, n int, body text, twice int generated always as (n * 2) stored);
    alter table orders alter body set storage external;
    create table visits (shop int, id int, v text, primary key (shop, id));
    create table events (kind text, n int, f text); alter table events replica identity full;
    create table beside (id int primary key, v text);
    insert into orders select n, date '2026-01-01' + n % 90, n, repeat(md5(n::text), 200) from generate_series(1, 300) n;
    insert into visits select n % 7, n, 'v' || n from generate_series(1, 200) n;
    insert into events select case n % 4 when 0 then null when 1 then 'a' when 2 then 'b' else 'c' end, n % 5, n % 3 from generate_series(1, 120) n;
    insert into beside select n, 'beside' from generate_series(1, 20) n";

/// As a DBA would have them: leaves whose columns lie elsewhere, a second level, a default.
pub const PARTITIONED: &str = "
    create table orders (id bigint not null, at date not null, n int, body text, twice int generated always as (n * 2) stored,
                         primary key (id, at)) partition by range (at);
    create table orders_1 partition of orders for values from ('2026-01-01') to ('2026-02-01');
    create table orders_2 (twice int generated always as (n * 2) stored, gone int, body text, n int, at date not null, id bigint not null);
    alter table orders_2 drop gone; alter table orders attach partition orders_2 for values from ('2026-02-01') to ('2026-03-01');
    create table orders_3 partition of orders for values from ('2026-03-01') to ('2026-06-01');
    create table visits (shop int, id int, v text, primary key (shop, id)) partition by list (shop);
    create table visits_0 partition of visits for values in (0, 1, 2);
    create table visits_rest partition of visits default partition by hash (id);
    create table visits_rest_0 partition of visits_rest for values with (modulus 2, remainder 0);
    create table visits_rest_1 partition of visits_rest for values with (modulus 2, remainder 1);
    create table events (kind text, n int, f text) partition by list (kind);
    create table events_a partition of events for values in ('a');
    create table events_none partition of events for values in (null);
    create table events_rest partition of events default";

/// Rows that are written, move and go; within a table that is partitioned on either side.
pub const MOVES: [&str; 14] = [
    "insert into orders select n, date '2026-01-01' + n % 90, n, repeat(md5(n::text), 200) from generate_series(301, 400) n",
    // Within a partition, into another one, and with large values that are not in the stream.
    "update orders set n = n + 1 where id < 50",
    "update orders set at = at + 31 where id % 5 = 0 and at < '2026-03-01'",
    "begin; update orders set at = '2026-03-15' where id = 7; update orders set n = -7 where id = 7; update orders set at = '2026-01-15', body = 'short' where id = 7; commit",
    "update orders set id = id + 1000 where id between 10 and 20; update orders set id = id + 2000, at = '2026-02-02' where id between 21 and 25",
    "delete from orders where id % 11 = 0; insert into orders values (11, '2026-02-11', 1, 'again')",
    "begin; delete from orders where id = 30; insert into orders values (30, '2026-05-20', 30, 'elsewhere'); update orders set n = null where id = 30; commit",
    "update visits set v = v || '!' where shop = 1; update visits set shop = 6 - shop where id % 3 = 0",
    "update visits set id = id + 1000 where shop > 4; delete from visits where shop = 2 and id < 100",
    "insert into visits values (0, 5000, null), (3, 5000, ''), (9, 5000, 'x'); update visits set shop = shop + 1 where id = 5000",
    "insert into events values (null, null, null), (null, null, null), ('a', 1, 'NaN'), ('z', 1, '-0')",
    "update events set n = 100 where ctid in (select ctid from events where kind is null limit 5)",
    "update events set kind = 'a' where ctid in (select ctid from events where kind = 'c' limit 4); update events set kind = null where ctid in (select ctid from events where kind = 'a' limit 7)",
    "delete from events where ctid in (select min(ctid) from events group by kind, n)",
];

const LATER: [&str; 3] = [
    "begin; truncate visits; insert into visits values (1, 1, 'new'), (5, 5, 'new'); update visits set shop = 4 where id = 1; commit",
    "begin; insert into events values ('gone', 1, 1); truncate events, beside; insert into events values ('a', 1, 1), (null, 2, 2); insert into beside values (1, 'after'); commit",
    "insert into events select case n % 3 when 0 then 'a' when 1 then 'x' end, n, n from generate_series(1, 40) n; update events set kind = 'x' where n = 3; update events set n = 0 where kind = 'x'",
];

/// Both sides alike where only the partitioning differs, so that they can be compared whole.
pub async fn assert_same_rows(life: &Life, tables: &[&str]) {
    for table in tables {
        let by_name = format!(
            "create table by_name as select * from {table}; drop table {table}; alter table by_name rename to {table}"
        );
        for side in [&life.source, &life.target] {
            side.batch_execute(&by_name).await.unwrap_or_else(|e| panic!("{table}: {e:?}"));
        }
    }
    assert_same(&life.pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_partitioned_on_the_target_while_it_is_followed() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, MADE).await;
        let mut run = life.follow().await;
        life.on_target("select pgmig.pause()").await;
        // In one transaction, as a DBA would do it.
        let swap = format!(
            "begin; alter table orders rename to o; alter table visits rename to v; alter table events rename to e;
             alter index orders_pkey rename to o_pkey; alter index visits_pkey rename to v_pkey; {PARTITIONED};
             insert into orders (id, at, n, body) select id, at, n, body from o; insert into visits select * from v; insert into events select * from e;
             drop table o, v, e; commit"
        );
        life.target.batch_execute(&swap).await.expect("the target is ours");
        // One Batch of most of it, the rest as it comes.
        let (first, last) = MOVES.split_at(MOVES.len() - 1);
        do_all(&life, first).await;
        let applied = format!("select replay_lsn >= '{}' from pgmig.progress", life.lsn().await);
        life.on_target("select pgmig.resume()").await;
        do_all(&life, &["insert into beside values (99, 'behind it')"]).await;
        life.wait_for(&mut run, "the first of it", &applied).await;
        do_all(&life, last).await;
        do_all(&life, &LATER).await;
        // It is compared as a whole, and found to be what it is; the layout is chosen.
        life.pgmig(&["verify", "--dir", &life.dir.path().display().to_string()]).finish(&[]).await.expect_code(0);
        life.pgmig(&["verify", "--quick", "--dir", &life.dir.path().display().to_string()])
            .finish(&[])
            .await
            .expect_code(0);
        repaired(&life).await;
        life.on_target("select pgmig.resync_table('public.orders'), pgmig.resync_table('public.events')").await;
        do_all(&life, &["update orders set at = at + 1, n = n + 1 where id < 100", "delete from events where n = 2"])
            .await;
        let copied = "select count(*) = 2 from pgmig.request where state = 'done'";
        life.wait_for(&mut run, "two tables that are copied again", copied).await;
        do_all(&life, &["update orders set at = at + 1, n = n + 1 where id < 100"]).await;
        // There is no partition for it: apply waits for one, and goes on.
        do_all(
            &life,
            &[
                "insert into orders values (9999, '2027-01-01', 1, 'late')",
                "update orders set at = '2027-01-02' where id = 1",
            ],
        )
        .await;
        let stopped = run.finish(&["error: "]).await.expect_code(6);
        assert!(
            stopped.stderr.contains("public.orders") && stopped.stderr.contains("no partition"),
            "{}",
            stopped.stderr
        );
        assert!(
            stopped.stderr.contains("create one on the target") && !stopped.stderr.contains("2027"),
            "{}",
            stopped.stderr
        );
        life.on_target("create table orders_2027 partition of orders for values from ('2027-01-01') to ('2028-01-01')")
            .await;
        let run = life.run();
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        assert_same_rows(&life, &["orders", "visits", "events"]).await;
    }
    Ok(())
}

/// What differs in a partition is found by its key, or by its values, and mended.
async fn repaired(life: &Life) {
    life.target
        .batch_execute("set session_replication_role = replica; update orders set n = -1 where id in (40, 41); delete from orders where id = 42;
                        update events set n = 77 where ctid in (select min(ctid) from events group by tableoid); reset session_replication_role")
        .await
        .expect("the target is ours");
    let dir = life.dir.path().display().to_string();
    life.pgmig(&["verify", "--dir", &dir]).finish(&["differ"]).await.expect_code(1);
    life.pgmig(&["verify", "--repair", "--yes", "--dir", &dir]).finish(&["differ"]).await.expect_code(0);
}

/// What is around such a table: what refers to it, its serial and identity columns, and indexes that it does not get.
const AROUND: &str = "
    create table hits (id serial primary key, shop int not null, at timestamptz not null default now(), note text);
    create index hits_at on hits (at); comment on table hits is 'of the source';
    create table things (id bigint generated always as identity primary key, shop int not null);
    create table places (id int primary key, v text);
    create table refers (id int primary key, place int references places on delete cascade);
    create view seen as select * from hits;
    insert into hits (shop, note) select n % 3, 'n' || n from generate_series(1, 50) n;
    insert into things (shop) select n % 3 from generate_series(1, 50) n;
    insert into places select n, 'v' || n from generate_series(1, 50) n;
    insert into refers select n, n from generate_series(1, 50) n";

const PARTITIONED_AROUND: &str = "
    create table hits (id int not null, shop int not null, at timestamptz not null default now(), note text, primary key (id, shop)) partition by hash (shop);
    create table hits_0 partition of hits for values with (modulus 2, remainder 0);
    create table hits_1 partition of hits for values with (modulus 2, remainder 1);
    create table things (id bigint generated always as identity, shop int not null, primary key (id, shop)) partition by range (shop);
    create table things_all partition of things for values from (minvalue) to (maxvalue);
    create table places (id int primary key, v text) partition by hash (id);
    create table places_0 partition of places for values with (modulus 1, remainder 0)";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_target_has_partitioned_is_filled_through_crashes() -> Outcome {
    for way in [EXTENSION_WAL2JSON, PLAIN] {
        let mut life = Life::begin(way, &format!("{MADE};{AROUND}")).await;
        let keep = ["--keep-tables", "--split-tables-larger-than", "64kB"];
        life.target.batch_execute(&format!("{PARTITIONED};{PARTITIONED_AROUND}")).await.expect("the target is ours");
        // Not unasked, and not over rows.
        let refused = life.run().finish(&["error: "]).await.expect_code(4);
        assert!(refused.stderr.contains("--keep-tables"), "{}", refused.stderr);
        life.on_target("insert into orders values (1, '2026-01-01'); alter table visits alter v type varchar(90)")
            .await;
        let refused = life.run_with(&keep).finish(&["error: "]).await.expect_code(4);
        assert!(
            refused.stderr.contains("public.orders holds rows")
                && refused.stderr.contains("public.visits has other columns"),
            "{}",
            refused.stderr
        );
        life.on_target("truncate orders; alter table visits alter v type text").await;
        let planned = life.pgmig(&["plan", "--keep-tables"]).finish(&[]).await.expect_code(0);
        assert!(planned.stdout.contains("what belongs to the table public.hits"), "{}", planned.stdout);

        // It dies in the middle of the copy.
        life.crash = "before part 4".into();
        assert_eq!(life.run_with(&keep).finish(&[]).await.code(), 128 + 9);
        life.crash = String::new();
        do_all(&life, &["delete from places where id < 10; update places set v = 'changed' where id < 20"]).await;
        do_all(
            &life,
            &[
                "update orders set at = at + 31 where id % 7 = 0 and at < '2026-03-01'",
                "insert into hits (shop) values (7)",
                "delete from visits where id = 9",
            ],
        )
        .await;
        let mut run = life.follow_with(&keep).await;
        do_all(&life, &MOVES).await;
        do_all(&life, &LATER).await;
        do_all(&life, &["insert into hits (shop, note) values (1, 'late'); update hits set shop = shop + 1; update things set shop = shop + 1 where id < 10"]).await;
        let level = format!("select replay_lsn >= '{}' from pgmig.progress", life.lsn().await);
        do_all(&life, &["insert into beside values (99, 'behind it')"]).await;
        life.wait_for(&mut run, "all of it", &level).await;
        // Its way back would be from partitions that the source does not have.
        let dir = life.dir.path().display().to_string();
        let no = life.pgmig(&["cutover", "--reverse", "--dry-run", "--dir", &dir]).finish(&["error: "]).await;
        assert!(no.stderr.contains("is partitioned on the target and not on the source"), "{}", no.stderr);
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        // What is at work after the switch: sequences, defaults, identities.
        for next in [
            "insert into hits (shop, at) values (1, '2026-01-01') returning id",
            "insert into things (shop) values (1) returning id",
        ] {
            assert_eq!(life.on_source(next).await, life.on_target(next).await, "{next}");
        }
        assert_eq!(life.on_target("select count(*) from pg_indexes where indexname = 'hits_at'").await, "0");
        let apart = "alter table refers drop constraint refers_place_fkey; drop view seen";
        for side in [&life.source, &life.target] {
            side.batch_execute(apart).await.unwrap_or_else(|e| panic!("{way:?}: {e:?}"));
        }
        assert_same_rows(&life, &["orders", "visits", "events", "hits", "things", "places"]).await;
    }
    Ok(())
}
