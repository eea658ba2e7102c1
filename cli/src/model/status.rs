//! What `pgmig status` knows of a migration beside its progress: read by `target` and `source`, shown by
//! `report`. Sizes are in bytes, times in seconds.

use serde::Serialize;

use super::Progress;

/// A migration as it is at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    #[serde(flatten)]
    pub progress: Progress,
    /// Whether less waits than `--caught-up-at` says; null where nothing is followed.
    pub caught_up: Option<bool>,
    pub copying: Vec<Copying>,
    pub building: Vec<Building>,
    pub stages: Vec<Stage>,
    /// The last ones of what could not be made.
    pub failed: Vec<FailedStep>,
    pub activity: Vec<Activity>,
    /// Null without `--source`, or where it does not answer.
    pub source: Option<SourceHealth>,
    /// Since a run last did anything; null while one lives, and where there is no slot to keep WAL for it.
    pub unused_seconds: Option<f64>,
    /// Whether that is long: the source keeps WAL for nobody.
    pub abandoned: bool,
}

/// A migration that nobody has run for so long is told, in seconds.
pub const ABANDONED_AFTER: f64 = 24.0 * 3600.0;

impl Status {
    /// Without word from the source the slot is taken to be there, unless the migration is done.
    pub fn is_abandoned(&self, after: f64) -> bool {
        let slot = match &self.source {
            Some(source) => source.wal_status.is_some() && !source.active,
            None => self.progress.phase != "done",
        };
        slot && self.unused_seconds.is_some_and(|seconds| seconds >= after)
    }
}

/// A Part that is being copied.
#[derive(Debug, Clone, Serialize)]
pub struct Copying {
    pub table: String,
    pub part_number: i32,
    pub parts: i32,
    pub bytes: i64,
    pub bytes_done: i64,
    pub seconds: f64,
}

impl Copying {
    pub fn bytes_per_second(&self) -> Option<f64> {
        (self.seconds > 0.5 && self.bytes_done > 0).then(|| self.bytes_done as f64 / self.seconds)
    }
    pub fn seconds_left(&self) -> Option<f64> {
        self.bytes_per_second().map(|rate| (self.bytes - self.bytes_done).max(0) as f64 / rate)
    }
}

/// A step that is being made.
#[derive(Debug, Clone, Serialize)]
pub struct Building {
    pub kind: String,
    pub name: String,
    pub seconds: f64,
    /// Of an index: how much of its table is read, from 0 to 1.
    pub done: Option<f64>,
    /// What its session waits for, as `type: event`.
    pub waits: Option<String>,
}

/// The steps of one stage.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    pub stage: String,
    pub total: i64,
    pub done: i64,
    pub failed: i64,
}

#[derive(Debug, Clone, Serialize)]
pub struct FailedStep {
    pub kind: String,
    pub name: String,
    pub message: String,
}

/// A session of the target that does something now. No text of a statement: it may hold values.
#[derive(Debug, Clone, Serialize)]
pub struct Activity {
    pub pid: i32,
    pub application: String,
    pub command: String,
    pub seconds: f64,
    pub waits: Option<String>,
}

/// What the source says of the slot, and of what keeps it from cleaning up.
#[derive(Debug, Clone, Serialize)]
pub struct SourceHealth {
    /// `reserved`, `extended`, `unreserved` or `lost`; null if there is no slot.
    pub wal_status: Option<String>,
    pub active: bool,
    pub retained_bytes: Option<i64>,
    /// WAL that can still be written before the slot is in danger; null without a limit.
    pub safe_bytes: Option<i64>,
    pub oldest_snapshot: Option<OldestSnapshot>,
}

#[derive(Debug, Clone, Serialize)]
pub struct OldestSnapshot {
    pub pid: i32,
    pub application: String,
    pub seconds: f64,
}

/// When a migration counts as caught up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaughtUpAt {
    pub bytes: u64,
    pub seconds: f64,
}

impl Default for CaughtUpAt {
    fn default() -> CaughtUpAt {
        CaughtUpAt { bytes: 16 << 20, seconds: 10.0 }
    }
}

impl CaughtUpAt {
    /// None where nothing is followed yet.
    pub fn is(&self, progress: &Progress) -> Option<bool> {
        let (bytes, seconds) = (progress.lag_bytes?, progress.lag_seconds?);
        let follows = matches!(progress.phase.as_str(), "catchup" | "follow" | "cutover" | "done");
        Some(follows && bytes as u64 <= self.bytes && seconds <= self.seconds)
    }
}
