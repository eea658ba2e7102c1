//! How row changes lie in the spool and in a Batch for `pgmig.apply`: one format, so that a change
//! is encoded once when it is decoded from the stream and then only moved. Bytes that come from a
//! file are read with bounds checks and never panic.
//!
//! ```text
//! 'R' u16 id, cstring schema, cstring table, u16 n, n x (cstring column, u32 type), u16 k, k x u16 position
//! 'I' u16 id, n x value                      'D' u16 id, k x value
//! 'U' u16 id, k x value, n x value           'T' u16 m, m x u16 id
//! 'B' u32 xid                                'C' u64 end_lsn, i64 commit_at     (spool only)
//! 'L' u32 length, bytes: DDL, as JSON                                           (spool only)
//! 'A' takes back what came since 'B': the source sends it again                 (spool only)
//! value: i32 length (-1 null, -2 unchanged; bit 30: binary), bytes, NUL
//! ```
//! Numbers are little endian; `commit_at` is in microseconds since 1970-01-01 UTC. Ids hold inside
//! one frame of the spool or one Batch. The NUL lets the server's input functions read in place.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{Lsn, TableName};

/// First byte of a Batch.
pub const BATCH_VERSION: u8 = 2;
/// The record that takes back an open transaction.
pub const ABORT: u8 = b'A';
const NULL: i32 = -1;
const UNCHANGED: i32 = -2;
/// Set in the length of a binary value. Values of PostgreSQL end below 1 GiB.
const BINARY: i32 = 1 << 30;

/// What the changes of a relation look like: its columns, and which of them identify a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    pub table: TableName,
    pub columns: Vec<String>,
    /// Oids of the columns' types on the source, for values in binary; empty where all come as text.
    pub types: Vec<u32>,
    /// Positions in `columns`, in the order in which key values are sent.
    pub key: Vec<u16>,
}

impl Shape {
    pub fn key_columns(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|&at| self.columns[usize::from(at)].as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    Null,
    /// A TOASTed value that the change did not touch: not in the stream, stays as it is.
    Unchanged,
    Text(&'a [u8]),
    /// As the send function of its type writes it.
    Binary(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Insert,
    Update,
    Delete,
}

/// One row change. `values` holds the old key (update, delete), then the new row (insert, update).
#[derive(Debug, Clone)]
pub struct Change {
    pub shape: Arc<Shape>,
    pub kind: Kind,
    values: Bytes,
}

impl Change {
    /// Values of the old key; empty for an insert.
    pub fn key(&self) -> Values<'_> {
        let count = if self.kind == Kind::Insert { 0 } else { self.shape.key.len() };
        Values { rest: &self.values, left: count }
    }
    /// Values of the new row, in the order of `shape.columns`; empty for a delete.
    pub fn row(&self) -> Values<'_> {
        let mut key = self.key();
        while key.next().is_some() {}
        let count = if self.kind == Kind::Delete { 0 } else { self.shape.columns.len() };
        Values { rest: key.rest, left: count }
    }
    pub fn bytes(&self) -> usize {
        self.values.len()
    }
    /// The old key as it is encoded.
    pub fn key_bytes(&self) -> &[u8] {
        let mut key = self.key();
        while key.next().is_some() {}
        &self.values[..self.values.len() - key.rest.len()]
    }
    /// The new row as it is encoded.
    pub fn row_bytes(&self) -> Bytes {
        self.values.slice(self.key_bytes().len()..)
    }
    /// A change of encoded values: the old key, then the new row.
    pub fn of(shape: Arc<Shape>, kind: Kind, values: Bytes) -> Change {
        Change { shape, kind, values }
    }
}

/// Where a source transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// End of the commit record: what `replay_lsn` and `endpos` are compared with.
    pub end_lsn: Lsn,
    /// Microseconds since 1970-01-01 UTC.
    pub commit_at: i64,
}

