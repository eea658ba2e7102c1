//! Copy workers and index builders side by side. The queue on the target tells each what to do; this
//! only starts them and waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::worker::Worker;
use crate::error::{Context, Error, Result};
use crate::report::{Event, Reporter};
use crate::target::objects::{self, Outcome};
use crate::target::queue;

/// How long an index builder with nothing to do waits before it looks again.
const IDLE: Duration = Duration::from_millis(100);
/// How often a step that lost a deadlock is tried again.
const DEADLOCKS: usize = 5;

/// Runs the workers to the end of the copy, and the builders until every table has its indexes,
/// constraints and statistics. `copied` is called once, between the two.
pub async fn run<F>(
    workers: Vec<Worker>,
    builders: Vec<Client>,
    migration: &str,
    report: &Reporter,
    copied: impl FnOnce() -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let copying = Arc::new(AtomicBool::new(true));
    let mut building = JoinSet::new();
    for client in builders {
        building.spawn(build(client, migration.to_string(), report.clone(), Arc::clone(&copying)));
    }
    let mut working: JoinSet<Result<()>> = workers.into_iter().map(Worker::run).collect();
    // The first failure ends both: dropping a set cuts its sessions, whose transactions roll back.
    while !working.is_empty() {
        tokio::select! {
            Some(done) = working.join_next() => joined(done)?,
            Some(done) = building.join_next() => joined(done)?,
        }
    }
    copied().await?;
    copying.store(false, Ordering::Release);
    while let Some(done) = building.join_next().await {
        joined(done)?;
    }
    Ok(())
}

fn joined(done: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    done.map_err(|cause| Error::bug("a worker ended abnormally").cause(cause))?
}

/// Takes the steps of copied tables until there are none and none will come.
async fn build(client: Client, migration: String, report: Reporter, copying: Arc<AtomicBool>) -> Result<()> {
    let mut deadlocks = 0;
    loop {
        // Read before the queue: what is copied after this look gives its steps to the next one.
        let more_to_come = copying.load(Ordering::Acquire);
        client.batch_execute("begin").await.on_target(|| "begin a step".into())?;
        let Some(step) = queue::take_table_step(&client, &migration).await? else {
            client.batch_execute("rollback").await.on_target(|| "end a look at the queue".into())?;
            // A step may also wait for one that another builder has in hand.
            if !more_to_come && queue::table_steps_left(&client, &migration).await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(IDLE).await;
            continue;
        };
        report.send(Event::StepStarted { kind: step.kind.clone(), name: step.name.clone() });
        match objects::run_taken(&client, &step).await {
            Ok(Outcome::Done) => report.send(Event::StepDone { kind: step.kind, name: step.name }),
            Ok(Outcome::Failed { sqlstate, message }) => {
                report.send(Event::StepFailed { kind: step.kind, name: step.name, sqlstate, message });
            }
            Err(err) if err.sqlstate() == Some("40P01") && deadlocks < DEADLOCKS => {
                deadlocks += 1;
                tracing::debug!(step = %step.name, "step lost a deadlock and is tried again");
            }
            Err(err) => return Err(err),
        }
    }
}
