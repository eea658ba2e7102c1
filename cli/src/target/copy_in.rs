//! Stores the rows of a Part: raw COPY bytes in.

use bytes::Bytes;
use tokio_postgres::{Client, CopyInSink};

use super::queue::Part;
use crate::error::{Context, Result};
use crate::model::name::identifiers;

/// Begins the COPY inside the Part's transaction. A table that comes in one Part is emptied and
/// frozen in the same transaction; Parts of a split table arrive side by side and cannot be.
pub async fn open(client: &Client, part: &Part) -> Result<CopyInSink<Bytes>> {
    let table = part.table.sql();
    if part.parts == 1 {
        client
            .batch_execute(&format!("truncate only {table}"))
            .await
            .on_target(|| format!("empty {} before its copy", part.table))?;
    }
    let columns = if part.columns.is_empty() { String::new() } else { format!(" ({})", identifiers(&part.columns)) };
    let format = if part.binary { "binary" } else { "text" };
    let freeze = if part.parts == 1 { ", freeze" } else { "" };
    client
        .copy_in(&format!("copy {table}{columns} from stdin (format {format}{freeze})"))
        .await
        .on_target(|| format!("store {part}"))
}
