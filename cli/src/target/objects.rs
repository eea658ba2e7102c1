//! Makes one object on the target from its step. The statement and its mark are one transaction. Many of
//! them, in their order or side by side, are in `rounds`.

use tokio_postgres::Client;

use super::queue::{self, Step};
use crate::crash;
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::literal;
use crate::model::{TableName, name};

/// What one statement came to.
pub enum Outcome {
    Done,
    /// Not blocking: recorded, shown at the end.
    Failed {
        sqlstate: String,
        message: String,
    },
}

/// Runs a taken step to its commit. The session is inside the transaction that took it.
pub async fn run_taken(client: &Client, step: &Step) -> Result<Outcome> {
    match attempt(client, step, &step.statement).await? {
        None => Ok(Outcome::Done),
        Some(refused) => settle(client, step, refused, step.blocking).await,
    }
}

/// Tries a step in the session's open transaction and commits it with its mark. Refused by the server, it
/// leaves nothing behind, not even a record.
pub(super) async fn attempt(client: &Client, step: &Step, statement: &str) -> Result<Option<tokio_postgres::Error>> {
    client
        .batch_execute(&format!("set local application_name = {}", literal(&format!("pgmig step {}", step.id))))
        .await
        .on_target(|| "name the session".into())?;
    match client.batch_execute(statement).await {
        Ok(()) => {
            queue::finish_step(client, step).await?;
            // Deferred constraints may still refuse it here.
            crash::before(crash::STEP);
            client.batch_execute("commit").await.on_target(|| format!("commit {} {}", step.kind, step.name))?;
            crash::after(crash::STEP);
            Ok(None)
        }
        Err(err) if err.as_db_error().is_some() => {
            client.batch_execute("rollback").await.on_target(|| "roll back a failed step".into())?;
            Ok(Some(err))
        }
        Err(err) => Err(err).on_target(|| format!("make {} {}", step.kind, step.name)),
    }
}

/// Records a failure. An error if it is blocking.
pub(super) async fn settle(
    client: &Client,
    step: &Step,
    refused: tokio_postgres::Error,
    blocking: bool,
) -> Result<Outcome> {
    let (sqlstate, message) = match refused.as_db_error() {
        Some(db) => (db.code().code().to_string(), db.message().to_string()),
        None => return Err(refused).on_target(|| format!("make {} {}", step.kind, step.name)),
    };
    // A blocking one stays pending, so that the next run tries it again.
    let recorded = Step { blocking, ..step.clone() };
    queue::fail_step(client, &recorded, &sqlstate, &message).await?;
    if !blocking {
        return Ok(Outcome::Failed { sqlstate, message });
    }
    let hint = hint(step, &sqlstate, &message);
    let doing = format!("cannot {} {} {}", verb(step), step.kind.to_lowercase(), step.name);
    let error =
        Error::new(Exit::Target, doing).cause(Error::new(Exit::Target, first_line(&step.statement)).cause(refused));
    Err(match hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

fn verb(step: &Step) -> &'static str {
    if step.kind == "DROP" { "make way:" } else { "make" }
}

/// The first line of a statement that says what it does, in backticks.
pub(super) fn first_line(statement: &str) -> String {
    const LONG: usize = 160;
    let says = |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.starts_with("SET LOCAL ");
    let line = statement.lines().map(str::trim).find(says).unwrap_or_default();
    let whole = line.chars().count() <= LONG && statement.trim_end().ends_with(line);
    let short: String = line.chars().take(LONG).collect();
    if whole { format!("`{short}`") } else { format!("`{short} …`") }
}

/// Of a function in a check, an index or a generated column that knows what it calls without a schema.
pub const BY_SEARCH_PATH: &str = "is it named without a schema in a function that the table needs? pgmig's sessions have an empty \
     search_path, as those of pg_restore: on both sides, alter function … set search_path = …; then run again";

/// What a person may do about it.
fn hint(step: &Step, sqlstate: &str, message: &str) -> Option<String> {
    let statement = step.statement.trim();
    Some(match (sqlstate, step.kind.as_str()) {
        (_, "DROP") if sqlstate == "2BP01" => {
            "something else on the target needs it, which pgmig does not drop: remove that, or give another database"
                .into()
        }
        (_, "EXTENSION") => format!(
            "as a superuser of the target: {statement}\nor leave it out: --skip-extensions, or [exclude-extension] in --filters; then run again"
        ),
        ("42501", "ROLE") => "give a target role with CREATEROLE, or make the role yourself; then run again".into(),
        ("42704", _) if message.starts_with("role") => {
            "create the role on the target, or begin with --roles, or with --no-owner --no-acl".into()
        }
        _ if message.contains("tablespace") => {
            "create the tablespace on the target, or begin with --no-tablespaces".into()
        }
        ("42704", _) if message.starts_with("collation") => {
            "the target must have the collation: was it left out, or is its locale not installed there?".into()
        }
        ("42P06" | "42P07" | "42710" | "42723", _) => {
            "it is there already: drop it, or begin with --drop-if-exists".into()
        }
        ("42883" | "42P01" | "42704", "INDEX" | "CONSTRAINT" | "CHECK CONSTRAINT") => BY_SEARCH_PATH.into(),
        ("42501", _) => "the role of pgmig may not make it on the target: grant what is missing, then run again".into(),
        _ => return None,
    })
}

/// Gives the session's index builds this much memory, in bytes, unless they have more.
pub async fn more_maintenance_work_mem(client: &Client, bytes: u64) -> Result<()> {
    client
        .batch_execute(&format!(
            "select pg_catalog.set_config('maintenance_work_mem',
                    greatest({}, pg_catalog.pg_size_bytes(current_setting('maintenance_work_mem')) / 1024)::text, false)",
            // In kB; 2 GB less one kB is the most that every platform takes.
            (bytes / 1024).clamp(1024, 2_097_151)
        ))
        .await
        .on_target(|| "give index builds memory".into())
}

/// Puts sequences where those of the source stand.
pub async fn set_sequences(client: &Client, values: &[(TableName, i64, bool)]) -> Result<()> {
    for values in values.chunks(200) {
        let calls: Vec<String> = values
            .iter()
            .map(|(sequence, last_value, is_called)| {
                format!("pg_catalog.setval({}, {last_value}, {is_called})", literal(&sequence.sql()))
            })
            .collect();
        client.batch_execute(&format!("select {}", calls.join(", "))).await.on_target(|| "set the sequences".into())?;
    }
    Ok(())
}

/// Refreshes a materialized view.
pub fn refresh_statement(view: &TableName) -> String {
    format!("refresh materialized view {}", name::TableName::sql(view))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_line_that_says_what_was_done() {
        assert_eq!(
            first_line("SET LOCAL default_tablespace = fast;\nCREATE TABLE a.b (\n    c int\n);"),
            "`CREATE TABLE a.b ( …`"
        );
        assert_eq!(first_line("-- not made\n\ndrop table x"), "`drop table x`");
    }
}
