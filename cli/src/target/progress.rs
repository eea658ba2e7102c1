//! Reads `pgmig.progress`, the view that `pgmig status` shows.

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::Progress;

/// The migrations of this database, or the one that is named.
pub async fn progress(client: &Client, migration: Option<&str>) -> Result<Vec<Progress>> {
    let rows = client
        .query(
            "select migration, phase, interrupted_phase, coalesce(tables_done, 0), coalesce(tables_total, 0),
                    coalesce(bytes_done, 0), coalesce(bytes_total, 0), copy_bytes_per_second,
                    coalesce(steps_done, 0), coalesce(steps_total, 0), coalesce(steps_failed, 0),
                    startpos, write_lsn, flush_lsn, replay_lsn, source_lsn, lag_bytes, lag_seconds::float8, spool_bytes,
                    applied_transactions, applied_rows, endpos, apply, extract(epoch from eta)::float8,
                    last_error, plugin, slot_name, conflicts, plugin <> 'none', running, replay_bytes_per_second,
                    source_bytes_per_second, extract(epoch from catch_up)::float8, max_rate, max_source_connections,
                    stop, started_at, done_at, way_back, is_way_back, max_slowdown,
                    extract(epoch from max_standby_lag)::float8, gives_way, retries
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
            conflicts: row.get(27),
            follow: row.get(28),
            running: row.get(29),
            replay_bytes_per_second: row.get(30),
            source_bytes_per_second: row.get(31),
            catch_up_seconds: row.get(32),
            max_rate: row.get(33),
            max_source_connections: row.get(34),
            stop: row.get(35),
            started_at: row.get(36),
            done_at: row.get(37),
            way_back: row.get(38),
            is_way_back: row.get(39),
            max_slowdown: row.get(40),
            max_standby_lag_seconds: row.get(41),
            gives_way: row.get(42),
            retries: row.get(43),
        })
        .collect())
}
