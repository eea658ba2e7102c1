//! Gathers whole transactions. A Batch is bounded in bytes and changes, so memory stays constant
//! whatever the size of a transaction.

use std::sync::Arc;

use crate::model::wire::{Change, Commit, Shape};
use crate::stream::spool::Position;

/// Bytes of values after which a Batch is written.
const BYTES: usize = 6 << 20;
/// Changes after which a Batch is written.
const CHANGES: usize = 50_000;

/// One thing to do on the target.
#[derive(Debug, Clone)]
pub enum Op {
    Change(Change),
    /// Tables that one statement emptied together.
    Truncate(Vec<Arc<Shape>>),
}

#[derive(Default)]
pub struct Batch {
    pub ops: Vec<Op>,
    pub bytes: usize,
    /// Each whole transaction in it: how many changes there are up to its end, and its commit.
    pub ends: Vec<(usize, Commit)>,
    /// Whether a transaction has begun and not ended.
    pub open: bool,
    /// Where reading begins again if it is not applied.
    pub from: Position,
    /// Behind it in the spool.
    pub to: Position,
}

impl Batch {
    pub fn push(&mut self, op: Op) {
        self.bytes += match &op {
            Op::Change(change) => change.bytes() + 64,
            Op::Truncate(shapes) => 64 * shapes.len(),
        };
        self.ops.push(op);
    }
    pub fn commit(&mut self, commit: Commit) {
        self.open = false;
        self.ends.push((self.ops.len(), commit));
    }
    /// End of the last whole transaction.
    pub fn last(&self) -> Option<Commit> {
        self.ends.last().map(|(_, commit)| *commit)
    }
    /// Drops the changes of the open transaction.
    pub fn cut_open(&mut self) {
        self.ops.truncate(self.ends.last().map_or(0, |(end, _)| *end));
        self.open = false;
    }
    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES || self.ops.len() >= CHANGES
    }
}
