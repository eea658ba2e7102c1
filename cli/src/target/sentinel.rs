//! The sentinel: the one row that says where a migration is. Phases and positions are written here
//! and nowhere else.

use tokio_postgres::Client;

use super::cutover;
use crate::crash;
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Lsn, Phase};

/// The sentinel of one migration as it was read.
#[derive(Debug, Clone)]
pub struct Sentinel {
    pub phase: Phase,
    /// Set while the migration is paused.
    pub paused: bool,
    pub follow: bool,
    pub apply: bool,
    pub plugin: String,
    pub slot_name: String,
    pub source_identity: String,
    pub startpos: Option<Lsn>,
    pub endpos: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    pub last_error: Option<String>,
    pub cutover: Option<cutover::State>,
    pub way_back: Option<WayBack>,
    /// Whether it is the way back of a migration that goes the other way.
    pub is_way_back: bool,
}

/// What became of the way back of a migration that was cut over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    Open,
    Taken,
}

/// What a new migration is begun with.
pub struct Begin<'a> {
    pub migration: &'a str,
    pub follow: bool,
    pub plugin: &'a str,
    pub slot_name: &'a str,
    pub source_identity: &'a str,
    pub endpos: Option<Lsn>,
}

/// Positions of the stream, written a few times a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StreamPositions {
    pub write_lsn: Lsn,
    pub flush_lsn: Lsn,
    pub source_lsn: Lsn,
    pub spool_bytes: u64,
    /// Over the last minute; None before there is one to speak of.
    pub replay_bytes_per_second: Option<u64>,
    pub source_bytes_per_second: Option<u64>,
    /// What the copy is held to while the source keeps too much WAL.
    pub wal_max_rate: Option<u64>,
    pub retries: u64,
}

pub async fn load(client: &Client, migration: &str) -> Result<Option<Sentinel>> {
    let row = client
        .query_opt(
            "select phase, interrupted_phase, follow, apply, plugin, slot_name, source_identity,
                    startpos, endpos, replay_lsn, last_error, cutover, way_back, is_way_back
               from pgmig.sentinel where migration = $1",
            &[&migration],
        )
        .await
        .on_target(|| format!("read the sentinel of migration `{migration}`"))?;
    let Some(row) = row else { return Ok(None) };
    let phase: String = row.get(0);
    let interrupted: Option<String> = row.get(1);
    let paused = phase == "paused";
    let at = if paused || phase == "failed" { interrupted.unwrap_or_else(|| "planned".into()) } else { phase };
    Ok(Some(Sentinel {
        phase: at
            .parse()
            .map_err(|cause| Error::bug("the sentinel has an unknown phase").cause(Box::new(cause) as Box<_>))?,
        paused,
        follow: row.get(2),
        apply: row.get(3),
        plugin: row.get(4),
        slot_name: row.get(5),
        source_identity: row.get(6),
        startpos: row.get(7),
        endpos: row.get(8),
        replay_lsn: row.get(9),
        last_error: row.get(10),
        cutover: cutover::State::parse(row.get(11)),
        way_back: row.get::<_, Option<&str>>(12).map(|is| if is == "open" { WayBack::Open } else { WayBack::Taken }),
        is_way_back: row.get(13),
    }))
}

