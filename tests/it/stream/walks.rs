//! Rows that are asked for in the order of an index are walked along it (`pg_ext/src/walk.rs`): nothing between
//! them may be taken for them, and nothing beside the walk be missed.

use harness::Outcome;

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, do_all};

/// Integers of each width with gaps of all sizes, below zero too, an index that runs the other way, and a second
/// index, so that updates are no HOT ones.
const MADE: &str = "
    create table longs (id bigint primary key, v int, w text); create index on longs (v);
    create table ints (id int primary key, v int, w text) with (fillfactor = 50);
    create table shorts (id smallint primary key, v int, w text);
    create table downs (id bigint not null, v int, w text); create unique index downs_id on downs (id desc); alter table downs replica identity using index downs_id;
    insert into longs select n, n, repeat('x', (n % 50)::int) from generate_series(-3000, 9000) n where n % 3 <> 0 or n % 97 = 0;
    insert into ints select n * (1 + n % 2), n, repeat('x', n % 50) from generate_series(1, 4000) n on conflict do nothing;
    insert into shorts select n, n, 'x' from generate_series(-500, 2000) n where n / 10 % 2 = 0;
    insert into downs select n, n, 'x' from generate_series(1, 3000) n";

const CHANGES: [&str; 9] = [
    "update longs set v = v + 1; update ints set v = v + 1; update shorts set v = v + 1; update downs set v = v + 1",
    "update longs set v = -v where id % 2 = 0; update ints set w = w || '.' where id % 3 = 0",
    "begin; update longs set v = v + 1 where id > 0; delete from longs where id % 7 = 0; insert into longs select n, 0, 'again' from generate_series(7, 700, 7) n; update longs set w = 'twice' where id between 1 and 800; commit",
    "begin; update shorts set id = id + 3000 where id < 100; update shorts set v = 7; delete from shorts where id between 3000 and 3010; commit",
    "update longs set id = id + 100000 where id between 2000 and 4000",
    "delete from ints where id in (select id from ints order by id desc limit 500)",
    "begin; delete from downs where id < 1000; insert into downs select n, n, 'new' from generate_series(1, 500) n; update downs set v = 1; commit",
    "delete from longs where id between 100 and 1500; update longs set v = v + 1",
    "delete from longs; delete from ints where id % 5 < 3; delete from shorts; delete from downs where id % 2 = 0",
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_the_order_of_an_index_are_found_each_for_itself() -> Outcome {
    for way in [EXTENSION, EXTENSION_WAL2JSON] {
        let life = Life::begin(way, MADE).await;
        let mut run = life.follow().await;
        for change in CHANGES {
            do_all(&life, &[change]).await;
            let level = format!("select replay_lsn >= '{}' from pgmig.progress", life.lsn().await);
            do_all(&life, &["insert into longs values (-1000000, 0, null); delete from longs where id = -1000000"])
                .await;
            life.wait_for(&mut run, change, &level).await;
        }
        life.end(run).await;
    }
    Ok(())
}

/// A row that is not there is missed where the walk passes its place, not taken for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_walk_does_not_meet_is_missing() -> Outcome {
    let life = Life::begin(EXTENSION, MADE).await;
    let run = life.follow().await;
    life.on_target("delete from longs where id = 5000").await;
    do_all(&life, &["update longs set v = v + 1 where id > 4000"]).await;
    let stopped = run.finish(&["error: "]).await.expect_code(6);
    assert!(stopped.stderr.contains("public.longs"), "{}", stopped.stderr);
    life.on_target("insert into longs values (5000, 5000, '')").await;
    do_all(&life, &["update longs set w = ''"]).await;
    life.end(life.run()).await;
    Ok(())
}
