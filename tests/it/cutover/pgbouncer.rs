//! The cutover behind a real PgBouncer, in transaction pooling: its clients wait, none of them fails.

use harness::{Outcome, tell};
use pgmig::embedded::PgBouncer;

use super::writer::Clients;
use crate::life::{EXTENSION, Life};

#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_no_client_fails_and_none_waits_long() -> Outcome {
    let Some(program) = PgBouncer::program() else {
        tell("skipped: there is no pgbouncer; `make deps` installs it");
        return Ok(());
    };
    let mut life = Life::shop(EXTENSION).await;
    let run = life.follow().await;
    let bouncer = PgBouncer::start(program, &life.pair.source, harness::DATABASE, "app").await?;
    let clients = Clients::start(&bouncer.uri(), 8).await;
    clients.have_written(100).await;
    let hook = bouncer.switch(&life.pair.source, &life.pair.target)?;
    let console = bouncer.console();

    // The switch fails: clients go on with the source, and have noticed nothing but a pause.
    let with = ["--pgbouncer", &console, "--pgbouncer-database", "app", "--max-downtime", "60s"];
    let failing = format!("{hook}; test $PGMIG_ACTION = undo");
    let cut = life.cutover(&[&with[..], &["--switch", &failing]].concat());
    let cut = cut.finish(&["error: the cutover was undone"]).await.expect_code(1);
    assert!(cut.stderr.contains("the switch hook did not do it"), "{}", cut.stderr);
    clients.have_written(50).await;

    let cut = life.cutover(&[&with[..], &["--reverse", "--switch", &hook]].concat()).finish(&[]).await.expect_code(0);
    clients.have_written(50).await;
    assert_eq!(life.on_target("select way_back from pgmig.progress").await, "open");

    // And back, with the same clients; the first try fails at its switch.
    let hook = bouncer.switch(&life.pair.target, &life.pair.source)?;
    let failing = format!("{hook}; test $PGMIG_ACTION = undo");
    let back = life.cutover(&[&with[..], &["--back", "--switch", &failing]].concat());
    back.finish(&["error: the cutover was undone"]).await.expect_code(1);
    clients.have_written(50).await;
    let back = life.cutover(&[&with[..], &["--back", "--switch", &hook]].concat()).finish(&[]).await.expect_code(0);
    run.finish(&[]).await.expect_code(0);
    clients.have_written(50).await;
    let written = clients.stop().await;
    let [there, back] = [&cut, &back].map(|cut| cut.stdout.trim());
    tell(&format!("behind PgBouncer: {there}, back: {back}; the longest wait of a client was {:?}", written.longest));
    assert_eq!(written.refused, 0, "no client failed");
    life.connect_again().await;
    let there = life.on_source("select string_agg(format('%s:%s', client, most), ',' order by client) from (select client, max(number) as most from note group by 1) n").await;
    assert_eq!(there, written.answered(), "what was answered is on the old side");
    let missing = "select count(*) from (select client, max(number) as most, count(*) as rows from note group by client) n where most <> rows";
    assert_eq!(life.on_source(missing).await, "0", "no number is missing, none is there twice");
    Ok(())
}
