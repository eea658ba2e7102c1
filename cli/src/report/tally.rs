//! The sum of the events: what every display draws from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Event, Load, Slot, Stream};
use crate::model::Phase;
use crate::model::status::TableLeft;

/// A Part that is being copied.
#[derive(Debug, Clone)]
pub struct InFlight {
    pub name: String,
    /// Size when planned.
    pub bytes: u64,
    /// Bytes of the COPY stream so far.
    pub copied: u64,
    /// How much of the planned size one of them stands for.
    scale: f64,
    pub since: Instant,
    /// No byte has moved for longer than it should.
    pub stands: bool,
}

impl InFlight {
    /// How much of its planned size is copied.
    pub fn bytes_now(&self) -> u64 {
        ((self.copied as f64 * self.scale) as u64).min(self.bytes)
    }
}

#[derive(Debug, Default)]
pub struct Tally {
    pub phase: Option<Phase>,
    pub tables: u64,
    pub parts: u64,
    pub parts_done: u64,
    pub bytes: u64,
    pub bytes_done: u64,
    pub rows: u64,
    pub steps: u64,
    pub steps_done: u64,
    pub steps_failed: u64,
    pub warnings: u64,
    pub in_flight: BTreeMap<i64, InFlight>,
    pub building: Vec<String>,
    pub stream: Stream,
    /// None before the source was asked.
    pub slot: Option<Slot>,
    pub load: Load,
    pub copy_since: Option<Instant>,
    /// How long this run's part of the copy took.
    pub copy_took: Option<Duration>,
    /// Tables in flight.
    pub tables_left: Vec<TableLeft>,
    pub retries: u64,
    /// Tables that the last comparison of rows found equal, of all, in percent.
    pub verified: Option<f64>,
    /// Bytes of COPY a second.
    pub rate: Option<f64>,
    /// How long the copy still took, and when that was said.
    left: Option<(f64, Instant)>,
    /// Of `bytes`, with what other processes have copied.
    bytes_told: u64,
}

impl Tally {
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Phase { phase } => {
                self.phase = Some(*phase);
                match phase {
                    Phase::Copy => self.copy_since = Some(Instant::now()),
                    Phase::Indexes => self.copy_took = self.copy_since.map(|since| since.elapsed()),
                    _ => {}
                }
                (self.rate, self.left, self.tables_left) = (None, None, Vec::new());
            }
            Event::Planned { tables, parts, parts_done, bytes, bytes_done, steps } => {
                (self.tables, self.parts, self.parts_done) = (*tables, *parts, *parts_done);
                (self.bytes, self.bytes_done, self.bytes_told) = (*bytes, *bytes_done, 0);
                self.steps = *steps;
            }
            Event::PartStarted { id, name, bytes } => {
                let (name, since) = (name.clone(), Instant::now());
                let part = InFlight { name, bytes: *bytes, copied: 0, scale: 1.0, since, stands: false };
                self.in_flight.insert(*id, part);
            }
            Event::PartProgress { id, bytes } => {
                if let Some(part) = self.in_flight.get_mut(id) {
                    (part.copied, part.stands) = (*bytes, false);
                }
            }
            Event::Copying { bytes_done, bytes_per_second, seconds_left, tables, parts } => {
                (self.bytes_told, self.rate) = (*bytes_done, *bytes_per_second);
                self.left = seconds_left.map(|left| (left, Instant::now()));
                self.tables_left.clone_from(tables);
                for told in parts {
                    let part = self.in_flight.get_mut(&told.part_id);
                    if let Some(part) = part.filter(|part| part.copied > 0 && told.bytes_done > 0) {
                        part.scale = told.bytes_done as f64 / part.copied as f64;
                    }
                }
            }
            Event::Verified { percent } => self.verified = Some(*percent),
            Event::Retried { retries } => self.retries = *retries,
            Event::PartStands { id, .. } => {
                self.warnings += 1;
                if let Some(part) = self.in_flight.get_mut(id) {
                    part.stands = true;
                }
            }
            Event::PartDone { id, rows, .. } => {
                if let Some(part) = self.in_flight.remove(id) {
                    self.bytes_done += part.bytes;
                }
                self.parts_done += 1;
                self.rows += rows;
            }
            Event::StepStarted { name, .. } => self.building.push(name.clone()),
            Event::StepDone { name, .. } | Event::StepFailed { name, .. } => {
                self.steps_done += 1;
                self.steps_failed += u64::from(matches!(event, Event::StepFailed { .. }));
                self.building.retain(|building| building != name);
            }
            Event::Stream(stream) => self.stream = *stream,
            Event::Slot(slot) => self.slot = Some(slot.clone()),
            Event::Load(load) => self.load = load.clone(),
            Event::Warning { .. } => self.warnings += 1,
            Event::Done => self.phase = Some(Phase::Done),
            Event::Info { .. } | Event::Error { .. } => {}
        }
    }

    /// Bytes of `self.bytes` that are copied, Parts in flight included.
    pub fn bytes_now(&self) -> u64 {
        let ours = self.bytes_done + self.in_flight.values().map(InFlight::bytes_now).sum::<u64>();
        ours.max(self.bytes_told).min(self.bytes)
    }

    /// Parts of which no byte has moved for longer than it should.
    pub fn standing(&self) -> usize {
        self.in_flight.values().filter(|part| part.stands).count()
    }

    /// How long the copy of rows still takes, once that can be said.
    pub fn left(&self) -> Option<Duration> {
        let (seconds, at) = self.left?;
        let left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Some(left.saturating_sub(at.elapsed()))
    }

    /// Both, as people read them.
    pub fn pace(&self) -> Option<(f64, Duration)> {
        self.rate.zip(self.left())
    }
}
