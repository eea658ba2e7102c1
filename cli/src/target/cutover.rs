//! The record of a cutover on the target: which steps were begun, what undoes them, and whether endpos is
//! held. Whoever cuts over and the run that applies changes speak through these rows only.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;

use super::sentinel;
use crate::error::{Context, Error, Exit, Result};
use crate::model::Lsn;

/// What the sentinel says of a cutover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Asked for in SQL: the run does it.
    Requested,
    /// Endpos is held until it is done or undone.
    Running,
    /// Endpos is held until snapshots of both sides are open.
    Verifying,
}

impl State {
    /// Whether a run that has reached endpos waits there.
    pub fn holds(self) -> bool {
        self != State::Requested
    }
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Requested => "requested",
            State::Running => "running",
            State::Verifying => "verifying",
        }
    }
    pub fn parse(text: Option<&str>) -> Option<State> {
        match text {
            Some("requested") => Some(State::Requested),
            Some("running") => Some(State::Running),
            Some("verifying") => Some(State::Verifying),
            _ => None,
        }
    }
}

/// A step as it is recorded.
#[derive(Debug, Clone)]
pub struct Record {
    pub position: i32,
    pub step: String,
    pub state: String,
    pub detail: Value,
    pub seconds: f64,
}

/// Takes the lock that keeps a second cutover away; it is held until the session ends.
pub async fn lock(client: &Client, migration: &str) -> Result<bool> {
    sentinel::lock(client, &format!("cutover {migration}")).await
}

/// Gives the lock back before the session ends.
pub async fn unlock(client: &Client, migration: &str) -> Result<()> {
    sentinel::unlock(client, &format!("cutover {migration}")).await
}

/// Begins a try: from here on a run that reaches endpos waits there. Its number.
pub async fn begin(client: &Client, migration: &str) -> Result<i32> {
    let doing = || format!("begin the cutover of migration `{migration}`");
    let begun = client
        .execute(
            "update pgmig.sentinel set cutover = 'running', held_lsn = null
              where migration = $1 and phase = 'follow' and apply and endpos is null
                and cutover is distinct from 'verifying'",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    if begun == 0 {
        return Err(Error::new(Exit::Phase, format!("migration `{migration}` cannot be cut over now"))
            .hint("it must be in phase follow, apply must not be paused, and endpos must not be set (select pgmig.set_endpos(null)); see pgmig status"));
    }
    let row = client
        .query_one("select coalesce(max(attempt), 0) + 1 from pgmig.cutover_step where migration = $1", &[&migration])
        .await
        .on_target(doing)?;
    Ok(row.get(0))
}

/// The steps of the last try that are not undone, first to last.
pub async fn steps(client: &Client, migration: &str) -> Result<(i32, Vec<Record>)> {
    let rows = client
        .query(
            "select attempt, position, step, state, detail,
                    extract(epoch from coalesce(finished_at, clock_timestamp()) - started_at)::float8
               from pgmig.cutover_step c
              where migration = $1 and state <> 'undone'
                and attempt = (select max(attempt) from pgmig.cutover_step l where l.migration = $1)
              order by position",
            &[&migration],
        )
        .await
        .on_target(|| "read the steps of the cutover".into())?;
    let attempt = rows.first().map_or(0, |row| row.get(0));
    let record = |row: &tokio_postgres::Row| Record {
        position: row.get(1),
        step: row.get(2),
        state: row.get(3),
        detail: row.get(4),
        seconds: row.get(5),
    };
    Ok((attempt, rows.iter().map(record).collect()))
}

/// Records that a step begins, with what undoes it.
pub async fn start(client: &Client, migration: &str, attempt: i32, position: i32, step: &str) -> Result<()> {
    client
        .execute(
            "insert into pgmig.cutover_step (migration, attempt, position, step) values ($1, $2, $3, $4)
             on conflict (migration, attempt, position) do nothing",
            &[&migration, &attempt, &position, &step],
        )
        .await
        .on_target(|| format!("record step {step} of the cutover"))?;
    Ok(())
}

/// Keeps what undoes a step, before it is done.
pub async fn keep(client: &Client, migration: &str, attempt: i32, position: i32, detail: &Value) -> Result<()> {
    client
        .execute(
            "update pgmig.cutover_step set detail = $4 where migration = $1 and attempt = $2 and position = $3",
            &[&migration, &attempt, &position, detail],
        )
        .await
        .on_target(|| "record what undoes a step of the cutover".into())?;
    Ok(())
}

pub async fn finish(
    client: &Client,
    migration: &str,
    attempt: i32,
    position: i32,
    state: &str,
    message: &str,
) -> Result<()> {
    client
        .execute(
            "update pgmig.cutover_step
                set state = $4, message = case when $5 = '' then message else $5 end,
                    finished_at = case when $4 = 'undone' then finished_at else clock_timestamp() end
              where migration = $1 and attempt = $2 and position = $3",
            &[&migration, &attempt, &position, &state, &message],
        )
        .await
        .on_target(|| "record a step of the cutover".into())?;
    Ok(())
}