#[derive(Debug, Clone)]
pub enum Item {
    Begin {
        xid: u32,
    },
    Change(Change),
    Truncate(Vec<Arc<Shape>>),
    /// DDL that the source has told, as JSON.
    Ddl(Bytes),
    Commit(Commit),
    /// What came of the open transaction is to be forgotten: it comes again, whole.
    Abort,
}

#[derive(Debug, thiserror::Error)]
#[error("damaged change record at byte {at}: {what}")]
pub struct Damaged {
    pub at: usize,
    pub what: &'static str,
}

/// Walks the values of one row. Their bounds were checked when the record was read.
#[derive(Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        match i32::from_le_bytes(*length) {
            NULL => {
                self.rest = rest;
                Some(Value::Null)
            }
            UNCHANGED => {
                self.rest = rest;
                Some(Value::Unchanged)
            }
            length => {
                let bytes = (length & !BINARY) as usize;
                let value = rest.get(..bytes)?;
                self.rest = rest.get(bytes + 1..)?;
                Some(if length & BINARY == 0 { Value::Text(value) } else { Value::Binary(value) })
            }
        }
    }
}

/// Appends records to a buffer.
#[derive(Debug, Default)]
pub struct Encoder {
    pub buffer: Vec<u8>,
}

impl Encoder {
    pub fn relation(&mut self, id: u16, shape: &Shape) {
        self.head(b'R', id);
        self.cstring(&shape.table.schema);
        self.cstring(&shape.table.table);
        self.count(shape.columns.len());
        for (at, column) in shape.columns.iter().enumerate() {
            self.cstring(column);
            let type_oid = shape.types.get(at).copied().unwrap_or_default();
            self.buffer.extend_from_slice(&type_oid.to_le_bytes());
        }
        self.count(shape.key.len());
        shape.key.iter().for_each(|at| self.buffer.extend_from_slice(&at.to_le_bytes()));
    }
    /// Opens a change; the values follow, key first.
    pub fn change(&mut self, kind: Kind, id: u16) {
        let tag = match kind {
            Kind::Insert => b'I',
            Kind::Update => b'U',
            Kind::Delete => b'D',
        };
        self.head(tag, id);
    }
    pub fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.buffer.extend_from_slice(&NULL.to_le_bytes()),
            Value::Unchanged => self.buffer.extend_from_slice(&UNCHANGED.to_le_bytes()),
            Value::Text(text) => self.bytes(text.len() as i32, text),
            Value::Binary(bytes) => self.bytes(bytes.len() as i32 | BINARY, bytes),
        }
    }
    fn bytes(&mut self, length: i32, bytes: &[u8]) {
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        self.buffer.push(0);
    }
    /// A change that was read from elsewhere, under its id here.
    pub fn copy(&mut self, change: &Change, id: u16) {
        self.change(change.kind, id);
        self.buffer.extend_from_slice(&change.values);
    }
    pub fn truncate(&mut self, ids: &[u16]) {
        self.buffer.push(b'T');
        self.count(ids.len());
        ids.iter().for_each(|id| self.buffer.extend_from_slice(&id.to_le_bytes()));
    }
    pub fn ddl(&mut self, text: &[u8]) {
        self.buffer.push(b'L');
        self.buffer.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(text);
    }
    pub fn begin(&mut self, xid: u32) {
        self.buffer.push(b'B');
        self.buffer.extend_from_slice(&xid.to_le_bytes());
    }
    pub fn commit(&mut self, commit: Commit) {
        self.buffer.push(b'C');
        self.buffer.extend_from_slice(&commit.end_lsn.0.to_le_bytes());
        self.buffer.extend_from_slice(&commit.commit_at.to_le_bytes());
    }
    fn head(&mut self, tag: u8, id: u16) {
        self.buffer.push(tag);
        self.buffer.extend_from_slice(&id.to_le_bytes());
    }
    fn count(&mut self, count: usize) {
        // A table has at most 1,600 columns; a frame or Batch is closed long before 65,536 relations.
        self.buffer.extend_from_slice(&(count as u16).to_le_bytes());
    }
    fn cstring(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
    }
}

