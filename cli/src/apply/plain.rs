//! The writer for the plain flavour: runs of changes of one table, kind and column set become one
//! statement over arrays. Every row is counted: a change that finds no row is an error. A Batch that
//! fails on a constraint is rolled back and written again, one change a statement, in the source's
//! order, before that is called an error.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};

use super::batch::Op;
use super::extension::advance_by;
use super::{Advance, Writer};
use crate::error::{Context, Error, Exit, Result, ServerError};
use crate::model::TableName;
use crate::model::name::{identifier, identifiers};
use crate::model::wire::{Change, Kind, Shape, Value};

/// Rows of one statement at most.
const RUN: usize = 1000;

/// A table of the target as statements need it.
pub struct Target {
    pub columns: Vec<Column>,
    /// Columns of its usable unique indexes, the primary key first. One that is checked at the end of
    /// the transaction is none: until then it may hold a key twice.
    unique: Vec<Vec<Unique>>,
}

/// A column of an index, and the operator that the index calls equal: the name alone would find none in an
/// extension's schema, or another one.
struct Unique {
    column: String,
    equal: String,
}

pub struct Column {
    pub name: String,
    /// The type that a new value is cast to: no domain and no modifier, since an explicit cast to
    /// `varchar(3)` cuts where the assignment to the column refuses.
    pub assigned: String,
    /// The type that a value of a key is cast to: as the column rounds, but never cut.
    pub compared: String,
    /// The server computes it.
    pub computed: bool,
    /// Of type bpchar without a length: blanks at the end belong to the value, and a cast to text drops them.
    keeps_blanks: bool,
}

#[derive(Default)]
pub struct PlainWriter {
    targets: HashMap<TableName, Arc<Target>>,
    statements: HashMap<String, Statement>,
}

/// How the rows of a shape are found: by the columns of an index, or by reading the table. All of the
/// key is compared either way.
struct Lookup {
    /// Positions in the shape's key of what tells rows apart: the index's columns, or all.
    positions: Vec<usize>,
    /// For each of them the operator of the index; none where the table is read.
    equal: Vec<String>,
    by_index: bool,
}

impl Writer for PlainWriter {
    type Work = Vec<Op>;
    fn forget(&mut self) {
        self.targets.clear();
        self.statements.clear();
    }
    fn work(ops: Vec<Op>) -> Vec<Op> {
        ops
    }

    async fn write(&mut self, client: &Client, ops: &Vec<Op>, advance: Option<&Advance>, open: bool) -> Result<u64> {
        let (begin, again, end) = if open {
            ("savepoint pgmig", "rollback to savepoint pgmig", "release savepoint pgmig")
        } else {
            ("begin", "rollback; begin", "commit")
        };
        client.batch_execute(begin).await.on_target(|| "begin a batch".into())?;
        let mut written = self.write_all(client, ops, RUN).await;
        if let Err(err) = &written
            && matches!(err.sqlstate(), Some("23505" | "23P01" | "P0002"))
        {
            client.batch_execute(again).await.on_target(|| "roll back a batch".into())?;
            written = self.write_all(client, ops, 1).await;
        }
        let written = match written {
            Ok(rows) => match advance {
                Some(advance) => advance_by(client, advance, rows).await.map(|()| rows),
                None => Ok(rows),
            },
            Err(err) => Err(err),
        };
        match written {
            Ok(rows) => client.batch_execute(end).await.on_target(|| "commit a batch".into()).map(|()| rows),
            Err(err) => {
                if !open {
                    client.batch_execute("rollback").await.on_target(|| "roll back a batch".into())?;
                }
                Err(err)
            }
        }
    }
}

impl PlainWriter {
    async fn write_all(&mut self, client: &Client, ops: &[Op], run_max: usize) -> Result<u64> {
        let mut rows = 0;
        for stretch in ops.chunk_by(|a, b| matches!((a, b), (Op::Change(_), Op::Change(_)))) {
            if let [Op::Truncate(shapes)] = stretch {
                let tables: Vec<String> = shapes.iter().map(|shape| shape.table.sql()).collect();
                client
                    .batch_execute(&format!("truncate only {}", tables.join(", only ")))
                    .await
                    .on_target(|| format!("truncate {}", shapes[0].table))?;
            }
            let changes: Vec<&Change> = stretch.iter().filter_map(Op::change).collect();
            let mut rest = &changes[..];
            while let Some(first) = rest.first() {
                let target = self.target(client, &first.shape.table).await?;
                let lookup = target.lookup(first);
                let run = run(rest, &lookup, run_max);
                self.write_run(client, &target, &lookup, run).await?;
                rows += run.len() as u64;
                rest = &rest[run.len()..];
            }
        }
        Ok(rows)
    }

