//! Gathers whole transactions. A Batch is bounded in bytes and changes, so memory stays constant
//! whatever the size of a transaction.

use std::sync::Arc;

use crate::model::wire::{Change, Commit, Shape};

/// Bytes of values after which a Batch is written.
const BYTES: usize = 4 << 20;
/// Changes after which a Batch is written.
const CHANGES: usize = 20_000;

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
    /// Whole transactions in it.
    pub transactions: u64,
    /// End of the last whole transaction.
    pub last: Option<Commit>,
    /// Each whole transaction in it: how many changes there are up to its end, and its commit.
    pub ends: Vec<(usize, Commit)>,
    /// Whether a transaction has begun and not ended.
    pub open: bool,
    /// Where the open transaction's changes begin.
    whole: usize,
}

impl Batch {
    pub fn begin(&mut self) {
        self.open = true;
        self.whole = self.ops.len();
    }
    pub fn push(&mut self, op: Op) {
        self.bytes += match &op {
            Op::Change(change) => change.bytes() + 64,
            Op::Truncate(shapes) => 64 * shapes.len(),
        };
        self.ops.push(op);
    }
    pub fn commit(&mut self, commit: Commit) {
        self.open = false;
        self.transactions += 1;
        self.last = Some(commit);
        self.ends.push((self.ops.len(), commit));
    }
    /// Drops the changes of the open transaction.
    pub fn cut_open(&mut self) {
        self.ops.truncate(self.whole);
        self.open = false;
    }
    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES || self.ops.len() >= CHANGES
    }
}
