//! What a migration leaves out, in words that people and machines are shown.

use serde::{Deserialize, Serialize};

/// How much of an object is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Object,
    /// It is there, and empty.
    Rows,
    /// What happens to it after the copy.
    Changes,
    UpdatesAndDeletes,
    /// A foreign key is made and not validated.
    Validation,
}

/// Something that a migration leaves out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOut {
    pub what: What,
    pub kind: String,
    pub name: String,
    pub why: String,
}
