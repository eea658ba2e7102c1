//! Reads the spool in front of the writer: whole transactions into Batches, a transaction that is
//! larger than one into pieces, and nothing of what the target holds already. It knows nothing of the
//! target but what it was told, and never waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Client;

use super::batch::{Batch, Op};
use super::drift::Drift;
use crate::error::{Context, Error, Exit, Result};
use crate::model::wire::{Item, Kind, Shape};
use crate::model::{Lsn, SnapshotTag, TableName};
use crate::stream::spool::{Position, SpoolReader};

/// Which transactions a copy holds already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub snapshot: SnapshotTag,
    /// Behind this the snapshot says nothing any more: xids are compared modulo 2^32.
    pub lsn: Lsn,
}

/// What a look into the spool came to.
pub enum Gathered {
    /// Whole transactions.
    Batch(Batch),
    /// A part of a transaction that is larger than a Batch.
    Piece(Batch),
    /// The last part of it, with its commit.
    LastPiece(Batch),
    /// The next transaction ends behind this endpos; pieces of it may have been given out.
    Behind(Lsn),
    /// The spool is read to its end, and all of it was given out.
    Level,
    /// The rest of a transaction is on its way.
    Waiting,
    /// A change whose like was not seen before: the target must be asked about it (`look`).
    Look(Arc<Shape>, Option<Kind>),
}

pub struct Gatherer {
    pub reader: SpoolReader,
    /// Tables that are moved, each with the tag of its copy.
    tags: HashMap<TableName, Tag>,
    /// Relations whose changes may be in the stream and are known not to be moved: what was left out,
    /// and what comes in other ways.
    ignored: HashSet<TableName>,
    /// Holds changes against the target's columns.
    drift: Drift,
    /// Transactions that end at or before this are applied, or were given out.
    passed: Lsn,
    /// What was read and not given out yet.
    batch: Batch,
    /// Where the transaction that is being read began.
    begun: Position,
    skip: Skip,
    /// The open transaction is given out in pieces.
    large: bool,
}

/// Whether the relation last looked at is wanted, for the open transaction.
#[derive(Default)]
struct Skip {
    xid: Option<u32>,
    known: Option<(Arc<Shape>, Option<Kind>, bool)>,
}

impl Gatherer {
    pub fn new(
        reader: SpoolReader,
        tags: HashMap<TableName, Tag>,
        ignored: HashSet<TableName>,
        drift: Drift,
    ) -> Gatherer {
        let begun = reader.position();
        let (passed, batch, skip) = (Lsn::ZERO, Batch::default(), Skip::default());
        Gatherer { reader, tags, ignored, drift, passed, batch, begun, skip, large: false }
    }

    /// Before this position the tables are not at one point in time.
    pub fn newest_tag(&self) -> Lsn {
        self.tags.values().map(|tag| tag.lsn).max().unwrap_or_default()
    }

    pub fn ignore(&mut self, table: TableName) {
        self.ignored.insert(table);
    }

    /// Puts the reader behind what the target says is applied. Commit order is the spool's order, so
    /// the first transaction that ends behind `replay_lsn` and all after it are to be applied.
    pub fn skip_applied(&mut self, replay_lsn: Lsn) -> Result<()> {
        let mut begun = self.reader.position();
        loop {
            let at = self.reader.position();
            match self.read()? {
                Some(Item::Begin { .. }) => begun = at,
                Some(Item::Commit(commit)) if commit.end_lsn > replay_lsn => break,
                Some(Item::Commit(_)) => begun = self.reader.position(),
                Some(_) => {}
                None => break,
            }
        }
        self.rewind(begun, replay_lsn);
        Ok(())
    }

    /// Goes back to where a transaction begins; what ends at or before `passed` is not given out again.
    pub fn rewind(&mut self, to: Position, passed: Lsn) {
        self.reader.seek(to);
        self.batch = Batch::default();
        self.large = false;
        self.passed = passed;
    }

    /// Whether whole transactions follow that change a table that is moved. Nothing is given out.
    pub fn more(&mut self) -> Result<bool> {
        let (from, mut changed, mut more) = (self.reader.position(), false, false);
        while let Some(item) = self.read()? {
            match item {
                Item::Begin { .. } => changed = false,
                Item::Change(change) => changed |= self.tags.contains_key(&change.shape.table),
                Item::Truncate(shapes) => changed |= shapes.iter().any(|shape| self.tags.contains_key(&shape.table)),
                Item::Commit(_) => more |= changed,
            }
        }
        self.reader.seek(from);
        Ok(more)
    }

    fn read(&mut self) -> Result<Option<Item>> {
        self.reader.next().during(Exit::Dir, || "read the spool".into())
    }

