//! pgmig moves a live PostgreSQL database to another server and proves that nothing was lost.
//! ARCHITECTURE.md is the way in.

pub mod embedded;
pub mod error;
pub mod model;
pub mod verify;
