//! The copy: every table as it was under one snapshot, in parallel.
//!
//! ```text
//!   plan ─► pgmig.part (queue on the target) ◄── workers take Parts, largest first
//!                                                 │  source: COPY TO under the exported snapshot
//!                                                 ▼  target: one transaction a Part
//!                              begin · lock Part · truncate · COPY … FREEZE · mark done + tag · commit
//! ```
//!
//! A Part and its mark commit together, so after a crash the target says which Parts are there. Each
//! carries the tag of the snapshot it was read under; Parts copied later, under another snapshot, are
//! reconciled by the stream, which skips what a tag already shows. Workers offer tables whose last Part
//! is done on a board, from which index builders take them. This module never uses `stream`.

pub mod board;
pub mod builder;
pub mod draft;
pub mod extension_data;
pub mod failure;
pub mod giving_way;
pub mod in_hand;
mod kept;
pub mod parts;
pub mod pool;
pub mod probed;
mod sessions;
pub mod shared;
pub mod steps;
pub mod throttle;
pub mod united;
pub mod worker;
