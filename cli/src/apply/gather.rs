//! Reads the spool in front of the writer: whole transactions into Batches, a transaction that is
//! larger than one into pieces, and nothing of what the target holds already. It knows nothing of the
//! target but what it was told, and never waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Client;

use super::batch::{Batch, Op};
use super::ddl::Taken;
use super::drift::Drift;
use super::tags::{Clear, Copy, Tags, Verdict, Wanted};
use super::told::Ddl;
use crate::error::{Error, Exit, Result};
use crate::model::wire::{Change, Item, Kind, Shape};
use crate::model::{Lsn, TableName};
use crate::stream::spool::{Position, SpoolReader};

/// Shapes that are remembered; each frame of the spool brings its own.
pub(super) const REMEMBERED: usize = 10_000;

/// What a look into the spool came to.
pub enum Gathered {
    /// Whole transactions.
    Batch(Batch),
    /// A part of a transaction that is larger than a Batch.
    Piece(Batch),
    /// The last part of it, with its commit.
    LastPiece(Batch),
    /// Rows to be removed next, in the transaction of which pieces are given out.
    Clear(Vec<Clear>, Position),
    /// DDL to be run next, in the same way.
    Ddl(Box<Ddl>, Position),
    /// The next transaction changes a table that is being copied.
    Later,
    /// The table must be copied again: the stream lacks values of a row that moved from one of its Parts
    /// to another.
    Lacks(TableName),
    /// The next transaction ends behind this endpos; pieces of it may have been given out.
    Behind(Lsn),
    /// The spool is read to its end, and all of it was given out.
    Level,
    /// The rest of a transaction is on its way.
    Waiting,
    /// The transaction whose pieces were given out is taken back, and comes again.
    TakenBack,
    /// A change whose like was not seen before: the target must be asked about it (`look`).
    Look(Arc<Shape>, Option<Kind>),
}

pub struct Gatherer {
    pub reader: SpoolReader,
    /// What becomes of DDL.
    pub ddl: Taken,
    /// Tables that are moved, each with the tags of its copy.
    pub(super) tags: Arc<Tags>,
    /// Relations whose changes may be in the stream and are known not to be moved: what was left out,
    /// and what comes in other ways.
    ignored: HashSet<TableName>,
    /// Partitioned tables: their TRUNCATE is that of their partitions.
    pub parents: HashSet<TableName>,
    /// Holds changes against the target's columns.
    drift: Drift,
    /// Shapes of partitions whose rows go into another table, by address, each with what it is there. They
    /// are held, so that no other comes to lie there.
    pub(super) united: HashMap<usize, (Arc<Shape>, Arc<Shape>)>,
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

/// What a TRUNCATE comes to.
enum Emptied {
    Tables(Vec<Arc<Shape>>),
    Rows(Vec<Clear>),
    Later,
    /// Nothing says which rows of the table were those of a partition.
    Lacks(TableName),
    Look(Arc<Shape>),
}

/// Whether the relation last looked at is wanted, for the open transaction.
#[derive(Default)]
struct Skip {
    xid: Option<u32>,
    known: Option<(Arc<Shape>, Option<Kind>, Wanted)>,
}

impl Gatherer {
    pub fn new(reader: SpoolReader, tags: Arc<Tags>, ignored: HashSet<TableName>, drift: Drift) -> Gatherer {
        let begun = reader.position();
        let (passed, batch, skip, united) = (Lsn::ZERO, Batch::default(), Skip::default(), HashMap::new());
        let parents = HashSet::new();
        Gatherer {
            reader,
            ddl: Taken::off(),
            tags,
            ignored,
            parents,
            drift,
            united,
            passed,
            batch,
            begun,
            skip,
            large: false,
        }
    }

