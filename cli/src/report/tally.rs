//! The sum of the events: what every display draws from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Event, Load, Slot, Stream};
use crate::model::Phase;

/// A Part that is being copied.
#[derive(Debug, Clone)]
pub struct InFlight {
    pub name: String,
    /// Size when planned.
    pub bytes: u64,
    /// Bytes of the COPY stream so far.
    pub copied: u64,
    pub since: Instant,
    /// No byte has moved for longer than it should.
    pub stands: bool,
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
    /// What was done before this run: no part of its rate.
    bytes_before: u64,
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
            }
            Event::Planned { tables, parts, parts_done, bytes, bytes_done, steps } => {
                (self.tables, self.parts, self.parts_done) = (*tables, *parts, *parts_done);
                (self.bytes, self.bytes_done, self.bytes_before) = (*bytes, *bytes_done, *bytes_done);
                self.steps = *steps;
            }
            Event::PartStarted { id, name, bytes } => {
                let part =
                    InFlight { name: name.clone(), bytes: *bytes, copied: 0, since: Instant::now(), stands: false };
                self.in_flight.insert(*id, part);
            }
            Event::PartProgress { id, bytes } => {
                if let Some(part) = self.in_flight.get_mut(id) {
                    (part.copied, part.stands) = (*bytes, false);
                }
            }
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
        self.bytes_done + self.in_flight.values().map(|part| part.copied.min(part.bytes)).sum::<u64>()
    }

    /// Parts of which no byte has moved for longer than it should.
    pub fn standing(&self) -> usize {
        self.in_flight.values().filter(|part| part.stands).count()
    }

    /// Mean rate of this run's copy, in bytes a second, and what it still takes at that rate.
    pub fn rate(&self) -> Option<(f64, Duration)> {
        let seconds = self.copy_took.or(self.copy_since.map(|since| since.elapsed()))?.as_secs_f64();
        let done = self.bytes_now();
        let rate = done.saturating_sub(self.bytes_before) as f64 / seconds;
        let left = self.bytes.saturating_sub(done) as f64 / rate;
        (seconds > 0.5 && rate > 0.0 && left.is_finite()).then(|| (rate, Duration::from_secs_f64(left.min(1e9))))
    }
}
