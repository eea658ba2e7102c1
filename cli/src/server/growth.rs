//! How much a server writes: WAL of the whole server, and what the database takes.

use std::time::Instant;

use tokio_postgres::Client;

use crate::connect::Side;
use crate::error::{Context, Result};
use crate::model::stall::Growth;

/// A server as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    at: Instant,
    wal_bytes: i64,
    database_bytes: i64,
}

pub async fn size(client: &Client, side: Side) -> Result<Size> {
    let row = client
        .query_one(
            "select (case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                          else pg_catalog.pg_current_wal_insert_lsn() end - '0/0'::pg_lsn)::int8,
                    pg_catalog.pg_database_size(current_database())",
            &[],
        )
        .await
        .during(side.exit(), || format!("ask the {side} how large it is"))?;
    Ok(Size { at: Instant::now(), wal_bytes: row.get(0), database_bytes: row.get(1) })
}

impl Size {
    /// What came to it since `before`.
    pub fn since(&self, before: &Size) -> Growth {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let rate = |now: i64, before: i64| (seconds > 0.0).then(|| (now - before) as f64 / seconds);
        Growth {
            seconds,
            wal_bytes_per_second: rate(self.wal_bytes, before.wal_bytes),
            database_bytes: self.database_bytes,
            database_bytes_per_second: rate(self.database_bytes, before.database_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_came_to_it_is_told_a_second_and_a_table_that_was_dropped_takes_away() {
        let at = Instant::now();
        let before = Size { at, wal_bytes: 1000, database_bytes: 9000 };
        let now = Size { at: at + Duration::from_secs(5), wal_bytes: 1500, database_bytes: 8000 };
        let growth = now.since(&before);
        assert_eq!((growth.wal_bytes_per_second, growth.database_bytes_per_second), (Some(100.0), Some(-200.0)));
        assert_eq!((growth.seconds, growth.database_bytes), (5.0, 8000));
        assert_eq!(before.since(&before).wal_bytes_per_second, None);
    }
}
