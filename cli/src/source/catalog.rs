//! What the source holds, read from its catalog under the migration's snapshot. Reads only.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::name::identifier;
use crate::model::{TableName, key};

/// A table whose rows are moved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    pub oid: u32,
    pub name: TableName,
    /// Heap, TOAST and maps, in bytes.
    pub bytes: u64,
    /// Blocks of the heap.
    pub blocks: u64,
    /// About how many; None where no statistics say.
    #[serde(default)]
    pub rows: Option<u64>,
    /// About how many bytes of COPY they are; None where nobody has looked.
    #[serde(default)]
    pub copy_bytes: Option<u64>,
    /// Columns that are copied: all but the generated ones.
    pub columns: Vec<String>,
    /// Whether every column type has the same binary form on two servers of one major version.
    pub binary_safe: bool,
    /// Whether the stream says which row an UPDATE or DELETE means.
    pub identified: bool,
    /// A column that wal2json before 2.6 cannot carry without loss.
    pub float_column: Option<String>,
    /// Unlogged tables are copied; their changes are not in the stream.
    pub logged: bool,
    /// Column that key ranges are cut by.
    pub split_key: Option<SplitKey>,
}

/// The leading column of an index that holds every row once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitKey {
    pub column: String,
    /// Its type, as SQL.
    pub type_name: String,
    /// Whether a change says by it in which range of the table its row is.
    pub tells_part: bool,
}

impl SplitKey {
    pub fn is_text(&self) -> bool {
        key::is_text(&self.type_name)
    }
}

/// The built-in types whose binary form is of no use to another server, as a regular expression over
/// `pg_type.typname`: they hold oids or numbers of the one server, or depend on its settings.
pub const NEVER_BINARY: &str = "^_?(reg.*|oid|oidvector|int2vector|aclitem|xid|cid|tid|xid8|pg_snapshot|txid_snapshot|xml|money|char|tsvector|tsquery|gtsvector|refcursor)$";

/// Where the sizes of tables come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// The files: exact, and slow where tables are many.
    Files,
    /// The catalog, as the last VACUUM or ANALYZE left it.
    Estimates,
}

pub async fn tables(client: &Client, sizes: Sizes) -> Result<Vec<Table>> {
    let rows = client
        .query(include_str!("../../../sql/source/tables.sql"), &[&(sizes == Sizes::Estimates), &NEVER_BINARY])
        .await
        .on_source(|| "read the tables of the source".into())?;
    let table = |row: tokio_postgres::Row| Table {
        oid: row.get("oid"),
        name: TableName::new(row.get::<_, String>("schema_name"), row.get::<_, String>("table_name")),
        bytes: row.get::<_, i64>("bytes").max(0) as u64,
        blocks: row.get::<_, i64>("blocks").max(0) as u64,
        rows: match row.get::<_, Option<f64>>("rows_per_block") {
            Some(dense) => Some((dense * row.get::<_, i64>("blocks") as f64) as u64),
            None => row.get::<_, Option<i64>>("live_rows").filter(|rows| *rows > 0).map(|rows| rows as u64),
        },
        columns: row.get("columns"),
        binary_safe: row.get("binary_safe"),
        identified: row.get("identified"),
        float_column: row.get("float_column"),
        logged: row.get::<_, String>("persistence") == "p",
        copy_bytes: None,
        split_key: row.get::<_, Option<String>>("split_key").map(|column| SplitKey {
            column,
            type_name: row.get("split_key_type"),
            tells_part: row.get("split_key_tells_part"),
        }),
    };
    Ok(rows.into_iter().map(table).collect())
}

/// Blocks that are read to find where a table's keys lie.
const SAMPLE_BLOCKS: f64 = 1000.0;

/// Up to `parts - 1` keys, ascending and distinct, that cut the table into about equal ranges. Drawn from a sample of its rows, so that gaps between keys do no harm.
pub async fn key_bounds(client: &Client, table: &Table, key: &SplitKey, parts: u64) -> Result<Vec<String>> {
    // The least key comes first: a range that would begin with it begins before it anyway.
    let fractions: Vec<f64> = (0..parts).map(|part| part as f64 / parts as f64).collect();
    let percent = (100.0 * SAMPLE_BLOCKS / table.blocks.max(1) as f64).clamp(0.0001, 100.0);
    let column = identifier(&key.column);
    let row = client
        .query_one(
            &format!(
                "select (percentile_disc($1::float8[]) within group (order by {column}))::text[]
                   from only {} tablesample system ({percent})",
                table.name.sql()
            ),
            &[&fractions],
        )
        .await
        .on_source(|| format!("find key ranges of {}", table.name))?;
    let mut bounds: Vec<String> = row.get::<_, Option<Vec<String>>>(0).unwrap_or_default();
    bounds.dedup();
    Ok(bounds.split_off(1.min(bounds.len())))
}

