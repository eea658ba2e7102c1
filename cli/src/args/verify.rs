//! The arguments of `verify`.

use clap::Args;

use super::{SourceArg, TargetArg, size};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Only columns and counts of rows
    #[arg(long, help_heading = "How")]
    pub quick: bool,

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
