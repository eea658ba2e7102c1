//! A copy worker: takes Parts, pipes their rows from source to target, never decoded, and marks them
//! done in the transaction that stored them. At most a few hundred KiB of rows are in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Client;

use super::failure::{OtherSnapshot, Replaced, altered, column_is_gone, explained, table_is_gone};
use super::parts::LARGE_OBJECTS;
use super::pool;
use super::sessions::{Sessions, sessions};
use super::shared::Shared;
use crate::connect::{self, Lane, Side};
use crate::crash;
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Lsn, TableName};
use crate::patience::Losses;
use crate::report::Event;
use crate::source::copy_out::{self, Rows};
use crate::source::large_objects as source_objects;
use crate::source::replication::CopyClient;
use crate::target::copy_in;
use crate::target::large_objects as target_objects;
use crate::target::queue::{self, Copied, FRONT, Part, Place};
use crate::target::sentinel;

/// Bytes sent to the target at once. Row by row costs ten times the CPU.
const CHUNK: usize = 256 << 10;
/// A Part of less is copied together with others, in one transaction; in bytes.
pub const SMALL: i64 = 1 << 20;
/// How many small Parts share a transaction: bounds its locks.
const TOGETHER: i64 = 16;
/// How often a table that was replaced on the source is read again before that is an error.
const READ_AGAIN: usize = 5;
/// How long a worker with nothing to take waits before it looks again.
const IDLE: Duration = Duration::from_millis(200);
/// Waits before a Part is tried again after something that may pass.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// The two sessions of a worker: the source's is under the migration's snapshot.
pub struct Worker {
    shared: Arc<Shared>,
    /// Which of the workers it is, from 0.
    number: usize,
    source: CopyClient,
    target: Client,
    lane: Lane,
    /// The target's backend.
    target_pid: i32,
    /// Tag of the snapshot, and whatever it shows was committed before this.
    tag: (String, Lsn),
    place: Place,
    /// Parts that failed and are tried again, each by itself.
    again: Vec<i64>,
    /// Failures since the last Part that went well.
    failures: usize,
    losses: Losses<()>,
}

/// What was copied in one transaction, with the tag it is marked with.
struct Bundle {
    parts: Vec<Part>,
    copied: Vec<Copied>,
    tag: (String, Lsn),
}

impl Worker {
    /// # Errors
    /// Either side cannot be reached, or the snapshot is gone.
    pub async fn connect(shared: Arc<Shared>, number: usize) -> Result<Worker> {
        let Sessions { source, target, lane, target_pid, tag } = sessions(&shared).await?;
        Ok(Worker {
            shared,
            number,
            source,
            target,
            lane,
            target_pid,
            tag,
            place: FRONT,
            again: Vec::new(),
            failures: 0,
            losses: Losses::default(),
        })
    }

    /// Copies Parts until nobody has one left to give. What may pass is tried again a few times.
    ///
    /// # Errors
    /// What stopped it; nothing half-copied is marked done.
    pub async fn run(mut self) -> Result<()> {
        loop {
            if *self.shared.stopping.borrow() {
                return Ok(());
            }
            if !self.shared.throttle.admits(self.number) && self.again.is_empty() {
                let Worker { shared, number, source, target, .. } = self;
                drop(source);
                let Some(again) = pool::rest(shared, number, target).await? else { return Ok(()) };
                self = again;
                continue;
            }
            let mut taken = Vec::new();
            let done = self.bundle(&mut taken).await;
            self.shared.in_hand.let_go(self.number);
            match done {
                Ok(true) => (self.failures, self.losses) = (0, Losses::default()),
                Ok(false) => match self.nothing_left().await {
                    Ok(true) => return Ok(()),
                    // What others have in hand may come back.
                    Ok(false) => tokio::time::sleep(IDLE).await,
                    Err(err) => self.recover(err, &[]).await?,
                },
                Err(err) => self.recover(err, &taken).await?,
            }
        }
    }

    async fn nothing_left(&self) -> Result<bool> {
        Ok(queue::parts_left(&self.target, &self.shared.migration).await? == 0)
    }

