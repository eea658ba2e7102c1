//! Apply: from the spool to the target, in commit order, exactly once.
//!
//! Whole source transactions are gathered into a Batch; the Batch's rows and `replay_lsn` commit in
//! one target transaction, so a crash at any instant leaves the target at the end of some source
//! transaction, and says which. A transaction larger than a Batch is written in pieces inside one
//! target transaction. Changes that a table's snapshot tag already shows are skipped.
//!
//! `endpos` is honoured by the target itself: `pgmig.advance` refuses to move past it under the row
//! lock that `pgmig.set_endpos` takes, so neither can slip in between check and commit.

pub mod batch;
pub mod conflict;
pub mod drift;
pub mod extension;
pub mod plain;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{RwLock, watch};
use tokio_postgres::Client;

use crate::error::{Context, Error, Exit, Result};
use crate::model::wire::{Commit, Item, Kind, Shape};
use crate::model::{Lsn, SnapshotTag, TableName};
use crate::stream::receive::Received;
use crate::stream::spool::{Position, Spool, SpoolReader};
use batch::{Batch, Op};
use drift::Drift;

/// SQLSTATE of `pgmig.advance` when apply is paused or endpos lies before the Batch.
const REFUSED: &str = "PGM01";
/// SQLSTATEs that a Batch may meet beside other sessions' work, and that pass: serialization failure,
/// deadlock, lock not available.
const PASSING: [&str; 3] = ["40001", "40P01", "55P03"];
/// How long a refused Batch waits for a switch before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often in a row that happens before it is an error.
const REFUSALS: u32 = 60;
/// SQLSTATE of a change that finds no row.
const NO_ROW: &str = "P0002";

/// Writes Batches on the target.
#[expect(async_fn_in_trait, reason = "used inside this program only")]
pub trait Writer {
    /// Writes the changes and, if `advance` is given, moves `replay_lsn`: inside the session's open
    /// transaction, or in one of its own. Returns the rows changed. After an error an open
    /// transaction is the caller's to roll back.
    async fn write(&mut self, client: &Client, ops: &[Op], advance: Option<&Advance>, open: bool) -> Result<u64>;
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
pub struct Apply<W> {
    pub client: Client,
    pub writer: W,
    pub spool: Spool,
    pub reader: SpoolReader,
    pub migration: String,
    /// Tables that are moved, each with the tag of its copy.
    pub tags: HashMap<TableName, Tag>,
    /// Relations whose changes may be in the stream and are known not to be moved: what was left out,
    /// and what comes in other ways.
    pub ignored: HashSet<TableName>,
    /// Everything up to here is applied already.
    pub replay_lsn: Lsn,
    pub switches: watch::Receiver<Switches>,
    /// Every transaction whose commit ends at or before this is in the spool.
    pub received: watch::Receiver<Received>,
    pub applied: watch::Sender<Applied>,
    /// Taken for reading by each target transaction; DDL that locks tables takes it for writing.
    pub gate: Arc<RwLock<()>>,
    /// Holds changes against the target's columns.
    pub drift: Drift,
    /// The table whose change could not be applied since the source has it in another form, or since it
    /// is not known at all.
    pub drifted: Option<TableName>,
}

/// Which transactions a copy holds already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub snapshot: SnapshotTag,
    /// Behind this the snapshot says nothing any more: xids are compared modulo 2^32.
    pub lsn: Lsn,
}

/// What one round of reading came to.
enum Round {
    /// A Batch was committed.
    Applied,
    /// The spool is read to its end, and all of it is applied.
    Level,
    /// The next transaction ends behind endpos.
    Behind,
    /// The target refused to move (paused, or endpos was moved), or asks to try again.
    Refused(Error),
}

