//! Apply: from the spool to the target, in commit order, exactly once.
//!
//! ```text
//! SpoolReader ─► Gatherer ─► Batch ─► Merger ─► net effect ─► Writer ─► target
//!                   whole transactions           │ a constraint is broken
//!                                                └─► source's order, one transaction at a time
//! ```
//!
//! Whole source transactions are gathered into a Batch; the Batch's rows and `replay_lsn` commit in
//! one target transaction, so a crash at any instant leaves the target at the end of some source
//! transaction, and says which. A transaction larger than a Batch is written in pieces inside one
//! target transaction. Changes that a table's snapshot tag already shows are skipped. While the target
//! writes a Batch, the next one is gathered.
//!
//! `endpos` is honoured by the target itself: `pgmig.advance` refuses to move past it under the row
//! lock that `pgmig.set_endpos` takes, so neither can slip in between check and commit.
//!
//! While there is more to apply, commits do not wait for the disk: after a crash of the target its own
//! `replay_lsn` says what is left. Segments of the spool are deleted only once a commit that did wait
//! lies behind them.

mod ahead;
pub mod batch;
pub mod born;
pub mod conflict;
pub mod ddl;
pub mod drift;
pub mod extension;
mod gather;
pub mod merge;
pub mod plain;
mod reconcile;
pub mod statements;
pub mod tags;
mod told;
mod united;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{RwLock, watch};
use tokio_postgres::Client;

use crate::connect::COMMITS_WAIT;
use crate::crash;
use crate::error::{Context, Error, Exit, Result};
use crate::model::wire::Commit;
use crate::model::{Lsn, TableName};
use crate::stream::receive::Received;
use crate::stream::spool::{Position, Spool};
use ahead::{Next, overlapped};
use batch::{Batch, Op};
use conflict::{Deciding, OnConflict, explain};
use gather::Gathered;
pub use gather::Gatherer;
use merge::Merger;
use reconcile::Pieces;
use tags::Tags;

/// SQLSTATE of `pgmig.advance` when apply is paused or endpos lies before the Batch.
const REFUSED: &str = "PGM01";
/// SQLSTATEs of other sessions' work, which pass: serialization failure, deadlock, lock not available.
const PASSING: [&str; 3] = ["40001", "40P01", "55P03"];
/// How long a refused Batch waits for a switch before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often in a row that happens before it is an error.
const REFUSALS: u32 = 60;
/// SQLSTATE of a change that finds no row.
const NO_ROW: &str = "P0002";
/// How long commits may go without waiting for the disk.
const DURABLE_EVERY: Duration = Duration::from_secs(1);

/// Writes Batches on the target.
#[expect(async_fn_in_trait, reason = "used inside this program only")]
pub trait Writer {
    /// Changes as this writer sends them; made while the target still writes those before.
    type Work: Send;
    fn work(ops: Vec<Op>) -> Self::Work;
    /// The target's tables were altered.
    fn forget(&mut self) {}

    /// Writes the changes and, if `advance` is given, moves `replay_lsn`: inside the session's open
    /// transaction, or in one of its own. Returns the rows changed. After an error an open
    /// transaction is the caller's to roll back.
    async fn write(&mut self, client: &Client, work: &Self::Work, advance: Option<&Advance>, open: bool)
    -> Result<u64>;
}

/// How far a Batch moves the migration.
#[derive(Debug, Clone)]
pub struct Advance {
    pub migration: String,
    pub commit: Commit,
    pub transactions: u64,
    /// Rows that earlier pieces of the same target transaction changed.
    pub rows_before: u64,
    /// Each transaction: how many changes there are up to its end, and its commit.
    pub ends: Vec<(usize, Commit)>,
}

impl Advance {
    /// Where the transaction of a change ends.
    fn end_of(&self, change: usize) -> Option<Lsn> {
        self.ends.iter().find(|(end, _)| change < *end).map(|(_, commit)| commit.end_lsn)
    }
}

/// What a person can turn while apply runs, as it was last read from the sentinel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    pub endpos: Option<Lsn>,
    pub apply: bool,
}

/// How far apply is; read by progress, pruning and the phases after it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Applied {
    pub replay_lsn: Lsn,
    /// What the spool holds after this is not applied.
    pub position: Position,
    /// Every transaction whose commit ends at or before this is applied.
    pub level_with: Lsn,
    pub transactions: u64,
    pub rows: u64,
}

