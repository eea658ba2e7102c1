//! A writer that never pauses: several sessions that run random transactions until they are told to
//! stop. What it sends follows from its seed alone; how the sessions interleave does not.
//! It never hides an error: those that its own habits provoke are counted, any other ends it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{EXIT, pagila, session, shop};
use crate::error::{Context, Error, Result};
use crate::model::Lsn;

/// Which database the writer knows its way around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// sample.sql
    Shop,
    /// The public sample database Pagila.
    Pagila,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub connections: usize,
    pub seed: u64,
    /// At most so many transactions a second, all sessions together.
    pub tps: Option<f64>,
    /// Goes on when the server restarts or ends a session; such errors are counted too.
    pub survives_restarts: bool,
}

impl Options {
    pub fn seed(seed: u64) -> Options {
        Options { connections: 4, seed, tps: None, survives_restarts: false }
    }
}

/// The highest keys that the database held at the start, by the names the workload gives them.
pub(super) type Sizes = BTreeMap<&'static str, i64>;

/// Makes the transactions of one session.
pub(super) struct Maker {
    pub rng: Rng,
    pub sizes: Sizes,
    /// Tells this session's new keys from those of all others.
    pub tag: String,
    pub made: u64,
}

impl Maker {
    /// A key of a row that was there at the start, the first ones more often.
    pub fn key(&mut self, of: &str) -> i64 {
        let most = self.sizes.get(of).copied().unwrap_or(1).max(1);
        if self.rng.u8(..4) == 0 { self.rng.i64(1..=most.min(5)) } else { self.rng.i64(1..=most) }
    }
    /// A text that this writer has not made before.
    pub fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.tag, self.made)
    }
    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.rng.usize(..from.len())]
    }
}

impl Workload {
    fn sizes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Workload::Shop => shop::SIZES,
            Workload::Pagila => pagila::SIZES,
        }
    }
    fn statement(self, maker: &mut Maker) -> String {
        match self {
            Workload::Shop => shop::statement(maker),
            Workload::Pagila => pagila::statement(maker),
        }
    }

    /// The statements between BEGIN and the end, and the BEGIN and the end.
    fn transaction(self, maker: &mut Maker) -> Vec<String> {
        let length = match maker.rng.u8(..10) {
            0..4 => 1,
            4..8 => maker.rng.usize(2..6),
            _ => maker.rng.usize(6..21),
        };
        let begin = if maker.rng.u8(..20) == 0 { "begin isolation level serializable" } else { "begin" };
        let mut statements = vec![begin.to_string()];
        let mut savepoints = 0;
        for _ in 0..length {
            match maker.rng.u8(..12) {
                0 => {
                    savepoints += 1;
                    statements.push(format!("savepoint s{savepoints}"));
                }
                1 if savepoints > 0 => statements.push(format!("rollback to s{}", maker.rng.u32(1..=savepoints))),
                2 if savepoints > 0 => {
                    statements.push(format!("release s{savepoints}"));
                    savepoints -= 1;
                }
                _ => {}
            }
            // A savepoint that was rolled back over is gone; the names above it with it.
            if let Some(to) = statements.last().and_then(|s| s.strip_prefix("rollback to s")) {
                savepoints = to.parse().unwrap_or(savepoints);
            }
            statements.push(self.statement(maker));
        }
        statements.push(if maker.rng.u8(..12) == 0 { "rollback" } else { "commit" }.to_string());
        statements
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    transactions: AtomicU64,
    rows: AtomicU64,
    turns: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    unexpected: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running workload. Dropping it ends it too, without a summary.
pub struct Writer {
    shared: Arc<Shared>,
    sessions: Vec<JoinHandle<()>>,
    uri: String,
    workload: Workload,
    seed: u64,
    started: Instant,
}

impl Writer {
    pub async fn start(uri: &str, workload: Workload, options: Options) -> Result<Writer> {
        let client = session(uri, "pgmig writer").await?;
        let mut sizes = Sizes::new();
        for (name, query) in workload.sizes() {
            let row = client.query_one(*query, &[]).await.during(EXIT, || format!("ask how many {name} there are"))?;
            sizes.insert(name, row.get::<_, Option<i64>>(0).unwrap_or(1));
        }
        let shared = Arc::new(Shared::default());
        let started = Instant::now();
        let sessions = (0..options.connections.max(1)).map(|number| {
            let seed = options.seed.wrapping_add(number as u64);
            let tag = format!("w{:x}-{number}", started_at());
            let maker = Maker { rng: Rng::with_seed(seed), sizes: sizes.clone(), tag, made: 0 };
            let one = Session {
                uri: uri.to_string(),
                workload,
                options: options.clone(),
                shared: shared.clone(),
                maker,
                started,
            };
            tokio::spawn(one.run())
        });
        let sessions = sessions.collect();
        Ok(Writer { shared, sessions, uri: uri.to_string(), workload, seed: options.seed, started })
    }

    /// Transactions committed so far.
    pub fn transactions(&self) -> u64 {
        self.shared.transactions.load(Ordering::Relaxed)
    }
    /// Whether an error that nothing explains has ended a session.
    pub fn has_failed(&self) -> bool {
        !locked(&self.shared.unexpected).is_empty()
    }
    /// Lets each session finish its transaction.
    pub async fn stop(mut self) -> Result<Summary> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for session in std::mem::take(&mut self.sessions) {
            session.await.map_err(|e| Error::bug("stop the writer").cause(e))?;
        }
        let elapsed = self.started.elapsed();
        let client = session(&self.uri, "pgmig writer").await?;
        let row = client.query_one("select pg_current_wal_insert_lsn()", &[]).await;
        let last_commit_lsn = row.during(EXIT, || "ask for the position of the last commit".to_string())?.get(0);
        Ok(Summary {
            transactions: self.transactions(),
            rows: self.shared.rows.load(Ordering::Relaxed),
            errors: std::mem::take(&mut *locked(&self.shared.errors)),
            unexpected: std::mem::take(&mut *locked(&self.shared.unexpected)),
            elapsed,
            seed: self.seed,
            last_commit_lsn,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.sessions.iter().for_each(JoinHandle::abort);
    }
}
impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer {{ {:?}, seed: {}, transactions: {} }}", self.workload, self.seed, self.transactions())
    }
}

