//! Which tables are copied and wait for their indexes, constraints and statistics. Copy workers offer
//! tables, index builders take work; what is done is marked on the target, here is only the order.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::model::TableName;
use crate::target::queue::Step;

/// Something to build.
#[derive(Debug)]
pub enum Work {
    /// All that a table needs; None stands for steps of no table.
    Table { table: Option<TableName>, bytes: i64 },
    /// One index of a large table: its indexes are built side by side and share the scan.
    Index { step: Step, rest: Arc<Rest> },
    /// What follows once the indexes of a large table are there, in order.
    Rest { steps: Vec<Step>, bytes: i64 },
}

/// Constraints and statistics of a table, which wait for its indexes.
#[derive(Debug)]
pub struct Rest {
    steps: Mutex<Vec<Step>>,
    indexes_left: std::sync::atomic::AtomicUsize,
    bytes: i64,
}

impl Rest {
    pub fn new(steps: Vec<Step>, indexes: usize, bytes: i64) -> Arc<Rest> {
        Arc::new(Rest { steps: Mutex::new(steps), indexes_left: indexes.into(), bytes })
    }
    /// An index is built; the last one gives the rest.
    pub fn index_done(&self) -> Option<Work> {
        let last = self.indexes_left.fetch_sub(1, std::sync::atomic::Ordering::AcqRel) == 1;
        last.then(|| {
            let steps = std::mem::take(&mut *self.steps.lock().expect("no holder of the lock panics"));
            Work::Rest { steps, bytes: self.bytes }
        })
    }
}

impl Work {
    /// Large tables first, and of one table what was begun first.
    fn rank(&self) -> (i64, u8) {
        match self {
            Work::Rest { bytes, .. } => (*bytes, 2),
            Work::Index { rest, .. } => (rest.bytes, 1),
            Work::Table { bytes, .. } => (*bytes, 0),
        }
    }
}

struct Ranked(Work);
impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.0.rank() == other.0.rank()
    }
}
impl Eq for Ranked {}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Ordering {
        self.0.rank().cmp(&other.0.rank())
    }
}

#[derive(Default)]
struct State {
    waiting: BinaryHeap<Ranked>,
    /// Handed out and not done: more may come of it.
    in_hand: usize,
    offered: HashSet<Option<TableName>>,
    closed: bool,
    /// Nothing more is handed out.
    abandoned: bool,
}

/// Shared by copy workers and index builders.
#[derive(Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Notify,
}

impl Board {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Tables that are copied, and about how many bytes each holds. One that was offered is not again.
    pub fn offer(&self, tables: impl IntoIterator<Item = (Option<TableName>, i64)>) {
        let mut state = self.state();
        if state.abandoned {
            return;
        }
        for (table, bytes) in tables {
            if state.offered.insert(table.clone()) {
                state.waiting.push(Ranked(Work::Table { table, bytes }));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn add(&self, work: impl IntoIterator<Item = Work>) {
        let mut state = self.state();
        if !state.abandoned {
            state.waiting.extend(work.into_iter().map(Ranked));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// No table will be offered any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_waiters();
    }

    /// What is in hand is finished, and no more.
    pub fn abandon(&self) {
        let mut state = self.state();
        state.waiting.clear();
        (state.abandoned, state.closed) = (true, true);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The next work, or several small tables at once; None once all is done. Each call must be followed
    /// by [`done`](Self::done).
    pub async fn take(&self, small: i64, most: usize) -> Option<Vec<Work>> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Before the look, so that what comes in between is not missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(Ranked(first)) = state.waiting.pop() {
                    let mut taken = vec![first];
                    let is_small = |work: &Work| matches!(work, Work::Table { bytes, .. } if *bytes <= small);
                    while is_small(&taken[0])
                        && taken.len() < most
                        && state.waiting.peek().is_some_and(|next| is_small(&next.0))
                    {
                        taken.extend(state.waiting.pop().map(|next| next.0));
                    }
                    state.in_hand += 1;
                    return Some(taken);
                }
                if state.closed && state.in_hand == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// What was taken is done, and what came of it has been added.
    pub fn done(&self) {
        self.state().in_hand -= 1;
        self.changed.notify_waiters();
    }
}
