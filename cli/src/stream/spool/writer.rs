//! Appends frames to the newest segment. What it has written can be read at once; what may be called
//! durable is only what it can prove after a restart.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::frame::Header;
use super::{Position, Result, Shared, SpoolError};
use crate::crash;
use crate::model::Lsn;
use crate::model::wire::ABORT;
use crate::stream::assemble::Frame;

/// Bytes after which a new segment is begun. Builds for development come to that in their tests.
const SEGMENT: u64 = if cfg!(debug_assertions) { 4 << 20 } else { 64 << 20 };
/// Memory that is given back after a frame with one large value.
const LARGE: usize = 4 << 20;

/// Appends frames. There is one.
pub struct SpoolWriter {
    shared: Arc<Shared>,
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) at: Position,
    compressor: zstd::bulk::Compressor<'static>,
    /// The compressed frame, in memory that is kept from frame to frame.
    stored: Vec<u8>,
    /// The largest end_lsn of all frames, and of those up to the last boundary.
    pub(super) newest: Lsn,
    pub(super) provable: Lsn,
    /// Pieces of a transaction are in the spool, and its end is not.
    open: bool,
}

impl SpoolWriter {
    pub(super) fn open(shared: Arc<Shared>, at: Position) -> Result<SpoolWriter> {
        let path = shared.path(at.segment);
        let io = |source| SpoolError::Io { path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        // The name of a new file is durable once its folder is.
        File::open(&shared.dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        let compressor = zstd::bulk::Compressor::new(1).map_err(io)?;
        {
            let mut sizes = shared.sizes();
            if sizes.last().is_none_or(|(segment, _)| *segment < at.segment) {
                sizes.push((at.segment, 0));
            }
        }
        shared.end.send_replace(at);
        Ok(SpoolWriter {
            shared,
            file: Arc::new(file),
            path,
            at,
            compressor,
            stored: Vec::new(),
            newest: Lsn::ZERO,
            provable: Lsn::ZERO,
            open: false,
        })
    }

    /// Appends a frame. It can be read at once; it is durable after the next sync.
    pub fn append(&mut self, frame: &Frame) -> Result<()> {
        if self.at.frame >= SEGMENT {
            self.file.sync_data().map_err(|source| SpoolError::Io { path: self.path.clone(), source })?;
            crash::before(crash::SEGMENT);
            self.begin_segment()?;
            crash::after(crash::SEGMENT);
        }
        self.write(frame, false)
    }

    /// Takes back the transaction whose pieces are in the spool without its end, if there is one: the
    /// stream broke off, and the source sends it again.
    pub fn take_back(&mut self) -> Result<()> {
        match self.open {
            true => self.append(&Frame { body: vec![ABORT], boundary: true, end_lsn: Lsn::ZERO }),
            false => Ok(()),
        }
    }

    /// Begins a durable segment whose head says that nothing before `lsn` is behind it.
    pub(super) fn begin_at(&mut self, lsn: Lsn) -> Result<()> {
        (self.newest, self.provable) = (lsn, lsn);
        self.begin_segment()?;
        self.file.sync_data().map_err(|source| SpoolError::Io { path: self.path.clone(), source })
    }

    fn begin_segment(&mut self) -> Result<()> {
        let (newest, provable, open) = (self.newest, self.provable, self.open);
        *self = SpoolWriter::open(
            Arc::clone(&self.shared),
            Position { segment: self.at.segment + 1, ..Position::default() },
        )?;
        (self.newest, self.provable, self.open) = (newest, provable, open);
        // No boundary: a transaction may be open across the two segments.
        self.write(&Frame { body: Vec::new(), boundary: false, end_lsn: newest }, true)
    }

    fn write(&mut self, frame: &Frame, head: bool) -> Result<()> {
        let io = |path: &Path, source| SpoolError::Io { path: path.to_path_buf(), source };
        self.stored.clear();
        self.stored.reserve(zstd::zstd_safe::compress_bound(frame.body.len()));
        self.compressor.compress_to_buffer(&frame.body, &mut self.stored).map_err(|source| io(&self.path, source))?;
        let header = Header::new(frame, &self.stored, head);
        let mut file = &*self.file;
        file.write_all(&header.bytes)
            .and_then(|()| file.write_all(&self.stored))
            .map_err(|source| io(&self.path, source))?;
        if self.stored.capacity() > LARGE {
            self.stored = Vec::new();
        }
        self.at.frame += header.size();
        self.newest = self.newest.max(frame.end_lsn);
        if frame.boundary {
            self.provable = self.newest;
        }
        if !head {
            self.open = !frame.boundary;
        }
        self.shared.bytes.fetch_add(header.size(), Ordering::Relaxed);
        if let Some(last) = self.shared.sizes().last_mut() {
            last.1 = self.at.frame;
        }
        self.shared.end.send_replace(self.at);
        Ok(())
    }

    /// What `Spool::open` will find durable once all that was appended is synced. The source is never
    /// told more.
    pub fn provable(&self) -> Lsn {
        self.provable
    }

    /// The file to sync so that all that was appended is durable; older segments are already.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}
