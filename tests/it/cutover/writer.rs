//! Clients that write all the time, each one numbered row a transaction, and remember the last that was
//! answered and the longest they had to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::wait_until;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

pub struct Clients {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Written>>,
}

/// What one client, or all of them, came to.
#[derive(Debug, Default)]
pub struct Written {
    /// The last number that was answered, by client.
    last: Vec<(usize, u64)>,
    /// Transactions that a server refused, and connections that it ended.
    pub refused: u64,
    pub longest: Duration,
}

impl Written {
    pub fn answered(&self) -> String {
        self.last.iter().map(|(client, number)| format!("{client}:{number}")).collect::<Vec<_>>().join(",")
    }
}

impl Clients {
    pub async fn start(uri: &str, clients: usize) -> Clients {
        Clients::start_as(uri, 0..clients).await
    }

    /// With numbers of their own.
    pub async fn start_as(uri: &str, clients: std::ops::Range<usize>) -> Clients {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = |client| tokio::spawn(write(uri.to_string(), client, stop.clone(), written.clone()));
        Clients { tasks: clients.map(task).collect(), stop, written }
    }

    /// Waits until that many more transactions are answered.
    pub async fn have_written(&self, more: u64) {
        let from = self.written.load(Ordering::Relaxed);
        wait_until(Duration::from_secs(30), "the clients write", async || {
            self.written.load(Ordering::Relaxed) >= from + more
        })
        .await;
    }

    pub async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for task in self.tasks {
            let one = task.await.expect("a client does not panic");
            all.last.extend(one.last);
            all.refused += one.refused;
            all.longest = all.longest.max(one.longest);
        }
        all
    }
}

async fn write(uri: String, client: usize, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) -> Written {
    let mut all = Written { last: vec![(client, 0)], ..Written::default() };
    let mut session: Option<Client> = None;
    let mut number = 1;
    let mut since: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if session.is_none() {
            session = match tokio_postgres::connect(&uri, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    Some(client)
                }
                Err(_) => None,
            };
        }
        let Some(open) = &session else { continue };
        let insert = format!("insert into public.note (client, number) values ({client}, {number})");
        match open.simple_query(&insert).await {
            Ok(_) => {
                all.last = vec![(client, number)];
                let now = Instant::now();
                all.longest = all.longest.max(since.map_or(Duration::ZERO, |since| now - since));
                since = Some(now);
                number += 1;
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                all.refused += 1;
                if open.is_closed() {
                    session = None;
                }
            }
        }
    }
    all
}