/// Reads the records of one frame in order.
#[derive(Default)]
pub struct Reader {
    body: Bytes,
    at: usize,
    shapes: Vec<Option<Arc<Shape>>>,
    /// Equal shapes are one `Arc`, in later frames too.
    known: HashSet<Arc<Shape>>,
}

impl Reader {
    pub fn new(body: Bytes) -> Reader {
        Reader { body, ..Reader::default() }
    }

    /// Goes on with another frame.
    pub fn open(&mut self, body: Bytes) {
        self.body = body;
        self.at = 0;
        self.shapes.clear();
    }

    /// Byte position of the next record.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next record that is not a relation; None at the end.
    #[expect(clippy::should_implement_trait, reason = "it fails, an iterator does not")]
    pub fn next(&mut self) -> Result<Option<Item>, Damaged> {
        loop {
            if self.at == self.body.len() {
                return Ok(None);
            }
            match self.u8()? {
                b'R' => self.relation()?,
                b'I' => return self.change(Kind::Insert).map(Some),
                b'U' => return self.change(Kind::Update).map(Some),
                b'D' => return self.change(Kind::Delete).map(Some),
                b'T' => {
                    let count = self.u16()?;
                    let shapes = (0..count).map(|_| self.shape()).collect::<Result<_, _>>()?;
                    return Ok(Some(Item::Truncate(shapes)));
                }
                b'B' => return Ok(Some(Item::Begin { xid: u32::from_le_bytes(self.array()?) })),
                b'L' => {
                    let length = u32::from_le_bytes(self.array()?) as usize;
                    let end = self.at.checked_add(length).filter(|&end| end <= self.body.len());
                    let end = end.ok_or_else(|| self.damaged("DDL is cut short"))?;
                    let text = self.body.slice(self.at..end);
                    self.at = end;
                    return Ok(Some(Item::Ddl(text)));
                }
                ABORT => return Ok(Some(Item::Abort)),
                b'C' => {
                    let end_lsn = Lsn(u64::from_le_bytes(self.array()?));
                    let commit_at = i64::from_le_bytes(self.array()?);
                    return Ok(Some(Item::Commit(Commit { end_lsn, commit_at })));
                }
                _ => return Err(self.damaged("unknown record")),
            }
        }
    }

    fn relation(&mut self) -> Result<(), Damaged> {
        let id = usize::from(self.u16()?);
        let table = TableName::new(self.cstring()?, self.cstring()?);
        let count = usize::from(self.u16()?);
        let (mut columns, mut types) = (Vec::new(), Vec::new());
        for _ in 0..count {
            columns.push(self.cstring()?);
            types.push(u32::from_le_bytes(self.array()?));
        }
        let key = (0..self.u16()?).map(|_| self.u16()).collect::<Result<Vec<_>, _>>()?;
        if key.iter().any(|&at| usize::from(at) >= columns.len()) {
            return Err(self.damaged("key column out of range"));
        }
        if self.shapes.len() <= id {
            self.shapes.resize(id + 1, None);
        }
        if types.iter().all(|&oid| oid == 0) {
            types.clear();
        }
        let shape = Shape { table, columns, types, key };
        let shape = match self.known.get(&shape) {
            Some(known) => Arc::clone(known),
            None => {
                let shape = Arc::new(shape);
                self.known.insert(Arc::clone(&shape));
                shape
            }
        };
        self.shapes[id] = Some(shape);
        Ok(())
    }

    fn change(&mut self, kind: Kind) -> Result<Item, Damaged> {
        let shape = self.shape()?;
        let count = match kind {
            Kind::Insert => shape.columns.len(),
            Kind::Update => shape.key.len() + shape.columns.len(),
            Kind::Delete => shape.key.len(),
        };
        let start = self.at;
        for _ in 0..count {
            let length = i32::from_le_bytes(self.array()?);
            match length {
                NULL | UNCHANGED => {}
                0.. => {
                    self.take((length & !BINARY) as usize)?;
                    if self.u8()? != 0 {
                        return Err(self.damaged("value without its end"));
                    }
                }
                _ => return Err(self.damaged("negative length")),
            }
        }
        Ok(Item::Change(Change { shape, kind, values: self.body.slice(start..self.at) }))
    }

