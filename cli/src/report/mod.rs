//! What a person or a machine sees of a run. The work sends events and never prints; a reporter reads
//! events and never works.

pub mod bars;
pub mod compared;
pub mod findings;
pub mod fixes;
pub mod json;
pub mod log;
pub mod page;
pub mod params;
pub mod plain;
pub mod plan;
pub mod stalls;
pub mod status;
pub mod tally;
pub mod units;
pub mod watch;

use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::model::stall::Cause;
use crate::model::status::{Copying, TableLeft};
use crate::model::{Lsn, Phase};
use tally::Tally;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Phase {
        phase: Phase,
    },
    /// What will be copied; sent again by a run that goes on, with what is done already.
    Planned {
        tables: u64,
        parts: u64,
        parts_done: u64,
        bytes: u64,
        bytes_done: u64,
        steps: u64,
    },
    PartStarted {
        id: i64,
        name: String,
        bytes: u64,
    },
    /// Bytes of the COPY stream so far.
    PartProgress {
        id: i64,
        bytes: u64,
    },
    /// How fast the copy is and how long it still takes, every second or so; None before that can be said.
    /// The processes that help it are in it.
    Copying {
        bytes_done: u64,
        bytes_per_second: Option<f64>,
        seconds_left: Option<f64>,
        /// Those in flight.
        tables: Vec<TableLeft>,
        parts: Vec<Copying>,
    },
    /// A session was opened again, or tried again what the server refused for the moment.
    Retried {
        /// Of this run so far.
        retries: u64,
    },
    /// No byte of it has moved for a while.
    PartStands {
        id: i64,
        name: String,
        seconds: f64,
        cause: Cause,
        /// Which Part, for how long, and why.
        message: String,
        /// Where to type what, if anything mends it.
        mend: Option<String>,
    },
    PartDone {
        id: i64,
        rows: u64,
        bytes: u64,
    },
    StepStarted {
        kind: String,
        name: String,
    },
    StepDone {
        kind: String,
        name: String,
    },
    StepFailed {
        kind: String,
        name: String,
        sqlstate: String,
        message: String,
    },
    Stream(Stream),
    /// What the last comparison of rows came to.
    Verified {
        percent: f64,
    },
    /// What the source says of the slot, every second.
    Slot(Slot),
    /// How the source bears the copy, every second while that is watched.
    Load(Load),
    Info {
        message: String,
    },
    Warning {
        message: String,
    },
    /// What ended the run; shown on stderr by whoever called it.
    Error {
        message: String,
        hint: Option<String>,
        exit_code: u8,
    },
    /// The migration is done.
    Done,
}

/// Where the stream is.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Stream {
    pub write_lsn: Lsn,
    pub flush_lsn: Lsn,
    pub replay_lsn: Lsn,
    pub source_lsn: Lsn,
    pub lag_bytes: u64,
    /// Age of the last applied transaction while more wait; None before anything is known.
    pub lag_seconds: Option<f64>,
    pub spool_bytes: u64,
    pub transactions: u64,
    pub rows: u64,
    pub endpos: Option<Lsn>,
    /// WAL a second, over the last minute.
    pub replay_bytes_per_second: Option<u64>,
    pub source_bytes_per_second: Option<u64>,
    /// Until nothing waits, at these rates; None where nothing waits, or where the source is the faster one.
    pub catch_up_seconds: Option<f64>,
}

/// How the source bears the migration. Sizes in bytes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Slot {
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    pub active: bool,
    pub retained_bytes: Option<u64>,
    /// WAL that can still be written before the slot is lost; None without a limit.
    pub safe_bytes: Option<u64>,
    /// `--wal-budget`.
    pub budget_bytes: Option<u64>,
    /// How many transactions ago the oldest began that vacuum of the source still has to reckon with.
    pub oldest_xmin_age: Option<i64>,
}

/// What the copy does to the source, and what it keeps to for that. None where it is not watched, or not known.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Load {
    pub probe_p95_ms: Option<f64>,
    /// The same without the copy.
    pub probe_baseline_ms: Option<f64>,
    /// Of the standby that is furthest behind.
    pub standby_lag_seconds: Option<f64>,
    /// Bytes a second; None while the copy does not give way.
    pub max_rate: Option<u64>,
    pub workers: Option<usize>,
    /// Why, in words.
    pub gives_way: Option<String>,
}

impl Slot {
    /// Whether somebody should look: half of the budget is spent, or three quarters of what the source allows.
    pub fn in_danger(&self) -> bool {
        let retained = self.retained_bytes.unwrap_or(0);
        matches!(self.wal_status.as_deref(), Some("unreserved" | "lost"))
            || self.budget_bytes.is_some_and(|budget| retained >= budget / 2)
            || self.safe_bytes.is_some_and(|safe| safe < retained / 3)
    }
}

/// Hands events to the reporter. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub struct Reporter(mpsc::UnboundedSender<Event>);

impl Reporter {
    pub fn send(&self, event: Event) {
        // With the reporter gone there is nobody to tell.
        let _ = self.0.send(event);
    }
    pub fn phase(&self, phase: Phase) {
        self.send(Event::Phase { phase });
    }
    pub fn info(&self, message: impl Into<String>) {
        self.send(Event::Info { message: message.into() });
    }
    pub fn warning(&self, message: impl Into<String>) {
        self.send(Event::Warning { message: message.into() });
    }
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Bars on a terminal.
    Bars,
    /// Lines, and one with the state every ten seconds.
    Lines,
    /// Only the lines that warn.
    Quiet,
    /// One JSON object a line on stdout.
    Json,
}

/// Draws what the tally says, or tells it to somebody else.
pub trait Display: Send {
    fn event(&mut self, event: &Event, tally: &Tally);
    /// Called several times a second.
    fn tick(&mut self, tally: &Tally);
    fn end(&mut self, tally: &Tally);
}

/// Starts the reporter; `others` are told the same. It ends, with all drawn, when the last `Reporter` is
/// dropped.
pub fn start(style: Style, others: Vec<Box<dyn Display>>) -> (Reporter, JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let mut tally = Tally::default();
        let display: Box<dyn Display> = match style {
            Style::Bars => Box::new(bars::Bars::default()),
            Style::Lines => Box::new(plain::Lines::default()),
            Style::Quiet => Box::new(plain::Warnings),
            Style::Json => Box::new(json::Json),
        };
        let mut displays: Vec<Box<dyn Display>> = others;
        displays.push(display);
        let mut ticks = tokio::time::interval(Duration::from_millis(150));
        loop {
            tokio::select! {
                event = receiver.recv() => {
                    let Some(event) = event else { break };
                    tally.add(&event);
                    displays.iter_mut().for_each(|display| display.event(&event, &tally));
                }
                _ = ticks.tick() => displays.iter_mut().for_each(|display| display.tick(&tally)),
            }
        }
        displays.iter_mut().for_each(|display| display.end(&tally));
    });
    (Reporter(sender), task)
}
