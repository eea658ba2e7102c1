//! pgoutput, protocol version 1 (manual 55.9 "Logical Replication Message Formats"; in the source
//! proto.c). Values come in text, or in binary where all types of the tables are of those whose binary form
//! means the same on both servers. Relation messages are kept by oid; the server sends one again
//! whenever it may have changed.

use std::collections::{HashMap, HashSet};

use super::assemble::{Assembler, ShapeId};
use super::{DecodeError, Decoder};
use crate::model::wire::{Commit, Kind, Shape, Value};
use crate::model::{Lsn, TableName, name};

/// PostgreSQL counts from 2000-01-01; Unix from 1970-01-01. In microseconds.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

struct Relation {
    shape: ShapeId,
    columns: usize,
    key: Vec<u16>,
    name: TableName,
}

#[derive(Default)]
pub struct PgOutput {
    relations: HashMap<u32, Relation>,
    /// Types that may come in binary; None: all values come in text.
    binary: Option<HashSet<u32>>,
    /// Whose DDL is listened to.
    pub migration: String,
}

impl PgOutput {
    /// Options for START_REPLICATION.
    pub fn options(&self, publications: &[String]) -> Vec<(&'static str, String)> {
        // The value is a list of identifiers, split by SplitIdentifierString().
        let mut options =
            vec![("proto_version", "1".to_string()), ("publication_names", name::identifiers(publications))];
        if self.binary.is_some() {
            options.push(("binary", "true".to_string()));
        }
        options
    }

    /// A decoder for values of these types in binary; None: for values in text.
    pub fn new(binary: Option<HashSet<u32>>) -> PgOutput {
        PgOutput { binary, ..PgOutput::default() }
    }

    fn relation(&mut self, body: &mut Body<'_>, into: &mut Assembler) -> Result<(), DecodeError> {
        let oid = body.u32()?;
        let schema = body.string()?;
        let table = body.string()?;
        let _replica_identity = body.u8()?;
        let count = body.u16()?;
        let (mut columns, mut types, mut key) = (Vec::with_capacity(usize::from(count)), Vec::new(), Vec::new());
        for at in 0..count {
            if body.u8()? & 1 == 1 {
                key.push(at);
            }
            columns.push(body.string()?.to_string());
            let (type_oid, _typmod) = (body.u32()?, body.u32()?);
            if let Some(binary) = &self.binary {
                if !binary.contains(&type_oid) {
                    let column = columns.last().map_or("", String::as_str);
                    let what = format!("column {column} of {schema}.{table} has a type that does not travel in binary");
                    return Err(DecodeError { what, text_only: true });
                }
                types.push(type_oid);
            }
        }
        // An empty schema stands for pg_catalog.
        let name = TableName::new(if schema.is_empty() { "pg_catalog" } else { schema }, table);
        let shape = into.intern(Shape { table: name.clone(), columns, types, key: key.clone() });
        self.relations.insert(oid, Relation { shape, columns: usize::from(count), key, name });
        Ok(())
    }

    fn known(&self, oid: u32) -> Result<&Relation, DecodeError> {
        self.relations.get(&oid).ok_or_else(|| DecodeError::new(format!("change of relation {oid}, never described")))
    }
}

impl Decoder for PgOutput {
    fn decode(&mut self, _wal: Lsn, message: &[u8], into: &mut Assembler) -> Result<(), DecodeError> {
        let mut body = Body(message);
        match body.u8()? {
            b'B' => {
                let (_final_lsn, _commit_at) = (body.u64()?, body.u64()?);
                into.begin(body.u32()?);
            }
            b'C' => {
                let (_flags, _commit_lsn) = (body.u8()?, body.u64()?);
                let end_lsn = Lsn(body.u64()?);
                let commit_at = (body.u64()? as i64).saturating_add(POSTGRES_EPOCH);
                into.commit(Commit { end_lsn, commit_at });
            }
            b'R' => self.relation(&mut body, into)?,
            b'I' => {
                let relation = self.known(body.u32()?)?;
                body.expect(b'N')?;
                let row = body.tuple(relation)?;
                let out = into.change(Kind::Insert, relation.shape);
                row.iter().for_each(|&value| out.value(value));
            }
            b'U' => {
                let relation = self.known(body.u32()?)?;
                let mut next = body.u8()?;
                let old = if next == b'K' || next == b'O' {
                    let old = body.tuple(relation)?;
                    next = body.u8()?;
                    Some(old)
                } else {
                    None
                };
                if next != b'N' {
                    return Err(DecodeError::new(format!("update of {} without its new row", relation.name)));
                }
                let row = body.tuple(relation)?;
                // No old key was sent: the key did not change.
                let old = old.as_ref().unwrap_or(&row);
                let key = relation.key(old)?;
                let out = into.change(Kind::Update, relation.shape);
                key.into_iter().for_each(|value| out.value(value));
                row.iter().for_each(|&value| out.value(value));
            }
            b'D' => {
                let relation = self.known(body.u32()?)?;
                let tag = body.u8()?;
                if tag != b'K' && tag != b'O' {
                    return Err(DecodeError::new(format!("delete from {} without the key of its row", relation.name)));
                }
                let old = body.tuple(relation)?;
                let key = relation.key(&old)?;
                let out = into.change(Kind::Delete, relation.shape);
                key.into_iter().for_each(|value| out.value(value));
            }
            b'T' => {
                let count = body.u32()?;
                let _flags = body.u8()?;
                let shapes: Vec<ShapeId> =
                    (0..count).map(|_| Ok(self.known(body.u32()?)?.shape)).collect::<Result<_, DecodeError>>()?;
                into.truncate(&shapes);
            }
            b'M' => {
                let (flags, _lsn) = (body.u8()?, body.u64()?);
                let prefix = body.string()?;
                let length = body.u32()? as usize;
                let told = prefix.strip_prefix(super::DDL_PREFIX).is_some_and(|migration| migration == self.migration);
                if told && flags & 1 == 1 {
                    into.ddl(body.take(length)?);
                }
            }
            // Type and origin.
            b'Y' | b'O' => {}
            other => return Err(DecodeError::new(format!("unknown message {:?}", char::from(other)))),
        }
        Ok(())
    }
}

