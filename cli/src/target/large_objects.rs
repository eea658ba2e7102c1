//! Stores large objects under the oids that they have on the source.

use tokio_postgres::Client;

use crate::error::{Context, Result};

pub async fn create(client: &Client, oid: u32) -> Result<()> {
    client
        .execute("select pg_catalog.lo_create($1)", &[&oid])
        .await
        .on_target(|| format!("create large object {oid}"))?;
    Ok(())
}

pub async fn write(client: &Client, oid: u32, offset: i64, bytes: &[u8]) -> Result<()> {
    client
        .execute("select pg_catalog.lo_put($1, $2, $3)", &[&oid, &offset, &bytes])
        .await
        .on_target(|| format!("write large object {oid}"))?;
    Ok(())
}
