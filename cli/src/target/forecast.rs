//! What the copy has left and how fast it was, read for the forecast of its end; and that forecast, stored.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use crate::error::{Context, Result};
use crate::model::forecast::{Done, InFlight, Left, Pace, Pending, Unfinished};

/// So many tables are told one by one; the others are small beside them.
const MOST: i64 = 500;

/// What is left, of one moment.
pub async fn left(client: &Client, migration: &str) -> Result<Left> {
    let doing = || "read what is left of the copy".to_string();
    client.batch_execute("begin isolation level repeatable read read only").await.on_target(doing)?;
    let tables = client
        .query(
            "select format('%s.%s', schema_name, table_name), parts, parts_done, bytes, bytes_done, planned_rows,
                    copied_rows, copied_bytes, planned_copy_bytes
               from pgmig.tables
              where migration = $1 and state <> 'done'
              order by state = 'copying' desc, bytes desc, 1
              limit $2",
            &[&migration, &MOST],
        )
        .await
        .on_target(doing)?;
    let parts = client
        .query(
            "select format('%s.%s', schema_name, table_name), part_id, part_number, bytes, bytes_done, planned_rows,
                    coalesce(copied_bytes, 0), coalesce(copied_rows, 0),
                    coalesce(extract(epoch from clock_timestamp() - started_at), 0)::float8
               from pgmig.parts
              where migration = $1 and state = 'copying'
              order by bytes desc, part_id",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    let all = client
        .query_one(
            "select count(*) filter (where state = 'pending'),
                    coalesce(sum(coalesce(planned_copy_bytes, bytes)) filter (where state = 'pending'), 0)::int8,
                    coalesce(sum(bytes) filter (where state = 'done'), 0)::int8,
                    -- What was copied without a count is as large as it was planned.
                    coalesce(sum(coalesce(copied_bytes, bytes)) filter (where state = 'done'), 0)::int8,
                    coalesce(sum(copied_rows) filter (where state = 'done'), 0)::int8,
                    coalesce(sum(copied_bytes), 0)::int8
               from pgmig.parts
              where migration = $1",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    client.batch_execute("commit").await.on_target(doing)?;
    Ok(together(&tables, &parts, &all))
}

fn together(tables: &[Row], parts: &[Row], all: &Row) -> Left {
    let mut in_flight: HashMap<String, Vec<InFlight>> = HashMap::new();
    for row in parts {
        in_flight.entry(row.get(0)).or_default().push(InFlight {
            part_id: row.get(1),
            part_number: row.get(2),
            bytes: row.get(3),
            bytes_done: row.get(4),
            planned_rows: row.get(5),
            copied: row.get(6),
            rows: row.get(7),
            seconds: row.get(8),
        });
    }
    let mut others = Pending { parts: all.get(0), bytes: all.get(1) };
    let mut unfinished = Vec::with_capacity(tables.len());
    for row in tables {
        let (name, count, parts_done): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let (bytes, bytes_done): (i64, i64) = (row.get(3), row.get(4));
        let in_flight = in_flight.remove(&name).unwrap_or_default();
        let in_hand = |of: fn(&InFlight) -> i64| in_flight.iter().map(of).sum::<i64>();
        let done = Done {
            bytes: bytes_done - in_hand(|part| part.bytes_done),
            copied: row.get::<_, i64>(7) - in_hand(|part| part.copied),
            rows: row.get::<_, i64>(6) - in_hand(|part| part.rows),
        };
        let pending = Pending {
            parts: count - parts_done - in_flight.len() as i64,
            bytes: bytes - done.bytes - in_hand(|part| part.bytes),
        };
        let planned_copy_bytes: Option<i64> = row.get(8);
        let as_copy = match planned_copy_bytes.filter(|_| bytes > 0) {
            Some(planned) => (planned as f64 * pending.bytes as f64 / bytes as f64) as i64,
            None => pending.bytes,
        };
        others = Pending { parts: others.parts - pending.parts, bytes: others.bytes - as_copy };
        unfinished.push(Unfinished {
            table: name,
            bytes,
            planned_rows: row.get(5),
            planned_copy_bytes,
            parts: count,
            parts_done,
            done,
            in_flight,
            pending,
        });
    }
    Left {
        tables: unfinished,
        others,
        done: Done { bytes: all.get(2), copied: all.get(3), rows: all.get(4) },
        copied: all.get(5),
    }
}

/// How fast the copy was when the run looked last, and what is allowed.
pub async fn pace(client: &Client, migration: &str) -> Result<Option<Pace>> {
    let row = client
        .query_opt(
            "select copy_bytes_per_second, least(max_rate, wal_max_rate)
               from pgmig.sentinel
              where migration = $1 and copy_seen_at > clock_timestamp() - interval '1 minute'",
            &[&migration],
        )
        .await
        .on_target(|| "read how fast the copy is".into())?;
    let figure = |at: usize| row.as_ref().and_then(|row| row.get::<_, Option<i64>>(at));
    Ok(figure(0).map(|rate| Pace { rate: rate as f64, limit: figure(1).map(|limit| limit.max(1) as u64) }))
}

/// How fast the copy is, and what it still takes, for people; None before that can be said.
pub async fn store(client: &Client, migration: &str, rate: Option<f64>, left: Option<f64>, retries: u64) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel
                set copy_bytes_per_second = $2::float8::bigint, copy_left = make_interval(secs => $3::float8),
                    copy_seen_at = clock_timestamp(), retries = $4
              where migration = $1",
            &[&migration, &rate, &left, &(retries as i64)],
        )
        .await
        .on_target(|| "store how fast the copy is".into())?;
    Ok(())
}