/// Unique indexes, and constraints that need one, that may hold a row twice while the ranges of a column
/// are of several moments: those without the column. By name, as pg_dump gives it.
pub async fn of_one_moment(client: &Client, table: &Table, column: &str) -> Result<Vec<String>> {
    let rows = client
        .query(
            "select x.relname::text, c.relname || ' ' || k.conname
               from pg_catalog.pg_index i
                    join pg_catalog.pg_class x on x.oid = i.indexrelid
                    join pg_catalog.pg_class c on c.oid = i.indrelid
                    left join pg_catalog.pg_constraint k on k.conindid = i.indexrelid and k.contype in ('u', 'x')
              where i.indrelid = $1
                and (i.indisexclusion
                     or i.indisunique
                        and not exists (select from pg_catalog.pg_attribute a
                                         where a.attrelid = i.indrelid and a.attname::text = $2
                                           and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])))",
            &[&table.oid, &column],
        )
        .await
        .on_source(|| format!("read the unique indexes of {}", table.name))?;
    Ok(rows.iter().map(|row| row.get::<_, Option<String>>(1).unwrap_or_else(|| row.get(0))).collect())
}

pub async fn sequences(client: &Client) -> Result<Vec<TableName>> {
    let rows = client
        .query(include_str!("../../../sql/source/sequences.sql"), &[])
        .await
        .on_source(|| "read the sequences of the source".into())?;
    Ok(rows.into_iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// Sequences that belong to columns of these tables, or of the roots that they are partitions of.
pub async fn owned_sequences(client: &Client, tables: &[TableName]) -> Result<Vec<TableName>> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip();
    let rows = client
        .query(
            "with owner as (
                 select unnest(array[c.oid, pg_catalog.pg_partition_root(c.oid)::oid]) as oid
                   from unnest($1::text[], $2::text[]) as t (schema_name, table_name)
                        join pg_catalog.pg_namespace n on n.nspname = t.schema_name
                        join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.table_name
             )
             select distinct n.nspname::text, s.relname::text
               from owner
                    join pg_catalog.pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = owner.oid
                    join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
                    join pg_catalog.pg_namespace n on n.oid = s.relnamespace
              where d.classid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')",
            &[&schemas, &names],
        )
        .await
        .on_source(|| "read the sequences of tables".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// Where a sequence stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceValue {
    pub name: TableName,
    pub last_value: i64,
    pub is_called: bool,
    increment: i64,
    least: i64,
    greatest: i64,
}

impl SequenceValue {
    /// So many values further, within its bounds.
    pub fn ahead(&self, values: i64) -> i64 {
        self.last_value.saturating_add(self.increment.saturating_mul(values)).clamp(self.least, self.greatest)
    }
}

/// Values of the sequences, many to a round trip. A function gives the value of one that was used, ten times
/// as fast as a query that names them all; the others are read.
pub async fn sequence_values(client: &Client, names: &[TableName]) -> Result<Vec<SequenceValue>> {
    let doing = || "read the values of the sequences".to_string();
    let mut values = Vec::with_capacity(names.len());
    // Each is locked until its transaction ends.
    for names in names.chunks(500) {
        let sql: Vec<String> = names.iter().map(TableName::sql).collect();
        let rows = client
            .query(
                "select w.at, pg_catalog.pg_sequence_last_value(s.seqrelid), s.seqincrement, s.seqmin, s.seqmax
                   from unnest($1::text[]) with ordinality w (name, at)
                        join pg_catalog.pg_sequence s on s.seqrelid = w.name::regclass
                  order by w.at",
                &[&sql],
            )
            .await
            .on_source(doing)?;
        let mut unused = Vec::new();
        for row in &rows {
            let name = &names[row.get::<_, i64>(0) as usize - 1];
            let last_value: Option<i64> = row.get(1);
            if last_value.is_none() {
                unused.push((values.len(), name));
            }
            values.push(SequenceValue {
                name: name.clone(),
                last_value: last_value.unwrap_or_default(),
                is_called: last_value.is_some(),
                increment: row.get(2),
                least: row.get(3),
                greatest: row.get(4),
            });
        }
        for unused in unused.chunks(50) {
            let selects: Vec<String> = unused
                .iter()
                .map(|(at, name)| format!("select {at}::int8, last_value::int8, is_called from {}", name.sql()))
                .collect();
            for row in client.query(&selects.join(" union all "), &[]).await.on_source(doing)? {
                let value = &mut values[row.get::<_, i64>(0) as usize];
                (value.last_value, value.is_called) = (row.get(1), row.get(2));
            }
        }
    }
    Ok(values)
}

/// What the dump's table of contents does not say of an object; `kind` as in sql/source/objects.sql.
#[derive(Debug, Clone)]
pub struct ObjectFacts {
    pub table: Option<TableName>,
    pub kind: String,
    /// CREATE INDEX of a constraint that is built as an index first.
    pub index_definition: Option<String>,
    pub index_name: Option<String>,
}

/// Facts by catalog oid and object oid.
pub type Objects = HashMap<(u32, u32), ObjectFacts>;

pub async fn objects(client: &Client) -> Result<Objects> {
    let rows = client
        .query(include_str!("../../../sql/source/objects.sql"), &[])
        .await
        .on_source(|| "read indexes, constraints and triggers of the source".into())?;
    let facts = |row: &tokio_postgres::Row| ObjectFacts {
        table: match (row.get::<_, Option<String>>(2), row.get::<_, Option<String>>(3)) {
            (Some(schema), Some(table)) => Some(TableName { schema, table }),
            _ => None,
        },
        kind: row.get(4),
        index_definition: row.get(5),
        index_name: row.get(6),
    };
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), facts(row))).collect())
}

