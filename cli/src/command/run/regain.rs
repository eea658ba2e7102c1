//! A run that loses a session that it cannot do without: opens its sessions again and goes on from the
//! sentinel, as another run would, with what is not lost: the stream, and the snapshot of the copy.

use std::time::Duration;

use tokio_postgres::Client;

use super::stream::Streaming;
use super::{Run, Summary, upstream};
use crate::error::{Error, Exit, Result};
use crate::model::{Lsn, Phase};
use crate::patience::Losses;
use crate::source::snapshot::{self, SnapshotHolder};
use crate::target::{queue, sentinel};

/// How often the session that holds the lock of the migration is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After so many looks it is asked, which also keeps a firewall from forgetting it.
const ASK_EVERY: u32 = 60;
/// How long a session may take to show that it is there.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);

/// What outlives the loss of other sessions.
#[derive(Default)]
pub(super) struct Kept {
    /// Receives on, whatever happens on the target.
    pub streaming: Option<Streaming>,
    pub holder: Option<SnapshotHolder>,
}

/// How far a run is: two losses at the same stage have nothing between them.
type Stage = Option<(Phase, Option<Lsn>, i64)>;

impl Run {
    /// Goes through the phases, again after each loss.
    pub(super) async fn go_on(&mut self) -> Result<Summary> {
        let mut kept = Kept::default();
        let mut losses = Losses::<Stage>::default();
        loop {
            let done = tokio::select! {
                done = self.go(&mut kept) => done,
                lost = self.lost_lock() => Err(lost),
            };
            let lost = match done {
                Err(err) if err.connection_lost() || snapshot::is_gone(&err) => err,
                done => return done,
            };
            let mut stopping = self.control.stopping.clone();
            tracing::debug!(error = %lost.chain(), "sessions are opened again");
            let counted = Error::new(lost.exit(), lost.chain());
            let stage = tokio::select! {
                stage = self.regain(lost, &mut kept) => stage?,
                Ok(_) = stopping.wait_for(|stopping| *stopping) => return Err(Error::stopped()),
            };
            losses.note(stage, counted)?;
        }
    }

    /// The loss of the session that keeps other runs away.
    async fn lost_lock(&self) -> Error {
        for looks in 1.. {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.target.is_closed() {
                if looks % ASK_EVERY != 0 {
                    continue;
                }
                match self.target.simple_query("").await {
                    Err(err) if err.as_db_error().is_none() => {}
                    _ => continue,
                }
            }
            break;
        }
        let closed = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "it was closed");
        Error::new(Exit::Target, "the session that holds the lock of the migration").cause(closed)
    }

    /// Opens the run's own sessions again, and finds out what is left of the others.
    async fn regain(&mut self, lost: Error, kept: &mut Kept) -> Result<Stage> {
        let snapshot_gone = snapshot::is_gone(&lost);
        // All that is asked of the new sessions is asked there: they may be lost at once, too.
        let (target, target_pid, source, stage) = self.patience.again(lost, || self.sessions()).await?;
        (self.target, self.target_pid, self.source) = (target, target_pid, source);
        kept.streaming.take_if(|streaming| streaming.dead);
        if let Some(holder) = &kept.holder
            && (snapshot_gone || !is_alive(&holder.client).await)
        {
            self.report.info("the snapshot of the copy ended with its session: what is left is copied under a new one");
            kept.holder = None;
        }
        Ok(stage)
    }

    async fn sessions(&self) -> Result<(Client, i32, Client, Stage)> {
        let name = &self.config.name;
        let target = self.target_client("pgmig run", &[]).await?;
        // The server may not have noticed that its connection is broken, and the lock is its.
        queue::end_session(&target, self.target_pid).await?;
        if !sentinel::lock(&target, name).await? {
            return Err(Error::new(Exit::Phase, format!("another pgmig has taken over migration `{name}`"))
                .hint("see it with `pgmig status`"));
        }
        let found = sentinel::load(&target, name).await?;
        let Some(found) = found else {
            return Err(Error::new(Exit::Phase, format!("migration `{name}` was removed while it ran")));
        };
        let target_pid = queue::session_pid(&target).await?;
        let left = queue::parts_left(&target, name).await?;
        let source = upstream::client(&self.config.source, &found.source_identity, "pgmig run").await?;
        Ok((target, target_pid, source, Some((found.phase, found.replay_lsn, left))))
    }
}

async fn is_alive(client: &Client) -> bool {
    matches!(tokio::time::timeout(ALIVE_WITHIN, client.simple_query("select 1")).await, Ok(Ok(_)))
}
