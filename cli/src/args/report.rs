//! The arguments of `report`.

use std::path::PathBuf;

use clap::Args;

use super::migration;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Connection string of the target, as libpq takes it; without it the page holds what --dir remembers
    #[arg(
        long,
        env = "PGMIG_TARGET",
        hide_env_values = true,
        value_name = "URI",
        required_unless_present = "dir",
        help_heading = "Databases"
    )]
    pub target: Option<String>,

    /// Name of the migration
    #[arg(long, env = "PGMIG_NAME", hide_env_values = true, default_value = "default", value_parser = migration, help_heading = "Databases")]
    pub name: String,

    /// Folder of the migration, as given to run
    #[arg(long, env = "PGMIG_DIR", hide_env_values = true, value_name = "DIR", help_heading = "Databases")]
    pub dir: Option<PathBuf>,

    /// File to write; - is stdout [default: pgmig-NAME.html]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
}
