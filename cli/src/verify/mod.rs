//! Compares two databases and says what differs. It only reads them, and it never shows the value of a
//! row: names, counts and digests are enough to find the place. Between two versions it makes a third
//! database on the target's server for a moment (`scratch`).

pub mod align;
mod catalog;
pub mod digest;
pub mod live;
pub mod objects;
pub mod repair;
mod rows;
mod schema;
mod scratch;
mod side;
mod skipped;
mod whole;

pub use whole::{Options, Progress, compare};

use std::fmt;

/// What kind of thing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Table,
    Rows,
    Sequence,
    LargeObject,
    MaterializedView,
    Constraint,
    Index,
    Trigger,
    ReplicaIdentity,
    Schema,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Table => "table",
            Kind::Rows => "rows",
            Kind::Sequence => "sequence",
            Kind::LargeObject => "large object",
            Kind::MaterializedView => "materialized view",
            Kind::Constraint => "constraint",
            Kind::Index => "index",
            Kind::Trigger => "trigger",
            Kind::ReplicaIdentity => "replica identity",
            Kind::Schema => "schema",
        })
    }
}

/// One thing that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Difference {
    pub kind: Kind,
    /// Name of the object, quoted as SQL would have it.
    pub object: String,
    /// Counts, digests or settings of both sides.
    pub what: String,
}

impl Difference {
    fn new(kind: Kind, object: impl Into<String>, what: impl Into<String>) -> Difference {
        Difference { kind, object: object.into(), what: what.into() }
    }
    /// For what exists on one side alone.
    fn one_sided(kind: Kind, object: impl Into<String>, on_source: bool) -> Difference {
        Difference::new(kind, object, if on_source { "is missing on the target" } else { "exists on the target only" })
    }
}

/// How much was compared. Objects that exist on one side alone are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    pub tables: u64,
    /// Rows of the source.
    pub rows: u64,
    pub sequences: u64,
    pub large_objects: u64,
    pub statements: u64,
}

/// The outcome of a comparison.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Comparison {
    pub differences: Vec<Difference>,
    pub totals: Totals,
}

impl Comparison {
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }
    /// Whether a difference of this kind was found at an object whose name holds `part`.
    pub fn holds(&self, kind: Kind, part: &str) -> bool {
        self.differences.iter().any(|d| d.kind == kind && d.object.contains(part))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Difference { kind, object, what } in &self.differences {
            writeln!(f, "{kind:<17} {object}  {what}")?;
        }
        match self.differences.len() {
            0 => write!(f, "equal: ")?,
            1 => write!(f, "1 difference in ")?,
            many => write!(f, "{many} differences in ")?,
        }
        let Totals { tables, rows, sequences, large_objects, statements } = self.totals;
        write!(
            f,
            "{tables} tables, {rows} rows, {sequences} sequences, {large_objects} large objects, {statements} statements of schema"
        )
    }
}