/// Names of the migrations in this database.
pub async fn migrations(client: &Client) -> Result<Vec<String>> {
    let rows = client
        .query("select migration from pgmig.sentinel order by migration", &[])
        .await
        .on_target(|| "list the migrations".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Takes the lock that keeps a second run away; it is held until the session ends. False if another
/// run has it.
pub async fn lock(client: &Client, migration: &str) -> Result<bool> {
    let row = client
        .query_one(
            "select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('pgmig ' || $1, 0))",
            &[&migration],
        )
        .await
        .on_target(|| format!("lock migration `{migration}`"))?;
    Ok(row.get(0))
}

/// Makes this session the only one that applies: ends one that a lost connection has left behind, and
/// whatever that one could still commit is committed when this returns.
pub async fn apply_alone(client: &Client, migration: &str) -> Result<()> {
    let doing = || format!("lock apply of migration `{migration}`");
    client
        .execute(
            "select pg_catalog.pg_terminate_backend(l.pid, 5000)
               from pg_catalog.pg_locks l, pg_catalog.hashtextextended('pgmig apply ' || $1, 0) as k (key)
              where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
                and (l.classid::int8 << 32 | l.objid::int8) = k.key",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    client
        .execute(
            "select pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('pgmig apply ' || $1, 0))",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    Ok(())
}

/// Counts a process as one that copies beside the run, for as long as this session lasts.
pub async fn count_in(client: &Client, migration: &str) -> Result<()> {
    client
        .execute(
            "select pg_catalog.pg_advisory_lock_shared(pg_catalog.hashtextextended('pgmig join ' || $1, 0))",
            &[&migration],
        )
        .await
        .on_target(|| format!("join migration `{migration}`"))?;
    Ok(())
}

/// Gives the lock back before the session ends.
pub async fn unlock(client: &Client, migration: &str) -> Result<()> {
    client
        .query_one(
            "select pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended('pgmig ' || $1, 0))",
            &[&migration],
        )
        .await
        .on_target(|| format!("unlock migration `{migration}`"))?;
    Ok(())
}

pub async fn begin(client: &Client, begin: &Begin<'_>) -> Result<()> {
    client
        .execute(
            "insert into pgmig.sentinel (migration, follow, plugin, slot_name, source_identity, endpos)
             values ($1, $2, $3, $4, $5, $6)",
            &[&begin.migration, &begin.follow, &begin.plugin, &begin.slot_name, &begin.source_identity, &begin.endpos],
        )
        .await
        .on_target(|| format!("begin migration `{}`", begin.migration))?;
    event(client, begin.migration, "info", "migration begun").await
}

pub async fn remove(client: &Client, migration: &str) -> Result<()> {
    client
        .execute("delete from pgmig.sentinel where migration = $1", &[&migration])
        .await
        .on_target(|| format!("remove migration `{migration}`"))?;
    Ok(())
}

pub async fn set_startpos(client: &Client, migration: &str, startpos: Lsn) -> Result<()> {
    client
        .execute("update pgmig.sentinel set startpos = $2 where migration = $1", &[&migration, &startpos])
        .await
        .on_target(|| "store startpos".into())?;
    Ok(())
}

/// Moves `replay_lsn` over changes that are lost, and that the copies to come hold.
pub async fn pass_over(client: &Client, migration: &str, lsn: Lsn) -> Result<()> {
    client
        .execute("update pgmig.sentinel set replay_lsn = $2 where migration = $1", &[&migration, &lsn])
        .await
        .on_target(|| "pass over changes that are lost".into())?;
    event(client, migration, "warn", &format!("changes up to {lsn} were lost: every table is copied again")).await
}

/// Says under which snapshot Parts are read, or that none are read any more. Sessions that read under another
/// one cannot mark a Part done from here on.
pub async fn set_exported(client: &Client, migration: &str, exported: Option<(&str, Lsn)>) -> Result<()> {
    let (snapshot, lsn) = exported.unzip();
    client
        .execute(
            "update pgmig.sentinel set exported_snapshot = $2, exported_lsn = $3 where migration = $1",
            &[&migration, &snapshot, &lsn],
        )
        .await
        .on_target(|| "store the name of the snapshot".into())?;
    Ok(())
}

/// The snapshot that Parts are read under now.
pub async fn exported(client: &Client, migration: &str) -> Result<Option<(String, Lsn)>> {
    let row = client
        .query_opt("select exported_snapshot, exported_lsn from pgmig.sentinel where migration = $1", &[&migration])
        .await
        .on_target(|| "read the name of the snapshot".into())?;
    Ok(row.and_then(|row| row.get::<_, Option<String>>(0).zip(row.get::<_, Option<Lsn>>(1))))
}

/// Whether Parts are still read under this snapshot; it stays so until the transaction ends.
pub async fn is_exported(client: &Client, migration: &str, snapshot: &str) -> Result<bool> {
    let row = client
        .query_opt(
            "select from pgmig.sentinel where migration = $1 and exported_snapshot = $2 for share",
            &[&migration, &snapshot],
        )
        .await
        .on_target(|| "look whether the snapshot is still that of the copy".into())?;
    Ok(row.is_some())
}

/// Moves to a phase, marking the copy's begin and end and the end of all. While apply is switched off,
/// which may be since the copy, the phases that would apply are paused.
pub async fn set_phase(client: &Client, migration: &str, phase: Phase) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel
                set phase = case when not apply and $2 in ('catchup', 'follow') then 'paused' else $2 end,
                    interrupted_phase = case when not apply and $2 in ('catchup', 'follow') then $2 end,
                    last_error = null,
                    copy_started_at = case when $2 = 'copy' then coalesce(copy_started_at, now()) else copy_started_at end,
                    copy_finished_at = case when $2 = 'indexes' then coalesce(copy_finished_at, now()) else copy_finished_at end,
                    done_at = case when $2 = 'done' then now() end
              where migration = $1",
            &[&migration, &phase.as_str()],
        )
        .await
        .on_target(|| format!("enter phase {phase}"))?;
    event(client, migration, "info", &format!("phase {phase}")).await
}

/// Closes the door behind a reached endpos: from here on it cannot be moved. False if it has been
/// moved in the meantime.
pub async fn enter_cutover(client: &Client, migration: &str, endpos: Lsn) -> Result<bool> {
    crash::before(crash::CUTOVER);
    let moved = client
        .execute(
            "update pgmig.sentinel set phase = 'cutover', interrupted_phase = null
              where migration = $1 and endpos = $2 and apply",
            &[&migration, &endpos],
        )
        .await
        .on_target(|| "enter phase cutover".into())?;
    crash::after(crash::CUTOVER);
    if moved == 1 {
        event(client, migration, "info", &format!("endpos {endpos} reached")).await?;
    }
    Ok(moved == 1)
}

/// Records what stopped the run; the phase it interrupts is kept.
pub async fn fail(client: &Client, migration: &str, message: &str) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel
                set interrupted_phase = case when phase in ('failed', 'paused') then interrupted_phase else phase end,
                    phase = 'failed', last_error = $2
              where migration = $1 and phase <> 'done'",
            &[&migration, &message],
        )
        .await
        .on_target(|| "record the error".into())?;
    event(client, migration, "error", message).await
}

