//! The way to the slot: opens the stream where we stopped, first of all and again after a loss, only if
//! slot and source are still what they were. Each time it looks as closely as a run that begins.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::Client;

use super::budget::{self, BEGIN_AGAIN, COPY_AGAIN};
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, NotYet, Result};
use crate::model::Lsn;
use crate::patience::{Losses, Patience};
use crate::source::replication::ReplicationClient;
use crate::source::slot::RECEIVER;
use crate::source::{checks, slot};
use crate::stream::DecodeError;
use crate::stream::pgoutput::PgOutput;
use crate::stream::receive::{Ended, Link, Receiver};
use crate::stream::wal2json::Wal2Json;
use crate::target::sentinel::Sentinel;

/// How long a slot may still be held by the session of a run that was killed, and after which time a
/// session that does not end by itself is ended.
const SLOT_FREE_WITHIN: Duration = Duration::from_secs(15);
const ENDS_BY_ITSELF_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Upstream {
    pub source: Conninfo,
    pub source_identity: String,
    pub migration: String,
    pub slot_name: String,
    pub plugin: String,
    /// Types whose values may come in binary; None if all come as text.
    pub binary: Option<HashSet<u32>>,
    /// Whether the source tells its DDL.
    pub messages: bool,
    pub patience: Patience,
}

impl Upstream {
    pub fn new(
        source: &Conninfo,
        migration: &str,
        found: &Sentinel,
        binary: Option<HashSet<u32>>,
        patience: &Patience,
    ) -> Upstream {
        Upstream {
            source: source.clone(),
            source_identity: found.source_identity.clone(),
            migration: migration.to_string(),
            slot_name: found.slot_name.clone(),
            plugin: found.plugin.clone(),
            binary,
            messages: false,
            patience: patience.clone(),
        }
    }

    /// Receives until `stop` turns true. A stream that breaks off is begun again behind the last whole
    /// transaction.
    pub async fn receive(
        mut self,
        mut receiver: Receiver,
        mut link: Link,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut losses = Losses::default();
        loop {
            let pid = link.client.backend_pid();
            let ended = receiver.run(link, &mut stop).await;
            let lost = match ended {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::LetGo) => None,
                Err(err) if err.connection_lost() => Some(err),
                Err(err) if err.find().is_some_and(|err: &DecodeError| err.text_only) => {
                    tracing::info!(why = %err.chain(), "values come as text from here on");
                    self.binary = None;
                    None
                }
                Err(err) => return Err(err),
            };
            let have = receiver.take_back()?;
            let open = || self.open_again(have, pid);
            let opening = async {
                match lost {
                    Some(lost) => self.patience.again(losses.note(have, lost)?, open).await,
                    None => {
                        receiver.room().await;
                        open().await
                    }
                }
            };
            link = tokio::select! {
                opened = opening => opened?,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
        }
    }

    async fn open_again(&self, have: Lsn, pid: i32) -> Result<Link> {
        let client = client(&self.source, &self.source_identity, RECEIVER).await?;
        // The server may not have noticed that its connection is broken.
        slot::end_reader(&client, &self.slot_name, pid).await?;
        self.open(&client, have).await
    }

    /// Opens the stream behind `have`, which is what spool and target hold.
    pub async fn open(&self, client: &Client, have: Lsn) -> Result<Link> {
        let here = slot::current_lsn(client).await?;
        if here < have {
            return Err(Error::new(
                Exit::Source,
                format!("the source is at {here}, behind {have}, up to which its changes were received"),
            )
            .hint(format!(
                "was it restored from a backup, or failed over to a standby that lagged? The target may hold what it has lost: {BEGIN_AGAIN}"
            )));
        }
        check_slot(client, &self.slot_name, have, Reader::IsOurs).await?;
        let replication = ReplicationClient::connect(&self.source, Side::Source, RECEIVER).await?;
        self.start(replication, have).await
    }

