//! The spool: changes received and not yet applied, in append-only segment files. What was synced
//! survives a crash; a torn tail is cut when it is opened; a frame whose checksum is wrong is an
//! error, never skipped. Nothing here knows what a change means.

mod frame;
mod reader;
mod writer;

pub use reader::{OpenFrame, SpoolReader};
pub use writer::SpoolWriter;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::crash;
use crate::error::{Error, Exit};
use crate::model::Lsn;
use crate::model::wire::{Damaged, Item, Reader};
use frame::{read_body, read_header};

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: frame at byte {at} is damaged: {what}")]
    Damaged { path: PathBuf, at: u64, what: &'static str },
    #[error("{path}: {source}")]
    Record { path: PathBuf, source: Damaged },
}

impl SpoolError {
    /// What a person reads of it.
    pub fn told(self, doing: &str) -> Error {
        let lost = !matches!(self, SpoolError::Io { .. });
        let error = Error::new(Exit::Dir, doing).cause(self);
        match lost {
            true => error.hint(
                "put the file back as it was, if it can be had; else the changes in it that the target does not have yet \
                 are lost: remove the folder spool under --dir and have every table copied again (pgmig table resync --all, \
                 pgmig run), or begin again (pgmig cleanup --force, empty the target, pgmig run)",
            ),
            false => error,
        }
    }
}

type Result<T, E = SpoolError> = std::result::Result<T, E>;

/// A place in the spool: segment, byte of a frame in it, byte of a record in the frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub segment: u64,
    pub frame: u64,
    pub record: usize,
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
    /// Everything up to here was in segments that are gone, at least its beginning; zero if none are.
    pub base: Lsn,
    /// Bytes cut off behind the last whole transaction.
    pub cut_bytes: u64,
}

