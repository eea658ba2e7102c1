//! From the output plugin to the spool, and out of the spool in commit order.
//!
//! ```text
//! walsender ─► Decoder (wal2json | pgoutput) ─► Assembler ─► frames ─► Spool ─► SpoolReader ─► Item
//!     ▲                                                        │
//!     └───────────── flush_lsn: only what is durable ◄─────────┘
//! ```
//!
//! The receiver owns the left half and never waits for apply: it answers keepalives, writes frames
//! and reports what is durable. Apply owns the reader. They share the spool's end and nothing else.
//!
//! The source sends whole transactions in commit order, so the spool holds them in commit order. A
//! frame is a run of records that ends at a transaction's end (a boundary), or a piece of one large
//! transaction. After a crash everything behind the last boundary is cut off: the source sends that
//! transaction again, because flush_lsn was never reported past a boundary. This module never uses
//! `copy`.

pub mod assemble;
#[cfg(test)]
mod fuzz;
pub mod pgoutput;
pub mod receive;
mod scan;
pub mod spool;
pub mod wal2json;

use assemble::Assembler;

use crate::model::Lsn;

/// A message that does not say what the plugin's format allows. `what` names table and column.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    pub what: String,
    /// The same can be had as text, and read so.
    pub text_only: bool,
}

impl DecodeError {
    pub fn new(what: impl Into<String>) -> DecodeError {
        DecodeError { what: what.into(), text_only: false }
    }
}

/// Turns one plugin's messages into records. The rest of the program cannot tell plugins apart.
pub trait Decoder: Send {
    /// `wal` is the position in the message's header: for a commit the end of its record.
    fn decode(&mut self, wal: Lsn, message: &[u8], into: &mut Assembler) -> Result<(), DecodeError>;
}

/// How the prefix of a logical message begins in which the source tells DDL; the name of the migration follows.
pub(crate) const DDL_PREFIX: &str = "pgmig ddl ";
