//! Large objects, read under the migration's snapshot in chunks: one may be 4 TB.

use tokio_postgres::Client;

use crate::error::{Context, Result};

/// Bytes read at once.
pub const CHUNK: i32 = 256 << 10;

/// How many there are, and about how many bytes they hold.
pub async fn size(client: &Client) -> Result<(i64, i64)> {
    let row = client
        .query_one(
            "select (select count(*) from pg_catalog.pg_largeobject_metadata),
                    pg_catalog.pg_relation_size('pg_catalog.pg_largeobject')",
            &[],
        )
        .await
        .on_source(|| "count the large objects of the source".into())?;
    Ok((row.get(0), row.get(1)))
}

/// Their oids, ascending.
pub async fn list(client: &Client) -> Result<Vec<u32>> {
    let rows = client
        .query("select oid from pg_catalog.pg_largeobject_metadata order by oid", &[])
        .await
        .on_source(|| "list the large objects of the source".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Up to `CHUNK` bytes from `offset` on; fewer at the end.
pub async fn read(client: &Client, oid: u32, offset: i64) -> Result<Vec<u8>> {
    let row = client
        .query_one("select pg_catalog.lo_get($1, $2, $3)", &[&oid, &offset, &CHUNK])
        .await
        .on_source(|| format!("read large object {oid}"))?;
    Ok(row.get(0))
}