/// How long it took from the begin of the first step at or behind this position to the end of the last one.
pub async fn took(client: &Client, migration: &str, attempt: i32, position: i32) -> Result<Duration> {
    let row = client
        .query_one(
            "select coalesce(extract(epoch from max(finished_at) - min(started_at)), 0)::float8
               from pgmig.cutover_step
              where migration = $1 and attempt = $2 and position >= $3",
            &[&migration, &attempt, &position],
        )
        .await
        .on_target(|| "read how long the cutover took".into())?;
    Ok(Duration::from_secs_f64(row.get::<_, f64>(0).max(0.0)))
}

/// A run goes on behind endpos, unless a cutover has been undone since it looked.
pub async fn go_on(client: &Client, migration: &str) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel set phase = 'cutover', interrupted_phase = null, last_error = null
              where migration = $1 and coalesce(interrupted_phase, phase) = 'cutover'",
            &[&migration],
        )
        .await
        .on_target(|| "enter phase cutover again".into())?;
    Ok(())
}

/// Opens endpos again: the run goes on following.
pub async fn reopen(client: &Client, migration: &str) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel
                set endpos = null, cutover = null, held_lsn = null,
                    last_error = case when phase = 'cutover' then null else last_error end,
                    phase = case phase when 'cutover' then 'follow' else phase end,
                    interrupted_phase = case interrupted_phase when 'cutover' then 'follow' else interrupted_phase end
              where migration = $1 and phase <> 'done'",
            &[&migration],
        )
        .await
        .on_target(|| "open endpos again".into())?;
    sentinel::event(client, migration, "warn", "cutover undone").await
}

/// Holds apply at a position, to compare; `within`: as a part of a cutover.
pub async fn hold(client: &Client, migration: &str, lsn: Lsn, within: Option<State>) -> Result<()> {
    let held = client
        .execute(
            "update pgmig.sentinel set cutover = 'verifying', endpos = $2, held_lsn = null
              where migration = $1 and phase = 'follow' and apply and endpos is null
                and cutover is not distinct from $3",
            &[&migration, &lsn, &within.map(State::as_str)],
        )
        .await
        .on_target(|| "hold apply".into())?;
    if held == 1 {
        return Ok(());
    }
    Err(Error::new(Exit::Phase, format!("migration `{migration}` cannot be compared now")).hint(
        "it must be in phase follow or done, apply must not be paused, and endpos must not be set; see pgmig status",
    ))
}

/// Lets apply, which is held, go on to a position and holds it there.
pub async fn hold_on(client: &Client, migration: &str, lsn: Lsn) -> Result<()> {
    let moved = client
        .execute(
            "update pgmig.sentinel set phase = 'follow', endpos = $2, held_lsn = null
              where migration = $1 and phase = 'cutover' and cutover = 'verifying'",
            &[&migration, &lsn],
        )
        .await
        .on_target(|| "hold apply".into())?;
    if moved == 1 { Ok(()) } else { Err(Error::new(Exit::Phase, "apply was let go by somebody else")) }
}

/// Lets apply go on after a comparison, and a cutover that it was a part of.
pub async fn release(client: &Client, migration: &str, then: Option<State>) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel
                set endpos = null, cutover = $2, held_lsn = null,
                    phase = case phase when 'cutover' then 'follow' else phase end,
                    interrupted_phase = case interrupted_phase when 'cutover' then 'follow' else interrupted_phase end
              where migration = $1 and cutover = 'verifying'",
            &[&migration, &then.map(State::as_str)],
        )
        .await
        .on_target(|| "let apply go on".into())?;
    Ok(())
}

/// Takes a request back.
pub async fn refuse(client: &Client, migration: &str) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel set cutover = null where migration = $1 and cutover = 'requested'",
            &[&migration],
        )
        .await
        .on_target(|| "take the request of a cutover back".into())?;
    Ok(())
}

/// The end of a migration that was cut over; with a way back, that is open from here on.
pub async fn done(client: &Client, migration: &str, way_back: bool) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel
                set phase = 'done', interrupted_phase = null, cutover = null, last_error = null, done_at = now(),
                    way_back = case when $2 then 'open' else way_back end
              where migration = $1",
            &[&migration, &way_back],
        )
        .await
        .on_target(|| "enter phase done".into())?;
    sentinel::event(client, migration, "info", "phase done").await
}

/// The run tells that endpos is reached and nothing was committed between it and here.
pub async fn held(client: &Client, migration: &str, lsn: Lsn) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel set held_lsn = $2 where migration = $1 and cutover in ('running', 'verifying')",
            &[&migration, &lsn],
        )
        .await
        .on_target(|| "tell that endpos is held".into())?;
    Ok(())
}

