//! What a comparison of both sides found.

use serde::Serialize;

use super::TableName;

/// A row that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RowDifference {
    /// Columns and values of its key; empty where the table has none.
    pub key: Vec<(String, Option<String>)>,
    pub what: &'static str,
    /// The hash of the row on each side that has it: what finds a row without a key again.
    #[serde(skip)]
    pub hashes: Vec<i64>,
}

impl RowDifference {
    pub const MISSING: &'static str = "is missing on the target";
    pub const EXTRA: &'static str = "is on the target only";
    pub const OTHER: &'static str = "has other values on the target";
}

/// What differs in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableDifference {
    pub table: TableName,
    pub what: String,
    pub rows: Vec<RowDifference>,
    /// Whether `rows` names all of them.
    pub complete: bool,
}

/// Something of an object that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ObjectDifference {
    /// What it is, in the words of `pg_identify_object`.
    pub kind: String,
    /// Its name, quoted as SQL would have it.
    pub object: String,
    /// What differs; empty if the object is on one side alone.
    pub property: String,
    pub what: String,
    /// The statement that makes the target like the source, where there is a simple one.
    pub mend: Option<String>,
}
