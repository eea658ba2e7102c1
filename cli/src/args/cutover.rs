//! The arguments of a cutover: of the verb, and of the run that cuts over when it is asked in SQL.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{SourceArg, TargetArg, duration, size};
use crate::cutover::Freeze;

/// How writes are stopped and clients are switched.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cutover")]
pub struct CutoverHow {
    /// How writes on the source are stopped: read-only (the database's default; other sessions are ended), none
    /// (they are stopped already), or hook:CMD, which is called with PGMIG_ACTION=do and, to take it back, undo
    #[arg(long, value_name = "HOW", default_value = "read-only", value_parser = clap::builder::ValueParser::new(str::parse::<Freeze>), help_heading = "Cutover")]
    pub freeze: Freeze,

    /// Leave the sessions of this role alone: one that only reads, such as monitoring; may be given more than once
    #[arg(long, value_name = "ROLE", help_heading = "Cutover")]
    pub spare: Vec<String>,

    /// Undo the cutover when writes were stopped for longer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = "Cutover")]
    pub max_downtime: Duration,

    /// Do not stop writes while more than this of the source's WAL is not applied
    #[arg(long, value_name = "SIZE", default_value = "16MB", value_parser = size, help_heading = "Cutover")]
    pub max_lag: u64,

    /// Command that points clients at the target; called with PGMIG_ACTION=do and, to take it back, undo
    #[arg(long, value_name = "CMD", help_heading = "Cutover")]
    pub switch: Option<String>,

    /// Make a way back: from the switch on every change of the target is carried back to the source by `pgmig run`,
    /// until `pgmig cutover --back` goes back to it
    #[arg(long, help_heading = "Cutover")]
    pub reverse: bool,

    /// Admin console of a PgBouncer: clients wait there while writes are stopped, and it reads its configuration
    /// again after --switch
    #[arg(long, value_name = "URI", env = "PGMIG_PGBOUNCER", hide_env_values = true, help_heading = "Cutover")]
    pub pgbouncer: Option<String>,

    /// Database of PgBouncer to pause, all without it; may be given more than once
    #[arg(long, value_name = "NAME", requires = "pgbouncer", help_heading = "Cutover")]
    pub pgbouncer_database: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CutoverArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Folder of the migration, as given to run
    #[arg(long, env = "PGMIG_DIR", hide_env_values = true, value_name = "DIR", help_heading = "Databases")]
    pub dir: Option<PathBuf>,

    #[command(flatten)]
    pub how: CutoverHow,

    /// Do all but stop writes and switch, and say how long writes would be stopped
    #[arg(long, conflicts_with = "undo", help_heading = "Cutover")]
    pub dry_run: bool,

    /// Go back to the source after a cutover --reverse: the same steps in the other direction, with nothing lost
    #[arg(long, conflicts_with = "reverse", help_heading = "Cutover")]
    pub back: bool,

    /// Only undo what a cutover that was killed has left
    #[arg(long, help_heading = "Cutover")]
    pub undo: bool,
}
