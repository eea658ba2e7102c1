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
    /// What is true of all its rows, and of no other of the table, on either server; None where nothing says it.
    pub condition: Option<String>,
}

/// The partition of the source in four columns of a row.
pub(super) fn leaf(row: &tokio_postgres::Row, at: usize) -> Option<Leaf> {
    let name = TableName::new(row.get::<_, Option<String>>(at)?, row.get::<_, Option<String>>(at + 1)?);
    Some(Leaf { name, oid: row.get(at + 2), condition: row.get(at + 3) })
}

/// Each such table, with the partitions that it is copied from.
pub async fn united(client: &Client, migration: &str) -> Result<BTreeMap<TableName, Vec<Leaf>>> {
    let rows = client
        .query(
            "select distinct schema_name, table_name, leaf_schema, leaf_name, leaf_oid, leaf_condition
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
/// the others holds for it too.
pub async fn add_leaf(client: &Client, migration: &str, table: &TableName, leaf: &Leaf) -> Result<()> {
    client
        .execute(
            "insert into pgmig.part (migration, schema_name, table_name, leaf_schema, leaf_name, leaf_oid, leaf_condition, part_number, parts,
                                     columns, format, bytes, state, copied_rows, copied_bytes, snapshot, snapshot_lsn,
                                     started_at, finished_at)
             select p.migration, p.schema_name, p.table_name, $4, $5, $6, $7, p.part_number + 1, p.part_number + 1,
                    p.columns, 'text', 0, p.state, 0, 0, p.snapshot, p.snapshot_lsn, now(), now()
               from pgmig.part p
              where p.migration = $1 and p.schema_name = $2 and p.table_name = $3
              order by p.part_number desc
              limit 1",
            &[&migration, &table.schema, &table.table, &leaf.name.schema, &leaf.name.table, &leaf.oid, &leaf.condition],
        )
        .await
        .on_target(|| format!("take in {}", leaf.name))?;
    Ok(())
}
