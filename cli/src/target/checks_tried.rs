//! What the target's role may do, found out by doing it in a transaction that is rolled back: managed
//! services grant and forbid in ways that no catalog shows.

use tokio_postgres::Client;

use crate::error::{Context, Error, Result};

/// One thing that was tried.
pub struct Tried {
    pub what: &'static str,
    /// The server's refusal.
    pub refused: Option<Error>,
}

/// Settings that sessions of the migration change.
const SETTINGS: [(&str, &str); 5] = [
    ("maintenance_work_mem", "64MB"),
    ("synchronous_commit", "off"),
    ("check_function_bodies", "off"),
    ("vacuum_freeze_min_age", "0"),
    ("default_tablespace", ""),
];

/// Makes a schema with a table, an index and a view, and a temporary table.
pub async fn objects(client: &Client) -> Result<Tried> {
    let schema = format!("pgmig_preflight_{}", fastrand::u32(..));
    let statements = format!(
        "begin;
         set local lock_timeout = '5s';
         create schema {schema};
         create table {schema}.t (id int primary key, note text);
         create index on {schema}.t (note);
         create view {schema}.v as select id from {schema}.t;
         insert into {schema}.t values (1, 'a');
         truncate {schema}.t;
         create temporary table {schema} (id int) on commit drop"
    );
    undone(client, "a schema with a table, an index and a view, and a temporary table", &statements).await
}

/// Makes the extension, which loads its library.
pub async fn extension(client: &Client) -> Result<Tried> {
    let statements = "begin; set local lock_timeout = '5s'; create extension pgmig_sentinel with schema pg_catalog";
    undone(client, "the extension pgmig_sentinel", statements).await
}

/// Changes what sessions of the migration change.
pub async fn settings(client: &Client) -> Result<Tried> {
    let set: Vec<String> = SETTINGS.iter().map(|(name, value)| format!("set local {name} = '{value}'")).collect();
    undone(client, "the settings of pgmig's sessions", &format!("begin; {}", set.join("; "))).await
}

async fn undone(client: &Client, what: &'static str, statements: &str) -> Result<Tried> {
    let refused = client.batch_execute(statements).await.on_target(|| format!("try {what}")).err();
    match refused {
        // It was undone with its session.
        Some(lost) if lost.connection_lost() => Err(lost),
        refused => {
            client.batch_execute("rollback").await.on_target(|| format!("undo {what}"))?;
            Ok(Tried { what, refused })
        }
    }
}