    /// Takes Parts, copies them in one transaction of the target and offers the tables that are whole
    /// then. False if there was none. `taken` says which, also after a failure.
    async fn bundle(&mut self, taken: &mut Vec<Part>) -> Result<bool> {
        self.target.batch_execute("begin").await.on_target(|| "begin a Part".into())?;
        *taken = self.take().await?;
        if taken.is_empty() {
            self.target.batch_execute("rollback").await.on_target(|| "end the copy".into())?;
            return Ok(false);
        }
        if self.shared.exported.is_none() {
            copy_out::begin_under(&mut self.source, None).await?;
            self.tag = copy_out::tag(&mut self.source).await?;
            for part in taken.iter().filter(|part| !is_large_objects(part)) {
                self.same_columns(&part.table).await?;
            }
        }
        let bundle = match taken.as_slice() {
            [part] if is_large_objects(part) => self.copy_large_objects(part).await?,
            parts => self.copy_tables(parts).await?,
        };
        if let Some(exported) = self.shared.exported.as_ref().filter(|_| self.shared.published)
            && !sentinel::is_exported(&self.target, &self.shared.migration, exported).await?
        {
            return Err(Error::new(Exit::Phase, "the copy goes on under another snapshot").cause(OtherSnapshot));
        }
        queue::finish_parts(&self.target, &bundle.copied, &bundle.tag.0, bundle.tag.1).await?;
        crash::before(crash::PART);
        let commit =
            async { self.target.batch_execute("commit").await.on_target(|| format!("commit {}", names(taken))) };
        // The locks on what was read are let go, so that DDL on the source waits for one Part at most.
        let shared = Arc::clone(&self.shared);
        let release = release(&mut self.source, &shared);
        let (committed, released) = tokio::join!(commit, release);
        committed?;
        crash::after(crash::PART);
        for copied in &bundle.copied {
            let (id, rows, bytes) = (copied.id, copied.rows, copied.bytes);
            self.shared.report.send(Event::PartDone { id, rows, bytes });
        }
        self.offer(&bundle.parts).await?;
        released?;
        Ok(true)
    }

    async fn take(&mut self) -> Result<Vec<Part>> {
        let migration = &self.shared.migration;
        while let Some(id) = self.again.pop() {
            if let Some(part) = queue::take_part(&self.target, id).await? {
                return Ok(vec![part]);
            }
        }
        let mut parts = queue::take_parts(&self.target, migration, self.place, i64::MAX, 1).await?;
        if parts.is_empty() && self.place != FRONT {
            // Somebody may have given one back.
            self.place = FRONT;
            parts = queue::take_parts(&self.target, migration, self.place, i64::MAX, 1).await?;
        }
        if let [first] = parts.as_slice() {
            self.place = (first.bytes, first.id);
            if small(first) {
                let more = queue::take_parts(&self.target, migration, self.place, SMALL, TOGETHER - 1).await?;
                parts.extend(more);
                // The large objects go by themselves; their lock ends with the transaction.
                parts.retain(|part| part.parts == 1 && !is_large_objects(part));
                if let Some(last) = parts.last() {
                    self.place = (last.bytes, last.id);
                }
            }
        }
        Ok(parts)
    }

    async fn copy_tables(&mut self, parts: &[Part]) -> Result<Bundle> {
        self.target.batch_execute("savepoint pgmig").await.on_target(|| format!("store {}", names(parts)))?;
        let mut copied = Vec::with_capacity(parts.len());
        for part in parts {
            copied.push(self.pipe(part).await?);
        }
        let tables: Vec<&TableName> = parts.iter().map(Part::read).collect();
        let replaced = copy_out::replaced(&mut self.source, &tables).await?;
        let whole = |copied| Bundle { parts: parts.to_vec(), copied, tag: self.tag.clone() };
        match (replaced.first(), parts) {
            (None, _) => Ok(whole(copied)),
            (Some(_), [part]) => self.copy_replaced(part).await,
            // Each by itself: one snapshot of its own does not fit the others.
            (Some(table), _) => Err(Error::new(Exit::Source, format!("{table} was replaced")).cause(Replaced)),
        }
    }