    /// Goes on with other tags, from where a Batch begins that was not written, or from where it is.
    pub fn retag(&mut self, tags: Arc<Tags>, from: Option<Position>, passed: Lsn) {
        self.tags = tags;
        self.skip.known = None;
        self.united.clear();
        let here =
            if self.batch.open || !self.batch.ends.is_empty() { self.batch.from } else { self.reader.position() };
        self.rewind(from.unwrap_or(here), passed);
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
                Some(Item::Commit(_) | Item::Abort) => begun = self.reader.position(),
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

    /// Whether whole transactions follow that change a table that is moved, or one that nobody knows. Nothing is
    /// given out.
    pub fn more(&mut self) -> Result<bool> {
        let (from, mut changed, mut more) = (self.reader.position(), false, false);
        while let Some(item) = self.read()? {
            match item {
                Item::Begin { .. } | Item::Abort => changed = false,
                Item::Change(change) => changed |= !self.ignored.contains(&change.shape.table),
                Item::Ddl(text) => changed |= self.is_ours(&text)?,
                Item::Truncate(shapes) => {
                    let moved = |table: &TableName| self.tags.contains(table) || self.tags.leaf(table).is_some();
                    changed |= shapes.iter().any(|shape| moved(&shape.table));
                }
                Item::Commit(_) => more |= changed,
            }
        }
        self.reader.seek(from);
        Ok(more)
    }

    /// Tables that the whole transactions make which follow. Nothing is given out.
    pub fn made_behind(&mut self) -> Result<HashSet<TableName>> {
        let (from, mut made, mut all) = (self.reader.position(), Vec::new(), HashSet::new());
        while let Some(item) = self.read()? {
            match item {
                Item::Begin { .. } | Item::Abort => made.clear(),
                Item::Ddl(text) => made.extend(self.tables_made(&text)?),
                Item::Commit(_) => all.extend(made.drain(..)),
                Item::Change(_) | Item::Truncate(_) => {}
            }
        }
        self.reader.seek(from);
        Ok(all)
    }

    /// The next item, a change of a partition as one of the table that its rows go into. TRUNCATE is of the
    /// partition.
    fn read(&mut self) -> Result<Option<Item>> {
        let item = self.reader.next().map_err(|err| err.told("read the spool"))?;
        match item {
            Some(Item::Change(mut change)) if self.tags.has_leaves() => {
                self.unite(&mut change);
                Ok(Some(Item::Change(change)))
            }
            item => Ok(item),
        }
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
                Item::Change(_) | Item::Truncate(_) | Item::Ddl(_) | Item::Commit(_) if !self.batch.open => {
                    return Err(Error::new(Exit::Dir, "the spool lacks the beginning of a transaction")
                        .hint("was the target restored from a backup? Begin again: pgmig cleanup --force, empty the target, pgmig run"));
                }
                Item::Begin { xid } => {
                    self.begun = at;
                    self.skip = Skip { xid: Some(xid), known: None };
                    self.batch.open = true;
                }
                Item::Change(change) => match self.wanted(&change.shape, Some(change.kind)) {
                    Some(Wanted::All) => {
                        self.batch.push(Op::Change(change));
                        self.batch.hold(self.reader.frame());
                    }
                    Some(Wanted::Nothing) => {}
                    Some(Wanted::Later) => return Ok(self.before(Gathered::Later)),
                    Some(Wanted::ByKey) => match self.verdict(change)? {
                        Ok(Some(change)) => {
                            self.batch.push(Op::Change(change));
                            self.batch.hold(self.reader.frame());
                        }
                        Ok(None) => {}
                        Err(table) => return self.lacks(table, endpos),
                    },
                    None => {
                        self.reader.seek(at);
                        return Ok(Gathered::Look(Arc::clone(&change.shape), Some(change.kind)));
                    }
                },
                Item::Truncate(shapes) => match self.truncate(&shapes) {
                    Emptied::Tables(wanted) if wanted.is_empty() => {}
                    Emptied::Tables(wanted) => self.batch.push(Op::Truncate(wanted)),
                    Emptied::Later => return Ok(self.before(Gathered::Later)),
                    Emptied::Lacks(table) => return self.lacks(table, endpos),
                    Emptied::Look(shape) => {
                        self.reader.seek(at);
                        return Ok(Gathered::Look(shape, None));
                    }
                    Emptied::Rows(clear) => {
                        // What comes before it is written first, and a transaction of its own is opened for it.
                        if !self.batch.ends.is_empty() {
                            return Ok(self.whole_ones());
                        }
                        self.large = true;
                        if self.batch.ops.is_empty() {
                            return Ok(Gathered::Clear(clear, self.batch.from));
                        }
                        self.reader.seek(at);
                        return Ok(self.piece());
                    }
                },
                Item::Ddl(text) => match self.wanted_ddl(&text)? {
                    Err(later) => return Ok(self.before(later)),
                    Ok(None) => {}
                    Ok(Some(ddl)) => {
                        // As with rows that are removed: what comes before it is written first.
                        if !self.batch.ends.is_empty() {
                            return Ok(self.whole_ones());
                        }
                        self.large = true;
                        if self.batch.ops.is_empty() {
                            return Ok(Gathered::Ddl(Box::new(ddl), self.batch.from));
                        }
                        self.reader.seek(at);
                        return Ok(self.piece());
                    }
                },
                Item::Abort if self.large => {
                    self.rewind(self.reader.position(), self.passed);
                    return Ok(Gathered::TakenBack);
                }
                Item::Abort => self.batch.cut_open(),
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
                return Ok(self.piece());
            }
        }
    }

    /// What is gathered of the open transaction. Tried again, all of the transaction is.
    fn piece(&mut self) -> Gathered {
        let piece = self.give();
        self.batch = Batch { open: true, from: piece.from, ..Batch::default() };
        Gathered::Piece(piece)
    }

    /// Whole transactions, or, if there are none, what keeps the next one from being given out; it is read
    /// again.
    fn before(&mut self, what: Gathered) -> Gathered {
        if !self.batch.ends.is_empty() {
            return self.whole_ones();
        }
        self.rewind(self.begun, self.passed);
        what
    }

