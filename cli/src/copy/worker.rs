//! Copies one Part. Bytes are gathered and passed on as they are, never decoded, and at most a few
//! hundred KiB are in memory.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::Client;

use super::parts::LARGE_OBJECTS;
use crate::error::{Context, Error, Exit, Result};
use crate::model::Lsn;
use crate::model::name::literal;
use crate::report::{Event, Reporter};
use crate::source::copy_out::{self, Rows};
use crate::source::{slot, snapshot};
use crate::target::copy_in;
use crate::target::queue::{self, Part};
use crate::{source, target};

/// Bytes sent to the target at once. Row by row costs ten times the CPU.
const CHUNK: usize = 128 << 10;
/// How often a table that was replaced on the source is read again before that is an error.
const READ_AGAIN: usize = 5;

/// The two sessions of a worker: the source's is under the migration's snapshot.
pub struct Worker {
    pub source: Client,
    pub target: Client,
    pub migration: String,
    /// The snapshot, as its holder exported it.
    pub exported: String,
    /// Tag of the snapshot.
    pub tag: String,
    /// Whatever the snapshot shows was committed before this.
    pub tag_lsn: Lsn,
    pub report: Reporter,
}

impl Worker {
    /// Copies Parts until nobody has one left to give.
    pub async fn run(mut self) -> Result<()> {
        while self.copy_one().await? {}
        Ok(())
    }

    /// Takes a Part and copies it in one transaction of the target. False if there was none.
    async fn copy_one(&mut self) -> Result<bool> {
        self.target.batch_execute("begin").await.on_target(|| "begin a Part".into())?;
        let Some(part) = queue::take_part(&self.target, &self.migration).await? else {
            self.target.batch_execute("rollback").await.on_target(|| "end the copy".into())?;
            return Ok(false);
        };
        self.report.send(Event::PartStarted { id: part.id, name: part.to_string(), bytes: part.bytes as u64 });
        self.target
            .batch_execute(&format!("set local application_name = {}", literal(&format!("pgmig part {}", part.id))))
            .await
            .on_target(|| "name the session".into())?;
        let large_objects = (part.table.schema.as_str(), part.table.table.as_str()) == LARGE_OBJECTS;
        let (rows, bytes) = if large_objects {
            let copied = self.copy_large_objects(&part).await?;
            queue::finish_part(&self.target, &part, copied.0, copied.1, &self.tag, self.tag_lsn).await?;
            copied
        } else {
            self.copy_table(&part).await?
        };
        self.target.batch_execute("commit").await.on_target(|| format!("commit {part}"))?;
        self.report.send(Event::PartDone { id: part.id, rows, bytes });
        Ok(true)
    }

    /// Copies the Part and marks it done. Neither TRUNCATE nor a rewrite on the source keeps the rows that
    /// an older snapshot should see; a table that was replaced since is read again under a snapshot of
    /// its own, and the stream reconciles it by its tag.
    async fn copy_table(&self, part: &Part) -> Result<(u64, u64)> {
        let doing = || format!("store {part}");
        self.target.batch_execute("savepoint pgmig").await.on_target(doing)?;
        let copied = self.pipe(part).await?;
        if !copy_out::replaced(&self.source, &part.table).await? {
            queue::finish_part(&self.target, part, copied.0, copied.1, &self.tag, self.tag_lsn).await?;
            return Ok(copied);
        }
        if part.parts > 1 {
            return Err(Error::new(
                Exit::Source,
                format!("{} was truncated or rewritten on the source while it was copied", part.table),
            )
            .hint("run the same command again: the table is copied anew"));
        }
        tracing::debug!(table = %part.table, "replaced on the source since the snapshot: read again");
        for _ in 0..READ_AGAIN {
            self.target.batch_execute("rollback to savepoint pgmig").await.on_target(doing)?;
            self.source.batch_execute("rollback").await.on_source(|| "leave the snapshot".into())?;
            snapshot::begin_under(&self.source, None).await?;
            let tag = snapshot::tag(&self.source).await?;
            let tag_lsn = slot::current_lsn(&self.source).await?;
            let copied = self.pipe(part).await?;
            if !copy_out::replaced(&self.source, &part.table).await? {
                self.source.batch_execute("rollback").await.on_source(|| "leave the snapshot".into())?;
                snapshot::begin_under(&self.source, Some(&self.exported)).await?;
                queue::finish_part(&self.target, part, copied.0, copied.1, &tag, tag_lsn).await?;
                return Ok(copied);
            }
        }
        Err(Error::new(Exit::Source, format!("{} is truncated or rewritten on the source again and again", part.table))
            .hint("run the same command again when that is over"))
    }

    /// Copies every large object; returns how many, and their bytes.
    async fn copy_large_objects(&self, part: &Part) -> Result<(u64, u64)> {
        let oids = source::large_objects::list(&self.source).await?;
        let mut total = 0;
        for &oid in &oids {
            target::large_objects::create(&self.target, oid).await?;
            let mut offset = 0;
            loop {
                let bytes = source::large_objects::read(&self.source, oid, offset).await?;
                if !bytes.is_empty() {
                    target::large_objects::write(&self.target, oid, offset, &bytes).await?;
                }
                offset += bytes.len() as i64;
                total += bytes.len() as u64;
                self.report.send(Event::PartProgress { id: part.id, bytes: total });
                if bytes.len() < source::large_objects::CHUNK as usize {
                    break;
                }
            }
        }
        Ok((oids.len() as u64, total))
    }

    /// Pipes the rows; returns how many, and the bytes of the stream.
    async fn pipe(&self, part: &Part) -> Result<(u64, u64)> {
        let rows = Rows {
            table: &part.table,
            columns: &part.columns,
            predicate: part.predicate.as_deref(),
            binary: part.binary,
        };
        let sink = copy_in::open(&self.target, part).await?;
        let out = copy_out::open(&self.source, &rows).await?;
        let (mut sink, mut out) = (std::pin::pin!(sink), std::pin::pin!(out));
        let mut total = 0;
        let mut chunk = BytesMut::with_capacity(CHUNK + (CHUNK >> 1));
        loop {
            let row: Option<Bytes> = out.try_next().await.on_source(|| format!("read {part}"))?;
            let end = row.is_none();
            if let Some(row) = row {
                if row.len() >= CHUNK && chunk.is_empty() {
                    // A large value goes as it came, without another copy of it in memory.
                    total += row.len() as u64;
                    sink.as_mut().send(row).await.on_target(|| format!("store {part}"))?;
                    self.report.send(Event::PartProgress { id: part.id, bytes: total });
                    continue;
                }
                chunk.extend_from_slice(&row);
            }
            if chunk.len() >= CHUNK || (end && !chunk.is_empty()) {
                total += chunk.len() as u64;
                sink.as_mut().send(chunk.split().freeze()).await.on_target(|| format!("store {part}"))?;
                self.report.send(Event::PartProgress { id: part.id, bytes: total });
            }
            if end {
                break;
            }
        }
        let rows = sink.as_mut().finish().await.on_target(|| format!("store {part}"))?;
        Ok((rows, total))
    }
}
