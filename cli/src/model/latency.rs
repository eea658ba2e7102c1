//! How long a server takes to answer, over the last moments: what the slowest twentieth begins at.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How old an answer may be that still counts, where there are enough.
const YOUNG: Duration = Duration::from_secs(2);
/// So few say nothing of a twentieth.
pub const ENOUGH: usize = 20;

/// Answers since the last `clear`.
#[derive(Debug)]
pub struct Latencies {
    since: Instant,
    answers: VecDeque<(Instant, Duration)>,
}

impl Latencies {
    pub fn new(now: Instant) -> Latencies {
        Latencies { since: now, answers: VecDeque::new() }
    }

    pub fn clear(&mut self, now: Instant) {
        *self = Latencies::new(now);
    }

    pub fn add(&mut self, now: Instant, took: Duration) {
        self.answers.push_back((now, took));
        while self.answers.len() > ENOUGH && self.answers.front().is_some_and(|(at, _)| now - *at > YOUNG) {
            self.answers.pop_front();
        }
    }

    /// Whether so many answers were given, over so long a time, that they stand for what is usual.
    pub fn is_settled(&self, now: Instant) -> bool {
        self.answers.len() >= ENOUGH && now - self.since >= YOUNG
    }

    /// The 95th percentile; while there are fewer than `ENOUGH`, as if those that lack were quick: one slow
    /// answer is no twentieth, two are. None for less than two.
    pub fn p95(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.answers.iter().map(|(_, took)| *took).collect();
        sorted.sort_unstable();
        let slower = sorted.len().max(ENOUGH) / 20;
        sorted.len().checked_sub(slower + 1).map(|at| sorted[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_twentieth_of_the_answers_may_be_slower() {
        let now = Instant::now();
        let mut latencies = Latencies::new(now);
        assert_eq!(latencies.p95(), None);
        latencies.add(now, MS(900));
        assert_eq!(latencies.p95(), None, "one is no twentieth");
        latencies.add(now, MS(800));
        assert_eq!(latencies.p95(), Some(MS(800)), "two are");
        latencies.clear(now);
        for took in (1..=100).rev() {
            latencies.add(now, MS(took));
        }
        assert_eq!(latencies.p95(), Some(MS(95)));
    }

    #[test]
    fn what_is_old_counts_only_where_there_is_little() {
        let began = Instant::now();
        let mut latencies = Latencies::new(began);
        for at in 0..30 {
            latencies.add(began + MS(at * 10), MS(500));
        }
        assert!(!latencies.is_settled(began + MS(300)));
        let later = began + YOUNG * 2;
        for _ in 0..18 {
            latencies.add(later, MS(1));
        }
        assert_eq!(latencies.p95(), Some(MS(500)), "two of the old ones are left");
        latencies.add(later, MS(1));
        assert_eq!(latencies.p95(), Some(MS(1)));
        assert!(latencies.is_settled(later));
    }
}
