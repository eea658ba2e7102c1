//! What people ask of a run while it runs: to end, by a signal or by the switch in the sentinel, and to go
//! easy on the source. Listens beside the work, on a session of its own, and never does any of it.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::{Config, Run};
use crate::connect::{self, Side};
use crate::copy::throttle::Throttle;
use crate::error::{Error, Result};
use crate::report::Reporter;
use crate::target::limits;
use crate::target::sentinel::{self, Stop};

/// How often the sentinel is asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long what is in hand may take when a run is asked to end; with the little that follows, ten seconds.
const GRACE: Duration = Duration::from_secs(7);
/// How long the target may take to hear that the run has ended.
const TELL_WITHIN: Duration = Duration::from_secs(2);

/// What the work sees of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    stop: watch::Sender<bool>,
    /// True once the run is to end at the next border of a Part or Batch.
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) throttle: Throttle,
    /// Set once the sentinel is this run's: before that, what it asks was asked of an earlier one.
    mine: watch::Sender<bool>,
}

/// The other end.
pub(super) struct Listener {
    stop: watch::Sender<bool>,
    throttle: Throttle,
    mine: watch::Receiver<bool>,
    config: Config,
    report: Reporter,
}

pub(super) fn control(config: &Config, report: &Reporter) -> (Control, Listener) {
    let control = Control::alone();
    let listener = Listener {
        stop: control.stop.clone(),
        throttle: control.throttle.clone(),
        mine: control.mine.subscribe(),
        config: config.clone(),
        report: report.clone(),
    };
    (control, listener)
}

impl Control {
    /// Without a listener: nothing is asked of the work, and whoever started it ends it.
    pub fn alone() -> Control {
        let (stop, stopping) = watch::channel(false);
        Control { stop, stopping, throttle: Throttle::default(), mine: watch::Sender::new(false) }
    }

    /// The sentinel is this run's: it is listened to from now on.
    pub(super) fn listen(&self) {
        self.mine.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Does work that has no border of its own, or is cut off where the run is to end.
    pub(super) async fn unless_stopping<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            done = work => done,
            Ok(_) = stopping.wait_for(|stopping| *stopping) => Err(Error::stopped()),
        }
    }
}

impl Listener {
    /// Returns when the run has to end at once: after what is in hand had its time, or when it was asked
    /// to twice.
    pub async fn ended(mut self) -> Error {
        let (Ok(interrupt), Ok(terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            // Without handlers the signals do what they always do.
            return std::future::pending().await;
        };
        let mut signals = (interrupt, terminate);
        let mut client = None;
        let asked = self.asked(&mut signals, &mut client, None).await;
        self.cutover_over().await;
        if asked == Stop::Now {
            return Error::stopped();
        }
        self.stop.send_replace(true);
        self.report.info(format!(
            "stopping: what is in hand is finished first, for at most {} s; once more stops at once",
            GRACE.as_secs()
        ));
        let deadline = Instant::now() + GRACE;
        let _ = tokio::time::timeout_at(deadline, self.asked(&mut signals, &mut client, Some(Stop::Border))).await;
        self.cutover_over().await;
        Error::stopped()
    }

    /// Waits for a cutover of this run, which a signal undoes: until then the source takes no writes.
    async fn cutover_over(&self) {
        let _ = self.config.cutting.subscribe().wait_for(|cutting| !cutting).await;
    }

    /// Waits for a signal, or for the switch to ask for more than it has already.
    async fn asked(&mut self, signals: &mut (Signal, Signal), client: &mut Option<Client>, had: Option<Stop>) -> Stop {
        loop {
            tokio::select! {
                _ = signals.0.recv() => return Stop::Border,
                _ = signals.1.recv() => return Stop::Border,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match self.look(client).await {
                Ok(Some(stop)) if Some(stop) != had => return stop,
                Ok(_) => {}
                // The work meets the same, and it is the work's to tell.
                Err(err) => {
                    tracing::debug!(error = %err.chain(), "the switches cannot be read");
                    *client = None;
                }
            }
        }
    }

    async fn look(&mut self, client: &mut Option<Client>) -> Result<Option<Stop>> {
        if !*self.mine.borrow() {
            return Ok(None);
        }
        let session = match client.take() {
            Some(session) => session,
            None => connect::client(&self.config.target, Side::Target, "pgmig control", &[]).await?,
        };
        let asked = limits::asked(&session, &self.config.name).await?;
        *client = Some(session);
        self.throttle.limit(&asked);
        Ok(asked.stop)
    }
}

impl Run {
    pub(super) async fn unless_stopping<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.control.unless_stopping(work).await
    }
}

/// What a run that was stopped leaves behind, and how it goes on.
pub(super) fn again(config: &Config) -> String {
    let follow = if config.follow {
        format!("; until then the source keeps its WAL for slot `{}`", config.slot_name)
    } else {
        String::new()
    };
    format!(
        "what is committed stays{follow}\nnext: run the same command again, which goes on from there: pgmig run --name {} …",
        config.name
    )
}

/// Leaves word on the target that the run was stopped, and ends what it was still doing there: a server
/// that builds an index does not notice that nobody waits for it. Best effort.
pub(super) async fn tell_stopped(config: &Config) {
    let tell = async {
        let client = connect::client(&config.target, Side::Target, "pgmig control", &[]).await?;
        sentinel::stopped(&client, &config.name).await
    };
    match tokio::time::timeout(TELL_WITHIN, tell).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => tracing::debug!(error = %err.chain(), "the target was not told"),
        Err(_) => tracing::debug!("the target did not answer in time to be told"),
    }
}
