//! Transactions of every kind, and what memory they take: begun in one order and committed in another,
//! rolled back in part, prepared and committed by another session, as large as a day's work, as small
//! as a row, and between them what is no row change at all.

use std::time::Duration;

use harness::{Outcome, Pgmig, assert_same};
use pgmig::embedded::Cluster;

use super::{EXTENSION, Life, PLAIN_WAL2JSON, WAYS, Way, do_all, session, value};

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_every_kind_arrive_in_commit_order() -> Outcome {
    for way in WAYS {
        transactions_of_every_kind(way).await;
    }
    Ok(())
}

async fn transactions_of_every_kind(way: Way) {
    let life =
        Life::between(way, Cluster::builder().setting("max_prepared_transactions", "8"), Cluster::builder()).await;
    do_all(
        &life,
        &[
            "create table t (id int primary key, note text, n int not null default 0)",
            "create table uniques (id int primary key, u int unique, body text)",
            "alter table uniques alter body set storage external",
            "create table keyed (a text not null, b int not null, body text, gone int, twice int generated always as (b * 2) stored)",
            "create unique index keyed_key on keyed (b, a) include (twice)",
            "alter table keyed replica identity using index keyed_key; alter table keyed drop gone; alter table keyed alter body set storage external",
            "create table full_rows (a int, body text, gone int, twice int generated always as (a * 2) stored, c json)",
            "alter table full_rows replica identity full; alter table full_rows drop gone; alter table full_rows alter body set storage external",
            "insert into t select n, 'copied' from generate_series(1, 100) n",
            "insert into uniques select n, n, repeat(md5(n::text), 200) from generate_series(1, 20) n",
            "insert into keyed select 'a' || n, n, repeat(md5(n::text), 200) from generate_series(1, 20) n",
            "insert into full_rows (a, body, c) select n % 3, repeat(md5((n % 3)::text), 200), '{\"a\": 1}' from generate_series(1, 12) n",
            "begin; insert into t values (900, 'prepared before the slot'); prepare transaction 'early'",
            "commit prepared 'early'",
        ],
    )
    .await;
    let run = life.follow().await;
    let uri = life.pair.source_uri();
    let (a, b, c) = (session(&uri).await, session(&uri).await, session(&uri).await);
    // Begun first, committed last, and the other way round; one row's value shows the order.
    value(&a, "begin; insert into t values (1001, 'a'); update t set note = 'a' where id = 1").await;
    value(&b, "begin; insert into t values (1002, 'b'); update t set note = 'b' where id = 2").await;
    value(&c, "begin; savepoint one; insert into t values (1003, 'c'); savepoint two; delete from t where id between 60 and 70; rollback to two").await;
    value(&b, "update t set n = n + 1 where id = 3; commit; update t set n = n * 2 where id = 3").await;
    value(&a, "update t set n = n + 10 where id = 3; commit").await;
    value(
        &c,
        "update t set n = n * 3 where id = 3; release one; savepoint three; insert into t values (1004, 'c'); commit",
    )
    .await;
    value(
        &a,
        "begin; truncate uniques; rollback; begin; insert into t values (1, 'taken') on conflict do nothing; commit",
    )
    .await;
    do_all(
        &life,
        &[
            // Prepared by one session and decided by another, with others in between.
            "begin; insert into t values (1010, 'prepared'); update t set n = 50 where id = 50; prepare transaction 'it''s'",
            "begin; insert into t values (1011, 'never'); prepare transaction 'never'",
            "begin; insert into t values (1012, 'between')",
            "commit",
            "rollback prepared 'never'",
            "commit prepared 'it''s'",
            "update t set n = n + 1 where id = 50",
            // No row changes: other tools' messages, empty transactions, updates that change nothing.
            "select pg_logical_emit_message(true, 'other', repeat('x', 100000)), pg_logical_emit_message(false, 'pgmig', 'not ours'), pg_logical_emit_message(true, 'other', '\\xff00fe'::bytea)",
            "begin; select pg_logical_emit_message(true, '', ''); insert into t values (1013, 'after a message'); commit",
            "begin; create temp table gone (a int); insert into gone values (1); drop table gone; commit",
            "update t set note = note; update keyed set b = b; update full_rows set a = a; update uniques set id = id, u = u",
            "create table late_and_gone (a int primary key); drop table late_and_gone",
            // Values of a unique column change hands, in a transaction and over several.
            "begin; update uniques set u = null where id = 1; update uniques set u = 1 where id = 2; update uniques set u = 2 where id = 1; commit",
            "update uniques set u = -u; update uniques set u = 100 + u where u < -10",
            "delete from uniques where id = 5; insert into uniques values (5, -4, 'again') on conflict do nothing; insert into uniques values (5, 500, 'again')",
            "begin; delete from uniques where id = 6; insert into uniques values (6, 600, 'at once'); update uniques set u = 601 where id = 6; commit",
            // Keys change beside values that stay in TOAST.
            "update uniques set id = id + 100 where id between 7 and 9",
            "update keyed set a = a || '.' where b = 3; update keyed set b = b + 100 where b between 4 and 6; update keyed set body = 'short' where b = 7",
            "begin; update keyed set b = -1 where b = 8; update keyed set b = 8 where b = 9; update keyed set b = 9 where b = -1; commit",
            "delete from keyed where b = 10; insert into keyed values ('x', 10, repeat('y', 9000))",
            "update full_rows set a = 7 where ctid = (select min(ctid) from full_rows where a = 1)",
            "update full_rows set c = '{\"b\": [1, 2]}' where ctid = (select max(ctid) from full_rows where a = 2)",
            "delete from full_rows where ctid = (select min(ctid) from full_rows where a = 0)",
            // Rows that share one WAL record.
            "insert into t select n, 'many' from generate_series(2000, 6999) n; delete from t where id between 3000 and 3999",
            "copy t (id) from program 'seq 10000 14999'",
        ],
    )
    .await;
    life.end(run).await;
    assert_eq!(life.on_target("select n from t where id = 3").await, "36", "commit order");
}

