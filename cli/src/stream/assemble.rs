//! Gathers the records of decoded transactions into frames for the spool. It keeps at most one
//! frame in memory, whatever the size of a transaction, and never drops or reorders a record.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Lsn;
use crate::model::wire::{Commit, Encoder, Kind, Shape};

/// Bytes after which a frame is closed at the end of a transaction.
const FRAME: usize = 256 << 10;
/// Bytes after which a frame is closed inside a transaction.
const PIECE: usize = 1 << 20;
/// Relations after which a frame is closed: ids are 16 bit and hold inside a frame.
const RELATIONS: usize = 50_000;

/// Number of a shape for as long as the receiver lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShapeId(u32);

/// A closed frame.
pub struct Frame {
    pub body: Vec<u8>,
    /// Whether it ends where a transaction ends.
    pub boundary: bool,
    /// End of the last commit record in it; zero if it holds none.
    pub end_lsn: Lsn,
}

#[derive(Default)]
pub struct Assembler {
    shapes: Vec<Arc<Shape>>,
    ids: HashMap<Arc<Shape>, ShapeId>,
    local: HashMap<ShapeId, u16>,
    encoder: Encoder,
    open: Option<u32>,
    /// Whether the open transaction has a record: an empty one leaves no trace.
    begun: bool,
    end_lsn: Lsn,
    received: Lsn,
    /// As `received`, but for what has left in frames.
    spooled: Lsn,
}

impl Assembler {
    /// The number of a shape; the same for equal shapes.
    pub fn intern(&mut self, shape: Shape) -> ShapeId {
        if let Some(&id) = self.ids.get(&shape) {
            return id;
        }
        let id = ShapeId(self.shapes.len() as u32);
        let shape = Arc::new(shape);
        self.shapes.push(Arc::clone(&shape));
        self.ids.insert(shape, id);
        id
    }

    pub fn begin(&mut self, xid: u32) {
        self.open = Some(xid);
        self.begun = false;
    }

    /// Opens a change record; the caller appends its values, key first.
    pub fn change(&mut self, kind: Kind, shape: ShapeId) -> &mut Encoder {
        self.ensure_begun();
        let id = self.declare(shape);
        self.encoder.change(kind, id);
        &mut self.encoder
    }

    pub fn truncate(&mut self, shapes: &[ShapeId]) {
        self.ensure_begun();
        let ids: Vec<u16> = shapes.iter().map(|&shape| self.declare(shape)).collect();
        self.encoder.truncate(&ids);
    }

    /// DDL, where it stands between the changes.
    pub fn ddl(&mut self, text: &[u8]) {
        self.ensure_begun();
        self.encoder.ddl(text);
    }

    pub fn commit(&mut self, commit: Commit) {
        if self.begun {
            self.encoder.commit(commit);
            self.end_lsn = commit.end_lsn;
        }
        self.open = None;
        self.begun = false;
        self.received = self.received.max(commit.end_lsn);
        self.nothing_waits();
    }

    /// A keepalive: everything that committed up to `wal_end` has been sent. Inside a transaction
    /// that says nothing yet.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.open.is_none() {
            self.received = self.received.max(wal_end);
            self.nothing_waits();
        }
    }

    /// Every transaction whose commit ends at or before this has left in a frame: it may still be in
    /// the last one that `take` gave, and never in the buffer.
    pub fn spooled(&self) -> Lsn {
        self.spooled
    }

    fn nothing_waits(&mut self) {
        if self.encoder.buffer.is_empty() {
            self.spooled = self.received;
        }
    }

    /// Whether a transaction is open of which there is a record.
    pub fn in_transaction(&self) -> bool {
        self.begun
    }

    /// The next frame, if one is full, or if `drained` says that nothing more waits in the socket.
    pub fn take(&mut self, drained: bool) -> Option<Frame> {
        let boundary = !self.begun;
        let size = self.encoder.buffer.len();
        let full = size >= PIECE || self.local.len() >= RELATIONS || (boundary && (size >= FRAME || drained));
        if size == 0 || !full {
            return None;
        }
        self.local.clear();
        self.spooled = if boundary { self.received } else { self.spooled.max(self.end_lsn) };
        let body = std::mem::take(&mut self.encoder.buffer);
        Some(Frame { body, boundary, end_lsn: std::mem::take(&mut self.end_lsn) })
    }

    /// Takes the memory of a frame that has been written for the next one.
    pub fn reuse(&mut self, frame: Frame) {
        if self.encoder.buffer.capacity() == 0 && frame.body.capacity() <= 2 * PIECE {
            self.encoder.buffer = frame.body;
            self.encoder.buffer.clear();
        }
    }

    fn ensure_begun(&mut self) {
        if !self.begun {
            self.encoder.begin(self.open.unwrap_or_default());
            self.begun = true;
        }
    }

    fn declare(&mut self, shape: ShapeId) -> u16 {
        if let Some(&id) = self.local.get(&shape) {
            return id;
        }
        let id = self.local.len() as u16;
        self.local.insert(shape, id);
        self.encoder.relation(id, &self.shapes[shape.0 as usize]);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    fn transaction(into: &mut Assembler, end: u64, whole: bool) {
        let shape = Shape { table: TableName::new("s", "t"), columns: Vec::new(), types: Vec::new(), key: Vec::new() };
        let shape = into.intern(shape);
        into.begin(1);
        into.change(Kind::Insert, shape);
        if whole {
            into.commit(Commit { end_lsn: Lsn(end), commit_at: 0 });
        }
    }

    #[test]
    fn what_still_waits_in_the_buffer_is_not_called_spooled() {
        let mut into = Assembler::default();
        transaction(&mut into, 90, true);
        transaction(&mut into, 110, false);
        assert!(into.take(true).is_none());
        assert_eq!(into.spooled(), Lsn::ZERO);
        into.commit(Commit { end_lsn: Lsn(110), commit_at: 0 });
        assert_eq!(into.spooled(), Lsn::ZERO);
        assert!(into.take(true).is_some_and(|frame| frame.boundary && frame.end_lsn == Lsn(110)));
        assert_eq!(into.spooled(), Lsn(110));
        into.keepalive(Lsn(200));
        assert_eq!(into.spooled(), Lsn(200));
    }

    #[test]
    fn an_open_transaction_without_a_record_is_a_boundary() {
        let mut into = Assembler::default();
        transaction(&mut into, 90, true);
        into.begin(2);
        assert!(into.take(true).is_some_and(|frame| frame.boundary));
        assert_eq!(into.spooled(), Lsn(90));
        into.keepalive(Lsn(500));
        assert_eq!(into.spooled(), Lsn(90));
    }
}
