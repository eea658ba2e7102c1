//! What the copies hold already, and so which changes are still to be applied: a change is passed over
//! exactly if the snapshot that its row was read under shows its transaction.
//!
//! ```text
//! table                     one tag: every change, TRUNCATE too, is held against it
//! table cut by ranges of    each range is a table of its own; the key says which one is meant.
//! keys, several tags        An update that moves its row from one range to another is
//!
//!                                             new range lacks it     new range shows it
//!                           old range lacks   update                 delete of the old row
//!                           old range shows   insert of the new row  nothing
//! ```
//! An insert must be of a whole row. Values that the update left in TOAST are not in the stream, and the
//! old row is nowhere any more: then the table is copied again, as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::wire::{Change, Encoder, Kind, Value};
use crate::model::{KeyRange, KeyValue, Lsn, SnapshotTag, TableName};

/// Which transactions a copy holds already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub snapshot: SnapshotTag,
    /// Behind this the snapshot says nothing any more: xids are compared modulo 2^32.
    pub lsn: Lsn,
}

impl Tag {
    /// Whether the copy shows a transaction behind `passed`.
    fn shows(&self, xid: Option<u32>, passed: Lsn) -> bool {
        passed < self.lsn && xid.is_some_and(|xid| self.snapshot.covers(xid))
    }
}

/// How the copy of a table was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    Whole(Tag),
    /// Ranges of one column, which together hold every value.
    Ranges(Vec<(KeyRange, Tag)>),
}

/// A table that is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    Done(Copied),
    /// Its rows are not there yet. Changes that the tag of the copy shows, if it is known, are passed over;
    /// apply waits at the first other one.
    Running(Option<Tag>),
}

impl Copy {
    /// Of a table that was empty when its stream began: all changes of it are applied.
    pub fn of_nothing() -> Copy {
        Copy::Done(Copied::Whole(Tag { snapshot: SnapshotTag::of_nothing(), lsn: Lsn::ZERO }))
    }
}

/// Every table that is moved.
#[derive(Debug, Clone, Default)]
pub struct Tags {
    copies: HashMap<TableName, Copy>,
    /// Partitions of the source whose rows are those of one table of the target.
    leaves: HashMap<TableName, Leaf>,
}

/// What a partition of the source is to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The table that its rows go into.
    pub root: TableName,
    /// What is true of all its rows and of no other of that table; None: nothing says it.
    pub condition: Option<String>,
}

impl Tags {
    pub fn get(&self, table: &TableName) -> Option<&Copy> {
        self.copies.get(table)
    }
    pub fn contains(&self, table: &TableName) -> bool {
        self.copies.contains_key(table)
    }
    pub fn insert(&mut self, table: TableName, copy: Copy) {
        self.copies.insert(table, copy);
    }
    pub fn into_tables(self) -> impl Iterator<Item = TableName> {
        self.copies.into_keys()
    }
    pub fn remove(&mut self, table: &TableName) -> Option<Copy> {
        self.copies.remove(table)
    }
    /// The partition of that name, if its rows go into another table.
    pub fn leaf(&self, name: &TableName) -> Option<&Leaf> {
        self.leaves.get(name)
    }
    pub fn remove_leaf(&mut self, name: &TableName) {
        self.leaves.remove(name);
    }
    pub fn has_leaves(&self) -> bool {
        !self.leaves.is_empty()
    }
    pub fn add_leaf(&mut self, name: TableName, leaf: Leaf) {
        self.leaves.insert(name, leaf);
    }
    /// The names of the partitions that go into this table.
    pub fn leaves_of<'a>(&'a self, root: &'a TableName) -> impl Iterator<Item = &'a TableName> {
        self.leaves.iter().filter(move |(_, leaf)| leaf.root == *root).map(|(name, _)| name)
    }
    /// Whether several partitions of the source go into this table.
    pub fn is_united(&self, table: &TableName) -> bool {
        self.leaves_of(table).next().is_some()
    }
    /// Puts the partitions of a table in the place of those that it had.
    pub fn set_leaves(&mut self, root: &TableName, leaves: impl IntoIterator<Item = (TableName, Leaf)>) {
        self.leaves.retain(|_, leaf| leaf.root != *root);
        self.leaves.extend(leaves);
    }
}

/// The position behind which every change is to be applied. Before it the tables are not at one point in
/// time.
pub fn newest(tags: &Tags) -> Lsn {
    let newest = |copy: &Copy| match copy {
        Copy::Done(copied) => copied.newest(),
        Copy::Running(tag) => tag.as_ref().map_or(Lsn::ZERO, |tag| tag.lsn),
    };
    tags.copies.values().map(newest).max().unwrap_or_default()
}

/// What the tags say of a table and a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    All,
    Nothing,
    /// It depends on the key.
    ByKey,
    /// Not before the table is copied.
    Later,
}

