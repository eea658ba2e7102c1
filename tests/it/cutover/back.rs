//! The way back: what was committed on the new side is on the old one when it is gone back to. The clients'
//! own ledger of answers and PostgreSQL are the judges, on both sides.

use std::time::Duration;

use harness::{Outcome, Pgmig, assert_same, wait_until};

use super::writer::Clients;
use crate::life::{EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

/// What makes a way back hard: no key, large values, partitions, a key that moves.
const MORE: &str = "
create table pile (what text, size int);
alter table pile replica identity full;
insert into pile select 'same', 1 from generate_series(1, 5);
create table large (id int primary key, body text, note text);
create table scratch (id int primary key);
insert into scratch select generate_series(1, 100);
create table split (id int, at int, primary key (id, at)) partition by range (at);
create table split_low partition of split for values from (0) to (100);
create table split_high partition of split for values from (100) to (200);
insert into split select g, g from generate_series(1, 150) g;
create rule noted as on insert to scratch do also insert into pile values ('ruled', new.id);
alter table scratch enable always rule noted;
grant all on all tables in schema public to app";

const ON_THE_NEW_SIDE: &str = "
insert into quiet select generate_series(100, 110);
insert into pile values ('same', 1), ('other', 2);
update pile set size = 7 where ctid = (select min(ctid) from pile);
delete from pile where ctid = (select max(ctid) from pile where what = 'same');
insert into large select g, string_agg(md5(g::text || i), ''), 'x' from generate_series(1, 3) g, generate_series(1, 40000) i group by g;
update large set note = 'y' where id = 2;
delete from large where id = 3;
truncate scratch;
insert into scratch select generate_series(5, 50);
update split set at = at + 100 where id = 7;
delete from split where id between 20 and 30;
begin; insert into pile values ('gone', 0); savepoint s; insert into pile values ('never', 0); rollback to s; commit;
begin; insert into pile values ('never', 1); rollback;
update note set number = number where id % 3 = 0;
insert into note (client, number) select 99, g from generate_series(1, 20000) g;
refresh materialized view notes;
select nextval('down'), nextval('turning'), setval('untouched', 4711)";

const LEDGER: &str = "select string_agg(format('%s:%s', client, most), ',' order by client) \
                      from (select client, max(number) as most from note where client < 99 group by 1) n";

impl Life {
    async fn shop_and_more(way: Way) -> Life {
        let life = Life::shop(way).await;
        for statement in MORE.split(";\n") {
            life.on_source(statement).await;
        }
        life
    }
    async fn carries_back(&self, run: &mut Pgmig) {
        wait_until(Duration::from_secs(30), "the way back", async || {
            run.stderr().contains("its changes are carried back")
        })
        .await;
    }
    /// Nothing of pgmig is left on either side, and both are equal.
    async fn is_clean(&self) {
        let dir = self.dir.path().display().to_string();
        self.pgmig(&["cleanup", "--dir", &dir]).finish(&[]).await.expect_code(0);
        let left = "select (select count(*) from pg_replication_slots) + (select count(*) from pg_publication where pubname ~ 'pgmig')
                           + (select count(*) from pg_namespace where nspname = 'pgmig') + (select count(*) from pg_event_trigger)";
        assert_eq!((self.on_source(left).await, self.on_target(left).await), ("0".into(), "0".into()));
        assert_same(&self.pair).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_can_go_back_with_nothing_lost_with_the_extension() -> Outcome {
    there_and_back(EXTENSION_WAL2JSON, &["--ddl", "apply"]).await
}
#[tokio::test(flavor = "multi_thread")]
async fn one_can_go_back_with_nothing_lost_in_plain_sql() -> Outcome {
    there_and_back(PLAIN, &[]).await
}

/// On either side, where DDL is told.
const DDL: [&str; 4] = [
    "alter table large add SIDE text default 'e'",
    "update large set SIDE = 'changed' where id = 2",
    "create index large_SIDE on large (SIDE)",
    "comment on column large.SIDE is 'SIDE'",
];

async fn there_and_back(way: Way, how: &[&str]) -> Outcome {
    let mut life = Life::shop_and_more(way).await;
    let mut run = life.follow_with(how).await;
    let tells = !how.is_empty();
    for statement in DDL.iter().filter(|_| tells) {
        life.on_source(&statement.replace("SIDE", "before")).await;
    }
    let old = Clients::start(&life.as_app(&life.pair.source_uri()), 3).await;
    old.have_written(50).await;
    let cut = life.cutover(&["--reverse", "--dry-run"]).finish(&[]).await.expect_code(0);
    assert!(cut.stderr.contains("not made: the way back"), "{}", cut.stderr);
    let cut = life.cutover(&["--reverse", "--verify", "--max-downtime", "60s"]).finish(&[]).await.expect_code(0);
    assert!(cut.stderr.contains("  verify ") && cut.stderr.contains("  proof "), "{}", cut.stderr);
    let new = Clients::start_as(&life.as_app(&life.pair.target_uri()), 10..13).await;
    let old = old.stop().await;
    assert!(old.refused > 0, "the source takes no writes");
    for statement in ON_THE_NEW_SIDE.split(";\n") {
        life.on_target(statement).await;
    }
    for statement in DDL.iter().filter(|_| tells) {
        life.on_target(&statement.replace("SIDE", "after")).await;
    }
    life.carries_back(&mut run).await;
    assert_eq!(life.on_target("select way_back from pgmig.progress").await, "open");
    // The old source is no target that pgmig has filled.
    let (there, here) = (life.pair.target_uri(), life.pair.source_uri());
    for verb in [&["reset-target", "--yes", "--force"][..], &["cleanup", "--force"]] {
        let wrong = life.pgmig_between(&there, &here, verb).finish(&["error: this is the way back"]).await;
        assert_ne!(wrong.code(), 0, "{}", wrong.stderr);
    }
    life.again().await;
    // The process dies, and the same command goes on with the way back.
    run.kill();
    run.finish(&[]).await;
    new.have_written(50).await;
    run = life.run();
    life.carries_back(&mut run).await;
    new.have_written(50).await;
    let back = life.cutover(&["--back", "--max-downtime", "60s"]).finish(&[]).await.expect_code(0);
    run.finish(&[]).await.expect_code(0);
    let new = new.stop().await;
    assert!(new.refused > 0, "the new side takes no writes any more");
    let again = Clients::start_as(&life.as_app(&life.pair.source_uri()), 20..21).await;
    again.have_written(5).await;
    again.stop().await;
    life.connect_again().await;
    life.on_source("delete from note where client = 20").await;
    life.on_target("set default_transaction_read_only = off").await;
    let (here, there) = (life.on_source(LEDGER).await, life.on_target(LEDGER).await);
    println!("{way:?}: {}{}", back.stdout, life.on_source("select count(*) from note").await);
    assert_eq!(here, format!("{},{}", old.answered(), new.answered()), "what was answered is on the old side");
    assert_eq!(there, here, "and on the new one");
    // The sequence has moved with the rows that were just written and removed.
    life.on_source("select setval('note_id_seq', (select last_value from note_id_seq))").await;
    life.on_target(&format!(
        "select setval('note_id_seq', {})",
        life.on_source("select last_value from note_id_seq").await
    ))
    .await;
    assert_eq!(life.on_target("select way_back from pgmig.progress").await, "taken");
    assert_eq!(life.on_source("show default_transaction_read_only").await, "off");
    life.is_clean().await;
    // What was quiet for the way back is there again.
    let audited = "select count(*) from audit";
    let before = life.on_source(audited).await;
    life.on_source("insert into quiet values (2000)").await;
    assert_ne!(life.on_source(audited).await, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_dies_at_any_step_is_undone_or_goes_on() -> Outcome {
    let mut life = Life::shop_and_more(PLAIN_WAL2JSON).await;
    let mut run = life.follow().await;
    let cut = ["--reverse", "--switch", "true", "--max-downtime", "60s"];
    for point in ["after reverse", "before turn", "after turn"] {
        life.crash = point.into();
        assert_eq!(life.cutover(&cut).finish(&[]).await.code(), 128 + 9, "{point}");
    }
    life.crash = String::new();
    life.cutover(&["--undo"]).finish(&[]).await.expect_code(0);
    life.again().await;
    let left = "select count(*) from pg_namespace where nspname = 'pgmig'";
    assert_eq!(life.on_source(left).await, "0", "nothing is left on the old source");
    assert_eq!(life.on_target("select count(*) from pg_replication_slots").await, "0");
    let fires = "select string_agg(tgenabled::text, '') from pg_trigger where tgname = 'audited'";
    assert_eq!(life.on_source(fires).await, "A");
    life.on_source("insert into quiet values (2)").await;
    // Behind the switch there is no way but forward.
    life.crash = "after switch".into();
    assert_eq!(life.cutover(&cut).finish(&[]).await.code(), 128 + 9);
    life.crash = String::new();
    life.cutover(&cut).finish(&[]).await.expect_code(0);
    life.carries_back(&mut run).await;
    life.again().await;
    assert_eq!(life.on_source(fires).await, "D");
    let new = Clients::start_as(&life.as_app(&life.pair.target_uri()), 10..12).await;
    new.have_written(20).await;
    life.on_target("insert into quiet values (3)").await;

    for point in ["after freeze", "before drain", "after finish"] {
        life.crash = point.into();
        let back = life.cutover(&["--back", "--switch", "true", "--max-downtime", "60s"]).finish(&[]).await;
        assert_eq!(back.code(), 128 + 9, "{point}: {}", back.stderr);
    }
    life.crash = String::new();
    life.cutover(&["--back", "--undo"]).finish(&[]).await.expect_code(0);
    life.connect_again().await;
    new.have_written(20).await;
    assert_eq!(life.on_source(fires).await, "D", "it is quiet again");
    assert_eq!(life.on_source("show default_transaction_read_only").await, "on");
    // Nobody carries changes back meanwhile: the cutover does.
    run.kill();
    run.finish(&["nobody ends the cutover"]).await;
    life.on_target("insert into quiet values (4)").await;
    life.crash = "before open".into();
    let back = ["--back", "--switch", "true", "--max-downtime", "60s"];
    assert_eq!(life.cutover(&back).finish(&[]).await.code(), 128 + 9);
    life.crash = String::new();
    life.cutover(&back).finish(&[]).await.expect_code(0);
    let new = new.stop().await;
    life.connect_again().await;
    assert_eq!(life.on_source("show default_transaction_read_only").await, "off");
    assert_eq!(life.on_source(fires).await, "A");
    assert_eq!(life.on_source(LEDGER).await, new.answered());
    let again = life.cutover(&["--back"]).finish(&[]).await.expect_code(0);
    assert!(again.stderr.contains("done already"), "{}", again.stderr);
    life.on_target("set default_transaction_read_only = off").await;
    life.is_clean().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_would_lose_something_is_refused_before_anything_is_stopped() -> Outcome {
    let life = Life::shop(EXTENSION_WAL2JSON).await;
    let none = life.cutover(&["--back"]).finish(&["error: there is no migration"]).await.expect_code(5);
    assert!(none.stderr.contains("start one: pgmig run"), "{}", none.stderr);
    let run = life.follow().await;
    let none = life.cutover(&["--back"]).finish(&["has no way back"]).await.expect_code(5);
    assert!(none.stderr.contains("--reverse"), "{}", none.stderr);
    life.on_target("alter table quiet replica identity nothing").await;
    let cut =
        life.cutover(&["--reverse"]).finish(&["error: the cutover was undone at step reverse"]).await.expect_code(4);
    assert!(cut.stderr.contains("which row an UPDATE or DELETE means in public.quiet"), "{}", cut.stderr);
    assert!(!cut.stderr.contains("writes were stopped"), "{}", cut.stderr);
    life.on_target("alter table quiet replica identity default").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_told_which_way_it_goes_and_what_fails_on_the_way_back_is_undone() -> Outcome {
    let mut life = Life::shop_and_more(PLAIN_WAL2JSON).await;
    let mut run = life.follow().await;
    let folder = tempfile::tempdir()?;
    let calls = folder.path().join("calls");
    let log = format!("echo $PGMIG_HOOK $PGMIG_ACTION $PGMIG_DIRECTION >> {}", calls.display());
    let freeze = format!("hook:{log}");
    let asked = || std::fs::read_to_string(&calls).unwrap_or_default().lines().map(str::to_string).collect::<Vec<_>>();
    life.cutover(&["--reverse", "--freeze", &freeze, "--switch", &log, "--max-downtime", "60s"])
        .finish(&[])
        .await
        .expect_code(0);
    assert_eq!(asked(), ["freeze do forth", "switch do forth"]);
    life.carries_back(&mut run).await;
    life.on_target("insert into quiet values (3)").await;

    // Nothing else could open the old source again.
    let back = life.cutover(&["--back"]).finish(&["error: the cutover was undone at step check"]).await.expect_code(2);
    assert!(back.stderr.contains("PGMIG_ACTION=undo PGMIG_DIRECTION=forth"), "{}", back.stderr);
    assert!(!back.stderr.contains("writes were stopped for"), "{}", back.stderr);
    let fails = format!("{log}; test $PGMIG_ACTION = undo");
    let back = ["--back", "--freeze", &freeze, "--max-downtime", "60s", "--switch"];
    let undone = life.cutover(&[&back[..], &[&fails]].concat());
    undone.finish(&["error: the cutover was undone at step switch"]).await.expect_code(1);
    assert_eq!(asked()[2..], ["freeze do back", "switch do back", "switch undo back", "freeze undo back"]);
    let is_open = "select way_back from pgmig.progress";
    assert_eq!(life.on_target(is_open).await, "open");
    life.on_target("insert into quiet values (4)").await;
    wait_until(Duration::from_secs(30), "it is carried back", async || {
        life.on_source("select count(*) from quiet where id in (3, 4)").await == "2"
    })
    .await;
    life.cutover(&[&back[..], &[&log]].concat()).finish(&[]).await.expect_code(0);
    run.finish(&["the cutover was undone"]).await.expect_code(0);
    assert_eq!(asked()[6..], ["freeze do back", "switch do back", "freeze undo forth"]);
    life.connect_again().await;
    life.is_clean().await;
    Ok(())
}
