//! The vocabulary: values and pure functions. Nothing here reads or writes anything, and nothing
//! here uses another module of ours.

pub mod lsn;

pub use lsn::Lsn;
