//! Makes the objects of a stage. In their order, many to a transaction; or side by side, each as soon as
//! what it needs is there. What was refused because something was missing is tried again once others
//! exist, until nothing moves; only then is it a failure, recorded at its object.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_postgres::Client;

use super::objects::{Outcome, attempt, settle};
use super::queue::{self, Step};
use crate::config::Secret;
use crate::crash;
use crate::error::{Context, Result};
use crate::model::TableName;

/// How many steps share a transaction: bounds the locks it holds.
const TOGETHER: usize = 100;
/// How often a step that lost a deadlock is tried again.
const DEADLOCKS: usize = 20;

/// How the steps of a stage are made.
#[derive(Default)]
pub struct Manner {
    /// Whether a failure that is not blocking stops the run too.
    pub fail_fast: bool,
    /// Statements with their passwords, by the stored ones.
    pub secrets: HashMap<String, Secret>,
}

impl Manner {
    fn blocking(&self, step: &Step) -> bool {
        step.blocking || self.fail_fast
    }
    fn statement<'a>(&'a self, step: &'a Step) -> &'a str {
        match self.secrets.get(&step.statement) {
            Some(statement) => statement.reveal(),
            // The source has no such password any more.
            None if step.kind.ends_with("PASSWORD") => "",
            None => &step.statement,
        }
    }
}

