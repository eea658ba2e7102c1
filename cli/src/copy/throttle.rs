//! Holds the copy back: one rate for all workers, turned by whoever watches the source's WAL.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Cheap to clone; all clones share one rate. Without one nothing waits.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes_per_second: Option<u64>,
    /// When what was let through so far is paid for.
    paid: Option<Instant>,
}

/// How long a worker waits before it asks again: the rate may have been lifted.
const NAP: Duration = Duration::from_millis(200);

impl Throttle {
    /// The rate of all workers together; None lets everything through.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        let mut state = self.state();
        state.bytes_per_second = bytes_per_second;
        if bytes_per_second.is_none() {
            state.paid = None;
        }
    }

    /// Waits until these bytes may be sent.
    pub async fn wait(&self, bytes: u64) {
        let mut asked = false;
        loop {
            let nap = {
                let mut state = self.state();
                let Some(rate) = state.bytes_per_second else { return };
                let now = Instant::now();
                let paid = state.paid.filter(|paid| *paid > now).unwrap_or(now);
                if !asked {
                    asked = true;
                    state.paid = Some(paid + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
                }
                if paid <= now {
                    return;
                }
                (paid - now).min(NAP)
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
}
