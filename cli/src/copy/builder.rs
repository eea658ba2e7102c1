//! An index builder: makes the indexes, constraints and statistics of tables that are copied. Small
//! tables are done many to a transaction, the indexes of a large one side by side.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::board::{Board, Rest, Work};
use super::worker::SMALL;
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Error, Result};
use crate::model::TableName;
use crate::patience::{Losses, Patience};
use crate::report::{Event, Reporter};
use crate::target::objects::{self, Outcome};
use crate::target::queue::{self, Step};

/// How many small tables share a transaction: bounds its locks.
const TOGETHER: usize = 16;
/// How often a step whose failure may pass is tried again.
const TRIES: usize = 5;
const WAIT: Duration = Duration::from_secs(1);

/// What all builders of a run share.
pub struct Shared {
    pub target: Conninfo,
    pub migration: String,
    /// Bytes for each index build.
    pub maintenance_work_mem: u64,
    pub board: Arc<Board>,
    pub report: Reporter,
    pub patience: Patience,
}

pub struct Builder {
    shared: Arc<Shared>,
    client: Client,
    /// The target's backend.
    pid: i32,
}

async fn session(shared: &Shared) -> Result<(Client, i32)> {
    // A crash of the target takes an object and its mark together, flushed or not.
    let client = connect::client(&shared.target, Side::Target, "pgmig index", &[("synchronous_commit", "off")]).await?;
    objects::more_maintenance_work_mem(&client, shared.maintenance_work_mem).await?;
    let pid = queue::session_pid(&client).await?;
    Ok((client, pid))
}

impl Builder {
    /// # Errors
    /// The target cannot be reached.
    pub async fn connect(shared: Arc<Shared>) -> Result<Builder> {
        let (client, pid) = session(&shared).await?;
        Ok(Builder { shared, client, pid })
    }

    /// Builds until the board is closed and empty.
    ///
    /// # Errors
    /// A step without which the migration cannot go on.
    pub async fn run(mut self) -> Result<()> {
        while let Some(work) = self.shared.board.take(SMALL, TOGETHER).await {
            let mut losses = Losses::default();
            // What was made is marked, and made once.
            while let Err(err) = self.build(&work).await {
                if !err.connection_lost() {
                    return Err(err);
                }
                self.connect_again(losses.note((), err)?).await?;
            }
            self.shared.board.done();
        }
        Ok(())
    }

    async fn connect_again(&mut self, lost: Error) -> Result<()> {
        let open = async || {
            let (client, pid) = session(&self.shared).await?;
            queue::end_session(&client, self.pid).await?;
            Ok((client, pid))
        };
        (self.client, self.pid) = self.shared.patience.again(lost, open).await?;
        Ok(())
    }

    async fn build(&self, work: &[Work]) -> Result<()> {
        let mut tables: Vec<TableName> = Vec::new();
        let mut bytes_max = 0;
        for work in work {
            match work {
                Work::Index { step, rest } => {
                    self.step(step).await?;
                    self.shared.board.add(rest.index_done());
                }
                Work::Rest { steps, .. } => self.in_order(steps).await?,
                Work::Table { table: Some(table), bytes } => {
                    tables.push(table.clone());
                    bytes_max = bytes_max.max(*bytes);
                }
                Work::Table { table: None, .. } => {
                    self.in_order(&queue::loose_steps(&self.client, &self.shared.migration).await?).await?;
                }
            }
        }
        if tables.is_empty() {
            return Ok(());
        }
        let steps = queue::table_steps(&self.client, &self.shared.migration, &tables).await?;
        if bytes_max <= SMALL {
            return if self.together(&steps).await? { Ok(()) } else { self.in_order(&steps).await };
        }
        let (indexes, rest): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(|step| step.stage == "index");
        if indexes.is_empty() {
            return self.in_order(&rest).await;
        }
        let rest = Rest::new(rest, indexes.len(), bytes_max);
        self.shared.board.add(indexes.into_iter().map(|step| Work::Index { step, rest: Arc::clone(&rest) }));
        Ok(())
    }

    /// All of them in one transaction and one message; false, with nothing changed, if one failed.
    async fn together(&self, steps: &[Step]) -> Result<bool> {
        if steps.is_empty() {
            return Ok(true);
        }
        if steps.iter().any(Step::has_settings) {
            return Ok(false);
        }
        self.client.batch_execute("begin").await.on_target(|| "begin steps".into())?;
        let mut made = queue::take_steps(&self.client, steps).await?;
        if made {
            for step in steps {
                self.shared.report.send(Event::StepStarted { kind: step.kind.clone(), name: step.name.clone() });
            }
            let mut sql: Vec<&str> = steps.iter().map(|step| step.statement.trim_end().trim_end_matches(';')).collect();
            let finish = queue::finish_steps_sql(steps);
            sql.extend([finish.as_str(), "commit"]);
            match self.client.batch_execute(&sql.join(";\n")).await {
                Ok(()) => {}
                Err(err) if err.as_db_error().is_some() => made = false,
                Err(err) => return Err(err).on_target(|| "make indexes of small tables".into()),
            }
        }
        if !made {
            self.client.batch_execute("rollback").await.on_target(|| "roll back steps".into())?;
            return Ok(false);
        }
        for step in steps {
            self.shared.report.send(Event::StepDone { kind: step.kind.clone(), name: step.name.clone() });
        }
        Ok(true)
    }

    async fn in_order(&self, steps: &[Step]) -> Result<()> {
        for step in steps {
            self.step(step).await?;
        }
        Ok(())
    }

    /// One step in a transaction of its own. What may pass is tried again; a step that is not blocking
    /// and still fails is left behind and told at the end.
    async fn step(&self, step: &Step) -> Result<()> {
        for tried in 1.. {
            self.client.batch_execute("begin").await.on_target(|| "begin a step".into())?;
            if !queue::take_step(&self.client, step).await? {
                return self.client.batch_execute("rollback").await.on_target(|| "end a look at a step".into());
            }
            self.shared.report.send(Event::StepStarted { kind: step.kind.clone(), name: step.name.clone() });
            let (kind, name) = (step.kind.clone(), step.name.clone());
            match objects::run_taken(&self.client, step).await {
                Ok(Outcome::Done) => {
                    self.shared.report.send(Event::StepDone { kind, name });
                    return Ok(());
                }
                Ok(Outcome::Failed { sqlstate, .. }) if queue::passes(&sqlstate) && tried < TRIES => {}
                Ok(Outcome::Failed { sqlstate, message }) => {
                    queue::give_up_step(&self.client, step).await?;
                    self.shared.report.send(Event::StepFailed { kind, name, sqlstate, message });
                    return Ok(());
                }
                Err(err) if err.passing() && !err.connection_lost() && tried < TRIES => {
                    tracing::debug!(step = %step.name, error = %err.chain(), "step is tried again");
                }
                Err(err) => return Err(err),
            }
            self.shared.patience.tried_again();
            tokio::time::sleep(WAIT).await;
        }
        Ok(())
    }
}
