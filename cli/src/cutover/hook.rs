//! Commands of the user's, run by `sh -c`. What they print goes to stderr; one that is given up dies with
//! all that it has started, and so does one whose pgmig dies: it would go on beside the hook that undoes it.

use std::os::fd::AsFd;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::error::{Context, Error, Exit, Result};

/// What a hook is called for: do it, or take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Do,
    Undo,
}

/// Ends the hook's whole group when it is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may be gone by itself.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// A process that kills the hook's group when we die, however we die: its stdin ends then without a word.
/// PR_SET_PDEATHSIG would reach the shell alone, and not what it has started.
struct Watcher(Child);

impl Watcher {
    fn of(group: u32) -> std::io::Result<Watcher> {
        let mut command = Command::new("sh");
        command.args(["-c", "read -r ended || kill -s KILL -- \"-$0\"", &group.to_string()]);
        // What is sent to our group, a Ctrl-C, is not for it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Given up together with the hook, whose group is dealt with then.
        Ok(Watcher(command.kill_on_drop(true).spawn()?))
    }

    async fn dismiss(mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            // One that is gone already watches nothing.
            let _ = stdin.write_all(b"ended\n").await;
        }
        let _ = self.0.wait().await;
    }
}

/// Runs a hook to its end. It learns from its environment what is asked: PGMIG_HOOK, PGMIG_ACTION,
/// PGMIG_MIGRATION, and PGMIG_DIRECTION, which is forth, or back for what `cutover --back` does.
///
/// # Errors
/// It cannot be started, or does not end with 0.
pub async fn run(command: &str, hook: &str, action: Action, migration: &str, back: bool) -> Result<()> {
    let action = if action == Action::Do { "do" } else { "undo" };
    let direction = if back { "back" } else { "forth" };
    let doing = || format!("run the {hook} hook `{command}`");
    let talk = std::io::stderr().as_fd().try_clone_to_owned().during(Exit::Dir, doing)?;
    let mut child = Command::new("sh")
        // It begins once it is watched: killed in between, we would leave it behind.
        .args(["-c", "read -r watched || exit 1; exec sh -c \"$0\" < /dev/null", command])
        .env("PGMIG_HOOK", hook)
        .env("PGMIG_ACTION", action)
        .env("PGMIG_MIGRATION", migration)
        .env("PGMIG_DIRECTION", direction)
        .stdin(Stdio::piped())
        .stdout(Stdio::from(talk))
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .during(Exit::Dir, doing)?;
    let mut group = Group(child.id().map(|pid| Pid::from_raw(pid as i32)));
    let watcher = child.id().map(Watcher::of).transpose().during(Exit::Dir, doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that is gone already has a status.
        let _ = stdin.write_all(b"watched\n").await;
    }
    let status = child.wait().await.during(Exit::Dir, doing)?;
    // Its number may be another's from here on.
    group.0 = None;
    if let Some(watcher) = watcher {
        watcher.dismiss().await;
    }
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Exit::No, format!("the {hook} hook did not {action} it: {status}")).hint(format!(
        "it was called as: PGMIG_HOOK={hook} PGMIG_ACTION={action} PGMIG_DIRECTION={direction} sh -c '{command}'"
    )))
}
