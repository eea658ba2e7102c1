//! Tables that are partitioned on the source, and on the target not or otherwise: the rows of all partitions
//! go into one table, whatever becomes of the partitions.

use harness::Outcome;

use super::routed::{MOVES, assert_same_rows};
use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way, do_all};

/// By ranges and below one of them by hashes, by lists, by hashes; a key, a part of one, all columns.
const MADE: &str = "
    create table orders (id bigint not null, at date not null, n int, body text, twice int generated always as (n * 2) stored,
                         primary key (id, at)) partition by range (at);
    create table orders_1 partition of orders for values from ('2026-01-01') to ('2026-02-01');
    create table orders_2 (twice int generated always as (n * 2) stored, gone int, body text, n int, at date not null, id bigint not null);
    alter table orders_2 drop gone; alter table orders attach partition orders_2 for values from ('2026-02-01') to ('2026-03-01');
    create table orders_3 partition of orders for values from ('2026-03-01') to ('2026-06-01') partition by hash (id);
    create table orders_3_0 partition of orders_3 for values with (modulus 2, remainder 0);
    create table orders_3_1 partition of orders_3 for values with (modulus 2, remainder 1);
    create table orders_rest partition of orders default;
    create table visits (shop int, id int, v text, primary key (shop, id)) partition by list (shop);
    create table visits_0 partition of visits for values in (0, 1, 2);
    create table visits_3 partition of visits for values in (3, 4);
    create table visits_rest partition of visits default;
    create table events (kind text, n int, f text) partition by list (kind);
    create table events_a partition of events for values in ('a', 'it''s');
    create table events_none partition of events for values in (null, 'b');
    create table events_rest partition of events default;
    alter table events_a replica identity full; alter table events_none replica identity full; alter table events_rest replica identity full;
    create table hashed (id int primary key, v text) partition by hash (id);
    create table hashed_0 partition of hashed for values with (modulus 2, remainder 0);
    create table hashed_1 partition of hashed for values with (modulus 2, remainder 1);
    create table beside (id int primary key, v text);
    create table refers (id int primary key, hashed int references hashed on delete cascade);
    create sequence numbers; create view seen as select * from orders; create index on orders (n);
    insert into orders select n, date '2026-01-01' + n % 200, n, repeat(md5(n::text), 200) from generate_series(1, 300) n;
    insert into visits select n % 7, n, 'v' || n from generate_series(1, 200) n;
    insert into events select case n % 5 when 0 then null when 1 then 'a' when 2 then 'b' when 3 then 'it''s' else 'c' end, n % 5, n % 3 from generate_series(1, 120) n;
    insert into hashed select n, 'h' || n from generate_series(1, 60) n;
    insert into refers select n, n from generate_series(1, 30) n;
    insert into beside select n, 'beside' from generate_series(1, 20) n";

/// Plain with a shorter key, partitioned by something else, plain without one, and plain where another table refers to it.
const OTHERWISE: &str = "
    create table orders (id bigint primary key, at date not null, n int, body text, twice int generated always as (n * 2) stored);
    create table visits (shop int, id int, v text, primary key (shop, id)) partition by hash (id);
    create table visits_0 partition of visits for values with (modulus 3, remainder 0);
    create table visits_x (v text, id int not null, shop int not null); alter table visits attach partition visits_x for values with (modulus 3, remainder 1);
    create table visits_y partition of visits for values with (modulus 3, remainder 2);
    create table events (kind text, n int, f text);
    create table hashed (id int primary key, v text)";

const TABLES: [&str; 4] = ["orders", "visits", "events", "hashed"];

/// After those of a table that is routed.
const CHANGES: [&str; 9] = [
    // Into the default partition, too.
    "update orders set at = at + 120 where id % 9 = 0",
    "update hashed set id = id + 100 where id not in (select hashed from refers); update hashed set v = v || '.' where id % 2 = 0",
    // One partition, two, one whose rows its condition cannot name, all of them.
    "begin; insert into orders values (7000, '2026-01-20', 1, 'goes'), (7001, '2026-02-20', 1, 'stays'); truncate orders_1; insert into orders values (7002, '2026-01-21', 1, 'after'); update orders set n = 9 where id = 7002; commit",
    "truncate events_none, events_a; insert into events values ('b', 1, 1), ('it''s', 2, 2)",
    "begin; insert into visits values (1, 9000, 'goes'), (4, 9000, 'goes too'), (8, 9000, 'stays'); truncate visits_0, visits_3, beside; insert into visits values (2, 9001, 'after'); insert into beside values (1, 'after'); commit",
    "truncate orders_3; insert into orders values (8000, '2026-04-01', 1, 'after')",
    "update orders set n = n + 1, at = at - 1 where id % 2 = 0",
    "begin; insert into events values ('gone', 1, 1); truncate events; insert into events values ('a', 1, 1), (null, 2, 2); commit",
    "insert into events select case n % 3 when 0 then 'a' when 1 then 'x' end, n, n from generate_series(1, 40) n; update events set kind = 'b' where n = 3; update events set n = 0 where kind = 'x'",
];