/// Everything apply is made of.
pub struct Apply<W: Writer> {
    client: Client,
    writer: W,
    gatherer: Gatherer,
    merger: Merger,
    deciding: Deciding,
    /// Everything up to here is applied already.
    replay_lsn: Lsn,
    watched: Watched,
    /// What was gathered while the target wrote.
    ahead: Option<Result<Next<W::Work>>>,
    pieces: Option<Pieces>,
    /// DDL was run in the open transaction.
    altered: bool,
    /// Whether the session's commits wait for the disk, and when one last did.
    durable: bool,
    durable_at: Instant,
    /// Partitions that the open transaction has made, with their oids on the source.
    born: Vec<(TableName, u32)>,
    /// The table whose change could not be applied since the source has it in another form, or since it
    /// is not known at all.
    pub drifted: Option<TableName>,
    /// The table that must be copied again before its next change can be applied.
    pub lacking: Option<TableName>,
}

/// What apply shares with the rest of the run.
pub struct Watched {
    pub spool: Spool,
    pub switches: watch::Receiver<Switches>,
    /// Every transaction whose commit ends at or before this is in the spool.
    pub received: watch::Receiver<Received>,
    pub applied: watch::Sender<Applied>,
    /// What the copies hold. Changed only behind the gate, unless it lets go of a change that waits.
    pub tags: watch::Receiver<Arc<Tags>>,
    /// Taken for reading by each target transaction; DDL that locks tables takes it for writing.
    pub gate: Arc<RwLock<()>>,
    /// True once no further Batch is to be begun.
    pub stopping: watch::Receiver<bool>,
}

/// The target refused to move (paused, or endpos was moved), or asks to try again.
struct Refused {
    err: Error,
    from: Position,
}

/// Rows written, unless refused.
type Written = std::result::Result<(), Refused>;

impl<W: Writer> Apply<W> {
    pub fn new(
        client: Client,
        writer: W,
        gatherer: Gatherer,
        merger: Merger,
        deciding: Deciding,
        replay_lsn: Lsn,
        watched: Watched,
    ) -> Apply<W> {
        let (ahead, pieces, drifted, lacking) = (None, None, None, None);
        let (altered, durable, durable_at) = (false, true, Instant::now());
        Apply {
            client,
            writer,
            gatherer,
            merger,
            deciding,
            replay_lsn,
            watched,
            ahead,
            pieces,
            altered,
            durable,
            durable_at,
            born: Vec::new(),
            drifted,
            lacking,
        }
    }

    /// Passes changes of this table over from now on.
    pub fn ignore(&mut self, table: TableName) {
        self.gatherer.ignore(table);
    }

    /// Whether the spool holds changes of our tables that are not applied. For when endpos is reached.
    pub fn more(&mut self) -> Result<bool> {
        self.gatherer.more()
    }

    /// Tables that the source has made behind endpos, as far as the spool tells. For when endpos is reached.
    pub fn made_behind(&mut self) -> Result<HashSet<TableName>> {
        self.gatherer.made_behind()
    }

    /// Applies until endpos is reached; returns it. Waits while apply is switched off.
    pub async fn run(&mut self) -> Result<Lsn> {
        self.ahead = None;
        self.gatherer.skip_applied(self.replay_lsn)?;
        let mut refusals = 0;
        loop {
            if self.pieces.is_none() && *self.watched.stopping.borrow_and_update() {
                return Err(Error::stopped());
            }
            let switches = *self.watched.switches.borrow_and_update();
            if !switches.apply && self.pieces.is_none() {
                self.changed().await?;
                continue;
            }
            self.retag();
            // Looked at before the spool is: all that is in it up to here has been written.
            let received = self.watched.received.borrow_and_update().write_lsn;
            let next = match self.ahead.take() {
                Some(next) => next?,
                None => Next::gather::<W>(&mut self.gatherer, &self.merger, switches.endpos)?,
            };
            let written = match (next.gathered, next.work) {
                (Gathered::Batch(batch), Some(work)) => {
                    self.write_batch(batch, work, next.reordered, switches.endpos).await?
                }
                (Gathered::Piece(piece), Some(work)) => self.write_piece(piece, work, switches.endpos).await?,
                (Gathered::LastPiece(piece), Some(work)) => self.write_last_piece(piece, work).await?,
                (Gathered::Clear(clear, from), _) => self.clear(&clear, from).await?,
                (Gathered::Ddl(ddl, from), _) => self.ddl(&ddl, from).await?,
                (Gathered::Later, _) => {
                    self.copied().await?;
                    continue;
                }
                (Gathered::Lacks(table), _) => return Err(self.lacks(table).await?),
                (Gathered::Behind(endpos), _) => {
                    self.rollback().await?;
                    if switches.endpos != Some(endpos) {
                        // It was moved while that was gathered; the transaction is read again.
                        continue;
                    }
                    return Ok(endpos);
                }
                (Gathered::Look(shape, kind), _) => {
                    if let Err(err) = self.gatherer.look(&self.client, &shape, kind).await {
                        self.rollback().await?;
                        let Some(before) = self.gatherer.give_whole() else {
                            self.drifted = (err.exit() == Exit::Differ).then(|| shape.table.clone());
                            return Err(err);
                        };
                        self.ahead = Some(Ok(Next::of::<W>(before, &self.merger)));
                    }
                    continue;
                }
                (Gathered::TakenBack, _) => {
                    self.rollback().await?;
                    continue;
                }
                (Gathered::Waiting, _) => {
                    self.gatherer.reader.wait().await;
                    continue;
                }
                _ => {
                    let position = self.gatherer.reader.position();
                    self.watched.applied.send_modify(|applied| {
                        applied.position = position;
                        applied.level_with = applied.level_with.max(received);
                    });
                    if let Some(endpos) = switches.endpos
                        && received >= endpos
                    {
                        return Ok(endpos);
                    }
                    self.wait().await?;
                    continue;
                }
            };
            match written {
                Ok(()) => {
                    refusals = 0;
                    self.were_born()?;
                }
                Err(Refused { err, from }) => {
                    refusals += 1;
                    if refusals > REFUSALS {
                        return Err(explain(err));
                    }
                    self.ahead = None;
                    self.gatherer.rewind(from, self.replay_lsn);
                    let _ = tokio::time::timeout(AGAIN_AFTER, self.watched.switches.changed()).await;
                }
            }
        }
    }

