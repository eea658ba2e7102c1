//! The receiver: takes the stream as fast as it comes, writes it to the spool, and tells the source
//! what is durable. It never waits for apply; only a full spool holds it back, and then it still
//! answers the source.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Decoder;
use super::assemble::{Assembler, Frame};
use super::spool::{Spool, SpoolWriter};
use crate::crash;
use crate::error::{Context, Error, Exit, Network, Result};
use crate::model::Lsn;
use crate::source::replication::{Message, ReplicationClient};

/// How long what was received may wait to be made durable.
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// How often the source hears from us when there is nothing new to say. Well below the server's
/// default wal_sender_timeout of 60 s.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// Reads that follow each other faster than this are one stream: a rest before each lets the server gather
/// many messages.
const BUSY: Duration = Duration::from_millis(5);

/// How far the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Every transaction whose commit ends at or before this is in the spool.
    pub write_lsn: Lsn,
    /// The same, on disk.
    pub flush_lsn: Lsn,
}

/// A stream that has been started, and what reads it.
pub struct Link {
    pub client: ReplicationClient,
    pub decoder: Box<dyn Decoder>,
}

/// How a stream ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    /// Let go of while the spool is full, so that the source is not held up.
    LetGo,
}

/// Everything the receiver is made of, but the stream.
pub struct Receiver {
    pub writer: SpoolWriter,
    pub spool: Spool,
    /// Bytes on disk at which it stops reading.
    pub spool_limit: u64,
    pub received: watch::Sender<Received>,
    /// Whether the spool is full and nothing is read.
    pub held: Arc<AtomicBool>,
    /// Whether to let go of the stream for as long as that lasts.
    pub let_go: Arc<AtomicBool>,
    /// What is committed on the target, for the source's view of us.
    pub replay_lsn: watch::Receiver<Lsn>,
}

struct Syncing {
    task: JoinHandle<std::io::Result<()>>,
    covers: Lsn,
}

impl Receiver {
    /// Receives until `stop` turns true, then makes all durable and says so to the source.
    ///
    /// # Errors
    /// The stream broke off, or the disk failed. After the former, `take_back` and another link.
    pub async fn run(&mut self, mut link: Link, stop: &mut watch::Receiver<bool>) -> Result<Ended> {
        let mut into = Assembler::default();
        let mut syncing: Option<Syncing> = None;
        // What an earlier link brought may not be durable yet.
        let mut dirty = true;
        let mut last_status = Instant::now();
        let mut last_read: Option<Instant> = None;
        let mut ticks = tokio::time::interval(SYNC_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut full = self.held.load(Ordering::Relaxed);
        while !*stop.borrow_and_update() {
            let mut answer = false;
            tokio::select! {
                filled = fill(&mut link.client, last_read.is_some_and(|at| at.elapsed() < BUSY)), if !full => {
                    filled?;
                    last_read = Some(Instant::now());
                    answer = self.drain(&mut link, &mut into, &mut dirty)?;
                    if answer && !into.in_transaction() {
                        // A server that shuts down waits until all that it sent is durable here.
                        let at = self.received.borrow().write_lsn;
                        dirty |= self.mark(at)?;
                    }
                }
                _ = ticks.tick() => {
                    full = self.is_full(full);
                    self.held.store(full, Ordering::Relaxed);
                    if full && self.let_go.load(Ordering::Relaxed) {
                        return Ok(Ended::LetGo);
                    }
                }
                _ = stop.changed() => {}
            }
            if let Some(sync) = syncing.take_if(|sync| sync.task.is_finished()) {
                self.synced(sync).await?;
                answer = true;
            }
            let at = *self.received.borrow();
            if syncing.is_none() {
                if last_status.elapsed() >= STATUS_EVERY && !into.in_transaction() {
                    dirty |= self.mark(at.write_lsn)?;
                }
                if dirty {
                    syncing = Some(start_sync(self.writer.file(), self.writer.provable()));
                    dirty = false;
                }
            }
            if answer || last_status.elapsed() >= STATUS_EVERY {
                self.status(&mut link.client).await?;
                last_status = Instant::now();
            }
        }
        if let Some(sync) = syncing {
            self.synced(sync).await?;
        }
        if !into.in_transaction() {
            let at = self.received.borrow().write_lsn;
            self.mark(at)?;
        }
        self.synced(start_sync(self.writer.file(), self.writer.provable())).await?;
        self.status(&mut link.client).await?;
        // The last word was said; how the connection ends does not matter any more.
        let _ = tokio::time::timeout(Duration::from_secs(2), link.client.stop()).await;
        Ok(Ended::Stopped)
    }

    /// After a stream has broken off: forgets the transaction that it was in, and says behind which
    /// position another stream goes on.
    ///
    /// # Errors
    /// The disk failed.
    pub fn take_back(&mut self) -> Result<Lsn> {
        self.writer.take_back().during(Exit::Dir, || "write the spool".into()).map_err(make_room)?;
        // Of what came with the last read, whole transactions may be in the spool that were not told yet.
        let whole = self.writer.provable();
        self.received.send_modify(|at| at.write_lsn = at.write_lsn.max(whole));
        Ok(self.received.borrow().write_lsn)
    }

    /// Waits until the spool has room again.
    pub async fn room(&self) {
        while self.is_full(true) {
            tokio::time::sleep(SYNC_EVERY).await;
        }
        self.held.store(false, Ordering::Relaxed);
    }

    /// Takes every message that is in the buffer. True if the source asked for an answer.
    fn drain(&mut self, link: &mut Link, into: &mut Assembler, dirty: &mut bool) -> Result<bool> {
        let mut answer = false;
        while let Some(message) = link.client.poll_message()? {
            match message {
                Message::XLogData(data) => {
                    link.decoder.decode(data.wal_start, data.data, into).on_source(|| "decode the stream".into())?;
                }
                Message::Keepalive(keepalive) => {
                    into.keepalive(keepalive.wal_end);
                    answer |= keepalive.reply_requested;
                }
                Message::CopyDone => {
                    let shut_down =
                        std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "it may be shutting down");
                    return Err(Error::new(Exit::Source, "the source has ended the stream").cause(Network(shut_down)));
                }
            }
            if let Some(frame) = into.take(false) {
                self.append(&frame)?;
                into.reuse(frame);
                *dirty = true;
            }
        }
        if let Some(frame) = into.take(true) {
            self.append(&frame)?;
            into.reuse(frame);
            *dirty = true;
        }
        // Told only now: all of it is in the spool.
        let write_lsn = into.spooled();
        self.received.send_if_modified(|at| {
            let moved = write_lsn > at.write_lsn;
            at.write_lsn = at.write_lsn.max(write_lsn);
            moved
        });
        Ok(answer)
    }