impl Relation {
    fn key<'a>(&self, old: &[Value<'a>]) -> Result<Vec<Value<'a>>, DecodeError> {
        // Of a table without columns any row will do.
        if self.key.is_empty() && !old.is_empty() {
            return Err(DecodeError::new(format!("change of {} without the key of its row", self.name)));
        }
        let key: Vec<Value<'a>> = self.key.iter().map(|&at| old[usize::from(at)]).collect();
        if key.contains(&Value::Unchanged) {
            return Err(DecodeError::new(format!("change of {} whose key is not in the stream", self.name)));
        }
        Ok(key)
    }
}

/// A message, read from the front with bounds checks. Numbers are big endian.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| DecodeError::new("message is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }
    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }
    fn string(&mut self) -> Result<&'a str, DecodeError> {
        let length = memchr::memchr(0, self.0).ok_or_else(|| DecodeError::new("name without end"))?;
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| DecodeError::new("name is not UTF-8"))
    }
    fn expect(&mut self, tag: u8) -> Result<(), DecodeError> {
        if self.u8()? == tag { Ok(()) } else { Err(DecodeError::new(format!("no {:?} tuple", char::from(tag)))) }
    }
    fn tuple(&mut self, relation: &Relation) -> Result<Vec<Value<'a>>, DecodeError> {
        let count = usize::from(self.u16()?);
        if count != relation.columns {
            return Err(DecodeError::new(format!("row of {} with {count} columns", relation.name)));
        }
        (0..count)
            .map(|_| match self.u8()? {
                b'n' => Ok(Value::Null),
                b'u' => Ok(Value::Unchanged),
                b't' => {
                    let length = self.u32()? as usize;
                    Ok(Value::Text(self.take(length)?))
                }
                b'b' => {
                    let length = self.u32()? as usize;
                    Ok(Value::Binary(self.take(length)?))
                }
                other => Err(DecodeError::new(format!("value of {} in format {:?}", relation.name, char::from(other)))),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::{Item, Reader};

    fn relation(key: &[u8]) -> Vec<u8> {
        let mut message = b"R\0\0\0\x2apublic\0t\0d\0\x02".to_vec();
        for (flag, name) in key.iter().zip([&b"id\0"[..], b"a\0"]) {
            message.push(*flag);
            message.extend_from_slice(name);
            message.extend_from_slice(&[0; 8]);
        }
        message
    }
    fn begin() -> Vec<u8> {
        [&b"B"[..], &[0; 16], &7u32.to_be_bytes()].concat()
    }
    fn commit(end: u64) -> Vec<u8> {
        [&b"C\0"[..], &[0; 8], &end.to_be_bytes(), &1u64.to_be_bytes()].concat()
    }
    fn decode(messages: &[Vec<u8>]) -> Result<Vec<Item>, DecodeError> {
        let (mut decoder, mut into) = (PgOutput::default(), Assembler::default());
        messages.iter().try_for_each(|message| decoder.decode(Lsn::ZERO, message, &mut into))?;
        let mut reader = Reader::new(into.take(true).map(|frame| frame.body).unwrap_or_default().into());
        let mut items = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            items.push(item);
        }
        Ok(items)
    }

    #[test]
    fn an_update_without_an_old_key_finds_its_row_by_the_new_one() {
        let update = b"U\0\0\0\x2aN\0\x02t\0\0\0\x015u".to_vec();
        let items = decode(&[begin(), relation(&[1, 0]), update, commit(9)]).unwrap();
        let Item::Change(change) = &items[1] else { panic!("{items:?}") };
        assert_eq!(change.key().collect::<Vec<_>>(), [Value::Text(b"5")]);
        assert_eq!(change.row().collect::<Vec<_>>(), [Value::Text(b"5"), Value::Unchanged]);
        assert!(
            matches!(items[2], Item::Commit(Commit { end_lsn: Lsn(9), commit_at }) if commit_at == POSTGRES_EPOCH + 1)
        );
    }

    #[test]
    fn a_change_without_a_key_is_refused() {
        let delete = b"D\0\0\0\x2aK\0\x02nn".to_vec();
        assert!(decode(&[begin(), relation(&[0, 0]), delete]).is_err());
    }

    #[test]
    fn a_cut_message_is_an_error_and_never_a_panic() {
        let insert = b"I\0\0\0\x2aN\0\x02t\0\0\0\x015n".to_vec();
        for message in [relation(&[1, 0]), insert.clone(), begin(), commit(1)] {
            for length in 0..message.len() {
                let cut = vec![begin(), relation(&[1, 0]), message[..length].to_vec()];
                assert!(decode(&cut).is_err(), "{message:?} cut to {length}");
            }
        }
        assert_eq!(decode(&[begin(), relation(&[1, 0]), insert, commit(1)]).unwrap().len(), 3);
    }
}
