//! `pgmig stalls`: who is in the way on either server, in the copy and in apply, and the statement that
//! mends it, which is run and does.

use std::time::Duration;

use harness::{Outcome, wait_until};
use pgmig::embedded::Cluster;
use serde_json::Value;

use super::{EXTENSION, Life, session, value};

const TABLES: &str = "create table large (id int primary key, note text); \
                      insert into large select n, repeat('x', 500) from generate_series(1, 8000) n; \
                      create table middle (id int primary key, note text); \
                      insert into middle select n, repeat('y', 200) from generate_series(1, 1000) n; \
                      create table small (id int primary key, note text); insert into small values (1, 'a'); \
                      create materialized view totals as select count(*) from small";
/// Stands in the statement that holder and waiter are told by, and nowhere in what is told.
const SECRET: &str = "geheim-4711";

/// What `pgmig stalls` says, for machines; held against what it says to people.
async fn stalls(life: &Life, code: i32) -> Value {
    let text = life.pgmig(&["stalls", "--for", "400ms"]).finish(&[]).await.expect_code(code);
    let json = life.pgmig(&["stalls", "--for", "400ms", "--json"]).finish(&[]).await.expect_code(code);
    for said in [&text, &json] {
        assert!(!said.stdout.contains(SECRET) && !said.stderr.contains(SECRET), "{}{}", said.stdout, said.stderr);
    }
    let found: Value = serde_json::from_str(&json.stdout).expect("one JSON object");
    let mend = found["verdict"]["mend"]["statement"].as_str().unwrap_or_default();
    assert!(text.stdout.lines().nth(1).is_some_and(|line| line.starts_with("verdict  ")), "{}", text.stdout);
    assert!(text.stdout.contains(mend) && text.stdout.contains("\nnext     "), "{}", text.stdout);
    for side in ["target", "source"] {
        let growth = &found["growth"][side];
        let bytes = growth["database_bytes"].as_i64().unwrap_or_default();
        assert!(bytes > 1 << 20 && growth["wal_bytes_per_second"].as_f64() >= Some(0.0), "{growth}");
        assert!(text.stdout.contains(&format!("\nwrites   {side}: ")), "{}", text.stdout);
    }
    println!("{}", text.stdout);
    found
}

