//! The arguments of the verbs that look at a migration that runs, and steer it.

use clap::Args;

use super::{SourceArg, TargetArg, lsn, migration};
use crate::model::Lsn;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub target: String,

    /// Only this migration
    #[arg(long, env = "PGMIG_NAME", hide_env_values = true, value_parser = migration, help_heading = "Databases")]
    pub name: Option<String>,

    /// Print again every second until interrupted
    #[arg(long, help_heading = "Output")]
    pub watch: bool,

    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["lsn", "current"])))]
pub struct SetEndposArgs {
    /// WAL position of the source, such as 16/B374D848
    #[arg(value_name = "LSN", value_parser = lsn, help_heading = "Position")]
    pub lsn: Option<Lsn>,

    #[command(flatten)]
    pub target: TargetArg,

    /// The position at which --source stands now
    #[arg(long, requires = "source", help_heading = "Position")]
    pub current: bool,

    /// Connection string of the source, needed for --current only
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub source: Option<String>,
}

#[derive(Debug, Args)]
pub struct CleanupArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Also when the migration is not done; what it has received and not applied is lost
    #[arg(long, help_heading = "How")]
    pub force: bool,
}
