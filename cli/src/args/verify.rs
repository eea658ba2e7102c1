//! The arguments of `verify`.

use std::path::PathBuf;

use clap::Args;

use super::{SourceArg, TargetArg, size};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Folder of the migration, as given to run: says what its filters and flags leave out
    #[arg(long, env = "PGMIG_DIR", hide_env_values = true, value_name = "DIR", help_heading = "Databases")]
    pub dir: Option<PathBuf>,

    /// Compare the catalogs, where sequences stand and how many rows there are, not the rows themselves
    #[arg(long, help_heading = "How")]
    pub quick: bool,

    /// Make the rows that differ on the target those of the source, after a question; then compare them again
    #[arg(long, conflicts_with = "quick", help_heading = "How")]
    pub repair: bool,

    /// Repair without a question
    #[arg(long, requires = "repair", help_heading = "How")]
    pub yes: bool,

    /// With --quick, do not compare owners
    #[arg(long, requires = "quick", help_heading = "How")]
    pub no_owner: bool,

    /// With --quick, do not compare privileges
    #[arg(long, requires = "quick", help_heading = "How")]
    pub no_acl: bool,

    /// With --quick, do not compare comments
    #[arg(long, requires = "quick", help_heading = "How")]
    pub no_comments: bool,

    /// How many tables are compared at once, with a session on each side
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128), help_heading = "Speed")]
    pub table_jobs: u16,

    /// Read no more than this a second from each side, all jobs together; 0 sets no limit
    #[arg(long, default_value = "0", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub max_rate: u64,

    /// Name at most so many rows of a table
    #[arg(long, default_value_t = 20, value_name = "N", help_heading = "Output")]
    pub show: usize,

    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}
