//! pgmig moves a live PostgreSQL database to another server and proves that nothing was lost.
//! ARCHITECTURE.md is the way in.

pub mod apply;
pub mod args;
pub mod command;
pub mod config;
pub mod connect;
pub mod copy;
pub mod crash;
pub mod cutover;
pub mod embedded;
pub mod error;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod patience;
pub mod plan_db;
pub mod preflight;
pub mod report;
pub mod selection;
pub mod server;
pub mod source;
pub mod stalls;
pub mod stream;
pub mod target;
pub mod verify;
