//! Rows that users put into the configuration tables of extensions, such as the reference systems of
//! PostGIS. The extension has filled these tables on the target already: rows of the source replace those
//! that the extension's condition selects, and no others. All tables are one transaction, before any
//! other Part is taken: they are small, and keys among them hold already.

use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::Client;

use super::draft::Asked;
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::identifiers;
use crate::model::{LeftOut, Lsn, What};
use crate::report::{Event, Reporter};
use crate::selection::Selection;
use crate::source::extensions;
use crate::source::inventory::class;
use crate::target::extension_parts;
use crate::target::queue::{self, Copied, Part};

/// The Parts of configuration tables, in the order in which they are filled. A Part that is a whole table
/// and has a predicate is such a table.
pub async fn plan(client: &Client, asked: &Asked<'_>, selection: &mut Selection) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for table in extensions::config_tables(client).await? {
        let is_left_out = |left: &LeftOut| left.what == What::Rows && left.name == table.name.to_string();
        let kept_back = if asked.leave.extensions {
            Some("--skip-extensions")
        } else if selection.objects.contains(&(class::EXTENSION, table.extension)) {
            Some("its extension is left out")
        } else if !table.readable {
            Some("the role may not read it")
        } else {
            None
        };
        selection.left_out.retain(|left| !is_left_out(left));
        let what = match kept_back {
            Some(why) => Some((What::Rows, why.to_string())),
            None if asked.follow => {
                let why = format!("it belongs to extension {}: copied once", table.extension_name);
                Some((What::Changes, why))
            }
            None => None,
        };
        if let Some((what, why)) = what {
            selection.left_out.push(LeftOut { what, kind: "table".into(), name: table.name.to_string(), why });
        }
        if kept_back.is_none() {
            parts.push(Part {
                id: 0,
                table: table.name,
                number: 1,
                parts: 1,
                predicate: Some(table.condition),
                leaf: None,
                range: None,
                columns: table.columns,
                binary: false,
                bytes: table.bytes as i64,
                rows: None,
                copy_bytes: None,
            });
        }
    }
    Ok(parts)
}

/// Copies what is still to copy of them, in one transaction of the target. The source's session is under
/// the migration's snapshot, whose tag this is.
pub async fn copy(
    source: &Client,
    target: &Client,
    migration: &str,
    tag: &str,
    lsn: Lsn,
    report: &Reporter,
) -> Result<()> {
    let parts = extension_parts::pending(target, migration).await?;
    if parts.is_empty() {
        return Ok(());
    }
    target.batch_execute("begin").await.on_target(|| "begin the data of extensions".into())?;
    for part in parts.iter().rev() {
        if has_rows(target, part).await.on_target(|| format!("look into {part}"))? {
            let delete = format!("delete from only {} where {}", part.table.sql(), condition(part));
            target.batch_execute(&delete).await.map_err(|cause| may_not(part, cause))?;
        }
    }
    for part in &parts {
        report.send(Event::PartStarted { id: part.id, name: part.to_string(), bytes: part.bytes as u64 });
        let (rows, bytes) = match has_rows(source, part).await.on_source(|| format!("look into {part}"))? {
            true => pipe(source, target, part).await?,
            // A role that may not write it need not.
            false => (0, 0),
        };
        queue::finish_parts(target, &[Copied { id: part.id, rows, bytes }], tag, lsn).await?;
        report.send(Event::PartDone { id: part.id, rows, bytes });
    }
    target.batch_execute("commit").await.on_target(|| "commit the data of extensions".into())
}

fn condition(part: &Part) -> &str {
    part.predicate.as_deref().unwrap_or("true")
}

async fn has_rows(client: &Client, part: &Part) -> Result<bool, tokio_postgres::Error> {
    let query = format!("select exists (select from only {} where {})", part.table.sql(), condition(part));
    Ok(client.query_one(&query, &[]).await?.get(0))
}

async fn pipe(source: &Client, target: &Client, part: &Part) -> Result<(u64, u64)> {
    let columns = identifiers(&part.columns);
    let from = format!("copy (select {columns} from only {} where {}) to stdout", part.table.sql(), condition(part));
    let into = format!("copy {} ({}) from stdin", part.table.sql(), columns);
    let sink = target.copy_in::<_, bytes::Bytes>(&into).await.map_err(|cause| may_not(part, cause))?;
    let out = source.copy_out(&from).await.on_source(|| format!("read {part}"))?;
    let (mut sink, mut out) = (std::pin::pin!(sink), std::pin::pin!(out));
    let mut total = 0;
    while let Some(row) = out.try_next().await.on_source(|| format!("read {part}"))? {
        total += row.len() as u64;
        sink.as_mut().feed(row).await.on_target(|| format!("store {part}"))?;
    }
    let rows = sink.as_mut().finish().await.on_target(|| format!("store {part}"))?;
    Ok((rows, total))
}

fn may_not(part: &Part, cause: tokio_postgres::Error) -> Error {
    let refused = cause.code().is_some_and(|code| code.code() == "42501");
    let error = Error::new(Exit::Target, format!("store the rows of {part}, which belongs to an extension"));
    match refused {
        true => error.cause(cause).hint(format!(
            "as its owner on the target: grant select, insert, delete on {} to the role of pgmig",
            part.table
        )),
        false => error.cause(cause),
    }
}
