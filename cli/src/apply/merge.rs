//! The net effect of a Batch: changes table by table, and those of one row as one. It never touches
//! what it cannot prove to be one row: tables without a unique key on the target, keys that move, and
//! changes that contradict each other stay in the source's order, so that a conflict is found where
//! it would have been found.
//!
//! ```text
//! insert, update → insert          update, update → update         update, delete → delete
//! delete, insert → both, in turn   insert, delete → both, in turn
//! ```
//! An insert that is deleted again is still written: only so does a row that should not be there get
//! noticed. Rows are independent of each other but for unique and exclusion constraints; those are
//! helped by writing deletes first and inserts last, and where that is not enough the Batch fails and
//! is applied again in the source's order (`apply/mod.rs`).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::batch::Op;
use crate::model::TableName;
use crate::model::wire::{Change, Encoder, Kind, Shape, Value};

/// Columns of the unique keys of each table on the target: immediate, without NULL, without predicate.
pub type Keys = HashMap<TableName, Vec<Vec<String>>>;

#[derive(Default)]
pub struct Merger {
    keys: Keys,
    /// Tables whose triggers fire while changes are applied: they may look at other tables.
    loud: HashSet<TableName>,
}

/// What is left to write.
pub struct Net {
    pub ops: Vec<Op>,
    /// Whether it differs from the source's order.
    pub reordered: bool,
}

impl Merger {
    pub fn new(keys: Keys, loud: HashSet<TableName>) -> Merger {
        Merger { keys, loud }
    }

    /// The target's keys, after DDL.
    pub fn renew(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// From now on the changes of this table stay as they are.
    pub fn keep_order(&mut self, schema: &str, table: &str) {
        self.keys.remove(&TableName::new(schema, table));
    }

    pub fn merge(&self, ops: &[Op]) -> Net {
        if ops.len() < 2 || self.is_loud(ops) {
            return Net { ops: ops.to_vec(), reordered: false };
        }
        let mut net = Net { ops: Vec::with_capacity(ops.len()), reordered: false };
        for stretch in ops.chunk_by(|a, b| matches!((a, b), (Op::Change(_), Op::Change(_)))) {
            if let [truncate @ Op::Truncate(_)] = stretch {
                net.ops.push(truncate.clone());
                continue;
            }
            let tables = by_table(stretch);
            net.reordered |= tables.len() > 1;
            for changes in tables {
                self.table(&changes, &mut net);
            }
        }
        net
    }

    /// Changes table by table and otherwise as they are, unless a trigger may look at other tables.
    pub fn grouped(&self, ops: &[Op]) -> Vec<Op> {
        if self.is_loud(ops) {
            return ops.to_vec();
        }
        let stretches = ops.chunk_by(|a, b| matches!((a, b), (Op::Change(_), Op::Change(_))));
        let grouped = stretches.flat_map(|stretch| match stretch {
            [truncate @ Op::Truncate(_)] => vec![truncate.clone()],
            changes => by_table(changes).concat().into_iter().cloned().map(Op::Change).collect(),
        });
        grouped.collect()
    }

    fn is_loud(&self, ops: &[Op]) -> bool {
        let loud = |op: &Op| match op {
            Op::Change(change) => self.loud.contains(&change.shape.table),
            Op::Truncate(shapes) => shapes.iter().any(|shape| self.loud.contains(&shape.table)),
        };
        !self.loud.is_empty() && ops.iter().any(loud)
    }

    /// The changes of one table.
    fn table(&self, changes: &[&Change], net: &mut Net) {
        if let Some(merged) = self.key_of(changes).and_then(|key| merged(changes, &key)) {
            net.reordered |= merged.reordered;
            net.ops.extend(merged.ops);
        } else {
            net.ops.extend(changes.iter().map(|&change| Op::Change(change.clone())));
        }
    }

    /// The columns by which updates and deletes name their row, if the target knows them as a unique key.
    fn key_of<'a>(&self, changes: &[&'a Change]) -> Option<Vec<&'a str>> {
        let keys = self.keys.get(&changes[0].shape.table)?;
        let named = changes.iter().find(|change| change.kind != Kind::Insert)?;
        let key: Vec<&str> = named.shape.key_columns().collect();
        let same = |unique: &Vec<String>| unique.len() == key.len() && unique.iter().all(|c| key.contains(&c.as_str()));
        keys.iter().any(same).then_some(key)
    }
}

