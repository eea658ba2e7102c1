//! The exported snapshot that every copy worker reads under, and the session that keeps it alive.

use tokio_postgres::Client;

use crate::error::{Context, Error, Exit, Result};
use crate::model::Lsn;
use crate::model::name::literal;

/// Holds a snapshot open for others to import. Dropping it (or losing its connection) ends the
/// snapshot for new sessions; those that imported it keep it.
pub struct SnapshotHolder {
    /// The catalog is read in this session, under the same snapshot as the rows.
    pub client: Client,
    /// For `SET TRANSACTION SNAPSHOT` and `pg_dump --snapshot`.
    pub exported: String,
    /// Whatever the snapshot shows was committed before this.
    pub lsn: Lsn,
}

impl SnapshotHolder {
    /// Takes over the snapshot that a slot exported (which ends with that connection's next
    /// command) at its consistent point, or, without one, a snapshot of now. The `client` is used up
    /// by it.
    pub async fn new(client: Client, imported: Option<(&str, Lsn)>) -> Result<SnapshotHolder> {
        let doing = || "hold a snapshot on the source".to_string();
        begin_under(&client, imported.map(|(exported, _)| exported)).await?;
        let row = client.query_one("select pg_catalog.pg_export_snapshot()", &[]).await.on_source(doing)?;
        let lsn = match imported {
            Some((_, consistent_point)) => consistent_point,
            None => super::slot::current_lsn(&client).await?,
        };
        Ok(SnapshotHolder { exported: row.get(0), client, lsn })
    }

    /// What a failure comes to once the session has ended.
    pub fn lost(&self, err: Error) -> Error {
        let closed = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, err.chain());
        Error::new(Exit::Source, "the session that holds the snapshot was lost").cause(closed)
    }
}

/// Whether a session could not read under the snapshot since the one that held it has ended.
pub fn is_gone(err: &Error) -> bool {
    err.exit() == Exit::Source
        && matches!(err.sqlstate(), Some("22023" | "42704" | "55000"))
        && err.chain().contains("snapshot")
}

/// Begins a read-only transaction under an exported snapshot, or under one of its own.
pub async fn begin_under(client: &Client, exported: Option<&str>) -> Result<()> {
    let mut sql = "begin transaction isolation level repeatable read, read only".to_string();
    if let Some(exported) = exported {
        sql.push_str(&format!("; set transaction snapshot {}", literal(exported)));
    }
    client.batch_execute(&sql).await.on_source(|| "read under the snapshot of the migration".into())
}

/// The tag of what this session reads from now on.
pub async fn tag(client: &Client) -> Result<String> {
    let row = client
        .query_one("select pg_catalog.pg_current_snapshot()::text", &[])
        .await
        .on_source(|| "read the tag of the snapshot".into())?;
    Ok(row.get(0))
}
