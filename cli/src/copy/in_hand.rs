//! What each worker of this process has in hand, and since when no byte of it has moved. It only remembers:
//! who is to hear of it is for others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::target::queue::Part;

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct InHand(Arc<Mutex<BTreeMap<usize, Held>>>);

/// A Part in a worker's hand.
#[derive(Debug, Clone)]
pub struct Held {
    pub id: i64,
    pub name: String,
    /// The worker's backend of either server.
    pub target_pid: i32,
    pub source_pid: i32,
    /// None while the worker keeps to a rate: then nothing is to move.
    moved: Option<Instant>,
}

impl Held {
    /// How long no byte has moved.
    pub fn still_for(&self) -> Duration {
        self.moved.map_or(Duration::ZERO, |moved| moved.elapsed())
    }
}

impl InHand {
    pub fn began(&self, worker: usize, part: &Part, (source_pid, target_pid): (i32, i32)) {
        let held = Held { id: part.id, name: part.to_string(), target_pid, source_pid, moved: Some(Instant::now()) };
        self.held().insert(worker, held);
    }

    pub fn moved(&self, worker: usize) {
        self.set(worker, Some(Instant::now()));
    }

    /// Until it moves again.
    pub fn held_back(&self, worker: usize) {
        self.set(worker, None);
    }

    pub fn let_go(&self, worker: usize) {
        self.held().remove(&worker);
    }

    pub fn standing(&self, longer: Duration) -> Vec<Held> {
        self.held().values().filter(|held| held.still_for() >= longer).cloned().collect()
    }

    fn set(&self, worker: usize, moved: Option<Instant>) {
        if let Some(held) = self.held().get_mut(&worker) {
            held.moved = moved;
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<usize, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