    async fn write_batch(
        &mut self,
        batch: Batch,
        work: W::Work,
        reordered: bool,
        endpos: Option<Lsn>,
    ) -> Result<Written> {
        let commit = batch.last().ok_or_else(|| Error::bug("a Batch without a commit"))?;
        let transactions = batch.ends.len() as u64;
        let advance = self.advance(commit, 0, batch.ends.clone());
        let behind = self.gatherer.reader.has_more();
        self.commit_durably(!behind || self.durable_at.elapsed() >= DURABLE_EVERY).await?;
        let gate = Arc::clone(&self.watched.gate);
        let _pass = gate.read().await;
        if self.is_retagged() {
            self.gatherer.rewind(batch.from, self.replay_lsn);
            return Ok(Ok(()));
        }
        let write = self.writer.write(&self.client, &work, Some(&advance), false);
        let gather = || Next::gather::<W>(&mut self.gatherer, &self.merger, endpos);
        crash::before(crash::BATCH);
        let (written, ahead) = overlapped(write, gather).await;
        crash::after(crash::BATCH);
        self.ahead = ahead.filter(|next| next.as_ref().map_or(true, Next::is_settled));
        match written {
            Ok(rows) => {
                self.moved(&advance, rows, Some(batch.to));
                Ok(Ok(()))
            }
            Err(err)
                if is_unfit(&err) && (reordered || transactions > 1 || self.deciding.policy == OnConflict::Warn) =>
            {
                tracing::debug!(error = %err.chain(), transactions, "a batch is applied again in the source's order");
                let again = match self.deciding.policy {
                    OnConflict::Stop => self.one_by_one(&batch).await?,
                    OnConflict::Warn => self.in_order(&batch, &advance).await?,
                };
                if reordered
                    && again.is_ok()
                    && let Some((schema, table)) = err.table()
                {
                    self.merger.keep_order(schema, table);
                }
                Ok(again)
            }
            Err(err) => refused(err, batch.from),
        }
    }

    /// Each transaction of a Batch by itself, in the source's order.
    async fn one_by_one(&mut self, batch: &Batch) -> Result<Written> {
        let mut begin = 0;
        for (at, &(end, commit)) in batch.ends.iter().enumerate() {
            let is_last = at + 1 == batch.ends.len();
            let work = W::work(batch.ops[begin..end].to_vec());
            let advance = self.advance(commit, 0, vec![(end - begin, commit)]);
            match self.writer.write(&self.client, &work, Some(&advance), false).await {
                Ok(rows) => self.moved(&advance, rows, is_last.then_some(batch.to)),
                Err(err) => return refused(err, batch.from),
            }
            begin = end;
        }
        Ok(Ok(()))
    }

