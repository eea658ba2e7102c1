//! The spool: changes received and not yet applied, in append-only segment files. What was synced
//! survives a crash; a torn tail is cut when it is opened; a frame whose checksum is wrong is an
//! error, never skipped. Nothing here knows what a change means.
//!
//! A segment is a run of frames: a header of 32 bytes, then the records (`model::wire`), compressed
//! with zstd. Numbers are little endian.
//!
//! ```text
//! u32 magic  u8 version  u8 flags (1: ends at a transaction's end, 2: head of a segment)  u16 0
//! u32 stored bytes  u32 raw bytes  u64 end_lsn  u32 0  u32 crc32 of the 28 bytes before and the body
//! ```
//!
//! Each segment after the first begins with an empty frame whose end_lsn is the largest of all
//! segments before it: what the target must have applied if those are gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::assemble::Frame;
use crate::model::Lsn;
use crate::model::wire::{Damaged, Item, Reader};

const MAGIC: u32 = u32::from_le_bytes(*b"PGMS");
const VERSION: u8 = 1;
const HEADER: usize = 32;
/// Bytes after which a new segment is begun.
const SEGMENT: u64 = 64 << 20;
/// No frame is near this large: a length beyond it is damage. One value may be up to 1 GiB.
const FRAME_MAX: u32 = 2 << 30;

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: frame at byte {at} is damaged: {what}")]
    Damaged { path: PathBuf, at: u64, what: &'static str },
    #[error("{path}: {source}")]
    Record { path: PathBuf, source: Damaged },
}

type Result<T, E = SpoolError> = std::result::Result<T, E>;

/// A place in the spool: segment, byte of a frame in it, byte of a record in the frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub segment: u64,
    pub frame: u64,
    pub record: usize,
}

struct Header {
    stored: u32,
    raw: u32,
    boundary: bool,
    head: bool,
    end_lsn: Lsn,
    crc: u32,
    bytes: [u8; HEADER],
}

impl Header {
    fn new(frame: &Frame, stored: &[u8], head: bool) -> Header {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = u8::from(frame.boundary) | u8::from(head) << 1;
        bytes[8..12].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&(frame.body.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&frame.end_lsn.0.to_le_bytes());
        let crc = checksum(&bytes, stored);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        Header {
            stored: stored.len() as u32,
            raw: frame.body.len() as u32,
            boundary: frame.boundary,
            head,
            end_lsn: frame.end_lsn,
            crc,
            bytes,
        }
    }

    fn parse(bytes: [u8; HEADER]) -> std::result::Result<Header, &'static str> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if u32_at(0) != MAGIC {
            return Err("no frame begins here");
        }
        if bytes[4] != VERSION {
            return Err("written by another version of pgmig");
        }
        let (stored, raw) = (u32_at(8), u32_at(12));
        if stored > FRAME_MAX || raw > FRAME_MAX {
            return Err("impossible length");
        }
        let end_lsn = Lsn(u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32);
        Ok(Header {
            stored,
            raw,
            boundary: bytes[5] & 1 == 1,
            head: bytes[5] & 2 == 2,
            end_lsn,
            crc: u32_at(28),
            bytes,
        })
    }

    fn size(&self) -> u64 {
        HEADER as u64 + u64::from(self.stored)
    }
}

fn checksum(header: &[u8; HEADER], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..HEADER - 4]);
    hasher.update(body);
    hasher.finalize()
}

/// What writer, reader and pruning share.
struct Shared {
    dir: PathBuf,
    /// Where the next frame will be written.
    end: watch::Sender<Position>,
    /// How far the reader has come, open transaction included.
    read: Mutex<Position>,
    /// Bytes of the segments that are there.
    bytes: AtomicU64,
    /// Sizes of the segments, oldest first.
    sizes: Mutex<Vec<(u64, u64)>>,
}

impl Shared {
    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("segment-{segment:010}"))
    }
    fn sizes(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u64)>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The spool of one migration.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

/// What was found when the spool was opened.
pub struct Opened {
    pub spool: Spool,
    pub writer: SpoolWriter,
    /// Everything up to the end of this commit record is in the spool or was before; zero if the
    /// spool is empty.
    pub durable: Lsn,
    /// Everything up to here was in segments that are gone; zero if none are.
    pub base: Lsn,
    /// Bytes cut off behind the last whole transaction.
    pub cut_bytes: u64,
}

