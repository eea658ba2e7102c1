//! The arguments of the verbs that steer a migration while it runs.

use clap::Args;

use super::{TargetArg, size};

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub target: TargetArg,

    /// At once: what is in hand is rolled back; a run that does not answer loses its sessions with the target
    #[arg(long, help_heading = "How")]
    pub now: bool,
}

#[derive(Debug, Args)]
pub struct SwitchArgs {
    #[command(flatten)]
    pub target: TargetArg,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["max_rate", "max_source_connections"])))]
pub struct ThrottleArgs {
    #[command(flatten)]
    pub target: TargetArg,

    /// Bytes a second that the copy may read from the source, all workers together; 0 lifts the limit
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub max_rate: Option<u64>,

    /// Sessions with the source that the run may have; 0 lifts the limit
    #[arg(long, value_name = "N", help_heading = "Speed")]
    pub max_source_connections: Option<u16>,
}
