//! Copy workers and index builders side by side: this only starts them and waits, to the end or to where
//! a run that is asked to stop can end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_postgres::Client;

use super::board::Board;
use super::builder::Builder;
use super::shared::Shared;
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::target::queue;

/// How often a worker without a session with the source looks whether it may have one.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A worker, or one that waits for leave to have a session with the source.
pub enum Hand {
    Worker(Box<Worker>),
    Resting { shared: Arc<Shared>, number: usize, target: Client },
}

impl Hand {
    async fn run(self) -> Result<()> {
        let worker = match self {
            Hand::Worker(worker) => Some(*worker),
            Hand::Resting { shared, number, target } => rest(shared, number, target).await?,
        };
        match worker {
            Some(worker) => worker.run().await,
            None => Ok(()),
        }
    }
}

/// Without a session with the source, until it may have one; None when there is no Part left.
pub(super) async fn rest(shared: Arc<Shared>, number: usize, target: Client) -> Result<Option<Worker>> {
    while !shared.throttle.admits(number) {
        if *shared.stopping.borrow() || queue::parts_left(&target, &shared.migration).await? == 0 {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Worker::connect(shared, number).await.map(Some)
}

/// Runs the workers to the end of the copy, and the builders until every table has its indexes,
/// constraints and statistics. `copied` is called once, between the two.
///
/// # Errors
/// The first failure ends all: dropping a set cuts its sessions, whose transactions roll back. Exit 130
/// where `stopping` became true, once each has finished what it had in hand.
pub async fn run<F>(
    workers: Vec<Hand>,
    builders: Vec<Builder>,
    board: &Arc<Board>,
    stopping: &watch::Receiver<bool>,
    copied: impl FnOnce() -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut building: JoinSet<Result<()>> = builders.into_iter().map(Builder::run).collect();
    let mut working: JoinSet<Result<()>> = workers.into_iter().map(Hand::run).collect();
    let mut told = stopping.clone();
    let mut stop = std::pin::pin!(async move {
        if told.wait_for(|stopping| *stopping).await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let mut abandoned = false;
    while !working.is_empty() {
        tokio::select! {
            Some(done) = working.join_next() => joined(done)?,
            Some(done) = building.join_next() => joined(done)?,
            () = &mut stop, if !abandoned => {
                board.abandon();
                abandoned = true;
            }
        }
    }
    if !abandoned && !*stopping.borrow() {
        copied().await?;
        board.close();
    }
    while !building.is_empty() {
        tokio::select! {
            Some(done) = building.join_next() => joined(done)?,
            () = &mut stop, if !abandoned => {
                board.abandon();
                abandoned = true;
            }
        }
    }
    if abandoned { Err(Error::stopped()) } else { Ok(()) }
}

fn joined(done: Result<Result<()>, JoinError>) -> Result<()> {
    done.map_err(|cause| Error::bug("a worker ended abnormally").cause(cause))?
}
