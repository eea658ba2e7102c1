//! What all workers of a run share.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::board::Board;
use super::in_hand::InHand;
use super::throttle::Throttle;
use crate::config::Conninfo;
use crate::model::Lsn;
use crate::patience::Patience;
use crate::report::Reporter;
use crate::source::large_objects::Belongings;

/// Settings, the snapshot, and what holds the workers together.
pub struct Shared {
    pub source: Conninfo,
    pub target: Conninfo,
    pub migration: String,
    /// The snapshot, as its holder exported it; None: each Part is read under one of its own.
    pub exported: Option<String>,
    /// Whatever the snapshot shows was committed before this.
    pub lsn: Lsn,
    /// Whether the sentinel says under which snapshot Parts are read, and they are done only for as long as
    /// it does: several processes may read.
    pub published: bool,
    /// Whether the tables have their indexes and foreign keys already.
    pub late: bool,
    /// Whether the stream reconciles what is read under another snapshot.
    pub follow: bool,
    /// Bounds how many read large objects at once.
    pub large_objects: Semaphore,
    pub belongings: Belongings,
    pub board: Arc<Board>,
    pub report: Reporter,
    /// Turned down by people, and while the source keeps too much WAL.
    pub throttle: Throttle,
    /// What the workers have in hand, for whoever watches that it moves.
    pub in_hand: InHand,
    /// True once no further Part is to be taken.
    pub stopping: watch::Receiver<bool>,
    pub patience: Patience,
}

impl Shared {
    /// Waits until a worker may send these bytes.
    pub async fn keep_to_rate(&self, worker: usize, bytes: u64) {
        self.in_hand.held_back(worker);
        self.throttle.wait(bytes).await;
        self.in_hand.moved(worker);
    }
}
