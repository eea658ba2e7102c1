//! What is asked before something cannot be undone, on a terminal: a wrong answer and none change nothing.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Outcome, Pair, Pgmig, binary, wait_until};

use crate::bench::phase;

/// What pgmig says on a terminal of its own, where this is typed, and its exit code. `script` lends it one.
async fn typed(args: &[&str], env: &[(&str, &str)], answer: &str) -> (String, Option<i32>) {
    let words: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line = format!("exec '{}' {}", binary::path().display(), words.join(" "));
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).envs(env.iter().copied()).env("SHELL", "/bin/sh");
    let answer = answer.to_string();
    let ask = move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script is there");
        // What is typed before it is asked waits in the terminal. Without an answer the terminal ends.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(answer.as_bytes()).expect("script reads");
        }
        child.wait_with_output().expect("script ends")
    };
    let asked = tokio::time::timeout(Duration::from_secs(60), tokio::task::spawn_blocking(ask)).await;
    let said = asked.expect("it asks, and does not wait for ever").expect("it does not panic");
    (String::from_utf8_lossy(&said.stdout).into_owned(), said.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_answer_on_a_terminal_changes_a_source_or_empties_a_target() -> Outcome {
    let pair = Pair::start().await?;
    pair.on_source("create table t (id int not null unique, note text); insert into t values (1, 'a')").await?;
    let folder = tempfile::tempdir()?;
    let (source, target, dir) = (pair.source_uri(), pair.target_uri(), folder.path().join("dir").display().to_string());
    let env = [("PGMIG_SOURCE", source.as_str()), ("PGMIG_TARGET", target.as_str()), ("PGMIG_DIR", dir.as_str())];
    let identity = async || pair.on_source("select relreplident from pg_class where relname = 't'").await;
    for (answer, changes) in [("n\n", false), ("\n", false), ("", false), ("y\n", true)] {
        let (said, code) = typed(&["replica-identity"], &env, answer).await;
        assert!(said.contains("[y/N]") && said.contains("using index"), "{answer:?}: {said}");
        assert_eq!(code, Some(if changes { 0 } else { 1 }), "{answer:?}: {said}");
        assert_eq!(identity().await?, [[Some(if changes { "i" } else { "d" }.to_string())]], "{answer:?}: {said}");
    }

    // What it says before it asks names side, role and statement.
    pair.on_source("create table log (line text)").await?;
    let full = async || pair.on_source("select relreplident from pg_class where relname = 'log'").await;
    for (answer, changes) in [("n\n", false), ("", false), ("y\n", true)] {
        let (said, code) = typed(&["preflight", "--fix"], &env, answer).await;
        assert!(said.contains("to be run on the source, as postgres, a superuser:"), "{answer:?}: {said}");
        assert!(said.contains("writes the whole old row to the WAL"), "{answer:?}: {said}");
        assert!(said.contains("run 1 statement? [y/N]"), "{answer:?}: {said}");
        assert_eq!(said.contains("nothing was changed"), !changes, "{answer:?}: {said}");
        assert_eq!(code, Some(if changes { 0 } else { 1 }), "{answer:?}: {said}");
        assert_eq!(full().await?, [[Some(if changes { "f" } else { "d" }.to_string())]], "{answer:?}: {said}");
    }

    let run = Pgmig::start(&["run"], &env);
    let follows = async || phase(&pair.target, "app").await.is_ok_and(|phase| phase.as_deref() == Some("follow"));
    wait_until(Duration::from_secs(60), "the run follows", follows).await;
    Pgmig::start(&["stop"], &env).finish(&[]).await.expect_code(0);
    run.finish(&["error: stopped"]).await.expect_code(130);
    // Of a migration that was begun preflight says what a run goes on with, and nobody is told to drop its slot.
    let (said, code) = typed(&["preflight"], &env, "").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("begun, in phase follow") && said.contains("pgmig_default is the migration's own"), "{said}");
    assert!(!said.contains("pg_drop_replication_slot"), "{said}");
    let there = async || pair.on_target("select count(*) from pg_class where relname = 't'").await;
    for (answer, drops) in [("y\n", false), ("APP\n", false), ("", false), ("app\n", true)] {
        let (said, code) = typed(&["reset-target"], &env, answer).await;
        assert!(said.contains("from database `app`") && said.contains("public.t"), "{answer:?}: {said}");
        assert!(said.contains("type the name of the database"), "{answer:?}: {said}");
        assert_eq!(code, Some(if drops { 0 } else { 1 }), "{answer:?}: {said}");
        assert_eq!(said.contains("nothing was dropped"), !drops, "{answer:?}: {said}");
        assert_eq!(there().await?, [[Some(if drops { "0" } else { "1" }.to_string())]], "{answer:?}: {said}");
    }
    Ok(())
}
