//! Loss is told, never hidden: what pgmig holds for the migration is damaged, emptied or put back from a
//! backup, and the run says what is lost, or goes on because nothing is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Outcome, assert_same};
use pgmig::embedded::Stop;

use super::{EXTENSION, Life, PLAIN_WAL2JSON};

const TABLE: &str = "create table t (id serial primary key, note text); \
                     insert into t (note) select 'copied' from generate_series(1, 200)";

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.is_ok_and(|done| done.success()), "copy {} to {}", from.display(), to.display());
}

/// The newest segment of the spool.
fn segment(life: &Life) -> PathBuf {
    let mut segments: Vec<PathBuf> = std::fs::read_dir(life.dir.path().join("spool"))
        .expect("there is a spool")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    segments.sort();
    segments.pop().expect("the spool has a segment")
}

/// Changes that the source was told are stored, and that the target does not have.
async fn received_and_not_applied(life: &Life) {
    let mut run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    for _ in 0..20 {
        life.on_source("insert into t (note) select md5(random()::text) from generate_series(1, 50)").await;
    }
    let lsn = life.lsn().await;
    let received = format!("select flush_lsn >= '{lsn}' from pgmig.progress");
    life.on_source("insert into t (note) values ('behind')").await;
    life.wait_for(&mut run, "changes to be received", &received).await;
    let told = format!("select confirmed_flush_lsn >= '{lsn}' from pg_replication_slots");
    harness::wait_until(Duration::from_secs(30), "the slot to know", async || life.on_source(&told).await == "t").await;
    life.kill(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_lost_emptied_or_damaged_is_told_and_one_put_back_goes_on() -> Outcome {
    let mut life = Life::begin(EXTENSION, TABLE).await;
    received_and_not_applied(&life).await;
    life.on_target("select pgmig.resume()").await;
    let (spool, kept) = (life.dir.path().join("spool"), life.dir.path().join("kept"));
    copy(&spool, &kept);
    let refused = async |what: &str| {
        let refused = life.run().finish(&["error: "]).await;
        assert!([3, 7].contains(&refused.code()), "{what}: {}", refused.stderr);
        let told = ["is confirmed up to", "is damaged"].iter().any(|text| refused.stderr.contains(text));
        assert!(told && refused.stderr.contains("begin again"), "{what}: {}", refused.stderr);
        copy(&kept, &spool);
    };
    std::fs::remove_dir_all(&spool)?;
    refused("the spool is gone").await;
    let path = segment(&life);
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    refused("the last segment is cut").await;
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    std::fs::write(&path, &damaged)?;
    refused("the last segment is damaged").await;
    // Another segment behind it: what is damaged is no torn tail.
    std::fs::write(&path, &damaged)?;
    let number: u64 = path.to_string_lossy().rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number");
    std::fs::copy(&path, path.with_file_name(format!("segment-{:010}", number + 1)))?;
    refused("a segment in the middle is damaged").await;
    // The plan can be had again.
    std::fs::remove_file(life.dir.path().join("plan.db"))?;
    life.allowed = &["is lost and is made anew"];
    let run = life.follow().await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_put_back_from_a_backup_gets_from_the_spool_what_it_has_lost() -> Outcome {
    let mut life = Life::begin(PLAIN_WAL2JSON, TABLE).await;
    let backup = tempfile::tempdir()?;
    let run = life.follow().await;
    life.kill(run).await;
    life.pair.target.stop(Stop::Fast).await?;
    copy(&life.pair.target.data_dir(), &backup.path().join("data"));
    life.pair.target.start().await?;
    life.connect_again().await;
    let mut run = life.follow().await;
    life.on_source("update t set note = 'changed'; insert into t (note) select 'new' from generate_series(1, 500)")
        .await;
    let lsn = life.lsn().await;
    life.on_source("delete from t where id % 3 = 0").await;
    let applied = format!("select coalesce(replay_lsn > '{lsn}', false) from pgmig.progress");
    life.wait_for(&mut run, "changes to be applied", &applied).await;
    life.kill(run).await;
    life.pair.target.stop(Stop::Fast).await?;
    copy(&backup.path().join("data"), &life.pair.target.data_dir());
    life.pair.target.start().await?;
    life.connect_again().await;
    assert_eq!(life.on_target("select count(*) from t").await, "200");
    let run = life.follow().await;
    life.end(run).await;
    assert_same(&life.pair).await;
    Ok(())
}
