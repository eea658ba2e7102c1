//! Makes objects on the target from their steps. The statement and its mark are one transaction.

use tokio_postgres::Client;

use super::queue::{self, Step};
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::literal;
use crate::model::{TableName, name};

/// How many steps of a serial stage share a transaction: bounds the locks it holds.
const TOGETHER: usize = 100;

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
    client
        .batch_execute(&format!("set local application_name = {}", literal(&format!("pgmig step {}", step.id))))
        .await
        .on_target(|| "name the session".into())?;
    let made = client.batch_execute(&step.statement).await;
    finish(client, step, made).await
}

async fn finish(client: &Client, step: &Step, made: Result<(), tokio_postgres::Error>) -> Result<Outcome> {
    match made {
        Ok(()) => {
            queue::finish_step(client, step).await?;
            client.batch_execute("commit").await.on_target(|| format!("commit {} {}", step.kind, step.name))?;
            Ok(Outcome::Done)
        }
        Err(err) => {
            let Some(db) = err.as_db_error() else {
                return Err(err).on_target(|| format!("make {} {}", step.kind, step.name));
            };
            let (sqlstate, message) = (db.code().code().to_string(), db.message().to_string());
            client.batch_execute("rollback").await.on_target(|| "roll back a failed step".into())?;
            queue::fail_step(client, step, &sqlstate, &message).await?;
            if step.blocking {
                let mut error =
                    Error::new(Exit::Target, format!("cannot make {} {}", step.kind.to_lowercase(), step.name));
                if sqlstate == "42704" && message.starts_with("role") {
                    error = error.hint("create the role on the target, or run with --no-owner --no-acl");
                }
                return Err(error.cause(err));
            }
            Ok(Outcome::Failed { sqlstate, message })
        }
    }
}

/// Runs the pending steps of a serial stage in their order, many to a transaction; a failure is
/// found again step by step, so that it is recorded at its object. `each` hears of every outcome.
pub async fn run_stage(
    client: &Client,
    migration: &str,
    stage: &str,
    each: &mut dyn FnMut(&Step, Outcome),
) -> Result<()> {
    let steps = queue::pending_steps(client, migration, stage).await?;
    for together in steps.chunks(TOGETHER) {
        if run_together(client, together).await? {
            together.iter().for_each(|step| each(step, Outcome::Done));
            continue;
        }
        for step in together {
            client.batch_execute("begin").await.on_target(|| "begin a step".into())?;
            let outcome = run_taken(client, step).await?;
            each(step, outcome);
        }
    }
    Ok(())
}

/// True if all went well; false, with nothing changed, if one failed.
async fn run_together(client: &Client, steps: &[Step]) -> Result<bool> {
    client.batch_execute("begin").await.on_target(|| "begin steps".into())?;
    for step in steps {
        if let Err(err) = client.batch_execute(&step.statement).await {
            if err.as_db_error().is_none() {
                return Err(err).on_target(|| format!("make {} {}", step.kind, step.name));
            }
            client.batch_execute("rollback").await.on_target(|| "roll back steps".into())?;
            return Ok(false);
        }
        queue::finish_step(client, step).await?;
    }
    client.batch_execute("commit").await.on_target(|| "commit steps".into())?;
    Ok(true)
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
