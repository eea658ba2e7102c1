//! wal2json, format-version 2: one JSON object a message. Numbers never pass through a float: their
//! text is kept. wal2json before 2.6 prints NaN and infinities as null, so preflight lets it near
//! float and numeric columns only with `numeric-data-types-as-string`.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::assemble::{Assembler, ShapeId};
use super::{DecodeError, Decoder, scan};
use crate::model::wire::{Commit, Kind, Shape, Value};
use crate::model::{Lsn, TableName};

#[derive(Debug, Default, PartialEq, Deserialize)]
pub(super) struct Message<'a> {
    pub action: &'a str,
    pub xid: Option<u32>,
    #[serde(borrow)]
    pub timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub schema: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub table: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub columns: Vec<Column<'a>>,
    #[serde(borrow, default)]
    pub identity: Vec<Column<'a>>,
}

#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Column<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub type_name: Option<Cow<'a, str>>,
    /// As it stands in the message: quoted, a number, true, false or null.
    #[serde(borrow, deserialize_with = "raw")]
    pub value: &'a str,
}

fn raw<'de, D: Deserializer<'de>>(from: D) -> Result<&'de str, D::Error> {
    <&RawValue>::deserialize(from).map(RawValue::get)
}

/// The shapes of a table's changes so far, the last one used in front. A message lists the columns
/// that it has: of an UPDATE all but the unchanged TOAST values. What it lists is its shape, and
/// nothing is kept from earlier messages, since a column that is absent may have been dropped.
#[derive(Default)]
struct Known {
    insert: Vec<Listed>,
    update: Vec<Listed>,
    delete: Vec<Listed>,
}

struct Listed {
    columns: Vec<String>,
    key: Vec<String>,
    shape: ShapeId,
}

/// Shapes that are remembered for a table and kind. Each set of unchanged columns is one.
const SHAPES: usize = 32;

#[derive(Default)]
pub struct Wal2Json {
    known: HashMap<String, HashMap<String, Known>>,
    /// A TRUNCATE of several tables comes as one message a table.
    truncated: Vec<ShapeId>,
    /// Whose DDL is listened to.
    pub migration: String,
}

#[derive(Deserialize)]
struct Told<'a> {
    transactional: bool,
    #[serde(borrow)]
    prefix: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

impl Wal2Json {
    /// Options for START_REPLICATION. `numbers_as_strings` where the server's wal2json takes it (2.6).
    pub fn options(numbers_as_strings: bool) -> Vec<(&'static str, &'static str)> {
        let mut options = vec![
            ("format-version", "2"),
            ("include-transaction", "1"),
            ("include-xids", "1"),
            ("include-timestamp", "1"),
            ("include-types", "1"),
            ("include-typmod", "0"),
            // The state of a migration is no part of one.
            ("filter-tables", "pgmig.*"),
        ];
        if numbers_as_strings {
            options.push(("numeric-data-types-as-string", "1"));
        }
        options
    }

