//! How long the copy still takes: from what each table has left, in bytes of COPY, and how fast they are stored.
//! Pure.

use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Rows of a table that say how long its rows are.
const SAMPLE: i64 = 100;
/// Before anything is known a byte of a table counts as one of COPY, with this weight.
const PRIOR: f64 = 1_048_576.0;
/// What a Part costs whatever it holds, of a worker's time, in seconds.
const EACH: f64 = 0.003;
/// Of what a Part has shown, what a Part that holds more than was planned still has.
const TAIL: f64 = 0.02;
/// From this share of what people allow on, that is what holds the copy back.
const AT_LIMIT: f64 = 0.9;

/// The tables of a copy that are not whole, the largest first, and what there is beside them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Left {
    pub tables: Vec<Unfinished>,
    /// Parts of tables that are not in the list, with what they are thought to be in COPY.
    pub others: Pending,
    /// What is done, of all tables.
    pub done: Done,
    /// Bytes of COPY so far, Parts in flight included.
    pub copied: i64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Unfinished {
    pub table: String,
    /// Size on the source when it was planned, and about how many rows that is.
    pub bytes: i64,
    pub planned_rows: Option<i64>,
    /// About how many bytes of COPY they are.
    pub planned_copy_bytes: Option<i64>,
    pub parts: i64,
    pub parts_done: i64,
    pub done: Done,
    pub in_flight: Vec<InFlight>,
    pub pending: Pending,
}

/// Parts that are done: their planned size, and what they were.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Done {
    pub bytes: i64,
    pub copied: i64,
    pub rows: i64,
}

/// Parts that nobody has taken, and their planned size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub parts: i64,
    pub bytes: i64,
}

/// A Part that is being copied.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InFlight {
    pub part_id: i64,
    pub part_number: i32,
    /// Planned size, and how much of it is done.
    pub bytes: i64,
    pub bytes_done: i64,
    pub planned_rows: Option<i64>,
    /// Bytes of COPY and rows so far.
    pub copied: i64,
    pub rows: i64,
    pub seconds: f64,
}

impl InFlight {
    /// Mean rate, in bytes of COPY.
    pub fn bytes_per_second(&self) -> Option<f64> {
        (self.seconds > 0.5 && self.copied > 0).then(|| self.copied as f64 / self.seconds)
    }

    /// Bytes of COPY that are to come, if its rows say so.
    fn left_by_rows(&self) -> Option<f64> {
        let planned = self.planned_rows.filter(|_| self.rows >= SAMPLE)?;
        let each = self.copied as f64 / self.rows as f64;
        Some(((planned - self.rows) as f64 * each).max(self.copied as f64 * TAIL))
    }

    fn left(&self, ratio: f64) -> f64 {
        let planned = self.bytes as f64 * ratio - self.copied as f64;
        self.left_by_rows().unwrap_or(planned.max(self.copied as f64 * TAIL))
    }
}

impl Unfinished {
    pub fn bytes_done(&self) -> i64 {
        self.done.bytes + self.in_flight.iter().map(|part| part.bytes_done).sum::<i64>()
    }

    pub fn rows(&self) -> i64 {
        self.done.rows + self.in_flight.iter().map(|part| part.rows).sum::<i64>()
    }

    /// Of the Parts in flight together.
    pub fn bytes_per_second(&self) -> Option<f64> {
        Some(self.in_flight.iter().filter_map(InFlight::bytes_per_second).sum()).filter(|rate| *rate > 0.0)
    }

    /// Bytes of COPY a planned byte: as its own Parts say, else as was planned, else as for all tables.
    fn ratio(&self, of_all: f64) -> f64 {
        let planned = self.planned_copy_bytes.filter(|_| self.bytes > 0);
        let of_all = planned.map_or(of_all, |planned| planned as f64 / self.bytes as f64);
        let mut seen = (self.done.bytes as f64, self.done.copied as f64);
        for part in &self.in_flight {
            if let Some(left) = part.left_by_rows() {
                seen = (seen.0 + part.bytes as f64, seen.1 + part.copied as f64 + left);
            }
        }
        (seen.1 + PRIOR * of_all) / (seen.0 + PRIOR)
    }
}