pub async fn set_stream(client: &Client, migration: &str, at: &StreamPositions) -> Result<Option<f64>> {
    let row = client
        .query_opt(
            "update pgmig.sentinel
                set write_lsn = $2, flush_lsn = $3, source_lsn = $4, spool_bytes = $5, stream_at = clock_timestamp(),
                    replay_bytes_per_second = $6, source_bytes_per_second = $7, wal_max_rate = $8, retries = $9
              where migration = $1
          returning case when spool_bytes = 0 then 0
                         else extract(epoch from stream_at - coalesce(replay_commit_at, copy_started_at))::float8 end",
            &[
                &migration,
                &at.write_lsn,
                &at.flush_lsn,
                &at.source_lsn,
                &(at.spool_bytes as i64),
                &at.replay_bytes_per_second.map(|rate| rate as i64),
                &at.source_bytes_per_second.map(|rate| rate as i64),
                &at.wal_max_rate.map(|rate| rate.max(1) as i64),
                &(at.retries as i64),
            ],
        )
        .await
        .on_target(|| "store the positions of the stream".into())?;
    Ok(row.and_then(|row| row.get(0)))
}

/// How a run is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Once the Parts and the Batch in hand are committed.
    Border,
    Now,
}

/// Records that the run was stopped, and ends those of its sessions that are at a Part or a step.
pub async fn stopped(client: &Client, migration: &str) -> Result<()> {
    let doing = || "record that the run was stopped".to_string();
    client
        .execute("update pgmig.sentinel set stop = null where migration = $1", &[&migration])
        .await
        .on_target(doing)?;
    event(client, migration, "info", "stopped").await?;
    client
        .execute(
            "select pg_catalog.pg_terminate_backend(pid)
               from (select pid from pgmig.parts where migration = $1 and pid is not null
                     union select pid from pgmig.steps where migration = $1 and pid is not null) sessions",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    Ok(())
}

/// Calls one of the functions that people call, and says no as it does.
pub(super) async fn call(
    client: &Client,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    doing: &str,
) -> Result<()> {
    client.execute(sql, values).await.map_err(|cause| {
        let hint = cause.as_db_error().and_then(|db| db.hint()).map(str::to_string);
        let error = Error::new(Exit::Phase, format!("cannot {doing}")).cause(cause);
        error.hint(hint.unwrap_or_else(|| "see where it is: pgmig status".into()))
    })?;
    Ok(())
}

pub async fn switch_apply(client: &Client, migration: &str, on: bool) -> Result<()> {
    let (function, doing) = if on { ("resume", "resume") } else { ("pause", "pause") };
    let sql = format!("select pgmig.{function}($1)");
    call(client, &sql, &[&migration], &format!("{doing} migration `{migration}`")).await
}

pub async fn stop(client: &Client, migration: &str, stop: Stop) -> Result<()> {
    let sql = "select pgmig.stop(now => $1, migration => $2)";
    call(client, sql, &[&(stop == Stop::Now), &migration], &format!("stop migration `{migration}`")).await
}

/// The session that holds the lock of a run, and where it comes from; None if no run is alive.
pub async fn runner(client: &Client, migration: &str) -> Result<Option<(i32, String)>> {
    let row = client
        .query_opt(
            "select a.pid, coalesce(host(a.client_addr), 'the server''s own machine')
               from pg_catalog.pg_locks l
                    join pg_catalog.pg_stat_activity a on a.pid = l.pid
              where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                and ((l.classid::int8 << 32) | l.objid::int8) = hashtextextended('pgmig ' || $1, 0)
              limit 1",
            &[&migration],
        )
        .await
        .on_target(|| format!("look for the run of migration `{migration}`"))?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Ends the sessions of a run that does not answer: those of pgmig that come from where its lock does.
pub async fn end_sessions(client: &Client, pid: i32) -> Result<i64> {
    let row = client
        .query_one(
            "select count(*) filter (where pg_catalog.pg_terminate_backend(a.pid))
               from pg_catalog.pg_stat_activity a
                    join pg_catalog.pg_stat_activity run on run.pid = $1
              where a.pid <> pg_backend_pid() and a.datname = run.datname and a.usesysid = run.usesysid
                and a.client_addr is not distinct from run.client_addr
                and a.application_name ~ '^pgmig (run|control|monitor|apply|copy|index|schema|part [0-9]+|step [0-9]+)$'",
            &[&pid],
        )
        .await
        .on_target(|| "end the sessions of the run".into())?;
    Ok(row.get(0))
}

pub async fn event(client: &Client, migration: &str, level: &str, message: &str) -> Result<()> {
    client
        .execute(
            "insert into pgmig.event (migration, level, message) values ($1, $2, $3)",
            &[&migration, &level, &message],
        )
        .await
        .on_target(|| "record an event".into())?;
    Ok(())
}

/// Sets endpos by the same function a person calls; returns what it says.
pub async fn set_endpos(client: &Client, migration: &str, endpos: Option<Lsn>) -> Result<()> {
    client.execute("select pgmig.set_endpos($1, $2)", &[&endpos, &migration]).await.map_err(|cause| {
        let behind = cause.code().is_some_and(|code| code.code() == "22023");
        let hint = cause.as_db_error().and_then(|db| db.hint()).map(str::to_string);
        let exit = if behind { Exit::Usage } else { Exit::Phase };
        let error = Error::new(exit, format!("cannot set endpos of migration `{migration}`")).cause(cause);
        error.hint(hint.unwrap_or_else(|| "see where it is: pgmig status".into()))
    })?;
    Ok(())
}
