//! The cutover: writes stop, the last change goes through, clients are switched; or all of it is undone.
//! Clients that write all the time are the judges: what was answered is there, and how long they waited.

mod back;
mod carried;
mod died;
mod pgbouncer;
mod sequences;
pub mod writer;

use std::time::Duration;

use harness::{Outcome, assert_same, wait_until};

use crate::life::{EXTENSION, Life, PLAIN, Way};
use writer::Clients;

/// What has to be carried over at the end, beside rows: sequences of all kinds, a view, a trigger that fires
/// always, an identity column, a publication.
const SHOP: &str = "
create role app login;
create table note (id bigint generated always as identity primary key, client int not null, number int not null, at timestamptz default now());
create table audit (id serial primary key, what text);
create function audited() returns trigger language plpgsql as $$begin insert into public.audit (what) values (tg_op); return null; end$$;
create table quiet (id int primary key);
create trigger audited after insert on quiet for each row execute function audited();
alter table quiet enable always trigger audited;
create sequence down increment -3 minvalue -900000 maxvalue 900000 start 10;
create sequence turning maxvalue 5 cycle;
create sequence untouched start 77;
select nextval('down'), nextval('turning'), nextval('turning');
create materialized view notes as select client, count(*) from note group by client;
create publication everything for all tables;
grant all on all tables in schema public to app;
grant all on all sequences in schema public to app;
insert into quiet values (1);";

/// A hook that does not end before pgmig does, and has nothing to undo.
const ENDLESS: &str = "test $PGMIG_ACTION = undo || { while kill -0 $PPID 2>/dev/null; do sleep 0.2; done; false; }";

impl Life {
    async fn shop(way: Way) -> Life {
        let life = Life::empty(way).await;
        life.on_target("create role app login").await;
        for statement in SHOP.split(";\n") {
            life.on_source(statement).await;
        }
        life
    }
    fn as_app(&self, uri: &str) -> String {
        self.as_role("app", uri)
    }
    fn as_role(&self, role: &str, uri: &str) -> String {
        let (_, host) = uri.split_once('@').expect("the harness names the user");
        format!("postgresql://{role}@{host}")
    }
    fn cutover(&self, more: &[&str]) -> harness::Pgmig {
        let dir = self.dir.path().display().to_string();
        let mut args = vec!["cutover", "--dir", &dir];
        args.extend(more);
        self.pgmig(&args)
    }
    /// A cutover that has come to its switch, a hook that does not end.
    async fn hang_in_the_switch(&self, hook: &str) -> harness::Pgmig {
        let before = self.on_target("select coalesce(max(attempt), 0) from pgmig.cutover").await;
        let mut cut = self.cutover(&["--switch", hook, "--max-downtime", "300s"]);
        let begun = format!(
            "select exists (select from pgmig.cutover where attempt > {before} and step = 'switch' and state = 'running')"
        );
        self.wait_for(&mut cut, "the switch", &begun).await;
        cut
    }
    /// Sessions of the test were ended with all others.
    async fn again(&mut self) {
        self.source = crate::life::session(&self.pair.source_uri()).await;
    }
    async fn steps(&self) -> String {
        let list = "select string_agg(step || ' ' || state, ', ' order by position) from pgmig.cutover \
                     where attempt = (select max(attempt) from pgmig.cutover)";
        self.on_target(list).await
    }
}

