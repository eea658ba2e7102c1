//! How the source bears the migration: the slot, the WAL it keeps, and the oldest snapshot.

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::status::{OldestSnapshot, SourceHealth};

/// How many transactions ago the oldest began that vacuum has to reckon with: for a session, a prepared
/// transaction, or a standby's slot.
pub async fn oldest_xmin_age(client: &Client) -> Result<Option<i64>> {
    let row = client
        .query_one(
            "select max(pg_catalog.age(x.xid))::int8
               from (select backend_xmin from pg_catalog.pg_stat_activity where pid <> pg_backend_pid()
                     union all select transaction from pg_catalog.pg_prepared_xacts
                     union all select xmin from pg_catalog.pg_replication_slots) x (xid)",
            &[],
        )
        .await
        .on_source(|| "look for the oldest transaction".into())?;
    Ok(row.get(0))
}

pub async fn health(client: &Client, slot_name: &str) -> Result<SourceHealth> {
    let slot = client
        .query_opt(
            "select wal_status, active,
                    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), restart_lsn)::int8, safe_wal_size
               from pg_catalog.pg_replication_slots where slot_name = $1",
            &[&slot_name],
        )
        .await
        .on_source(|| format!("look for slot `{slot_name}`"))?;
    let oldest = client
        .query_opt(
            "select pid, coalesce(application_name, ''),
                    extract(epoch from clock_timestamp() - xact_start)::float8
               from pg_catalog.pg_stat_activity
              where backend_xmin is not null and xact_start is not null and pid <> pg_backend_pid()
                    and backend_type = 'client backend'
              order by age(backend_xmin) desc, xact_start
              limit 1",
            &[],
        )
        .await
        .on_source(|| "look for the oldest snapshot".into())?;
    Ok(SourceHealth {
        wal_status: slot.as_ref().and_then(|row| row.get(0)),
        active: slot.as_ref().is_some_and(|row| row.get(1)),
        retained_bytes: slot.as_ref().and_then(|row| row.get(2)),
        safe_bytes: slot.as_ref().and_then(|row| row.get(3)),
        oldest_snapshot: oldest.map(|row| OldestSnapshot {
            pid: row.get(0),
            application: row.get(1),
            seconds: row.get(2),
        }),
        oldest_xmin_age: oldest_xmin_age(client).await?,
    })
}
