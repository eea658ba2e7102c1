//! Reads a Batch, the bytes that `pgmig.apply` is given (the writer is model/wire.rs of the CLI).
//! Knows nothing of PostgreSQL. Must never panic and never read outside the Batch, whatever is in it.

use std::ffi::CStr;
use std::fmt;

pub const VERSION: u8 = 2;
/// Set in the length of a binary value.
const BINARY: i32 = 1 << 30;

/// What is wrong with a Batch, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    pub at: usize,
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// The head of a record. The values of a change follow it in the Batch: how many there are is in the
/// declaration of its relation, so the caller reads them one by one.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Relation(Declaration<'a>),
    Insert(u16),
    Update(u16),
    Delete(u16),
    Truncate(Vec<u16>),
}

/// A table as the source sees it. `key` holds positions in `columns`.
#[derive(Debug, PartialEq, Eq)]
pub struct Declaration<'a> {
    pub id: u16,
    pub schema: &'a str,
    pub table: &'a str,
    pub columns: Vec<&'a str>,
    /// Oids of the columns' types on the source; zero where all values are text.
    pub types: Vec<u32>,
    pub key: Vec<u16>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Value<'a> {
    Null,
    /// A TOASTed value that the update left alone: the source does not send it.
    Unchanged,
    /// Points into the Batch, so that an input function reads it in place.
    Text(&'a CStr),
    /// For the receive function of the column's type on the source.
    Binary(&'a [u8]),
}

pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Read<T> = Result<T, Malformed>;

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Read<Self> {
        let mut reader = Reader { bytes, at: 0 };
        match reader.u8("no version")? {
            VERSION => Ok(reader),
            _ => Err(Malformed { at: 0, what: "a version this extension does not know" }),
        }
    }

    /// The byte that is read next.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next record, or None at the end of the Batch.
    pub fn record(&mut self) -> Read<Option<Record<'a>>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let at = self.at;
        let record = match self.u8("no record")? {
            b'R' => Record::Relation(self.declaration()?),
            b'I' => Record::Insert(self.u16()?),
            b'U' => Record::Update(self.u16()?),
            b'D' => Record::Delete(self.u16()?),
            b'T' => {
                let count = self.u16()?;
                if count == 0 {
                    return Err(Malformed { at, what: "a truncate of no table" });
                }
                Record::Truncate((0..count).map(|_| self.u16()).collect::<Read<_>>()?)
            }
            _ => return Err(Malformed { at, what: "an unknown record" }),
        };
        Ok(Some(record))
    }

    #[inline]
    pub fn value(&mut self) -> Read<Value<'a>> {
        let at = self.at;
        let length = i32::from_le_bytes(self.array("a value is cut off")?);
        let length = match length {
            -1 => return Ok(Value::Null),
            -2 => return Ok(Value::Unchanged),
            ..0 => return Err(Malformed { at, what: "a value of unknown length" }),
            _ => length,
        };
        // The NUL behind it counts too; 2^31 is no overflow for usize.
        let bytes = self.take((length & !BINARY) as usize + 1, "a value is cut off")?;
        if length & BINARY != 0 {
            return match bytes.split_last() {
                Some((0, value)) => Ok(Value::Binary(value)),
                _ => Err(Malformed { at, what: "a value with no NUL behind it" }),
            };
        }
        match CStr::from_bytes_with_nul(bytes) {
            Ok(text) => Ok(Value::Text(text)),
            Err(_) => Err(Malformed { at, what: "a value with a NUL inside or none behind it" }),
        }
    }

    fn declaration(&mut self) -> Read<Declaration<'a>> {
        let id = self.u16()?;
        let schema = self.name()?;
        let table = self.name()?;
        let count = self.u16()?;
        let (mut columns, mut types) = (Vec::new(), Vec::new());
        for _ in 0..count {
            columns.push(self.name()?);
            types.push(self.array("a type is cut off").map(u32::from_le_bytes)?);
        }
        let count = self.u16()?;
        let mut key = Vec::new();
        for _ in 0..count {
            let at = self.at;
            let position = self.u16()?;
            if usize::from(position) >= columns.len() {
                return Err(Malformed { at, what: "a key column that is not declared" });
            }
            key.push(position);
        }
        Ok(Declaration { id, schema, table, columns, types, key })
    }

    fn name(&mut self) -> Read<&'a str> {
        let at = self.at;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let name = CStr::from_bytes_until_nul(rest).map_err(|_| Malformed { at, what: "a name is cut off" })?;
        self.at += name.to_bytes_with_nul().len();
        match name.to_str() {
            Ok("") => Err(Malformed { at, what: "an empty name" }),
            Ok(name) => Ok(name),
            Err(_) => Err(Malformed { at, what: "a name that is not UTF-8" }),
        }
    }

    fn u8(&mut self, what: &'static str) -> Read<u8> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn u16(&mut self) -> Read<u16> {
        self.array("a number is cut off").map(u16::from_le_bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Read<[u8; N]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let bytes = rest.first_chunk().ok_or(Malformed { at: self.at, what })?;
        self.at += N;
        Ok(*bytes)
    }

    #[inline]
    fn take(&mut self, length: usize, what: &'static str) -> Read<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or(Malformed { at: self.at, what })?;
        self.at += length;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"R\x07\0public\0orders\0\x02\0id\0\x17\0\0\0note\0\0\0\0\0\x01\0\0\0";

    fn batch(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        records.iter().for_each(|record| bytes.extend_from_slice(record));
        bytes
    }

    /// Reads all of a Batch as the applier does: two values a row, one a key.
    fn walk(bytes: &[u8]) -> Read<usize> {
        let mut reader = Reader::new(bytes)?;
        let mut values = 0;
        while let Some(record) = reader.record()? {
            let count = match record {
                Record::Insert(_) => 2,
                Record::Update(_) => 3,
                Record::Delete(_) => 1,
                Record::Relation(_) | Record::Truncate(_) => 0,
            };
            for _ in 0..count {
                reader.value()?;
                values += 1;
            }
        }
        Ok(values)
    }

    fn whole() -> Vec<u8> {
        batch(&[
            TABLE,
            b"I\x07\0\x01\0\0\x001\0\xff\xff\xff\xff",
            b"U\x07\0\x01\0\0\x001\0\x02\0\0\x40\0\x02\0\xfe\xff\xff\xff",
            b"D\x07\0\x01\0\0\x002\0",
            b"T\x02\0\x07\0\x08\0",
        ])
    }

    #[test]
    fn every_kind_of_record_is_read_back() {
        let bytes = whole();
        let mut reader = Reader::new(&bytes).unwrap();
        let declared = Declaration {
            id: 7,
            schema: "public",
            table: "orders",
            columns: vec!["id", "note"],
            types: vec![23, 0],
            key: vec![0],
        };
        assert_eq!(reader.record(), Ok(Some(Record::Relation(declared))));
        assert_eq!(reader.record(), Ok(Some(Record::Insert(7))));
        assert_eq!(reader.value(), Ok(Value::Text(c"1")));
        assert_eq!(reader.value(), Ok(Value::Null));
        assert_eq!(reader.record(), Ok(Some(Record::Update(7))));
        assert_eq!(reader.value(), Ok(Value::Text(c"1")));
        assert_eq!(reader.value(), Ok(Value::Binary(b"\0\x02")));
        assert_eq!(reader.value(), Ok(Value::Unchanged));
        assert_eq!(reader.record(), Ok(Some(Record::Delete(7))));
        assert_eq!(reader.value(), Ok(Value::Text(c"2")));
        assert_eq!(reader.record(), Ok(Some(Record::Truncate(vec![7, 8]))));
        assert_eq!(reader.record(), Ok(None));
    }

    #[test]
    fn a_batch_cut_at_any_byte_is_an_error_or_ends_between_records() {
        let bytes = whole();
        let complete = walk(&bytes).unwrap();
        for length in 0..bytes.len() {
            if let Ok(values) = walk(&bytes[..length]) {
                assert!(values <= complete, "{length}");
            }
        }
        assert!(walk(&[]).is_err());
        assert_eq!(walk(&[VERSION]), Ok(0));
    }

    #[test]
    fn bytes_changed_at_random_never_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..50_000 {
            let mut bytes = whole();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            let _ = walk(&bytes);
        }
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(walk(&[1]).unwrap_err().at, 0);
    }

    #[test]
    fn a_nul_inside_a_value_is_refused() {
        assert!(walk(&batch(&[TABLE, b"D\x07\0\x03\0\0\0a\0b\0"])).is_err());
    }

    #[test]
    fn a_value_without_its_nul_is_refused() {
        assert!(walk(&batch(&[TABLE, b"D\x07\0\x01\0\0\0ab"])).is_err());
    }

    #[test]
    fn a_value_longer_than_the_batch_is_refused() {
        assert!(walk(&batch(&[TABLE, b"D\x07\0\xff\xff\xff\x7fa\0"])).is_err());
        assert!(walk(&batch(&[TABLE, b"D\x07\0\xfd\xff\xff\xffa\0"])).is_err());
    }

    #[test]
    fn a_key_must_be_among_the_columns() {
        assert!(walk(&batch(&[b"R\0\0s\0t\0\x01\0a\0\0\0\0\0\x01\0\x01\0"])).is_err());
    }

    #[test]
    fn names_must_be_utf8() {
        assert!(walk(&batch(&[b"R\0\0s\0t\xff\0\x01\0a\0\0\0"])).is_err());
    }
}