    /// Neither TRUNCATE nor a rewrite on the source keeps the rows that an older snapshot should see; a
    /// table that was replaced since is read again under a snapshot of its own, and the stream reconciles
    /// it by its tag.
    async fn copy_replaced(&mut self, part: &Part) -> Result<Bundle> {
        if part.leaf.is_some() || (part.parts > 1 && part.range.is_none()) {
            return Err(Error::new(
                Exit::Source,
                format!("{} was truncated or rewritten on the source while it was copied", part.table),
            )
            .hint("run the same command again: the table is copied anew"));
        }
        if !self.shared.follow {
            return Err(Error::new(
                Exit::Source,
                format!("{} was truncated, rewritten or replaced on the source while it was copied", part.table),
            )
            .hint("a copy without following is of one moment: begin again when nobody does that (pgmig cleanup --force, empty the target, pgmig run), or follow changes"));
        }
        tracing::debug!(table = %part.table, "replaced on the source since the snapshot: read again");
        for _ in 0..READ_AGAIN {
            let again = "rollback to savepoint pgmig";
            self.target.batch_execute(again).await.on_target(|| format!("store {part}"))?;
            copy_out::begin_under(&mut self.source, None).await?;
            let tag = copy_out::tag(&mut self.source).await?;
            self.same_columns(&part.table).await?;
            let copied = self.pipe(part).await?;
            if copy_out::replaced(&mut self.source, &[&part.table]).await?.is_empty() {
                return Ok(Bundle { parts: vec![part.clone()], copied: vec![copied], tag });
            }
        }
        Err(Error::new(Exit::Source, format!("{} is truncated or rewritten on the source again and again", part.table))
            .hint("run the same command again when that is over"))
    }

    /// Under a newer snapshot than the plan's a table may have other columns, whose values nothing else would
    /// bring: the stream's changes of them are behind the tag.
    async fn same_columns(&mut self, table: &TableName) -> Result<()> {
        let there = copy_out::columns(&mut self.source, table).await?;
        // One that was dropped is told by its COPY.
        if there.is_empty() || there == copy_in::columns(&self.target, table).await? {
            return Ok(());
        }
        Err(altered(table, None))
    }

    /// Pipes the rows of a Part.
    async fn pipe(&mut self, part: &Part) -> Result<Copied> {
        self.started(part);
        let rows = Rows {
            table: part.read(),
            columns: &part.columns,
            predicate: part.predicate.as_deref(),
            binary: part.binary,
        };
        let (sink, opened) = tokio::join!(
            copy_in::open(&self.target, &self.lane, part, self.shared.late),
            copy_out::open(&mut self.source, &rows)
        );
        // A lock on the target is the likelier reason, and the one that passes.
        let mut sink = sink?;
        opened?;
        let mut total = 0;
        let mut chunk = BytesMut::with_capacity(CHUNK + (CHUNK >> 1));
        loop {
            chunk.resize(copy_in::HEAD, 0);
            let more = self.source.chunk(&mut chunk, CHUNK, || format!("read {part}")).await?;
            let bytes = (chunk.len() - copy_in::HEAD) as u64;
            if bytes > 0 {
                total += bytes;
                self.shared.keep_to_rate(self.number, bytes).await;
                sink.send(&mut chunk).await?;
                self.moved(part, total);
            }
            if !more || sink.refused() {
                break;
            }
        }
        let rows = sink.finish().await?;
        if self.source.rows() != Some(rows) {
            let sent = self.source.rows().unwrap_or_default();
            return Err(Error::new(Exit::Target, format!("store {part}: {sent} rows were read and {rows} stored"))
                .hint("is there a trigger or rule on the target's table?"));
        }
        Ok(Copied { id: part.id, rows, bytes: total })
    }