/// Materialized views that hold rows.
pub async fn populated_views(client: &Client) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'm' and c.relispopulated and n.nspname !~ '^pg_'",
            &[],
        )
        .await
        .on_source(|| "read the materialized views of the source".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// What tells whether a materialized view was refreshed since: its file, and the rows that were written to it.
pub async fn view_states(client: &Client) -> Result<Vec<(String, String)>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text,
                    concat_ws(' ', pg_catalog.pg_relation_filenode(c.oid), c.relispopulated,
                              pg_catalog.pg_stat_get_tuples_inserted(c.oid), pg_catalog.pg_stat_get_tuples_updated(c.oid),
                              pg_catalog.pg_stat_get_tuples_deleted(c.oid))
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'm' and n.nspname !~ '^pg_'",
            &[],
        )
        .await
        .on_source(|| "look at the materialized views of the source".into())?;
    let name = |row: &tokio_postgres::Row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    Ok(rows.iter().map(|row| (name(row).to_string(), row.get(2))).collect())
}

/// Tables with partitions or heirs that are no partitions themselves.
pub async fn parents(client: &Client) -> Result<Vec<(u32, TableName)>> {
    let rows = client
        .query(
            "select c.oid, n.nspname::text, c.relname::text
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind in ('r', 'p') and c.relpersistence in ('p', 'u') and not c.relispartition
                and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
                and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid)
                and not exists (select from pg_catalog.pg_depend d
                                 where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
              order by 2, 3",
            &[],
        )
        .await
        .on_source(|| "read the parents of tables".into())?;
    Ok(rows.iter().map(|row| (row.get(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)))).collect())
}

/// Columns that are GENERATED ALWAYS AS IDENTITY, with their table. Partitions have them from their
/// parent.
pub async fn always_identity(client: &Client) -> Result<Vec<(TableName, String)>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text, a.attname::text
               from pg_catalog.pg_attribute a
                    join pg_catalog.pg_class c on c.oid = a.attrelid
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where a.attidentity = 'a' and not a.attisdropped and not c.relispartition
                and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
                and not exists (select from pg_catalog.pg_depend d
                                 where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
              order by 1, 2, 3",
            &[],
        )
        .await
        .on_source(|| "read the identity columns of the source".into())?;
    Ok(rows.iter().map(|row| (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2))).collect())
}
