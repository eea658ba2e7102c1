//! A pgmig that is killed in the middle of a cutover: what it had started ends with it, and behind the switch
//! there is no way but forward.

use std::time::Duration;

use harness::{Outcome, assert_same, wait_until};

use crate::life::{EXTENSION, Life};

/// Whether a process is there and has not ended.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_dies_with_its_pgmig_and_behind_the_switch_the_next_one_goes_on() -> Outcome {
    let mut life = Life::shop(EXTENSION).await;
    let run = life.follow().await;
    let folder = tempfile::tempdir()?;
    let pids = folder.path().join("pids");
    // It, and what it starts, would live on for long.
    let hook = format!("test $PGMIG_ACTION = undo || {{ sleep 600 & echo $! $$ > {}; wait; }}", pids.display());
    let mut cut = life.hang_in_the_switch(&hook).await;
    wait_until(Duration::from_secs(10), "the hook runs", async || pids.metadata().is_ok_and(|file| file.len() > 0))
        .await;
    let started = std::fs::read_to_string(&pids)?;
    assert!(started.split_whitespace().all(lives), "{started}");
    cut.kill();
    cut.finish(&[]).await;
    wait_until(Duration::from_secs(10), "the hook is gone", async || !started.split_whitespace().any(lives)).await;
    life.cutover(&["--undo"]).finish(&[]).await.expect_code(0);
    super::is_undone(&mut life).await;

    // Killed when the switch is done and recorded.
    let calls = folder.path().join("calls");
    let hook = format!("echo $PGMIG_ACTION >> {}", calls.display());
    life.crash = "after switch".into();
    let cut = life.cutover(&["--switch", &hook, "--max-downtime", "60s"]).finish(&[]).await;
    assert_eq!(cut.code(), 128 + 9, "{}", cut.stderr);
    life.crash = String::new();
    let back = life.cutover(&["--undo"]).finish(&["error: the cutover has switched"]).await.expect_code(5);
    assert!(back.stderr.contains("end it: pgmig cutover"), "{}", back.stderr);
    let cut = life.cutover(&["--switch", &hook]).finish(&[]).await.expect_code(0);
    assert!(cut.stderr.contains("going on behind that"), "{}", cut.stderr);
    // Until clients were switched, which is recorded, not until now, and not not at all.
    let stopped = "select format('writes were stopped for %s s', round(extract(epoch from max(finished_at) - min(started_at)), 2))
                     from pgmig.cutover where attempt = (select max(attempt) from pgmig.cutover) and step not in ('check', 'prepare')";
    assert_eq!(cut.stdout.trim(), life.on_target(stopped).await);
    assert!(!cut.stdout.contains(" 0.00 s"), "{}", cut.stdout);
    run.finish(&["nobody ends the cutover"]).await.expect_code(0);
    assert_eq!(std::fs::read_to_string(calls)?, "do\n", "the switch was not done again, and not undone");
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "done");
    life.again().await;
    assert_same(&life.pair).await;
    Ok(())
}
