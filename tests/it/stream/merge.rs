//! Rows that change again and again: written once a Batch, and the same in the end as if each change
//! had been written by itself, whatever is unique beside the key.

use harness::{Outcome, assert_same};

use super::{Life, WAYS, Way, do_all};

const MADE: &str = "create table hot (id int primary key, n bigint not null, big text, note text); \
                    alter table hot alter big set storage external; \
                    insert into hot select n, 0, repeat(md5(n::text), 200), 'copied' from generate_series(1, 5) n; \
                    create table pairs (a int, b text, u int unique, note text, primary key (b, a)); \
                    insert into pairs select n, 'x', n, 'copied' from generate_series(1, 20) n; \
                    create table bare (a int, b text); alter table bare replica identity full; \
                    insert into bare select n % 3, 'x' from generate_series(1, 9) n; \
                    create table late (id int primary key, u int unique deferrable initially deferred); \
                    insert into late select n, n from generate_series(1, 10) n";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_often_is_written_once_a_batch() -> Outcome {
    for way in WAYS {
        hot_rows(way).await;
    }
    Ok(())
}

async fn hot_rows(way: Way) {
    let life = Life::begin(way, MADE).await;
    let mut run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    let mut changes: Vec<String> =
        (0..300).map(|n| format!("update hot set n = n + {n} where id = {}", n % 3 + 1)).collect();
    let odd = [
        // What is left alone keeps its large value, also if that was given in the same Batch.
        "insert into hot values (6, 1, repeat('six', 3000), 'new')",
        "update hot set n = 2 where id = 6",
        "update hot set big = repeat('other', 2000) where id = 1; update hot set note = 'after' where id = 1",
        // Gone and back, back and gone, and never there in the end.
        "delete from hot where id = 4",
        "insert into hot values (4, 44, 'back', null)",
        "update hot set note = 'changed' where id = 4",
        "begin; insert into hot values (7, 7); delete from hot where id = 7; insert into hot values (7, 8); delete from hot where id = 7; commit",
        "delete from hot where id = 5; insert into hot values (5, 5); delete from hot where id = 5",
        // Keys that move, and swap.
        "update hot set id = 100 where id = 2; update hot set n = -1 where id = 100; insert into hot values (2, 2); update hot set id = 101 where id = 2",
        "begin; update pairs set a = -a where a = 1; update pairs set a = 1 where a = 2; update pairs set a = 2 where a = -1; commit",
    ];
    for (at, statement) in odd.iter().enumerate() {
        changes.insert(at * 17, statement.to_string());
    }
    changes.push("insert into hot values (999, 0)".into());
    do_all(&life, &changes.iter().map(String::as_str).collect::<Vec<_>>()).await;
    life.on_target("select pgmig.resume()").await;
    life.wait_for(&mut run, "the last row", "select exists (select from hot where id = 999)").await;
    life.on_target("select pgmig.pause()").await;
    let in_the_way = [
        // A unique column beside the key that changes hands: deletes first and inserts last is not enough.
        "begin; update pairs set u = 1000 where a = 3; update pairs set u = 3 where a = 4; update pairs set u = 4 where a = 3; commit",
        "update pairs set u = null where a = 5; insert into pairs values (50, 'x', 5, 'has it now'); delete from pairs where a = 50; update pairs set u = 5 where a = 6",
        "begin; update late set u = 2 where id = 1; update late set u = 1 where id = 2; commit",
        // Rows that look the same are not the same row.
        "update bare set b = 'y' where ctid = (select min(ctid) from bare where a = 1); delete from bare where ctid = (select min(ctid) from bare where a = 1)",
        "insert into bare values (1, 'x'), (1, 'x'); delete from bare where a = 2",
        "begin; truncate late; insert into late values (1, 1); update late set u = 7; commit",
    ];
    do_all(&life, &in_the_way).await;
    let endpos = life.lsn().await;
    life.set_endpos(&endpos).await;
    life.on_target("select pgmig.resume()").await;
    life.finish(run).await;
    assert_same(&life.pair).await;
    // The statistics come with the end of a session.
    let updates = "select n_tup_upd from pg_stat_user_tables where relname = 'hot'";
    let written: u32 = life.on_target(updates).await.parse().expect("a number");
    assert!(written < 150, "{written} updates of a few rows, {way:?}");
    let transactions: u32 =
        life.on_target("select applied_transactions from pgmig.progress").await.parse().expect("a number");
    assert!(transactions >= 240, "{transactions}");
}
