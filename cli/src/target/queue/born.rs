//! Tables that apply itself makes: there is nothing to copy of them.

use tokio_postgres::Client;

use crate::error::{Context, Error, Result};
use crate::model::TableName;

/// A table that was made in the open transaction, of which nothing is to be copied: its stream has all of it.
/// What is known of another one of that name, which was dropped, is forgotten.
pub async fn born(client: &Client, migration: &str, table: &TableName) -> Result<()> {
    let doing = || format!("take in {table}");
    client
        .execute(
            "delete from pgmig.part where migration = $1 and schema_name = $2 and table_name = $3",
            &[&migration, &table.schema, &table.table],
        )
        .await
        .on_target(doing)?;
    let rows = client
        .execute(
            "insert into pgmig.part (migration, schema_name, table_name, part_number, parts, columns, bytes, state,
                                     copied_rows, copied_bytes, snapshot, snapshot_lsn, started_at, finished_at)
             select $1::text, $2::text, $3::text, 1, 1,
                    array(select a.attname::text from pg_catalog.pg_attribute a
                           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                           order by a.attnum),
                    0, 'done', 0, 0, '3:3:', '0/0', now(), now()
               from pg_catalog.pg_class c
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where n.nspname = $2::text and c.relname = $3::text",
            &[&migration, &table.schema, &table.table],
        )
        .await
        .on_target(doing)?;
    if rows == 1 { Ok(()) } else { Err(Error::bug(format!("{table} was made and is not there"))) }
}

/// One that has another name from here on.
pub async fn rename(client: &Client, migration: &str, from: &TableName, to: &TableName) -> Result<()> {
    client
        .execute(
            "update pgmig.part set schema_name = $4, table_name = $5
              where migration = $1 and schema_name = $2 and table_name = $3",
            &[&migration, &from.schema, &from.table, &to.schema, &to.table],
        )
        .await
        .on_target(|| format!("take in {to}"))?;
    Ok(())
}
