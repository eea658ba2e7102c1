//! What a run does for a cutover: holds endpos until it is done or undone, looks that nothing is written
//! behind it, and cuts over itself when that is asked for in SQL.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Run;
use super::cutover::Cutover;
use super::stream::Streaming;
use crate::apply::{Apply, Writer};
use crate::error::Result;
use crate::model::{Lsn, Phase};
use crate::target::cutover::{self as record, State};
use crate::target::sentinel;

const LOOK_EVERY: Duration = Duration::from_millis(20);
const REQUESTS_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked whether somebody still cuts over.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How often it is said that nobody does.
const SAY_EVERY: Duration = Duration::from_secs(600);

impl Run {
    /// Waits behind endpos for as long as a cutover runs. True if the migration goes on to its end, false if
    /// endpos was opened again.
    pub(super) async fn hold<W: Writer>(
        &self,
        apply: &mut Apply<W>,
        streaming: &mut Streaming,
        endpos: Lsn,
    ) -> Result<bool> {
        let mut told = None;
        let mut late = false;
        let mut asked = Instant::now();
        let mut said: Option<Instant> = None;
        loop {
            let found = self.sentinel().await?;
            match (found.phase, found.cutover) {
                (Phase::Cutover, Some(State::Running | State::Verifying)) => {}
                (Phase::Cutover | Phase::Done, _) => return Ok(true),
                _ => return Ok(false),
            }
            // Asked first: all up to here is in the spool.
            let received = streaming.received.borrow().write_lsn;
            let cuts = found.cutover == Some(State::Running);
            if cuts && !late && apply.more()? {
                late = true;
                let what = format!(
                    "the source was written to behind endpos {endpos}, while writes were to be stopped: find out by whom, and choose another --freeze"
                );
                record::late(&self.target, &self.config.name, &what).await?;
            } else if !late && told != Some(received) {
                told = Some(received);
                record::held(&self.target, &self.config.name, received).await?;
            }
            if asked.elapsed() >= ALIVE_EVERY {
                asked = Instant::now();
                let probe = self.target_client("pgmig run", &[]).await?;
                let deserted = record::lock(&probe, &self.config.name).await?;
                if deserted && !cuts {
                    record::release(&self.target, &self.config.name, None).await?;
                } else if deserted && said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    said = Some(Instant::now());
                    self.report.warning(
                        "nobody ends the cutover any more: run `pgmig cutover` again, or `pgmig cutover --undo`",
                    );
                }
            }
            tokio::select! {
                ended = streaming.ended() => return Err(ended),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Cuts over when `pgmig.request_cutover` was called.
    pub(super) async fn serve_requests(&self) -> Infallible {
        loop {
            tokio::time::sleep(REQUESTS_EVERY).await;
            // What fails here fails elsewhere too, and is told there.
            let Ok(found) = self.sentinel().await else { continue };
            if (found.phase, found.cutover, found.paused) != (Phase::Follow, Some(State::Requested), false) {
                continue;
            }
            self.config.cutting.send_replace(true);
            let (_alive, broken) = watch::channel(None);
            let done = Cutover::cut_over(self, &self.config.cutover, broken).await;
            self.config.cutting.send_replace(false);
            match done {
                Ok(done) => {
                    self.report.info(format!("cut over: writes were stopped for {:.2} s", done.downtime.as_secs_f64()))
                }
                Err(err) => {
                    let hint = err.hint_text().unwrap_or_default().replace('\n', "; ");
                    self.report.warning(format!("{}; {hint}", err.chain()));
                    let told = async {
                        record::refuse(&self.target, &self.config.name).await?;
                        sentinel::event(&self.target, &self.config.name, "error", &err.chain()).await
                    };
                    if let Err(err) = told.await {
                        tracing::debug!(error = %err.chain(), "the end of a requested cutover could not be recorded");
                    }
                }
            }
        }
    }
}
