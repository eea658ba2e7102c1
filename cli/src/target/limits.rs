//! What the copy may ask of the source: as people allow it, and as the run that is alive turns it down for
//! all that copy. It is in the sentinel, where other processes and later runs find it.

use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::sentinel::{self, Stop};
use crate::error::{Context, Result};

/// What people give: None leaves a limit as it is, 0 lifts it; an empty probe is pgmig's own.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Bytes a second.
    pub max_rate: Option<u64>,
    pub max_source_connections: Option<u16>,
    /// Percent.
    pub max_slowdown: Option<u16>,
    pub max_standby_lag: Option<Duration>,
    pub probe: Option<String>,
}

/// How slow the source may become before the copy gives way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tolerance {
    /// Percent that the probe's 95th percentile may rise.
    pub slowdown: Option<u32>,
    pub standby_lag: Option<Duration>,
    /// None for pgmig's own.
    pub probe: Option<String>,
}

impl Tolerance {
    /// Whether anything has to be watched.
    pub fn is_set(&self) -> bool {
        self.slowdown.is_some() || self.standby_lag.is_some()
    }
}

/// What the copy keeps to while it gives way: all its processes together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Bytes a second.
    pub max_rate: u64,
    pub workers: usize,
}

/// What is asked of those that copy: by people, and by the run that watches the source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    pub stop: Option<Stop>,
    /// Bytes a second.
    pub max_rate: Option<u64>,
    pub max_source_connections: Option<usize>,
    pub tolerance: Tolerance,
    /// Bytes a second while the source keeps too much WAL.
    pub wal_max_rate: Option<u64>,
    /// While the source is slower than is tolerated.
    pub share: Option<Share>,
    /// Processes that copy beside the run, and share with it what it is allowed.
    pub joined: usize,
}

pub async fn asked(client: &Client, migration: &str) -> Result<Asked> {
    let row = client
        .query_opt(
            "select stop, max_rate, max_source_connections, wal_max_rate,
                    (select count(*)
                       from pg_catalog.pg_locks l, pg_catalog.hashtextextended('pgmig join ' || $1, 0) as k (key)
                      where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                        and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
                        and (l.classid::int8 << 32 | l.objid::int8) = k.key),
                    max_slowdown, extract(epoch from max_standby_lag)::float8, probe, load_max_rate, load_max_workers
               from pgmig.sentinel where migration = $1",
            &[&migration],
        )
        .await
        .on_target(|| "read what is asked of the run".into())?;
    Ok(row.map_or_else(Asked::default, |row| Asked {
        stop: row.get::<_, Option<&str>>(0).map(|stop| if stop == "now" { Stop::Now } else { Stop::Border }),
        max_rate: rate(&row, 1),
        max_source_connections: row.get::<_, Option<i32>>(2).map(|most| most.max(1) as usize),
        wal_max_rate: rate(&row, 3),
        joined: row.get::<_, i64>(4) as usize,
        tolerance: Tolerance {
            slowdown: row.get::<_, Option<i32>>(5).map(|percent| percent.max(1) as u32),
            standby_lag: row.get::<_, Option<f64>>(6).and_then(|lag| Duration::try_from_secs_f64(lag).ok()),
            probe: row.get(7),
        },
        share: rate(&row, 8).map(|max_rate| Share {
            max_rate,
            workers: row.get::<_, Option<i32>>(9).map_or(1, |workers| workers.max(1) as usize),
        }),
    }))
}

fn rate(row: &Row, at: usize) -> Option<u64> {
    row.get::<_, Option<i64>>(at).map(|rate| rate.max(1) as u64)
}

/// Makes the switches those of a run that begins: nobody has asked it to stop, it holds nobody back, and it
/// may be given limits.
pub async fn take_over(client: &Client, migration: &str, limits: &Limits) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel
                set stop = null, wal_max_rate = null, load_max_rate = null, load_max_workers = null, gives_way = null,
                    copy_seen_at = null, retries = 0,
                    max_rate = nullif(coalesce($2, max_rate), 0),
                    max_source_connections = nullif(coalesce($3, max_source_connections), 0),
                    max_slowdown = nullif(coalesce($4, max_slowdown), 0),
                    max_standby_lag = nullif(coalesce(make_interval(secs => $5), max_standby_lag), interval '0'),
                    probe = nullif(coalesce($6, probe), '')
              where migration = $1",
            &[
                &migration,
                &limits.max_rate.map(bigint),
                &limits.max_source_connections.map(i32::from),
                &limits.max_slowdown.map(i32::from),
                &limits.max_standby_lag.map(|lag| lag.as_secs_f64()),
                &limits.probe,
            ],
        )
        .await
        .on_target(|| "take over the switches".into())?;
    Ok(())
}

/// Changes limits while a run is alive, and says what they are then.
pub async fn throttle(client: &Client, migration: &str, limits: &Limits) -> Result<Asked> {
    let sql = "select pgmig.throttle(max_rate => $1, max_source_connections => $2, max_slowdown => $3, \
               max_standby_lag => make_interval(secs => $4), probe => $5, migration => $6)";
    let Limits { max_rate, max_source_connections, max_slowdown, max_standby_lag, probe } = limits;
    sentinel::call(
        client,
        sql,
        &[
            &max_rate.map(bigint),
            &max_source_connections.map(i32::from),
            &max_slowdown.map(i32::from),
            &max_standby_lag.map(|lag| lag.as_secs_f64()),
            probe,
            &migration,
        ],
        &format!("throttle migration `{migration}`"),
    )
    .await?;
    asked(client, migration).await
}

/// Says to what all that copy keep while the copy gives way, and why; None when it does not.
pub async fn give_way(client: &Client, migration: &str, share: Option<Share>, why: Option<&str>) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel set load_max_rate = $2, load_max_workers = $3, gives_way = $4 where migration = $1",
            &[
                &migration,
                &share.map(|share| bigint(share.max_rate.max(1))),
                &share.map(|share| share.workers.max(1) as i32),
                &why,
            ],
        )
        .await
        .on_target(|| "store what the copy keeps to".into())?;
    Ok(())
}

fn bigint(bytes: u64) -> i64 {
    bytes.min(i64::MAX as u64) as i64
}
