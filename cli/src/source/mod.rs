//! All that is said to the source. Must never say anything to the target.

pub mod replication;