    /// A Batch in the source's order, around what does not fit.
    async fn in_order(&mut self, batch: &Batch, advance: &Advance) -> Result<Written> {
        let work = W::work(batch.ops.clone());
        let changes = (&batch.ops[..], &work);
        match self.deciding.write(&mut self.writer, &self.client, changes, Some(advance), false).await {
            Ok(rows) => {
                self.moved(advance, rows, Some(batch.to));
                Ok(Ok(()))
            }
            Err(err) => refused(err, batch.from),
        }
    }

    fn advance(&self, commit: Commit, rows_before: u64, ends: Vec<(usize, Commit)>) -> Advance {
        let transactions = ends.len() as u64;
        Advance { migration: self.deciding.migration.clone(), commit, transactions, rows_before, ends }
    }

    /// Writes a part of a large transaction; the target may ask to try all of it again.
    async fn write_piece(&mut self, piece: Batch, work: W::Work, endpos: Option<Lsn>) -> Result<Written> {
        if !self.open_pieces(piece.from).await? {
            return Ok(Ok(()));
        }
        let changes = (&piece.ops[..], &work);
        let write = self.deciding.write(&mut self.writer, &self.client, changes, None, true);
        let gather = || Next::gather::<W>(&mut self.gatherer, &self.merger, endpos);
        let (written, ahead) = overlapped(write, gather).await;
        self.ahead = ahead.filter(|next| next.as_ref().map_or(true, Next::is_settled));
        match (written, &mut self.pieces) {
            (Ok(rows), Some(pieces)) => {
                crash::after(crash::PIECE);
                pieces.rows += rows;
                Ok(Ok(()))
            }
            (Ok(_), None) => Err(Error::bug("a piece of no transaction")),
            (Err(err), _) => {
                self.rollback().await?;
                refused(err, piece.from)
            }
        }
    }

    async fn write_last_piece(&mut self, piece: Batch, work: W::Work) -> Result<Written> {
        let commit = piece.last().ok_or_else(|| Error::bug("a piece without a commit"))?;
        let rows_before = self.pieces.as_ref().map_or(0, |pieces| pieces.rows);
        let advance = self.advance(commit, rows_before, piece.ends.clone());
        let changes = (&piece.ops[..], &work);
        match self.deciding.write(&mut self.writer, &self.client, changes, Some(&advance), true).await {
            Ok(rows) => {
                self.deciding.complete(&self.client, commit).await?;
                crash::before(crash::LARGE);
                self.client.batch_execute("commit").await.on_target(|| "commit a large transaction".into())?;
                crash::after(crash::LARGE);
                (self.pieces, self.altered) = (None, false);
                self.moved(&advance, rows + rows_before, Some(piece.to));
                Ok(Ok(()))
            }
            Err(err) => {
                self.rollback().await?;
                refused(err, piece.from)
            }
        }
    }

    /// Lets the commits that follow wait for the disk, or not.
    async fn commit_durably(&mut self, wanted: bool) -> Result<()> {
        if wanted != self.durable {
            let set = if wanted { COMMITS_WAIT } else { "set synchronous_commit = off" };
            self.client.batch_execute(set).await.on_target(|| "set synchronous_commit".into())?;
            self.durable = wanted;
        }
        Ok(())
    }

    /// Notes that the target has committed; `position` is known at the end of a Batch.
    fn moved(&mut self, advance: &Advance, rows: u64, position: Option<Position>) {
        self.replay_lsn = advance.commit.end_lsn;
        self.watched.applied.send_modify(|applied| {
            applied.replay_lsn = advance.commit.end_lsn;
            applied.level_with = applied.level_with.max(advance.commit.end_lsn);
            applied.position = position.unwrap_or(applied.position);
            applied.transactions += advance.transactions;
            applied.rows += rows;
        });
        if let Some(position) = position.filter(|_| self.durable) {
            self.durable_at = Instant::now();
            if let Err(err) = self.watched.spool.prune(position) {
                tracing::warn!(%err, "cannot delete an applied segment of the spool");
            }
        }
        tracing::debug!(replay_lsn = %advance.commit.end_lsn, transactions = advance.transactions, rows, "batch applied");
    }
}

/// Whether a Batch may have failed for being one, or for its order.
fn is_unfit(err: &Error) -> bool {
    err.sqlstate().is_some_and(|code| code.starts_with("23") || code == NO_ROW)
}

fn refused(err: Error, from: Position) -> Result<Written> {
    match err.sqlstate() {
        Some(REFUSED) => Ok(Err(Refused { err, from })),
        Some(passing) if PASSING.contains(&passing) => {
            tracing::info!(sqlstate = passing, "a batch met other work on the target and is tried again");
            Ok(Err(Refused { err, from }))
        }
        _ => Err(explain(err)),
    }
}
