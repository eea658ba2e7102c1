//! What the plain flavour says to one table of the target: how it finds the rows that changes mean, and the
//! statements over arrays that write them. It sends nothing but questions about the catalog.

use std::fmt::Write as _;

use tokio_postgres::Client;

use crate::connect::Side;
use crate::error::{Context, Error, Exit, Result, ServerError};
use crate::model::TableName;
use crate::model::name::{identifier, identifiers};
use crate::model::wire::{Change, Kind, Shape, Value};
use crate::target::layout::rows_of;

/// A table of the target as statements need it.
pub struct Target {
    pub columns: Vec<Column>,
    /// Columns of its usable unique indexes, the primary key first. One that is checked at the end of
    /// the transaction is none: until then it may hold a key twice.
    unique: Vec<Vec<Unique>>,
    /// How all its rows are named. The server finds the partition of each where there are some.
    pub(super) rows: String,
    is_partitioned: bool,
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

/// How the rows of a shape are found: by the columns of an index, or by reading the table. All of the
/// key is compared either way.
pub(super) struct Lookup {
    /// Positions in the shape's key of what tells rows apart: the index's columns, or all.
    positions: Vec<usize>,
    /// For each of them the operator of the index; none where the table is read.
    equal: Vec<String>,
    pub(super) by_index: bool,
}

impl Lookup {
    pub(super) fn moves_key(&self, change: &Change) -> bool {
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
    pub(super) fn key_of<'a>(&self, change: &'a Change) -> Vec<Value<'a>> {
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
        let unique = rows.iter().map(unique).collect();
        let rows = rows_of(client, Side::Target, table).await?;
        let is_partitioned = rows == table.sql();
        Ok(Target { columns, unique, rows, is_partitioned })
    }

    /// By the first index whose columns are all in the key, and none of them null: null equals nothing
    /// in an index. Where the table is partitioned on the target alone, an index must have columns that the
    /// source's key has not: the first ones do then, since that key is unique by itself.
    pub(super) fn lookup(&self, change: &Change) -> Lookup {
        let key: Vec<&str> = change.shape.key_columns().collect();
        let nulls: Vec<bool> = change.key().map(|value| value == Value::Null).collect();
        let position = |unique: &Unique| {
            let at = key.iter().position(|name| *name == unique.column);
            at.filter(|&at| !nulls.get(at).copied().unwrap_or(false)).map(|at| (at, unique.equal.clone()))
        };
        let whole = || self.unique.iter().find_map(|columns| columns.iter().map(position).collect::<Option<Vec<_>>>());
        let part = || {
            let parts = self.unique.iter().filter(|_| self.is_partitioned).map(|columns| {
                let has = columns.iter().take_while(|unique| key.contains(&unique.column.as_str())).count();
                let (first, rest) = columns.split_at(has);
                let is_apart = !rest.iter().any(|unique| key.contains(&unique.column.as_str()));
                first.iter().map(position).collect::<Option<Vec<_>>>().filter(|first| is_apart && !first.is_empty())
            });
            parts.flatten().max_by_key(Vec::len)
        };
        match whole().or_else(part) {
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

    pub(super) fn is_computed(&self, shape: &Shape, at: usize) -> bool {
        self.columns.iter().any(|column| column.computed && column.name == shape.columns[at])
    }

    /// Aliases and typed expressions of what is sent, numbered from `from`.
    fn arrays(&self, from: usize, count: usize) -> (String, String) {
        let numbers = from..from + count;
        let params = numbers.clone().map(|n| format!("${n}::text[]")).collect::<Vec<_>>().join(", ");
        let names = numbers.map(|n| format!("v{n}")).collect::<Vec<_>>().join(", ");
        (params, names)
    }

    pub(super) fn insert_sql(&self, shape: &Shape, sent: &[usize]) -> Result<String> {
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

    pub(super) fn update_sql(&self, shape: &Shape, sent: &[usize], lookup: &Lookup) -> Result<String> {
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
        let (rows, (from, condition)) = (&self.rows, self.condition(shape, lookup)?);
        let sets = sets.join(", ");
        Ok(format!("update {rows} as t set {sets} from unnest({params}) as v ({names}){from} where {condition}"))
    }

    pub(super) fn delete_sql(&self, shape: &Shape, lookup: &Lookup) -> Result<String> {
        let (params, names) = self.arrays(1, shape.key.len());
        let rows = &self.rows;
        if shape.key.is_empty() {
            return Ok(format!("delete from {rows} where ctid = (select s.ctid from {rows} as s limit 1)"));
        }
        let (from, condition) = self.condition(shape, lookup)?;
        Ok(format!("delete from {rows} as t using unnest({params}) as v ({names}){from} where {condition}"))
    }

    /// Columns of an index: equality. All others: the same text, byte for byte, so that types without an
    /// equality operator can be compared. Without an index the first such row, of several equal ones one is meant.
    /// What is to be read beside the arrays, and the condition.
    fn condition(&self, shape: &Shape, lookup: &Lookup) -> Result<(String, String)> {
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
        let rows = &self.rows;
        Ok(match (lookup.by_index, self.is_partitioned) {
            (true, _) => (String::new(), all),
            (false, false) => (String::new(), format!("t.ctid = (select s.ctid from {rows} as s where {all} limit 1)")),
            // Partitions have rows at the same place.
            (false, true) => (
                format!(", lateral (select s.tableoid as r, s.ctid as c from {rows} as s where {all} limit 1) as f"),
                "t.tableoid = f.r and t.ctid = f.c".into(),
            ),
        })
    }
}
