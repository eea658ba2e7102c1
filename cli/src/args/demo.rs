//! The arguments of `demo`.

use std::path::PathBuf;

use clap::Args;

use super::{FlavourArg, PluginArg};

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// SQL file to load with psql, pagila.sql for now [default: a shop that the demo makes]
    #[arg(long, value_name = "FILE", help_heading = "What to migrate")]
    pub database: Option<PathBuf>,

    /// How pgmig installs itself on the target: extension pgmig_sentinel (faster) or plain SQL
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub flavour: FlavourArg,

    /// Output plugin of the source that says what changes
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub plugin: PluginArg,

    /// Folder of the source's PostgreSQL programs [default: the newest that is installed]
    #[arg(long, value_name = "DIR", help_heading = "How")]
    pub source_bin: Option<PathBuf>,

    /// Folder of the target's PostgreSQL programs: those of a later version show an upgrade
    #[arg(long, value_name = "DIR", help_heading = "How")]
    pub target_bin: Option<PathBuf>,

    /// How long changes are followed while a writer writes
    #[arg(long, default_value_t = 10, value_name = "SECONDS", help_heading = "How")]
    pub seconds: u64,

    /// Keep the two servers until interrupted, and say where they are
    #[arg(long, help_heading = "How")]
    pub keep: bool,
}
