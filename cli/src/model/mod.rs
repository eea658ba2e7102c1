//! The vocabulary: values and pure functions. Nothing here reads or writes anything, and nothing
//! here uses another module of ours.

pub mod column;
pub mod difference;
pub mod finding;
pub mod fix;
pub mod forecast;
pub mod history;
pub mod key;
pub mod latency;
pub mod leave;
pub mod left_out;
pub mod lsn;
pub mod mend;
pub mod name;
pub mod phase;
pub mod progress;
pub mod service;
pub mod snapshot;
pub mod stall;
pub mod status;
pub mod wire;

pub use column::{Column, Form};
pub use difference::{ObjectDifference, RowDifference, TableDifference};
pub use finding::{Finding, Place, Verdict};
pub use key::{KeyRange, KeyValue};
pub use leave::Leave;
pub use left_out::{LeftOut, What};
pub use lsn::Lsn;
pub use mend::{Given, Mend, Step};
pub use name::TableName;
pub use phase::Phase;
pub use progress::Progress;
pub use service::Service;
pub use snapshot::SnapshotTag;
