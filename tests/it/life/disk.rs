//! Disks that fill up: under `--dir`, and on the source. The run says which, nothing is damaged, and with
//! room it goes on. A file system of a few megabytes stands for a disk: as root, where one can be mounted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Outcome, tell, wait_until};
use pgmig::embedded::{Cluster, Stop};

use super::{EXTENSION, Life, PLAIN};

const TABLE: &str = "create table t (id int primary key, v text); alter table t alter v set storage external; \
                     insert into t select n, md5(n::text) from generate_series(1, 200) n";
/// Ten megabytes that compress to half of it.
const MUCH: &str = "insert into t select n, (select string_agg(md5(n || '.' || m), '') from generate_series(1, 64) m) \
                    from generate_series(1001, 6000) n";
const FOLLOW: &str = "select phase = 'follow' from pgmig.progress";

/// A file system at a folder, gone when it is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// None, with a word, where nothing can be mounted.
    pub fn at(folder: &Path, size: &str) -> Option<Disk> {
        let disk = Disk(folder.to_path_buf());
        if disk.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]) {
            return Some(disk);
        }
        tell("not shown where no disk can be mounted: what a full one does");
        std::mem::forget(disk);
        None
    }
    /// For the WAL of a server, which is restarted.
    pub async fn for_wal(cluster: &Cluster, size: &str) -> Option<Disk> {
        cluster.stop(Stop::Fast).await.expect("it stops");
        let (wal, kept) = (cluster.data_dir().join("pg_wal"), tempfile::tempdir().expect("a folder"));
        let copy = |from: &Path, to: &Path| {
            let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
            assert!(done.is_ok_and(|done| done.success()), "copy {} to {}", from.display(), to.display());
        };
        copy(&wal, kept.path());
        let disk = Disk::at(&wal, size);
        if disk.is_some() {
            copy(kept.path(), &wal);
        }
        cluster.start().await.expect("it starts");
        disk
    }
    pub fn grow(&self, size: &str) {
        assert!(self.mount(&["-o", &format!("remount,size={size}")]), "make the disk larger");
    }
    fn mount(&self, args: &[&str]) -> bool {
        Command::new("mount").args(args).arg(&self.0).output().is_ok_and(|done| done.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_dir_is_told_and_the_run_goes_on_once_there_is_room() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    let Some(disk) = Disk::at(life.dir.path(), "64k") else { return Ok(()) };
    let told = async |run: harness::Pgmig| {
        let ended = run.finish(&["error: ", "WARN"]).await.expect_code(7);
        assert!(ended.stderr.contains("make room under --dir"), "{}", ended.stderr);
        let full = ["No space left on device", "no storage space", "disk is full"];
        assert!(full.iter().any(|text| ended.stderr.contains(text)), "{}", ended.stderr);
    };
    // Before anything is begun, and with the dump of the schema half written.
    told(life.run()).await;
    disk.grow("4m");
    let mut run = life.follow().await;
    // While changes are received; what was applied before and what the source was told stays true.
    life.on_target("select pgmig.pause()").await;
    life.on_source(MUCH).await;
    life.on_source("update t set v = v || '.' where id % 3 = 0; delete from t where id % 7 = 0").await;
    told(run).await;
    // It is as full as it was.
    told(life.run()).await;
    disk.grow("200m");
    life.on_target("select pgmig.resume()").await;
    run = life.follow().await;
    life.end(run).await;
    drop(disk);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_on_the_source_is_told_and_the_run_goes_on_once_there_is_room() -> Outcome {
    // Little memory: a transaction of some megabytes is written to disk while it is decoded.
    let source = Cluster::builder().setting("shared_buffers", "256kB").setting("logical_decoding_work_mem", "64kB");
    let mut life = Life::between(PLAIN, source, Cluster::builder()).await;
    life.source.batch_execute(TABLE).await?;
    life.pair.source.stop(Stop::Fast).await?;
    let slots = life.pair.source.data_dir().join("pg_replslot");
    let Some(disk) = Disk::at(&slots, "2m") else { return Ok(()) };
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(life.pair.source.data_dir())?);
    std::os::unix::fs::chown(&slots, Some(owner), None)?;
    life.pair.source.start().await?;
    life.connect_again().await;
    let run = life.follow().await;
    life.on_source(MUCH).await;
    let ended = run.finish(&["error: "]).await.expect_code(3);
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    assert!(ended.stderr.contains("make room on the source's disk"), "{}", ended.stderr);
    disk.grow("200m");
    let run = life.follow().await;
    life.end(run).await;
    life.pair.source.stop(Stop::Fast).await?;
    drop(disk);
    Ok(())
}

/// The worst that a slot can do: the source cannot write WAL any more, and stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stops_for_want_of_room_for_wal_is_waited_for() -> Outcome {
    let mut life = Life::begin(EXTENSION, TABLE).await;
    life.allowed = super::lost::TOLD;
    let Some(disk) = Disk::for_wal(&life.pair.source, "80m").await else { return Ok(()) };
    life.connect_again().await;
    let mut run = life.follow().await;
    // The slot keeps all of it, as it would for a run that cannot keep up.
    run.signal(nix::sys::signal::Signal::SIGSTOP);
    let mut rows = 0;
    while life
        .source
        .batch_execute(&MUCH.replace("1001, 6000", &format!("{}, {}", 10_000 + rows, 14_999 + rows)))
        .await
        .is_ok()
    {
        rows += 5000;
        assert!(rows < 200_000, "the disk does not fill up");
    }
    let gone = async || !life.pair.source.is_running();
    wait_until(Duration::from_secs(30), "the source to stop", gone).await;
    run.signal(nix::sys::signal::Signal::SIGCONT);
    let lost = async || run.stderr().contains("lost the connection to the source");
    wait_until(Duration::from_secs(30), "the loss to be told", lost).await;
    disk.grow("400m");
    life.pair.source.start().await?;
    life.connect_again().await;
    life.on_source("insert into t values (900000, 'there is room')").await;
    life.wait_for(&mut run, "what came after", "select exists (select from t where id = 900000)").await;
    life.wait_for(&mut run, "follow", FOLLOW).await;
    life.end(run).await;
    life.pair.source.stop(Stop::Fast).await?;
    drop(disk);
    Ok(())
}
