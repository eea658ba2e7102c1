//! Holds the copy back: one rate for all workers, turned by whoever watches the source and its WAL and by
//! people; and how many workers may have a session with the source. Processes that copy for one migration
//! have equal shares of both.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::target::limits::{Asked, Share, Tolerance};

/// Sessions with the source that a run has beside its copy workers: for itself, the snapshot, the
/// stream and what watches it; and one more while a probe is asked for.
pub const OTHER_SESSIONS: usize = 6;

/// Cheap to clone; all clones share one rate. Without one nothing waits.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// While the source keeps too much WAL.
    for_wal: Option<u64>,
    /// While the source is slower than is tolerated.
    for_load: Option<Share>,
    /// What people allow.
    max_rate: Option<u64>,
    max_workers: Option<usize>,
    tolerance: Tolerance,
    /// Processes that copy beside this one.
    others: u64,
    /// When what was let through so far is paid for.
    paid: Option<Instant>,
    /// Counts the rates that there were.
    rates: u64,
    /// Bytes that were let through.
    passed: u64,
}

impl State {
    fn bytes_per_second(&self) -> Option<u64> {
        let for_load = self.for_load.map(|share| share.max_rate);
        let all = [self.for_wal, for_load, self.max_rate].into_iter().flatten().min()?;
        Some((all / (self.others + 1)).max(1))
    }

    fn limit(&mut self, asked: &Asked) {
        let processes = asked.joined + 1;
        let others = OTHER_SESSIONS + usize::from(asked.tolerance.is_set());
        self.max_workers = asked.max_source_connections.map(|most| most.saturating_sub(others) / processes);
        (self.max_rate, self.others) = (asked.max_rate, asked.joined as u64);
        self.tolerance.clone_from(&asked.tolerance);
    }

    fn workers(&self) -> Option<usize> {
        let for_load = self.for_load.map(|share| share.workers / (self.others as usize + 1));
        [for_load, self.max_workers].into_iter().flatten().min()
    }
}

/// What timers and the target have cost may be caught up on, up to this.
const LATE: Duration = Duration::from_millis(100);
/// How long a worker waits before it asks again: the rate may have been lifted.
const NAP: Duration = Duration::from_millis(200);

impl Throttle {
    /// The rate of all that copy while the source keeps too much WAL; None lifts it.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        self.change(|state| state.for_wal = bytes_per_second);
    }

    /// The same, as it was set.
    pub fn for_wal(&self) -> Option<u64> {
        self.state().for_wal
    }

    /// What all that copy keep to while the source is slower than is tolerated; None lifts it.
    pub fn give_way(&self, share: Option<Share>) {
        self.change(|state| state.for_load = share);
    }

    /// What people allow: a rate of all that copy, sessions with the source, and how slow it may become.
    pub fn limit(&self, asked: &Asked) {
        self.change(|state| state.limit(asked));
    }

    /// That, and in a process that joined what the run holds the copy to for the source's sake: at once, so
    /// that there is no moment without either.
    pub fn heed(&self, asked: &Asked) {
        self.change(|state| {
            state.limit(asked);
            (state.for_wal, state.for_load) = (asked.wal_max_rate, asked.share);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let before = state.bytes_per_second();
        change(&mut state);
        let now = state.bytes_per_second();
        // What is owed at one rate is not owed at another.
        if now != before {
            state.paid = None;
            state.rates += 1;
        }
    }

    /// Bytes that were let through so far, of all workers of this process.
    pub fn passed(&self) -> u64 {
        self.state().passed
    }

    /// Whether a worker, counted from 0, may have a session with the source. One always may.
    pub fn admits(&self, worker: usize) -> bool {
        worker == 0 || self.state().workers().is_none_or(|most| worker < most)
    }

    /// How slow the source may become.
    pub fn tolerance(&self) -> Tolerance {
        self.state().tolerance.clone()
    }

    /// An estimate of what was let through for all that copy: they have equal shares.
    pub fn passed_of_all(&self) -> u64 {
        let state = self.state();
        state.passed * (state.others + 1)
    }

    /// Waits until these bytes may be sent: each worker for what was asked before it, at one rate.
    pub async fn wait(&self, bytes: u64) {
        let mut turn: Option<(u64, Instant)> = None;
        loop {
            let nap = {
                let mut state = self.state();
                let Some(rate) = state.bytes_per_second() else {
                    state.passed += bytes;
                    return;
                };
                let now = Instant::now();
                let at = match turn {
                    Some((rates, at)) if rates == state.rates => at,
                    _ => {
                        let at = state.paid.map_or(now, |paid| paid.max(now - LATE));
                        state.paid = Some(at + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
                        turn = Some((state.rates, at));
                        at
                    }
                };
                if at <= now {
                    state.passed += bytes;
                    return;
                }
                (at - now).min(NAP)
            };
            tokio::time::sleep(nap).await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rate_is_kept_by_all_together_and_can_be_lifted() {
        let throttle = Throttle::default();
        throttle.wait(1 << 40).await;
        throttle.set(Some(10_000));
        let start = Instant::now();
        for worker in [throttle.clone(), throttle.clone(), throttle.clone()] {
            worker.wait(1000).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
        let held = throttle.clone();
        let waiting = tokio::spawn(async move {
            held.wait(1 << 30).await;
            held.wait(1).await;
        });
        tokio::task::yield_now().await;
        throttle.set(None);
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }

    #[test]
    fn the_least_of_what_is_allowed_is_shared_by_all_that_copy() {
        let throttle = Throttle::default();
        let rate = || throttle.state().bytes_per_second();
        throttle.set(Some(900));
        assert_eq!(rate(), Some(900));
        throttle.limit(&Asked { max_rate: Some(1200), joined: 2, ..Asked::default() });
        assert_eq!((rate(), throttle.for_wal()), (Some(300), Some(900)));
        throttle.set(None);
        assert_eq!(rate(), Some(400));
        throttle.give_way(Some(Share { max_rate: 600, workers: 7 }));
        assert_eq!(rate(), Some(200));
        assert_eq!([0, 1, 2, 3].map(|worker| throttle.admits(worker)), [true, true, false, false]);
        throttle.give_way(Some(Share { max_rate: 600, workers: 1 }));
        assert_eq!([0, 1].map(|worker| throttle.admits(worker)), [true, false]);
        throttle.give_way(None);
        assert_eq!((rate(), throttle.admits(250)), (Some(400), true));
        throttle.limit(&Asked { max_rate: Some(1), joined: 2, ..Asked::default() });
        assert_eq!(rate(), Some(1));
    }

    #[test]
    fn people_allow_no_more_sessions_than_they_said_and_one_worker_goes_on() {
        let throttle = Throttle::default();
        assert!(throttle.admits(250));
        let limit = |most, joined| {
            throttle.limit(&Asked { max_source_connections: Some(most), joined, ..Asked::default() });
        };
        limit(OTHER_SESSIONS + 2, 0);
        assert_eq!([0, 1, 2, 3].map(|worker| throttle.admits(worker)), [true, true, false, false]);
        limit(1, 0);
        assert_eq!([0, 1].map(|worker| throttle.admits(worker)), [true, false]);
        limit(OTHER_SESSIONS + 7, 2);
        assert_eq!([0, 1, 2, 3].map(|worker| throttle.admits(worker)), [true, true, false, false]);
    }
}