/// Runs steps in their order. `each` hears of every outcome.
pub async fn in_order(
    client: &Client,
    steps: Vec<Step>,
    manner: &Manner,
    each: &mut dyn FnMut(&Step, Outcome),
) -> Result<()> {
    let mut pending = steps;
    loop {
        let mut waiting: Vec<(Step, tokio_postgres::Error)> = Vec::new();
        let mut moved = false;
        for together in pending.chunks(TOGETHER) {
            if run_together(client, together, manner).await? {
                moved = true;
                together.iter().for_each(|step| each(step, Outcome::Done));
                continue;
            }
            for step in together {
                client.batch_execute("begin").await.on_target(|| "begin a step".into())?;
                match attempt(client, step, manner.statement(step)).await? {
                    None => {
                        moved = true;
                        each(step, Outcome::Done);
                    }
                    Some(refused) if may_come(step, &refused) => waiting.push((step.clone(), refused)),
                    Some(refused) => each(step, settle(client, step, refused, manner.blocking(step)).await?),
                }
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if !moved {
            return give_up(client, waiting, manner, each).await;
        }
        pending = waiting.into_iter().map(|(step, _)| step).collect();
    }
}

/// Records what stays refused: those that stop nothing first, so that all of them are known.
async fn give_up(
    client: &Client,
    mut refused: Vec<(Step, tokio_postgres::Error)>,
    manner: &Manner,
    each: &mut dyn FnMut(&Step, Outcome),
) -> Result<()> {
    refused.sort_by_key(|(step, _)| manner.blocking(step));
    for (step, err) in refused {
        each(&step, settle(client, &step, err, manner.blocking(&step)).await?);
    }
    Ok(())
}

/// Whether a step may succeed once other objects are made or gone: something is undefined, or not in the
/// state that it needs; something still depends on what is dropped.
fn may_come(step: &Step, refused: &tokio_postgres::Error) -> bool {
    let code = refused.code().map(|code| code.code()).unwrap_or_default();
    match step.kind.as_str() {
        "DROP" => matches!(code, "2BP01" | "42P16"),
        _ => matches!(code, "42P01" | "42703" | "42704" | "42883" | "3F000" | "42P17" | "55000" | "42809" | "42830"),
    }
}

/// True if all went well; false, with nothing changed, if one failed.
async fn run_together(client: &Client, steps: &[Step], manner: &Manner) -> Result<bool> {
    if steps.len() == 1 || steps.iter().any(Step::has_settings) {
        return Ok(false);
    }
    client.batch_execute("begin").await.on_target(|| "begin steps".into())?;
    for step in steps {
        if let Err(err) = client.batch_execute(manner.statement(step)).await {
            if err.as_db_error().is_none() {
                return Err(err).on_target(|| format!("make {} {}", step.kind, step.name));
            }
            client.batch_execute("rollback").await.on_target(|| "roll back steps".into())?;
            return Ok(false);
        }
        queue::finish_step(client, step).await?;
    }
    crash::before(crash::STEP);
    client.batch_execute("commit").await.on_target(|| "commit steps".into())?;
    crash::after(crash::STEP);
    Ok(true)
}

/// Runs steps side by side, one a session, each when those it needs are through. `needs` goes by name.
pub async fn beside(
    clients: Vec<Client>,
    steps: Vec<Step>,
    needs: &HashMap<String, HashSet<String>>,
    manner: &Manner,
    each: &mut dyn FnMut(&Step, Outcome),
) -> Result<()> {
    let mut open: HashSet<String> = steps.iter().map(|step| step.name.clone()).collect();
    let mut pending: VecDeque<(Step, usize)> = steps.into_iter().map(|step| (step, 0)).collect();
    let mut waiting: Vec<(Step, tokio_postgres::Error)> = Vec::new();
    let mut idle = clients;
    let mut running = FuturesUnordered::new();
    loop {
        let ready = |(step, _): &(Step, usize)| needs.get(&step.name).is_none_or(|on| on.is_disjoint(&open));
        while let Some(at) = pending.iter().position(ready) {
            let Some(client) = idle.pop() else { break };
            let (step, deadlocks) = pending.remove(at).expect("the position was found just now");
            running.push(async move {
                let made = alone(&client, &step, manner).await;
                (client, step, deadlocks, made)
            });
        }
        let Some((client, step, deadlocks, made)) = running.next().await else {
            if pending.is_empty() {
                break;
            }
            // Needed in a ring, or by what is refused: in their order then.
            open.clear();
            continue;
        };
        match made? {
            None => {
                open.remove(&step.name);
                each(&step, Outcome::Done);
                pending.extend(waiting.drain(..).map(|(step, _)| (step, 0)));
            }
            Some(refused) if refused.code().is_some_and(|code| code.code() == "40P01") && deadlocks < DEADLOCKS => {
                pending.push_back((step, deadlocks + 1));
            }
            Some(refused) if may_come(&step, &refused) => {
                waiting.push((step, refused));
            }
            Some(refused) => {
                open.remove(&step.name);
                each(&step, settle(&client, &step, refused, manner.blocking(&step)).await?);
            }
        }
        idle.push(client);
    }
    drop(running);
    match idle.first() {
        Some(client) => give_up(client, waiting, manner, each).await,
        None => Ok(()),
    }
}

/// A step in a transaction of its own. ANALYZE of many partitions goes without, and keeps no locks.
async fn alone(client: &Client, step: &Step, manner: &Manner) -> Result<Option<tokio_postgres::Error>> {
    if step.kind == "ANALYZE" {
        if let Err(err) = client.batch_execute(&step.statement).await {
            let answered = err.as_db_error().is_some();
            return if answered { Ok(Some(err)) } else { Err(err).on_target(|| format!("analyze {}", step.name)) };
        }
        client.batch_execute("begin").await.on_target(|| "begin a step".into())?;
        return attempt(client, step, "").await;
    }
    client.batch_execute("begin").await.on_target(|| "begin a step".into())?;
    attempt(client, step, manner.statement(step)).await
}

/// Which materialized views each of them reads, through views and functions too.
pub async fn view_needs(client: &Client) -> Result<HashMap<String, HashSet<String>>> {
    let rows = client
        .query(include_str!("../../../sql/target/view_needs.sql"), &[])
        .await
        .on_target(|| "read what materialized views need".into())?;
    let mut needs: HashMap<String, HashSet<String>> = HashMap::new();
    for row in &rows {
        let name = |at: usize| TableName::new(row.get::<_, String>(at), row.get::<_, String>(at + 1)).to_string();
        needs.entry(name(0)).or_default().insert(name(2));
    }
    Ok(needs)
}

/// Has the steps of tables, which others run, stop the run as those of the stages do, or not.
pub async fn hold_table_steps(client: &Client, migration: &str, fail_fast: bool) -> Result<()> {
    client
        .execute(
            "update pgmig.step set blocking = $2 where migration = $1 and stage = 'analyze' and state = 'pending' and blocking <> $2",
            &[&migration, &fail_fast],
        )
        .await
        .on_target(|| "say which failures stop the run".into())?;
    Ok(())
}

/// A step that failed, for the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub kind: String,
    pub name: String,
    pub sqlstate: String,
    pub message: String,
    pub statement: String,
}

/// What could not be made.
pub async fn failed(client: &Client, migration: &str) -> Result<Vec<Failed>> {
    let rows = client
        .query(
            "select kind, name, coalesce(sqlstate, ''), coalesce(message, ''), statement from pgmig.step
              where migration = $1 and state = 'failed' order by step_id",
            &[&migration],
        )
        .await
        .on_target(|| "list what could not be made".into())?;
    let failed = |row: &tokio_postgres::Row| Failed {
        kind: row.get(0),
        name: row.get(1),
        sqlstate: row.get(2),
        message: row.get(3),
        statement: super::objects::first_line(row.get(4)),
    };
    Ok(rows.iter().map(failed).collect())
}