/// Changes table by table, those of one table in their order. Tables do not see each other: triggers
/// and foreign keys are quiet, and all is one transaction. So rows that the source wrote to several
/// tables in turn still make long runs.
fn by_table(stretch: &[Op]) -> Vec<Vec<&Change>> {
    let mut tables: Vec<Vec<&Change>> = Vec::new();
    let mut places: HashMap<&TableName, usize> = HashMap::new();
    // Equal shapes are mostly one Arc.
    let mut last: HashMap<*const Shape, usize> = HashMap::new();
    for op in stretch {
        if let Op::Change(change) = op {
            let place = *last.entry(Arc::as_ptr(&change.shape)).or_insert_with(|| {
                *places.entry(&change.shape.table).or_insert_with(|| {
                    tables.push(Vec::new());
                    tables.len() - 1
                })
            });
            tables[place].push(change);
        }
    }
    tables
}

/// What becomes of one row, in the order in which it is written.
#[derive(Default)]
struct Row<'a> {
    deleted: Option<&'a Change>,
    /// Insert or update.
    written: Option<Cow<'a, Change>>,
    /// Of a row that was inserted before.
    deleted_again: Option<&'a Change>,
}

/// The net effect of the changes of one table; None if they do not fit together.
fn merged(changes: &[&Change], key: &[&str]) -> Option<Net> {
    let mut net = Net { ops: Vec::with_capacity(changes.len()), reordered: false };
    let mut shapes: HashMap<*const Shape, Places> = HashMap::new();
    let mut rows: Vec<Row<'_>> = Vec::with_capacity(changes.len());
    let mut places: HashMap<Cow<'_, [u8]>, usize> = HashMap::with_capacity(changes.len());
    let mut kinds = [false; 3];
    for &change in changes {
        let at = match shapes.get(&Arc::as_ptr(&change.shape)) {
            Some(at) => at,
            None => {
                // The same key may lie there in text and in binary.
                if change.shape.types != changes[0].shape.types {
                    return None;
                }
                let at = Places::of(change, key)?;
                shapes.entry(Arc::as_ptr(&change.shape)).or_insert(at)
            }
        };
        if moves_key(change, at) {
            // What comes before it may free its new key, what comes after may take its old one.
            write(&mut rows, &mut net.ops);
            places.clear();
            net.ops.push(Op::Change(change.clone()));
            continue;
        }
        kinds[change.kind as usize] = true;
        let next = rows.len();
        let place = *places.entry(key_bytes(change, at)).or_insert(next);
        if place == next {
            rows.push(Row::default());
        } else {
            net.reordered = true;
        }
        rows[place].then(change)?;
    }
    // Changes of one kind keep their order.
    net.reordered |= kinds.iter().filter(|seen| **seen).count() > 1;
    write(&mut rows, &mut net.ops);
    Some(net)
}

/// Deletes before all else and inserts after all else: what is unique is free before it is taken.
fn write(rows: &mut Vec<Row<'_>>, ops: &mut Vec<Op>) {
    let passing = |row: &Row<'_>| row.deleted_again.is_some();
    let is = |kind: Kind| move |change: &&Cow<'_, Change>| change.kind == kind;
    let owned = |change: &Cow<'_, Change>| Op::Change(Change::clone(change));
    ops.extend(rows.iter().filter_map(|row| row.deleted).map(|change| Op::Change(change.clone())));
    ops.extend(rows.iter().filter_map(|row| row.written.as_ref()).filter(is(Kind::Update)).map(owned));
    let inserted = |row: &'_ Row<'_>| row.written.as_ref().filter(is(Kind::Insert)).map(owned);
    ops.extend(rows.iter().filter(|row| passing(row)).filter_map(inserted));
    ops.extend(rows.iter().filter_map(|row| row.deleted_again).map(|change| Op::Change(change.clone())));
    ops.extend(rows.iter().filter(|row| !passing(row)).filter_map(inserted));
    rows.clear();
}

