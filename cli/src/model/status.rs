//! What `pgmig status` knows of a migration beside its progress: read by `target` and `source`, shown by
//! `report`. Sizes are in bytes, times in seconds.

use serde::Serialize;

use super::forecast::{Forecast, Left};
use super::{Lsn, Progress};

/// A migration as it is at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    #[serde(flatten)]
    pub progress: Progress,
    /// Whether less waits than `--caught-up-at` says; null where nothing is followed.
    pub caught_up: Option<bool>,
    /// Tables that are not copied yet, those in flight first, then the largest.
    pub tables: Vec<TableLeft>,
    /// Parts in flight.
    pub copying: Vec<Copying>,
    pub building: Vec<Building>,
    pub stages: Vec<Stage>,
    /// The last ones of what could not be made.
    pub failed: Vec<FailedStep>,
    pub activity: Vec<Activity>,
    /// What `pgmig verify` has found, and how far it is; null where both sides were never compared.
    pub verified: Option<Verified>,
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

/// What the last comparison of rows came to, and one that runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// When the last one ended, and where both sides stood.
    pub at: Option<jiff::Timestamp>,
    pub lsn: Option<Lsn>,
    /// Tables that it found equal, of all that are moved.
    pub percent: Option<f64>,
    pub differences: Option<i64>,
    /// Of one that runs now.
    pub running_percent: Option<f64>,
    pub seconds_left: Option<f64>,
}

/// A table that is not copied yet. Rates are in bytes of COPY, which the limits count too.
#[derive(Debug, Clone, Serialize)]
pub struct TableLeft {
    pub table: String,
    pub parts: i64,
    pub parts_done: i64,
    /// Size on the source when it was planned, and how much of it is done.
    pub bytes: i64,
    pub bytes_done: i64,
    pub planned_rows: Option<i64>,
    pub rows: i64,
    pub bytes_per_second: Option<f64>,
    pub seconds_left: Option<f64>,
}

/// A Part that is being copied.
#[derive(Debug, Clone, Serialize)]
pub struct Copying {
    pub part_id: i64,
    pub table: String,
    pub part_number: i32,
    pub parts: i64,
    pub bytes: i64,
    pub bytes_done: i64,
    pub rows: i64,
    pub seconds: f64,
    pub bytes_per_second: Option<f64>,
    pub seconds_left: Option<f64>,
}

/// The tables that are left, and the Parts in flight, the largest first.
pub fn copying(left: &Left, forecast: Option<&Forecast>) -> (Vec<TableLeft>, Vec<Copying>) {
    let (mut tables, mut parts) = (Vec::new(), Vec::new());
    for (at, table) in left.tables.iter().enumerate() {
        tables.push(TableLeft {
            table: table.table.clone(),
            parts: table.parts,
            parts_done: table.parts_done,
            bytes: table.bytes,
            bytes_done: table.bytes_done(),
            planned_rows: table.planned_rows,
            rows: table.rows(),
            bytes_per_second: table.bytes_per_second(),
            seconds_left: forecast.map(|forecast| forecast.tables[at]),
        });
        parts.extend(table.in_flight.iter().enumerate().map(|(number, part)| Copying {
            part_id: part.part_id,
            table: table.table.clone(),
            part_number: part.part_number,
            parts: table.parts,
            bytes: part.bytes,
            bytes_done: part.bytes_done,
            rows: part.rows,
            seconds: part.seconds,
            bytes_per_second: part.bytes_per_second(),
            seconds_left: forecast.map(|forecast| forecast.parts[at][number]),
        }));
    }
    parts.sort_by_key(|part| (std::cmp::Reverse(part.bytes), part.part_id));
    (tables, parts)
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
    /// How many transactions ago the oldest began that vacuum still has to reckon with.
    pub oldest_xmin_age: Option<i64>,
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
