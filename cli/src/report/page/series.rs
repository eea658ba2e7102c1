//! Rates and lag over time, from what was recorded. Pure.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};

use super::axis::seconds;
use super::chart::Line;
use crate::model::history::{Sample, Span, halved};

/// More points than can be told apart are too many.
const POINTS: usize = 400;
const BINS: usize = 120;

type Piece = Vec<(Timestamp, f64)>;

/// Bytes of tables that were copied a second: those of a transaction are spread over its length.
pub fn copy_rate(parts: &[Span], now: Timestamp) -> Line {
    let ends: Vec<(Timestamp, Timestamp, f64)> =
        parts.iter().filter_map(|part| Some((part.started_at, part.finished_at?, part.bytes as f64))).collect();
    let from = ends.iter().map(|(from, ..)| *from).min().unwrap_or(now);
    let to = ends.iter().map(|(_, to, _)| *to).max().unwrap_or(now);
    let width = seconds(from, to) / BINS as f64;
    let mut line = Line { name: "copied", class: "copy", pieces: Vec::new() };
    if width <= 0.0 {
        return line;
    }
    let mut bins = [0.0; BINS];
    for (began, ended, bytes) in ends {
        let (first, last) = (seconds(from, began) / width, seconds(from, ended) / width);
        let length = (last - first).max(f64::EPSILON);
        for (at, bin) in bins.iter_mut().enumerate().skip(first as usize) {
            let inside = last.min(at as f64 + 1.0) - first.max(at as f64);
            if at as f64 > last {
                break;
            }
            *bin += bytes * (inside / length).clamp(0.0, 1.0);
        }
    }
    let at = |bin: usize| from + SignedDuration::from_secs_f64((bin as f64 + 0.5) * width);
    line.pieces = vec![bins.iter().enumerate().map(|(bin, bytes)| (at(bin), bytes / width)).collect()];
    line
}

/// As many samples as can be drawn.
fn drawn(samples: &[Sample]) -> Cow<'_, [Sample]> {
    let mut drawn = Cow::Borrowed(samples);
    while drawn.len() > POINTS {
        drawn = Cow::Owned(halved(&drawn));
    }
    drawn
}

/// The samples of each run.
fn runs(samples: &[Sample]) -> impl Iterator<Item = &[Sample]> {
    samples.chunk_by(|_, later| !later.first)
}

/// WAL that the source wrote a second, and that was applied.
pub fn wal_rates(samples: &[Sample]) -> [Line; 2] {
    let samples = drawn(samples);
    let pieces = |of: fn(&Sample) -> u64| -> Vec<Piece> {
        let rate = |two: &[Sample]| {
            let took = seconds(two[0].at, two[1].at);
            (took > 0.0).then(|| (two[1].at, of(&two[1]).saturating_sub(of(&two[0])) as f64 / took))
        };
        runs(&samples).map(|run| run.windows(2).filter_map(rate).collect::<Piece>()).filter(|p| !p.is_empty()).collect()
    };
    [
        Line { name: "written on the source", class: "source", pieces: pieces(|sample| sample.source_lsn.0) },
        Line { name: "applied on the target", class: "applied", pieces: pieces(|sample| sample.reached_lsn.0) },
    ]
}

/// Bytes of WAL that were not applied, and of the spool.
pub fn lag_bytes(samples: &[Sample]) -> [Line; 2] {
    let samples = drawn(samples);
    let pieces = |of: fn(&Sample) -> u64| -> Vec<Piece> {
        runs(&samples).map(|run| run.iter().map(|sample| (sample.at, of(sample) as f64)).collect()).collect()
    };
    [
        Line { name: "not applied", class: "applied", pieces: pieces(|sample| sample.lag_bytes) },
        Line { name: "in the spool", class: "source", pieces: pieces(|sample| sample.spool_bytes) },
    ]
}

/// How long ago the source stood where apply was. What it wrote before the first sample is as old as that, at
/// least.
pub fn lag_seconds(samples: &[Sample]) -> Line {
    let mut then = 0;
    let mut lag = Vec::with_capacity(samples.len());
    for sample in samples {
        while samples[then].source_lsn < sample.reached_lsn && samples[then].at < sample.at {
            then += 1;
        }
        lag.push(seconds(samples[then].at, sample.at));
    }
    // Peaks count.
    let thin = samples.len().div_ceil(POINTS).max(1);
    let mut pieces: Vec<Piece> = Vec::new();
    for (some, lags) in samples.chunks(thin).zip(lag.chunks(thin)) {
        if pieces.is_empty() || some.iter().any(|sample| sample.first) {
            pieces.push(Vec::new());
        }
        let highest = lags.iter().copied().fold(0.0, f64::max);
        if let (Some(piece), Some(last)) = (pieces.last_mut(), some.last()) {
            piece.push((last.at, highest));
        }
    }
    Line { name: "behind the source", class: "applied", pieces }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;

    fn at(second: f64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + (second * 1000.0) as i64).unwrap()
    }
    fn sample(second: f64, source: u64, reached: u64) -> Sample {
        let (source_lsn, reached_lsn) = (Lsn(source), Lsn(reached));
        Sample {
            at: at(second),
            source_lsn,
            reached_lsn,
            lag_bytes: source - reached,
            spool_bytes: 0,
            first: second == 0.0,
        }
    }
    fn span(from: f64, to: f64, bytes: i64) -> Span {
        let (started_at, finished_at) = (at(from), Some(at(to)));
        Span { stage: "copy".into(), name: String::new(), count: 1, bytes, rows: 0, started_at, finished_at }
    }

    #[test]
    fn the_rate_of_the_copy_sums_up_to_what_was_copied() {
        let rate = copy_rate(&[span(0.0, 120.0, 120_000), span(30.0, 30.5, 5000), span(119.0, 120.0, 0)], at(0.0));
        let sum: f64 = rate.pieces[0].iter().map(|(_, rate)| rate).sum();
        assert!((sum - 125_000.0).abs() < 1.0, "{sum}");
        assert!((rate.pieces[0][10].1 - 1000.0).abs() < 1e-6 && rate.highest() > 5900.0);
        assert!(copy_rate(&[], at(0.0)).pieces.is_empty());
    }

    #[test]
    fn lag_in_time_is_how_long_ago_the_source_stood_there() {
        let samples = [sample(0.0, 100, 100), sample(1.0, 200, 100), sample(2.0, 300, 100), sample(3.0, 300, 300)];
        let lag: Vec<f64> = lag_seconds(&samples).pieces[0].iter().map(|(_, lag)| *lag).collect();
        assert_eq!(lag, [0.0, 1.0, 2.0, 1.0]);
        let [written, applied] = wal_rates(&samples);
        assert_eq!(written.pieces[0].iter().map(|(_, rate)| *rate).collect::<Vec<_>>(), [100.0, 100.0, 0.0]);
        assert_eq!(applied.highest(), 200.0);
    }

    #[test]
    fn each_run_is_a_piece_of_its_own() {
        let mut samples: Vec<Sample> = (0..10).map(|n| sample(n as f64, 100 * n, 100 * n)).collect();
        samples[5].first = true;
        assert_eq!(wal_rates(&samples)[0].pieces.len(), 2);
        assert_eq!(lag_seconds(&samples).pieces.len(), 2);
    }
}