impl Copy {
    pub fn wanted(&self, xid: Option<u32>, passed: Lsn) -> Wanted {
        match self {
            Copy::Done(copied) => copied.wanted(xid, passed),
            Copy::Running(Some(tag)) if tag.shows(xid, passed) => Wanted::Nothing,
            Copy::Running(_) => Wanted::Later,
        }
    }
}

/// What becomes of a change.
#[derive(Debug)]
pub enum Verdict {
    Apply(Change),
    PassOver,
    /// The new row would have to be inserted, and values of it are not in the stream.
    Lacks,
    /// The column that the table is cut by is not in the change.
    NoKey,
}

impl Copied {
    /// The position behind which every change is to be applied.
    pub fn newest(&self) -> Lsn {
        match self {
            Copied::Whole(tag) => tag.lsn,
            Copied::Ranges(ranges) => ranges.iter().map(|(_, tag)| tag.lsn).max().unwrap_or_default(),
        }
    }

    pub fn wanted(&self, xid: Option<u32>, passed: Lsn) -> Wanted {
        match self {
            Copied::Whole(tag) if tag.shows(xid, passed) => Wanted::Nothing,
            Copied::Whole(_) => Wanted::All,
            Copied::Ranges(ranges) => match ranges.iter().filter(|(_, tag)| tag.shows(xid, passed)).count() {
                0 => Wanted::All,
                count if count == ranges.len() => Wanted::Nothing,
                _ => Wanted::ByKey,
            },
        }
    }

    /// Conditions for the ranges that do not show a transaction, as any server understands them.
    pub fn lacking(&self, xid: Option<u32>, passed: Lsn) -> Vec<String> {
        let Copied::Ranges(ranges) = self else { return Vec::new() };
        ranges
            .iter()
            .filter(|(_, tag)| !tag.shows(xid, passed))
            .filter_map(|(range, _)| range.condition_anywhere())
            .collect()
    }

    /// What becomes of a change whose ranges may differ; `whole`: its shape lists every column.
    pub fn verdict(&self, change: Change, whole: bool, xid: Option<u32>, passed: Lsn) -> Verdict {
        let Copied::Ranges(ranges) = self else { return Verdict::Apply(change) };
        let shows = |value: Option<Value<'_>>| -> Option<bool> {
            let (first, _) = ranges.first()?;
            let value = match value? {
                Value::Text(text) => KeyValue::parse(&first.type_name, text)?,
                Value::Binary(bytes) => KeyValue::receive(&first.type_name, bytes)?,
                Value::Null | Value::Unchanged => return None,
            };
            ranges.iter().find(|(range, _)| range.holds(&value)).map(|(_, tag)| tag.shows(xid, passed))
        };
        let Some(column) = ranges.first().map(|(range, _)| range.column.as_str()) else { return Verdict::NoKey };
        let in_row = change.shape.columns.iter().position(|name| name == column);
        let in_key = change.shape.key_columns().position(|name| name == column);
        let (Some(in_row), true) = (in_row, change.kind == Kind::Insert || in_key.is_some()) else {
            return Verdict::NoKey;
        };
        let old = if change.kind == Kind::Insert { None } else { shows(change.key().nth(in_key.unwrap_or_default())) };
        let new = match change.row().nth(in_row) {
            // As it was.
            Some(Value::Unchanged) => old,
            value => shows(value),
        };
        match (change.kind, old, new) {
            (Kind::Insert, _, Some(false))
            | (Kind::Delete, Some(false), _)
            | (Kind::Update, Some(false), Some(false)) => Verdict::Apply(change),
            (Kind::Insert, _, Some(true)) | (Kind::Delete, Some(true), _) | (Kind::Update, Some(true), Some(true)) => {
                Verdict::PassOver
            }
            (Kind::Update, Some(false), Some(true)) => {
                let key = Bytes::copy_from_slice(change.key_bytes());
                Verdict::Apply(Change::of(Arc::clone(&change.shape), Kind::Delete, key))
            }
            (Kind::Update, Some(true), Some(false)) if !whole => Verdict::Lacks,
            (Kind::Update, Some(true), Some(false)) => match whole_row(&change) {
                Some(row) => Verdict::Apply(Change::of(Arc::clone(&change.shape), Kind::Insert, row)),
                None => Verdict::Lacks,
            },
            _ => Verdict::NoKey,
        }
    }
}

