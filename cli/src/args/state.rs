//! The arguments of the verbs that look at a migration that runs, and steer it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{SourceArg, TargetArg, duration, lsn, migration, size, slot};
use crate::model::Lsn;
use crate::model::status::CaughtUpAt;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub target: String,

    /// Only this migration
    #[arg(long, env = "PGMIG_NAME", hide_env_values = true, value_parser = migration, help_heading = "Databases")]
    pub name: Option<String>,

    /// With it, what the source says of slot, WAL and snapshots is shown too
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub source: Option<String>,

    /// Show it again every second until q: a full screen on a terminal, text elsewhere
    #[arg(long, help_heading = "Output")]
    pub watch: bool,

    /// Call a migration caught up while it is behind by no more than this: a size, a time, or both
    #[arg(long, value_name = "SIZE,SECONDS", default_value = "16MB,10s", value_parser = caught_up_at, help_heading = "Output")]
    pub caught_up_at: CaughtUpAt,

    /// Warn of a migration that nobody has run for this long, while the source keeps WAL for it
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration, help_heading = "Output")]
    pub abandoned_after: Duration,

    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

pub(super) fn caught_up_at(text: &str) -> Result<CaughtUpAt, String> {
    let mut at = CaughtUpAt::default();
    for part in text.split(',').map(str::trim) {
        match part.strip_suffix('s').and_then(|seconds| seconds.trim().parse::<f64>().ok()) {
            Some(seconds) if seconds >= 0.0 => at.seconds = seconds,
            _ => at.bytes = size(part).map_err(|_| "give a size, a time, or both, such as 16MB,10s".to_string())?,
        }
    }
    Ok(at)
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

    /// Slot to drop where the target does not say [default: pgmig_NAME]
    #[arg(long, value_name = "SLOT", value_parser = slot, help_heading = "Databases")]
    pub slot_name: Option<String>,

    /// Folder that run was given, to say whether it is still there
    #[arg(long, env = "PGMIG_DIR", hide_env_values = true, value_name = "DIR", help_heading = "Databases")]
    pub dir: Option<PathBuf>,

    /// Also when the migration is not done, so that what it has received and not applied is lost; also when one of the
    /// servers cannot be reached
    #[arg(long, help_heading = "How")]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ResetTargetArgs {
    #[command(flatten)]
    pub target: TargetArg,

    /// Do not ask
    #[arg(long, help_heading = "How")]
    pub yes: bool,

    /// Also when the migration is done
    #[arg(long, help_heading = "How")]
    pub force: bool,
}
