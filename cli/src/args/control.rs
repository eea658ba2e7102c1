//! The arguments of the verbs that steer a migration while it runs.

use clap::Args;

use super::{LimitArgs, TargetArg};

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
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["max_rate", "max_source_connections", "max_slowdown", "probe", "max_standby_lag"])))]
pub struct ThrottleArgs {
    #[command(flatten)]
    pub target: TargetArg,

    #[command(flatten)]
    pub limits: LimitArgs,
}
