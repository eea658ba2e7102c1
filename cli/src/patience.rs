//! A lost connection is not the end of a run: the session is opened again, with growing waits, for as long
//! as `--reconnect-for` allows. One warning says that a server is lost, one line that it is back, however
//! many sessions there were. What a session had done when it broke is for its owner to find out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::report::{Event, Reporter};

/// The first wait between two tries, which doubles up to the last.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Sessions that were lost together are not all noticed at once.
const ONE_LOSS: Duration = Duration::from_secs(10);
/// So many losses in a row between which nothing moved: what we do may be what ends the sessions.
const IN_VAIN: u32 = 10;

/// Shared by all sessions of a run.
#[derive(Clone)]
pub struct Patience(Arc<Shared>);

struct Shared {
    limit: Duration,
    report: Reporter,
    source: Mutex<Outage>,
    target: Mutex<Outage>,
    retries: AtomicU64,
}

#[derive(Default)]
struct Outage {
    lost_at: Option<Instant>,
    back_at: Option<Instant>,
}

impl Patience {
    pub fn new(limit: Duration, report: Reporter) -> Patience {
        let (source, target) = (Mutex::default(), Mutex::default());
        Patience(Arc::new(Shared { limit, report, source, target, retries: AtomicU64::new(0) }))
    }

    /// Counts that something is tried again.
    pub fn tried_again(&self) {
        let retries = self.0.retries.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.report.send(Event::Retried { retries });
    }

    /// How often something was tried again.
    pub fn retries(&self) -> u64 {
        self.0.retries.load(Ordering::Relaxed)
    }

    /// Opens again what was `lost`, until the server answers or the time is over.
    ///
    /// # Errors
    /// What does not pass by itself; `lost` if nothing is to be tried; or that the time is over.
    pub async fn again<T, F>(&self, lost: Error, mut open: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        if self.0.limit.is_zero() {
            return Err(lost.for_good());
        }
        let side = if lost.exit() == Exit::Source { Side::Source } else { Side::Target };
        self.lost(side, &lost);
        self.tried_again();
        let began = Instant::now();
        let mut wait = WAITS.0;
        loop {
            let err = match open().await {
                Ok(opened) => {
                    self.back(side);
                    return Ok(opened);
                }
                Err(err) if err.passing() || connect::unreachable(&err) => err,
                Err(err) => return Err(err),
            };
            if began.elapsed() + wait > self.0.limit {
                let seconds = self.0.limit.as_secs();
                let gone = Error::new(err.exit(), format!("the {side} did not come back within {seconds} s"));
                return Err(gone.cause(err).for_good().hint(
                    "nothing is lost: run the same command again when it can be reached; --reconnect-for sets the time",
                ));
            }
            tracing::debug!(error = %err.chain(), "not back yet");
            // Many sessions that were lost together do not come back in step.
            tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(WAITS.1);
        }
    }

    fn outage(&self, side: Side) -> std::sync::MutexGuard<'_, Outage> {
        let of = if side == Side::Source { &self.0.source } else { &self.0.target };
        of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, side: Side, why: &Error) {
        let mut outage = self.outage(side);
        if outage.lost_at.is_some() {
            return;
        }
        outage.lost_at = Some(Instant::now());
        if outage.back_at.is_some_and(|at| at.elapsed() < ONE_LOSS) {
            tracing::debug!(error = %why.chain(), %side, "another session was lost");
            return;
        }
        let seconds = self.0.limit.as_secs();
        self.0
            .report
            .warning(format!("lost the connection to the {side}, and trying for {seconds} s: {}", why.chain()));
    }

    fn back(&self, side: Side) {
        let mut outage = self.outage(side);
        let Some(lost_at) = outage.lost_at.take() else { return };
        if outage.back_at.is_none_or(|at| lost_at.duration_since(at) >= ONE_LOSS) {
            let seconds = lost_at.elapsed().as_secs_f64();
            self.0.report.info(format!("the {side} is back after {seconds:.1} s"));
        }
        outage.back_at = Some(Instant::now());
    }
}

/// Counts losses between which nothing moved.
#[derive(Debug, Default)]
pub struct Losses<At> {
    at: At,
    count: u32,
}

impl<At: PartialEq> Losses<At> {
    /// Notes a loss `at` some stage of the work, and gives it back.
    ///
    /// # Errors
    /// The loss, if it happens again and again at the same stage.
    pub fn note(&mut self, at: At, lost: Error) -> Result<Error> {
        self.count = if self.at == at { self.count + 1 } else { 1 };
        self.at = at;
        if self.count > IN_VAIN {
            let side = lost.exit();
            return Err(Error::new(
                side,
                format!("the connection was lost {IN_VAIN} times in a row at the same place"),
            )
            .cause(lost)
            .for_good()
            .hint("does the server's log say what ends the sessions? Nothing is lost: run the same command again"));
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Network;
    use crate::report::{self, Style};

    fn lost() -> Error {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        Error::new(Exit::Target, "read").cause(Network(reset))
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_nothing_else() {
        let (report, _) = report::start(Style::Quiet, Vec::new());
        let patience = Patience::new(Duration::from_secs(5), report.clone());
        let mut tries = 0;
        let opened = patience.again(lost(), || {
            tries += 1;
            std::future::ready(if tries < 3 { Err(lost()) } else { Ok(tries) })
        });
        assert_eq!(opened.await.unwrap(), 3);
        let refused = || std::future::ready(Err::<(), _>(Error::new(Exit::Target, "no such database")));
        assert_eq!(patience.again(lost(), refused).await.unwrap_err().to_string(), "no such database");
        let impatient = Patience::new(Duration::from_millis(10), report);
        let over = impatient.again(lost(), || std::future::ready(Err::<(), _>(lost()))).await.unwrap_err();
        assert!(over.to_string().contains("did not come back"), "{over:?}");
        assert!(!over.connection_lost() && !over.passing());
    }

    #[test]
    fn losses_without_progress_end_and_progress_begins_the_count_anew() {
        let mut losses = Losses::default();
        for at in [1, 2] {
            for _ in 0..IN_VAIN {
                assert!(losses.note(at, lost()).is_ok());
            }
        }
        assert!(!losses.note(2, lost()).unwrap_err().connection_lost());
    }
}
