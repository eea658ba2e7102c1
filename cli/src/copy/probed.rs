//! What a probe takes on the source, held against what it takes without the copy. That is measured while the
//! copy rests: at first, and again after a while. It neither probes nor waits.

use std::time::{Duration, Instant};

use super::giving_way::Source;
use crate::model::latency::Latencies;

/// What the copy had asked of the source may still be under way when it rests.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// A probe that is so slow that there are few answers is measured no longer.
const MEASURED_WITHIN: Duration = Duration::from_secs(10);
/// A day has other hours: measured without the copy again.
const MEASURE_EVERY: Duration = Duration::from_secs(600);
/// What timers and processors add to a quick probe is no slowness, whatever part of it that is.
const LEAST_RISE: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub struct Probed {
    percent: u32,
    latencies: Latencies,
    /// Since when the copy rests, so that it is measured without.
    resting: Option<Instant>,
    measured_at: Instant,
    baseline: Duration,
}

impl Probed {
    /// The copy rests: there is nothing to hold it against yet.
    pub fn new(percent: u32, now: Instant) -> Probed {
        let latencies = Latencies::new(now);
        Probed { percent, latencies, resting: Some(now), measured_at: now, baseline: Duration::ZERO }
    }

    pub fn add(&mut self, now: Instant, took: Duration) {
        match self.resting {
            Some(since) if now - since < SETTLES_WITHIN => self.latencies.clear(now),
            _ => self.latencies.add(now, took),
        }
    }

    /// Forgets what the copy did to the source before.
    pub fn clear(&mut self, now: Instant) {
        self.latencies.clear(now);
    }

    pub fn rest(&mut self, now: Instant) {
        self.resting = Some(now);
    }

    pub fn is_resting(&self) -> bool {
        self.resting.is_some()
    }

    /// Whether it is time to measure without the copy again.
    pub fn is_old(&self, now: Instant) -> bool {
        now - self.measured_at > MEASURE_EVERY
    }

    /// What it takes without the copy, once that is known; then the rest is over.
    pub fn measured(&mut self, now: Instant) -> Option<Duration> {
        let since = self.resting?;
        if !self.latencies.is_settled(now) && now - since < MEASURED_WITHIN {
            return None;
        }
        let measured = self.latencies.p95()?;
        (self.resting, self.measured_at, self.baseline) = (None, now, measured);
        self.latencies.clear(now);
        Some(measured)
    }

    pub fn baseline(&self) -> Duration {
        self.baseline
    }

    /// The 95th percentile of the last moments.
    pub fn p95(&self) -> Option<Duration> {
        self.latencies.p95()
    }

    /// What is slower is too slow.
    pub fn slow(&self) -> Duration {
        self.baseline + self.rise()
    }

    fn rise(&self) -> Duration {
        (self.baseline * self.percent / 100).max(LEAST_RISE)
    }

    /// The source is at ease up to half of the rise that is tolerated, so that nothing flaps.
    pub fn look(&self, now: Instant) -> Source {
        match self.latencies.p95() {
            Some(p95) if p95 > self.slow() => Source::Slow,
            Some(p95) if p95 <= self.baseline + self.rise() / 2 && self.latencies.is_settled(now) => Source::AtEase,
            _ => Source::Between,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Probes every 50 ms for some seconds; the moment after them.
    fn probe(probed: &mut Probed, from: Instant, seconds: u64, took: Duration) -> Instant {
        for at in 0..seconds * 20 {
            probed.add(from + MS(at * 50), took);
        }
        from + Duration::from_secs(seconds)
    }

    #[test]
    fn what_the_copy_had_begun_is_no_part_of_the_measure() {
        let began = Instant::now();
        let mut probed = Probed::new(20, began);
        let now = probe(&mut probed, began, 1, MS(900));
        assert_eq!(probed.measured(now), None);
        let now = probe(&mut probed, now, 2, MS(10));
        assert_eq!(probed.measured(now), Some(MS(10)));
        assert!(!probed.is_resting());
        assert_eq!(probed.slow(), MS(12));
        // Of a probe that takes its time.
        let mut probed = Probed::new(20, began);
        for second in 1..10 {
            probed.add(began + Duration::from_secs(second), MS(500));
            assert_eq!(probed.measured(began + Duration::from_secs(second)), None);
        }
        assert_eq!(probed.measured(began + Duration::from_secs(10)), Some(MS(500)));
    }

    #[test]
    fn a_source_is_slow_above_what_is_tolerated_and_at_ease_below_half_of_it() {
        let began = Instant::now();
        let mut probed = Probed::new(20, began);
        let mut now = probe(&mut probed, began, 3, MS(100));
        assert_eq!(probed.measured(now), Some(MS(100)));
        assert_eq!(probed.look(now), Source::Between, "nothing is known yet");
        for (took, source) in
            [(109, Source::AtEase), (111, Source::Between), (119, Source::Between), (121, Source::Slow)]
        {
            now = probe(&mut probed, now, 3, MS(took));
            assert_eq!(probed.look(now), source, "{took} ms");
        }
        probed.clear(now);
        assert_eq!(probed.look(now), Source::Between);
        // At once when it is slow, after a while when it is at ease.
        now = probe(&mut probed, now, 1, MS(100));
        assert_eq!(probed.look(now), Source::Between);
        probed.clear(now);
        now = probe(&mut probed, now, 1, MS(200));
        assert_eq!(probed.look(now), Source::Slow);
        assert!(!probed.is_old(now) && probed.is_old(now + MEASURE_EVERY));
    }

    #[test]
    fn a_tenth_of_a_millisecond_is_no_slowness() {
        let began = Instant::now();
        let mut probed = Probed::new(20, began);
        let now = probe(&mut probed, began, 3, MS(1) / 10);
        assert_eq!(probed.measured(now), Some(MS(1) / 10));
        let now = probe(&mut probed, now, 3, MS(2) / 10);
        assert_eq!(probed.look(now), Source::AtEase);
    }
}
