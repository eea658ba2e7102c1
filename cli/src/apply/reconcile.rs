//! Apply beside copies that go on: what it gathered under other tags it gathers again, it waits at a change
//! of a table that is being copied, and removes rows of which only some copies show that they are gone.

use std::sync::Arc;

use super::gather::Gathered;
use super::tags::Clear;
use super::{Apply, Writer, Written, refused};
use crate::connect::Side;
use crate::error::{Context, Error, Exit, Result};
use crate::model::TableName;
use crate::stream::spool::Position;
use crate::target::layout::rows_of;

/// A large transaction that is open on the target.
pub(super) struct Pieces {
    pub rows: u64,
    _pass: tokio::sync::OwnedRwLockReadGuard<()>,
}

impl<W: Writer> Apply<W> {
    /// Whether the tags are others than those that was gathered by.
    pub(super) fn is_retagged(&self) -> bool {
        self.watched.tags.has_changed().unwrap_or(false)
    }

    /// Takes new tags over, between two transactions of the target.
    pub(super) fn retag(&mut self) {
        if self.pieces.is_some() || !self.is_retagged() {
            return;
        }
        let from = match self.ahead.take() {
            // The reader has moved; the error is told.
            Some(Err(err)) => {
                self.ahead = Some(Err(err));
                return;
            }
            Some(Ok(next)) => match next.gathered {
                Gathered::Batch(batch) | Gathered::Piece(batch) | Gathered::LastPiece(batch) => Some(batch.from),
                Gathered::Clear(_, from) | Gathered::Ddl(_, from) => Some(from),
                _ => None,
            },
            None => None,
        };
        let tags = Arc::clone(&self.watched.tags.borrow_and_update());
        self.gatherer.retag(tags, from, self.replay_lsn);
    }

    /// Waits for more to apply, or for a switch.
    pub(super) async fn wait(&mut self) -> Result<()> {
        tokio::select! {
            () = self.gatherer.reader.wait() => Ok(()),
            changed = self.watched.received.changed() => changed.map_err(|_| Error::new(Exit::Stopped, "receiving has ended")),
            changed = self.watched.switches.changed() => changed.map_err(|_| Error::stopped()),
            changed = self.watched.stopping.changed() => changed.map_err(|_| Error::stopped()),
        }
    }

    /// Waits until a switch is turned.
    pub(super) async fn changed(&mut self) -> Result<()> {
        let watched = &mut self.watched;
        let changed = tokio::select! { it = watched.switches.changed() => it, it = watched.stopping.changed() => it };
        changed.map_err(|_| Error::stopped())
    }

    /// Waits until a copy is done, or a switch is turned.
    pub(super) async fn copied(&mut self) -> Result<()> {
        self.rollback().await?;
        tokio::select! {
            changed = self.watched.tags.changed() => {
                changed.map_err(|_| Error::new(Exit::Stopped, "the run is ending"))?;
                self.watched.tags.mark_changed();
                Ok(())
            }
            changed = self.watched.switches.changed() => changed.map_err(|_| Error::stopped()),
            changed = self.watched.stopping.changed() => changed.map_err(|_| Error::stopped()),
        }
    }

    /// Notes the table without whose rows it cannot go on.
    pub(super) async fn lacks(&mut self, table: TableName) -> Result<Error> {
        self.rollback().await?;
        let what = format!("the stream does not say what became of all rows of {table}");
        self.lacking = Some(table);
        Ok(Error::new(Exit::Differ, what))
    }

    /// Ends the large transaction, if one is open.
    pub(super) async fn rollback(&mut self) -> Result<()> {
        match self.pieces.take() {
            Some(_pieces) => {
                self.unborn();
                self.client.batch_execute("rollback").await.on_target(|| "roll back a large transaction".into())?;
                if std::mem::take(&mut self.altered) { self.forget().await } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    /// Opens a transaction that is written in pieces, unless it is open. False if the tags have changed: what
    /// was gathered is read again from `from`.
    pub(super) async fn open_pieces(&mut self, from: Position) -> Result<bool> {
        if self.pieces.is_none() {
            self.commit_durably(true).await?;
            let pass = Arc::clone(&self.watched.gate).read_owned().await;
            if self.is_retagged() {
                self.gatherer.rewind(from, self.replay_lsn);
                return Ok(false);
            }
            self.client.batch_execute("begin").await.on_target(|| "begin a large transaction".into())?;
            self.pieces = Some(Pieces { rows: 0, _pass: pass });
        }
        Ok(true)
    }

    /// Removes rows that a TRUNCATE of the source removed, of those copies that do not show it.
    pub(super) async fn clear(&mut self, clear: &[Clear], from: Position) -> Result<Written> {
        if !self.open_pieces(from).await? {
            return Ok(Ok(()));
        }
        for Clear { table, condition } in clear {
            let condition = condition.as_deref().unwrap_or("true");
            let sql = format!("delete from {} where {condition}", rows_of(&self.client, Side::Target, table).await?);
            if let Err(err) = self.client.batch_execute(&sql).await.on_target(|| format!("truncate a part of {table}"))
            {
                self.rollback().await?;
                // What was true of the rows of a partition names a column that has another name now.
                if err.sqlstate() == Some(UNDEFINED_COLUMN) {
                    return Err(self.lacks(table.clone()).await?);
                }
                return refused(err, from);
            }
        }
        Ok(Ok(()))
    }
}

const UNDEFINED_COLUMN: &str = "42703";
