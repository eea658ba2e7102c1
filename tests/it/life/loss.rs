//! Loss is told, never hidden: what pgmig holds for the migration is damaged, emptied or put back from a
//! backup, and the run says what is lost, or goes on because nothing is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::Outcome;
use nix::sys::signal::Signal;
use pgmig::embedded::Stop;

use super::{EXTENSION, Life, PLAIN_WAL2JSON};

const TABLE: &str = "create table t (id serial primary key, note text); \
                     insert into t (note) select 'copied' from generate_series(1, 200)";

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.is_ok_and(|done| done.success()), "copy {} to {}", from.display(), to.display());
}

/// All that was asked for is copied.
const COPIED: &str = "select bool_and(state = 'done') from pgmig.request";

/// The segments of the spool.
fn segments(life: &Life) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = std::fs::read_dir(life.dir.path().join("spool"))
        .expect("there is a spool")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    segments.sort();
    segments
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
    let [spool, older, kept] = ["spool", "older", "kept"].map(|name| life.dir.path().join(name));
    let run = life.follow().await;
    life.kill(run).await;
    copy(&spool, &older);
    received_and_not_applied(&life).await;
    life.on_target("select pgmig.resume()").await;
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
    copy(&older, &spool);
    refused("the spool is of an earlier time").await;
    let path = segments(&life).pop().expect("the spool has a segment");
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

/// What was changed since it was dropped is in no stream, whether there is one of its name again or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_dropped_or_made_again_is_noticed_at_once() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, TABLE).await;
        let mut run = life.follow().await;
        life.on_source("insert into t (note) values ('followed')").await;
        life.wait_for(&mut run, "the row", "select exists (select from t where note = 'followed')").await;
        // It has no time to take the stream up again.
        run.signal(Signal::SIGSTOP);
        life.on_source("select pg_terminate_backend(active_pid, 10000) from pg_replication_slots").await;
        life.on_source("select pg_drop_replication_slot('pgmig_default')").await;
        run.signal(Signal::SIGCONT);
        let dropped = Instant::now();
        let ended = run.finish(&["error: ", "lost the connection to the source"]).await.expect_code(3);
        assert!(ended.stderr.contains("slot `pgmig_default` is gone from the source"), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("begin again") && dropped.elapsed() < Duration::from_secs(10),
            "{}",
            ended.stderr
        );

        life.on_source("insert into t (note) values ('in no stream')").await;
        life.on_source(&format!("select pg_create_logical_replication_slot('pgmig_default', '{}')", way.plugin)).await;
        let refused = life.run().finish(&["error: "]).await.expect_code(3);
        assert!(refused.stderr.contains("is confirmed up to"), "{}", refused.stderr);
        assert_eq!(life.on_target("select count(*) from t where note = 'in no stream'").await, "0");
    }
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
    put_back(&mut life, &backup).await?;
    assert_eq!(life.on_target("select count(*) from t").await, "200");
    let mut run = life.follow().await;

    // Once the segments are gone that had it, it is lost.
    let before = segments(&life);
    life.on_source("insert into t (note) select md5(n || '.' || random()) || md5(n || random()::text) || md5(random() || 'x') from generate_series(1, 120000) n")
        .await;
    let lsn = life.lsn().await;
    life.on_source("insert into t (note) values ('behind')").await;
    let applied = format!("select coalesce(replay_lsn > '{lsn}', false) from pgmig.progress");
    life.wait_for(&mut run, "changes to be applied", &applied).await;
    let pruned = async || segments(&life)[0] != before[0];
    harness::wait_until(Duration::from_secs(30), "segments to be deleted", pruned).await;
    life.kill(run).await;
    // The target has the transaction of which the spool holds no more than the end.
    let mut run = life.follow().await;
    life.on_source("insert into t (note) values ('later')").await;
    life.wait_for(&mut run, "one more row", "select exists (select from t where note = 'later')").await;
    life.kill(run).await;
    put_back(&mut life, &backup).await?;
    let refused = life.run().finish(&["error: "]).await.expect_code(4);
    for said in ["and the spool begins behind", "restored from a backup", "pgmig table resync --all"] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    life.pgmig(&["table", "resync", "--all"]).finish(&[]).await.expect_code(0);
    let mut run = life.run();
    life.wait_for(&mut run, "the table", COPIED).await;
    life.on_source("delete from t where id % 7 = 0").await;
    life.end(run).await;
    Ok(())
}

/// The target as it was when the backup was made.
async fn put_back(life: &mut Life, backup: &tempfile::TempDir) -> Outcome {
    life.pair.target.stop(Stop::Fast).await?;
    copy(&backup.path().join("data"), &life.pair.target.data_dir());
    life.pair.target.start().await?;
    life.connect_again().await;
    Ok(())
}

/// What was received is gone with its disk: the rows are on the source all the same.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_lost_are_made_up_for_by_copying_every_table_again() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let mut life = Life::begin(way, TABLE).await;
        life.on_source("create table parent (id int primary key); insert into parent select generate_series(1, 9); \
                        create table child (id int primary key, of int references parent); insert into child values (1, 1)")
            .await;
        received_and_not_applied(&life).await;
        life.on_target("select pgmig.resume()").await;
        std::fs::remove_dir_all(life.dir.path().join("spool"))?;
        let refused = life.run().finish(&["error: "]).await.expect_code(3);
        assert!(refused.stderr.contains("pgmig table resync --all"), "{}", refused.stderr);
        let asked = life.pgmig(&["table", "resync", "--all"]).finish(&[]).await.expect_code(0);
        assert!(asked.stderr.contains("3 tables are to be copied again"), "{}", asked.stderr);
        life.on_source("update t set note = 'changed' where id % 2 = 0; delete from t where id % 5 = 0; insert into child values (2, 2)").await;
        for point in ["before part", "after part"] {
            life.crash = point.into();
            let died = life.run().wait(Duration::from_secs(90)).await;
            assert_eq!(died.code(), 128 + 9, "{point}: {}", died.stderr);
        }
        life.crash = String::new();
        let mut run = life.run();
        life.wait_for(&mut run, "the tables", COPIED).await;
        life.on_source("insert into t (note) values ('after all')").await;
        life.end(run).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_apply_stops_at_is_copied_again_before_the_next_run_applies() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, TABLE).await;
        let run = life.follow().await;
        life.on_target("delete from t where id = 7; insert into t values (1000, 'by hand')").await;
        life.on_source("update t set note = 'changed' where id = 7").await;
        let ended = run.finish(&["error: "]).await.expect_code(6);
        assert!(ended.stderr.contains("update of public.t finds no row"), "{}", ended.stderr);
        assert!(ended.stderr.contains("pgmig table resync"), "{}", ended.stderr);
        life.on_source("delete from t where id = 8").await;
        life.pgmig(&["table", "resync", "public.t"]).finish(&[]).await.expect_code(0);
        let mut run = life.run();
        life.wait_for(&mut run, "the table", COPIED).await;
        life.end(run).await;
    }
    Ok(())
}