    async fn write_run(&mut self, client: &Client, target: &Target, lookup: &Lookup, run: &[&Change]) -> Result<()> {
        let (shape, kind) = (&run[0].shape, run[0].kind);
        let sent = sent_columns(run[0]);
        let sql = match kind {
            Kind::Insert => target.insert_sql(shape, &sent)?,
            Kind::Update => target.update_sql(shape, &sent, lookup)?,
            Kind::Delete => target.delete_sql(shape, lookup)?,
        };
        // One array a column: the key's first, then the new row's.
        let mut arrays: Vec<Vec<Option<Text<'_>>>> = Vec::new();
        for change in run {
            let row = change.row().enumerate().filter(|(at, _)| sent.contains(at) && !target.is_computed(shape, *at));
            for (column, value) in change.key().chain(row.map(|(_, value)| value)).enumerate() {
                if arrays.len() <= column {
                    arrays.push(Vec::with_capacity(run.len()));
                }
                arrays[column].push(text_of(value)?);
            }
        }
        if arrays.is_empty() {
            // A table without columns: nothing but the number of its rows.
            for change in run {
                let changed =
                    client.execute(&sql, &[]).await.on_target(|| format!("{} {}", verb(kind), shape.table))?;
                if changed != 1 {
                    return Err(no_row(change));
                }
            }
            return Ok(());
        }
        let statement = self.prepare(client, sql).await?;
        let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
        let changed =
            client.execute(&statement, &params).await.on_target(|| format!("{} {}", verb(kind), shape.table))?;
        if changed == run.len() as u64 { Ok(()) } else { Err(no_row(run[0])) }
    }

    async fn prepare(&mut self, client: &Client, sql: String) -> Result<Statement> {
        if let Some(statement) = self.statements.get(&sql) {
            return Ok(statement.clone());
        }
        let statement = client.prepare(&sql).await.on_target(|| "prepare a statement of apply".into())?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    async fn target(&mut self, client: &Client, table: &TableName) -> Result<Arc<Target>> {
        if let Some(target) = self.targets.get(table) {
            return Ok(Arc::clone(target));
        }
        let target = Arc::new(Target::load(client, table).await?);
        self.targets.insert(table.clone(), Arc::clone(&target));
        Ok(target)
    }
}

fn no_row(change: &Change) -> Error {
    let (verb, shape) = (verb(change.kind), &change.shape);
    let key = shape.key_columns().collect::<Vec<_>>().join(", ");
    let cause = ServerError {
        sqlstate: "P0002".into(),
        message: format!("{verb} of {} finds no row with key ({key})", shape.table),
        hint: None,
    };
    Error::new(Exit::Differ, format!("{verb} {}", shape.table)).cause(cause)
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Insert => "insert",
        Kind::Update => "update",
        Kind::Delete => "delete",
    }
}

/// The text of a value as it came: whether it is text in the target's encoding, the target says.
#[derive(Debug)]
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }
    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TEXT
    }
    to_sql_checked!();
}

fn text_of(value: Value<'_>) -> Result<Option<Text<'_>>> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(Text(text))),
        Value::Unchanged => Err(Error::bug("an unchanged value is not sent")),
        Value::Binary(_) => Err(Error::bug("a value in binary, which only the extension reads")),
    }
}

/// Columns whose new value is in the change.
fn sent_columns(change: &Change) -> Vec<usize> {
    change.row().enumerate().filter(|(_, value)| *value != Value::Unchanged).map(|(at, _)| at).collect()
}

/// The longest run at the front that one statement may write: one kind and column set, no row twice,
/// no key that changes.
fn run<'a, 'b>(changes: &'b [&'a Change], lookup: &Lookup, run_max: usize) -> &'b [&'a Change] {
    let first = changes[0];
    let sent = sent_columns(first);
    if first.kind != Kind::Insert && (!lookup.by_index || lookup.moves_key(first)) {
        return &changes[..1];
    }
    let mut keys: HashSet<Vec<Value<'a>>> = HashSet::new();
    keys.insert(lookup.key_of(first));
    let breaks = |next: &'a Change| {
        next.kind != first.kind
            || next.shape != first.shape
            || sent_columns(next) != sent
            || (first.kind != Kind::Insert
                && (lookup.moves_key(next)
                    || lookup.key_of(next).contains(&Value::Null)
                    || !keys.insert(lookup.key_of(next))))
    };
    let length = changes[1..].iter().take(run_max - 1).copied().position(breaks);
    &changes[..length.map_or(changes.len().min(run_max), |at| at + 1)]
}

