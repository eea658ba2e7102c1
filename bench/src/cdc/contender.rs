//! Who follows the backlog, and what each needs from before it.

use std::fmt;

use super::Part;
use crate::servers::in_path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    Pgoutput,
    Wal2json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Extension,
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// The server's own logical replication.
    Native,
    /// `pg_recvlogical` to nowhere: what decoding takes by itself.
    Floor(Plugin),
    Pgmig(Flavour, Plugin),
    /// `pgcopydb follow`, where it is installed.
    Pgcopydb,
}

pub fn all(part: Part) -> Vec<Contender> {
    use Contender::{Floor, Native, Pgcopydb, Pgmig};
    use Flavour::{Extension, Plain};
    use Plugin::{Pgoutput, Wal2json};
    match part {
        Part::Bulk | Part::Hot => vec![
            Native,
            Pgmig(Extension, Pgoutput),
            Pgmig(Plain, Pgoutput),
            Floor(Pgoutput),
            Pgmig(Extension, Wal2json),
            Pgmig(Plain, Wal2json),
            Floor(Wal2json),
        ]
        .into_iter()
        .chain(in_path("pgcopydb").map(|_| Pgcopydb))
        .collect(),
        Part::Lag => vec![Native, Pgmig(Extension, Pgoutput), Pgmig(Plain, Pgoutput)],
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Plugin::Pgoutput { "pgoutput" } else { "wal2json" })
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Flavour::Extension { "extension" } else { "plain" })
    }
}

impl Contender {
    pub fn name(&self) -> String {
        match self {
            Contender::Native => "native".to_string(),
            Contender::Floor(plugin) => format!("floor {plugin}"),
            Contender::Pgmig(flavour, plugin) => format!("pgmig {flavour} {plugin}"),
            Contender::Pgcopydb => "pgcopydb".to_string(),
        }
    }
    /// A word that names its slot, its template and its folder.
    pub fn word(&self) -> String {
        self.name().replace(' ', "_")
    }
    pub fn plugin(&self) -> Plugin {
        match self {
            Contender::Native => Plugin::Pgoutput,
            Contender::Floor(plugin) | Contender::Pgmig(_, plugin) => *plugin,
            Contender::Pgcopydb => Plugin::Wal2json,
        }
    }
    /// Whether it writes to the target.
    pub fn applies(&self) -> bool {
        !matches!(self, Contender::Floor(_))
    }
}