impl<W: Writer> Apply<W> {
    /// Applies until endpos is reached; returns it. Waits while apply is switched off.
    pub async fn run(&mut self) -> Result<Lsn> {
        self.skip_applied()?;
        let mut refusals = 0;
        loop {
            let switches = *self.switches.borrow_and_update();
            if !switches.apply {
                self.changed().await?;
                continue;
            }
            // Looked at before the spool is: all that is in it up to here has been written.
            let received = self.received.borrow_and_update().write_lsn;
            let start = self.reader.position();
            match self.round(switches).await? {
                Round::Applied => refusals = 0,
                Round::Level => {
                    self.applied.send_modify(|applied| {
                        applied.position = self.reader.position();
                        applied.level_with = applied.level_with.max(received);
                    });
                    if let Some(endpos) = switches.endpos
                        && received >= endpos
                    {
                        return Ok(endpos);
                    }
                    self.wait().await?;
                }
                Round::Behind => {
                    let endpos = switches.endpos.ok_or_else(|| Error::bug("stopped at no endpos"))?;
                    return Ok(endpos);
                }
                Round::Refused(err) => {
                    refusals += 1;
                    if refusals > REFUSALS {
                        return Err(explain(err));
                    }
                    self.reader.seek(start);
                    let _ = tokio::time::timeout(AGAIN_AFTER, self.switches.changed()).await;
                }
            }
        }
    }

    /// Puts the reader behind what the target says is applied. Commit order is the spool's order, so
    /// the first transaction that ends behind `replay_lsn` and all after it are to be applied.
    fn skip_applied(&mut self) -> Result<()> {
        let mut begun = self.reader.position();
        loop {
            let at = self.reader.position();
            match self.reader.next().during(Exit::Dir, || "read the spool".into())? {
                Some(Item::Begin { .. }) => begun = at,
                Some(Item::Commit(commit)) if commit.end_lsn > self.replay_lsn => break,
                Some(Item::Commit(_)) => begun = self.reader.position(),
                Some(_) => {}
                None => break,
            }
        }
        self.reader.seek(begun);
        Ok(())
    }

    /// Waits for more to apply, or for a switch.
    async fn wait(&mut self) -> Result<()> {
        tokio::select! {
            () = self.reader.wait() => Ok(()),
            changed = self.received.changed() => changed.map_err(|_| Error::new(Exit::Stopped, "receiving has ended")),
            changed = self.switches.changed() => changed.map_err(|_| Error::new(Exit::Stopped, "the run is ending")),
        }
    }
    async fn changed(&mut self) -> Result<()> {
        self.switches.changed().await.map_err(|_| Error::new(Exit::Stopped, "the run is ending"))
    }

    /// Reads one Batch, or one large transaction in pieces, and writes it.
    async fn round(&mut self, switches: Switches) -> Result<Round> {
        let mut batch = Batch::default();
        // Where the transaction that is being read began.
        let mut begun = self.reader.position();
        let mut skip = Skip::default();
        let mut pieces: Option<Pieces> = None;
        loop {
            let at = self.reader.position();
            let item = self.reader.next().during(Exit::Dir, || "read the spool".into())?;
            let Some(item) = item else {
                if pieces.is_some() || batch.open {
                    if pieces.is_none() && batch.transactions > 0 {
                        batch.cut_open();
                        self.reader.seek(begun);
                        return self.flush(batch).await;
                    }
                    // The rest of the transaction is on its way.
                    self.reader.wait().await;
                    continue;
                }
                return if batch.transactions == 0 { Ok(Round::Level) } else { self.flush(batch).await };
            };
            match item {
                Item::Change(_) | Item::Truncate(_) | Item::Commit(_) if !batch.open => {
                    return Err(Error::new(Exit::Dir, "the spool lacks the beginning of a transaction")
                        .hint("was the target restored from a backup? Begin again: pgmig cleanup --force, empty the target, pgmig run"));
                }
                Item::Begin { xid } => {
                    begun = at;
                    skip = Skip { xid: Some(xid), known: None };
                    batch.begin();
                }
                Item::Change(change) => match self.wanted(&change.shape, Some(change.kind), &mut skip).await {
                    Ok(true) => batch.push(Op::Change(change)),
                    Ok(false) => {}
                    Err(err) => return self.stop_before(begun, batch, pieces, err).await,
                },
                Item::Truncate(shapes) => {
                    let mut wanted = Vec::with_capacity(shapes.len());
                    for shape in shapes {
                        match self.wanted(&shape, None, &mut skip).await {
                            Ok(true) => wanted.push(shape),
                            Ok(false) => {}
                            Err(err) => return self.stop_before(begun, batch, pieces, err).await,
                        }
                    }
                    if !wanted.is_empty() {
                        batch.push(Op::Truncate(wanted));
                    }
                }
                Item::Commit(commit) => {
                    let applied_already = commit.end_lsn <= self.replay_lsn;
                    let behind = !applied_already && switches.endpos.is_some_and(|endpos| commit.end_lsn > endpos);
                    if let Some(pieces) = pieces {
                        if behind {
                            self.rollback(pieces).await?;
                            self.reader.seek(begun);
                            return Ok(Round::Behind);
                        }
                        batch.commit(commit);
                        return self.finish_pieces(pieces, batch).await;
                    }
                    if applied_already {
                        batch.cut_open();
                        continue;
                    }
                    if behind {
                        batch.cut_open();
                        self.reader.seek(begun);
                        return if batch.transactions == 0 { Ok(Round::Behind) } else { self.flush(batch).await };
                    }
                    batch.commit(commit);
                    if batch.is_full() {
                        return self.flush(batch).await;
                    }
                }
            }
            if batch.open && batch.is_full() {
                if pieces.is_none() && batch.transactions > 0 {
                    batch.cut_open();
                    self.reader.seek(begun);
                    return self.flush(batch).await;
                }
                pieces = match self.write_piece(pieces, &mut batch).await? {
                    Ok(pieces) => Some(pieces),
                    Err(round) => return Ok(round),
                };
            }
        }
    }

