//! Stores the rows of a Part: raw COPY bytes in.

use bytes::Bytes;
use tokio_postgres::{Client, CopyInSink};

use super::queue::Part;
use crate::error::{Context, Result};
use crate::model::TableName;
use crate::model::name::{identifiers, literal};

/// Begins the COPY inside the Part's transaction. A table that comes in one Part is emptied and
/// frozen in the same transaction; Parts of a split table arrive side by side and cannot be.
pub async fn open(client: &Client, part: &Part) -> Result<CopyInSink<Bytes>> {
    let table = part.table.sql();
    let mut before = format!("set local application_name = {}", literal(&format!("pgmig part {}", part.id)));
    if part.parts == 1 {
        before.push_str(&format!("; truncate only {table}"));
    }
    client.batch_execute(&before).await.on_target(|| format!("empty {} before its copy", part.table))?;
    let columns = if part.columns.is_empty() { String::new() } else { format!(" ({})", identifiers(&part.columns)) };
    let format = if part.binary { "binary" } else { "text" };
    let freeze = if part.parts == 1 { ", freeze" } else { "" };
    client
        .copy_in(&format!("copy {table}{columns} from stdin (format {format}{freeze})"))
        .await
        .on_target(|| format!("store {part}"))
}

/// Sessions that hold a lock on the table, for people: pid and application.
pub async fn holders(client: &Client, table: &TableName) -> Result<Vec<String>> {
    let rows = client
        .query(
            "select distinct a.pid, a.application_name
               from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a using (pid)
              where l.relation = pg_catalog.to_regclass($1) and l.granted and a.pid <> pg_catalog.pg_backend_pid()
                and l.database = (select oid from pg_catalog.pg_database where datname = current_database())",
            &[&table.sql()],
        )
        .await
        .on_target(|| format!("look who holds a lock on {table}"))?;
    Ok(rows.iter().map(|row| format!("pid {} ({})", row.get::<_, i32>(0), row.get::<_, String>(1))).collect())
}
