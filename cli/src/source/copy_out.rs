//! Rows of a Part, as raw COPY bytes, under the migration's snapshot.

use super::replication::CopyClient;
use crate::error::{Context, Exit, Result};
use crate::model::name::{identifiers, literal};
use crate::model::{Lsn, TableName};

/// What is read of a table.
pub struct Rows<'a> {
    pub table: &'a TableName,
    pub columns: &'a [String],
    /// SQL condition of the Part; None for the whole table.
    pub predicate: Option<&'a str>,
    pub binary: bool,
}

/// Begins the COPY. Next: [`CopyClient::chunk`].
pub async fn open(client: &mut CopyClient, rows: &Rows<'_>) -> Result<()> {
    let table = rows.table.sql();
    let columns = identifiers(rows.columns);
    let what = match rows.predicate {
        Some(predicate) => format!("(select {columns} from only {table} where {predicate})"),
        // A table without columns has rows too.
        None if rows.columns.is_empty() => table,
        None => format!("{table} ({columns})"),
    };
    let format = if rows.binary { "binary" } else { "text" };
    client.copy_out(&format!("copy {what} to stdout (format {format})"), || format!("read {}", rows.table)).await
}

/// Ends the transaction that is open, if one is, and begins a read-only one under the exported
/// snapshot, or under one of its own. Locks on what was read until now are let go.
pub async fn begin_under(client: &mut CopyClient, exported: Option<&str>) -> Result<()> {
    let mut sql = "rollback; begin transaction isolation level repeatable read, read only".to_string();
    if let Some(exported) = exported {
        sql.push_str(&format!("; set transaction snapshot {}", literal(exported)));
    }
    client.query(&sql, || "read under the snapshot of the migration".into()).await.map(drop)
}

/// The tag of what this session reads from now on, and a position that whatever it sees was committed
/// before.
pub async fn tag(client: &mut CopyClient) -> Result<(String, Lsn)> {
    let doing = || "read the tag of the snapshot".to_string();
    let sql = "select pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_current_wal_insert_lsn()::text";
    let rows = client.query(sql, doing).await?;
    let lsn = rows.value(0, 1)?.unwrap_or_default().parse().during(Exit::Source, doing)?;
    Ok((rows.value(0, 0)?.unwrap_or_default().to_string(), lsn))
}

/// Which of the tables have had their file, or the table behind their name, replaced since the session's
/// snapshot was taken: pg_class shows the snapshot's, pg_relation_filenode() and to_regclass() the one that
/// COPY has read. The lock that COPY took keeps it from changing again.
pub async fn replaced(client: &mut CopyClient, tables: &[&TableName]) -> Result<Vec<TableName>> {
    let names: Vec<String> =
        tables.iter().map(|name| format!("({}, {})", literal(&name.schema), literal(&name.table))).collect();
    let sql = format!(
        "select n.nspname, c.relname
           from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where (n.nspname, c.relname) in ({})
            and (c.relfilenode is distinct from pg_catalog.pg_relation_filenode(c.oid)
                 or c.oid is distinct from pg_catalog.to_regclass(pg_catalog.format('%I.%I', n.nspname, c.relname)))",
        names.join(", ")
    );
    let rows = client.query(&sql, || "look whether a table was replaced".into()).await?;
    let name = |row: &Vec<Option<String>>| Some(TableName::new(row.first()?.clone()?, row.get(1)?.clone()?));
    Ok(rows.rows.iter().filter_map(name).collect())
}

/// Names and types of the table's columns, as the session's snapshot shows them.
pub async fn columns(client: &mut CopyClient, table: &TableName) -> Result<String> {
    let sql = include_str!("../../../sql/server/shape.sql").replace("$1", &literal(&table.sql()));
    let rows = client.query(&sql, || format!("look at the columns of {table}")).await?;
    Ok(rows.value(0, 0)?.unwrap_or_default().to_string())
}

/// Whether the table is there now, whatever the snapshot shows.
pub async fn exists(client: &mut CopyClient, table: &TableName) -> Result<bool> {
    let sql = format!("select pg_catalog.to_regclass({}) is not null", literal(&table.sql()));
    let rows = client.query(&sql, || format!("look for {table}")).await?;
    Ok(rows.value(0, 0)? == Some("t"))
}
