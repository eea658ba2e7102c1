//! What a run tells people, in the log file too, with a line of the state every minute. `main` says where the
//! log is; without one these lines go nowhere.

use std::time::{Duration, Instant};

use super::tally::Tally;
use super::{Display, Event, plain};

/// The target of these lines, which keeps them apart from what is said on stderr.
pub const TARGET: &str = "run";

const EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Log {
    last: Option<Instant>,
}

impl Display for Log {
    fn event(&mut self, event: &Event, tally: &Tally) {
        match event {
            Event::StepFailed { .. } | Event::Warning { .. } | Event::PartStands { .. } => {
                if let Some(line) = plain::line(event, tally) {
                    tracing::warn!(target: TARGET, "{}", line.trim_start_matches("warning: "));
                }
            }
            // `main` has the last word.
            Event::Error { .. } => {}
            Event::Done => tracing::info!(target: TARGET, "done"),
            Event::StepDone { kind, name } => tracing::debug!(target: TARGET, kind, name, "made"),
            Event::PartDone { id, rows, bytes } => tracing::debug!(target: TARGET, part = id, rows, bytes, "copied"),
            event => {
                if let Some(line) = plain::line(event, tally) {
                    tracing::info!(target: TARGET, "{line}");
                }
            }
        }
    }
    fn tick(&mut self, tally: &Tally) {
        let last = *self.last.get_or_insert_with(Instant::now);
        if last.elapsed() >= EVERY {
            self.last = Some(Instant::now());
            if let Some(state) = plain::state(tally) {
                tracing::info!(target: TARGET, "{state}");
            }
        }
    }
    fn end(&mut self, _: &Tally) {}
}
