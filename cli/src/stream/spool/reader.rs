//! Reads items in order, across frames and segments, and goes back where it is told to. It deletes
//! nothing: pruning is for whoever knows what is applied.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::frame::{read_body, read_header};
use super::{Position, Result, Shared, SpoolError};
use crate::model::wire::{Item, Reader};

/// A frame in memory: its place, and the bytes that its items keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFrame {
    pub segment: u64,
    pub at: u64,
    pub bytes: usize,
}

/// Reads items in order, across frames and segments.
pub struct SpoolReader {
    shared: Arc<Shared>,
    end: watch::Receiver<Position>,
    /// The next item; while a frame is open, the frame it came from.
    at: Position,
    /// Bytes of the body of the open frame.
    body: usize,
    /// Where the frame after the open one begins.
    next_frame: u64,
    file: Option<(File, PathBuf)>,
    reader: Reader,
    /// Whether `reader` holds the frame at `at`.
    open: bool,
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>, segment: u64) -> SpoolReader {
        let end = shared.end.subscribe();
        let at = Position { segment, ..Position::default() };
        SpoolReader { shared, end, at, body: 0, next_frame: 0, file: None, reader: Reader::default(), open: false }
    }

    /// The next item; None if the end is reached for now.
    #[expect(clippy::should_implement_trait, reason = "it fails, and None is not its end")]
    pub fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if self.open {
                let item = self
                    .reader
                    .next()
                    .map_err(|source| SpoolError::Record { path: self.shared.path(self.at.segment), source })?;
                if let Some(item) = item {
                    self.at.record = self.reader.position();
                    return Ok(Some(item));
                }
                self.open = false;
                self.at = Position { segment: self.at.segment, frame: self.next_frame, record: 0 };
            }
            *self.shared.read.lock().unwrap_or_else(PoisonError::into_inner) = self.at;
            let end = *self.end.borrow();
            if (self.at.segment, self.at.frame) >= (end.segment, end.frame) {
                return Ok(None);
            }
            self.open_frame(end)?;
        }
    }

    fn open_frame(&mut self, end: Position) -> Result<()> {
        let path = self.shared.path(self.at.segment);
        let io = |source| SpoolError::Io { path: path.clone(), source };
        if self.file.as_ref().is_none_or(|(_, open)| *open != path) {
            self.file = Some((File::open(&path).map_err(io)?, path.clone()));
        }
        let Some((file, _)) = &self.file else { return Ok(()) };
        let size = if self.at.segment == end.segment { end.frame } else { file.metadata().map_err(io)?.len() };
        if self.at.frame >= size {
            self.at = Position { segment: self.at.segment + 1, ..Position::default() };
            return Ok(());
        }
        let header = read_header(file, &path, self.at.frame, size)?;
        let body = read_body(file, &path, self.at.frame, &header)?;
        self.next_frame = self.at.frame + header.size();
        self.body = body.len();
        self.reader.open(Bytes::from(body));
        // After a seek: the relations before the record are needed, the items are not.
        while self.reader.position() < self.at.record {
            self.reader.next().map_err(|source| SpoolError::Record { path: path.clone(), source })?;
        }
        self.open = true;
        Ok(())
    }

    /// Where the next item is.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The frame that the last item is from.
    pub fn frame(&self) -> OpenFrame {
        OpenFrame { segment: self.at.segment, at: self.at.frame, bytes: self.body }
    }

    /// Goes back (or on) to a position that `position` gave.
    pub fn seek(&mut self, to: Position) {
        self.at = to;
        self.open = false;
    }

    /// Whether the spool holds another frame behind the one that is being read.
    pub fn has_more(&self) -> bool {
        let end = *self.end.borrow();
        let next = if self.open { self.next_frame } else { self.at.frame };
        (self.at.segment, next) < (end.segment, end.frame)
    }

    /// Waits until something is appended behind what has been read.
    pub async fn wait(&mut self) {
        let at = (self.at.segment, self.at.frame);
        // The sender lives as long as the reader: both hold `shared`.
        let _ = self.end.wait_for(|end| (end.segment, end.frame) > at).await;
    }
}
