//! Rows of a Part, as raw COPY bytes.

use tokio_postgres::{Client, CopyOutStream};

use crate::error::{Context, Result};
use crate::model::TableName;
use crate::model::name::identifiers;

/// What is read of a table.
pub struct Rows<'a> {
    pub table: &'a TableName,
    pub columns: &'a [String],
    /// SQL condition of the Part; None for the whole table.
    pub predicate: Option<&'a str>,
    pub binary: bool,
}

/// Begins the COPY in a session that is under the migration's snapshot.
pub async fn open(client: &Client, rows: &Rows<'_>) -> Result<CopyOutStream> {
    let table = rows.table.sql();
    let columns = identifiers(rows.columns);
    let what = match rows.predicate {
        Some(predicate) => format!("(select {columns} from only {table} where {predicate})"),
        // A table without columns has rows too.
        None if rows.columns.is_empty() => table,
        None => format!("{table} ({columns})"),
    };
    let format = if rows.binary { "binary" } else { "text" };
    client
        .copy_out(&format!("copy {what} to stdout (format {format})"))
        .await
        .on_source(|| format!("read {}", rows.table))
}

/// Whether the table's file has been replaced since the session's snapshot was taken: pg_class shows
/// the snapshot's file, pg_relation_filenode() the one that COPY has read. The lock that COPY took
/// keeps it from changing again.
pub async fn replaced(client: &Client, table: &TableName) -> Result<bool> {
    let row = client
        .query_one(
            "select c.relfilenode is distinct from pg_catalog.pg_relation_filenode(c.oid)
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where n.nspname = $1 and c.relname = $2",
            &[&table.schema, &table.table],
        )
        .await
        .on_source(|| format!("look whether {table} was replaced"))?;
    Ok(row.get(0))
}
