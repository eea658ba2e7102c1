//! What is known of a migration from its begin to now: read by `target` and `plan_db`, shown by `pgmig
//! report`. Sizes are in bytes. No password and no value of a row.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LeftOut, Lsn, Progress};

/// How many transactions of the copy, and of what is made, are read: the longest ones.
pub const SPANS: usize = 2500;
/// What stands for the large objects in the list of tables.
pub const LARGE_OBJECTS: &str = "large objects";

/// All that can be told of one migration; what neither side knows is missing.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub migration: String,
    /// What the target says; or said, before it was cleaned up.
    pub facts: Option<Facts>,
    pub runs: Vec<RunStart>,
    pub samples: Vec<Sample>,
    pub left_out: Vec<LeftOut>,
    /// Phases as this machine saw them.
    pub phases: Vec<(Timestamp, String)>,
    /// Why one of both sides is missing, for people.
    pub missing: Vec<String>,
}

/// What the schema `pgmig` on the target says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    pub read_at: Timestamp,
    pub progress: Progress,
    pub copied_rows: i64,
    /// Bytes of the COPY streams.
    pub copied_bytes: i64,
    pub copy_started_at: Option<Timestamp>,
    pub copy_finished_at: Option<Timestamp>,
    pub target_version: String,
    pub flavour: String,
    /// The largest ones.
    pub tables: Vec<Table>,
    pub objects: Vec<Objects>,
    /// Transactions that stored rows, the longest ones.
    pub parts: Vec<Span>,
    /// Transactions that made objects, the longest ones.
    pub steps: Vec<Span>,
    pub failed: Vec<Failed>,
    pub conflicts: Vec<Conflicts>,
    pub cutover: Vec<CutoverStep>,
    pub verifications: Vec<Verification>,
    /// The newest ones.
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub parts: i64,
    pub done: bool,
    /// Size on the source when planned.
    pub bytes: i64,
    pub copied_bytes: i64,
    pub rows: i64,
    /// From the first Part's begin to the last one's end.
    pub seconds: Option<f64>,
}

/// Objects of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Objects {
    pub kind: String,
    pub total: i64,
    pub done: i64,
    pub failed: i64,
}

/// One transaction of the target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Span {
    /// `copy`, or the stage of its steps.
    pub stage: String,
    /// The largest of what it did.
    pub name: String,
    /// How many Parts or steps it held.
    pub count: i64,
    pub bytes: i64,
    pub rows: i64,
    pub started_at: Timestamp,
    /// None while it runs.
    pub finished_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    pub kind: String,
    pub name: String,
    pub sqlstate: String,
    pub message: String,
    pub statement: String,
}

/// Changes of one table and kind that were passed over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Conflicts {
    pub table: String,
    pub kind: String,
    pub key_columns: Vec<String>,
    pub changes: i64,
    pub last_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CutoverStep {
    pub attempt: i32,
    pub step: String,
    /// Whether writes on the source are stopped while it is done.
    pub stops_writes: bool,
    pub state: String,
    pub message: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// What one `pgmig verify` came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verification {
    pub at: Timestamp,
    pub lsn: Option<Lsn>,
    /// Only the catalogs and counts were compared.
    pub quick: bool,
    pub tables: i64,
    pub rows: i64,
    pub bytes: i64,
    pub seconds: f64,
    /// How long apply was held for it.
    pub held_seconds: Option<f64>,
    /// What differs, table by table.
    pub differences: Vec<Difference>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Difference {
    pub table: String,
    pub what: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    pub level: String,
    pub message: String,
}

/// A `pgmig run` that began, and how it was told to work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStart {
    pub at: Timestamp,
    /// Of pgmig.
    pub version: String,
    /// Name and value, secrets left out.
    pub settings: Vec<(String, String)>,
}

/// Where the stream was at one moment, with what was highest since the sample before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub at: Timestamp,
    pub source_lsn: Lsn,
    /// All before is applied.
    pub reached_lsn: Lsn,
    pub lag_bytes: u64,
    pub spool_bytes: u64,
    /// The first one of a run: nothing is known of the time before.
    pub first: bool,
}

impl Sample {
    /// This one and a later one as one.
    pub fn and(self, later: Sample) -> Sample {
        Sample {
            lag_bytes: self.lag_bytes.max(later.lag_bytes),
            spool_bytes: self.spool_bytes.max(later.spool_bytes),
            first: self.first || later.first,
            ..later
        }
    }
}

/// Half as many samples, each standing for two.
pub fn halved(samples: &[Sample]) -> Vec<Sample> {
    samples.chunks(2).map(|two| two[1..].iter().fold(two[0], |one, other| one.and(*other))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinned_samples_keep_their_peaks_and_their_last_position() {
        let sample = |second: i64, lsn: u64, lag: u64| Sample {
            at: Timestamp::from_second(second).unwrap(),
            source_lsn: Lsn(lsn),
            reached_lsn: Lsn(lsn - lag),
            lag_bytes: lag,
            spool_bytes: 0,
            first: second == 0,
        };
        let all = [sample(0, 100, 0), sample(1, 200, 90), sample(2, 300, 80), sample(3, 400, 1), sample(4, 500, 2)];
        let thin = halved(&all);
        assert_eq!(
            thin.iter().map(|s| (s.source_lsn.0, s.lag_bytes)).collect::<Vec<_>>(),
            [(200, 90), (400, 80), (500, 2)]
        );
        assert!(thin[0].first && !thin[1].first);
    }
}
