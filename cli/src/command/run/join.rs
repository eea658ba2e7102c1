//! `pgmig run --join`: copies Parts for a run on another machine, from the same queue and under the same
//! snapshot, and builds the indexes of tables that it finishes. It holds nothing that the run needs: when
//! it dies, what it had in hand is taken by others. When the run dies, it waits for the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::copy::{builders, shared, workers};
use super::{Config, Control};
use crate::connect::{self, Side};
use crate::copy::board::Board;
use crate::copy::failure::OtherSnapshot;
use crate::copy::pool;
use crate::copy::throttle::Throttle;
use crate::error::{Error, Result};
use crate::model::{Lsn, Phase};
use crate::patience::{Losses, Patience};
use crate::preflight;
use crate::report::Reporter;
use crate::source::{self, snapshot};
use crate::target::{install, limits, queue, sentinel};

const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What the run that is joined copies under.
struct Joined {
    follow: bool,
    exported: String,
    lsn: Lsn,
}

/// Helps until no Part is left.
pub(super) async fn join(config: Config, report: Reporter, control: Control) -> Result<()> {
    let patience = Patience::new(config.reconnect_for, report.clone());
    let mut losses = Losses::default();
    let (mut target, identity) = control.unless_stopping(open(&config)).await?;
    // The snapshot that was read under last, and so the one that may be gone.
    let mut last = None;
    loop {
        let helped = async {
            let copy = wait_for_copy(&config, &target, &identity, last.as_deref(), &report);
            let Some(joined) = control.unless_stopping(copy).await? else {
                report.info("there is nothing left to copy");
                return Ok(());
            };
            report.info(format!("copying for migration `{}`", config.name));
            last = Some(joined.exported.clone());
            help(&config, &report, &patience, &control, &target, joined).await
        };
        match helped.await {
            Err(err) if snapshot::is_gone(&err) || err.find::<OtherSnapshot>().is_some() => {
                tracing::debug!(error = %err.chain(), "the snapshot is joined no more");
            }
            Err(err) if err.connection_lost() => {
                last = None;
                let again = patience.again(losses.note((), err)?, || open(&config));
                (target, _) = control.unless_stopping(again).await?;
            }
            done => return done,
        }
    }
}

/// A session with the target that counts as one more process that copies, and what the source is.
async fn open(config: &Config) -> Result<(Client, String)> {
    let target = connect::client(&config.target, Side::Target, "pgmig join", &[]).await?;
    let source = connect::client(&config.source, Side::Source, "pgmig join", &[]).await?;
    preflight::two_databases(&source, &target).await?;
    sentinel::count_in(&target, &config.name).await?;
    Ok((target, source::checks::abilities(&source).await?.identity))
}

async fn help(
    config: &Config,
    report: &Reporter,
    patience: &Patience,
    control: &Control,
    target: &Client,
    joined: Joined,
) -> Result<()> {
    let board = Arc::new(Board::default());
    heed(target, &config.name, &control.throttle).await?;
    let exported = Some(joined.exported).filter(|exported| !exported.is_empty());
    let mut shared = shared(config, (exported, joined.lsn), &board, report, patience, control);
    shared.follow = joined.follow;
    let workers = workers(config, Arc::new(shared)).await?;
    let builders = builders(config, &board, report, patience).await?;
    let copying = pool::run(workers, builders, &board, &control.stopping, async || Ok(()));
    let heeding = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(err) = heed(target, &config.name, &control.throttle).await {
                break err;
            }
        }
    };
    tokio::select! {
        done = copying => done,
        err = heeding => Err(err),
    }
}

/// Keeps to what people allow the copy, and to what the run does for the sake of the source.
async fn heed(target: &Client, migration: &str, throttle: &Throttle) -> Result<()> {
    throttle.heed(&limits::asked(target, migration).await?);
    Ok(())
}

/// Waits until a run has published its snapshot, another one than `last`; None if the copy is over.
async fn wait_for_copy(
    config: &Config,
    target: &Client,
    identity: &str,
    last: Option<&str>,
    report: &Reporter,
) -> Result<Option<Joined>> {
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
            if let Some((exported, lsn)) = sentinel::exported(target, &config.name).await?
                && last != Some(&exported)
            {
                return Ok(Some(Joined { follow: found.follow, exported, lsn }));
            }
        }
        if !told {
            told = true;
            let name = &config.name;
            report.info(match last {
                None => format!("waiting for the run of migration `{name}` to begin its copy"),
                Some(_) => {
                    format!("the run of migration `{name}` ended, and its snapshot with it: waiting for the next one")
                }
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