    async fn copy_large_objects(&mut self, part: &Part) -> Result<Bundle> {
        self.started(part);
        let shared = Arc::clone(&self.shared);
        let _turn = shared.large_objects.acquire().await.during(Exit::Bug, || "wait for a turn".into())?;
        let predicate = part.predicate.as_deref();
        let oids = source_objects::list(&mut self.source, predicate).await?;
        let mut bytes = 0;
        for oids in oids.chunks(source_objects::TOGETHER) {
            let before = bytes;
            let heads = source_objects::read_heads(&mut self.source, oids).await?;
            target_objects::store(&self.target, &heads).await?;
            bytes += heads.iter().map(|(_, head)| head.len() as u64).sum::<u64>();
            for (oid, head) in heads.iter().filter(|(_, head)| head.len() == source_objects::SMALL) {
                let mut offset = head.len() as i64;
                loop {
                    let piece = source_objects::read(&mut self.source, *oid, offset).await?;
                    if !piece.is_empty() {
                        target_objects::write(&self.target, *oid, offset, &piece).await?;
                    }
                    offset += piece.len() as i64;
                    bytes += piece.len() as u64;
                    self.moved(part, bytes);
                    if piece.len() < source_objects::CHUNK {
                        break;
                    }
                }
            }
            self.moved(part, bytes);
            self.shared.keep_to_rate(self.number, bytes - before).await;
        }
        let statements = source_objects::belongings(&mut self.source, predicate, self.shared.belongings).await?;
        for (statement, answer) in target_objects::furnish(&self.target, &statements).await? {
            self.shared.report.warning(format!("{statement}: {answer}"));
        }
        let copied = vec![Copied { id: part.id, rows: oids.len() as u64, bytes }];
        Ok(Bundle { parts: vec![part.clone()], copied, tag: self.tag.clone() })
    }

    fn started(&self, part: &Part) {
        self.shared.in_hand.began(self.number, part, (self.source.backend_pid(), self.target_pid));
        self.shared.report.send(Event::PartStarted { id: part.id, name: part.to_string(), bytes: part.bytes as u64 });
    }

    fn moved(&self, part: &Part, bytes: u64) {
        self.shared.in_hand.moved(self.number);
        self.shared.report.send(Event::PartProgress { id: part.id, bytes });
    }

    /// Gives tables whose last Part is done to the builders. Two workers that end the last two Parts of
    /// a table at once both look after their commit, so that at least one of them sees it whole.
    async fn offer(&self, parts: &[Part]) -> Result<()> {
        let (split, single): (Vec<&Part>, Vec<&Part>) =
            parts.iter().filter(|part| !is_large_objects(part)).partition(|part| part.parts > 1);
        let ready = single.iter().map(|part| (Some(part.table.clone()), part.bytes));
        self.shared.board.offer(ready);
        for part in split {
            let tables = [part.table.clone()];
            if !queue::whole(&self.target, &self.shared.migration, &tables).await?.is_empty() {
                queue::put_off_one_moment(&self.target, &self.shared.migration).await?;
                self.shared.board.offer([(Some(part.table.clone()), part.bytes * i64::from(part.parts))]);
            }
        }
        Ok(())
    }

    /// After a failure: connects again and goes on if that may help.
    ///
    /// # Errors
    /// The failure, if it does not.
    async fn recover(&mut self, err: Error, taken: &[Part]) -> Result<()> {
        if let [part] = taken
            && table_is_gone(&err)
        {
            self.connect_again(None).await?;
            return self.leave_dropped(part, err).await;
        }
        if let [part] = taken
            && column_is_gone(&err)
            && self.shared.follow
        {
            return Err(altered(&part.table, Some(err)));
        }
        if err.connection_lost() {
            let lost = self.losses.note((), err).map_err(explained)?;
            self.connect_again(Some(lost)).await?;
            self.again.extend(taken.iter().rev().map(|part| part.id));
            return Ok(());
        }
        if taken.len() > 1 {
            // Found again by itself, so that it is told, and waited for, of the right table.
            tracing::debug!(error = %err.chain(), "each Part of a bundle is copied by itself");
        } else {
            let wait = WAITS.get(self.failures).filter(|_| err.passing());
            let Some(wait) = wait else { return Err(explained(err)) };
            self.failures += 1;
            self.shared.patience.tried_again();
            self.tell(&err, taken, *wait).await;
            tokio::time::sleep(*wait).await;
        }
        self.connect_again(None).await?;
        self.again.extend(taken.iter().rev().map(|part| part.id));
        Ok(())
    }

