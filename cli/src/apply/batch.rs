//! Gathers whole transactions. A Batch is bounded in bytes and changes, so memory stays constant
//! whatever the size of a transaction.

use std::sync::Arc;

use crate::model::wire::{Change, Commit, Shape};
use crate::stream::spool::{OpenFrame, Position};

/// Bytes of values after which a Batch is written.
const BYTES: usize = 6 << 20;
/// Changes after which a Batch is written.
const CHANGES: usize = 50_000;
/// Bytes of frames after which a Batch is written: a change keeps the whole frame that it was read from,
/// also what else is in it and not wanted.
const HELD: usize = 32 << 20;

/// One thing to do on the target.
#[derive(Debug, Clone)]
pub enum Op {
    Change(Change),
    /// Tables that one statement emptied together.
    Truncate(Vec<Arc<Shape>>),
}

impl Op {
    pub fn change(&self) -> Option<&Change> {
        match self {
            Op::Change(change) => Some(change),
            Op::Truncate(_) => None,
        }
    }
}

#[derive(Default)]
pub struct Batch {
    pub ops: Vec<Op>,
    pub bytes: usize,
    /// Bytes of the frames that its changes were read from, and the last of them.
    pub held: usize,
    pub frame: Option<OpenFrame>,
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
    /// Notes the frame that the last change was read from.
    pub fn hold(&mut self, frame: OpenFrame) {
        if self.frame != Some(frame) {
            self.held += frame.bytes;
            self.frame = Some(frame);
        }
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
        self.bytes >= BYTES || self.held >= HELD || self.ops.len() >= CHANGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_of_few_changes_too_if_they_keep_large_frames() {
        let mut batch = Batch::default();
        let frame = |at| OpenFrame { segment: 0, at, bytes: 1 << 20 };
        for change in 0..HELD as u64 >> 20 {
            assert!(!batch.is_full(), "{change}");
            (0..100).for_each(|_| batch.hold(frame(change)));
        }
        assert!(batch.is_full());
    }
}
