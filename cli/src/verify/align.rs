//! Two snapshots that show the same, one on each side, while both are written to. Apply is held where the
//! source's snapshot was taken, for as long as it takes to open one on the target.
//!
//! ```text
//! source  ──── E ───────── L: a slot is made, and exports its snapshot ──────────►
//! apply   ────►│ held       │► goes on to L, held │ target's snapshot │────────────►
//! ```

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::literal;
use crate::model::{Lsn, Phase};
use crate::source::replication::{ReplicationClient, Snapshot};
use crate::source::slot;
use crate::source::snapshot::SnapshotHolder;
use crate::target::cutover::{self as record, State};
use crate::target::sentinel::{self, Sentinel};

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long apply is held at most; then it is let go, and the comparison is given up.
const WITHIN: Duration = Duration::from_secs(60);

/// Snapshots of both sides at one position. They live as long as this does.
pub struct Aligned {
    pub lsn: Lsn,
    /// How long apply was held; None if nothing is applied any more.
    pub pause: Option<Duration>,
    pub source: SnapshotHolder,
    pub target: Client,
    /// For `set transaction snapshot` on the target.
    pub target_exported: String,
}

/// A session that reads under an exported snapshot.
pub async fn session(conninfo: &Conninfo, side: Side, exported: &str) -> Result<Client> {
    let client = connect::client(conninfo, side, "pgmig verify", &[]).await?;
    begin(&client, side, Some(exported)).await?;
    Ok(client)
}

async fn begin(client: &Client, side: Side, exported: Option<&str>) -> Result<()> {
    let mut sql = "begin transaction isolation level repeatable read, read only".to_string();
    if let Some(exported) = exported {
        sql.push_str(&format!("; set transaction snapshot {}", literal(exported)));
    }
    client.batch_execute(&sql).await.during(side.exit(), || format!("open a snapshot on the {side}"))
}

/// Apply that is held at the position of both snapshots. It goes on when this is released, or when its session
/// ends.
pub struct Held<'a> {
    control: &'a Client,
    migration: &'a str,
    began: Instant,
    /// What the sentinel says of a cutover when apply goes on.
    then: Option<State>,
}

impl Held<'_> {
    /// Lets apply go on; how long it was held.
    pub async fn release(self) -> Result<Duration> {
        record::release(self.control, self.migration, self.then).await?;
        Ok(self.began.elapsed())
    }
}

/// A session that may hold apply. It keeps a cutover, and another comparison, away.
pub async fn control(target: &Conninfo, migration: &str) -> Result<Client> {
    let control = connect::client(target, Side::Target, "pgmig verify", &[]).await?;
    if !record::lock(&control, migration).await? {
        return Err(Error::new(Exit::Phase, format!("migration `{migration}` is being cut over or compared already"))
            .hint("wait for the end of that"));
    }
    Ok(control)
}

/// Opens both snapshots. Whatever happens, apply goes on.
pub async fn align(source: &Conninfo, target: &Conninfo, migration: &str, found: &Sentinel) -> Result<Aligned> {
    if found.phase == Phase::Done {
        return as_they_are(source, target).await;
    }
    let control = control(target, migration).await?;
    let (mut aligned, held) = hold(&control, source, target, migration, found).await?;
    aligned.pause = Some(held.release().await?);
    record::unlock(&control, migration).await?;
    Ok(aligned)
}

/// Both sides now, where nothing is applied any more or nothing is written.
pub async fn as_they_are(source: &Conninfo, target: &Conninfo) -> Result<Aligned> {
    let client = connect::client(source, Side::Source, "pgmig verify", &[]).await?;
    let holder = SnapshotHolder::new(client, None).await?;
    let (target, target_exported) = open_target(target).await?;
    Ok(Aligned { lsn: holder.lsn, pause: None, source: holder, target, target_exported })
}

/// Opens both snapshots, and holds apply on. If it fails apply goes on.
pub async fn hold<'a>(
    control: &'a Client,
    source: &Conninfo,
    target: &Conninfo,
    migration: &'a str,
    found: &Sentinel,
) -> Result<(Aligned, Held<'a>)> {
    if !record::is_fresh(control, migration).await? {
        return Err(Error::new(Exit::Phase, "no run applies changes: the two sides are at no common position")
            .hint("start one beside it: pgmig run; then compare again\none that ends where a row is missing goes on with: pgmig run --on-conflict warn"));
    }
    let lookout = connect::client(source, Side::Source, "pgmig verify", &[]).await?;
    let then = found.cutover.filter(|state| *state == State::Running);
    let held = Held { control, migration, began: Instant::now(), then };
    record::hold(control, migration, slot::current_lsn(&lookout).await?, then).await?;
    let opened = tokio::time::timeout(WITHIN, open_both(source, target, migration, found, control)).await;
    let opened = opened.unwrap_or_else(|_| {
        Err(Error::new(Exit::Phase, format!("apply was held for {} s, and no common position was found", WITHIN.as_secs()))
            .hint("a long transaction on the source may be in the way of a snapshot: see pg_stat_activity.xact_start; or apply lags: pgmig status"))
    });
    match opened {
        Ok((source, target, target_exported)) => {
            Ok((Aligned { lsn: source.lsn, pause: None, source, target, target_exported }, held))
        }
        Err(err) => {
            // What failed is told, and not that apply could not be let go: a run sees for itself that nobody holds it.
            if let Err(err) = held.release().await {
                tracing::debug!(error = %err.chain(), "apply was not let go");
            }
            Err(err)
        }
    }
}

async fn open_both(
    source: &Conninfo,
    target: &Conninfo,
    migration: &str,
    found: &Sentinel,
    control: &Client,
) -> Result<(SnapshotHolder, Client, String)> {
    held(control, migration).await?;
    // What apply has is behind us now: a snapshot that is made here is ahead of it.
    let mut replication = ReplicationClient::connect(source, Side::Source, "pgmig verify").await?;
    let name = format!("pgmig_verify_{:08x}", fastrand::u32(..));
    let created = replication.create_slot(&name, &found.plugin, true, Snapshot::Export).await?;
    let exported = created.snapshot.as_deref().map(|snapshot| (snapshot, created.consistent_point));
    let holder =
        SnapshotHolder::new(connect::client(source, Side::Source, "pgmig verify", &[]).await?, exported).await?;
    // The slot goes with its session.
    drop(replication);
    record::hold_on(control, migration, created.consistent_point).await?;
    held(control, migration).await?;
    let (target, exported) = open_target(target).await?;
    Ok((holder, target, exported))
}

async fn open_target(target: &Conninfo) -> Result<(Client, String)> {
    let client = connect::client(target, Side::Target, "pgmig verify", &[]).await?;
    begin(&client, Side::Target, None).await?;
    let row = client
        .query_one("select pg_catalog.pg_export_snapshot()", &[])
        .await
        .on_target(|| "open a snapshot on the target".into())?;
    let exported = row.get(0);
    Ok((client, exported))
}

async fn held(control: &Client, migration: &str) -> Result<()> {
    while record::held_lsn(control, migration).await?.is_none() {
        let found = sentinel::load(control, migration).await?;
        if let Some(failed) = found.and_then(|found| found.last_error) {
            return Err(Error::new(Exit::Target, format!("the run that applies changes has ended: {failed}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