/// How fast it is, in bytes of COPY a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    pub rate: f64,
    /// What people allow all that copy together.
    pub limit: Option<u64>,
}

/// What it comes to, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    /// Until the last Part is stored.
    pub all: f64,
    /// Until each table of `Left` is whole, in its order.
    pub tables: Vec<f64>,
    /// Until each Part in flight is stored, table by table in their order.
    pub parts: Vec<Vec<f64>>,
}

impl Left {
    /// Of the planned size, Parts in flight included.
    pub fn bytes_done(&self) -> i64 {
        let in_flight = self.tables.iter().flat_map(|table| &table.in_flight);
        self.done.bytes + in_flight.map(|part| part.bytes_done).sum::<i64>()
    }

    /// Whether every Part is done.
    pub fn is_nothing(&self) -> bool {
        self.tables.is_empty() && self.others.parts == 0
    }

    /// Bytes of COPY a planned byte, over all that is known.
    fn ratio(&self) -> f64 {
        let mut seen = (PRIOR + self.done.bytes as f64, PRIOR + self.done.copied as f64);
        for part in self.tables.iter().flat_map(|table| &table.in_flight) {
            if let Some(left) = part.left_by_rows() {
                seen = (seen.0 + part.bytes as f64, seen.1 + part.copied as f64 + left);
            }
        }
        seen.1 / seen.0
    }

    /// Goes through the queue as the workers will, the largest Part first. Where a limit holds them back, those that
    /// are left share all of it; else none becomes faster by the end of another, and the last table decides.
    pub fn forecast(&self, pace: Pace) -> Forecast {
        let workers = self.tables.iter().map(|table| table.in_flight.len()).sum::<usize>().max(1);
        let limited = pace.limit.is_some_and(|limit| pace.rate >= limit as f64 * AT_LIMIT);
        let each = pace.rate.max(1.0) / workers as f64;
        let ratio = self.ratio();
        let mut found = Forecast { all: 0.0, tables: vec![0.0; self.tables.len()], parts: Vec::new() };
        let mut queue: BinaryHeap<(u64, std::cmp::Reverse<usize>, i64)> = BinaryHeap::new();
        let mut hands: Vec<(f64, usize, Option<usize>)> = Vec::new();
        for (at, table) in self.tables.iter().enumerate() {
            let of_table = table.ratio(ratio);
            found.parts.push(vec![0.0; table.in_flight.len()]);
            hands.extend(table.in_flight.iter().enumerate().map(|(part, it)| (it.left(of_table), at, Some(part))));
            if table.pending.parts > 0 {
                let bytes = table.pending.bytes as f64 * of_table / table.pending.parts as f64;
                queue.push((bytes.max(0.0) as u64, std::cmp::Reverse(at), table.pending.parts));
            }
        }
        let mut now = 0.0;
        loop {
            while hands.len() < workers
                && let Some((bytes, at, parts)) = queue.pop()
            {
                let cost = if limited { 0.0 } else { EACH * each };
                hands.push((bytes as f64 + cost, at.0, None));
                if parts > 1 {
                    queue.push((bytes, at, parts - 1));
                }
            }
            let Some(next) = (0..hands.len()).min_by(|a, b| hands[*a].0.total_cmp(&hands[*b].0)) else { break };
            let speed = if limited { pace.rate.max(1.0) / hands.len() as f64 } else { each };
            let (bytes, at, part) = hands.swap_remove(next);
            hands.iter_mut().for_each(|(left, ..)| *left -= bytes);
            now += bytes / speed;
            found.tables[at] = now;
            if let Some(part) = part {
                found.parts[at][part] = now;
            }
        }
        let others = self.others.bytes.max(0) as f64 / pace.rate.max(1.0)
            + if limited { 0.0 } else { self.others.parts as f64 * EACH / workers as f64 };
        found.all = now + others;
        found
    }
}

