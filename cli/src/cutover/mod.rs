//! How writes are stopped and how clients are switched: values, hooks and PgBouncer. The order of things is
//! in `command/run/cutover.rs`.
//!
//! ```text
//! check ─ prepare ─ verify ─ reverse ─┬─ pause ─ freeze ─ endpos ─ drain ─ sequences ─ views ─ finish ─ proof ─ turn ─ quiet ─ switch ─┬─ open ─ resume
//!          writes go on               │                writes are stopped; too long, or a failure: all of it is undone                 │ only forward
//! ```
//!
//! `reverse` and `turn` are there with `--reverse`: they make the way back, and say at which position of the
//! target it begins. A cutover `--back` goes through the same steps with source and target exchanged; `open`
//! is its own, and lets the source take writes again.
//!
//! Each step is recorded on the target before it is begun, with what undoes it. Whoever finds a try that
//! nobody finished undoes what it had done, in the opposite order, and begins anew; behind the switch it
//! goes on instead.

pub mod hook;
pub mod pgbouncer;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::Conninfo;

/// How writes on the source are stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    /// The database's default becomes read-only, and sessions are ended.
    ReadOnly,
    /// A command of the user's does it, and undoes it.
    Hook(String),
    /// Somebody has done it already.
    None,
}

impl FromStr for Freeze {
    type Err = String;
    fn from_str(text: &str) -> Result<Freeze, String> {
        match text {
            "read-only" => Ok(Freeze::ReadOnly),
            "none" => Ok(Freeze::None),
            _ => match text.strip_prefix("hook:").filter(|command| !command.trim().is_empty()) {
                Some(command) => Ok(Freeze::Hook(command.into())),
                None => Err("give read-only, none, or hook:CMD".into()),
            },
        }
    }
}

/// How both sides are compared before writes are stopped: the catalogs and how many rows there are, or every row
/// too. While they are, only the catalogs are, and where
/// sequences stand: every row was counted when it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Comparing {
    // With words of their own clap would spread all of the help.
    Quick,
    Full,
}

/// Everything a cutover is told.
#[derive(Debug, Clone)]
pub struct Settings {
    pub freeze: Freeze,
    /// Roles whose sessions are not ended.
    pub spared: Vec<String>,
    /// How long writes may be stopped.
    pub max_downtime: Duration,
    /// Whether both sides are compared, and how.
    pub verify: Option<Comparing>,
    /// Bytes that apply may lag when writes are stopped.
    pub max_lag: u64,
    /// Command that points clients at the target, and back.
    pub switch: Option<String>,
    /// Whether a way back is made.
    pub reverse: bool,
    /// PgBouncer's admin console, and the databases that are paused there; none is all.
    pub pgbouncer: Option<(Conninfo, Vec<String>)>,
}

/// One step. Their order is that of the declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Check,
    Prepare,
    Verify,
    Reverse,
    Pause,
    Freeze,
    Endpos,
    Drain,
    Sequences,
    Views,
    Finish,
    Proof,
    Turn,
    Quiet,
    Switch,
    Open,
    Resume,
}

impl Step {
    pub const ALL: [Step; 17] = [
        Step::Check,
        Step::Prepare,
        Step::Verify,
        Step::Reverse,
        Step::Pause,
        Step::Freeze,
        Step::Endpos,
        Step::Drain,
        Step::Sequences,
        Step::Views,
        Step::Finish,
        Step::Proof,
        Step::Turn,
        Step::Quiet,
        Step::Switch,
        Step::Open,
        Step::Resume,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Step::Check => "check",
            Step::Prepare => "prepare",
            Step::Verify => "verify",
            Step::Reverse => "reverse",
            Step::Pause => "pause",
            Step::Freeze => "freeze",
            Step::Endpos => "endpos",
            Step::Drain => "drain",
            Step::Turn => "turn",
            Step::Sequences => "sequences",
            Step::Views => "views",
            Step::Finish => "finish",
            Step::Proof => "proof",
            Step::Quiet => "quiet",
            Step::Switch => "switch",
            Step::Open => "open",
            Step::Resume => "resume",
        }
    }

    pub fn of(name: &str) -> Option<Step> {
        Step::ALL.into_iter().find(|step| step.name() == name)
    }

    /// Writes are stopped from here on.
    pub fn stops_writes(self) -> bool {
        self >= Step::Pause
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_by_their_names_and_stand_in_their_order() {
        assert!(Step::ALL.windows(2).all(|two| two[0] < two[1]));
        assert!(Step::ALL.iter().all(|step| Step::of(step.name()) == Some(*step)));
    }

    #[test]
    fn ways_to_stop_writes_are_read() {
        assert_eq!("hook:/bin/stop --now".parse(), Ok(Freeze::Hook("/bin/stop --now".into())));
        assert_eq!("read-only".parse(), Ok(Freeze::ReadOnly));
        assert!("hook: ".parse::<Freeze>().is_err() && "readonly".parse::<Freeze>().is_err());
    }
}