/// That a lock is the reason, who holds it, and that his transaction ends by what is said to mend it.
async fn mended(life: &Life, place: &str, pid: &str, on: &str) {
    let found = stalls(life, 1).await;
    let verdict = &found["verdict"];
    assert_eq!(verdict["cause"], "lock", "{found}");
    assert_eq!(verdict["mend"]["place"], place, "{found}");
    let text = verdict["text"].as_str().unwrap_or_default();
    assert!(text.contains(&format!("pid {pid} ")) && text.contains(on), "{text}");
    assert_eq!(found[place]["holders"][0]["pid"].to_string(), pid, "{found}");
    let mend = verdict["mend"]["statement"].as_str().unwrap_or_default();
    assert!(mend.contains(pid), "{mend}");
    match place {
        "source" => life.on_source(mend).await,
        _ => life.on_target(mend).await,
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_the_way_is_named_with_the_statement_that_mends_it() -> Outcome {
    let life = Life::begin(EXTENSION, TABLES).await;
    let mut run = life.run_with(&["--max-rate", "300kB", "--table-jobs", "1"]);
    let copying = "select count(*) > 0 from pgmig.parts where state = 'copying' and bytes_done > 0";
    life.wait_for(&mut run, "the copy", copying).await;
    let slow = stalls(&life, 0).await;
    assert_eq!(slow["verdict"]["cause"], "limit", "{slow}");

    // In the way of the copy: on the source of one table, on the target of the next.
    let there = session(&life.pair.source_uri()).await;
    let on_source = value(&there, "select pg_backend_pid()").await;
    there.batch_execute("begin; lock table middle").await?;
    value(&there, &format!("select '{SECRET}', 42 from middle where note = '{SECRET}'")).await;
    let holder = session(&life.pair.target_uri()).await;
    let pid = value(&holder, "select pg_backend_pid()").await;
    holder.batch_execute("begin; lock table small in share mode").await?;
    value(&holder, &format!("select '{SECRET}' from small where note = '{SECRET}'")).await;
    life.on_target("select pgmig.throttle(max_rate => 0)").await;
    let waits =
        "select count(*) > 0 from pg_stat_activity where application_name = 'pgmig copy' and wait_event_type = 'Lock'";
    wait_until(Duration::from_secs(60), "the copy to wait", async || life.on_source(waits).await == "t").await;
    mended(&life, "source", &on_source, "public.middle").await;
    let waits = "select count(*) > 0 from pg_stat_activity where application_name like 'pgmig part%' and wait_event_type = 'Lock'";
    life.wait_for(&mut run, "the copy to wait", waits).await;
    mended(&life, "target", &pid, "public.small").await;

    // Nobody writes: nothing to say.
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    let level = "select lag_bytes < 1000000 from pgmig.progress";
    life.wait_for(&mut run, "it to be level", level).await;
    let idle = stalls(&life, 0).await;
    assert_eq!(idle["verdict"]["cause"], "nothing", "{idle}");
    assert!(idle["verdict"]["text"].as_str().is_some_and(|text| text.starts_with("nothing is stalled")), "{idle}");
    assert_eq!(idle["slot"]["active"], true, "{idle}");

    // In the way of apply.
    let holder = session(&life.pair.target_uri()).await;
    let pid = value(&holder, "select pg_backend_pid()").await;
    holder.batch_execute("begin; lock table small in exclusive mode").await?;
    life.on_source("insert into small values (3, 'c')").await;
    let waits =
        "select count(*) > 0 from pg_stat_activity where application_name = 'pgmig apply' and wait_event_type = 'Lock'";
    life.wait_for(&mut run, "apply to wait", waits).await;
    mended(&life, "target", &pid, "public.small").await;
    life.wait_for(&mut run, "the row", "select exists (select from small where id = 3)").await;

    life.on_target("select pgmig.pause()").await;
    let paused = stalls(&life, 1).await;
    assert_eq!(paused["verdict"]["mend"]["statement"], "pgmig resume", "{paused}");
    life.on_target("select pgmig.resume()").await;

    // In the way of the end.
    let holder = session(&life.pair.target_uri()).await;
    let pid = value(&holder, "select pg_backend_pid()").await;
    holder.batch_execute(&format!("begin; comment on materialized view totals is '{SECRET}'")).await?;
    life.set_endpos(life.lsn().await).await;
    let waits =
        "select count(*) > 0 from pg_stat_activity where application_name like 'pgmig%' and wait_event_type = 'Lock'";
    life.wait_for(&mut run, "the end to wait", waits).await;
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "cutover");
    mended(&life, "target", &pid, "public.totals").await;
    run.finish(&[]).await.expect_code(0);
    harness::assert_same(&life.pair).await;
    assert_eq!(stalls(&life, 0).await["verdict"]["cause"], "nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_a_vacuum_and_a_slow_target_are_told_from_each_other() -> Outcome {
    let target = Cluster::builder().setting("max_prepared_transactions", "2");
    let life = Life::between(EXTENSION, Cluster::builder(), target).await;
    life.source.batch_execute(TABLES).await?;
    let mut run = life.follow().await;
    let blocked =
        "select count(*) > 0 from pg_stat_activity where application_name = 'pgmig apply' and wait_event_type = 'Lock'";

    // It has no session that could be ended.
    life.target.batch_execute("begin").await?;
    life.target.batch_execute("lock table small in exclusive mode").await?;
    life.target.batch_execute("prepare transaction 'left over'").await?;
    life.on_source("insert into small values (2, 'b')").await;
    life.wait_for(&mut run, "apply to wait", blocked).await;
    let found = stalls(&life, 1).await;
    let verdict = &found["verdict"];
    assert_eq!((&verdict["cause"], &verdict["mend"]["place"]), (&"lock".into(), &"target".into()), "{found}");
    assert!(
        verdict["text"].as_str().is_some_and(|text| text.contains("the prepared transaction 'left over', ")),
        "{verdict}"
    );
    assert_eq!(found["target"]["holders"][0]["prepared"], "left over", "{found}");
    life.on_target(verdict["mend"]["statement"].as_str().unwrap_or_default()).await;
    life.wait_for(&mut run, "the row", "select exists (select from small where id = 2)").await;

    // A vacuum that takes its time, and a change that needs the table for itself.
    let slow = session(&life.pair.target_uri()).await;
    let pid = value(&slow, "select pg_backend_pid()").await;
    slow.batch_execute("set vacuum_cost_delay = 100; set vacuum_cost_limit = 1").await?;
    let vacuum = tokio::spawn(async move { slow.batch_execute("vacuum (freeze, disable_page_skipping) large").await });
    let vacuums = "select count(*) > 0 from pg_stat_progress_vacuum";
    life.wait_for(&mut run, "the vacuum", vacuums).await;
    life.on_source("truncate large").await;
    life.wait_for(&mut run, "apply to wait", blocked).await;
    let found = stalls(&life, 1).await;
    let verdict = &found["verdict"];
    assert_eq!(verdict["mend"]["statement"], format!("select pg_cancel_backend({pid});"), "{found}");
    let seen = &found["target"]["vacuums"][0];
    assert_eq!((&seen["relation"], &seen["automatic"]), (&"public.large".into(), &false.into()), "{found}");
    let text = life.pgmig(&["stalls", "--for", "400ms"]).finish(&[]).await.expect_code(1).stdout;
    assert!(text.contains("vacuum   target: vacuum of public.large, "), "{text}");
    life.on_target(verdict["mend"]["statement"].as_str().unwrap_or_default()).await;
    assert!(vacuum.await?.is_err(), "it was cancelled");
    life.wait_for(&mut run, "the truncate", "select count(*) = 0 from large").await;

    // A trigger of the user's that sleeps: the target is what takes the time, and it moves.
    let trigger = "create function sleeps() returns trigger language plpgsql as 'begin perform pg_sleep(0.005); return new; end'; \
                   create trigger sleeps before insert on middle for each row execute function sleeps(); \
                   alter table middle enable always trigger sleeps";
    life.target.batch_execute(trigger).await?;
    let random = "insert into middle select n, (select string_agg(md5(n || '.' || m || random()), '') from generate_series(1, 100) m) \
                  from generate_series(10001, 11000) n";
    life.on_source(random).await;
    life.wait_for(&mut run, "a backlog", "select spool_bytes > 1100000 from pgmig.progress").await;
    let found = stalls(&life, 0).await;
    let verdict = &found["verdict"];
    assert_eq!(verdict["cause"], "target", "{found}");
    let text = verdict["text"].as_str().unwrap_or_default();
    assert!(text.contains(" wait to be applied: the target is what limits it (") && text.contains("PgSleep"), "{text}");
    life.target.batch_execute("drop trigger sleeps on middle; drop function sleeps()").await?;
    life.end(run).await;
    Ok(())
}
