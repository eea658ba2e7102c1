//! Stores large objects under the oids that they have on the source.

use tokio_postgres::Client;

use crate::error::{Context, Result};

/// Stores whole ones, many at once.
pub async fn store(client: &Client, objects: &[(u32, Vec<u8>)]) -> Result<()> {
    let (oids, bytes): (Vec<u32>, Vec<&[u8]>) = objects.iter().map(|(oid, bytes)| (*oid, bytes.as_slice())).unzip();
    client
        .execute(
            "select pg_catalog.lo_from_bytea(o.oid, o.bytes) from unnest($1::oid[], $2::bytea[]) as o (oid, bytes)",
            &[&oids, &bytes],
        )
        .await
        .on_target(|| "store large objects".into())?;
    Ok(())
}

/// Adds bytes to one that is there.
pub async fn write(client: &Client, oid: u32, offset: i64, bytes: &[u8]) -> Result<()> {
    client
        .execute("select pg_catalog.lo_put($1, $2, $3)", &[&oid, &offset, &bytes])
        .await
        .on_target(|| format!("write large object {oid}"))?;
    Ok(())
}

/// Runs the statements; returns those that failed, with the server's answer. Inside a transaction.
pub async fn furnish(client: &Client, statements: &[String]) -> Result<Vec<(String, String)>> {
    let doing = || "give large objects their owners and privileges".to_string();
    let mut failed = Vec::new();
    for statements in statements.chunks(500) {
        client.batch_execute("savepoint furnish").await.on_target(doing)?;
        if client.batch_execute(&statements.join(";\n")).await.is_ok() {
            client.batch_execute("release savepoint furnish").await.on_target(doing)?;
            continue;
        }
        client.batch_execute("rollback to savepoint furnish").await.on_target(doing)?;
        for statement in statements {
            client.batch_execute("savepoint furnish").await.on_target(doing)?;
            if let Err(err) = client.batch_execute(statement).await {
                // A lack of resources is none of the object's.
                let Some(db) = err.as_db_error().filter(|db| !db.code().code().starts_with("53")) else {
                    return Err(err).on_target(doing);
                };
                failed.push((statement.clone(), format!("{} ({})", db.message(), db.code().code())));
                client.batch_execute("rollback to savepoint furnish").await.on_target(doing)?;
            }
            client.batch_execute("release savepoint furnish").await.on_target(doing)?;
        }
    }
    Ok(failed)
}