/// Undone, the source takes writes, what was made at the end is gone, and changes are followed again.
async fn is_undone(life: &mut Life) {
    life.again().await;
    assert_eq!(life.on_source("show default_transaction_read_only").await, "off");
    let state = "select phase || ' ' || (endpos is null) || ' ' || (select count(*) from pg_trigger where tgname = 'audited') from pgmig.progress";
    assert_eq!(life.on_target(state).await, "follow true 0");
    let steps = life.steps().await;
    assert!(steps.split(", ").all(|step| step.ends_with(" undone")), "{steps}");
    life.on_source("insert into quiet values (coalesce((select max(id) + 1 from quiet), 0)); update note set number = -number where id in (1, 2)")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_carries_all_over_with_the_extension() -> Outcome {
    a_cutover_carries_all_over(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_carries_all_over_in_plain_sql() -> Outcome {
    a_cutover_carries_all_over(PLAIN).await
}

async fn a_cutover_carries_all_over(way: Way) -> Outcome {
    let mut life = Life::shop(way).await;
    let run = life.follow().await;
    let clients = Clients::start(&life.as_app(&life.pair.source_uri()), 3).await;
    clients.have_written(50).await;
    life.cutover(&["--dry-run"]).finish(&[]).await.expect_code(0);
    let cut = life.cutover(&["--max-downtime", "60s"]).finish(&[]).await.expect_code(0);
    assert!(cut.stdout.starts_with("writes were stopped for "), "{}", cut.stdout);
    run.finish(&[]).await.expect_code(0);
    let written = clients.stop().await;
    assert!(written.refused > 0, "the source still takes writes");
    let there = life.on_target("select string_agg(format('%s:%s', client, most), ',' order by client) from (select client, max(number) as most from note group by 1) n").await;
    assert_eq!(there, written.answered(), "what was answered is on the target");
    let state = "select phase from pgmig.progress";
    assert_eq!(life.on_target(state).await, "done");
    assert_eq!(
        life.on_target("select count(*) from pg_trigger where tgname = 'audited' and tgenabled = 'A'").await,
        "1"
    );
    println!("{way:?}: {}{}", cut.stdout, life.steps().await);
    life.again().await;
    assert_same(&life.pair).await;
    life.on_target("insert into note (client, number) values (99, 99); insert into quiet values (1000)").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_takes_too_long_is_undone_and_so_is_one_that_died() -> Outcome {
    // There identity columns are part of what is undone.
    for way in [PLAIN] {
        let mut life = Life::shop(way).await;
        life.on_source("insert into note (client, number) values (0, 1), (0, 2)").await;
        let mut run = life.follow().await;
        // Too long: the hook never ends, and is asked to take back what it may have done.
        let marks = tempfile::tempdir()?;
        let hook = format!("touch {}/$PGMIG_HOOK.$PGMIG_ACTION; {ENDLESS}", marks.path().display());
        let cut =
            life.cutover(&["--switch", &hook, "--max-downtime", "8s"]).finish(&["error: the cutover was undone"]).await;
        let cut = cut.expect_code(1);
        assert!(cut.stderr.contains("longer than --max-downtime 8.0 s"), "{}", cut.stderr);
        let reached = cut.stderr.contains("at step switch");
        assert_eq!(marks.path().join("switch.undo").exists(), reached, "{}", cut.stderr);
        is_undone(&mut life).await;

        // Killed behind the point where everything is made, and found by the next one.
        let mut cut = life.hang_in_the_switch(ENDLESS).await;
        cut.kill();
        cut.finish(&[]).await;
        life.cutover(&["--undo"]).finish(&[]).await.expect_code(0);
        is_undone(&mut life).await;
        let mut cut = life.hang_in_the_switch(ENDLESS).await;
        cut.kill();
        cut.finish(&[]).await;

        // By hand, while nobody else applies changes.
        run.kill();
        run.finish(&["nobody ends the cutover"]).await;
        let mut cut = life.hang_in_the_switch(ENDLESS).await;
        cut.interrupt();
        let cut = cut.finish(&["error: the cutover was undone"]).await.expect_code(130);
        assert!(cut.stderr.contains("stopped by hand"), "{}", cut.stderr);
        is_undone(&mut life).await;

        run = life.run();
        wait_until(Duration::from_secs(60), "the run", async || run.stderr().contains("level with the source")).await;
        life.wait_for(&mut run, "the change", "select count(*) = 3 from quiet").await;
        let cut = life.cutover(&["--max-downtime", "60s"]).finish(&[]).await.expect_code(0);
        println!("{way:?}: {}", cut.stdout);
        life.finish(run).await;
        life.again().await;
        assert_same(&life.pair).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_slips_past_the_freeze_undoes_the_cutover() -> Outcome {
    let mut life = Life::shop(EXTENSION).await;
    let mut run = life.follow().await;
    let clients = Clients::start(&life.as_app(&life.pair.source_uri()), 2).await;
    clients.have_written(20).await;
    let cut = life
        .cutover(&["--freeze", "none", "--max-downtime", "60s"])
        .finish(&["error: the cutover was undone"])
        .await
        .expect_code(1);
    assert!(
        cut.stderr.contains("the source was written to") || cut.stderr.contains("the source is written to"),
        "{}",
        cut.stderr
    );
    // The same asked for in SQL, of a run that knows how.
    clients.have_written(20).await;
    run.interrupt();
    run.finish(&["error: stopped"]).await.expect_code(130);
    let marks = tempfile::tempdir()?;
    let hook = format!("hook:echo $PGMIG_ACTION >> {}/freeze; test $PGMIG_ACTION = undo", marks.path().display());
    run = life.follow_with(&["--freeze", &hook]).await;
    life.on_target("select pgmig.request_cutover()").await;
    life.wait_for(
        &mut run,
        "the refusal",
        "select exists (select from pgmig.events where message like 'the cutover was undone at step freeze%')",
    )
    .await;
    run.interrupt();
    run.finish(&["error: stopped", "warning: the cutover was undone"]).await.expect_code(130);
    let asked = std::fs::read_to_string(marks.path().join("freeze"))?;
    assert!(asked.starts_with("do\nundo\n"), "{asked}");
    let run = life.follow_with(&["--max-downtime", "60s"]).await;
    life.on_target("select pgmig.request_cutover()").await;
    life.finish(run).await;
    let written = clients.stop().await;
    assert!(written.refused > 0);
    life.again().await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_frozen_is_told_before_anything_is_stopped() -> Outcome {
    let life = Life::shop(EXTENSION).await;
    let none = life.cutover(&[]).finish(&["error: there is no migration"]).await.expect_code(5);
    assert!(none.stderr.contains("start one: pgmig run"), "{}", none.stderr);
    let run = life.follow().await;
    life.on_source("alter role app set default_transaction_read_only = off").await;
    let cut = life.cutover(&[]).finish(&["error: the cutover was undone"]).await.expect_code(3);
    assert!(cut.stderr.contains("alter role \"app\" reset"), "{}", cut.stderr);
    life.on_source("alter role app reset default_transaction_read_only").await;
    assert_eq!(life.on_source("show default_transaction_read_only").await, "off", "the session still lives");
    wait_until(Duration::from_secs(5), "the run goes on", async || {
        life.on_target("select phase from pgmig.progress").await == "follow"
    })
    .await;
    life.end(run).await;
    Ok(())
}