/// The new row, with what it left unchanged taken from the old one where that is in the change: of a table
/// whose replica identity is full. None if a value is in neither.
fn whole_row(change: &Change) -> Option<Bytes> {
    if change.row().all(|value| value != Value::Unchanged) {
        return Some(change.row_bytes());
    }
    let old = |at: usize| {
        let in_key = change.shape.key.iter().position(|&key| usize::from(key) == at)?;
        change.key().nth(in_key).filter(|value| *value != Value::Unchanged)
    };
    let mut encoder = Encoder::default();
    for (at, value) in change.row().enumerate() {
        encoder.value(if value == Value::Unchanged { old(at)? } else { value });
    }
    Some(encoder.buffer.into())
}

/// Tables that one TRUNCATE emptied, some of them only in part: to be emptied by conditions.
#[derive(Debug, Clone)]
pub struct Clear {
    pub table: TableName,
    /// None: all rows.
    pub condition: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::Shape;

    fn tag(xmax: u64) -> Tag {
        Tag { snapshot: format!("{xmax}:{xmax}:").parse().unwrap(), lsn: Lsn(xmax * 10) }
    }
    fn range(lower: Option<&str>, upper: Option<&str>) -> KeyRange {
        let (lower, upper) = (lower.map(str::to_string), upper.map(str::to_string));
        KeyRange { column: "id".into(), type_name: "bigint".into(), lower, upper }
    }
    /// Below 100 as of xid 50, from there on as of xid 60.
    fn copied() -> Copied {
        Copied::Ranges(vec![(range(None, Some("100")), tag(50)), (range(Some("100"), None), tag(60))])
    }
    fn change(kind: Kind, key: &[Value<'_>], row: &[Value<'_>], identity: &[u16]) -> Change {
        let columns = vec!["id".to_string(), "body".to_string()];
        let shape = Shape { table: TableName::new("s", "t"), columns, types: Vec::new(), key: identity.to_vec() };
        let mut encoder = Encoder::default();
        key.iter().chain(row).for_each(|value| encoder.value(*value));
        Change::of(Arc::new(shape), kind, encoder.buffer.into())
    }
    fn update(old: &str, new: &str, body: Value<'_>) -> Change {
        change(Kind::Update, &[Value::Text(old.as_bytes())], &[Value::Text(new.as_bytes()), body], &[0])
    }
    fn told(verdict: Verdict) -> String {
        match verdict {
            Verdict::Apply(change) => {
                format!("{:?} {:?} {:?}", change.kind, change.key().count(), change.row().count())
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_change_belongs_to_the_range_of_its_key() {
        let (copied, body) = (copied(), Value::Text(b"b"));
        // Transaction 55: only the upper range shows it.
        assert_eq!(copied.wanted(Some(55), Lsn(0)), Wanted::ByKey);
        assert_eq!(copied.wanted(Some(45), Lsn(0)), Wanted::Nothing);
        assert_eq!(copied.wanted(Some(65), Lsn(0)), Wanted::All);
        assert_eq!(copied.wanted(Some(55), copied.newest()), Wanted::All);
        assert_eq!(copied.lacking(Some(55), Lsn(0)), [r#""id" < '100'::bigint"#]);
        let of = |change: Change| told(copied.verdict(change, true, Some(55), Lsn(0)));
        assert_eq!(of(update("1", "2", body)), "Update 1 2");
        assert_eq!(of(update("1", "100", body)), "Delete 1 0");
        assert_eq!(of(update("100", "99", body)), "Insert 0 2");
        assert_eq!(of(update("100", "101", body)), "PassOver");
        assert_eq!(of(update("1", "2", Value::Unchanged)), "Update 1 2");
        assert_eq!(of(update("1", "100", Value::Unchanged)), "Delete 1 0");
        assert_eq!(of(update("100", "99", Value::Unchanged)), "Lacks");
        assert_eq!(told(copied.verdict(update("100", "99", body), false, Some(55), Lsn(0))), "Lacks");
        assert_eq!(of(change(Kind::Insert, &[], &[Value::Text(b"-5"), body], &[])), "Insert 0 2");
        assert_eq!(of(change(Kind::Insert, &[], &[Value::Text(b"500"), body], &[])), "PassOver");
        assert_eq!(of(change(Kind::Delete, &[Value::Text(b"5")], &[], &[0])), "Delete 1 0");
        assert_eq!(of(change(Kind::Delete, &[Value::Text(b"500")], &[], &[0])), "PassOver");
        assert_eq!(of(change(Kind::Delete, &[body], &[], &[1])), "NoKey");
    }

    #[test]
    fn a_full_identity_has_the_values_that_stayed_in_toast() {
        let old = [Value::Text(b"100"), Value::Text(b"long")];
        let moved = change(Kind::Update, &old, &[Value::Text(b"99"), Value::Unchanged], &[0, 1]);
        let Verdict::Apply(insert) = copied().verdict(moved, true, Some(55), Lsn(0)) else { panic!() };
        assert_eq!(insert.row().collect::<Vec<_>>(), [Value::Text(b"99"), Value::Text(b"long")]);
    }
}