    /// What becomes of a change of a table whose Parts come from several snapshots. Err: the table lacks
    /// values that are in no change.
    fn verdict(&self, change: Change) -> Result<std::result::Result<Option<Change>, TableName>> {
        let (table, whole) = (change.shape.table.clone(), self.drift.is_complete(&change.shape));
        let Some(Copy::Done(copied)) = self.tags.get(&table) else {
            return Err(Error::bug(format!("{table} has no tags")));
        };
        match copied.verdict(change, whole, self.skip.xid, self.passed) {
            Verdict::Apply(change) => Ok(Ok(Some(change))),
            Verdict::PassOver => Ok(Ok(None)),
            Verdict::Lacks | Verdict::NoKey => Ok(Err(table)),
        }
    }

    /// Which tables a TRUNCATE empties. Where a copy shows it already, for all of a table or for a part, the
    /// others are emptied without it.
    fn truncate(&mut self, shapes: &[Arc<Shape>]) -> Emptied {
        let (mut tables, mut rows, mut is_shown) = (Vec::new(), Vec::new(), false);
        let (shapes, partly) = self.united_shapes(shapes);
        for leaf in partly {
            match self.wanted_now(&leaf.root) {
                Some(Wanted::Later) => return Emptied::Later,
                Some(Wanted::Nothing) => {}
                _ if leaf.condition.is_none() => return Emptied::Lacks(leaf.root),
                _ => rows.push(Clear { table: leaf.root, condition: leaf.condition }),
            }
            is_shown = true;
        }
        for shape in &shapes {
            let moved = self.tags.contains(&shape.table);
            match self.wanted(shape, None) {
                None => return Emptied::Look(Arc::clone(shape)),
                Some(Wanted::Later) => return Emptied::Later,
                Some(Wanted::Nothing) => is_shown |= moved,
                Some(Wanted::All) => {
                    tables.push(Arc::clone(shape));
                    rows.push(Clear { table: shape.table.clone(), condition: None });
                }
                Some(Wanted::ByKey) => {
                    is_shown = true;
                    if let Some(Copy::Done(copied)) = self.tags.get(&shape.table) {
                        let lacking = copied.lacking(self.skip.xid, self.passed);
                        rows.extend(
                            lacking
                                .into_iter()
                                .map(|condition| Clear { table: shape.table.clone(), condition: Some(condition) }),
                        );
                    }
                }
            }
        }
        if is_shown && !rows.is_empty() { Emptied::Rows(rows) } else { Emptied::Tables(tables) }
    }

    /// What becomes of the open transaction if a table must be copied before it: nothing, if it ends behind endpos.
    fn lacks(&mut self, table: TableName, endpos: Option<Lsn>) -> Result<Gathered> {
        let here = self.reader.position();
        let mut end = None;
        while let Some(item) = self.read()? {
            match item {
                Item::Commit(commit) => {
                    end = Some(commit.end_lsn);
                    break;
                }
                Item::Abort => break,
                _ => {}
            }
        }
        self.reader.seek(here);
        let behind = endpos.filter(|endpos| end.is_some_and(|end| end > *endpos));
        Ok(self.before(behind.map_or(Gathered::Lacks(table), Gathered::Behind)))
    }

    /// Asks the target about what `gather` did not know. An error that names the table if the change
    /// cannot be applied there.
    pub async fn look(&mut self, client: &Client, shape: &Arc<Shape>, kind: Option<Kind>) -> Result<()> {
        match kind {
            Some(kind) if self.tags.contains(&shape.table) => self.drift.check(client, shape, kind).await,
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

    /// Forgets what the target's tables looked like.
    pub fn forget(&mut self) {
        self.drift.forget();
        self.skip.known = None;
    }

    /// What becomes of changes of a table in the open transaction; None: it is no part of the migration.
    pub(super) fn wanted_now(&self, table: &TableName) -> Option<Wanted> {
        self.tags.get(self.known_as(table)).map(|copy| copy.wanted(self.skip.xid, self.passed))
    }

    /// Whether a change to this relation is to be applied; None: not known yet. Looked up once per
    /// transaction and relation.
    fn wanted(&mut self, shape: &Arc<Shape>, kind: Option<Kind>) -> Option<Wanted> {
        if let Some((last, of, wanted)) = &self.skip.known
            && Arc::ptr_eq(last, shape)
            && *of == kind
        {
            return Some(*wanted);
        }
        let wanted = match self.tags.get(&shape.table) {
            Some(copy) => copy.wanted(self.skip.xid, self.passed),
            None if self.ignored.contains(&shape.table) => Wanted::Nothing,
            None if kind.is_none() && self.parents.contains(&shape.table) => Wanted::Nothing,
            None => return None,
        };
        if matches!(wanted, Wanted::All | Wanted::ByKey) && kind.is_some_and(|kind| !self.drift.fits(shape, kind)) {
            return None;
        }
        self.skip.known = Some((Arc::clone(shape), kind, wanted));
        Some(wanted)
    }
}