/// How fast the copy was over the last minute.
#[derive(Debug, Default)]
pub struct Meter {
    looks: VecDeque<(Instant, u64)>,
    under: (Option<u64>, usize),
    rate: Option<f64>,
}

impl Meter {
    const OVER: Duration = Duration::from_secs(60);
    /// Less says nothing.
    const AT_LEAST: Duration = Duration::from_secs(1);

    /// Takes what was copied up to now, under which limit, and how many processes help; how fast it is, once that
    /// can be said. Another limit or helper begins anew: until there is something to say of it, the old rate
    /// counts, or the limit where that is less.
    pub fn add(&mut self, now: Instant, copied: u64, under: (Option<u64>, usize)) -> Option<Pace> {
        if under != self.under {
            self.under = under;
            self.looks.clear();
        }
        // Small Parts are seen, out of sight until they are committed, and seen again.
        let copied = self.looks.back().map_or(copied, |(_, before)| copied.max(*before));
        self.looks.push_back((now, copied));
        while self.looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= Self::OVER) {
            self.looks.pop_front();
        }
        if let Some(rate) = self.steepness() {
            self.rate = Some(rate).filter(|rate| *rate > 0.0);
        }
        let allowed = under.0.map_or(f64::INFINITY, |limit| limit as f64);
        self.rate.map(|rate| Pace { rate: rate.min(allowed), limit: under.0 })
    }

    /// Of the line that fits the looks best.
    fn steepness(&self) -> Option<f64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        if last.0.duration_since(first.0) < Self::AT_LEAST {
            return None;
        }
        let count = self.looks.len() as f64;
        let points = self
            .looks
            .iter()
            .map(|(at, copied)| (at.duration_since(first.0).as_secs_f64(), (*copied - first.1) as f64));
        let (x, y) = points.clone().fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x / count, sum.1 + y / count));
        let (both, alone) =
            points.fold((0.0, 0.0), |sum, (at, copied)| (sum.0 + (at - x) * (copied - y), sum.1 + (at - x) * (at - x)));
        Some(both / alone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn unlimited(rate: f64) -> Pace {
        Pace { rate, limit: None }
    }

    /// A table of one Part, of which so much is copied.
    fn whole(part_id: i64, bytes: i64, copied: i64) -> Unfinished {
        let in_flight = InFlight { part_id, part_number: 1, bytes, bytes_done: copied, copied, ..InFlight::default() };
        Unfinished { bytes, parts: 1, in_flight: vec![in_flight], ..Unfinished::default() }
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.02 * expected.max(0.1), "{found} and not {expected}");
    }

    #[test]
    fn the_longest_table_decides_where_workers_run_out_of_work() {
        let left = Left { tables: vec![whole(1, 100 * MIB, 0), whole(2, 20 * MIB, 0)], ..Left::default() };
        // Each of both goes at 5 MiB a second, also once it is alone.
        let found = left.forecast(unlimited(10.0 * MIB as f64));
        near(found.tables[1], 4.0);
        near(found.all, 20.0);
        // Held back by a limit, it gets what the other leaves.
        let found = left.forecast(Pace { rate: 10.0 * MIB as f64, limit: Some(10 << 20) });
        near(found.tables[1], 4.0);
        near(found.all, 12.0);
        assert_eq!(found.parts, [[found.all], [found.tables[1]]]);
        // With a limit that is far away nothing is shared.
        near(left.forecast(Pace { rate: 10.0 * MIB as f64, limit: Some(100 << 20) }).all, 20.0);
    }

    #[test]
    fn the_queue_is_gone_through_by_size() {
        let pending = |bytes: i64, parts: i64| Unfinished {
            bytes,
            parts,
            pending: Pending { parts, bytes },
            ..Unfinished::default()
        };
        let tables = vec![whole(1, 10 * MIB, 0), whole(2, 10 * MIB, 0), pending(10 * MIB, 1), pending(40 * MIB, 2)];
        let left = Left { tables, others: Pending { parts: 100, bytes: 2 * MIB }, ..Left::default() };
        let found = left.forecast(unlimited(2.0 * MIB as f64));
        near(found.tables[0], 10.0);
        near(found.tables[3], 30.0);
        near(found.tables[2], 40.0);
        near(found.all, 41.15);
    }

    #[test]
    fn rows_tell_how_far_a_part_is_whatever_its_size_on_disk() {
        let compressed = |rows| {
            let mut table = whole(1, 10 * MIB, 0);
            table.in_flight[0] =
                InFlight { planned_rows: Some(1000), rows, copied: rows * 100_000, ..table.in_flight[0].clone() };
            Left { tables: vec![table], ..Left::default() }.forecast(unlimited(1e6)).all
        };
        near(compressed(200), 80.0);
        near(compressed(900), 10.0);
        // There are more than the statistics said: a little is left.
        assert!(compressed(1500) < 5.0);
        // Nothing is known of it yet but what was planned.
        let mut planned = whole(1, 10 * MIB, 0);
        planned.planned_copy_bytes = Some(100_000_000);
        near(Left { tables: vec![planned], ..Left::default() }.forecast(unlimited(1e6)).all, 100.0);
    }

    /// A simulated series: the true rate of each second.
    fn metered(series: impl Iterator<Item = (u64, Option<u64>)>) -> Vec<Option<f64>> {
        let (start, mut copied, mut meter) = (Instant::now(), 0, Meter::default());
        let looks = series.enumerate().map(|(second, (rate, limit))| {
            let pace = meter.add(start + Duration::from_secs(second as u64), copied, (limit, 0));
            copied += rate;
            pace.map(|pace| pace.rate)
        });
        looks.collect()
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute_and_a_new_limit_counts_at_once() {
        let steady = metered((0..10).map(|_| (100, None)));
        assert_eq!(steady[0], None);
        near(steady[9].unwrap(), 100.0);
        // A copy that has slowed down for good is believed after a minute.
        let slower = metered((0..150).map(|second| (if second < 60 { 100 } else { 50 }, None)));
        near(slower[149].unwrap(), 50.0);
        // A stop of some seconds moves it little.
        let hiccup = metered((0..60).map(|second| (if (50..53).contains(&second) { 0 } else { 100 }, None)));
        assert!(hiccup[59].unwrap() > 85.0, "{hiccup:?}");
        let turned = metered((0..40).map(|second| if second < 30 { (1000, None) } else { (100, Some(100)) }));
        near(turned[29].unwrap(), 1000.0);
        assert!(turned[31..].iter().all(|rate| rate.is_some_and(|rate| rate <= 100.0)), "{turned:?}");
        near(turned[39].unwrap(), 100.0);
        // Nothing moves any more: no rate is better than an old one.
        let stands = metered((0..120).map(|second| (if second < 30 { 100 } else { 0 }, None)));
        assert_eq!(stands[119], None);
    }

    /// Looks at a real copy at 2 MB a second: a large table in Parts, one of compressed values, one of values as they
    /// are, and a hundred small ones.
    #[test]
    fn a_recorded_copy_is_foretold_within_a_tenth() {
        #[derive(Deserialize)]
        struct Look {
            at: f64,
            copied: u64,
            left: Left,
        }
        let recorded = include_str!("forecast_recorded.jsonl");
        let looks: Vec<Look> = recorded.lines().map(|line| serde_json::from_str(line).expect("a look")).collect();
        let (start, end) = (Instant::now(), looks.last().expect("looks").at);
        let (limit, mut meter, mut held) = (2 << 20, Meter::default(), 0);
        for look in &looks {
            let pace = meter.add(start + Duration::from_secs_f64(look.at), look.copied, (Some(limit), 0));
            if (0.1..0.9).contains(&(look.at / end)) {
                let all = look.left.forecast(pace.expect("there is a rate")).all;
                assert!((look.at + all - end).abs() < end / 10.0, "at {:.1} of {end:.1} s: {all:.1} s", look.at);
                held += 1;
            }
        }
        assert!(held >= 10, "{held} looks");
    }
}