/// Most memory that a process has had, in MiB.
fn peak_mib(run: &Pgmig) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).expect("pgmig is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process has a peak");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("kB") >> 10
}

/// Of pgmig, whatever it moves.
const PEAK_MIB: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_a_transaction() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        one_large_transaction(way, 300_000, 3_000).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes: make soak"]
async fn soak_a_transaction_of_ten_million_rows() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        one_large_transaction(way, 10_000_000, 100_000).await;
    }
    Ok(())
}

/// Also over a gap in the WAL that holds nothing to decode.
async fn one_large_transaction(way: Way, rows: u32, small: u32) {
    let life = Life::begin(
        way,
        "create table large (id int primary key, a text, b text); create table small (id int primary key, n int)",
    )
    .await;
    let mut run = life.follow().await;
    for n in 0..3 {
        do_all(&life, &["select pg_switch_wal()", &format!("create table gap_{n} (); drop table gap_{n}")]).await;
    }
    do_all(
        &life,
        &[
            &format!("begin; insert into large select n, md5(n::text), repeat('x', 60) from generate_series(1, {rows}) n; update large set a = 'x' where id % 10 = 0; delete from large where id % 7 = 0; commit"),
            "insert into small values (0, 0)",
            &format!("do $$ begin for n in 1..{small} loop insert into small values (n, n); commit; end loop; end $$"),
        ],
    )
    .await;
    let applied = "select count(*) from small";
    let all = format!("select ({applied}) = {small} + 1");
    let start = std::time::Instant::now();
    while life.on_target(&all).await != "t" {
        assert!(run.is_running() && start.elapsed() < Duration::from_secs(3_600), "{}", run.stderr());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let peak = peak_mib(&run);
    println!("{way:?}: {rows} rows in one transaction and {small} of one row: {peak} MiB at most");
    assert!(peak < PEAK_MIB, "{way:?}: {peak} MiB");
    life.end(run).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes gigabytes: make soak"]
async fn soak_a_value_of_300_megabytes() -> Outcome {
    for way in WAYS {
        let life = Life::begin(
            way,
            "create table big (id int primary key, n int, body text); alter table big alter body set storage external",
        )
        .await;
        let mut run = life.follow().await;
        do_all(&life, &["insert into big values (1, 0, repeat('0123456789', 30000000))", "update big set n = 1"]).await;
        let applied = "select exists (select from big where n = 1)";
        life.wait_within(Duration::from_secs(600), &mut run, "the value", applied).await;
        println!("{way:?}: a value of 286 MiB: {} MiB at most", peak_mib(&run));
        life.set_endpos(life.lsn().await).await;
        let done = run.wait(Duration::from_secs(900)).await.finish(&[]).expect_code(0);
        println!("{way:?}: {}", done.stderr);
        assert_same(&life.pair).await;
    }
    Ok(())
}

/// The source hears of us whatever apply does: held for three times what the source waits, and the
/// stream is the same one as before.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_answered_while_apply_is_held() -> Outcome {
    let life =
        Life::between(EXTENSION, Cluster::builder().setting("wal_sender_timeout", "5s"), Cluster::builder()).await;
    do_all(&life, &["create table t (id int primary key, note text)"]).await;
    let mut run = life.follow().await;
    let sender = "select pid from pg_stat_replication where application_name = 'pgmig receive'";
    let before = life.on_source(sender).await;
    // Held by a lock, in the middle of a Batch.
    let holder = session(&life.pair.target_uri()).await;
    value(&holder, "begin; lock table t in access exclusive mode").await;
    let held = std::time::Instant::now();
    let mut id = 0;
    while held.elapsed() < Duration::from_secs(15) {
        id += 1;
        life.on_source(&format!("insert into t values ({id}, repeat('{}', 100))", fastrand::digit(10))).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(life.on_source(sender).await, before, "{}", run.stderr());
    value(&holder, "commit").await;
    life.wait_for(&mut run, "the rows", &format!("select exists (select from t where id = {id})")).await;
    life.end(run).await;
    Ok(())
}