    /// Applies what was committed before the transaction that cannot be applied; it is the next one then,
    /// and the error is told when nothing is left before it.
    async fn stop_before(
        &mut self,
        begun: Position,
        mut batch: Batch,
        pieces: Option<Pieces>,
        err: Error,
    ) -> Result<Round> {
        self.reader.seek(begun);
        match pieces {
            Some(pieces) => self.rollback(pieces).await?,
            None if batch.transactions > 0 => {
                batch.cut_open();
                return self.flush(batch).await;
            }
            None => {}
        }
        Err(err)
    }

    /// Whether a change to this relation is to be applied. Looked up once per transaction and relation.
    async fn wanted(&mut self, shape: &Arc<Shape>, kind: Option<Kind>, skip: &mut Skip) -> Result<bool> {
        if let Some((last, of, wanted)) = &skip.known
            && Arc::ptr_eq(last, shape)
            && *of == kind
        {
            return Ok(*wanted);
        }
        let wanted = match self.tags.get(&shape.table) {
            Some(tag) => self.replay_lsn >= tag.lsn || !skip.xid.is_some_and(|xid| tag.snapshot.covers(xid)),
            None if self.ignored.contains(&shape.table) => false,
            None => {
                self.drifted = Some(shape.table.clone());
                return Err(Error::new(
                    Exit::Differ,
                    format!("{} has changed on the source and is not part of this migration", shape.table),
                ));
            }
        };
        if let Some(kind) = kind.filter(|_| wanted)
            && let Err(err) = self.drift.check(&self.client, shape, kind).await
        {
            self.drifted = (err.exit() == Exit::Differ).then(|| shape.table.clone());
            return Err(err);
        }
        skip.known = Some((Arc::clone(shape), kind, wanted));
        Ok(wanted)
    }

    async fn flush(&mut self, batch: Batch) -> Result<Round> {
        let commit = batch.last.ok_or_else(|| Error::bug("a Batch without a commit"))?;
        let advance = Advance {
            migration: self.migration.clone(),
            commit,
            transactions: batch.transactions,
            rows_before: 0,
            ends: batch.ends,
        };
        let gate = Arc::clone(&self.gate);
        let _pass = gate.read().await;
        match self.writer.write(&self.client, &batch.ops, Some(&advance), false).await {
            Ok(rows) => {
                self.moved(&advance, rows);
                Ok(Round::Applied)
            }
            Err(err) => refused(err),
        }
    }

