//! How fast the source writes and how fast that is applied, over the last minute. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::Lsn;

/// What the rates are means of.
const OVER: Duration = Duration::from_secs(60);
/// Less says nothing.
const AT_LEAST: Duration = Duration::from_secs(2);
/// How far two samples lie apart: a minute of them is enough.
const APART: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Rates(VecDeque<(Instant, Lsn, Lsn)>);

impl Rates {
    /// Takes both positions as they are now; bytes a second of each, once that can be said.
    pub fn add(&mut self, now: Instant, replay: Lsn, source: Lsn) -> Option<(u64, u64)> {
        while self.0.len() > 1 && self.0.get(1).is_some_and(|(at, ..)| now.duration_since(*at) >= OVER) {
            self.0.pop_front();
        }
        if self.0.back().is_none_or(|(at, ..)| now.duration_since(*at) >= APART) {
            self.0.push_back((now, replay, source));
        }
        let (since, replay_then, source_then) = *self.0.front()?;
        let took = now.duration_since(since);
        let rate = |then: Lsn, now: Lsn| (now.bytes_since(then) as f64 / took.as_secs_f64()) as u64;
        (took >= AT_LEAST).then(|| (rate(replay_then, replay), rate(source_then, source)))
    }
}

/// How long it takes until nothing waits; None where nothing does, or where the source is the faster one.
pub fn catch_up(waiting: u64, replay: Option<u64>, source: Option<u64>) -> Option<f64> {
    let faster = replay?.checked_sub(source?).filter(|by| *by > 0)?;
    (waiting > 0).then(|| waiting as f64 / faster as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let start = Instant::now();
        let mut rates = Rates::default();
        let mut at = |second: u64, replay: u64, source: u64| {
            rates.add(start + Duration::from_secs(second), Lsn(replay), Lsn(source))
        };
        assert_eq!(at(0, 1000, 5000), None);
        assert_eq!(at(1, 1100, 5010), None);
        assert_eq!(at(10, 2000, 5100), Some((100, 10)));
        for second in 11..=100 {
            at(second, 2000, 5100);
        }
        assert_eq!(at(101, 2000 + 600, 5100), Some((10, 0)), "idle for a minute, then 600 bytes");
    }

    #[test]
    fn what_waits_is_caught_up_on_by_what_apply_is_faster_than_the_source() {
        assert_eq!(catch_up(900, Some(40), Some(10)), Some(30.0));
        assert_eq!(catch_up(0, Some(40), Some(10)), None, "nothing waits");
        assert_eq!(catch_up(900, Some(10), Some(10)), None, "it never ends");
        assert_eq!(catch_up(900, None, Some(10)), None, "nothing is known");
    }
}
