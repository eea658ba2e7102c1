//! `pgmig run --join`: copies Parts for a run on another machine, from the same queue and under the same
//! snapshot, and builds the indexes of tables that it finishes. It holds nothing that the run needs: when
//! it dies, what it had in hand is taken by others.

use std::sync::Arc;
use std::time::Duration;

use super::copy::{builders, shared};
use super::{Config, Control};
use crate::connect::{self, Side};
use crate::copy::board::Board;
use crate::copy::pool::{self, Hand};
use crate::copy::worker::Worker;
use crate::error::{Error, Exit, Result};
use crate::model::{Lsn, Phase};
use crate::patience::Patience;
use crate::preflight;
use crate::report::Reporter;
use crate::source;
use crate::source::snapshot;
use crate::target::{install, queue, sentinel};

const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Helps until no Part is left.
pub(super) async fn join(config: Config, report: Reporter) -> Result<()> {
    let target = connect::client(&config.target, Side::Target, "pgmig join", &[]).await?;
    let source = connect::client(&config.source, Side::Source, "pgmig join", &[]).await?;
    preflight::two_databases(&source, &target).await?;
    let identity = source::checks::abilities(&source).await?.identity;
    let Some((follow, (exported, lsn))) = wait_for_copy(&config, &target, &identity, &report).await? else {
        report.info("there is nothing left to copy");
        return Ok(());
    };
    report.info(format!("copying for migration `{}`", config.name));
    let board = Arc::new(Board::default());
    let patience = Patience::new(config.reconnect_for, report.clone());
    let exported = Some(exported).filter(|exported| !exported.is_empty());
    let control = Control::alone();
    let mut shared = shared(&config, (exported, lsn), &board, &report, &patience, &control);
    shared.follow = follow;
    let shared = Arc::new(shared);
    let mut workers = Vec::new();
    for number in 0..config.table_jobs {
        let worker = Worker::connect(Arc::clone(&shared), number).await.map_err(no_run)?;
        workers.push(Hand::Worker(Box::new(worker)));
    }
    let builders = builders(&config, &board, &report, &patience).await?;
    pool::run(workers, builders, &board, &control.stopping, async || Ok(())).await.map_err(no_run)
}

/// Waits until the run has published its snapshot; None if the copy is over.
async fn wait_for_copy(
    config: &Config,
    target: &tokio_postgres::Client,
    identity: &str,
    report: &Reporter,
) -> Result<Option<(bool, (String, Lsn))>> {
    let mut told = false;
    loop {
        let found = match install::installed(target).await? {
            Some(_) => sentinel::load(target, &config.name).await?,
            None => None,
        };
        if let Some(found) = found {
            if found.source_identity != identity {
                return Err(Error::usage(format!("migration `{}` on the target is of another source", config.name))
                    .hint("give the source that the run was given"));
            }
            let left = queue::parts_left(target, &config.name).await?;
            if found.phase > Phase::Copy || (found.phase == Phase::Copy && left == 0) {
                return Ok(None);
            }
            if let Some(exported) = sentinel::exported(target, &config.name).await? {
                return Ok(Some((found.follow, exported)));
            }
        }
        if !told {
            told = true;
            report.info(format!("waiting for the run of migration `{}` to begin its copy", config.name));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The snapshot is gone with the run that held it.
fn no_run(err: Error) -> Error {
    match err.exit() {
        Exit::Phase => err.hint("join that run: the same command again"),
        _ if snapshot::is_gone(&err) => Error::new(Exit::Phase, "the run that was joined holds its snapshot no more")
            .cause(err)
            .hint("start it again (pgmig run), then join it with the same command"),
        _ => err,
    }
}
