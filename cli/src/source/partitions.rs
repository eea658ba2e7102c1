//! Partitioned tables of the source, and the partitions that hold their rows.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Context, Result};
use crate::model::TableName;

/// A partitioned table that is no partition.
#[derive(Debug, Clone)]
pub struct Root {
    pub oid: u32,
    pub name: TableName,
    /// Whether a new partition has the key of an UPDATE and DELETE from it: a primary key.
    pub gives_key: bool,
}

/// A partition that holds rows.
#[derive(Debug, Clone)]
pub struct Partition {
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
    /// Stands for when it, and what is above it, were attached.
    pub attached: String,
}

/// The partitioned tables that are no partitions.
pub async fn roots(client: &Client) -> Result<Vec<Root>> {
    let rows = client
        .query(
            "select c.oid, n.nspname::text, c.relname::text,
                    exists (select from pg_catalog.pg_index i
                             where i.indrelid = c.oid and i.indisprimary and i.indisvalid and i.indimmediate)
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'p' and c.relpersistence = 'p' and not c.relispartition
                and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
              order by 2, 3",
            &[],
        )
        .await
        .on_source(|| "list the partitioned tables of the source".into())?;
    let root = |row: &tokio_postgres::Row| Root {
        oid: row.get(0),
        name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        gives_key: row.get(3),
    };
    Ok(rows.iter().map(root).collect())
}

/// The partitions of these roots (oids), by root and name. In a transaction that stays open the locks are let go
/// that it takes to print what they hold.
pub async fn partitions(client: &Client, roots: &[u32]) -> Result<Vec<Partition>> {
    let doing = || "list the partitions of the source".to_string();
    let held = match client.batch_execute("savepoint pgmig_partitions").await {
        Err(err) if err.code() == Some(&SqlState::NO_ACTIVE_SQL_TRANSACTION) => false,
        answer => answer.on_source(doing).map(|()| true)?,
    };
    let rows = client.query(include_str!("../../../sql/source/leaves.sql"), &[&roots]).await.on_source(doing)?;
    if held {
        let after = "rollback to savepoint pgmig_partitions; release savepoint pgmig_partitions";
        client.batch_execute(after).await.on_source(doing)?;
    }
    let partition = |row: &tokio_postgres::Row| Partition {
        root: TableName::new(row.get::<_, String>("root_schema"), row.get::<_, String>("root_name")),
        oid: row.get("oid"),
        name: TableName::new(row.get::<_, String>("schema_name"), row.get::<_, String>("table_name")),
        followed: row.get("followed"),
        condition: row.get("condition"),
        told_apart: row.get("told_apart"),
        born_one: row.get("born_one"),
        attached: row.get("attached"),
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
            "with recursive tree (relation) as (
                 select w.root from unnest($1::oid[]) w (root)
                 union all
                 select h.inhrelid from tree t join pg_catalog.pg_inherits h on h.inhparent = t.relation)
             select c.oid, n.nspname::text, c.relname::text
               from tree t
                    join pg_catalog.pg_class c on c.oid = t.relation
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace",
            &[&roots],
        )
        .await
        .on_source(|| "list what is below partitioned tables of the source".into())?;
    Ok(rows.iter().map(|row| (row.get(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)))).collect())
}
