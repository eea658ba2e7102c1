//! Partitioned tables of the source, and the partitions that hold their rows.

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::TableName;

/// A partition that holds rows.
#[derive(Debug, Clone)]
pub struct Partition {
    pub root_oid: u32,
    /// The partitioned table that is no partition itself.
    pub root: TableName,
    pub oid: u32,
    pub name: TableName,
    /// Whether its rows are on this server and in its WAL.
    pub followed: bool,
    /// What is true of all its rows and of no other of the root, on every server alike; None where nothing is.
    pub condition: Option<String>,
    /// Whether no row of another partition has the same identity.
    pub told_apart: bool,
    /// Whether it was made as a partition, and so was empty when it became one.
    pub born_one: bool,
}

/// The partitioned tables that are no partitions.
pub async fn roots(client: &Client) -> Result<Vec<(u32, TableName)>> {
    let rows = client
        .query(
            "select c.oid, n.nspname::text, c.relname::text
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'p' and not c.relispartition
                and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
              order by 2, 3",
            &[],
        )
        .await
        .on_source(|| "list the partitioned tables of the source".into())?;
    Ok(rows.iter().map(|row| (row.get(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)))).collect())
}

/// The partitions of these roots (oids), by root and name.
pub async fn partitions(client: &Client, roots: &[u32]) -> Result<Vec<Partition>> {
    let rows = client
        .query(include_str!("../../../sql/source/leaves.sql"), &[&roots])
        .await
        .on_source(|| "list the partitions of the source".into())?;
    let partition = |row: &tokio_postgres::Row| Partition {
        root_oid: row.get("root_oid"),
        root: TableName::new(row.get::<_, String>("root_schema"), row.get::<_, String>("root_name")),
        oid: row.get("oid"),
        name: TableName::new(row.get::<_, String>("schema_name"), row.get::<_, String>("table_name")),
        followed: row.get("followed"),
        condition: row.get("condition"),
        told_apart: row.get("told_apart"),
        born_one: row.get("born_one"),
    };
    Ok(rows.iter().map(partition).collect())
}

/// Whether the partition, by itself, has no row now.
pub async fn is_empty(client: &Client, partition: &TableName) -> Result<bool> {
    let row = client
        .query_one(&format!("select not exists (select from only {})", partition.sql()), &[])
        .await
        .on_source(|| format!("look into {partition}"))?;
    Ok(row.get(0))
}

/// What is below these roots (oids), they themselves included, whether it holds rows or not.
pub async fn below(client: &Client, roots: &[u32]) -> Result<Vec<(u32, TableName)>> {
    let rows = client
        .query(
            "select c.oid, n.nspname::text, c.relname::text
               from unnest($1::oid[]) w (root)
                    cross join lateral pg_catalog.pg_partition_tree(w.root) t
                    join pg_catalog.pg_class c on c.oid = t.relid
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace",
            &[&roots],
        )
        .await
        .on_source(|| "list what is below partitioned tables of the source".into())?;
    Ok(rows.iter().map(|row| (row.get(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)))).collect())
}
