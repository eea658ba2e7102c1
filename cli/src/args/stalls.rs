//! The arguments of `stalls`.

use std::time::Duration;

use clap::Args;

use super::{TargetArg, duration};

#[derive(Debug, Args)]
pub struct StallsArgs {
    #[command(flatten)]
    pub target: TargetArg,

    /// With it, what the source's sessions, slot and locks say counts too
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub source: Option<String>,

    /// How long both servers are watched, five times a second; what they write meanwhile is measured
    #[arg(long = "for", alias = "sample-secs", value_name = "TIME", default_value = "2s", value_parser = duration, help_heading = "How")]
    pub during: Duration,

    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}
