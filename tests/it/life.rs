//! The life of a migration, through the binary alone: what a person types, what a DBA calls in SQL,
//! and what happens to both in between. Every test ends with PostgreSQL's word that both databases
//! are equal; none trusts what pgmig says of itself.

mod altered;
mod bad_copy;
mod begins;
mod control;
mod crash;
mod disk;
mod encodings;
mod ends;
mod everything;
mod failover;
mod forecast;
mod giving_way;
mod load;
mod loss;
mod lost;
mod network;
mod objects;
mod parts;
mod points;
mod removed;
mod samples;
mod signals;
mod stalls;
mod steered;
mod stop;
mod tables;
mod tags;
mod torture;
mod versions;
mod watch;
mod writers;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Finished, Pair, Pgmig, assert_same};
use pgmig::embedded::{Builder, Cluster};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Pairs of servers at once: two servers and a pgmig each are enough work for a small machine.
static TURNS: Semaphore = Semaphore::const_new(4);

/// How changes are written and how they are read.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub flavour: &'static str,
    pub plugin: &'static str,
}

pub const EXTENSION: Way = Way { flavour: "extension", plugin: "pgoutput" };
pub const PLAIN: Way = Way { flavour: "plain", plugin: "pgoutput" };
pub const EXTENSION_WAL2JSON: Way = Way { flavour: "extension", plugin: "wal2json" };
pub const PLAIN_WAL2JSON: Way = Way { flavour: "plain", plugin: "wal2json" };
pub const WAYS: [Way; 4] = [EXTENSION, PLAIN, EXTENSION_WAL2JSON, PLAIN_WAL2JSON];

/// One migration between two servers of its own.
pub struct Life {
    pub pair: Pair,
    pub way: Way,
    pub dir: tempfile::TempDir,
    pub source: Client,
    pub target: Client,
    /// Texts that may stand in warnings of `run`.
    pub allowed: &'static [&'static str],
    /// Where `run` dies by itself, see `pgmig::crash`; nowhere if empty.
    pub crash: String,
    /// PostgreSQL's programs that pgmig starts; None for those of the source.
    pub tools: Option<PathBuf>,
    _turn: SemaphorePermit<'static>,
}

impl Life {
    /// With the source made by `sql`, statement by statement, each its own transaction.
    pub async fn begin(way: Way, sql: &str) -> Life {
        let life = Life::empty(way).await;
        life.source.batch_execute(sql).await.unwrap_or_else(|e| panic!("make the source: {e:?}"));
        life
    }

    pub async fn empty(way: Way) -> Life {
        Life::between(way, Cluster::builder(), Cluster::builder()).await
    }

    /// Between servers of their own make.
    pub async fn between(way: Way, source: Builder, target: Builder) -> Life {
        let turn = TURNS.acquire().await.expect("nobody closes the semaphore");
        let pair = Pair::start_with(source, target).await.expect("two servers start");
        let (source, target) = (session(&pair.source_uri()).await, session(&pair.target_uri()).await);
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        Life { pair, way, dir, source, target, allowed: &[], crash: String::new(), tools: None, _turn: turn }
    }