impl<'a> Row<'a> {
    /// Adds what happens next to the row; None if that cannot happen to it.
    fn then(&mut self, next: &'a Change) -> Option<()> {
        let stands = self.written.is_some() && self.deleted_again.is_none();
        let begun = stands || self.deleted.is_some() || self.deleted_again.is_some();
        match next.kind {
            Kind::Insert if stands => return None,
            Kind::Insert => {
                self.deleted_again = None;
                self.written = Some(Cow::Borrowed(next));
            }
            Kind::Update if stands => {
                let earlier = self.written.take()?;
                self.written = Some(laid_over(earlier, next)?);
            }
            Kind::Update if begun => return None,
            Kind::Update => self.written = Some(Cow::Borrowed(next)),
            Kind::Delete if stands => {
                let inserted = self.written.as_ref().is_some_and(|change| change.kind == Kind::Insert);
                if inserted && self.deleted.is_none() {
                    self.deleted_again = Some(next);
                } else {
                    // The row was there before: its first delete, or this one, says so.
                    self.written = None;
                    self.deleted.get_or_insert(next);
                }
            }
            Kind::Delete if begun => return None,
            Kind::Delete => self.deleted = Some(next),
        }
        Some(())
    }
}

/// An insert or update, and an update of the same row after it, as one. What the later one has no
/// value for, or does not even list, stays as it was. None if neither lists all columns of the other.
fn laid_over<'a>(earlier: Cow<'a, Change>, later: &'a Change) -> Option<Cow<'a, Change>> {
    if earlier.shape.columns == later.shape.columns && later.row().all(|value| value != Value::Unchanged) {
        return Some(match earlier.kind {
            Kind::Update => Cow::Borrowed(later),
            _ => Cow::Owned(Change::of(Arc::clone(&earlier.shape), Kind::Insert, later.row_bytes())),
        });
    }
    let lists = |change: &Change, other: &Change| other.shape.columns.iter().all(|c| change.shape.columns.contains(c));
    let shape = if lists(&earlier, later) {
        &earlier.shape
    } else if earlier.kind == Kind::Update && lists(later, &earlier) {
        &later.shape
    } else {
        return None;
    };
    let of = |change: &'_ Change| -> HashMap<String, Vec<u8>> {
        let stays = |(_, value): &(&String, Value<'_>)| *value != Value::Unchanged;
        let own = |(column, value): (&String, Value<'_>)| {
            let mut encoder = Encoder::default();
            encoder.value(value);
            (column.clone(), encoder.buffer)
        };
        change.shape.columns.iter().zip(change.row()).filter(stays).map(own).collect()
    };
    let mut values = of(&earlier);
    values.extend(of(later));
    let mut encoder = Encoder::default();
    earlier.key().for_each(|value| encoder.value(value));
    for column in &shape.columns {
        match values.get(column) {
            Some(value) => encoder.buffer.extend_from_slice(value),
            None => encoder.value(Value::Unchanged),
        }
    }
    Some(Cow::Owned(Change::of(Arc::clone(shape), earlier.kind, encoder.buffer.into())))
}

/// Where the key's columns are in the row of a shape.
struct Places(Vec<usize>);

impl Places {
    /// None if this change does not have the key, in the same order.
    fn of(change: &Change, key: &[&str]) -> Option<Places> {
        let shape = &change.shape;
        if change.kind != Kind::Insert && !shape.key_columns().eq(key.iter().copied()) {
            return None;
        }
        let place = |column: &&str| shape.columns.iter().position(|name| name == column);
        key.iter().map(place).collect::<Option<_>>().map(Places)
    }
    fn values<'a>(&self, change: &'a Change) -> impl Iterator<Item = Value<'a>> {
        self.0.iter().map(|&at| change.row().nth(at).unwrap_or(Value::Null))
    }
}

fn moves_key(change: &Change, at: &Places) -> bool {
    change.kind == Kind::Update
        && change.key().zip(at.values(change)).any(|(old, new)| new != old && new != Value::Unchanged)
}