impl Lookup {
    fn moves_key(&self, change: &Change) -> bool {
        if change.kind != Kind::Update {
            return false;
        }
        let row: Vec<Value<'_>> = change.row().collect();
        change
            .key()
            .zip(&change.shape.key)
            .enumerate()
            .filter(|(position, _)| self.positions.contains(position))
            .any(|(_, (old, &at))| row[usize::from(at)] != old && row[usize::from(at)] != Value::Unchanged)
    }
    fn key_of<'a>(&self, change: &'a Change) -> Vec<Value<'a>> {
        change.key().enumerate().filter(|(at, _)| self.positions.contains(at)).map(|(_, value)| value).collect()
    }
}

impl Target {
    pub async fn load(client: &Client, table: &TableName) -> Result<Target> {
        let doing = || format!("read the columns of {table} on the target");
        let rows = client
            .query(
                "select a.attname::text,
                        pg_catalog.format_type(base.oid, -1),
                        case when base.typcategory in ('S', 'V') then pg_catalog.format_type(base.oid, -1)
                             else pg_catalog.format_type(a.atttypid, a.atttypmod) end,
                        a.attgenerated <> '',
                        a.atttypid = 'pg_catalog.bpchar'::pg_catalog.regtype and a.atttypmod = -1
                   from pg_catalog.pg_attribute a
                        cross join lateral (
                            with recursive types as (
                                select t.* from pg_catalog.pg_type t where t.oid = a.atttypid
                                union all
                                select t.* from types d join pg_catalog.pg_type t on t.oid = d.typbasetype)
                            select oid, typcategory from types where typtype <> 'd') base
                        join pg_catalog.pg_class c on c.oid = a.attrelid
                        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped
                  order by a.attnum",
                &[&table.schema, &table.table],
            )
            .await
            .on_target(doing)?;
        let columns = rows
            .iter()
            .map(|row| Column {
                name: row.get(0),
                assigned: row.get(1),
                compared: row.get(2),
                computed: row.get(3),
                keeps_blanks: row.get(4),
            })
            .collect();
        let rows = client
            .query(
                "select k.names, k.operators
                   from pg_catalog.pg_index i
                        join pg_catalog.pg_class c on c.oid = i.indrelid
                        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        cross join lateral (
                            select pg_catalog.array_agg(a.attname::text order by k.at) as names,
                                   pg_catalog.array_agg(pg_catalog.format('operator(%I.%s)', s.nspname, p.oprname) order by k.at) as operators
                              from unnest(i.indkey[0:i.indnkeyatts - 1], i.indclass[0:i.indnkeyatts - 1])
                                       with ordinality k (attnum, opclass, at)
                                   join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                                   join pg_catalog.pg_opclass o on o.oid = k.opclass
                                   -- Strategy 3 of a btree is equality.
                                   join pg_catalog.pg_amop e on e.amopfamily = o.opcfamily and e.amopstrategy = 3
                                        and e.amoplefttype = o.opcintype and e.amoprighttype = o.opcintype
                                   join pg_catalog.pg_operator p on p.oid = e.amopopr
                                   join pg_catalog.pg_namespace s on s.oid = p.oprnamespace) k
                  where n.nspname = $1 and c.relname = $2
                    and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null and i.indexprs is null
                  order by not i.indisprimary, i.indnkeyatts",
                &[&table.schema, &table.table],
            )
            .await
            .on_target(doing)?;
        let unique = |row: &tokio_postgres::Row| {
            let (names, operators): (Vec<String>, Vec<String>) = (row.get(0), row.get(1));
            names.into_iter().zip(operators).map(|(column, equal)| Unique { column, equal }).collect()
        };
        Ok(Target { columns, unique: rows.iter().map(unique).collect() })
    }

    /// By the first index whose columns are all in the key, and none of them null: null equals nothing
    /// in an index.
    fn lookup(&self, change: &Change) -> Lookup {
        let key: Vec<&str> = change.shape.key_columns().collect();
        let nulls: Vec<bool> = change.key().map(|value| value == Value::Null).collect();
        let position = |unique: &Unique| {
            let at = key.iter().position(|name| *name == unique.column);
            at.filter(|&at| !nulls.get(at).copied().unwrap_or(false)).map(|at| (at, unique.equal.clone()))
        };
        let usable = self.unique.iter().find_map(|columns| columns.iter().map(position).collect::<Option<Vec<_>>>());
        match usable {
            Some(mut found) => {
                found.sort_unstable();
                let (positions, equal) = found.into_iter().unzip();
                Lookup { positions, equal, by_index: true }
            }
            None => Lookup { positions: (0..key.len()).collect(), equal: Vec::new(), by_index: false },
        }
    }

    fn column(&self, shape: &Shape, at: usize) -> Result<&Column> {
        let name = &shape.columns[at];
        self.columns.iter().find(|column| column.name == *name).ok_or_else(|| {
            let cause = ServerError {
                sqlstate: "42703".into(),
                message: format!("column {} of {} does not exist on the target", identifier(name), shape.table),
                hint: None,
            };
            Error::new(Exit::Differ, format!("write {}", shape.table)).cause(cause)
        })
    }