    /// Writes what the Batch holds of an open transaction; the target may ask to try all of it again.
    async fn write_piece(&mut self, pieces: Option<Pieces>, batch: &mut Batch) -> Result<Result<Pieces, Round>> {
        let mut pieces = match pieces {
            Some(pieces) => pieces,
            None => {
                let pass = Arc::clone(&self.gate).read_owned().await;
                self.client.batch_execute("begin").await.on_target(|| "begin a large transaction".into())?;
                Pieces { rows: 0, _pass: pass }
            }
        };
        match self.writer.write(&self.client, &batch.ops, None, true).await {
            Ok(rows) => pieces.rows += rows,
            Err(err) => {
                self.rollback(pieces).await?;
                return refused(err).map(Err);
            }
        }
        batch.ops.clear();
        batch.bytes = 0;
        Ok(Ok(pieces))
    }

    async fn finish_pieces(&mut self, pieces: Pieces, batch: Batch) -> Result<Round> {
        let commit = batch.last.ok_or_else(|| Error::bug("a piece without a commit"))?;
        let advance = Advance {
            migration: self.migration.clone(),
            commit,
            transactions: 1,
            rows_before: pieces.rows,
            ends: batch.ends,
        };
        match self.writer.write(&self.client, &batch.ops, Some(&advance), true).await {
            Ok(rows) => {
                self.client.batch_execute("commit").await.on_target(|| "commit a large transaction".into())?;
                self.moved(&advance, rows + pieces.rows);
                Ok(Round::Applied)
            }
            Err(err) => {
                self.rollback(pieces).await?;
                refused(err)
            }
        }
    }

    async fn rollback(&self, _pieces: Pieces) -> Result<()> {
        self.client.batch_execute("rollback").await.on_target(|| "roll back a large transaction".into())
    }

    fn moved(&mut self, advance: &Advance, rows: u64) {
        self.replay_lsn = advance.commit.end_lsn;
        let position = self.reader.position();
        self.applied.send_modify(|applied| {
            applied.replay_lsn = advance.commit.end_lsn;
            applied.level_with = applied.level_with.max(advance.commit.end_lsn);
            applied.position = position;
            applied.transactions += advance.transactions;
            applied.rows += rows;
        });
        if let Err(err) = self.spool.prune(position) {
            tracing::warn!(%err, "cannot delete an applied segment of the spool");
        }
        tracing::debug!(replay_lsn = %advance.commit.end_lsn, transactions = advance.transactions, rows, "batch applied");
    }
}

/// A large transaction that is open on the target.
struct Pieces {
    rows: u64,
    _pass: tokio::sync::OwnedRwLockReadGuard<()>,
}

/// Whether the relation last looked at is wanted, for the open transaction.
#[derive(Default)]
struct Skip {
    xid: Option<u32>,
    known: Option<(Arc<Shape>, Option<Kind>, bool)>,
}

fn refused(err: Error) -> Result<Round> {
    match err.sqlstate() {
        Some(REFUSED) => Ok(Round::Refused(err)),
        Some(passing) if PASSING.contains(&passing) => {
            tracing::info!(sqlstate = passing, "a batch met other work on the target and is tried again");
            Ok(Round::Refused(err))
        }
        _ => Err(explain(err)),
    }
}

/// Says what a change that does not fit the target means and how to go on.
fn explain(err: Error) -> Error {
    let (exit, hint) = match err.sqlstate() {
        Some(NO_ROW) => (
            Exit::Differ,
            "the target's row was changed or deleted by something else than pgmig; put it back as it is on the source, then run again",
        ),
        Some("23505" | "23P01") => {
            (Exit::Differ, "the target holds a row that pgmig did not write; remove it, then run again")
        }
        Some("42P01" | "42703") => {
            (Exit::Differ, "the table was altered on the target: make it what it is on the source, then run again")
        }
        Some("22021" | "22P05") => (
            Exit::Differ,
            "the source holds bytes that are no text in the target's encoding, and what is in the stream cannot be mended: \
             mend the row there, then begin again (pgmig cleanup --force, empty the target, pgmig run)",
        ),
        _ => return Error::new(err.exit(), "cannot apply a batch").cause(err),
    };
    Error::new(exit, "cannot apply a batch").cause(err).hint(hint)
}
