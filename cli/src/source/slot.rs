//! The logical replication slot and its publications: how far the source may forget.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Context, Error, Exit, Result};
use crate::model::name::{identifier, identifiers};
use crate::model::{Lsn, TableName};
use crate::source::catalog;

/// How long the session that reads a slot may take to end.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// The application_name of the session that receives the stream.
pub const RECEIVER: &str = "pgmig receive";

/// What pg_replication_slots says of a slot.
#[derive(Debug, Clone)]
pub struct Slot {
    pub plugin: String,
    pub database: Option<String>,
    pub active_pid: Option<i32>,
    pub confirmed_flush_lsn: Option<Lsn>,
    /// `lost` when the source has thrown away WAL that the slot needs.
    pub wal_status: Option<String>,
    /// Bytes of WAL that the source keeps for it; None where it does not tell.
    pub kept_bytes: Option<u64>,
    /// WAL that can still be written before it is lost; None without a limit.
    pub safe_bytes: Option<u64>,
}

pub async fn find(client: &Client, name: &str) -> Result<Option<Slot>> {
    let row = client
        .query_opt(
            "select plugin::text, database::text, active_pid, confirmed_flush_lsn, wal_status,
                    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), restart_lsn)::bigint, safe_wal_size
               from pg_catalog.pg_replication_slots where slot_name = $1",
            &[&name],
        )
        .await
        .on_source(|| format!("look for slot `{name}`"))?;
    let bytes = |bytes: Option<i64>| bytes.map(|bytes| bytes.max(0) as u64);
    Ok(row.map(|row| Slot {
        plugin: row.get::<_, Option<String>>(0).unwrap_or_default(),
        database: row.get(1),
        active_pid: row.get(2),
        confirmed_flush_lsn: row.get(3),
        wal_status: row.get(4),
        kept_bytes: bytes(row.get(5)),
        safe_bytes: bytes(row.get(6)),
    }))
}

/// Ends a session of ours that still reads the slot, though its connection is broken.
pub async fn end_reader(client: &Client, name: &str, pid: i32) -> Result<()> {
    client
        .execute(
            "select pg_catalog.pg_terminate_backend(active_pid, 5000)
               from pg_catalog.pg_replication_slots where slot_name = $1 and active_pid = $2",
            &[&name, &pid],
        )
        .await
        .on_source(|| format!("free slot `{name}`"))?;
    Ok(())
}

/// Ends the reader of a slot of ours if a pgmig of the same role left it behind: behind a network that
/// stands still the source waits for it as long as `wal_sender_timeout`. Others go on reading.
pub async fn end_left_over(client: &Client, name: &str) -> Result<()> {
    client
        .execute(
            "select pg_catalog.pg_terminate_backend(a.pid, 5000)
               from pg_catalog.pg_replication_slots s join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
              where s.slot_name = $1 and a.application_name = $2 and a.usename = current_user",
            &[&name, &RECEIVER],
        )
        .await
        .on_source(|| format!("end what a run that was killed left at slot `{name}`"))?;
    Ok(())
}

/// Drops the slot if it is there. True if it was.
pub async fn drop(client: &Client, name: &str) -> Result<bool> {
    let row = client
        .query_opt(
            "select pg_catalog.pg_drop_replication_slot(slot_name)
               from pg_catalog.pg_replication_slots where slot_name = $1",
            &[&name],
        )
        .await
        .on_source(|| format!("drop slot `{name}`"))?;
    Ok(row.is_some())
}

