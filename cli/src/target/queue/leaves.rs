//! Tables whose partitions on the source all go into one table, which is not partitioned so here.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::parts::{Part, store_parts, table_name};
use crate::error::{Context, Result};
use crate::model::TableName;

/// A partition of the source whose rows go into a table that is not partitioned so on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub name: TableName,
    /// On the source.
    pub oid: u32,
    /// Stands for when it became a partition.
    pub attached: String,
    /// What is true of all its rows, and of no other of the table, on either server; None where nothing says it.
    pub condition: Option<String>,
}

/// The partition of the source in five columns of a row.
pub(super) fn leaf(row: &tokio_postgres::Row, at: usize) -> Option<Leaf> {
    let name = TableName::new(row.get::<_, Option<String>>(at)?, row.get::<_, Option<String>>(at + 1)?);
    Some(Leaf { name, oid: row.get(at + 2), attached: row.get(at + 3), condition: row.get(at + 4) })
}

/// Each such table, with the partitions that it is copied from.
pub async fn united(client: &Client, migration: &str) -> Result<BTreeMap<TableName, Vec<Leaf>>> {
    let rows = client
        .query(
            "select distinct schema_name, table_name, leaf_schema, leaf_name, leaf_oid, leaf_attached, leaf_condition
               from pgmig.part where migration = $1 and leaf_name is not null order by 1, 2, 3, 4",
            &[&migration],
        )
        .await
        .on_target(|| "list the partitions that go into one table".into())?;
    let mut united: BTreeMap<TableName, Vec<Leaf>> = BTreeMap::new();
    for row in &rows {
        united.entry(table_name(row)).or_default().extend(leaf(row, 2));
    }
    Ok(united)
}

/// Puts these Parts in the place of those that the table has; nobody may be copying it.
pub async fn replace_parts(client: &Client, migration: &str, table: &TableName, parts: &[Part]) -> Result<()> {
    let doing = || format!("plan the copy of {table} anew");
    client.batch_execute("begin").await.on_target(doing)?;
    client
        .execute(
            "delete from pgmig.part where migration = $1 and schema_name = $2 and table_name = $3",
            &[&migration, &table.schema, &table.table],
        )
        .await
        .on_target(doing)?;
    store_parts(client, migration, parts).await?;
    client.batch_execute("commit").await.on_target(doing)
}

/// Takes in a partition that was made after the copy: all that was ever in it is in the stream, so the tag of
/// the others holds for it too. False if it is there, or the table is to be copied.
pub async fn add_leaf(client: &Client, migration: &str, table: &TableName, leaf: &Leaf) -> Result<bool> {
    let added = client
        .execute(
            "insert into pgmig.part (migration, schema_name, table_name, leaf_schema, leaf_name, leaf_oid, leaf_attached, leaf_condition, part_number, parts,
                                     columns, format, bytes, state, copied_rows, copied_bytes, snapshot, snapshot_lsn,
                                     started_at, finished_at)
             select p.migration, p.schema_name, p.table_name, $4, $5, $6, $7, $8, p.part_number + 1, p.part_number + 1,
                    p.columns, 'text', 0, p.state, 0, 0, p.snapshot, p.snapshot_lsn, now(), now()
               from pgmig.part p
              where p.migration = $1 and p.schema_name = $2 and p.table_name = $3 and p.state = 'done'
                and not exists (select from pgmig.part o
                                 where o.migration = $1 and o.schema_name = $2 and o.table_name = $3
                                   and (o.state = 'pending' or o.leaf_oid = $6 and o.leaf_schema = $4 and o.leaf_name = $5))
              order by p.part_number desc
              limit 1",
            &[&migration, &table.schema, &table.table, &leaf.name.schema, &leaf.name.table, &leaf.oid, &leaf.attached, &leaf.condition],
        )
        .await
        .on_target(|| format!("take in {}", leaf.name))?;
    Ok(added > 0)
}

/// Forgets a partition that is gone, once no more of it is in the stream; what was copied of it stays counted.
pub async fn forget_leaf(client: &Client, migration: &str, leaf: &Leaf) -> Result<()> {
    client
        .execute(
            "update pgmig.part p
                set leaf_schema = null, leaf_name = null, leaf_oid = null, leaf_attached = null, leaf_condition = null
              where migration = $1 and leaf_schema = $2 and leaf_name = $3 and leaf_oid = $4
                and exists (select from pgmig.part o
                             where o.migration = $1 and o.schema_name = p.schema_name and o.table_name = p.table_name
                               and o.leaf_oid <> $4)",
            &[&migration, &leaf.name.schema, &leaf.name.table, &leaf.oid],
        )
        .await
        .on_target(|| format!("forget {}", leaf.name))?;
    Ok(())
}

/// Takes a table out of the migration; on the target it stays.
pub async fn forget_table(client: &Client, migration: &str, table: &TableName) -> Result<()> {
    client
        .execute(
            "with steps as (delete from pgmig.step
                             where migration = $1 and schema_name = $2 and table_name = $3 and state = 'pending')
             delete from pgmig.part where migration = $1 and schema_name = $2 and table_name = $3",
            &[&migration, &table.schema, &table.table],
        )
        .await
        .on_target(|| format!("take {table} out of the migration"))?;
    Ok(())
}
