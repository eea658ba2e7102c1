//! What a run tells a webhook: few events, each once, worth waking somebody for. Whether it arrives
//! changes nothing for the run.

mod send;
mod url;

use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::model::Phase;
use crate::model::status::CaughtUpAt;
use crate::report::tally::Tally;
use crate::report::{Display, Event, json, units};
pub use send::{Sender, send};
pub use url::{Form, Url};

/// How long the end of a run waits for what was not delivered yet.
pub const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Test,
    Started,
    CopyDone,
    CopyStands,
    CaughtUp,
    LagAbove,
    SlotInDanger,
    Error,
    Stopped,
    Done,
}

impl Kind {
    fn mark(self) -> &'static str {
        match self {
            Kind::Test | Kind::Started | Kind::CopyDone => ":arrow_forward:",
            Kind::CaughtUp | Kind::Done => ":white_check_mark:",
            Kind::CopyStands | Kind::LagAbove | Kind::SlotInDanger | Kind::Stopped => ":warning:",
            Kind::Error => ":rotating_light:",
        }
    }
}

/// One thing that somebody wants to know.
#[derive(Debug, Clone, Serialize)]
pub struct News {
    pub format: u32,
    pub event: Kind,
    pub migration: String,
    pub at: jiff::Timestamp,
    /// In words; no row's value and no password.
    pub message: String,
    pub phase: Option<Phase>,
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
    pub exit_code: Option<u8>,
}

impl News {
    pub fn new(event: Kind, migration: &str, message: impl Into<String>) -> News {
        News {
            format: json::FORMAT,
            event,
            migration: migration.into(),
            at: jiff::Timestamp::now(),
            message: message.into(),
            phase: None,
            lag_bytes: None,
            lag_seconds: None,
            exit_code: None,
        }
    }

    /// The body of the request.
    pub fn body(&self, form: Form) -> String {
        match form {
            Form::Json => serde_json::to_string(self).unwrap_or_default(),
            Form::Slack => {
                // Slack's own marks are taken away from what is no mark.
                let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                let text =
                    format!("{} *pgmig* `{}`: {}", self.event.mark(), plain(&self.migration), plain(&self.message));
                serde_json::json!({ "text": text }).to_string()
            }
        }
    }
}

/// Follows a run and tells what is worth it.
pub struct Notifier {
    migration: String,
    /// Where it goes, without passwords.
    between: String,
    sender: Sender,
    lag: CaughtUpAt,
    started: bool,
    follows: bool,
    behind: bool,
    endangered: bool,
    copied: bool,
    stands: bool,
}

impl Notifier {
    /// The receiver hears when all was delivered, or given up, after the reporter has ended.
    pub fn start(
        url: Url,
        form: Form,
        migration: &str,
        between: String,
        lag: CaughtUpAt,
    ) -> (Notifier, oneshot::Receiver<()>) {
        let (sender, ended) = Sender::start(url, form);
        let notifier = Notifier {
            migration: migration.into(),
            between,
            sender,
            lag,
            started: false,
            follows: false,
            behind: false,
            endangered: false,
            copied: false,
            stands: false,
        };
        (notifier, ended)
    }

    fn tell(&self, event: Kind, tally: &Tally, message: String) {
        self.tell_end(event, tally, message, None);
    }

    fn tell_end(&self, event: Kind, tally: &Tally, message: String, exit_code: Option<u8>) {
        let streams = tally.stream.write_lsn.0 > 0;
        self.sender.send(News {
            phase: tally.phase,
            lag_bytes: streams.then_some(tally.stream.lag_bytes),
            lag_seconds: tally.stream.lag_seconds,
            exit_code,
            ..News::new(event, &self.migration, message)
        });
    }

