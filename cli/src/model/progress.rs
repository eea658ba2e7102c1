//! How far a migration is, as the view `pgmig.progress` says: read by `target`, shown by `report`.

use serde::{Deserialize, Serialize};

use super::Lsn;

/// One row of `pgmig.progress`; sizes in bytes, times in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    pub migration: String,
    pub phase: String,
    pub interrupted_phase: Option<String>,
    pub tables_done: i64,
    pub tables_total: i64,
    pub bytes_done: i64,
    pub bytes_total: i64,
    pub copy_bytes_per_second: Option<i64>,
    pub steps_done: i64,
    pub steps_total: i64,
    pub steps_failed: i64,
    pub startpos: Option<Lsn>,
    pub write_lsn: Option<Lsn>,
    pub flush_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    pub source_lsn: Option<Lsn>,
    pub lag_bytes: Option<i64>,
    pub lag_seconds: Option<f64>,
    pub spool_bytes: i64,
    pub applied_transactions: i64,
    pub applied_rows: i64,
    pub endpos: Option<Lsn>,
    pub apply: bool,
    pub eta_seconds: Option<f64>,
    pub last_error: Option<String>,
    pub plugin: String,
    pub slot_name: String,
    pub conflicts: i64,
    pub follow: bool,
    /// Whether a run of it is alive.
    pub running: bool,
    pub replay_bytes_per_second: Option<i64>,
    pub source_bytes_per_second: Option<i64>,
    pub catch_up_seconds: Option<f64>,
    pub max_rate: Option<i64>,
    pub max_source_connections: Option<i32>,
    /// Percent.
    pub max_slowdown: Option<i32>,
    pub max_standby_lag_seconds: Option<f64>,
    /// Why, and to what.
    pub gives_way: Option<String>,
    pub stop: Option<String>,
    /// open or taken, where the migration was cut over with a way back.
    pub way_back: Option<String>,
    pub is_way_back: bool,
    pub started_at: jiff::Timestamp,
    pub done_at: Option<jiff::Timestamp>,
    /// Of the last run: sessions that were opened again, and what was tried again.
    #[serde(default)]
    pub retries: i64,
}

#[cfg(test)]
impl Progress {
    /// One in the middle of its work, for tests.
    pub fn sample(phase: &str) -> Progress {
        let json = serde_json::json!({
            "migration": "default", "phase": phase, "interrupted_phase": null, "tables_done": 1, "tables_total": 2,
            "bytes_done": 1 << 30, "bytes_total": 4_i64 << 30, "copy_bytes_per_second": null, "steps_done": 0,
            "steps_total": 2, "steps_failed": 0, "startpos": "0/1", "write_lsn": "1/0", "flush_lsn": "1/0",
            "replay_lsn": "0/1", "source_lsn": "1/0", "lag_bytes": 4 << 20, "lag_seconds": 9.0, "spool_bytes": 0,
            "applied_transactions": 1, "applied_rows": 1, "endpos": null, "apply": true, "eta_seconds": null,
            "last_error": null, "plugin": "pgoutput", "slot_name": "pgmig_default", "conflicts": 0, "follow": true,
            "running": true, "replay_bytes_per_second": null, "source_bytes_per_second": null,
            "catch_up_seconds": null, "max_rate": null, "max_source_connections": null, "stop": null,
            "way_back": null, "is_way_back": false, "started_at": "2026-01-01T00:00:00Z", "done_at": null
        });
        serde_json::from_value(json).expect("every field that may not be null is there")
    }
}
