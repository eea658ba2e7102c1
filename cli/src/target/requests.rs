//! What people ask of a migration that follows its source: tables to be added or copied again.

use tokio_postgres::Client;

use crate::error::{Context, Error, Exit, Result};
use crate::model::TableName;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Resync,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "add",
            Verb::Resync => "resync",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Request {
    pub id: i64,
    pub verb: Verb,
    pub table: TableName,
}

/// Asks by the same function that people call in SQL.
pub async fn ask(client: &Client, migration: &str, verb: Verb, table: &str) -> Result<i64> {
    let sql = format!("select pgmig.{}_table($1, $2)", verb.as_str());
    let row = client.query_one(&sql, &[&table, &migration]).await;
    Ok(row.map_err(|cause| refused(cause, format!("{} {table}", verb.as_str())))?.get(0))
}

/// The oldest request that nobody has taken up.
pub async fn next(client: &Client, migration: &str) -> Result<Option<Request>> {
    let row = client
        .query_opt(
            "select request_id, verb, schema_name, table_name from pgmig.request
              where migration = $1 and state = 'pending' order by request_id limit 1",
            &[&migration],
        )
        .await
        .on_target(|| "look for requests".into())?;
    Ok(row.as_ref().map(request))
}

/// The tables that are to be copied again, and that nobody has taken up.
pub async fn resyncs(client: &Client, migration: &str) -> Result<Vec<Request>> {
    let rows = client
        .query(
            "select request_id, verb, schema_name, table_name from pgmig.request
              where migration = $1 and state = 'pending' and verb = 'resync' order by request_id",
            &[&migration],
        )
        .await
        .on_target(|| "look for requests".into())?;
    Ok(rows.iter().map(request).collect())
}

fn request(row: &tokio_postgres::Row) -> Request {
    Request {
        id: row.get(0),
        verb: if row.get::<_, String>(1) == "add" { Verb::Add } else { Verb::Resync },
        table: TableName::new(row.get::<_, String>(2), row.get::<_, String>(3)),
    }
}

/// Asks for every table to be copied again, all or none; how many there are.
pub async fn ask_all(client: &Client, migration: &str) -> Result<i64> {
    let row = client
        .query_one(
            "select count(pgmig.resync_table(format('%I.%I', schema_name, table_name), $1))
               from (select distinct schema_name, table_name from pgmig.part
                      where migration = $1 and schema_name <> 'pg_catalog') tables",
            &[&migration],
        )
        .await
        .map_err(|cause| refused(cause, "resync every table".into()))?;
    Ok(row.get(0))
}

fn refused(cause: tokio_postgres::Error, doing: String) -> Error {
    let hint = cause.as_db_error().and_then(|db| db.hint()).map(str::to_string);
    let error = Error::new(Exit::Phase, format!("cannot {doing}")).cause(cause);
    error.hint(hint.unwrap_or_else(|| "see where it is: pgmig status".into()))
}

/// Moves a request on: running in the transaction that makes its work pending, then done or refused.
pub async fn set(client: &Client, id: i64, state: &str, message: Option<&str>) -> Result<()> {
    client
        .execute(
            "update pgmig.request
                set state = $2, message = $3, finished_at = case when $2 in ('done', 'refused') then clock_timestamp() end
              where request_id = $1",
            &[&id, &state, &message],
        )
        .await
        .on_target(|| "record what became of a request".into())?;
    Ok(())
}

/// Those that an earlier run took up: what they asked for was pending, and this run has done it.
pub async fn finish_earlier(client: &Client, migration: &str) -> Result<()> {
    client
        .execute(
            "update pgmig.request set state = 'done', finished_at = clock_timestamp()
              where migration = $1 and state = 'running'",
            &[&migration],
        )
        .await
        .on_target(|| "record what became of a request".into())?;
    Ok(())
}

/// State of a request, and why it was refused.
pub async fn state(client: &Client, id: i64) -> Result<(String, Option<String>)> {
    let row = client
        .query_one("select state, message from pgmig.request where request_id = $1", &[&id])
        .await
        .on_target(|| "look for a request".into())?;
    Ok((row.get(0), row.get(1)))
}