const KEEP: &str = "--keep-tables";
/// What is said of a table whose new partitions have no key.
const NO_KEY: &str = "public.events has no primary key";

async fn begin(way: Way) -> Life {
    let mut life = Life::begin(way, MADE).await;
    life.allowed = &[NO_KEY];
    life.target.batch_execute(OTHERWISE).await.expect("the target is ours");
    life
}

async fn compare(life: &Life) {
    let apart = "alter table refers drop constraint refers_hashed_fkey; drop view seen";
    for side in [&life.source, &life.target] {
        side.batch_execute(apart).await.unwrap_or_else(|e| panic!("{:?}: {e:?}", life.way));
    }
    assert_same_rows(life, &TABLES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_go_into_one_table_through_crashes_by_wal2json() -> Outcome {
    into_one_table(EXTENSION_WAL2JSON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_go_into_one_table_through_crashes_by_pgoutput() -> Outcome {
    into_one_table(PLAIN).await
}

async fn into_one_table(way: Way) -> Outcome {
    let mut life = begin(way).await;
    let refused = life.run().finish(&["error: ", NO_KEY]).await.expect_code(4);
    assert!(refused.stderr.contains("already holds") && refused.stderr.contains(KEEP), "{}", refused.stderr);
    // Not where a key may stand twice, and not over rows.
    do_all(&life, &["alter table events_a replica identity default"]).await;
    life.on_target("insert into hashed values (1, 'there')").await;
    let refused = life.run_with(&[KEEP]).finish(&["error: ", NO_KEY]).await;
    assert!(
        refused.stderr.contains("public.hashed holds rows on the target")
            && refused.stderr.contains("events_a has no key"),
        "{}",
        refused.stderr
    );
    life.on_target("truncate hashed").await;
    do_all(&life, &["alter table events_a replica identity full"]).await;

    // It dies in the middle of the copy, and what it had copied of such a table is of another moment.
    let keep = [KEEP, "--split-tables-larger-than", "64kB"];
    life.crash = "before part 6".into();
    assert_eq!(life.run_with(&keep).finish(&[NO_KEY]).await.code(), 128 + 9);
    life.crash = String::new();
    do_all(&life, &MOVES).await;
    let mut run = life.follow_with(&keep).await;
    do_all(&life, &CHANGES).await;
    do_all(&life, &["delete from hashed where id < 10"]).await;
    let level = format!("select replay_lsn >= '{}' from pgmig.progress", life.lsn().await);
    do_all(&life, &["insert into beside values (99, 'behind it')"]).await;
    life.wait_for(&mut run, "all of it", &level).await;
    // It is compared as a whole, and found to be what it is; the layout is chosen.
    let dir = life.dir.path().display().to_string();
    life.pgmig(&["verify", "--dir", &dir]).finish(&[]).await.expect_code(0);
    life.pgmig(&["verify", "--quick", "--dir", &dir]).finish(&[]).await.expect_code(0);
    life.on_target("update orders set n = -1 where id = 7; delete from visits where id = 5000; update events set n = 77 where kind = 'b'").await;
    life.pgmig(&["verify", "--dir", &dir]).finish(&["differ"]).await.expect_code(1);
    life.pgmig(&["verify", "--repair", "--yes", "--dir", &dir]).finish(&["differ"]).await.expect_code(0);
    let no = life.pgmig(&["cutover", "--reverse", "--dry-run", "--dir", &dir]).finish(&["error: ", NO_KEY]).await;
    assert!(no.stderr.contains("partitioned on the source"), "{}", no.stderr);
    life.on_target("select pgmig.resync_table('public.orders')").await;
    do_all(&life, &["update orders set at = at + 1, n = n + 1 where id < 100"]).await;
    life.wait_for(
        &mut run,
        "a table that is copied again",
        "select count(*) = 1 from pgmig.request where state = 'done'",
    )
    .await;
    do_all(&life, &["update orders set at = at - 1, n = n + 1 where id < 100"]).await;
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    compare(&life).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_while_their_table_is_followed_by_pgoutput() -> Outcome {
    come_and_go(EXTENSION).await
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_while_their_table_is_followed_by_wal2json() -> Outcome {
    come_and_go(PLAIN_WAL2JSON).await
}

async fn come_and_go(way: Way) -> Outcome {
    let life = begin(way).await;
    let mut run = life.follow_with(&[KEEP]).await;
    // Made empty and attached; made and written to at once.
    do_all(
        &life,
        &[
            "create table visits_5 (like visits including all); alter table visits attach partition visits_5 for values in (77)",
            "begin; create table orders_9 partition of orders for values from ('2026-09-01') to ('2026-10-01'); insert into orders values (9900, '2026-09-01', 1, 'new'), (9901, '2026-09-01', 1, 'goes'); commit",
            "update orders set n = 5 where id = 9900; update orders set at = '2026-01-05' where id = 9900; delete from orders where id = 9901; insert into orders values (9902, '2026-09-02', 2, 'new')",
        ],
    )
    .await;
    let known = "select exists (select from pgmig.part where leaf_name = 'visits_5')";
    life.wait_for(&mut run, "an empty partition", known).await;
    do_all(&life, &["insert into visits values (77, 1, 'first'); update visits set shop = 77 where shop = 3; truncate orders_9; insert into orders values (9903, '2026-09-03', 3, 'new')"]).await;
    let arrived = "select exists (select from visits where shop = 77) and exists (select from orders where id = 9903)";
    life.wait_for(&mut run, "rows of new partitions", arrived).await;
    // Where the root gives no key, the publication cannot hold what comes later.
    do_all(&life, &["begin; create table events_new partition of events for values in ('new'); alter table events_new replica identity full; insert into events values ('new', 1, 1); commit; update events set n = 6 where kind = 'new'"]).await;
    if way.plugin == "pgoutput" {
        let stopped = run.finish(&["error: ", NO_KEY]).await.expect_code(6);
        assert!(stopped.stderr.contains("public.events_new"), "{}", stopped.stderr);
        run = life.run_with(&[KEEP]);
    }
    life.wait_for(
        &mut run,
        "rows of a new partition without a key",
        "select exists (select from events where kind = 'new' and n = 6)",
    )
    .await;
    do_all(&life, &["update events set n = 7 where kind = 'new'"]).await;
    life.wait_for(&mut run, "changes of it", "select exists (select from events where kind = 'new' and n = 7)").await;
    // What is done to one while it is none is in no stream of its root.
    do_all(&life, &["begin; alter table visits detach partition visits_5; truncate visits_5; insert into visits_5 values (77, 2, 'second'); alter table visits attach partition visits_5 for values in (77); commit"]).await;
    let stopped = run.finish(&["error: ", NO_KEY]).await.expect_code(6);
    assert!(stopped.stderr.contains("visits_5") && stopped.stderr.contains("attached again"), "{}", stopped.stderr);
    let mut run = life.run_with(&[KEEP]);
    life.wait_for(&mut run, "following", "select phase = 'follow' from pgmig.progress").await;
    // One that comes while another table is being copied waits for that.
    life.on_target(
        "begin; lock table orders in access exclusive mode; select pgmig.resync_table('public.orders'); commit",
    )
    .await;
    do_all(&life, &["create table visits_6 partition of visits for values in (66); insert into visits values (66, 1, 'first'); create table visits_7 partition of visits for values in (67); insert into visits values (67, 1, 'first')"]).await;
    life.wait_for(&mut run, "rows of two that came together", "select count(*) = 2 from visits where shop in (66, 67)")
        .await;
    life.kill(run).await;
    do_all(&life, &["create table orders_4 partition of orders for values from ('2026-10-01') to ('2026-11-01'); insert into orders values (9000, '2026-10-05', 1, 'while nobody looked')"]).await;
    let mut run = life.run_with(&[KEEP]);
    life.wait_for(
        &mut run,
        "rows of a partition that was made meanwhile",
        "select exists (select from orders where id = 9000)",
    )
    .await;
    do_all(&life, &["alter table orders_4 rename to orders_october; update orders set n = 2 where id = 9000"]).await;
    life.wait_for(
        &mut run,
        "rows of a partition under two names",
        "select exists (select from orders where id = 9000 and n = 2)",
    )
    .await;
    // What was in it before is in no stream.
    do_all(&life, &[
        "create table orders_old (like orders including all); insert into orders_old (id, at, n) values (9100, '2026-11-05', 1)",
        "alter table orders_old replica identity full; alter table orders attach partition orders_old for values from ('2026-11-01') to ('2026-12-01')",
    ]).await;
    let stopped = run.finish(&["error: ", NO_KEY]).await.expect_code(6);
    assert!(stopped.stderr.contains("public.orders_old"), "{}", stopped.stderr);
    let mut run = life.run_with(&[KEEP]);
    life.wait_for(
        &mut run,
        "rows of a partition that was attached",
        "select exists (select from orders where id = 9100)",
    )
    .await;
    life.wait_for(&mut run, "following", "select phase = 'follow' from pgmig.progress").await;
    // One that is detached is a table of its own; one that is dropped takes its rows along.
    do_all(
        &life,
        &["alter table visits detach partition visits_3; insert into visits_3 values (3, 12345, 'no more of it')"],
    )
    .await;
    let stopped = run.finish(&["error: ", NO_KEY]).await.expect_code(6);
    assert!(stopped.stderr.contains("public.visits_3"), "{}", stopped.stderr);
    let stopped = life.run_with(&[KEEP]).finish(&["error: ", NO_KEY]).await.expect_code(6);
    assert!(
        stopped.stderr.contains("public.visits_3") && stopped.stderr.to_lowercase().contains("create table"),
        "{}",
        stopped.stderr
    );
    life.on_target("create table visits_3 (shop int, id int, v text, primary key (shop, id))").await;
    let mut run = life.run_with(&[KEEP]);
    life.wait_for(&mut run, "the table of its own", "select exists (select from visits_3 where id = 12345)").await;
    life.wait_for(&mut run, "following", "select phase = 'follow' from pgmig.progress").await;
    do_all(&life, &["insert into orders (id, at) values (9200, '2026-11-06'); drop table orders_old"]).await;
    for _ in 0..100 {
        if run.stderr().contains("orders_old was dropped") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(run.stderr().contains("public.orders_old was dropped"), "{}", run.stderr());
    life.on_target("delete from orders where at >= '2026-11-01' and at < '2026-12-01'").await;
    life.set_endpos(life.lsn().await).await;
    run.finish(&["orders_old was dropped"]).await.expect_code(0);
    compare(&life).await;
    Ok(())
}

/// What is about single partitions is written down, what is about their table is run in its place, and what is
/// about a partition and another table is left to a person.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_about_partitions_that_the_target_has_not_is_written_down() -> Outcome {
    for way in [EXTENSION_WAL2JSON, PLAIN] {
        let mut life = begin(way).await;
        let mut run = life.follow_with(&[KEEP, "--ddl", "apply"]).await;
        do_all(
            &life,
            &[
                "create role reader",
                "create index on orders_1 (body)",
                "comment on table orders_3 is 'in two'",
                "alter table orders_2 set (fillfactor = 70)",
                "create table orders_9 partition of orders for values from ('2026-09-01') to ('2026-10-01')",
                "insert into orders values (9900, '2026-09-01', 1, 'new')",
                "create table visits_5 (shop int, id int, v text, primary key (shop, id))",
                "alter table visits attach partition visits_5 for values in (77)",
            ],
        )
        .await;
        let known = "select exists (select from pgmig.part where leaf_name = 'visits_5')";
        life.wait_for(&mut run, "an empty partition", known).await;
        do_all(
            &life,
            &[
                "insert into visits values (77, 1, 'new')",
                "alter table orders add note text",
                "update orders set note = 'known' where id % 3 = 0 or id = 9900",
                "insert into orders (id, at, note) values (9901, '2026-01-02', 'new')",
                "comment on table orders is 'all of them'",
            ],
        )
        .await;
        life.wait_for(&mut run, "the changes", "select exists (select from orders where note = 'new')").await;
        life.wait_for(&mut run, "the comment", "select count(*) = 8 from pgmig.ddl").await;
        assert_eq!(
            life.on_target("select string_agg(tag || ' ' || state, ', ' order by at) from pgmig.ddl").await,
            "CREATE INDEX left, COMMENT left, ALTER TABLE left, CREATE TABLE left, CREATE TABLE left, \
             ALTER TABLE left, ALTER TABLE applied, COMMENT applied"
        );
        let both = "grant select on orders_1, beside to reader";
        do_all(&life, &[both, "update orders set n = 77 where id = 1"]).await;
        let stopped = run.finish(&["error: ", NO_KEY]).await.expect_code(6);
        assert!(stopped.stderr.contains(both), "{}", stopped.stderr);
        assert!(stopped.stderr.contains("public.orders on the target, and about more"), "{}", stopped.stderr);
        life.on_target("create role reader").await;
        life.on_target("grant select on beside to reader").await;
        life.on_target("select pgmig.ddl_done()").await;
        let mut run = life.run_with(&[KEEP]);
        life.wait_for(&mut run, "what came behind it", "select n = 77 from orders where id = 1").await;
        life.set_endpos(life.lsn().await).await;
        life.allowed = &[NO_KEY, "not carried over"];
        life.finish(run).await;
        compare(&life).await;
    }
    Ok(())
}
