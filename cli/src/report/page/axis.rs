//! Where a time or a value lies in a drawing, and what stands beside its axes. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::report::units;

/// Width of every drawing, in units of its own.
pub const WIDTH: f64 = 1000.0;
/// What is left free for labels, on the left and on the right.
pub const LEFT: f64 = 132.0;
pub const RIGHT: f64 = 14.0;

/// A line across the drawing and what it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub at: String,
    pub label: String,
}

/// A length or a place, with as many digits as can be seen.
pub fn place(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_string).unwrap_or(text)
}

/// From a begin to an end, which lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    pub from: Timestamp,
    pub seconds: f64,
}

impl Times {
    pub fn new(from: Timestamp, to: Timestamp) -> Times {
        Times { from, seconds: seconds(from, to).max(0.001) }
    }

    pub fn x(&self, at: Timestamp) -> f64 {
        let part = (seconds(self.from, at) / self.seconds).clamp(0.0, 1.0);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    /// Six or so, at round times since the begin.
    pub fn ticks(&self) -> Vec<Tick> {
        const STEPS: [f64; 25] = [
            0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0,
            3600.0, 7200.0, 10800.0, 21600.0, 43200.0, 86400.0, 172_800.0,
        ];
        let least = self.seconds / 7.0;
        let step = STEPS.iter().copied().find(|step| *step >= least);
        let step = step.unwrap_or_else(|| (least / 604_800.0).ceil() * 604_800.0);
        let count = (self.seconds / step) as usize;
        (0..=count)
            .map(|n| {
                let after = n as f64 * step;
                let x = LEFT + after / self.seconds * (WIDTH - LEFT - RIGHT);
                Tick { at: place(x), label: after_begin(after, step) }
            })
            .collect()
    }
}

fn after_begin(after: f64, step: f64) -> String {
    let whole = after.round() as u64;
    match step {
        _ if after == 0.0 => "0".into(),
        step if step < 0.1 => format!("{after:.2} s"),
        step if step < 1.0 => format!("{after:.1} s"),
        step if step < 60.0 && whole < 60 => format!("{whole} s"),
        step if step < 60.0 => format!("{}:{:02} min", whole / 60, whole % 60),
        step if step < 3600.0 && whole < 3600 => format!("{} min", whole / 60),
        step if step < 86400.0 && whole < 172_800 => format!("{}:{:02} h", whole / 3600, whole % 3600 / 60),
        step if step < 86400.0 => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
        _ => format!("{} d", whole / 86400),
    }
}

pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// A time that passed, for people; never less than none.
pub fn took(from: Timestamp, to: Timestamp) -> String {
    span(seconds(from, to))
}

pub fn span(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 0.0995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.995 => format!("{s:.2} s"),
        s => units::duration(Duration::from_secs_f64(s)),
    }
}

/// What the values of an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    BytesPerSecond,
    Seconds,
}

impl Unit {
    pub fn text(self, value: f64) -> String {
        match self {
            Unit::Bytes => units::bytes(value as u64),
            Unit::BytesPerSecond => format!("{}/s", units::bytes(value as u64)),
            Unit::Seconds => span(value),
        }
    }

    /// A round value at or above a quarter of the highest.
    pub fn step(self, highest: f64) -> f64 {
        let least = (highest / 4.0).max(f64::MIN_POSITIVE);
        match self {
            Unit::Bytes | Unit::BytesPerSecond => {
                let mut step = 1.0;
                while step < least {
                    step *= 2.0;
                }
                step
            }
            Unit::Seconds => {
                let power = 10f64.powf(least.log10().floor());
                [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= least).unwrap_or(least)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(seconds: i64) -> Vec<String> {
        let from = Timestamp::from_second(1_800_000_000).unwrap();
        let to = Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        Times::new(from, to).ticks().into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_few_and_round_whatever_the_length() {
        assert_eq!(ticks(12), ["0", "2 s", "4 s", "6 s", "8 s", "10 s", "12 s"]);
        assert_eq!(ticks(90), ["0", "15 s", "30 s", "45 s", "1:00 min", "1:15 min", "1:30 min"]);
        assert_eq!(ticks(3 * 3600), ["0", "30 min", "1:00 h", "1:30 h", "2:00 h", "2:30 h", "3:00 h"]);
        assert_eq!(ticks(0), ["0"]);
        for seconds in [1, 61, 4000, 100_000, 3_000_000, 900_000_000] {
            assert!((2..=8).contains(&ticks(seconds).len()), "{seconds}: {:?}", ticks(seconds));
        }
    }

    #[test]
    fn steps_of_values_are_round() {
        assert_eq!(Unit::Bytes.step(4096.0), 1024.0);
        assert_eq!(Unit::Seconds.step(7.0), 2.0);
        assert_eq!(Unit::Seconds.text(0.042), "42 ms");
        assert_eq!(span(3.456), "3.46 s");
        assert_eq!(place(12.04), "12");
    }
}