    fn shape(&mut self, message: &Message<'_>, kind: Kind, into: &mut Assembler) -> Result<ShapeId, DecodeError> {
        let (schema, table) = table_of(message)?;
        if !self.known.get(schema).is_some_and(|tables| tables.contains_key(table)) {
            self.known.entry(schema.to_string()).or_default().insert(table.to_string(), Known::default());
        }
        let known = self.known.get_mut(schema).and_then(|tables| tables.get_mut(table));
        let known = known.ok_or_else(|| DecodeError::new("table lost"))?;
        let listed = match kind {
            Kind::Insert => &mut known.insert,
            Kind::Update => &mut known.update,
            Kind::Delete => &mut known.delete,
        };
        let lists = |names: &[String], columns: &[Column<'_>]| {
            names.len() == columns.len() && names.iter().zip(columns).all(|(name, column)| *name == column.name)
        };
        if let Some(at) =
            listed.iter().position(|l| lists(&l.columns, &message.columns) && lists(&l.key, &message.identity))
        {
            listed.swap(0, at);
            return Ok(listed[0].shape);
        }
        let names = TableName::new(schema, table);
        // A deleted row without any column is of a table without columns, or apply finds that it is not.
        if kind == Kind::Update && message.identity.is_empty() {
            return Err(DecodeError::new(format!("change of {names} without the key of its row")));
        }
        let own = |columns: &[Column<'_>]| columns.iter().map(|column| column.name.to_string()).collect::<Vec<_>>();
        let mut columns = own(&message.columns);
        columns.extend(only_in_key(message).map(|column| column.name.to_string()));
        let position = |column: &Column<'_>| columns.iter().position(|name| *name == column.name);
        let key: Vec<u16> = message.identity.iter().filter_map(position).map(|at| at as u16).collect();
        let shape = into.intern(Shape { table: names, columns, types: Vec::new(), key });
        listed.truncate(SHAPES - 1);
        listed.insert(0, Listed { columns: own(&message.columns), key: own(&message.identity), shape });
        Ok(shape)
    }
}

/// Columns of the old row that the new one does not list: all of a deleted row, and of an updated
/// one, with replica identity FULL, the TOAST values that stay.
fn only_in_key<'m, 'a>(message: &'m Message<'a>) -> impl Iterator<Item = &'m Column<'a>> {
    message.identity.iter().filter(|key| !message.columns.iter().any(|column| column.name == key.name))
}

impl Decoder for Wal2Json {
    fn decode(&mut self, wal: Lsn, message: &[u8], into: &mut Assembler) -> Result<(), DecodeError> {
        // A logical message, of ours or of another tool: what it says is of any form.
        if message.starts_with(br#"{"action":"M""#) {
            // What is no JSON is not of ours.
            let told = serde_json::from_slice::<Told<'_>>(message).ok().filter(|told| {
                let of = told.prefix.strip_prefix(super::DDL_PREFIX);
                told.transactional && of.is_some_and(|migration| migration == self.migration)
            });
            if let Some(told) = told {
                if !self.truncated.is_empty() {
                    into.truncate(&std::mem::take(&mut self.truncated));
                }
                into.ddl(told.content.as_bytes());
            }
            return Ok(());
        }
        let text = std::str::from_utf8(message).map_err(|_| DecodeError::new("message is not UTF-8"))?;
        let message = match scan::message(text) {
            Some(message) => message,
            None => serde_json::from_str(text).map_err(|err| {
                DecodeError::new(format!("message is not wal2json format 2 (column {})", err.column()))
            })?,
        };
        if message.action != "T" && !self.truncated.is_empty() {
            into.truncate(&std::mem::take(&mut self.truncated));
        }
        match message.action {
            "B" => into.begin(message.xid.ok_or_else(|| DecodeError::new("begin without xid"))?),
            "C" => into.commit(Commit { end_lsn: wal, commit_at: commit_at(&message)? }),
            "I" => {
                let shape = self.shape(&message, Kind::Insert, into)?;
                let row = into.change(Kind::Insert, shape);
                for column in &message.columns {
                    with_value(column, |value| row.value(value))?;
                }
            }
            "U" => {
                let shape = self.shape(&message, Kind::Update, into)?;
                let row = into.change(Kind::Update, shape);
                for column in message.identity.iter().chain(&message.columns) {
                    with_value(column, |value| row.value(value))?;
                }
                only_in_key(&message).for_each(|_| row.value(Value::Unchanged));
            }
            "D" => {
                let shape = self.shape(&message, Kind::Delete, into)?;
                let row = into.change(Kind::Delete, shape);
                for column in &message.identity {
                    with_value(column, |value| row.value(value))?;
                }
            }
            "T" => {
                let (schema, table) = table_of(&message)?;
                let shape = Shape {
                    table: TableName::new(schema, table),
                    columns: Vec::new(),
                    types: Vec::new(),
                    key: Vec::new(),
                };
                let shape = into.intern(shape);
                self.truncated.push(shape);
            }
            // Logical messages of ours and of other tools.
            "M" => {}
            other => return Err(DecodeError::new(format!("unknown action {other:?}"))),
        }
        Ok(())
    }
}

fn table_of<'m>(message: &'m Message<'_>) -> Result<(&'m str, &'m str), DecodeError> {
    match (&message.schema, &message.table) {
        (Some(schema), Some(table)) => Ok((schema, table)),
        _ => Err(DecodeError::new("change without a table")),
    }
}

/// Gives the text of a value, as PostgreSQL's output function printed it.
fn with_value(column: &Column<'_>, take: impl FnOnce(Value<'_>)) -> Result<(), DecodeError> {
    let raw = column.value;
    match raw.as_bytes()[0] {
        b'n' => take(Value::Null),
        b'"' => {
            let text: Cow<'_, str> = match raw.get(1..raw.len() - 1) {
                Some(plain) if memchr::memchr(b'\\', plain.as_bytes()).is_none() => Cow::Borrowed(plain),
                _ => serde_json::from_str::<String>(raw)
                    .map_err(|_| DecodeError::new(format!("value of column {:?} is no string", column.name)))?
                    .into(),
            };
            // Of bytea alone wal2json leaves the \x out.
            if column.type_name.as_deref() == Some("bytea") {
                take(Value::Text(format!("\\x{text}").as_bytes()));
            } else {
                take(Value::Text(text.as_bytes()));
            }
        }
        _ => take(Value::Text(raw.as_bytes())),
    }
    Ok(())
}

