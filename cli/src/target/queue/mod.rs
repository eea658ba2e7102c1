//! Parts and steps as a queue on the target. A work item is taken by its row lock, so a dead worker's
//! claim is gone with its connection, and done in the transaction that did the work.

mod born;
mod leaves;
mod parts;
mod steps;

pub use born::*;
pub use leaves::*;
pub use parts::*;
pub use steps::*;