impl Opened {
    /// Goes on at `lsn`, behind what the spool holds and the target has: what is in it is dropped, and that
    /// it begins there is remembered.
    pub fn go_on_at(&mut self, lsn: Lsn) -> Result<()> {
        // Until the old segments are gone, this one is cut off again when the spool is opened.
        self.writer.begin_at(lsn)?;
        self.spool.prune(self.writer.at)?;
        let dir = &self.spool.0.dir;
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| SpoolError::Io { path: dir.clone(), source })?;
        (self.durable, self.base) = (lsn, lsn);
        Ok(())
    }
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
        // Behind the head of the first segment; and whether a transaction is open there.
        let (mut first, mut within) = (None, false);
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
                            first = Some((segment, header.size()));
                        } else if first == Some((segment, at)) {
                            within = !begins_whole(read_body(&file, &path, at, &header)?);
                        }
                        if within && header.boundary {
                            (base, within) = (base.max(header.end_lsn), false);
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
        SpoolReader::new(Arc::clone(&self.0), segment)
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
            crash::before(crash::PRUNE);
            fs::remove_file(&path).map_err(|source| SpoolError::Io { path, source })?;
            crash::after(crash::PRUNE);
            self.0.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Whether what is in a frame does not go on with a transaction of frames before it.
fn begins_whole(body: Vec<u8>) -> bool {
    let mut reader = Reader::default();
    reader.open(body.into());
    matches!(reader.next(), Ok(None | Some(Item::Begin { .. } | Item::Abort)) | Err(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;
    use crate::model::wire::{Commit, Encoder, Kind, Shape, Value};
    use crate::stream::assemble::Frame;

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
    fn a_spool_that_goes_on_behind_its_end_remembers_where_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        opened.writer.append(&frame(1, true)).unwrap();
        opened.go_on_at(Lsn(10)).unwrap();
        assert_eq!((opened.durable, opened.base, opened.writer.provable()), (Lsn(10), Lsn(10), Lsn(10)));
        let opened = Spool::open(dir.path()).unwrap();
        assert_eq!((opened.durable, opened.base), (Lsn(10), Lsn(10)));
        let mut writer = opened.writer;
        writer.append(&frame(11, true)).unwrap();
        let opened = Spool::open(dir.path()).unwrap();
        assert_eq!((opened.durable, opened.base, opened.cut_bytes), (Lsn(11), Lsn(10), 0));
        assert_eq!(read_all(&mut opened.spool.reader()), [11]);
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
    fn a_header_that_is_damaged_is_never_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        (1..=3).for_each(|end| opened.writer.append(&frame(end, true)).unwrap());
        let path = opened.writer.path.clone();
        let bytes = fs::read(&path).unwrap();
        // Another segment behind it: this one is no torn tail.
        fs::write(opened.spool.0.path(1), &bytes).unwrap();
        drop(opened);
        for bit in 0..8 * (frame::HEADER - 4) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).unwrap();
            assert!(matches!(Spool::open(dir.path()), Err(SpoolError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_transaction_that_broke_off_is_taken_back_once_and_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        opened.writer.append(&frame(1, true)).unwrap();
        opened.writer.take_back().unwrap();
        let mut piece = Encoder::default();
        piece.begin(2);
        opened.writer.append(&Frame { body: piece.buffer, boundary: false, end_lsn: Lsn::ZERO }).unwrap();
        opened.writer.take_back().unwrap();
        opened.writer.take_back().unwrap();
        opened.writer.append(&frame(2, true)).unwrap();
        let opened = Spool::open(dir.path()).unwrap();
        assert_eq!((opened.durable, opened.cut_bytes), (Lsn(2), 0));
        let mut reader = opened.spool.reader();
        let mut kinds = String::new();
        while let Some(item) = reader.next().unwrap() {
            kinds.push(match item {
                Item::Begin { .. } => 'B',
                Item::Commit(_) => 'C',
                Item::Abort => 'A',
                _ => '?',
            });
        }
        assert_eq!(kinds, "BCBABC");
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

    #[test]
    fn a_pruned_spool_says_what_the_target_must_have_applied() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut end = 0;
        while opened.writer.at.segment == 0 {
            end += 1;
            let shape = Shape {
                table: TableName::new("s", "t"),
                columns: vec!["a".into()],
                types: Vec::new(),
                key: Vec::new(),
            };
            let value: Vec<u8> = (0..8 << 20).map(|_| rng.u8(1..)).collect();
            let mut encoder = Encoder::default();
            encoder.begin(1);
            encoder.relation(0, &shape);
            encoder.change(Kind::Insert, 0);
            encoder.value(Value::Text(&value));
            encoder.commit(Commit { end_lsn: Lsn(end), commit_at: 0 });
            opened.writer.append(&Frame { body: encoder.buffer, boundary: true, end_lsn: Lsn(end) }).unwrap();
        }
        let mut reader = opened.spool.reader();
        assert_eq!(read_all(&mut reader), (1..=end).collect::<Vec<_>>());
        assert_eq!(opened.spool.unread_bytes(), 0);
        opened.spool.prune(Position { segment: 1, ..Position::default() }).unwrap();
        drop(opened);
        let again = Spool::open(dir.path()).unwrap();
        assert_eq!((again.base, again.durable, again.cut_bytes), (Lsn(end - 1), Lsn(end), 0));
        assert_eq!(read_all(&mut again.spool.reader()), [end]);
    }
    #[test]
    fn of_a_transaction_that_lost_its_beginning_with_a_segment_the_target_must_have_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Spool::open(dir.path()).unwrap();
        opened.writer.append(&frame(1, true)).unwrap();
        let shape =
            Shape { table: TableName::new("s", "t"), columns: vec!["a".into()], types: Vec::new(), key: Vec::new() };
        let mut rng = fastrand::Rng::with_seed(7);
        let value: Vec<u8> = (0..8 << 20).map(|_| rng.u8(1..)).collect();
        let mut begun = false;
        while opened.writer.at.segment == 0 {
            let mut encoder = Encoder::default();
            if !std::mem::replace(&mut begun, true) {
                encoder.begin(2);
            }
            encoder.relation(0, &shape);
            encoder.change(Kind::Insert, 0);
            encoder.value(Value::Text(&value));
            let piece = Frame { body: encoder.buffer, boundary: false, end_lsn: Lsn::ZERO };
            opened.writer.append(&piece).unwrap();
        }
        let mut encoder = Encoder::default();
        encoder.commit(Commit { end_lsn: Lsn(2), commit_at: 0 });
        opened.writer.append(&Frame { body: encoder.buffer, boundary: true, end_lsn: Lsn(2) }).unwrap();
        opened.writer.append(&frame(3, true)).unwrap();
        opened.spool.prune(Position { segment: 1, ..Position::default() }).unwrap();
        drop(opened);
        let again = Spool::open(dir.path()).unwrap();
        assert_eq!((again.base, again.durable, again.cut_bytes), (Lsn(2), Lsn(3), 0));
    }
}