    fn shape(&mut self) -> Result<Arc<Shape>, Damaged> {
        let id = usize::from(self.u16()?);
        self.shapes.get(id).and_then(Option::clone).ok_or_else(|| self.damaged("undeclared relation"))
    }
    fn damaged(&self, what: &'static str) -> Damaged {
        Damaged { at: self.at, what }
    }
    fn take(&mut self, count: usize) -> Result<&[u8], Damaged> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.body.len());
        let end = end.ok_or_else(|| self.damaged("cut short"))?;
        let taken = &self.body[self.at..end];
        self.at = end;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
    fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }
    fn u16(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    fn cstring(&mut self) -> Result<String, Damaged> {
        let length = memchr::memchr(0, &self.body[self.at..]).ok_or_else(|| self.damaged("name without end"))?;
        let name = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(name).map_err(|_| self.damaged("name is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let shape = Shape {
            table: TableName::new("public", "t"),
            columns: vec!["id".into(), "a".into()],
            types: vec![23, 25],
            key: vec![0],
        };
        let mut encoder = Encoder::default();
        encoder.begin(7);
        encoder.relation(3, &shape);
        encoder.change(Kind::Insert, 3);
        encoder.value(Value::Text(b"1"));
        encoder.value(Value::Null);
        encoder.change(Kind::Update, 3);
        encoder.value(Value::Text(b"1"));
        encoder.value(Value::Binary(b"\0\0"));
        encoder.value(Value::Unchanged);
        encoder.change(Kind::Delete, 3);
        encoder.value(Value::Text(b"2"));
        encoder.truncate(&[3]);
        encoder.commit(Commit { end_lsn: Lsn(99), commit_at: 5 });
        encoder.buffer
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<Item>, Damaged> {
        let mut reader = Reader::new(bytes.into());
        let mut items = Vec::new();
        while let Some(item) = reader.next()? {
            items.push(item);
        }
        Ok(items)
    }

    #[test]
    fn what_is_written_is_read() {
        let items = read(sample()).unwrap();
        assert!(matches!(items[0], Item::Begin { xid: 7 }));
        let Item::Change(update) = &items[2] else { panic!("{items:?}") };
        assert_eq!(update.key().collect::<Vec<_>>(), [Value::Text(b"1")]);
        assert_eq!(update.row().collect::<Vec<_>>(), [Value::Binary(b"\0\0"), Value::Unchanged]);
        assert_eq!(update.shape.types, [23, 25]);
        let Item::Change(delete) = &items[3] else { panic!("{items:?}") };
        assert_eq!(delete.row().count(), 0);
        assert!(matches!(&items[4], Item::Truncate(shapes) if shapes.len() == 1));
        assert!(matches!(items[5], Item::Commit(Commit { end_lsn: Lsn(99), commit_at: 5 })));
    }

    #[test]
    fn a_change_moves_to_another_id_unharmed() {
        let items = read(sample()).unwrap();
        let Item::Change(update) = &items[2] else { panic!() };
        let mut encoder = Encoder::default();
        encoder.relation(0, &update.shape);
        encoder.copy(update, 0);
        let moved = read(encoder.buffer).unwrap();
        let Item::Change(moved) = &moved[0] else { panic!() };
        assert_eq!(moved.row().collect::<Vec<_>>(), update.row().collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_or_changed_record_is_an_error_and_never_a_panic() {
        let whole = sample();
        for length in 1..whole.len() {
            let _ = read(whole[..length].to_vec());
        }
        assert!(read(whole[..whole.len() - 1].to_vec()).is_err());
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _ = read(bytes);
            }
        }
    }
}
