//! Partitioned tables of the source, and the partitions that hold their rows.

use tokio_postgres::Client;

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
    /// Whether its bounds say which rows are its own, on every server alike.
    pub nameable: bool,
    /// What is true of all its rows and of no other of the root; None where nothing is, or it was not read.
    pub condition: Option<String>,
    /// Whether no row of another partition has the same identity.
    pub told_apart: bool,
    /// Whether it had its replica identity when it became a partition, as far as can be told.
    pub identity_kept: bool,
    /// Whether it was made as a partition, and so was empty when it became one.
    pub born_one: bool,
    /// Stands for when it, and what is above it, were attached.
    pub attached: String,
}

/// The partitioned tables that are no partitions, those that are `wanted`.
pub async fn roots(client: &Client, wanted: impl Fn(&TableName) -> bool) -> Result<Vec<Root>> {
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
    Ok(rows.iter().map(root).filter(|root| wanted(&root.name)).collect())
}

/// The partitions of these roots, by root and name, without what is true of their rows. Takes no lock.
pub async fn partitions(client: &Client, roots: &[Root]) -> Result<Vec<Partition>> {
    let roots: Vec<u32> = roots.iter().map(|root| root.oid).collect();
    let rows = client
        .query(include_str!("../../../sql/source/leaves.sql"), &[&roots])
        .await
        .on_source(|| "list the partitions of the source".into())?;
    let partition = |row: &tokio_postgres::Row| Partition {
        root: TableName::new(row.get::<_, String>("root_schema"), row.get::<_, String>("root_name")),
        oid: row.get("oid"),
        name: TableName::new(row.get::<_, String>("schema_name"), row.get::<_, String>("table_name")),
        followed: row.get("followed"),
        nameable: row.get("nameable"),
        condition: None,
        told_apart: row.get("told_apart"),
        identity_kept: row.get("identity_kept"),
        born_one: row.get("born_one"),
        attached: row.get("attached"),
    };
    Ok(rows.iter().map(partition).collect())
}

/// Reads what is true of the rows of each, where that says which they are. In a transaction, which keeps none of
/// the locks that it takes.
pub async fn read_conditions(client: &Client, partitions: &mut [Partition]) -> Result<()> {
    let doing = || "read the bounds of partitions of the source".to_string();
    let oids: Vec<u32> = partitions.iter().filter(|p| p.nameable).map(|partition| partition.oid).collect();
    if oids.is_empty() {
        return Ok(());
    }
    client.batch_execute("savepoint pgmig_bounds; set local lock_timeout = '10s'").await.on_source(doing)?;
    let rows = client
        .query("select oid, pg_catalog.pg_get_partition_constraintdef(oid) from unnest($1::oid[]) as w (oid)", &[&oids])
        .await
        .on_source(doing)?;
    let after = "rollback to savepoint pgmig_bounds; release savepoint pgmig_bounds";
    client.batch_execute(after).await.on_source(doing)?;
    for row in &rows {
        if let Some(partition) = partitions.iter_mut().find(|partition| partition.oid == row.get::<_, u32>(0)) {
            partition.condition = row.get(1);
        }
    }
    Ok(())
}

/// Whether the source has a relation of this oid.
pub async fn is_there(client: &Client, oid: u32) -> Result<bool> {
    let row = client
        .query_one("select exists (select from pg_catalog.pg_class where oid = $1)", &[&oid])
        .await
        .on_source(|| "look for a relation".into())?;
    Ok(row.get(0))
}

/// Whether the partition, by itself, has no row now.
pub async fn is_empty(client: &Client, partition: &TableName) -> Result<bool> {
    let row = client
        .query_one(&format!("select not exists (select from only {})", partition.sql()), &[])
        .await
        .on_source(|| format!("look into {partition}"))?;
    Ok(row.get(0))
}

/// What is below these roots, they themselves included, whether it holds rows or not.
pub async fn below(client: &Client, roots: &[Root]) -> Result<Vec<(u32, TableName)>> {
    let roots: Vec<u32> = roots.iter().map(|root| root.oid).collect();
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
