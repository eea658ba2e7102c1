//! Reads what `pgmig status` shows beside `pgmig.progress`. Views and catalogs only; takes no lock that
//! anything of a migration waits for.

use tokio_postgres::{Client, Row};

use super::{forecast, progress};
use crate::error::{Context, Result};
use crate::model::Progress;
use crate::model::status::{
    self, Activity, Building, CaughtUpAt, Copying, FailedStep, Stage, Status, TableLeft, Verified,
};

/// How many lines of each kind are read.
const MOST: i64 = 50;

/// The migrations of this database, or the one that is named.
pub async fn status(client: &Client, migration: Option<&str>, caught_up_at: CaughtUpAt) -> Result<Vec<Status>> {
    let mut all = Vec::new();
    for progress in progress::progress(client, migration).await? {
        let name = progress.migration.clone();
        // Once all is copied, very many Parts are not read again at every look.
        let copied = progress.tables_done == progress.tables_total && progress.bytes_done == progress.bytes_total;
        let (tables, copying) = if copied { (Vec::new(), Vec::new()) } else { copying(client, &name).await? };
        all.push(Status {
            caught_up: caught_up_at.is(&progress),
            tables,
            copying,
            building: building(client, &name).await?,
            stages: stages(client, &name).await?,
            failed: if progress.steps_failed > 0 { failed(client, &name).await? } else { Vec::new() },
            activity: activity(client).await?,
            unused_seconds: unused_seconds(client, &progress).await?,
            abandoned: false,
            verified: verified(client, &name).await?,
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

async fn copying(client: &Client, migration: &str) -> Result<(Vec<TableLeft>, Vec<Copying>)> {
    let left = forecast::left(client, migration).await?;
    let ahead = forecast::pace(client, migration).await?.map(|pace| left.forecast(pace));
    let (mut tables, mut parts) = status::copying(&left, ahead.as_ref());
    tables.truncate(MOST as usize);
    parts.truncate(MOST as usize);
    Ok((tables, parts))
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

/// What the last comparison of rows came to, and how far one is that runs: its session is named for it.
pub async fn verified(client: &Client, migration: &str) -> Result<Option<Verified>> {
    let row = client
        .query_one(
            "select v.at, v.lsn, v.differences,
                    100.0::float8 * greatest(v.tables - v.differ, 0) / nullif(v.all_tables, 0),
                    a.percent, a.seconds
               from (values (1)) as one
                    left join lateral (
                        select v.at, v.lsn, v.tables, jsonb_array_length(v.differences)::int8 as differences,
                               (select count(distinct d ->> 'table') from jsonb_array_elements(v.differences) d) as differ,
                               (select count(distinct (p.schema_name, p.table_name)) from pgmig.part p
                                 where p.migration = v.migration) as all_tables
                          from pgmig.verification v
                         where v.migration = $1 and not v.quick
                         order by v.verification_id desc
                         limit 1) v on true
                    left join lateral (
                        select substring(application_name from '^pgmig verify ([0-9]+)%')::float8 as percent,
                               substring(application_name from '^pgmig verify [0-9]+% ([0-9]+)s')::float8 as seconds
                          from pg_catalog.pg_stat_activity
                         where datname = current_database()
                           and application_name ~ '^pgmig verify [0-9]+% '
                           and split_part(application_name, ' ', 5) = left($1, 30)
                         limit 1) a on true",
            &[&migration],
        )
        .await
        .on_target(|| "read what was compared".into())?;
    let found = Verified {
        at: row.get(0),
        lsn: row.get(1),
        differences: row.get(2),
        percent: row.get(3),
        running_percent: row.get(4),
        seconds_left: row.get(5),
    };
    Ok(Some(found).filter(|found| found.at.is_some() || found.running_percent.is_some()))
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
