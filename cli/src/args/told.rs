//! Who hears of a run beside its terminal: a log file, Prometheus, a webhook; and `notify`, which tries one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::state::caught_up_at;
use super::{duration, size};
use crate::model::status::CaughtUpAt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevelArg {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevelArg {
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevelArg::Error => "error",
            LogLevelArg::Warn => "warn",
            LogLevelArg::Info => "info",
            LogLevelArg::Debug => "debug",
            LogLevelArg::Trace => "trace",
        }
    }
}

/// When a log file is turned over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate {
    pub bytes: Option<u64>,
    pub daily: bool,
}

fn rotate(text: &str) -> Result<Rotate, String> {
    match text {
        "daily" => Ok(Rotate { bytes: None, daily: true }),
        "never" => Ok(Rotate { bytes: None, daily: false }),
        _ => match size(text) {
            Ok(bytes) if bytes > 0 => Ok(Rotate { bytes: Some(bytes), daily: false }),
            _ => Err("give a size such as 100MB, daily, or never".into()),
        },
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Write what happens to this file, too
    #[arg(long, env = "PGMIG_LOG_FILE", hide_env_values = true, value_name = "FILE", help_heading = "Log")]
    pub log_file: Option<PathBuf>,

    /// How: as text, or one JSON object a line
    #[arg(long, value_enum, default_value = "text", help_heading = "Log")]
    pub log_format: LogFormatArg,

    /// How much: debug has every batch, table and object
    #[arg(long, value_enum, default_value = "info", help_heading = "Log")]
    pub log_level: LogLevelArg,

    /// Begin a new file when it has this size, daily, or never
    #[arg(long, value_name = "WHEN", default_value = "100MB", value_parser = rotate, help_heading = "Log")]
    pub log_rotate: Rotate,

    /// How many older files stay, as FILE.1, FILE.2 …
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000), help_heading = "Log")]
    pub log_keep: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NotifyFormatArg {
    Slack,
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Watch")]
pub struct WatchedArgs {
    /// Answer Prometheus at http://ADDR:PORT/metrics while it runs; docs/metrics.md has the names
    #[arg(
        long,
        env = "PGMIG_METRICS_LISTEN",
        hide_env_values = true,
        value_name = "ADDR:PORT",
        help_heading = "Watch"
    )]
    pub metrics_listen: Option<SocketAddr>,

    /// Webhook that hears of what matters: started, copy done, copy stands, caught up, lag above, slot in
    /// danger, error, done.
    /// Best in the variable: the URL is a password
    #[arg(long, env = "PGMIG_NOTIFY", hide_env_values = true, value_name = "URL", help_heading = "Watch")]
    pub notify: Option<String>,

    /// In which form [default: slack for hooks.slack.com, else json]
    #[arg(long, value_enum, help_heading = "Watch")]
    pub notify_format: Option<NotifyFormatArg>,

    /// Tell it when a migration that was level is behind by more than this: a size, a time, or both
    #[arg(long, value_name = "SIZE,SECONDS", default_value = "1GB,60s", value_parser = caught_up_at, help_heading = "Watch")]
    pub notify_lag: CaughtUpAt,

    /// Warn of a table or part of one that is being copied and moves no byte for so long, and say why; 0
    /// never does
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = duration, help_heading = "Watch")]
    pub stalled_after: Duration,
}

#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// Send one test event to this webhook
    #[arg(
        long,
        env = "PGMIG_NOTIFY",
        hide_env_values = true,
        value_name = "URL",
        required = true,
        help_heading = "How"
    )]
    pub test: String,

    /// In which form [default: slack for hooks.slack.com, else json]
    #[arg(long, value_enum, help_heading = "How")]
    pub notify_format: Option<NotifyFormatArg>,
}
