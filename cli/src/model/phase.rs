//! Where a migration is.

use std::fmt;
use std::str::FromStr;

/// Phases in their order. Kept in `pgmig.sentinel`, so they outlive a crash; a run starts again
/// from the one it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The sentinel is there; slot and snapshot may be. Left when the plan is stored.
    Planned,
    /// Objects that tables need are being made. Left when the last one is.
    Schema,
    /// Workers take Parts. Left when the last Part is done.
    Copy,
    /// Every Part is done, some table has not all its indexes. Left when each has.
    Indexes,
    /// Apply works through what was received during the copy; foreign keys follow.
    Catchup,
    /// Apply is level with the source. Left when endpos is reached.
    Follow,
    /// endpos is reached: sequences, materialized views, what had to wait. Cannot be undone.
    Cutover,
    Done,
}

impl Phase {
    pub const ALL: [Phase; 8] = [
        Phase::Planned,
        Phase::Schema,
        Phase::Copy,
        Phase::Indexes,
        Phase::Catchup,
        Phase::Follow,
        Phase::Cutover,
        Phase::Done,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Planned => "planned",
            Phase::Schema => "schema",
            Phase::Copy => "copy",
            Phase::Indexes => "indexes",
            Phase::Catchup => "catchup",
            Phase::Follow => "follow",
            Phase::Cutover => "cutover",
            Phase::Done => "done",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a phase")]
pub struct NotAPhase(String);

impl FromStr for Phase {
    type Err = NotAPhase;

    fn from_str(text: &str) -> Result<Phase, NotAPhase> {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| NotAPhase(text.to_string()))
    }
}
