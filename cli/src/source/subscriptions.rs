//! Subscriptions of the source's database. Their connection strings hold passwords: they go to the target's
//! session only.

use tokio_postgres::Client;

use crate::config::Secret;
use crate::error::{Context, Result};

const OF_THIS_DATABASE: &str = "subdbid = (select oid from pg_catalog.pg_database where datname = current_database())";

/// Their names, which anybody may read.
pub async fn names(client: &Client) -> Result<Vec<String>> {
    let query =
        format!("select subname::text from pg_catalog.pg_subscription where {OF_THIS_DATABASE} order by subname");
    let rows = client.query(&query, &[]).await.on_source(|| "read the names of the subscriptions".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Name and connection string of each, which only a superuser may read.
pub async fn connections(client: &Client) -> Result<Vec<(String, Secret)>> {
    let query = format!("select subname::text, subconninfo from pg_catalog.pg_subscription where {OF_THIS_DATABASE}");
    let rows = client.query(&query, &[]).await.on_source(|| "read where the subscriptions connect to".into())?;
    Ok(rows.iter().map(|row| (row.get(0), Secret::new(row.get::<_, String>(1)))).collect())
}
