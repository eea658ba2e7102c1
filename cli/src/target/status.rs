//! Reads what `pgmig status` shows beside `pgmig.progress`. Views and catalogs only; takes no lock that
//! anything of a migration waits for.

use tokio_postgres::{Client, Row};

use super::progress;
use crate::error::{Context, Result};
use crate::model::Progress;
use crate::model::status::{Activity, Building, CaughtUpAt, Copying, FailedStep, Stage, Status};

/// How many lines of each kind are read.
const MOST: i64 = 50;

/// The migrations of this database, or the one that is named.
pub async fn status(client: &Client, migration: Option<&str>, caught_up_at: CaughtUpAt) -> Result<Vec<Status>> {
    let mut all = Vec::new();
    for progress in progress::progress(client, migration).await? {
        let name = progress.migration.clone();
        all.push(Status {
            caught_up: caught_up_at.is(&progress),
            copying: copying(client, &name).await?,
            building: building(client, &name).await?,
            stages: stages(client, &name).await?,
            failed: if progress.steps_failed > 0 { failed(client, &name).await? } else { Vec::new() },
            activity: activity(client).await?,
            unused_seconds: unused_seconds(client, &progress).await?,
            abandoned: false,
            progress,
            source: None,
        });
    }
    Ok(all)
}

/// Since a run of it last did anything; None while one lives, and where it has no slot of its own.
pub async fn unused_seconds(client: &Client, progress: &Progress) -> Result<Option<f64>> {
    if progress.running || !progress.follow || progress.startpos.is_none() || progress.way_back.is_some() {
        return Ok(None);
    }
    let query = "select extract(epoch from clock_timestamp() - greatest(started_at, stream_at, done_at))::float8
                   from pgmig.sentinel where migration = $1";
    let row = client.query_opt(query, &[&progress.migration]).await.on_target(|| "ask when it was last run".into())?;
    Ok(row.and_then(|row| row.get(0)))
}

async fn rows(client: &Client, what: &str, sql: &str, migration: &str) -> Result<Vec<Row>> {
    client.query(sql, &[&migration, &MOST]).await.on_target(|| format!("read {what}"))
}

async fn copying(client: &Client, migration: &str) -> Result<Vec<Copying>> {
    let sql = "select format('%s.%s', schema_name, table_name), part_number, parts, bytes, bytes_done,
                      coalesce(extract(epoch from clock_timestamp() - started_at), 0)::float8
                 from pgmig.parts
                where migration = $1 and state = 'copying'
                order by bytes desc, part_id
                limit $2";
    let copying = |row: &Row| Copying {
        table: row.get(0),
        part_number: row.get(1),
        parts: row.get(2),
        bytes: row.get(3),
        bytes_done: row.get(4),
        seconds: row.get(5),
    };
    Ok(rows(client, "the Parts in flight", sql, migration).await?.iter().map(copying).collect())
}

async fn building(client: &Client, migration: &str) -> Result<Vec<Building>> {
    let sql = "select lower(s.kind), s.name, coalesce(extract(epoch from clock_timestamp() - s.started_at), 0)::float8,
                      case when i.blocks_total > 0 then i.blocks_done::float8 / i.blocks_total end,
                      a.wait_event_type || ': ' || a.wait_event
                 from pgmig.steps s
                      left join pg_catalog.pg_stat_progress_create_index i on i.pid = s.pid
                      left join pg_catalog.pg_stat_activity a on a.pid = s.pid
                where s.migration = $1 and s.state = 'running'
                order by s.started_at, s.step_id
                limit $2";
    let building = |row: &Row| Building {
        kind: row.get(0),
        name: row.get(1),
        seconds: row.get(2),
        done: row.get(3),
        waits: row.get(4),
    };
    Ok(rows(client, "the steps in hand", sql, migration).await?.iter().map(building).collect())
}

async fn stages(client: &Client, migration: &str) -> Result<Vec<Stage>> {
    let sql = "select stage, count(*), count(*) filter (where state = 'done'), count(*) filter (where state = 'failed')
                 from pgmig.step
                where migration = $1
                group by stage
                order by min(step_id)
                limit $2";
    let stage = |row: &Row| Stage { stage: row.get(0), total: row.get(1), done: row.get(2), failed: row.get(3) };
    Ok(rows(client, "the steps", sql, migration).await?.iter().map(stage).collect())
}

async fn failed(client: &Client, migration: &str) -> Result<Vec<FailedStep>> {
    let sql = "select lower(kind), name, coalesce(message, '')
                 from pgmig.step
                where migration = $1 and state = 'failed'
                order by step_id desc
                limit $2";
    let failed = |row: &Row| FailedStep { kind: row.get(0), name: row.get(1), message: row.get(2) };
    Ok(rows(client, "the steps that failed", sql, migration).await?.iter().map(failed).collect())
}

/// What the sessions of this database do now, longest first, those that only wait for the next change left
/// out.
async fn activity(client: &Client) -> Result<Vec<Activity>> {
    let rows = client
        .query(
            "select pid, coalesce(application_name, ''),
                    coalesce(upper(regexp_replace(substring(query from
                        '^\\s*([a-zA-Z]+(?:\\s+(?:unique\\s+)?(?:index|table|materialized\\s+view))?)'), '\\s+', ' ', 'g')), '?'),
                    coalesce(extract(epoch from clock_timestamp() - query_start), 0)::float8,
                    wait_event_type || ': ' || wait_event
               from pg_catalog.pg_stat_activity
              where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()
                    and backend_type = 'client backend'
              order by query_start nulls last
              limit $1",
            &[&MOST],
        )
        .await
        .on_target(|| "read what runs on the target".into())?;
    Ok(rows
        .iter()
        .map(|row| Activity {
            pid: row.get(0),
            application: row.get(1),
            command: row.get(2),
            seconds: row.get(3),
            waits: row.get(4),
        })
        .collect())
}