    /// Starts the stream on a session that has not had one.
    pub async fn start(&self, mut client: ReplicationClient, from: Lsn) -> Result<Link> {
        client.decode_in_memory().await?;
        if self.plugin == "pgoutput" {
            let mut decoder = PgOutput::new(self.binary.clone());
            decoder.migration.clone_from(&self.migration);
            let mut options = decoder.options(&slot::publications(&self.migration));
            if self.messages {
                options.push(("messages", "true".to_string()));
            }
            let options: Vec<(&str, &str)> = options.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.rows_as_stored().await?;
            client.start(&self.slot_name, from, &options).await?;
            return Ok(Link { client, decoder: Box::new(decoder) });
        }
        // 2.6 and later can keep NaN; older ones say that they do not know the option, and were let in
        // only because no column needs it.
        match client.start(&self.slot_name, from, &Wal2Json::options(true)).await {
            Ok(()) => {}
            Err(err) if err.sqlstate() == Some("22023") => {
                drop(client);
                let sql = connect::client(&self.source, Side::Source, RECEIVER, &[]).await?;
                check_slot(&sql, &self.slot_name, Lsn(u64::MAX), Reader::IsOurs).await?;
                client = ReplicationClient::connect(&self.source, Side::Source, RECEIVER).await?;
                client.decode_in_memory().await?;
                client.start(&self.slot_name, from, &Wal2Json::options(false)).await?;
            }
            Err(err) => return Err(err),
        }
        let mut decoder = Wal2Json::default();
        decoder.migration.clone_from(&self.migration);
        Ok(Link { client, decoder: Box::new(decoder) })
    }
}

/// A session with the source, once it is sure that it is the source.
pub(super) async fn client(source: &Conninfo, identity: &str, purpose: &str) -> Result<Client> {
    let client = connect::client(source, Side::Source, purpose, &[]).await?;
    same_source(&client, identity).await?;
    Ok(client)
}

/// What answers at the source's address must be the source, and the one that is written to.
async fn same_source(client: &Client, identity: &str) -> Result<()> {
    let (found, in_recovery) = checks::identity(client).await?;
    if found != identity {
        return Err(Error::new(Exit::Source, "another server or database answers at the address of the source")
            .hint("is its name or address given to another one now? Give that of the source"));
    }
    if in_recovery {
        return Err(Error::new(Exit::Source, "the source cannot be read")
            .cause(NotYet("what answers is a standby, and not promoted yet".into())));
    }
    Ok(())
}

/// Who may be reading the slot.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reader {
    /// The slot belongs to this migration, whose lock on the target we hold: what a run before us left
    /// there is ended.
    IsOurs,
    /// Nobody knows yet whose slot it is.
    MayBeAnother,
}

/// Refuses a slot that has let go of something that we do not hold, or that stays in use.
pub(super) async fn check_slot(client: &Client, name: &str, have: Lsn, reader: Reader) -> Result<()> {
    let began = Instant::now();
    let again = BEGIN_AGAIN;
    loop {
        let Some(slot) = slot::find(client, name).await? else {
            return Err(Error::new(Exit::Source, format!("slot `{name}` is gone from the source")).hint(again));
        };
        if slot.wal_status.as_deref() == Some("lost") {
            return Err(budget::lost(name));
        }
        if let Some(confirmed) = slot.confirmed_flush_lsn
            && confirmed > have
        {
            return Err(Error::new(
                Exit::Source,
                format!(
                    "slot `{name}` is confirmed up to {confirmed}, but spool and target hold changes up to {have} only"
                ),
            )
            .hint(format!(
                "was --dir changed or emptied, or the target restored from a backup? Put it back; else {COPY_AGAIN}"
            )));
        }
        match slot.active_pid {
            None => return Ok(()),
            Some(pid) if began.elapsed() > SLOT_FREE_WITHIN => {
                return Err(Error::new(Exit::Source, format!("slot `{name}` is in use by pid {pid} of the source"))
                    .hint("stop what reads it; a session of a pgmig that was killed ends by itself"));
            }
            Some(_) => {
                if reader == Reader::IsOurs && began.elapsed() > ENDS_BY_ITSELF_WITHIN {
                    slot::end_left_over(client, name).await?;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
