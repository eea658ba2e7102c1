//! What `pgmig.progress` says, as `pgmig status` shows it.

use serde::Serialize;
use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::Lsn;

/// One row of `pgmig.progress`; sizes in bytes, times in seconds.
#[derive(Debug, Clone, Serialize)]
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
}

/// The migrations of this database, or the one that is named.
pub async fn progress(client: &Client, migration: Option<&str>) -> Result<Vec<Progress>> {
    let rows = client
        .query(
            "select migration, phase, interrupted_phase, coalesce(tables_done, 0), coalesce(tables_total, 0),
                    coalesce(bytes_done, 0), coalesce(bytes_total, 0), copy_bytes_per_second,
                    coalesce(steps_done, 0), coalesce(steps_total, 0), coalesce(steps_failed, 0),
                    startpos, write_lsn, flush_lsn, replay_lsn, source_lsn, lag_bytes, lag_seconds::float8, spool_bytes,
                    applied_transactions, applied_rows, endpos, apply, extract(epoch from eta)::float8,
                    last_error, plugin, slot_name
               from pgmig.progress
              where migration = coalesce($1, migration)
              order by migration",
            &[&migration],
        )
        .await
        .on_target(|| "read pgmig.progress".into())?;
    Ok(rows
        .iter()
        .map(|row| Progress {
            migration: row.get(0),
            phase: row.get(1),
            interrupted_phase: row.get(2),
            tables_done: row.get(3),
            tables_total: row.get(4),
            bytes_done: row.get(5),
            bytes_total: row.get(6),
            copy_bytes_per_second: row.get(7),
            steps_done: row.get(8),
            steps_total: row.get(9),
            steps_failed: row.get(10),
            startpos: row.get(11),
            write_lsn: row.get(12),
            flush_lsn: row.get(13),
            replay_lsn: row.get(14),
            source_lsn: row.get(15),
            lag_bytes: row.get(16),
            lag_seconds: row.get(17),
            spool_bytes: row.get(18),
            applied_transactions: row.get(19),
            applied_rows: row.get(20),
            endpos: row.get(21),
            apply: row.get(22),
            eta_seconds: row.get(23),
            last_error: row.get(24),
            plugin: row.get(25),
            slot_name: row.get(26),
        })
        .collect())
}
