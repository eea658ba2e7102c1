//! What a check found: the word, the fact, and what mends it.

use serde::Serialize;

use super::Mend;

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Source,
    Target,
    /// This machine, or what was typed.
    Here,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Pass,
    /// It goes, and something will be slow, left behind or in danger.
    Warn,
    /// A run is refused.
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub place: Place,
    /// What was looked at, in a word or two.
    pub check: &'static str,
    pub verdict: Verdict,
    pub message: String,
    /// What to run or to do.
    #[serde(flatten)]
    pub mend: Mend,
}
