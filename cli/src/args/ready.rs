//! The arguments of the verbs that make two servers ready for a migration.

use clap::Args;

use super::RunArgs;

/// Those of `run`: the same line tells what would stand in its way.
#[derive(Debug, Args)]
pub struct PreflightArgs {
    #[command(flatten)]
    pub run: RunArgs,
}
