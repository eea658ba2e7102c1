//! Clients that write at a steady rate, each numbered rows of its own, a row a transaction, and remember how
//! long they waited for an answer. One that has waited does not hurry afterwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::Outcome;
use crate::servers::session;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    longest: Mutex<Duration>,
}

pub struct Clients {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<i64>>,
}

/// What all clients came to.
pub struct Written {
    /// The last number that each was answered.
    last: Vec<i64>,
    pub answered: u64,
    pub failed: u64,
    pub longest: Duration,
}

impl Clients {
    /// `rate` is that of all together.
    pub fn start(uri: &str, clients: u32, rate: u32) -> Clients {
        let shared = Arc::new(Shared::default());
        let every = Duration::from_secs(1) * clients / rate.max(1);
        let task = |client| tokio::spawn(write(uri.to_string(), client as i32, every, shared.clone()));
        Clients { tasks: (0..clients).map(task).collect(), shared }
    }

    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    pub fn forget_waits(&self) {
        *self.shared.longest.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
    }

    pub async fn have_written(&self, more: u64, limit: Duration) -> Outcome<()> {
        let (from, start) = (self.answered(), Instant::now());
        while self.answered() < from + more {
            if start.elapsed() > limit {
                return Err("the clients do not write any more".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub async fn stop(self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut last = Vec::new();
        for task in self.tasks {
            last.push(task.await.unwrap_or_default());
        }
        let longest = *self.shared.longest.lock().unwrap_or_else(PoisonError::into_inner);
        let (answered, failed) =
            (self.shared.answered.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed));
        Written { last, answered, failed, longest }
    }
}

impl Written {
    /// How many answered rows the target lacks, and how many it has twice.
    pub async fn missing(&self, target: &tokio_postgres::Client) -> Outcome<i64> {
        let clients: Vec<i32> = (0..self.last.len() as i32).collect();
        let query = "select coalesce(sum(abs(w.last - coalesce(n.rows, 0)) + coalesce(n.rows - n.numbers, 0)), 0)::int8
                       from unnest($1::int[], $2::int8[]) as w (client, last)
                            left join (select client, count(*) as rows, count(distinct number) as numbers
                                         from note group by client) n using (client)";
        Ok(target.query_one(query, &[&clients, &self.last]).await?.get(0))
    }
}

async fn write(uri: String, client: i32, every: Duration, shared: Arc<Shared>) -> i64 {
    let mut number = 0;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = None;
    while !shared.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let asked = Instant::now();
        if open.is_none() {
            open = session(&uri).await.ok();
        }
        let Some(session) = &open else {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        // Nothing is prepared: the next transaction may be another server's.
        let insert = format!("insert into public.note (client, number) values ({client}, {})", number + 1);
        match session.simple_query(&insert).await {
            Ok(_) => {
                number += 1;
                shared.answered.fetch_add(1, Ordering::Relaxed);
                let mut longest = shared.longest.lock().unwrap_or_else(PoisonError::into_inner);
                *longest = longest.max(asked.elapsed());
            }
            Err(_) => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                open = open.filter(|session| !session.is_closed());
            }
        }
    }
    number
}
