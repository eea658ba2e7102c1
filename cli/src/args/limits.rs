//! What the copy may ask of the source: the same for a run that begins and for `pgmig throttle`.

use std::time::Duration;

use clap::Args;

use super::{duration, size};

#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Bytes a second that the copy may read from the source, all workers together; 0 lifts the limit. This and the
    /// limits below are kept by the migration until pgmig throttle changes them
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub max_rate: Option<u64>,

    /// Sessions with the source that the run may have: about 6 and one for each copy worker; 0 lifts the limit
    #[arg(long, value_name = "N", help_heading = "Speed")]
    pub max_source_connections: Option<u16>,

    /// Percent by which a probe on the source may become slower than without the copy, its 95th percentile, before the
    /// copy gives way; 0 lifts the limit
    #[arg(long, value_name = "PERCENT", help_heading = "Speed")]
    pub max_slowdown: Option<u16>,

    /// The probe of --max-slowdown: one query that stands for what the application reads, and answers in milliseconds.
    /// At first, and where it is empty, a cheap one of pgmig's own, which hardly reads from disk
    #[arg(long, value_name = "SQL", help_heading = "Speed")]
    pub probe: Option<String>,

    /// How far physical standbys of the source may be behind before the copy gives way; 0 lifts the limit
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Speed")]
    pub max_standby_lag: Option<Duration>,
}