    /// `pgmig` with both databases in its environment.
    pub fn pgmig<S: AsRef<str>>(&self, args: &[S]) -> Pgmig {
        self.pgmig_from(&self.pair.source_uri(), args)
    }
    pub fn pgmig_from<S: AsRef<str>>(&self, source: &str, args: &[S]) -> Pgmig {
        self.pgmig_between(source, &self.pair.target_uri(), args)
    }
    pub fn pgmig_between<S: AsRef<str>>(&self, source: &str, target: &str, args: &[S]) -> Pgmig {
        let bin = self.tools.as_deref().unwrap_or(self.pair.source.bin_dir().path()).display().to_string();
        let mut env = vec![("PGMIG_SOURCE", source), ("PGMIG_TARGET", target), ("PGMIG_PG_BIN", &bin)];
        env.extend((!self.crash.is_empty()).then_some((pgmig::crash::VARIABLE, self.crash.as_str())));
        Pgmig::start(args, &env)
    }
    pub fn run(&self) -> Pgmig {
        self.run_with(&[])
    }
    pub fn run_with(&self, more: &[&str]) -> Pgmig {
        self.run_from(&self.pair.source_uri(), more)
    }
    /// With the source behind another address.
    pub fn run_from(&self, source: &str, more: &[&str]) -> Pgmig {
        self.run_between(source, &self.pair.target_uri(), more)
    }
    /// With both behind other addresses.
    pub fn run_between(&self, source: &str, target: &str, more: &[&str]) -> Pgmig {
        let dir = self.dir.path().display().to_string();
        let mut args = vec!["run", "--flavour", self.way.flavour, "--plugin", self.way.plugin, "--dir", &dir];
        args.extend(more);
        self.pgmig_between(source, target, &args)
    }
    /// New sessions of the test's own, after a server was restarted or while it recovers from a crash.
    pub async fn connect_again(&mut self) {
        for uri in [self.pair.source_uri(), self.pair.target_uri()] {
            let accepts = async || tokio_postgres::connect(&uri, NoTls).await.is_ok();
            harness::wait_until(Duration::from_secs(60), "the server to accept connections", accepts).await;
        }
        self.source = session(&self.pair.source_uri()).await;
        self.target = session(&self.pair.target_uri()).await;
    }
    /// Runs until changes are followed and no table is copied again.
    pub async fn follow(&self) -> Pgmig {
        self.follow_with(&[]).await
    }
    pub async fn follow_with(&self, more: &[&str]) -> Pgmig {
        let mut run = self.run_with(more);
        let copied = "not exists (select from pgmig.part where state <> 'done')";
        self.wait_for(&mut run, "follow", &format!("select phase = 'follow' and {copied} from pgmig.progress")).await;
        run
    }

    /// Waits until the target says yes, for as long as the run goes on.
    pub async fn wait_for(&self, run: &mut Pgmig, what: &str, query: &str) {
        self.wait_within(Duration::from_secs(60), run, what, query).await;
    }
    pub async fn wait_within(&self, bound: Duration, run: &mut Pgmig, what: &str, query: &str) {
        let start = Instant::now();
        // Before the schema pgmig is there the query fails.
        while self.try_value(query).await.as_deref() != Some("t") {
            assert!(run.is_running(), "pgmig has ended before {what}:\n{}", run.stderr());
            assert!(start.elapsed() < bound, "waited in vain for {what}:\n{}", run.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    pub async fn try_value(&self, query: &str) -> Option<String> {
        first(self.target.simple_query(query).await.ok()?)
    }

    /// The first value of a query on the source; empty for null.
    pub async fn on_source(&self, sql: &str) -> String {
        value(&self.source, sql).await
    }
    pub async fn on_target(&self, sql: &str) -> String {
        value(&self.target, sql).await
    }
    /// Where the source's WAL is written to: at or behind the end of every commit that was answered.
    pub async fn lsn(&self) -> String {
        self.on_source("select pg_current_wal_insert_lsn()").await
    }
    pub async fn set_endpos(&self, lsn: impl Display) -> String {
        self.on_target(&format!("select pgmig.set_endpos('{lsn}')")).await
    }

    /// Ends the migration where the source stands, and compares.
    pub async fn end(&self, run: Pgmig) -> Finished {
        self.set_endpos(self.lsn().await).await;
        let done = self.finish(run).await;
        assert_same(&self.pair).await;
        done
    }
    /// Waits for a good end.
    pub async fn finish(&self, run: Pgmig) -> Finished {
        let done = run.finish(self.allowed).await.expect_code(0);
        assert_eq!(self.on_target("select phase from pgmig.progress").await, "done");
        done
    }
    /// kill -9, and a look at what it had said.
    pub async fn kill(&self, mut run: Pgmig) {
        run.kill();
        assert_eq!(run.finish(self.allowed).await.code(), 128 + 9);
    }
}

pub async fn session(uri: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(uri, NoTls).await.expect("a throwaway server lets us in");
    tokio::spawn(connection);
    client
}

pub async fn value(client: &Client, sql: &str) -> String {
    first(client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"))).unwrap_or_default()
}

fn first(answers: Vec<SimpleQueryMessage>) -> Option<String> {
    answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_string)),
        _ => None,
    })?
}
