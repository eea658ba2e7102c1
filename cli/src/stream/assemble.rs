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

    pub fn commit(&mut self, commit: Commit) {
        if self.begun {
            self.encoder.commit(commit);
            self.end_lsn = commit.end_lsn;
        }
        self.open = None;
        self.begun = false;
        self.received = self.received.max(commit.end_lsn);
    }

    /// A keepalive: everything that committed up to `wal_end` has been sent. Inside a transaction
    /// that says nothing yet.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.open.is_none() {
            self.received = self.received.max(wal_end);
        }
    }

    /// Every transaction whose commit ends at or before this has come through here.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// Whether a transaction has begun and not ended.
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The next frame, if one is full, or if `drained` says that nothing more waits in the socket.
    pub fn take(&mut self, drained: bool) -> Option<Frame> {
        let boundary = self.open.is_none();
        let size = self.encoder.buffer.len();
        let full = size >= PIECE || self.local.len() >= RELATIONS || (boundary && (size >= FRAME || drained));
        if size == 0 || !full {
            return None;
        }
        self.local.clear();
        let body = std::mem::take(&mut self.encoder.buffer);
        Some(Frame { body, boundary, end_lsn: std::mem::take(&mut self.end_lsn) })
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