/// Two writers on one database, one after the other, must not make the same keys.
fn started_at() -> u64 {
    static WRITERS: AtomicU64 = AtomicU64::new(0);
    WRITERS.fetch_add(1, Ordering::Relaxed)
}

struct Session {
    uri: String,
    workload: Workload,
    options: Options,
    shared: Arc<Shared>,
    maker: Maker,
    started: Instant,
}

impl Session {
    async fn run(mut self) {
        let mut client = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let connected = match client.take() {
                Some(client) => client,
                None => match self.connect().await {
                    Ok(client) => client,
                    Err(_) if self.options.survives_restarts => {
                        *locked(&self.shared.errors).entry("connection".to_string()).or_default() += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    Err(e) => return locked(&self.shared.unexpected).push(e.chain()),
                },
            };
            self.wait_for_turn().await;
            let statements = self.workload.transaction(&mut self.maker);
            match self.transaction(&connected, &statements).await {
                Ok(()) => client = Some(connected),
                Err((error, statement)) => match self.judge(&error, &statement) {
                    Verdict::GoOn if connected.batch_execute("rollback").await.is_ok() => client = Some(connected),
                    Verdict::GoOn | Verdict::Reconnect => {}
                    Verdict::End => return,
                },
            }
        }
    }

    async fn connect(&self) -> Result<Client> {
        let client = session(&self.uri, "pgmig writer").await?;
        // Its deadlocks should end soon; only a superuser may say so, and without it they take longer.
        let _ = client.batch_execute("set deadlock_timeout = '50ms'").await;
        Ok(client)
    }

    async fn wait_for_turn(&self) {
        let Some(tps) = self.options.tps else { return };
        let turn = self.shared.turns.fetch_add(1, Ordering::Relaxed);
        let due = self.started + Duration::from_secs_f64(turn as f64 / tps.max(0.001));
        while Instant::now() < due && !self.shared.stop.load(Ordering::Relaxed) {
            let rest = due.saturating_duration_since(Instant::now());
            tokio::time::sleep(rest.min(Duration::from_millis(100))).await;
        }
    }

    async fn transaction(
        &mut self,
        client: &Client,
        statements: &[String],
    ) -> Result<(), (tokio_postgres::Error, String)> {
        let mut rows = 0;
        for statement in statements {
            // Now and then a session dawdles, so that others begin after it and commit before it.
            if self.maker.rng.u8(..40) == 0 {
                tokio::time::sleep(Duration::from_millis(self.maker.rng.u64(1..15))).await;
            }
            let answers = client.simple_query(statement).await.map_err(|e| (e, statement.clone()))?;
            let touched = answers.iter().map(|a| if let SimpleQueryMessage::CommandComplete(n) = a { *n } else { 0 });
            if !statement.starts_with("select") {
                rows += touched.sum::<u64>();
            }
        }
        if statements.last().is_some_and(|end| end == "commit") {
            self.shared.transactions.fetch_add(1, Ordering::Relaxed);
            self.shared.rows.fetch_add(rows, Ordering::Relaxed);
        }
        Ok(())
    }

    fn judge(&self, error: &tokio_postgres::Error, statement: &str) -> Verdict {
        let code = error.code().map(|code| code.code().to_string());
        let count = |name: &str| *locked(&self.shared.errors).entry(name.to_string()).or_default() += 1;
        match code.as_deref() {
            // Serialization, deadlock; unique, foreign key, check, exclusion.
            Some(code @ ("40001" | "40P01" | "23505" | "23503" | "23514" | "23P01")) => {
                count(code);
                Verdict::GoOn
            }
            Some(code) if self.options.survives_restarts && (code.starts_with("57P") || code.starts_with("08")) => {
                count(code);
                Verdict::Reconnect
            }
            None if self.options.survives_restarts => {
                count("connection");
                Verdict::Reconnect
            }
            _ => {
                let said = error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_string());
                let statement: String = statement.chars().take(200).collect();
                locked(&self.shared.unexpected).push(format!("{} {said}: {statement}", code.unwrap_or_default()));
                Verdict::End
            }
        }
    }
}

enum Verdict {
    GoOn,
    Reconnect,
    End,
}

/// What a writer did.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Committed; those that were rolled back or failed are not in it.
    pub transactions: u64,
    pub rows: u64,
    /// Errors that belong to such a workload, by SQLSTATE ("connection" for lost ones).
    pub errors: BTreeMap<String, u64>,
    /// Any other error, with the statement that met it.
    pub unexpected: Vec<String>,
    pub elapsed: Duration,
    pub seed: u64,
    /// Every transaction's commit record ends at or before this position.
    pub last_commit_lsn: Lsn,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        write!(f, "{} transactions, {} rows in {seconds:.1} s (seed {})", self.transactions, self.rows, self.seed)?;
        for (code, count) in &self.errors {
            write!(f, ", {count} times {code}")?;
        }
        self.unexpected.iter().try_for_each(|error| write!(f, "\nunexpected: {error}"))
    }
}
