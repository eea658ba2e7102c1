//! Copy workers and index builders side by side: this only starts them and waits.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::board::Board;
use super::builder::Builder;
use super::worker::Worker;
use crate::error::{Error, Result};

/// Runs the workers to the end of the copy, and the builders until every table has its indexes,
/// constraints and statistics. `copied` is called once, between the two.
///
/// # Errors
/// The first failure ends all: dropping a set cuts its sessions, whose transactions roll back.
pub async fn run<F>(
    workers: Vec<Worker>,
    builders: Vec<Builder>,
    board: &Arc<Board>,
    copied: impl FnOnce() -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut building: JoinSet<Result<()>> = builders.into_iter().map(Builder::run).collect();
    let mut working: JoinSet<Result<()>> = workers.into_iter().map(Worker::run).collect();
    while !working.is_empty() {
        tokio::select! {
            Some(done) = working.join_next() => joined(done)?,
            Some(done) = building.join_next() => joined(done)?,
        }
    }
    copied().await?;
    board.close();
    while let Some(done) = building.join_next().await {
        joined(done)?;
    }
    Ok(())
}

fn joined(done: Result<Result<()>, JoinError>) -> Result<()> {
    done.map_err(|cause| Error::bug("a worker ended abnormally").cause(cause))?
}