impl Spool {
    /// Opens the folder, making it if it is not there, and cuts off what a crash left unfinished.
    pub fn open(dir: &Path) -> Result<Opened> {
        fs::create_dir_all(dir).map_err(|source| SpoolError::Io { path: dir.to_path_buf(), source })?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(dir).map_err(|source| SpoolError::Io { path: dir.to_path_buf(), source })? {
            let entry = entry.map_err(|source| SpoolError::Io { path: dir.to_path_buf(), source })?;
            if let Some(number) =
                entry.file_name().to_str().and_then(|name| name.strip_prefix("segment-")?.parse().ok())
            {
                segments.push(number);
            }
        }
        segments.sort_unstable();
        let shared = Shared {
            dir: dir.to_path_buf(),
            end: watch::Sender::new(Position::default()),
            read: Mutex::new(Position { segment: segments.first().copied().unwrap_or(0), ..Position::default() }),
            bytes: AtomicU64::new(0),
            sizes: Mutex::new(Vec::new()),
        };
        let last = segments.last().copied();
        // The end of the last frame that ends at a transaction's end.
        let (mut end, mut durable) =
            (Position { segment: segments.first().copied().unwrap_or(0), ..Position::default() }, Lsn::ZERO);
        let (mut total, mut newest, mut base) = (0, Lsn::ZERO, Lsn::ZERO);
        for &segment in &segments {
            let path = shared.path(segment);
            let io = |source| SpoolError::Io { path: path.clone(), source };
            let file = File::open(&path).map_err(io)?;
            let size = file.metadata().map_err(io)?.len();
            total += size;
            let mut at = 0;
            while at < size {
                match read_header(&file, &path, at, size) {
                    Ok(header) if at + header.size() <= size => {
                        // A tail that was being written may have any bytes in it.
                        if Some(segment) == last && read_body(&file, &path, at, &header).is_err() {
                            break;
                        }
                        if at == 0 && header.head && segments.first() == Some(&segment) {
                            base = header.end_lsn;
                            end = Position { segment, frame: header.size(), record: 0 };
                            durable = base;
                        }
                        at += header.size();
                        newest = newest.max(header.end_lsn);
                        if header.boundary {
                            end = Position { segment, frame: at, record: 0 };
                            durable = newest;
                        }
                    }
                    Ok(_) | Err(SpoolError::Damaged { .. }) if Some(segment) == last => break,
                    Ok(_) => return Err(SpoolError::Damaged { path, at, what: "cut short" }),
                    Err(err) => return Err(err),
                }
            }
        }
        let mut kept = 0;
        for &segment in &segments {
            let path = shared.path(segment);
            let io = |source| SpoolError::Io { path: path.clone(), source };
            if segment > end.segment {
                fs::remove_file(&path).map_err(io)?;
                continue;
            }
            if segment == end.segment {
                OpenOptions::new().write(true).open(&path).map_err(io)?.set_len(end.frame).map_err(io)?;
            }
            let size = fs::metadata(&path).map_err(io)?.len();
            kept += size;
            shared.sizes().push((segment, size));
        }
        shared.bytes.store(kept, Ordering::Relaxed);
        let shared = Arc::new(shared);
        let mut writer = SpoolWriter::open(Arc::clone(&shared), end)?;
        // A killed process may have left it to the kernel.
        writer.file.sync_data().map_err(|source| SpoolError::Io { path: dir.to_path_buf(), source })?;
        (writer.newest, writer.provable) = (durable, durable);
        Ok(Opened { spool: Spool(shared), writer, durable, base, cut_bytes: total - kept })
    }

    /// A reader that stands at the oldest record.
    pub fn reader(&self) -> SpoolReader {
        let segment = self.0.sizes().first().map_or(0, |&(segment, _)| segment);
        SpoolReader {
            shared: Arc::clone(&self.0),
            end: self.0.end.subscribe(),
            at: Position { segment, ..Position::default() },
            next_frame: 0,
            file: None,
            frame: None,
        }
    }

    /// Bytes on disk from `from` to the end.
    pub fn bytes_after(&self, from: Position) -> u64 {
        let end = *self.0.end.borrow();
        let sizes = self.0.sizes();
        let after: u64 = sizes.iter().filter(|(segment, _)| *segment > from.segment).map(|(_, size)| size).sum();
        let here = sizes.iter().find(|(segment, _)| *segment == from.segment).map_or(0, |(_, size)| *size);
        if from >= end { 0 } else { after + here.saturating_sub(from.frame) }
    }

