//! Rows that are too large for a plugin that writes a change as one text. Reads heaps and no TOAST: how long a
//! value is stands in the pointer to it.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::TableName;
use crate::model::name::identifier;

/// A table with less TOAST holds no row of 256 MB: no compression of PostgreSQL's makes a value smaller by more.
const LITTLE_TOAST: i64 = 1 << 20;

/// The largest row of a table.
#[derive(Debug)]
pub struct LargeRow {
    pub table: TableName,
    /// What an update of it may send.
    pub bytes: u64,
    /// Whether that is the row as it was and as it is.
    pub twice: bool,
}

/// What was found of the large rows.
#[derive(Debug, Default)]
pub struct LargeRows {
    pub found: Vec<LargeRow>,
    /// Tables that could not be looked through in time.
    pub unseen: Vec<TableName>,
}

/// Tables among these with a row of `at_least` bytes or more.
pub async fn large_rows(client: &Client, oids: &[u32], at_least: u64, within: Duration) -> Result<LargeRows> {
    let tables = client
        .query(
            "select n.nspname::text, c.relname::text, c.relreplident = 'f',
                    array(select a.attname::text from pg_catalog.pg_attribute a
                           where a.attrelid = c.oid and a.attnum > 0 and a.attlen = -1 and not a.attisdropped
                             and a.atttypid in ('bytea'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)),
                    -- How long others are unpacked only reading them would tell.
                    array(select a.attname::text from pg_catalog.pg_attribute a
                           where a.attrelid = c.oid and a.attnum > 0 and a.attlen = -1 and not a.attisdropped
                             and a.atttypid not in ('bytea'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype))
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.oid = any ($1) and c.reltoastrelid <> 0 and pg_catalog.pg_relation_size(c.reltoastrelid) >= $2
              order by pg_catalog.pg_relation_size(c.reltoastrelid) desc",
            &[&oids, &LITTLE_TOAST],
        )
        .await
        .on_source(|| "look for tables with large values".into())?;
    let began = Instant::now();
    let mut rows = LargeRows::default();
    for table in tables {
        let name = TableName::new(table.get::<_, String>(0), table.get::<_, String>(1));
        let twice: bool = table.get(2);
        let (long, other): (Vec<String>, Vec<String>) = (table.get(3), table.get(4));
        let length = |function: &str, column: &String| format!("coalesce({function}({}), 0)::int8", identifier(column));
        let sum: Vec<String> = long
            .iter()
            .map(|column| length("octet_length", column))
            .chain(other.iter().map(|column| length("pg_column_size", column)))
            .collect();
        match largest(client, &name, &sum.join(" + "), within.saturating_sub(began.elapsed())).await? {
            Some(bytes) => {
                let bytes = if twice { 2 * bytes } else { bytes };
                rows.found.extend((bytes >= at_least).then_some(LargeRow { table: name, bytes, twice }));
            }
            None => rows.unseen.push(name),
        }
    }
    Ok(rows)
}

/// Bytes of the largest row; None if it takes too long, or may not be read.
async fn largest(client: &Client, table: &TableName, row: &str, within: Duration) -> Result<Option<u64>> {
    if within.is_zero() {
        return Ok(None);
    }
    let doing = || format!("look for large rows in {table}");
    let limit = format!("begin read only; set local statement_timeout = {}", within.as_millis().max(1));
    client.batch_execute(&limit).await.on_source(doing)?;
    let answer = client.query_one(&format!("select max({row})::int8 from only {}", table.sql()), &[]).await;
    let found = match answer {
        Ok(row) => Some(row.get::<_, Option<i64>>(0).unwrap_or(0).max(0) as u64),
        Err(err) if err.is_closed() => return Err(err).on_source(doing),
        Err(_) => None,
    };
    client.batch_execute("rollback").await.on_source(doing)?;
    Ok(found)
}