/// The run tells what was not to happen: while endpos is held, the source was written to.
pub async fn late(client: &Client, migration: &str, message: &str) -> Result<()> {
    client
        .execute(
            "update pgmig.sentinel set last_error = $2 where migration = $1 and cutover = 'running'",
            &[&migration, &message],
        )
        .await
        .on_target(|| "tell that the source was written to".into())?;
    Ok(())
}

/// How far the run has looked behind endpos, if it is there.
pub async fn held_lsn(client: &Client, migration: &str) -> Result<Option<Lsn>> {
    let row = client
        .query_opt("select held_lsn from pgmig.sentinel where migration = $1 and phase = 'cutover'", &[&migration])
        .await
        .on_target(|| "look whether endpos is reached".into())?;
    Ok(row.and_then(|row| row.get(0)))
}

/// Whether a run has told within the last seconds where it is.
pub async fn is_fresh(client: &Client, migration: &str) -> Result<bool> {
    let row = client
        .query_one(
            "select coalesce(stream_at > clock_timestamp() - interval '3 s', false) from pgmig.sentinel where migration = $1",
            &[&migration],
        )
        .await
        .on_target(|| "look whether changes are applied".into())?;
    Ok(row.get(0))
}

/// Whether every transaction up to here is applied.
pub async fn is_level(client: &Client, migration: &str, lsn: Lsn) -> Result<bool> {
    let row = client
        .query_one(
            "select coalesce(write_lsn >= $2 and spool_bytes = 0 or replay_lsn >= $2, false)
               from pgmig.sentinel where migration = $1",
            &[&migration, &lsn],
        )
        .await
        .on_target(|| "look how far changes are applied".into())?;
    Ok(row.get(0))
}

/// What would disturb apply, each with the statement that takes it away: what fires in a replica session,
/// row security, publications, event triggers.
pub async fn disturbing(client: &Client) -> Result<Vec<String>> {
    let rows = client
        .query(include_str!("../../../sql/target/disturbing.sql"), &[])
        .await
        .on_target(|| "look for what would disturb apply".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How many statements of the source were written down and not run here.
pub async fn left_ddl(client: &Client, migration: &str) -> Result<i64> {
    let row = client
        .query_one("select count(*) from pgmig.ddl where migration = $1 and state = 'left'", &[&migration])
        .await
        .on_target(|| "look for DDL that is not carried over".into())?;
    Ok(row.get(0))
}

/// Takes away what the end of the migration has made and apply cannot live with; its steps are to be done again.
pub async fn undo_finish(client: &Client, migration: &str, before: &[String]) -> Result<()> {
    let doing = || "take back what was made at the end".to_string();
    client.batch_execute("begin").await.on_target(doing)?;
    for statement in disturbing(client).await?.iter().filter(|statement| !before.contains(statement)) {
        client.batch_execute(statement).await.on_target(doing)?;
    }
    let identities = client
        .query(
            "select statement from pgmig.step
              where migration = $1 and stage = 'finish' and kind = 'IDENTITY' and state = 'done'",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    for row in &identities {
        let statement: String = row.get(0);
        if let Some(always) = statement.strip_suffix("always") {
            client.batch_execute(&format!("{always}by default")).await.on_target(doing)?;
        }
    }
    make_again(client, migration).await.on_target(doing)?;
    client.batch_execute("commit").await.on_target(doing)
}

/// Has all that the end of a migration makes made again.
pub(super) async fn make_again(client: &Client, migration: &str) -> Result<u64, tokio_postgres::Error> {
    let again = "update pgmig.step set state = 'pending', sqlstate = null, message = null
                  where migration = $1 and stage in ('finish', 'refresh')";
    client.execute(again, &[&migration]).await
}

/// Has materialized views refreshed again.
pub async fn refresh_again(client: &Client, migration: &str, names: Option<&[String]>) -> Result<()> {
    client
        .execute(
            "update pgmig.step set state = 'pending', sqlstate = null, message = null
              where migration = $1 and stage = 'refresh' and name = any(coalesce($2, array[name]))",
            &[&migration, &names],
        )
        .await
        .on_target(|| "have materialized views refreshed again".into())?;
    Ok(())
}

/// Tables without statistics, or with more than a tenth of their rows changed since.
pub async fn stale_statistics(client: &Client, migration: &str) -> Result<Vec<String>> {
    let rows = client
        .query(
            "select distinct format('%I.%I', s.schemaname, s.relname)
               from pgmig.part p
                    join pg_catalog.pg_stat_user_tables s on s.schemaname = p.schema_name and s.relname = p.table_name
                    join pg_catalog.pg_class c on c.oid = s.relid
              where p.migration = $1
                -- The counters come late: a session tells of its rows once a second at most.
                and (s.n_mod_since_analyze > 50 + 0.1 * s.n_live_tup
                     or c.reltuples < 1 and pg_catalog.pg_relation_size(c.oid) > 0)
              order by 1",
            &[&migration],
        )
        .await
        .on_target(|| "look for tables whose statistics are old".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
