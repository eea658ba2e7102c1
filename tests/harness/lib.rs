//! What every integration test stands on: a pair of throwaway servers, the binary as a child
//! process, faults, and PostgreSQL's own word on whether both sides are equal. It tests nothing
//! itself, and it never waits for a time where it can wait for a condition.

pub mod binary;
pub mod faults;
mod pair;
mod without;

pub use binary::{Finished, Pgmig};
pub use pair::{DATABASE, Pair};
pub use without::libraries_without;

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgmig::embedded::BinDir;
use pgmig::verify;

/// What a test ends with when anything but its subject goes wrong.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Asks again and again until the answer is yes; panics with `what` when the time is over.
pub async fn wait_until<F>(timeout: Duration, what: &str, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < timeout, "waited {timeout:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The seed of a random test: `PGMIG_TEST_SEED`, or one of today's. Printed, so that it can be given.
pub fn seed() -> u64 {
    let given = std::env::var("PGMIG_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("PGMIG_TEST_SEED={seed}");
    seed
}

/// The PostgreSQL versions that are here to test between, oldest first: the one that every other test
/// takes, and those whose folders of programs are in `PGMIG_TEST_PG_BINS`, as PATH has them.
pub fn versions() -> Vec<BinDir> {
    let more = std::env::var_os("PGMIG_TEST_PG_BINS").unwrap_or_default();
    let more = std::env::split_paths(&more).filter(|folder| !folder.as_os_str().is_empty());
    let mut found = vec![BinDir::find(None).unwrap_or_else(|e| panic!("{}", e.chain()))];
    found.extend(more.map(|folder| BinDir::open(&folder).unwrap_or_else(|e| panic!("{}", e.chain()))));
    found.sort_by_key(BinDir::major);
    found.dedup_by_key(|bin| bin.major());
    found
}

/// Says on the test's own stderr, which nobody keeps back, what was tested and what for lack of servers was not.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A file that lies beside the workspace and is not part of it. None, with a word, where it is not:
/// the test is skipped then. `PGMIG_SHARED_DATA` names another folder.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PGMIG_SHARED_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")));
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: there is no {}", path.display());
    None
}

/// Panics with every difference between the two databases.
pub async fn assert_same(pair: &Pair) {
    assert_same_with(pair, verify::Options::default()).await;
}

pub async fn assert_same_with(pair: &Pair, options: verify::Options) {
    let comparison = pair.compare(options).await.unwrap_or_else(|e| panic!("compare source and target: {e:?}"));
    assert!(comparison.is_equal(), "source and target differ:\n{comparison}");
    println!("{comparison}");
}