    /// Leaves a mark in the spool of how far keepalives have come, so that the source is never told
    /// more than a restart can prove. False if there was nothing to say.
    fn mark(&mut self, write_lsn: Lsn) -> Result<bool> {
        let news = write_lsn > self.writer.provable();
        if news {
            self.append(&Frame { body: Vec::new(), boundary: true, end_lsn: write_lsn })?;
        }
        Ok(news)
    }

    fn append(&mut self, frame: &Frame) -> Result<()> {
        crash::before(crash::FRAME);
        self.writer.append(frame).during(Exit::Dir, || "write the spool".into()).map_err(make_room)?;
        crash::after(crash::FRAME);
        Ok(())
    }

    /// Whether the spool is at its cap; with some slack, so that it does not flap.
    fn is_full(&self, was: bool) -> bool {
        // What apply has read of an open transaction does not count: it could never be applied if the
        // rest were not received.
        let bytes = self.spool.unread_bytes();
        let full = bytes >= if was { self.spool_limit / 10 * 9 } else { self.spool_limit };
        if full && !was {
            tracing::warn!(bytes, "the spool is full: receiving waits for apply, and WAL is kept on the source");
        }
        full
    }

    async fn synced(&mut self, sync: Syncing) -> Result<()> {
        sync.task
            .await
            .map_err(|cause| Error::bug("a sync ended abnormally").cause(cause))?
            .during(Exit::Dir, || "make the spool durable".into())?;
        crash::after(crash::SYNC);
        self.received.send_modify(|at| at.flush_lsn = at.flush_lsn.max(sync.covers));
        Ok(())
    }

    async fn status(&self, client: &mut ReplicationClient) -> Result<()> {
        let at = *self.received.borrow();
        let replay_lsn = *self.replay_lsn.borrow();
        crash::before(crash::FEEDBACK);
        client.send_status(at.write_lsn, at.flush_lsn, replay_lsn.min(at.flush_lsn), false).await?;
        crash::after(crash::FEEDBACK);
        Ok(())
    }
}

fn make_room(err: Error) -> Error {
    err.hint("free some space under --dir, then run the same command again")
}

/// Reads from the source, after a rest if it is talking all the time. Cancel-safe.
async fn fill(client: &mut ReplicationClient, rest: bool) -> Result<()> {
    if rest { client.fill_after_rest().await } else { client.fill().await }
}

/// Syncs in the background: a slow disk must not keep the source waiting for an answer. The frames
/// up to `covers` are in the file, or in older segments, synced when they were closed.
fn start_sync(file: Arc<File>, covers: Lsn) -> Syncing {
    crash::before(crash::SYNC);
    Syncing { task: tokio::task::spawn_blocking(move || file.sync_data()), covers }
}
