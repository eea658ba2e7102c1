//! Transactions that a logical slot waits for: all that were running when it was begun.

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::stall::without_values;

/// A transaction that may be waited for.
#[derive(Debug)]
pub struct OldTransaction {
    /// Whose, and what it does, without values.
    pub who: String,
    pub seconds: f64,
    /// The statement that ends it.
    pub end: String,
}

/// The one that has been open for longest, prepared ones among them; None if nobody writes.
pub async fn oldest_transaction(client: &Client) -> Result<Option<OldTransaction>> {
    let row = client
        .query_opt(
            "select format('pid %s, user %s, application \"%s\", %s', pid, usename, application_name, state),
                    extract(epoch from clock_timestamp() - xact_start)::float8,
                    format('select pg_terminate_backend(%s);', pid),
                    coalesce(query, '')
               from pg_catalog.pg_stat_activity
              where backend_xid is not null and pid <> pg_backend_pid()
              union all
             select format('prepared transaction %L in database %s', gid, database),
                    extract(epoch from clock_timestamp() - prepared)::float8,
                    format('rollback prepared %L;', gid),
                    ''
               from pg_catalog.pg_prepared_xacts
              order by 2 desc nulls last limit 1",
            &[],
        )
        .await
        .on_source(|| "look for old transactions".into())?;
    Ok(row.map(|row| {
        let statement = without_values(row.get(3));
        let doing = if statement.is_empty() { String::new() } else { format!(": {statement}") };
        OldTransaction {
            who: format!("{}{doing}", row.get::<_, String>(0)),
            seconds: row.get::<_, Option<f64>>(1).unwrap_or(0.0),
            end: row.get(2),
        }
    }))
}