    fn phase(&mut self, phase: Phase, tally: &Tally) {
        if !std::mem::replace(&mut self.started, true) {
            self.tell(Kind::Started, tally, format!("started in phase {phase}: {}", self.between));
        }
        // What an earlier run has done is no news.
        if phase == Phase::Copy {
            self.copied = true;
        }
        if phase > Phase::Copy && std::mem::take(&mut self.copied) {
            let took = tally.copy_took.map_or(String::new(), |took| format!(" in {}", units::duration(took)));
            let text = format!(
                "copy done: {} rows of {} tables, {}{took}",
                units::count(tally.rows),
                units::count(tally.tables),
                units::bytes(tally.bytes)
            );
            self.tell(Kind::CopyDone, tally, text);
        }
        if phase == Phase::Follow && !std::mem::replace(&mut self.follows, true) {
            self.tell(Kind::CaughtUp, tally, "caught up: level with the source, and following it".into());
        }
    }

    /// Once, until it is half of that again.
    fn lag(&mut self, tally: &Tally) {
        let (bytes, seconds) = (tally.stream.lag_bytes, tally.stream.lag_seconds.unwrap_or(0.0));
        let above = bytes > self.lag.bytes || seconds > self.lag.seconds;
        let below = bytes < self.lag.bytes / 2 && seconds < self.lag.seconds / 2.0;
        if self.follows && above && !self.behind {
            self.behind = true;
            let late = units::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default());
            let text = format!("lag above the limit: {}, {late}; see why: pgmig stalls", units::bytes(bytes));
            self.tell(Kind::LagAbove, tally, text);
        } else if below && self.behind {
            self.behind = false;
            self.tell(Kind::CaughtUp, tally, "caught up again".into());
        }
    }

    fn slot(&mut self, tally: &Tally) {
        let Some(slot) = &tally.slot else { return };
        let endangered = slot.in_danger();
        if endangered && !self.endangered {
            let safe = slot.safe_bytes.map_or(String::new(), |safe| format!(", {} more are safe", units::bytes(safe)));
            let text = format!(
                "slot in danger: the source keeps {} of WAL for it{safe} (wal_status {})",
                units::bytes(slot.retained_bytes.unwrap_or(0)),
                slot.wal_status.as_deref().unwrap_or("unknown")
            );
            self.tell(Kind::SlotInDanger, tally, text);
        }
        self.endangered = endangered;
    }
}

impl Display for Notifier {
    fn event(&mut self, event: &Event, tally: &Tally) {
        match event {
            Event::Phase { phase } => self.phase(*phase, tally),
            Event::Stream(_) => self.lag(tally),
            Event::Slot(_) => self.slot(tally),
            // Once, until every Part moves again.
            Event::PartStands { message, .. } if !std::mem::replace(&mut self.stands, true) => {
                self.tell(Kind::CopyStands, tally, format!("copy stands: {message}"));
            }
            Event::PartProgress { .. } | Event::PartDone { .. } => self.stands &= tally.standing() > 0,
            Event::Error { message, exit_code: code @ 130, .. } => {
                self.tell_end(Kind::Stopped, tally, format!("{message}; the same command goes on"), Some(*code));
            }
            Event::Error { message, exit_code, .. } => {
                self.tell_end(Kind::Error, tally, format!("ended with an error: {message}"), Some(*exit_code));
            }
            Event::Done => self.tell_end(Kind::Done, tally, "done: nothing is left to do".into(), Some(0)),
            _ => {}
        }
    }
    fn tick(&mut self, _: &Tally) {}
    fn end(&mut self, _: &Tally) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_gets_words_and_machines_get_fields() {
        let news = News::new(Kind::LagAbove, "default", "behind <b> & more");
        assert_eq!(news.body(Form::Slack), r#"{"text":":warning: *pgmig* `default`: behind &lt;b&gt; &amp; more"}"#);
        let json: serde_json::Value = serde_json::from_str(&news.body(Form::Json)).expect("it is JSON");
        assert_eq!(json["event"], "lag_above");
        assert_eq!(json["format"], 1);
    }
}
