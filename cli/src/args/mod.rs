//! What can be typed. Values are taken as they are; `config` and the commands make them ready.

mod control;
mod cutover;
mod demo;
mod examples;
mod limits;
mod ready;
mod report;
mod run;
mod stalls;
mod state;
mod table;
mod told;
mod verify;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use control::{StopArgs, SwitchArgs, ThrottleArgs};
pub use cutover::{CutoverArgs, CutoverHow};
pub use demo::DemoArgs;
pub use limits::LimitArgs;
pub use ready::{CompletionsArgs, FixArgs, ManArgs, ParamsArgs, PreflightArgs, ReplicaIdentityArgs};
pub use report::ReportArgs;
pub use run::{
    DdlArg, FlavourArg, OnConflictArg, PlanArgs, PluginArg, RunArgs, SplitArgs, SplitByArg, StreamFormatArg,
    WalBudgetPolicyArg, WhatArgs,
};
pub use stalls::StallsArgs;
pub use state::{CleanupArgs, ResetTargetArgs, SetEndposArgs, StatusArgs};
pub use table::{TableArgs, TableVerb};
pub use told::{LogArgs, LogFormatArg, LogLevelArg, NotifyArgs, NotifyFormatArg, Rotate, WatchedArgs};
pub use verify::VerifyArgs;

use crate::model::Lsn;

#[derive(Debug, Parser)]
#[command(
    name = "pgmig",
    version,
    about = "Moves a live PostgreSQL database to another server, with seconds of write downtime, and proves that nothing was lost",
    max_term_width = 110,
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = "\
Exit codes:
  0 done    2 usage     4 target                7 this machine (--dir)
  1 no      3 source    5 not in this phase    70 a bug of pgmig
                        6 data differ         130 stopped: run again to go on

Start with: pgmig demo"
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,

    /// Say more on stderr: -v for every batch, -vv for every change
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,

    /// Say only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,

    /// Print this help
    #[arg(short, long, global = true, action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "Output")]
    version: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copy the source and follow its changes until endpos; run again to go on
    #[command(after_help = examples::RUN)]
    Run(Box<RunArgs>),
    /// Check both servers for all that run needs, each with the statement that mends it; --fix runs those
    #[command(after_help = examples::PREFLIGHT)]
    Preflight(Box<PreflightArgs>),
    /// Show the settings of both servers side by side, and what a difference may do to the application
    #[command(after_help = examples::PARAMS)]
    Params(ParamsArgs),
    /// Give tables of the source that lack one a replica identity, the least that does; --revert takes it back
    #[command(after_help = examples::REPLICA_IDENTITY)]
    ReplicaIdentity(ReplicaIdentityArgs),
    /// Show what run would move, in which order, and what it would leave out and why
    #[command(after_help = examples::PLAN)]
    Plan(Box<PlanArgs>),
    /// Show how far each migration into the target is
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Say why a copy or apply is slow now, who is in the way, and the statement that mends it; changes nothing
    #[command(after_help = examples::STALLS)]
    Stalls(StallsArgs),
    /// Set the WAL position at which a migration stops
    #[command(after_help = examples::SET_ENDPOS)]
    SetEndpos(SetEndposArgs),
    /// Hold back what is applied; copying and receiving go on
    Pause(SwitchArgs),
    /// Let apply go on
    Resume(SwitchArgs),
    /// Limit what the copy asks of the source, while it runs
    #[command(after_help = examples::THROTTLE)]
    Throttle(ThrottleArgs),
    /// End a run, from any machine that reaches the target; pgmig run goes on with it
    #[command(after_help = examples::STOP)]
    Stop(StopArgs),
    /// Drop from the target what a migration has made there, so that it can begin again
    #[command(after_help = examples::RESET_TARGET)]
    ResetTarget(ResetTargetArgs),
    /// Add a table to a migration that runs, or copy one again
    #[command(after_help = examples::TABLE)]
    Table(TableArgs),
    /// Stop writes, let the last change through, switch to the target; undo all of it if that takes too long
    #[command(after_help = examples::CUTOVER)]
    Cutover(Box<CutoverArgs>),
    /// Compare both sides at one position, also while they are written to, and name the rows that differ
    #[command(after_help = examples::VERIFY)]
    Verify(Box<VerifyArgs>),
    /// Write one HTML page of the migration: what moved, how long it took, what was left out and what failed
    #[command(after_help = examples::REPORT)]
    Report(ReportArgs),
    /// Remove what pgmig made: slot and publications on the source, its state on the target
    #[command(after_help = examples::CLEANUP)]
    Cleanup(CleanupArgs),
    /// Send a test event to the webhook that run --notify would tell
    Notify(NotifyArgs),
    /// Migrate a sample database between two throwaway servers, under load, and compare both
    Demo(DemoArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Write the manual pages to a folder
    Man(ManArgs),
}

fn lsn(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|err| format!("{err}: give two hexadecimal numbers with a slash between, such as 16/B374D848"))
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    crate::report::units::parse_duration(text).ok_or_else(|| "give a time such as 5s, 500ms or 2min".into())
}

fn size(text: &str) -> Result<u64, String> {
    crate::report::units::parse_bytes(text).ok_or_else(|| "give a size such as 10GB or 512MB".into())
}

fn migration(text: &str) -> Result<String, String> {
    let right = (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if right { Ok(text.into()) } else { Err("give 1 to 40 of a-z, 0-9 and _".into()) }
}

fn slot(text: &str) -> Result<String, String> {
    let right = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if right { Ok(text.into()) } else { Err("give 1 to 63 of a-z, 0-9 and _".into()) }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Databases")]
pub struct SourceArg {
    /// Connection string of the source, as libpq takes it; a password is safer in PGPASSWORD or ~/.pgpass
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI")]
    pub source: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Databases")]
pub struct TargetArg {
    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI")]
    pub target: String,

    /// Name of the migration: one target may take several
    #[arg(long, env = "PGMIG_NAME", hide_env_values = true, default_value = "default", value_parser = migration)]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }
}