    fn is_computed(&self, shape: &Shape, at: usize) -> bool {
        self.columns.iter().any(|column| column.computed && column.name == shape.columns[at])
    }

    /// Aliases and typed expressions of what is sent, numbered from `from`.
    fn arrays(&self, from: usize, count: usize) -> (String, String) {
        let numbers = from..from + count;
        let params = numbers.clone().map(|n| format!("${n}::text[]")).collect::<Vec<_>>().join(", ");
        let names = numbers.map(|n| format!("v{n}")).collect::<Vec<_>>().join(", ");
        (params, names)
    }

    fn insert_sql(&self, shape: &Shape, sent: &[usize]) -> Result<String> {
        let table = shape.table.sql();
        for column in &self.columns {
            if !column.computed && !sent.iter().any(|&at| shape.columns[at] == column.name) {
                let cause = ServerError {
                    sqlstate: "42703".into(),
                    message: format!("column {} of {} is not in the change", identifier(&column.name), shape.table),
                    hint: None,
                };
                return Err(Error::new(Exit::Differ, format!("insert {}", shape.table)).cause(cause));
            }
        }
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for &at in sent {
            let column = self.column(shape, at)?;
            if !column.computed {
                columns.push(column.name.as_str());
                values.push(format!("v{}::{}", values.len() + 1, column.assigned));
            }
        }
        if columns.is_empty() {
            return Ok(format!("insert into {table} default values"));
        }
        let (params, names) = self.arrays(1, columns.len());
        Ok(format!(
            "insert into {table} ({}) overriding system value select {} from unnest({params}) as v ({names})",
            identifiers(&columns),
            values.join(", ")
        ))
    }

    fn update_sql(&self, shape: &Shape, sent: &[usize], lookup: &Lookup) -> Result<String> {
        let mut next = shape.key.len();
        let mut sets = Vec::new();
        for &at in sent {
            let column = self.column(shape, at)?;
            if !column.computed {
                next += 1;
                sets.push(format!("{} = v.v{next}::{}", identifier(&column.name), column.assigned));
            }
        }
        if sets.is_empty() {
            // All new values are unchanged: the row must be there all the same.
            let column = self.column(shape, usize::from(shape.key[0]))?;
            sets.push(format!("{0} = t.{0}", identifier(&column.name)));
        }
        let (params, names) = self.arrays(1, next);
        let table = shape.table.sql();
        Ok(format!(
            "update only {table} as t set {} from unnest({params}) as v ({names}) where {}",
            sets.join(", "),
            self.condition(shape, lookup)?
        ))
    }

    fn delete_sql(&self, shape: &Shape, lookup: &Lookup) -> Result<String> {
        let (params, names) = self.arrays(1, shape.key.len());
        let table = shape.table.sql();
        if shape.key.is_empty() {
            return Ok(format!("delete from only {table} where ctid = (select s.ctid from only {table} as s limit 1)"));
        }
        let condition = self.condition(shape, lookup)?;
        Ok(format!("delete from only {table} as t using unnest({params}) as v ({names}) where {condition}"))
    }

    /// Columns of an index: equality. All others: the same text, byte for byte, so that types without an
    /// equality operator can be compared. Without an index the first such row, of several equal ones one is meant.
    fn condition(&self, shape: &Shape, lookup: &Lookup) -> Result<String> {
        let mut all = String::new();
        let row = if lookup.by_index { "t" } else { "s" };
        for (position, &at) in shape.key.iter().enumerate() {
            let Column { name, compared, keeps_blanks, .. } = self.column(shape, usize::from(at))?;
            let and = if position > 0 { " and " } else { "" };
            let (name, number) = (identifier(name), position + 1);
            let indexed = lookup.positions.iter().position(|&of| of == position).and_then(|at| lookup.equal.get(at));
            let _ = match indexed {
                Some(equal) => write!(all, "{and}t.{name} {equal} v.v{number}::{compared}"),
                None => {
                    let text = |value: String| match keeps_blanks {
                        true => format!("pg_catalog.textin(pg_catalog.bpcharout({value}))"),
                        false => format!("{value}::text"),
                    };
                    let (there, sent) = (text(format!("{row}.{name}")), text(format!("v.v{number}::{compared}")));
                    write!(all, "{and}{there} collate pg_catalog.\"C\" is not distinct from {sent}")
                }
            };
        }
        if lookup.by_index {
            return Ok(all);
        }
        Ok(format!("t.ctid = (select s.ctid from only {} as s where {all} limit 1)", shape.table.sql()))
    }
}