/// The key as it is encoded: the same bytes for the same values.
fn key_bytes<'a>(change: &'a Change, at: &Places) -> Cow<'a, [u8]> {
    if change.kind != Kind::Insert {
        return Cow::Borrowed(change.key_bytes());
    }
    let mut encoder = Encoder::default();
    at.values(change).for_each(|value| encoder.value(value));
    Cow::Owned(encoder.buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Text = Option<String>;
    /// Two columns of key, two of values.
    type Tables = BTreeMap<(usize, Vec<String>), Vec<Text>>;

    /// What the source's plugins call the columns: pgoutput has one shape for all kinds, wal2json leaves
    /// the key out of inserts and all else out of deletes.
    struct Shapes {
        insert: Arc<Shape>,
        update: Arc<Shape>,
        /// wal2json does not list a column that an update left alone.
        update_but_a: Option<Arc<Shape>>,
        delete: Arc<Shape>,
    }

    fn shapes(table: usize, like_wal2json: bool) -> Shapes {
        let shape = |columns: &[&str], key: &[u16]| {
            let columns = columns.iter().map(|column| column.to_string()).collect();
            Arc::new(Shape {
                table: TableName::new("s", format!("t{table}")),
                columns,
                types: Vec::new(),
                key: key.to_vec(),
            })
        };
        let whole = shape(&["a", "k", "l", "b"], &[1, 2]);
        match like_wal2json {
            true => Shapes {
                insert: shape(&["a", "k", "l", "b"], &[]),
                update: whole,
                update_but_a: Some(shape(&["k", "l", "b"], &[0, 1])),
                delete: shape(&["k", "l"], &[0, 1]),
            },
            false => {
                Shapes { insert: Arc::clone(&whole), update: Arc::clone(&whole), update_but_a: None, delete: whole }
            }
        }
    }

    fn op(shape: &Arc<Shape>, kind: Kind, key: &[String], row: &[Option<Text>]) -> Op {
        let mut encoder = Encoder::default();
        if kind != Kind::Insert {
            key.iter().for_each(|part| encoder.value(Value::Text(part.as_bytes())));
        }
        row.iter().for_each(|value| match value {
            None => encoder.value(Value::Unchanged),
            Some(None) => encoder.value(Value::Null),
            Some(Some(text)) => encoder.value(Value::Text(text.as_bytes())),
        });
        Op::Change(Change::of(Arc::clone(shape), kind, encoder.buffer.into()))
    }

    fn texts<'a>(values: impl Iterator<Item = Value<'a>>) -> Vec<Option<Text>> {
        let text = |text: &[u8]| Some(String::from_utf8(text.to_vec()).unwrap());
        let own = |value| match value {
            Value::Unchanged => None,
            Value::Null => Some(None),
            Value::Binary(_) => panic!("all of it is text here"),
            Value::Text(bytes) => Some(text(bytes)),
        };
        values.map(own).collect()
    }

    /// What a target does: one change after the other; Err for a row that is not there, or is.
    fn apply(tables: &mut Tables, ops: &[Op]) -> Result<(), ()> {
        for op in ops {
            let change = match op {
                Op::Truncate(shapes) => {
                    tables.retain(|(table, _), _| shapes.iter().all(|s| s.table.table != format!("t{table}")));
                    continue;
                }
                Op::Change(change) => change,
            };
            let table = usize::from(change.shape.table.table == "t1");
            let key: Vec<String> = texts(change.key()).into_iter().map(|part| part.unwrap().unwrap()).collect();
            let mut row = texts(change.row());
            if change.kind == Kind::Update && row.len() == 3 {
                row.insert(0, None);
            }
            let mut old = vec![None; 4];
            if change.kind != Kind::Insert {
                old = tables.remove(&(table, key)).ok_or(())?;
            }
            if change.kind != Kind::Delete {
                let new: Vec<Text> = row.into_iter().zip(old).map(|(new, old)| new.unwrap_or(old)).collect();
                let key = vec![new[1].clone().unwrap(), new[2].clone().unwrap()];
                if tables.insert((table, key), new).is_some() {
                    return Err(());
                }
            }
        }
        Ok(())
    }

    /// Changes that a source could make, one after the other.
    fn random(rng: &mut fastrand::Rng, source: &mut Tables) -> Vec<Op> {
        let both = [shapes(0, rng.bool()), shapes(1, rng.bool())];
        let mut ops = Vec::new();
        for _ in 0..rng.usize(..30) {
            let table = rng.usize(..2);
            let shapes = &both[table];
            let key = vec![rng.u8(..3).to_string(), rng.u8(..2).to_string()];
            let at = (table, key.clone());
            let value = |rng: &mut fastrand::Rng| if rng.u8(..4) == 0 { None } else { Some(rng.u8(..).to_string()) };
            let new_row = |key: &[String], a: Text, b: Text| vec![a, Some(key[0].clone()), Some(key[1].clone()), b];
            let op = match (source.get(&at), rng.u8(..20)) {
                (_, 0) => Op::Truncate(vec![Arc::clone(&shapes.update)]),
                (None, _) => {
                    let row = new_row(&key, value(rng), value(rng));
                    op(&shapes.insert, Kind::Insert, &key, &row.into_iter().map(Some).collect::<Vec<_>>())
                }
                (Some(_), 1..6) => op(&shapes.delete, Kind::Delete, &key, &[]),
                (Some(_), what) => {
                    let moved = vec![rng.u8(..3).to_string(), rng.u8(..2).to_string()];
                    let free = what < 9 && !source.contains_key(&(table, moved.clone()));
                    let row = new_row(if free { &moved } else { &key }, value(rng), value(rng));
                    let mut row: Vec<Option<Text>> = row.into_iter().map(Some).collect();
                    [0, 3].into_iter().filter(|_| rng.bool()).for_each(|at| row[at] = None);
                    match &shapes.update_but_a {
                        Some(shape) if row[0].is_none() => op(shape, Kind::Update, &key, &row[1..]),
                        _ => op(&shapes.update, Kind::Update, &key, &row),
                    }
                }
            };
            apply(source, std::slice::from_ref(&op)).expect("a source does only what it can");
            ops.push(op);
        }
        ops
    }

    #[test]
    fn the_net_effect_is_what_the_changes_do_one_by_one() {
        let unique = vec![vec!["k".to_string(), "l".to_string()]];
        let keys = |tables: &[&str]| tables.iter().map(|t| (TableName::new("s", *t), unique.clone())).collect::<Keys>();
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut merged_away, mut conflicts) = (0, 0);
        for _ in 0..1500 {
            let mut source = Tables::new();
            apply(&mut source, &random(&mut rng, &mut Tables::new())).unwrap();
            let mut target = source.clone();
            // Something else wrote to the target.
            if rng.u8(..3) == 0 {
                let at = (rng.usize(..2), vec![rng.u8(..3).to_string(), rng.u8(..2).to_string()]);
                let row = vec![None, Some(at.1[0].clone()), Some(at.1[1].clone()), None];
                if target.remove(&at).is_none() {
                    target.insert(at, row);
                }
            }
            let ops = random(&mut rng, &mut source);
            let merger = Merger::new(keys(if rng.bool() { &["t0", "t1"] } else { &["t1"] }), HashSet::new());
            let net = merger.merge(&ops);
            let (mut one_by_one, mut at_once) = (target.clone(), target);
            let done = (apply(&mut one_by_one, &ops), apply(&mut at_once, &net.ops));
            assert_eq!(done.0, done.1, "{ops:?}\n{:?}", net.ops);
            if done.0.is_ok() {
                assert_eq!(one_by_one, at_once, "{ops:?}\n{:?}", net.ops);
            }
            assert!(net.reordered || format!("{ops:?}") == format!("{:?}", net.ops));
            merged_away += ops.len() - net.ops.len();
            conflicts += usize::from(done.0.is_err());
        }
        assert!(merged_away > 400 && conflicts > 40, "{merged_away} {conflicts}");
    }

    #[test]
    fn a_table_without_a_known_key_and_a_loud_one_keep_the_order_of_the_source() {
        let mut rng = fastrand::Rng::with_seed(7);
        let table = |table: &str| TableName::new("s", table);
        let unique = vec![vec!["l".to_string(), "k".to_string()]];
        let ops = random(&mut rng, &mut Tables::new());
        let loud = Merger::new(
            Keys::from([(table("t0"), unique.clone()), (table("t1"), unique)]),
            HashSet::from([table("t0")]),
        );
        let net = loud.merge(&ops);
        assert!(!net.reordered && format!("{ops:?}") == format!("{:?}", net.ops));
        let of = |ops: &[Op], table: &str| {
            let own = |op: &&Op| matches!(op, Op::Change(change) if change.shape.table.table == table);
            format!("{:?}", ops.iter().filter(own).collect::<Vec<_>>())
        };
        let unkeyed = Merger::default().merge(&ops);
        for table in ["t0", "t1"] {
            assert_eq!(of(&ops, table), of(&unkeyed.ops, table));
        }
    }
}
