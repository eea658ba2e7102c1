//! How a table is laid out on the target: in one piece, or partitioned where the source's is not. All rows
//! of a partitioned one are named by its root, and the server finds the partition of each.

use std::collections::HashSet;

use tokio_postgres::Client;

use crate::connect::Side;
use crate::error::{Context, Result};
use crate::model::TableName;

/// How all rows of a table are named in SQL: those of an ordinary table without what inherits from it, those
/// of a partitioned one with all below it. Asked of either side.
pub async fn rows_of(client: &Client, side: Side, table: &TableName) -> Result<String> {
    let row = client
        .query_one(
            "select exists (select from pg_catalog.pg_class where oid = pg_catalog.to_regclass($1) and relkind = 'p')",
            &[&table.sql()],
        )
        .await
        .during(side.exit(), || format!("look how {table} is laid out on the {side}"))?;
    Ok(if row.get(0) { table.sql() } else { format!("only {}", table.sql()) })
}

/// What is on the target before anything is made there.
#[derive(Debug, Clone, Default)]
pub struct There {
    /// Tables with partitions that are no partitions themselves.
    pub partitioned: HashSet<TableName>,
    /// Tables without partitions that are no partitions.
    pub plain: HashSet<TableName>,
    pub sequences: HashSet<TableName>,
    /// Columns of those tables that have a value of their own where none is given.
    pub defaults: Vec<(TableName, String)>,
    /// Columns of those tables that are GENERATED ALWAYS AS IDENTITY.
    pub always_identity: Vec<(TableName, String)>,
}

/// Reads what the target keeps of its own.
pub async fn there(client: &Client) -> Result<There> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text, c.relkind,
                    array(select a.attname::text from pg_catalog.pg_attribute a
                           where a.attrelid = c.oid and a.attidentity = 'a' and not a.attisdropped),
                    array(select a.attname::text from pg_catalog.pg_attribute a
                           where a.attrelid = c.oid and (a.attidentity <> '' or a.atthasdef) and not a.attisdropped)
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where (c.relkind in ('p', 'r') and c.relpersistence = 'p' and not c.relispartition or c.relkind = 'S')
                and n.nspname not in ('pg_catalog', 'information_schema', 'pgmig')",
            &[],
        )
        .await
        .on_target(|| "look which tables the target has".into())?;
    let mut there = There::default();
    for row in &rows {
        let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let kind = row.get::<_, i8>(2);
        if kind == b'S' as i8 {
            there.sequences.insert(name);
            continue;
        }
        let (always, defaults): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
        there.defaults.extend(defaults.into_iter().map(|column| (name.clone(), column)));
        there.always_identity.extend(always.into_iter().map(|column| (name.clone(), column)));
        if kind == b'p' as i8 {
            there.partitioned.insert(name)
        } else {
            there.plain.insert(name)
        };
    }
    Ok(there)
}

/// Tables of the migration that are partitioned on the target: on the source each has rows of its own.
pub async fn routed(client: &Client, migration: &str) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            "select distinct p.schema_name, p.table_name
               from pgmig.part p
                    join pg_catalog.pg_namespace n on n.nspname = p.schema_name
                    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.table_name
              where p.migration = $1 and c.relkind = 'p'
              order by 1, 2",
            &[&migration],
        )
        .await
        .on_target(|| "look which tables are partitioned on the target".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// The oids of these tables and of all that is below them.
pub async fn oids(client: &Client, tables: &[TableName]) -> Result<HashSet<u32>> {
    let names: Vec<String> = tables.iter().map(TableName::sql).collect();
    let rows = client
        .query(
            "select coalesce(t.relid, pg_catalog.to_regclass(w.name))::oid
               from unnest($1::text[]) as w (name)
                    left join lateral pg_catalog.pg_partition_tree(pg_catalog.to_regclass(w.name)) t on true
              where pg_catalog.to_regclass(w.name) is not null",
            &[&names],
        )
        .await
        .on_target(|| "list the partitions of tables of the target".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Whether a unique index of the table begins with columns of this key: then its rows are found without
/// reading all of it.
pub async fn finds_by(client: &Client, table: &TableName, key: &[String]) -> Result<bool> {
    let row = client
        .query_one(
            "select exists (select from pg_catalog.pg_index i
                                   join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                             where i.indrelid = pg_catalog.to_regclass($1) and i.indisunique and i.indisvalid and i.indimmediate
                               and i.indpred is null and a.attname::text = any ($2))",
            &[&table.sql(), &key],
        )
        .await
        .on_target(|| format!("look at the indexes of {table} on the target"))?;
    Ok(row.get(0))
}

/// The partitioned table that this one is a partition of on the target, at the top.
pub async fn root_of(client: &Client, table: &TableName) -> Result<Option<TableName>> {
    let row = client
        .query_opt(
            "select n.nspname::text, r.relname::text
               from pg_catalog.pg_class c
                    join pg_catalog.pg_class r on r.oid = pg_catalog.pg_partition_root(c.oid)
                    join pg_catalog.pg_namespace n on n.oid = r.relnamespace
              where c.oid = pg_catalog.to_regclass($1) and c.relispartition",
            &[&table.sql()],
        )
        .await
        .on_target(|| format!("look whether {table} is a partition on the target"))?;
    Ok(row.map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))))
}
