//! Stores the rows of a Part: raw COPY bytes in.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, CopyInSink};

use super::layout::rows_of;
use super::queue::{Part, is_referred_to};
use crate::connect::{Lane, Side};
use crate::error::{Context, Error, Exit, Network, Result};
use crate::model::TableName;
use crate::model::name::{identifiers, literal};

/// Bytes of room that a chunk of rows has at its head, for what makes it a message: the tag of CopyData
/// and the length (manual 55.7).
pub const HEAD: usize = 5;

/// A COPY that runs.
pub struct CopyIn<'a> {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    lane: &'a Lane,
    part: &'a Part,
}

impl CopyIn<'_> {
    /// Sends the rows behind the head of the chunk, which is empty then.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, chunk: &mut BytesMut) -> Result<()> {
        let length = (chunk.len() - 1) as u32;
        chunk[0] = b'd';
        chunk[1..HEAD].copy_from_slice(&length.to_be_bytes());
        match self.lane.send(chunk).await {
            Ok(true) => chunk.truncate(HEAD),
            Ok(false) => {
                let rows = chunk.split_off(HEAD).freeze();
                self.sink.send(rows).await.map_err(|err| failed(err, self.part))?;
            }
            // An answer that came before the end says more.
            Err(_) if self.lane.refused() => chunk.truncate(HEAD),
            Err(err) => {
                return Err(Error::new(Exit::Target, format!("store {}", self.part)).cause(Network(err)));
            }
        }
        Ok(())
    }

    /// Whether the target has refused it: only [`finish`](Self::finish) is left, which says why.
    pub fn refused(&self) -> bool {
        self.lane.refused()
    }

    /// Ends the COPY: how many rows were stored.
    ///
    /// # Errors
    /// The target has refused a row.
    pub async fn finish(&mut self) -> Result<u64> {
        self.sink.as_mut().finish().await.map_err(|err| failed(err, self.part))
    }
}

/// Begins the COPY inside the Part's transaction. A table that comes in one Part is emptied and
/// frozen in the same transaction; Parts of a split table arrive side by side and cannot be, nor can a
/// table that foreign keys refer to, which is copied `late`. The server freezes no rows of partitions.
pub async fn open<'a>(client: &Client, lane: &'a Lane, part: &'a Part, late: bool) -> Result<CopyIn<'a>> {
    let (table, rows) = (part.table.sql(), rows_of(client, Side::Target, &part.table).await?);
    let mut before = format!("set local application_name = {}", literal(&format!("pgmig part {}", part.id)));
    // One that was there before has perhaps such keys from the beginning.
    let late = late || rows == table;
    let alone = part.parts == 1 && part.leaf.is_none();
    let truncated = alone && !(late && is_referred_to(client, &part.table).await?);
    match (truncated, alone) {
        (true, _) => before.push_str(&format!("; truncate {rows}")),
        (false, true) => before.push_str(&format!("; delete from {rows}")),
        (false, false) => {}
    }
    client.batch_execute(&before).await.on_target(|| format!("empty {} before its copy", part.table))?;
    let columns = if part.columns.is_empty() { String::new() } else { format!(" ({})", identifiers(&part.columns)) };
    let format = if part.binary { "binary" } else { "text" };
    let freeze = if truncated && rows != table { ", freeze" } else { "" };
    lane.begin();
    let sink = client
        .copy_in(&format!("copy {table}{columns} from stdin (format {format}{freeze})"))
        .await
        .on_target(|| format!("store {part}"))?;
    Ok(CopyIn { sink: Box::pin(sink), lane, part })
}

/// The failure of a COPY, with the line and column that the server names; the line's text stays there.
fn failed(err: tokio_postgres::Error, part: &Part) -> Error {
    let at = err.as_db_error().and_then(|db| place(db.where_()?)).map(|at| format!(", {at}")).unwrap_or_default();
    Error::new(Exit::Target, format!("store {part}{at}")).cause(err)
}

/// `COPY name, line 3, column b: "text"` gives `line 3, column b` (CopyFromErrorCallback in copyfrom.c).
fn place(context: &str) -> Option<String> {
    let (_, rest) = context.strip_prefix("COPY ")?.split_once(", line ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (line, rest) = rest.split_at(digits);
    let column = rest.strip_prefix(", column ").map(|rest| rest.split_once(": ").map_or(rest, |(column, _)| column));
    match column {
        _ if line.is_empty() => None,
        Some(column) => Some(format!("line {line}, column {column}")),
        None => Some(format!("line {line}")),
    }
}

/// Names and types of the table's columns.
pub async fn columns(client: &Client, table: &TableName) -> Result<String> {
    let sql = include_str!("../../../sql/server/shape.sql");
    let row = client.query_one(sql, &[&table.sql()]).await.on_target(|| format!("look at the columns of {table}"))?;
    Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_place_is_told_without_what_stands_there() {
        let cases = [
            ("COPY t, line 49: \"49\tsecret\"", Some("line 49")),
            ("COPY t, line 3, column b: \"secret, line 4\"", Some("line 3, column b")),
            ("COPY t, line 3, column b", Some("line 3, column b")),
            ("SQL function \"f\" statement 1", None),
        ];
        for (context, expected) in cases {
            assert_eq!(place(context).as_deref(), expected, "{context}");
        }
    }
}
