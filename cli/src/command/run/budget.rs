//! Watches the slot: how much WAL the source keeps for it, and whether it is still ours. Half of the
//! budget is a warning; at three quarters the copy is held back, so that the stream has the line to
//! itself; at the end the run stops, or the slot is dropped so that the source survives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;

use super::upstream;
use crate::config::Conninfo;
use crate::copy::throttle::Throttle;
use crate::error::{Error, Exit, Result};
use crate::patience::Patience;
use crate::report::{self, Event, Reporter, units};
use crate::source::{health, slot};

/// How often the slot is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rates of the copy at three quarters of the budget and at its end.
const RATES: (f64, f64) = (64.0 * 1024.0 * 1024.0, 1024.0 * 1024.0);
/// How long the receiver may take to let go of a slot that is dropped.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);

pub(super) const BEGIN_AGAIN: &str =
    "what changed since then cannot be had any more: begin again (pgmig cleanup --force, empty the target, pgmig run)";

/// The same while the slot is still there.
pub(super) const COPY_AGAIN: &str = "what changed since then cannot be had any more: have every table copied again \
     (pgmig table resync --all, pgmig run), or begin again (pgmig cleanup --force, empty the target, pgmig run)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Stop,
    Drop,
}

pub(super) struct Budget {
    pub source: Client,
    /// To the source.
    pub way: Conninfo,
    pub source_identity: String,
    pub patience: Patience,
    pub slot_name: String,
    pub plugin: String,
    /// Bytes of WAL that the source may keep for us; None for as much as its own limit allows.
    pub bytes: Option<u64>,
    pub policy: Policy,
    /// Whether the receiver reads nothing, since the spool is full.
    pub held: Arc<AtomicBool>,
    /// Has the receiver let go of the slot meanwhile.
    pub let_go: Arc<AtomicBool>,
    pub throttle: Throttle,
    pub report: Reporter,
    /// Ends the receiver, before the slot can be dropped.
    pub stop: watch::Sender<bool>,
}

/// How much of the budget is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Low,
    Half,
    Throttled,
    Spent,
}

impl Level {
    fn of(kept: u64, budget: u64) -> Level {
        match kept {
            kept if kept >= budget => Level::Spent,
            kept if kept >= budget / 4 * 3 => Level::Throttled,
            kept if kept >= budget / 2 => Level::Half,
            _ => Level::Low,
        }
    }
}

impl Budget {
    /// Looks until the run stops; an error when there is nothing left to follow.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let mut level = Level::Low;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            }
            let kept = match self.look().await {
                Ok(kept) => kept,
                Err(err) if err.connection_lost() => {
                    let open = || upstream::client(&self.way, &self.source_identity, "pgmig budget");
                    self.source = tokio::select! {
                        opened = self.patience.again(err, open) => opened?,
                        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
                    };
                    continue;
                }
                Err(err) => return Err(err),
            };
            let Some(kept) = kept else { continue };
            let Some(budget) = self.bytes else { continue };
            let now = Level::of(kept, budget);
            if now > level && now < Level::Spent {
                let held = if now == Level::Throttled { "; the copy is held back" } else { "" };
                self.report.warning(format!(
                    "the source keeps {} of WAL for slot `{}`, of a budget of {}{held}",
                    units::bytes(kept),
                    self.slot_name,
                    units::bytes(budget)
                ));
            }
            // A level is left only when it is well behind, so that nothing flaps.
            if now > level || Level::of(kept + budget / 16, budget) < level {
                level = now;
            }
            self.throttle.set((level >= Level::Throttled).then(|| rate(kept, budget)));
            if now == Level::Spent {
                return Err(self.spent(kept, budget).await);
            }
        }
    }

    /// Bytes of WAL that are kept; None where the source does not tell.
    async fn look(&self) -> Result<Option<u64>> {
        let name = &self.slot_name;
        let Some(found) = slot::find(&self.source, name).await? else {
            return Err(Error::new(Exit::Source, format!("slot `{name}` is gone from the source")).hint(BEGIN_AGAIN));
        };
        if found.plugin != self.plugin {
            return Err(Error::new(
                Exit::Source,
                format!("slot `{name}` is another one now, of plugin {}", found.plugin),
            )
            .hint(BEGIN_AGAIN));
        }
        self.report.send(Event::Slot(report::Slot {
            wal_status: found.wal_status.clone(),
            active: found.active_pid.is_some(),
            retained_bytes: found.kept_bytes,
            safe_bytes: found.safe_bytes,
            budget_bytes: self.bytes,
            oldest_xmin_age: health::oldest_xmin_age(&self.source).await?,
        }));
        if found.wal_status.as_deref() == Some("lost") {
            return Err(lost(name));
        }
        // The next checkpoint takes it, and waits for a walsender that cannot write to us: no checkpoint
        // of the source would end before we read or go.
        let given_up = found.wal_status.as_deref() == Some("unreserved");
        if given_up && self.held.load(Ordering::Relaxed) && !self.let_go.load(Ordering::Relaxed) {
            self.report.warning(format!(
                "the source is about to throw away WAL that slot `{name}` needs (max_slot_wal_keep_size), and the spool is \
                 full: not reading on before there is room. At once, before its next checkpoint: let apply go on if it is \
                 paused, or stop this run and give a larger --spool-limit"
            ));
        }
        self.let_go.store(given_up, Ordering::Relaxed);
        Ok(found.kept_bytes)
    }

    async fn spent(&self, kept: u64, budget: u64) -> Error {
        let name = &self.slot_name;
        let what = format!(
            "the source keeps {} of WAL for slot `{name}`, more than the budget of {}",
            units::bytes(kept),
            units::bytes(budget)
        );
        if self.policy == Policy::Stop {
            return Error::new(Exit::Source, what).hint(
                "until pgmig runs again the source keeps more and more of it: give a larger --wal-budget and run the \
                 same command, or give up and free it: pgmig cleanup --force",
            );
        }
        self.stop.send_replace(true);
        let began = std::time::Instant::now();
        loop {
            match slot::drop(&self.source, name).await {
                Ok(_) => {
                    return Error::new(Exit::Source, format!("{what}: the slot was dropped, as --wal-budget-policy says"))
                        .hint("the migration is over and its changes are lost: begin again (pgmig cleanup --force, empty the target, pgmig run)");
                }
                // In use, until the receiver has let go of it.
                Err(err) if began.elapsed() > LET_GO_WITHIN => return err,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// The source has thrown WAL away: its own limit was reached before ours.
pub(super) fn lost(name: &str) -> Error {
    Error::new(Exit::Source, format!("the source has thrown away WAL that slot `{name}` needs"))
        .hint(format!("max_slot_wal_keep_size of the source was reached; {BEGIN_AGAIN}"))
}

/// Falls with what is left of the budget.
fn rate(kept: u64, budget: u64) -> u64 {
    let used = (kept as f64 / budget.max(1) as f64 - 0.75) * 4.0;
    (RATES.0 + (RATES.1 - RATES.0) * used.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_slows_down_as_the_budget_runs_out() {
        assert_eq!(Level::of(49, 100), Level::Low);
        assert_eq!(Level::of(50, 100), Level::Half);
        assert_eq!(Level::of(75, 100), Level::Throttled);
        assert_eq!(Level::of(100, 100), Level::Spent);
        assert_eq!(rate(75, 100), 64 << 20);
        assert!(rate(80, 100) > rate(90, 100));
        assert_eq!(rate(100, 100), 1 << 20);
    }
}
