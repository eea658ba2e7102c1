//! Lines for logs and pipes: what happens as it happens, and the state every ten seconds.

use std::time::{Duration, Instant};

use super::tally::Tally;
use super::{Display, Event, units};
use crate::model::Phase;

const EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Lines {
    last: Option<Instant>,
}

impl Display for Lines {
    fn event(&mut self, event: &Event, tally: &Tally) {
        if let Some(line) = line(event, tally) {
            eprintln!("{line}");
        }
    }
    fn tick(&mut self, tally: &Tally) {
        let last = *self.last.get_or_insert_with(Instant::now);
        if last.elapsed() >= EVERY {
            self.last = Some(Instant::now());
            if let Some(state) = state(tally) {
                eprintln!("{state}");
            }
        }
    }
    fn end(&mut self, _: &Tally) {}
}

/// For `--quiet`.
pub struct Warnings;

impl Display for Warnings {
    fn event(&mut self, event: &Event, tally: &Tally) {
        if matches!(event, Event::StepFailed { .. } | Event::Warning { .. } | Event::PartStands { .. })
            && let Some(line) = line(event, tally)
        {
            eprintln!("{line}");
        }
    }
    fn tick(&mut self, _: &Tally) {}
    fn end(&mut self, _: &Tally) {}
}

/// The line for an event that people want to read; None for the rest.
pub fn line(event: &Event, tally: &Tally) -> Option<String> {
    match event {
        Event::Phase { phase: Phase::Copy } => Some(format!(
            "copy: {} tables, {} in {} Parts",
            units::count(tally.tables),
            units::bytes(tally.bytes),
            units::count(tally.parts)
        )),
        Event::Phase { phase: Phase::Indexes } if tally.copy_took.is_some() => Some(format!(
            "indexes: {} rows copied in {}; finishing indexes and constraints",
            units::count(tally.rows),
            units::duration(tally.copy_took.unwrap_or_default())
        )),
        Event::Phase { phase } => {
            let means = match phase {
                Phase::Planned => "making slot and snapshot, reading the catalog",
                Phase::Schema => "making types, tables, views and functions",
                Phase::Copy | Phase::Done => return None,
                Phase::Indexes => "every row is copied; finishing indexes and constraints",
                Phase::Catchup => "applying what changed during the copy",
                Phase::Follow => "level with the source; waiting for endpos",
                Phase::Cutover => "endpos is reached; setting sequences, refreshing materialized views",
            };
            Some(format!("{phase}: {means}"))
        }
        Event::StepFailed { kind, name, sqlstate, message } => {
            Some(format!("warning: could not make {} {name}: {message} ({sqlstate})", kind.to_lowercase()))
        }
        Event::PartStands { message, mend, .. } => Some(match mend {
            Some(mend) => format!("warning: {message}; what mends it {mend}"),
            None => format!("warning: {message}"),
        }),
        Event::Info { message } => Some(message.clone()),
        Event::Warning { message } => Some(format!("warning: {message}")),
        _ => None,
    }
}

/// How long apply needs until nothing waits, where that is worth a word.
pub fn catch_up(tally: &Tally) -> Option<String> {
    let seconds = tally.stream.catch_up_seconds.filter(|seconds| *seconds >= 1.0)?;
    Some(units::duration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
}

/// One line that says how far the run is; None before there is anything to say.
pub fn state(tally: &Tally) -> Option<String> {
    let phase = tally.phase?;
    match phase {
        Phase::Copy | Phase::Indexes => {
            let rate = tally.pace().filter(|_| phase == Phase::Copy).map_or(String::new(), |(rate, left)| {
                format!(", {}/s, {} left", units::bytes(rate as u64), units::duration(left))
            });
            let gives_way = tally.load.gives_way.as_ref().map_or(String::new(), |why| format!("; gives way: {why}"));
            Some(format!(
                "{phase}: {} of {} Parts, {} of {}{rate}; {} of {} objects made{gives_way}",
                tally.parts_done,
                tally.parts,
                units::bytes(tally.bytes_now()),
                units::bytes(tally.bytes),
                tally.steps_done,
                tally.steps
            ))
        }
        Phase::Catchup | Phase::Follow | Phase::Cutover => Some(format!(
            "{phase}: replay {}, lag {}{}, {} transactions and {} rows applied{}",
            units::position(tally.stream.replay_lsn),
            units::bytes(tally.stream.lag_bytes),
            catch_up(tally).map_or(String::new(), |left| format!(" ({left} to catch up)")),
            units::count(tally.stream.transactions),
            units::count(tally.stream.rows),
            tally.stream.endpos.map_or(String::new(), |endpos| format!(", endpos {endpos}"))
        )),
        _ => None,
    }
}
