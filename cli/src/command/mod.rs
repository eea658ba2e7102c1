//! One file a verb: wiring only. What a verb does lies in the other modules; nothing uses this one but
//! `main`.

pub mod cleanup;
pub mod control;
pub mod cutover;
pub mod demo;
pub mod notify;
pub mod params;
pub mod plan;
pub mod preflight;
pub mod replica_identity;
pub mod report;
pub mod reset_target;
pub mod run;
pub mod set_endpos;
pub mod shell;
pub mod stalls;
pub mod status;
pub mod table;
pub mod verify;

use std::io::IsTerminal;

use crate::args::{Cli, Verb};
use crate::config::{Conninfo, Environment};
use crate::error::{Error, Exit, Result};

/// Does what was typed.
pub async fn dispatch(cli: Cli) -> Result<Exit> {
    match cli.verb {
        Verb::Run(args) => run::run(*args, cli.quiet).await,
        Verb::Preflight(args) => preflight::preflight(*args).await,
        Verb::Params(args) => params::params(args).await,
        Verb::ReplicaIdentity(args) => replica_identity::replica_identity(args).await,
        Verb::Plan(args) => plan::plan(*args).await,
        Verb::Status(args) => status::status(args).await,
        Verb::Stalls(args) => stalls::stalls(args).await,
        Verb::SetEndpos(args) => set_endpos::set_endpos(args).await,
        Verb::Pause(args) => control::switch(args, false).await,
        Verb::Resume(args) => control::switch(args, true).await,
        Verb::Throttle(args) => control::throttle(args).await,
        Verb::Stop(args) => control::stop(args).await,
        Verb::ResetTarget(args) => reset_target::reset_target(args).await,
        Verb::Table(args) => table::table(args).await,
        Verb::Cutover(args) => cutover::cutover(*args, cli.quiet).await,
        Verb::Verify(args) => verify::verify(*args, cli.quiet).await,
        Verb::Report(args) => report::report(args).await,
        Verb::Cleanup(args) => cleanup::cleanup(args).await,
        Verb::Notify(args) => notify::notify(args).await,
        Verb::Demo(args) => demo::demo(args).await,
        Verb::Completions(args) => shell::completions(args),
        Verb::Man(args) => shell::man(args),
    }
}

/// A connection string of the command line, with what the environment adds.
fn conninfo(text: &str) -> Result<Conninfo> {
    Conninfo::parse(text, &Environment::of_process())
}

/// The error as people read it on stderr: what, causes, hint.
pub fn render(error: &Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.causes() {
        text.push_str(&format!("  cause: {cause}\n"));
    }
    if let Some(hint) = error.hint_text() {
        let indented = hint.lines().collect::<Vec<_>>().join("\n      ");
        text.push_str(&format!("hint: {indented}\n"));
    }
    text
}

/// Whether bars may be drawn: a person looks at stderr.
fn terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Asks where somebody can answer; elsewhere only `--yes` is a yes.
fn agreed(yes: bool, question: &str) -> bool {
    if yes {
        return true;
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Waits for SIGINT or SIGTERM; `hint` says what that leaves behind.
async fn interrupted(hint: &str) -> Error {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            Error::new(Exit::Stopped, "stopped").hint(hint)
        }
        // Without handlers the signals do what they always do.
        _ => std::future::pending().await,
    }
}