    /// Says why a Part waits, and for whom.
    async fn tell(&self, err: &Error, taken: &[Part], wait: Duration) {
        let mut why = err.chain();
        if let (Some(LOCK_NOT_AVAILABLE), [part]) = (err.sqlstate(), taken)
            && let Ok(client) = connect::client(&self.shared.target, Side::Target, "pgmig copy", &[]).await
            && let Ok(holders) = copy_in::holders(&client, &part.table).await
            && !holders.is_empty()
        {
            why = format!("{why}; it is locked by {}", holders.join(", "));
        }
        self.shared.report.warning(format!("{why}; tried again in {} s", wait.as_secs()));
    }

    /// New sessions in place of broken ones; what the old ones had taken is free then. `lost` says that it
    /// is for the server to come back.
    async fn connect_again(&mut self, lost: Option<Error>) -> Result<()> {
        let open = async || {
            let fresh = sessions(&self.shared).await?;
            queue::end_session(&fresh.target, self.target_pid).await?;
            Ok::<_, Error>(fresh)
        };
        let lost = match lost {
            Some(lost) => Err(lost),
            None => open().await,
        };
        let fresh = match lost {
            Err(lost) if lost.passing() || connect::unreachable(&lost) => self.shared.patience.again(lost, open).await,
            opened => opened,
        };
        let Sessions { source, target, lane, target_pid, tag } = fresh.map_err(explained)?;
        (self.source, self.target, self.lane) = (source, target, lane);
        (self.target_pid, self.tag) = (target_pid, tag);
        Ok(())
    }

    /// A table that the source dropped since it was planned stays empty: what the stream still holds of
    /// it lies before the tag it gets.
    async fn leave_dropped(&mut self, part: &Part, err: Error) -> Result<()> {
        let table = part.read();
        copy_out::begin_under(&mut self.source, None).await?;
        let (tag, lsn) = copy_out::tag(&mut self.source).await?;
        if copy_out::exists(&mut self.source, table).await? {
            return Err(explained(err));
        }
        if part.leaf.is_some() {
            // The others were read before it was dropped, and changes of its rows are in the stream.
            return Err(Error::new(
                Exit::Source,
                format!("{table} was dropped on the source while {} was copied", part.table),
            )
            .cause(err)
            .hint("run the same command again: the table is copied anew"));
        }
        queue::finish_dropped(&self.target, &self.shared.migration, table, &tag, lsn).await?;
        self.shared.report.warning(format!("{table} was dropped or renamed on the source: it is empty on the target"));
        self.shared.report.send(Event::PartDone { id: part.id, rows: 0, bytes: 0 });
        self.shared.board.offer([(Some(table.clone()), 0)]);
        release(&mut self.source, &self.shared).await
    }
}

/// Lets go of all that a Part needed on the source; the next one begins under the migration's snapshot.
async fn release(source: &mut CopyClient, shared: &Shared) -> Result<()> {
    match &shared.exported {
        Some(exported) => copy_out::begin_under(source, Some(exported)).await,
        None => source.query("rollback", || "end a Part on the source".into()).await.map(drop),
    }
}

const LOCK_NOT_AVAILABLE: &str = "55P03";

fn is_large_objects(part: &Part) -> bool {
    (part.table.schema.as_str(), part.table.table.as_str()) == LARGE_OBJECTS
}

fn small(part: &Part) -> bool {
    part.bytes <= SMALL && part.parts == 1 && !is_large_objects(part)
}

fn names(parts: &[Part]) -> String {
    match parts {
        [part] => part.to_string(),
        parts => format!("{} small tables", parts.len()),
    }
}