    /// Bytes behind what the reader has come to.
    pub fn unread_bytes(&self) -> u64 {
        let read = *self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        self.bytes_after(read)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Deletes the segments before the one `applied` stands in.
    pub fn prune(&self, applied: Position) -> Result<()> {
        let gone: Vec<(u64, u64)> = {
            let mut sizes = self.0.sizes();
            let keep = sizes.iter().position(|(segment, _)| *segment >= applied.segment).unwrap_or(0);
            sizes.drain(..keep).collect()
        };
        for (segment, size) in gone {
            let path = self.0.path(segment);
            fs::remove_file(&path).map_err(|source| SpoolError::Io { path, source })?;
            self.0.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Appends frames. There is one.
pub struct SpoolWriter {
    shared: Arc<Shared>,
    file: Arc<File>,
    path: PathBuf,
    at: Position,
    compressor: zstd::bulk::Compressor<'static>,
    /// The largest end_lsn of all frames, and of those up to the last boundary.
    newest: Lsn,
    provable: Lsn,
}

impl SpoolWriter {
    fn open(shared: Arc<Shared>, at: Position) -> Result<SpoolWriter> {
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
        Ok(SpoolWriter { shared, file: Arc::new(file), path, at, compressor, newest: Lsn::ZERO, provable: Lsn::ZERO })
    }

    /// Appends a frame. It can be read at once; it is durable after the next sync.
    pub fn append(&mut self, frame: &Frame) -> Result<()> {
        let io = |path: &Path, source| SpoolError::Io { path: path.to_path_buf(), source };
        if self.at.frame >= SEGMENT {
            self.file.sync_data().map_err(|source| io(&self.path, source))?;
            let (newest, provable) = (self.newest, self.provable);
            *self = SpoolWriter::open(
                Arc::clone(&self.shared),
                Position { segment: self.at.segment + 1, ..Position::default() },
            )?;
            (self.newest, self.provable) = (newest, provable);
            // No boundary: a transaction may be open across the two segments.
            self.write(&Frame { body: Vec::new(), boundary: false, end_lsn: newest }, true)?;
        }
        self.write(frame, false)
    }

    fn write(&mut self, frame: &Frame, head: bool) -> Result<()> {
        let io = |path: &Path, source| SpoolError::Io { path: path.to_path_buf(), source };
        let stored = self.compressor.compress(&frame.body).map_err(|source| io(&self.path, source))?;
        let header = Header::new(frame, &stored, head);
        let mut bytes = Vec::with_capacity(HEADER + stored.len());
        bytes.extend_from_slice(&header.bytes);
        bytes.extend_from_slice(&stored);
        (&*self.file).write_all(&bytes).map_err(|source| io(&self.path, source))?;
        self.at.frame += header.size();
        self.newest = self.newest.max(frame.end_lsn);
        if frame.boundary {
            self.provable = self.newest;
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

/// Reads items in order, across frames and segments.
pub struct SpoolReader {
    shared: Arc<Shared>,
    end: watch::Receiver<Position>,
    /// The next item; while a frame is open, the frame it came from.
    at: Position,
    /// Where the frame after the open one begins.
    next_frame: u64,
    file: Option<(File, PathBuf)>,
    frame: Option<Reader>,
}

impl SpoolReader {
    /// The next item; None if the end is reached for now.
    #[expect(clippy::should_implement_trait, reason = "it fails, and None is not its end")]
    pub fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(frame) = &mut self.frame {
                let item = frame
                    .next()
                    .map_err(|source| SpoolError::Record { path: self.shared.path(self.at.segment), source })?;
                if let Some(item) = item {
                    self.at.record = frame.position();
                    return Ok(Some(item));
                }
                self.frame = None;
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
        let mut frame = Reader::new(Bytes::from(body));
        // After a seek: the relations before the record are needed, the items are not.
        while frame.position() < self.at.record {
            frame.next().map_err(|source| SpoolError::Record { path: path.clone(), source })?;
        }
        self.frame = Some(frame);
        Ok(())
    }

    /// Where the next item is.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Goes back (or on) to a position that `position` gave.
    pub fn seek(&mut self, to: Position) {
        self.at = to;
        self.frame = None;
    }

    /// Waits until something is appended behind what has been read.
    pub async fn wait(&mut self) {
        let at = (self.at.segment, self.at.frame);
        // The sender lives as long as the reader: both hold `shared`.
        let _ = self.end.wait_for(|end| (end.segment, end.frame) > at).await;
    }
}

fn read_header(file: &File, path: &Path, at: u64, size: u64) -> Result<Header> {
    let damaged = |what| SpoolError::Damaged { path: path.to_path_buf(), at, what };
    if size - at < HEADER as u64 {
        return Err(damaged("cut short"));
    }
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, at).map_err(|source| SpoolError::Io { path: path.to_path_buf(), source })?;
    Header::parse(bytes).map_err(damaged)
}

fn read_body(file: &File, path: &Path, at: u64, header: &Header) -> Result<Vec<u8>> {
    let damaged = |what| SpoolError::Damaged { path: path.to_path_buf(), at, what };
    let mut stored = vec![0; header.stored as usize];
    file.read_exact_at(&mut stored, at + HEADER as u64).map_err(|_| damaged("cut short"))?;
    if checksum(&header.bytes, &stored) != header.crc {
        return Err(damaged("wrong checksum"));
    }
    let body = zstd::bulk::decompress(&stored, header.raw as usize).map_err(|_| damaged("not zstd"))?;
    if body.len() != header.raw as usize { Err(damaged("wrong length")) } else { Ok(body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::{Commit, Encoder};

    fn frame(end: u64, boundary: bool) -> Frame {
        let mut encoder = Encoder::default();
        encoder.begin(end as u32);
        encoder.commit(Commit { end_lsn: Lsn(end), commit_at: 0 });
        Frame { body: encoder.buffer, boundary, end_lsn: Lsn(end) }
    }
    fn read_all(reader: &mut SpoolReader) -> Vec<u64> {
        let mut ends = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            if let Item::Commit(commit) = item {
                ends.push(commit.end_lsn.0);
            }
        }
        ends
    }

    #[test]
    fn what_was_appended_is_read_again_after_opening() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        assert_eq!(opened.durable, Lsn::ZERO);
        for end in 1..=5 {
            opened.writer.append(&frame(end, true)).unwrap();
        }
        let mut reader = opened.spool.reader();
        assert_eq!(read_all(&mut reader), [1, 2, 3, 4, 5]);
        assert_eq!(opened.spool.bytes_after(reader.position()), 0);
        let opened = Spool::open(dir.path()).unwrap();
        assert_eq!((opened.durable, opened.cut_bytes), (Lsn(5), 0));
        assert_eq!(read_all(&mut opened.spool.reader()), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_torn_tail_is_cut_at_the_last_whole_transaction_wherever_it_tore() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        opened.writer.append(&frame(1, true)).unwrap();
        let whole = opened.writer.at.frame;
        opened.writer.append(&frame(2, false)).unwrap();
        opened.writer.append(&frame(3, true)).unwrap();
        let path = opened.writer.path.clone();
        let bytes = fs::read(&path).unwrap();
        for length in whole as usize..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let mut again = Spool::open(dir.path()).unwrap();
            assert_eq!(again.durable, Lsn(1), "cut to {length}");
            again.writer.append(&frame(9, true)).unwrap();
            assert_eq!(read_all(&mut again.spool.reader()), [1, 9]);
        }
    }

    #[test]
    fn a_damaged_frame_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        (1..=3).for_each(|end| opened.writer.append(&frame(end, true)).unwrap());
        let mut bytes = fs::read(&opened.writer.path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&opened.writer.path, &bytes).unwrap();
        let mut reader = opened.spool.reader();
        assert!((0..6).any(|_| reader.next().is_err()));
    }

    #[test]
    fn a_reader_goes_back_to_a_position_it_gave() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        opened.writer.append(&frame(1, true)).unwrap();
        opened.writer.append(&frame(2, true)).unwrap();
        let mut reader = opened.spool.reader();
        reader.next().unwrap();
        reader.next().unwrap();
        let second = reader.position();
        assert_eq!(read_all(&mut reader), [2]);
        reader.seek(second);
        assert_eq!(read_all(&mut reader), [2]);
    }
}
