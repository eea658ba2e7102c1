//! Whatever dies, at any moment: a database is migrated under load while pgmig, backends and both servers are
//! killed, crashed, restarted and frozen at random, and the disk under `--dir` fills up, again and again; then
//! the databases are compared whole.
//! `make torture` runs many (`KILLS`, `SEED`), flavours and plugins in turn; a dozen are run with the other tests.

use std::cell::Cell;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use harness::{Outcome, Pgmig, assert_same, faults, seed, wait_until};
use nix::sys::signal::Signal;
use pgmig::embedded::{Cluster, Stop, Workload, Writer, WriterOptions, sample};

use super::disk::Disk;
use super::writers::{self, Writers};
use super::{Life, WAYS, Way};

/// Kills of one migration.
const EACH: u64 = 25;
const ARGS: &[&str] = &["--allow-insert-only", "--split-tables-larger-than", "300kB", "--table-jobs", "2"];
const ALLOWED: &[&str] =
    &["large objects are copied", "has no key: an UPDATE or DELETE", "lost the connection to the", "tried again in"];

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_under_load_survives_a_dozen_kills() -> Outcome {
    one(seed(), 12, false).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told: make torture"]
async fn torture_kills() -> Outcome {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (kills, minutes) = (number("PGMIG_KILLS").unwrap_or(200), number("PGMIG_MINUTES").unwrap_or(60));
    let (first, began) = (seed(), Instant::now());
    let mut done = 0;
    while done < kills && began.elapsed() < Duration::from_secs(60 * minutes) {
        let now = EACH.min(kills - done);
        one(first + done / EACH, now, true).await;
        done += now;
        println!("{done} kills in {:.0} s", began.elapsed().as_secs_f64());
    }
    assert!(done >= kills, "{done} of {kills} kills in {minutes} minutes: give it more, `make torture MINUTES=…`");
    Ok(())
}

/// `full`: the disks with the servers' WAL fill up too.
async fn one(seed: u64, kills: u64, full: bool) {
    let mut rng = Rng::with_seed(seed);
    let way = WAYS[(seed % 4) as usize];
    println!("seed {seed}: {way:?}, {kills} kills");
    let mut life = Life::empty(way).await;
    life.allowed = ALLOWED;
    let disk = Disk::at(life.dir.path(), "300m");
    let mut wal = Vec::new();
    for cluster in [&life.pair.source, &life.pair.target].into_iter().filter(|_| full) {
        wal.extend(Disk::for_wal(cluster, "1g").await);
    }
    life.connect_again().await;
    let full = wal.len() == 2;
    let load = Load::start(&life, way, seed).await;
    let (mut run, mut was_full) = (Some(life.run_with(ARGS)), false);
    for number in 1..=kills {
        // Mostly once it is underway, on however busy a machine; and now and then long enough to get on.
        if let Some(run) = run.as_mut().filter(|_| rng.u8(..4) > 0) {
            let began = Instant::now();
            while run.is_running() && !underway(&run.stderr()) && began.elapsed() < Duration::from_secs(60) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let longest = if rng.u8(..4) == 0 { 4000 } else { 900 };
        tokio::time::sleep(Duration::from_millis(rng.u64(..longest))).await;
        let what = kill(&life, (disk.is_some(), full), &mut run, &mut rng).await;
        println!("seed {seed}: {number}: {what}");
        was_full |= what.contains("full for a while");
        if run.as_mut().is_some_and(Pgmig::is_running) {
            continue;
        }
        if let Some(ended) = run.take() {
            let ended = ended.wait(Duration::from_secs(5)).await;
            println!("seed {seed}: ended with {}:\n{}", ended.code(), ended.stderr);
            // A server that cannot be reached at first may be a wrong address: nobody waits for it.
            let unreachable = ended.stderr.lines().any(|line| line.starts_with("error: cannot connect to the "));
            let no_room = was_full && ended.stderr.contains("make room ");
            assert!(unreachable || no_room, "a run that only lost connections has ended");
        }
        (run, was_full) = (Some(life.run_with(ARGS)), false);
    }
    load.stop().await;
    life.connect_again().await;
    let mut run = match run {
        Some(run) => run,
        None => life.run_with(ARGS),
    };
    let began = Instant::now();
    while life.try_value("select phase = 'follow' from pgmig.progress").await.as_deref() != Some("t") {
        assert!(run.is_running(), "pgmig has ended:\n{}", run.stderr());
        assert!(began.elapsed() < Duration::from_secs(600), "it does not get to follow:\n{}", run.stderr());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    assert_same(&life.pair).await;
    for cluster in [&life.pair.source, &life.pair.target].into_iter().filter(|_| full) {
        cluster.stop(Stop::Fast).await.expect("it stops");
    }
}

/// Whether a run has said that it is in one of its phases.
fn underway(said: &str) -> bool {
    let phases = ["schema: ", "copy: ", "indexes: ", "catchup: ", "follow: ", "cutover: "];
    said.lines().any(|line| phases.iter().any(|phase| line.starts_with(phase)))
}

/// Who writes meanwhile.
enum Load {
    Shop(Writer),
    Writers(Writers),
}

impl Load {
    async fn start(life: &Life, way: Way, seed: u64) -> Load {
        let uri = life.pair.source_uri();
        // The shop has columns that an old wal2json cannot carry.
        if way.plugin == "wal2json" || (seed / 4).is_multiple_of(2) {
            life.source.batch_execute(writers::SCHEMA).await.expect("the source is made");
            life.on_source(
                "create table big as select n as id, repeat(md5(n::text), 6) as body from generate_series(1, 40000) n; \
                 alter table big add primary key (id); create index on big (body)",
            )
            .await;
            return Load::Writers(Writers::surviving(&uri, 3, seed).await);
        }
        sample::load(&uri, 0.2).await.expect("the sample is loaded");
        // A crash of the source empties its unlogged tables, and nothing says so in the stream.
        life.on_source(
            "do $$ declare t regclass; begin
               for t in select oid from pg_class where relpersistence = 'u' and relkind = 'r' loop
                 execute format('alter table %s set logged', t);
               end loop; end $$",
        )
        .await;
        let options =
            WriterOptions { tps: Some(60.0), survives_restarts: true, connections: 3, ..WriterOptions::seed(seed) };
        Load::Shop(Writer::start(&uri, Workload::Shop, options).await.expect("the writer starts"))
    }

    async fn stop(self) {
        match self {
            Load::Writers(writers) => writers.stop().await,
            Load::Shop(writer) => {
                let mut summary = writer.stop().await.expect("the writer stops");
                println!("{summary}");
                // The disk with the source's WAL was full.
                summary.unexpected.retain(|error| !error.starts_with("53100 "));
                assert_eq!(summary.unexpected, Vec::<String>::new());
            }
        }
    }
}

/// Something that goes wrong; says what. `disks`: whether that under `--dir` and those with WAL may fill up.
async fn kill(life: &Life, disks: (bool, bool), run: &mut Option<Pgmig>, rng: &mut Rng) -> String {
    let on_source = rng.bool();
    let (side, cluster) = if on_source { ("source", &life.pair.source) } else { ("target", &life.pair.target) };
    match rng.u8(..12) {
        0..3 => {
            if let Some(mut dying) = run.take() {
                dying.kill();
            }
            "pgmig killed".into()
        }
        3..5 => {
            let ended = faults::end_sessions(cluster, "pgmig %").await.unwrap_or_default();
            format!("{ended} sessions of the {side} ended")
        }
        5 => {
            let name = match one_session(cluster).await {
                Some((pid, name)) => {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
                    name
                }
                None => "none".into(),
            };
            format!("one session of the {side} killed: {name}")
        }
        6..8 => {
            let how = if rng.bool() { Stop::Immediate } else { Stop::Fast };
            cluster.stop(how).await.expect("it stops");
            tokio::time::sleep(Duration::from_millis(rng.u64(..1500))).await;
            cluster.start().await.expect("it starts");
            format!("{side} restarted ({how:?})")
        }
        8 if disks.0 => {
            let filler = life.dir.path().join("filler");
            fill(&filler);
            tokio::time::sleep(Duration::from_millis(rng.u64(..2000))).await;
            std::fs::remove_file(filler).expect("it was just made");
            "the disk under --dir full for a while".into()
        }
        8..10 => {
            if let Some(run) = run {
                run.signal(Signal::SIGSTOP);
                tokio::time::sleep(Duration::from_millis(rng.u64(..3000))).await;
                run.signal(Signal::SIGCONT);
            }
            "pgmig frozen for a while".into()
        }
        10 if disks.1 => {
            let filler = cluster.data_dir().join("pg_wal/filler");
            fill(&filler);
            // The next segment has no room: the server stops, and cannot recover.
            let switch = cluster.sql("postgres", "select pg_switch_wal()");
            let _ = tokio::time::timeout(Duration::from_secs(5), switch).await;
            tokio::time::sleep(Duration::from_millis(rng.u64(..2000))).await;
            std::fs::remove_file(filler).expect("it was just made");
            let stopped = Cell::new(false);
            wait_until(Duration::from_secs(60), "the server to be back", async || {
                if !cluster.is_running() {
                    stopped.set(cluster.start().await.is_ok());
                }
                cluster.sql("postgres", "select 1").await.is_ok()
            })
            .await;
            format!(
                "disk with the {side}'s WAL full for a while{}",
                if stopped.get() { ", which stopped it" } else { "" }
            )
        }
        _ => {
            cluster.pause();
            tokio::time::sleep(Duration::from_millis(rng.u64(..3000))).await;
            cluster.unpause();
            format!("{side} frozen for a while")
        }
    }
}

/// Takes all the room that there is.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("a file can be made while there is room");
    let zeros = vec![0; 64 << 10];
    while file.write_all(&zeros).is_ok() {}
}

/// A session of pgmig's, whichever.
async fn one_session(cluster: &Cluster) -> Option<(i32, String)> {
    let query = "select pid, application_name from pg_stat_activity where application_name ~ '^pgmig ' and application_name <> 'pgmig writer' order by random() limit 1";
    let rows = cluster.sql("postgres", query).await.ok()?;
    let row = rows.into_iter().next()?;
    Some((row[0].as_deref()?.parse().ok()?, row[1].clone()?))
}
