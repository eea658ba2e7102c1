//! The arguments of the verbs that make two servers, and a shell, ready for a migration.

use std::path::PathBuf;

use clap::Args;

use super::{RunArgs, SourceArg, TargetArg};

/// Those of `run`: the same line tells what would stand in its way.
#[derive(Debug, Args)]
pub struct PreflightArgs {
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub fix: FixArgs,
}

#[derive(Debug, Args)]
pub struct FixArgs {
    /// Run the statements that mend what was found, and check again: shows each with what else it does, and asks.
    /// Drops no slot and ends no session
    #[arg(long, help_heading = "How")]
    pub fix: bool,

    /// Do not ask
    #[arg(short, long, requires = "fix", help_heading = "How")]
    pub yes: bool,

    /// For --fix: connection string of a role of the source that may grant what the migration's own role lacks; the
    /// database is that of --source
    #[arg(long, env = "PGMIG_ADMIN_SOURCE", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub admin_source: Option<String>,

    /// For --fix: the same for the target
    #[arg(long, env = "PGMIG_ADMIN_TARGET", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub admin_target: Option<String>,
}

#[derive(Debug, Args)]
pub struct ParamsArgs {
    #[command(flatten)]
    pub source: SourceArg,

    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub target: String,

    /// Show the settings that are the same, too
    #[arg(long, help_heading = "Output")]
    pub all: bool,

    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ReplicaIdentityArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Folder that remembers what was changed: the same as for run [default: below ~/.local/state/pgmig]
    #[arg(long, env = "PGMIG_DIR", hide_env_values = true, value_name = "DIR", help_heading = "Databases")]
    pub dir: Option<PathBuf>,

    /// Which tables, as a filter file of pgcopydb
    #[arg(long, alias = "filter", value_name = "FILE", help_heading = "What to migrate")]
    pub filters: Option<PathBuf>,

    /// Take back what was changed, after the migration
    #[arg(long, help_heading = "How")]
    pub revert: bool,

    /// Do not ask
    #[arg(short, long, help_heading = "How")]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages
    pub dir: PathBuf,
}
