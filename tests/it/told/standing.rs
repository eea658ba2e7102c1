//! A Part that moves no byte is told, on stderr, to the webhook, to Prometheus and on the target, with what it
//! waits for; and no sooner than it should.

use std::time::Duration;

use harness::faults::Proxy;
use harness::{DATABASE, Outcome, wait_until};
use serde_json::Value;

use super::{free_port, get};
use crate::life::{EXTENSION, Life, session, value};
use crate::told::hook::Hook;

const TABLES: &str = "create table large (id int primary key, note text); \
                      insert into large select n, repeat(md5(n::text), 20) from generate_series(1, 20000) n; \
                      create table small (id int primary key, note text); insert into small values (1, 'a')";

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_moves_no_byte_is_told_with_what_it_waits_for() -> Outcome {
    let mut life = Life::begin(EXTENSION, TABLES).await;
    life.allowed = &["has moved no byte for"];
    let mut hook = Hook::listen().await?;
    let port = free_port();
    let (address, url) = (format!("127.0.0.1:{port}"), hook.url("standing"));
    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(
        &proxy.uri(&life.pair.source, DATABASE),
        // At this rate a chunk takes longer than a Part may stand: what keeps to a rate does not stand.
        &[
            "--table-jobs",
            "1",
            "--max-rate",
            "100kB",
            "--stalled-after",
            "1s",
            "--metrics-listen",
            &address,
            "--notify",
            &url,
        ],
    );
    let copying = "select count(*) > 0 from pgmig.parts where state = 'copying' and bytes_done > 400000";
    life.wait_for(&mut run, "the copy", copying).await;
    assert!(!run.stderr().contains("has moved no byte"), "{}", run.stderr());
    let standing = async |number: u32| {
        let line = format!("pgmig_copy_parts_standing{{migration=\"default\"}} {number}");
        let says = async || get(port, "/metrics").await.is_some_and(|text| text.contains(&line));
        wait_until(Duration::from_secs(30), &line, says).await;
    };

    // The line: nothing gets through.
    proxy.stall();
    life.on_target("select pgmig.throttle(max_rate => 0)").await;
    let told = hook.heard_of("copy_stands").await;
    let said = told["message"].as_str().unwrap_or_default().to_string();
    assert!(
        said.contains("public.large has moved no byte for ") && said.contains(": the target waits for rows, "),
        "{said}"
    );
    standing(1).await;

    // A lock on the source, of the next table. What is said to mend it does.
    let holder = session(&life.pair.source_uri()).await;
    let pid = value(&holder, "select pg_backend_pid()").await;
    holder.batch_execute("begin; lock table small").await?;
    proxy.go_on();
    let told = hook.heard_of("copy_stands").await;
    let said = told["message"].as_str().unwrap_or_default().to_string();
    let expected = format!("waits for a lock on public.small on the source, which pid {pid} ");
    assert!(said.contains("public.small has moved no byte for ") && said.contains(&expected), "{said}");
    let mend = format!("what mends it on the source: select pg_terminate_backend({pid});");
    wait_until(Duration::from_secs(10), "the warning", async || run.stderr().contains(&mend)).await;
    let recorded = "select count(*) from pgmig.events where level = 'warn' and message like '%has moved no byte for%'";
    assert_ne!(life.on_target(recorded).await, "0");
    life.on_source(&format!("select pg_terminate_backend({pid})")).await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    standing(0).await;
    life.end(run).await;
    let slow = |body: &String| serde_json::from_str::<Value>(body).is_ok_and(|body| body["event"] == "copy_stands");
    assert_eq!(hook.heard().iter().filter(|body| slow(body)).count(), 2, "once each: {:?}", hook.heard());
    Ok(())
}