/// `2026-11-22 11:26:17.02898+00`, printed with TimeZone = UTC.
fn commit_at(message: &Message<'_>) -> Result<i64, DecodeError> {
    let text = message.timestamp.as_deref().unwrap_or_default();
    let parse = || -> Option<i64> {
        let civil: jiff::civil::DateTime = text.strip_suffix("+00")?.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond())
    };
    parse().ok_or_else(|| DecodeError::new(format!("commit time {text:?} is not understood")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::{Item, Reader};

    fn decode(messages: &[&str]) -> Vec<Item> {
        let (mut decoder, mut into) = (Wal2Json::default(), Assembler::default());
        for (at, message) in messages.iter().enumerate() {
            decoder.decode(Lsn(at as u64), message.as_bytes(), &mut into).unwrap();
        }
        let mut items = Vec::new();
        while let Some(frame) = into.take(true) {
            let mut reader = Reader::new(frame.body.into());
            while let Some(item) = reader.next().unwrap() {
                items.push(item);
            }
        }
        items
    }

    const BEGIN: &str = r#"{"action":"B","xid":7,"timestamp":"2026-11-22 11:26:17.02898+00"}"#;
    const COMMIT: &str = r#"{"action":"C","xid":7,"timestamp":"2026-11-22 11:26:17.02898+00"}"#;

    fn row(item: &Item) -> Vec<Value<'_>> {
        let Item::Change(change) = item else { panic!("{item:?}") };
        change.key().chain(change.row()).collect()
    }

    #[test]
    fn a_logical_message_may_say_anything() {
        let (mut decoder, mut into) = (Wal2Json::default(), Assembler::default());
        let message = b"{\"action\":\"M\",\"transactional\":true,\"prefix\":\"x\",\"content\":\"\xff\xfe\"}";
        assert!(decoder.decode(Lsn(1), message, &mut into).is_ok());
    }

    #[test]
    fn values_keep_their_text() {
        let insert = r#"{"action":"I","schema":"s","table":"t","columns":[
            {"name":"a","type":"bigint","value":9007199254740993},
            {"name":"b","type":"bytea","value":"00ff"},
            {"name":"c","type":"text","value":"x\"\\\u0001é"},
            {"name":"d","type":"boolean","value":true},
            {"name":"e","type":"numeric","value":null},
            {"name":"f","type":"text","value":"null"}]}"#;
        let items = decode(&[BEGIN, insert, COMMIT]);
        let text = |text: &'static str| Value::Text(text.as_bytes());
        assert_eq!(
            row(&items[1]),
            [text("9007199254740993"), text("\\x00ff"), text("x\"\\\u{1}é"), text("true"), Value::Null, text("null")]
        );
        let Item::Commit(commit) = items[2] else { panic!() };
        assert_eq!((commit.end_lsn, commit.commit_at), (Lsn(2), 1_795_346_777_028_980));
    }

    #[test]
    fn a_column_that_an_update_does_not_list_is_not_part_of_it() {
        let insert = r#"{"action":"I","schema":"s","table":"t","columns":[{"name":"id","value":1},{"name":"big","value":"x"},{"name":"n","value":1}]}"#;
        let update = r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","value":1},{"name":"n","value":2}],"identity":[{"name":"id","value":1}]}"#;
        let items = decode(&[BEGIN, insert, update, COMMIT]);
        // It may be an unchanged TOAST value, or have been dropped.
        assert_eq!(row(&items[2]), [Value::Text(b"1"), Value::Text(b"1"), Value::Text(b"2")]);
        let Item::Change(update) = &items[2] else { panic!() };
        assert_eq!(update.shape.columns, ["id", "n"]);
        // The old row of replica identity FULL has it all the same.
        let full = r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","value":1},{"name":"n","value":2}],"identity":[{"name":"id","value":1},{"name":"big","value":"x"},{"name":"n","value":1}]}"#;
        let items = decode(&[BEGIN, full, COMMIT]);
        let text = |text: &'static str| Value::Text(text.as_bytes());
        assert_eq!(row(&items[1]), [text("1"), text("x"), text("1"), text("1"), text("2"), Value::Unchanged]);
    }

    #[test]
    fn tables_truncated_together_stay_together() {
        let truncate = |table: &str| format!(r#"{{"action":"T","xid":7,"schema":"s","table":"{table}"}}"#);
        let items = decode(&[BEGIN, &truncate("a"), &truncate("b"), COMMIT]);
        assert!(matches!(&items[1], Item::Truncate(shapes) if shapes.len() == 2), "{items:?}");
    }

    #[test]
    fn an_empty_transaction_leaves_no_record_but_moves_the_position() {
        let (mut decoder, mut into) = (Wal2Json::default(), Assembler::default());
        decoder.decode(Lsn(10), BEGIN.as_bytes(), &mut into).unwrap();
        decoder.decode(Lsn(30), COMMIT.as_bytes(), &mut into).unwrap();
        assert!(into.take(true).is_none());
        assert_eq!(into.spooled(), Lsn(30));
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        let mut decoder = Wal2Json::default();
        for message in ["", "{}", "[]", r#"{"action":"I"}"#, r#"{"action":"U","schema":"s","table":"t"}"#, "\u{0}"] {
            assert!(decoder.decode(Lsn(1), message.as_bytes(), &mut Assembler::default()).is_err(), "{message}");
        }
        assert!(decoder.decode(Lsn(1), b"\xff", &mut Assembler::default()).is_err());
    }
}
