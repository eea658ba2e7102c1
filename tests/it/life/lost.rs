//! A lost connection is not a crash: whatever session breaks, on either side and in any phase, the same
//! run goes on by itself, says so once, and both databases are equal in the end.

use std::time::Duration;

use harness::faults::Proxy;
use harness::{DATABASE, Outcome, Pgmig, faults, seed, wait_until};
use pgmig::embedded::Stop;

use super::writers::{self, Writers};
use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

/// What a run says when a server is lost.
pub const TOLD: &[&str] = &["lost the connection to the"];
pub const TOLD_AND_INSERT_ONLY: &[&str] = &["lost the connection to the", writers::ALLOWED[0]];
const INSERT_ONLY: &[&str] = &["--allow-insert-only"];

const FOLLOW: &str = "select phase = 'follow' from pgmig.progress";

async fn says(run: &Pgmig, what: &str) {
    wait_until(Duration::from_secs(60), what, async || run.stderr().contains(what)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_sessions_are_ended_goes_on_by_itself() -> Outcome {
    let mut life = Life::begin(EXTENSION, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    let writers = Writers::start(&life.pair.source_uri(), 2, seed()).await;
    let mut run = life.follow_with(INSERT_ONLY).await;
    let sessions = [
        (false, "pgmig apply"),
        (true, "pgmig receive"),
        (false, "pgmig monitor"),
        (true, "pgmig monitor"),
        (true, "pgmig budget"),
        (false, "pgmig run"),
        (true, "pgmig %"),
        (false, "pgmig %"),
    ];
    for (on_source, sessions) in sessions {
        let cluster = if on_source { &life.pair.source } else { &life.pair.target };
        wait_until(Duration::from_secs(20), sessions, async || {
            faults::end_sessions(cluster, sessions).await.is_ok_and(|ended| ended > 0)
        })
        .await;
        writers.write_more(10).await;
        let lsn = life.lsn().await;
        life.is_applied(&mut run, &format!("changes to be applied after {sessions} was ended"), &lsn).await;
    }
    writers.stop().await;
    let done = life.end(run).await;
    assert!(done.stderr.contains("is back after"), "{}", done.stderr);
    Ok(())
}

/// The session that holds the lock of the migration breaks again after each of the answers that it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_lost_again_as_soon_as_they_are_opened_are_opened_again() -> Outcome {
    let mut life = Life::begin(EXTENSION, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    let (source, target) = (Proxy::to(&life.pair.source).await?, Proxy::to(&life.pair.target).await?);
    let uris = (source.uri(&life.pair.source, DATABASE), target.uri(&life.pair.target, DATABASE));
    let mut run = life.run_between(&uris.0, &uris.1, INSERT_ONLY);
    life.wait_for(&mut run, "follow", FOLLOW).await;
    // To log in it hears some 400 bytes, and more than 1,000 until it has asked what it must.
    for (side, answers) in
        [(&target, [0, 300, 450]), (&target, [540, 640, 760]), (&target, [840, 920, 1000]), (&source, [0, 300, 450])]
    {
        side.cut_after("pgmig run", &answers);
        // Its loss is noticed on the target, and then both are opened again.
        target.cut();
        let broken = async || side.breaks_left() == 0 || run.stderr().contains("error: ");
        wait_until(Duration::from_secs(40), &format!("the session to be lost after {answers:?}"), broken).await;
        assert!(run.is_running(), "{}", run.stderr());
        let lsn = life.lsn().await;
        life.is_applied(&mut run, "changes to be applied after that", &lsn).await;
    }
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_broke_off_half_received_is_applied_once_with_the_extension() -> Outcome {
    broken_off(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_broke_off_half_received_is_applied_once_in_plain_sql() -> Outcome {
    broken_off(PLAIN_WAL2JSON).await
}

/// The receiver had written pieces of it to the spool, and apply had written them to the target.
async fn broken_off(way: Way) -> Outcome {
    let mut life = Life::begin(way, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), INSERT_ONLY);
    life.wait_for(&mut run, "follow", FOLLOW).await;
    for round in 0..3 {
        let before = proxy.bytes();
        let size = 20 << 20;
        // Pieces are applied from some megabytes on; as JSON they take half as much again on the way.
        let half = if way.plugin == "wal2json" { size / 4 * 3 } else { size / 2 };
        life.on_source(&format!(
            "begin; insert into log select repeat(md5(n::text), 10), null from generate_series(1, {}) n;
             insert into twins select 9, 'large' from generate_series(1, 300); update twins set b = 'updated' where a = 9; commit",
            size / 320
        ))
        .await;
        let lsn = life.lsn().await;
        wait_until(Duration::from_secs(30), "half of it", async || proxy.bytes() > before + half).await;
        proxy.stall();
        let applying = "select exists (select from pg_stat_activity where application_name = 'pgmig apply' and backend_xid is not null)";
        life.wait_for(&mut run, "pieces of it to be applied", applying).await;
        assert_eq!(
            life.on_target(&format!("select write_lsn < '{lsn}' from pgmig.progress")).await,
            "t",
            "round {round}: all of it was received"
        );
        if round == 1 {
            // Nobody is left who could take it back.
            life.kill(run).await;
            proxy.cut();
            run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), INSERT_ONLY);
        } else {
            proxy.cut();
        }
        proxy.go_on();
        life.is_applied(&mut run, "all of it", &lsn).await;
    }
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_target_and_a_restarted_source_are_waited_for() -> Outcome {
    for (way, how) in [(EXTENSION_WAL2JSON, Stop::Immediate), (PLAIN, Stop::Fast)] {
        let mut life = Life::begin(way, writers::SCHEMA).await;
        life.allowed = TOLD_AND_INSERT_ONLY;
        life.on_source("insert into log select repeat(md5(n::text), 10), null from generate_series(1, 50000) n").await;
        let args = ["--allow-insert-only", "--table-jobs", "2"];
        let mut run = life.run_with(&args);
        life.wait_for(
            &mut run,
            "the copy",
            "select phase in ('copy', 'indexes', 'catchup', 'follow') from pgmig.progress",
        )
        .await;
        // In the copy, or a moment after it; then while changes are followed.
        for phase in ["the copy", "follow"] {
            for on_source in [false, true] {
                let cluster = if on_source { &life.pair.source } else { &life.pair.target };
                cluster.stop(how).await?;
                says(
                    &run,
                    if on_source { "lost the connection to the source" } else { "lost the connection to the target" },
                )
                .await;
                if !on_source && phase == "follow" {
                    // Received while there is no target.
                    life.on_source("insert into log select 'unseen', null from generate_series(1, 1000)").await;
                }
                cluster.start().await?;
                life.connect_again().await;
                life.on_source("insert into hot select max(id) + 1, 0 from hot; delete from twins where ctid = (select min(ctid) from twins)")
                    .await;
            }
            life.wait_for(&mut run, "follow", FOLLOW).await;
        }
        life.end(run).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_under_its_snapshot_or_another_whatever_is_lost() -> Outcome {
    let mut life = Life::begin(EXTENSION, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    life.on_source(
        "create table big as select n as id, repeat(md5(n::text), 6) as body from generate_series(1, 60000) n; \
         alter table big add primary key (id); create index on big (body); \
         create table one (like big including all); create table two (like big including all); create table three (like big including all); \
         insert into one select * from big where id <= 10000; insert into two select * from one; insert into three select * from one",
    )
    .await;
    let writers = Writers::start(&life.pair.source_uri(), 2, seed()).await;
    let (source, target) = (Proxy::to(&life.pair.source).await?, Proxy::to(&life.pair.target).await?);
    let args = ["--allow-insert-only", "--table-jobs", "1", "--split-tables-larger-than", "3MB"];
    let mut run =
        life.run_between(&source.uri(&life.pair.source, DATABASE), &target.uri(&life.pair.target, DATABASE), &args);
    let some = "select count(*) > 0 from pgmig.part where state = 'done'";
    life.wait_for(&mut run, "a Part", some).await;
    source.stall();
    // The target's sessions are lost, the snapshot is not: Parts of one table stay of one snapshot.
    target.down();
    writers.write_more(20).await;
    says(&run, "lost the connection to the target").await;
    target.go_on();
    source.go_on();
    says(&run, "the target is back").await;
    let whole = "select bool_and(state = 'done') from pgmig.part where table_name = 'big'";
    life.wait_for(&mut run, "the Parts of the large table", whole).await;
    source.stall();
    assert!(!run.stderr().contains("under a new one"), "{}", run.stderr());
    let left = life.on_target("select count(*) > 0 from pgmig.part where state = 'pending'").await;
    source.down();
    writers.write_more(20).await;
    says(&run, "lost the connection to the source").await;
    source.go_on();
    life.wait_for(&mut run, "follow", FOLLOW).await;
    writers.stop().await;
    life.end(run).await;
    assert_eq!(left, "t", "the copy was over before the source was lost");
    assert_ne!(life.on_target("select count(distinct snapshot) from pgmig.parts").await, "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_ends_the_run_which_goes_on_when_run_again() -> Outcome {
    let mut life = Life::begin(PLAIN, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    let allowed = [TOLD_AND_INSERT_ONLY, &["error: "]].concat();
    for (on_source, seconds) in [(true, "2"), (false, "2"), (true, "0"), (false, "0")] {
        let (source, target) = (Proxy::to(&life.pair.source).await?, Proxy::to(&life.pair.target).await?);
        let args = ["--allow-insert-only", "--reconnect-for", seconds];
        let run =
            life.run_between(&source.uri(&life.pair.source, DATABASE), &target.uri(&life.pair.target, DATABASE), &args);
        says(&run, "waiting for endpos").await;
        if on_source {
            source.down()
        } else {
            target.down()
        }
        life.on_source("insert into log values ('behind', null)").await;
        let ended = run.finish(&allowed).await.expect_code(if on_source { 3 } else { 4 });
        let told = ended.stderr.contains("did not come back within 2 s");
        assert_eq!(told, seconds == "2", "{}", ended.stderr);
    }
    let run = life.follow_with(INSERT_ONLY).await;
    life.end(run).await;
    Ok(())
}