    /// The next thing to write.
    pub fn gather(&mut self, endpos: Option<Lsn>) -> Result<Gathered> {
        if !self.batch.open {
            self.batch = Batch { from: self.reader.position(), ..Batch::default() };
        }
        loop {
            let at = self.reader.position();
            let Some(item) = self.read()? else {
                return Ok(match (self.batch.open, self.batch.ends.is_empty()) {
                    (true, true) => Gathered::Waiting,
                    (true, false) => self.whole_ones(),
                    (false, true) => Gathered::Level,
                    (false, false) => Gathered::Batch(self.give()),
                });
            };
            match item {
                Item::Change(_) | Item::Truncate(_) | Item::Commit(_) if !self.batch.open => {
                    return Err(Error::new(Exit::Dir, "the spool lacks the beginning of a transaction")
                        .hint("was the target restored from a backup? Begin again: pgmig cleanup --force, empty the target, pgmig run"));
                }
                Item::Begin { xid } => {
                    self.begun = at;
                    self.skip = Skip { xid: Some(xid), known: None };
                    self.batch.open = true;
                }
                Item::Change(change) => match self.wanted(&change.shape, Some(change.kind)) {
                    Some(true) => {
                        self.batch.push(Op::Change(change));
                        self.batch.hold(self.reader.frame());
                    }
                    Some(false) => {}
                    None => {
                        self.reader.seek(at);
                        return Ok(Gathered::Look(Arc::clone(&change.shape), Some(change.kind)));
                    }
                },
                Item::Truncate(shapes) => {
                    let mut wanted = Vec::with_capacity(shapes.len());
                    for shape in shapes {
                        match self.wanted(&shape, None) {
                            Some(true) => wanted.push(shape),
                            Some(false) => {}
                            None => {
                                self.reader.seek(at);
                                return Ok(Gathered::Look(shape, None));
                            }
                        }
                    }
                    if !wanted.is_empty() {
                        self.batch.push(Op::Truncate(wanted));
                    }
                }
                Item::Commit(commit) if commit.end_lsn <= self.passed && !self.large => self.batch.cut_open(),
                Item::Commit(commit) if let Some(endpos) = endpos.filter(|&endpos| commit.end_lsn > endpos) => {
                    if !self.batch.ends.is_empty() {
                        return Ok(self.whole_ones());
                    }
                    self.rewind(self.begun, self.passed);
                    return Ok(Gathered::Behind(endpos));
                }
                Item::Commit(commit) => {
                    self.batch.commit(commit);
                    if self.large {
                        self.large = false;
                        return Ok(Gathered::LastPiece(self.give()));
                    }
                    if self.batch.is_full() {
                        return Ok(Gathered::Batch(self.give()));
                    }
                }
            }
            if self.batch.open && self.batch.is_full() {
                if !self.batch.ends.is_empty() {
                    return Ok(self.whole_ones());
                }
                self.large = true;
                let piece = self.give();
                // Tried again, all of the transaction is.
                self.batch = Batch { open: true, from: piece.from, ..Batch::default() };
                return Ok(Gathered::Piece(piece));
            }
        }
    }

    /// Asks the target about what `gather` did not know. An error that names the table if the change
    /// cannot be applied there.
    pub async fn look(&mut self, client: &Client, shape: &Arc<Shape>, kind: Option<Kind>) -> Result<()> {
        match kind {
            Some(kind) if self.tags.contains_key(&shape.table) => self.drift.check(client, shape, kind).await,
            _ => Err(Error::new(
                Exit::Differ,
                format!("{} has changed on the source and is not part of this migration", shape.table),
            )),
        }
    }

    /// What was gathered before the transaction of a change that cannot be applied; that transaction is
    /// read again.
    pub fn give_whole(&mut self) -> Option<Gathered> {
        if !self.batch.ends.is_empty() {
            return Some(self.whole_ones());
        }
        self.rewind(self.begun, self.passed);
        None
    }

    /// The whole transactions; the open one is read again.
    fn whole_ones(&mut self) -> Gathered {
        self.batch.cut_open();
        self.reader.seek(self.begun);
        Gathered::Batch(self.give())
    }

    fn give(&mut self) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        batch.to = self.reader.position();
        self.passed = batch.last().map_or(self.passed, |commit| commit.end_lsn);
        batch
    }

    /// Whether a change to this relation is to be applied; None: not known yet. Looked up once per
    /// transaction and relation.
    fn wanted(&mut self, shape: &Arc<Shape>, kind: Option<Kind>) -> Option<bool> {
        if let Some((last, of, wanted)) = &self.skip.known
            && Arc::ptr_eq(last, shape)
            && *of == kind
        {
            return Some(*wanted);
        }
        let wanted = match self.tags.get(&shape.table) {
            Some(tag) => self.passed >= tag.lsn || !self.skip.xid.is_some_and(|xid| tag.snapshot.covers(xid)),
            None if self.ignored.contains(&shape.table) => false,
            None => return None,
        };
        if wanted && kind.is_some_and(|kind| !self.drift.fits(shape, kind)) {
            return None;
        }
        self.skip.known = Some((Arc::clone(shape), kind, wanted));
        Some(wanted)
    }
}
