//! How far the copy gives way to the work of the source: from looks at the source to what all workers may do
//! together. It halves at once while the source is slower than is tolerated, and comes back in small steps
//! once it is at ease, as TCP does on a line that it shares; near where it hurt, in smaller ones. It neither
//! measures nor waits.

use crate::target::limits::Share;

/// What a look at the source came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Slower than is tolerated.
    Slow,
    /// Neither; or too little is known yet.
    Between,
    AtEase,
}

/// Of the rate at which the copy did hurt, or of what it was doing then: quick, since people wait.
const LESS: f64 = 0.5;
/// Steps back, of the copy's full rate, and of its present one where that is less: a quarter of a minute from
/// half of it to the top.
const MORE: (f64, f64) = (1.0 / 8.0, 1.0 / 2.0);
/// Up to the rate that hurt last: half of the way to three quarters of it, then by this part of it, since it
/// would hurt again.
const NEAR: f64 = 0.75;
const LITTLE_MORE: f64 = 1.0 / 16.0;
/// Looks in a row that find the source at ease before a step back.
const SURE: u32 = 2;
/// The copy always goes on: at this part of its full rate.
const LEAST: f64 = 1.0 / 32.0;
/// The full rate while nothing is known of it, in bytes a second.
const GUESS: f64 = 64.0 * 1024.0 * 1024.0;
/// So many looks at the least that the copy can do, and the source is still slow: it is not the copy.
const NOT_US: u32 = 30;

#[derive(Debug)]
pub struct GivingWay {
    workers: usize,
    /// The most that was copied in a second.
    full: f64,
    /// None while the copy does not give way.
    rate: Option<f64>,
    /// Where it last hurt.
    hurt: f64,
    at_ease: u32,
    in_vain: u32,
}

impl GivingWay {
    pub fn new(workers: usize) -> GivingWay {
        GivingWay { workers: workers.max(1), full: 0.0, rate: None, hurt: 0.0, at_ease: 0, in_vain: 0 }
    }

    /// Takes a look into account; `rate` is what was copied since the last one, in bytes a second. True if it
    /// changes what the copy may do.
    pub fn look(&mut self, source: Source, rate: f64) -> bool {
        self.full = self.full.max(rate);
        let before = self.rate;
        self.at_ease = if source == Source::AtEase { self.at_ease + 1 } else { 0 };
        match source {
            Source::Slow => {
                let now = before.map_or(rate, |allowed| allowed.min(rate));
                self.hurt = now;
                self.rate = Some((now * LESS).max(self.least()));
                self.in_vain = if self.rate == before { self.in_vain + 1 } else { 0 };
            }
            Source::AtEase if self.at_ease >= SURE => {
                self.at_ease = 0;
                self.rate = before.map(|rate| self.more(rate)).filter(|rate| *rate < self.full());
            }
            _ => {}
        }
        self.rate != before
    }

    /// What all workers may do together; None if that is all they can.
    pub fn share(&self) -> Option<Share> {
        let workers = |rate: f64| (self.workers as f64 * rate / self.full()).ceil() as usize;
        self.rate.map(|rate| Share { max_rate: rate as u64, workers: workers(rate).clamp(1, self.workers) })
    }

    /// Whether the source stays slow though the copy does next to nothing: then something else is why.
    pub fn is_in_vain(&self) -> bool {
        self.in_vain >= NOT_US
    }

    /// The source was measured anew, so that what was in vain need not be.
    pub fn begin_anew(&mut self) {
        (self.in_vain, self.at_ease) = (0, 0);
    }

    fn more(&self, rate: f64) -> f64 {
        rate + if rate < self.hurt {
            ((self.hurt * NEAR - rate) / 2.0).max(self.hurt * LITTLE_MORE)
        } else {
            (self.full() * MORE.0).min(rate * MORE.1)
        }
    }

    fn full(&self) -> f64 {
        if self.full > 0.0 { self.full } else { GUESS }
    }

    fn least(&self) -> f64 {
        self.full() * LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    /// Looks until nothing changes any more, at a copy that does all it may.
    fn look_on(giving: &mut GivingWay, looks: usize, full: f64, source: impl Fn(f64) -> Source) -> Vec<f64> {
        let mut rates = Vec::new();
        for _ in 0..looks {
            let rate = giving.share().map_or(full, |share| share.max_rate as f64);
            giving.look(source(rate), rate);
            rates.push(rate);
        }
        rates
    }

    #[test]
    fn a_source_that_is_at_ease_gets_the_whole_copy() {
        let mut giving = GivingWay::new(4);
        for source in [Source::AtEase, Source::Between, Source::AtEase, Source::AtEase] {
            assert!(!giving.look(source, 100.0 * MB));
            assert_eq!(giving.share(), None);
        }
    }

    #[test]
    fn a_source_that_is_slow_has_the_copy_at_its_least_within_seconds_and_never_still() {
        let mut giving = GivingWay::new(4);
        assert!(giving.look(Source::Slow, 64.0 * MB));
        assert_eq!(giving.share(), Some(Share { max_rate: 32_000_000, workers: 2 }));
        look_on(&mut giving, 5, 64.0 * MB, |_| Source::Slow);
        assert_eq!(giving.share(), Some(Share { max_rate: 2_000_000, workers: 1 }));
        assert!(!giving.is_in_vain());
        look_on(&mut giving, 30, 64.0 * MB, |_| Source::Slow);
        assert_eq!(giving.share(), Some(Share { max_rate: 2_000_000, workers: 1 }));
        assert!(giving.is_in_vain(), "at the least for half a minute");
        giving.begin_anew();
        assert!(!giving.is_in_vain());
        // Slow before anything was copied.
        let mut giving = GivingWay::new(1);
        giving.look(Source::Slow, 0.0);
        assert!(giving.share().is_some_and(|share| share.max_rate >= 1 << 20));
    }

    #[test]
    fn the_copy_comes_back_step_by_step_and_is_let_go() {
        let mut giving = GivingWay::new(4);
        look_on(&mut giving, 8, 64.0 * MB, |_| Source::Slow);
        let rates = look_on(&mut giving, 40, 64.0 * MB, |_| Source::AtEase);
        assert_eq!(giving.share(), None);
        assert!(rates.windows(2).all(|pair| pair[0] <= pair[1]), "{rates:?}");
        // What is neither slow nor at ease changes nothing.
        giving.look(Source::Slow, 64.0 * MB);
        let share = giving.share();
        look_on(&mut giving, 10, 64.0 * MB, |_| Source::Between);
        assert_eq!(giving.share(), share);
    }

    #[test]
    fn a_copy_that_hurts_above_a_rate_stays_below_it_most_of_the_time_and_does_most_of_it() {
        let mut giving = GivingWay::new(4);
        let source = |rate: f64| if rate > 20.0 * MB { Source::Slow } else { Source::AtEase };
        let rates = look_on(&mut giving, 600, 100.0 * MB, source);
        let settled = &rates[10..];
        let hurt = settled.iter().filter(|rate| **rate > 20.0 * MB).count() as f64 / settled.len() as f64;
        let mean = settled.iter().sum::<f64>() / settled.len() as f64;
        assert!(hurt < 0.1, "{hurt}");
        assert!(mean > 13.0 * MB, "{mean}");
    }
}