/// Drops the slot once the session that reads it has ended; with `end_it` that session is ended.
pub async fn drop_when_free(client: &Client, name: &str, end_it: bool) -> Result<bool> {
    let began = Instant::now();
    loop {
        match drop(client, name).await {
            // Object in use.
            Err(err) if err.sqlstate() == Some("55006") && began.elapsed() < FREE_WITHIN => {
                let reader = find(client, name).await?.and_then(|slot| slot.active_pid);
                if let Some(pid) = reader.filter(|_| end_it) {
                    end_reader(client, name, pid).await?;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            dropped => return dropped,
        }
    }
}

/// The publications of a migration: one for tables whose rows can be identified, one that carries
/// inserts and truncates only, so that no UPDATE on the source ever fails because of us.
pub fn publications(migration: &str) -> [String; 2] {
    [format!("pgmig_{migration}"), format!("pgmig_{migration}_inserts")]
}

/// Makes both publications anew. Slot and snapshot come after: pgoutput looks a publication up as
/// it was when the change was made.
pub async fn create_publications(client: &Client, migration: &str, tables: &[(TableName, bool)]) -> Result<()> {
    drop_publications(client, migration).await?;
    // Where the source knows the setting: there it wants every column of an identity published, and of a
    // table with REPLICA IDENTITY FULL that is all. The target computes them, whatever is sent.
    let doing = || "read the version of the source".to_string();
    let version = client.query_one("select current_setting('server_version_num')::int", &[]).await.on_source(doing)?;
    let generated = if version.get::<_, i32>(0) >= 180_000 { ", publish_generated_columns = stored" } else { "" };
    for (publication, identified) in publications(migration).iter().zip([true, false]) {
        let list: Vec<String> =
            tables.iter().filter(|(_, is)| *is == identified).map(|(table, _)| table.sql()).collect();
        let tables = if list.is_empty() { String::new() } else { format!(" for table only {}", list.join(", only ")) };
        let publish = if identified { "insert, update, delete, truncate" } else { "insert, truncate" };
        let name = identifier(publication);
        client
            .batch_execute(&format!("create publication {name}{tables} with (publish = '{publish}'{generated})"))
            .await
            .map_err(|cause| {
                Error::new(Exit::Source, format!("cannot create publication `{publication}` on the source"))
                    .cause(cause)
                    .hint("the role needs CREATE on the database and must own the tables; a superuser may also use --plugin wal2json")
            })?;
    }
    Ok(())
}

/// Adds tables to the publications, each to its own; those that are there already stay.
pub async fn publish(client: &Client, migration: &str, tables: &[(TableName, bool)]) -> Result<()> {
    let [all, inserts] = publications(migration);
    for (table, identified) in tables {
        let publication = if *identified { &all } else { &inserts };
        let row = client
            .query_one(
                "select exists (select from pg_catalog.pg_publication_tables
                                 where pubname::text = $1 and schemaname::text = $2 and tablename::text = $3)",
                &[publication, &table.schema, &table.table],
            )
            .await
            .on_source(|| format!("look into publication `{publication}`"))?;
        if !row.get::<_, bool>(0) {
            let add = format!("alter publication {} add table only {}", identifier(publication), table.sql());
            client.batch_execute(&add).await.map_err(|cause| {
                Error::new(Exit::Source, format!("cannot add {table} to publication `{publication}` on the source"))
                    .cause(cause)
                    .hint("the role must own the table")
            })?;
        }
    }
    Ok(())
}

/// The types whose values the stream may carry in binary; None if some column of the published tables
/// is of another, or the target's version (as server_version_num) of another major one.
pub async fn binary_types(client: &Client, migration: &str, target_version: i32) -> Result<Option<HashSet<u32>>> {
    let sql = include_str!("../../../sql/source/binary_types.sql");
    let row = client
        .query_one(sql, &[&publications(migration).to_vec(), &(target_version / 10_000), &catalog::NEVER_BINARY])
        .await
        .on_source(|| "look at the types of the published tables".into())?;
    Ok(row.get::<_, Option<Vec<u32>>>(0).map(HashSet::from_iter))
}

/// The tables in the publications of a migration.
pub async fn published(client: &Client, migration: &str) -> Result<HashSet<u32>> {
    let rows = client
        .query(
            "select r.prrelid from pg_catalog.pg_publication_rel r
                    join pg_catalog.pg_publication p on p.oid = r.prpubid
              where p.pubname::text = any($1)",
            &[&publications(migration).to_vec()],
        )
        .await
        .on_source(|| "read the publications of pgmig".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The first transaction id that nobody has yet.
pub async fn next_xid(client: &Client) -> Result<String> {
    let row = client
        .query_one("select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text", &[])
        .await
        .on_source(|| "read the next transaction id".into())?;
    Ok(row.get(0))
}

/// Whether every transaction before this one has ended.
pub async fn all_ended(client: &Client, before: &str) -> Result<bool> {
    let row = client
        .query_one(
            "select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::numeric >= $1::text::numeric",
            &[&before],
        )
        .await
        .on_source(|| "look for open transactions".into())?;
    Ok(row.get(0))
}

/// Drops what is there of the publications; returns how many were.
pub async fn drop_publications(client: &Client, migration: &str) -> Result<usize> {
    let names = publications(migration).to_vec();
    let rows = client
        .query("select pubname::text from pg_catalog.pg_publication where pubname::text = any($1)", &[&names])
        .await
        .on_source(|| "look for publications of pgmig".into())?;
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if !found.is_empty() {
        client
            .batch_execute(&format!("drop publication {}", identifiers(&found)))
            .await
            .on_source(|| "drop the publications of pgmig".into())?;
    }
    Ok(found.len())
}

/// Where the source's WAL ends. The insert position, not the write position: a transaction that was
/// committed with synchronous_commit = off is behind the latter for a moment.
pub async fn current_lsn(client: &Client) -> Result<Lsn> {
    let row = client
        .query_one(
            "select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                         else pg_catalog.pg_current_wal_insert_lsn() end",
            &[],
        )
        .await
        .on_source(|| "read the write position of the source".into())?;
    Ok(row.get(0))
}

/// Writes a logical message, so that the stream of an idle source comes past the position it is
/// waited for. Where that is not allowed the server's keepalives do the same, more slowly.
pub async fn nudge(client: &Client) -> Result<()> {
    client
        .query_one("select pg_catalog.pg_logical_emit_message(true, 'pgmig', 'endpos')", &[])
        .await
        .on_source(|| "write a logical message on the source".into())?;
    Ok(())
}

/// Tries an output plugin with a temporary slot. False where that would wait.
pub async fn try_plugin(client: &Client, plugin: &str) -> Result<bool> {
    match temporary_slot(client, plugin).await? {
        Some(slot) => drop(client, &slot).await,
        None => Ok(false),
    }
}

/// Whether the server's wal2json takes `numeric-data-types-as-string` (2.6 and later), without which
/// it prints NaN as null. Found out with a temporary slot, since the version cannot be asked for; None
/// where that would wait.
pub async fn wal2json_keeps_nan(client: &Client) -> Result<Option<bool>> {
    let Some(slot) = temporary_slot(client, "wal2json").await? else { return Ok(None) };
    let tried = client
        .query(
            "select count(*) from pg_catalog.pg_logical_slot_peek_changes($1, null, 1,
                    'format-version', '2', 'numeric-data-types-as-string', '1')",
            &[&slot],
        )
        .await;
    drop(client, &slot).await?;
    match tried {
        Ok(_) => Ok(Some(true)),
        Err(err) if err.code().is_some_and(|code| code.code() == "22023") => Ok(Some(false)),
        Err(err) => Err(err).on_source(|| "try wal2json with a temporary slot".into()),
    }
}

/// Makes a slot that goes with its session. None if it waits for transactions that are open: the server has
/// taken the plugin by then, and the cancelled slot with it.
async fn temporary_slot(client: &Client, plugin: &str) -> Result<Option<String>> {
    let slot = format!("pgmig_probe_{}", fastrand::u32(..));
    let doing = || format!("try {plugin} with a temporary slot");
    client.batch_execute("set statement_timeout = '5s'").await.on_source(doing)?;
    let made =
        client.query("select pg_catalog.pg_create_logical_replication_slot($1, $2, true)", &[&slot, &plugin]).await;
    client.batch_execute("set statement_timeout = 0").await.on_source(doing)?;
    match made {
        Ok(_) => Ok(Some(slot)),
        Err(err) if err.code() == Some(&SqlState::QUERY_CANCELED) => Ok(None),
        Err(err) => Err(err).on_source(doing),
    }
}
