//! The source moves: to another address, and to a standby that is promoted. The run finds it, goes on, and
//! nothing that it had received is missing.

use std::time::Duration;

use harness::faults::Proxy;
use harness::{Outcome, seed, tell, versions, wait_until};
use pgmig::embedded::{Cluster, Stop};

use super::lost::TOLD_AND_INSERT_ONLY;
use super::writers::{self, Writers};
use super::{EXTENSION, Life, PLAIN};

const FOLLOW: &str = "select phase = 'follow' from pgmig.progress";
const INSERT_ONLY: &[&str] = &["--allow-insert-only"];

fn either(ports: [u16; 2], database: &str) -> String {
    format!(
        "postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/{database}?target_session_attrs=read-write",
        ports[0], ports[1]
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_move_to_another_address_are_found_there() -> Outcome {
    let mut life = Life::begin(EXTENSION, writers::SCHEMA).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    let writers = Writers::start(&life.pair.source_uri(), 2, seed()).await;
    let source = [Proxy::to(&life.pair.source).await?, Proxy::to(&life.pair.source).await?];
    let target = [Proxy::to(&life.pair.target).await?, Proxy::to(&life.pair.target).await?];
    source[1].down();
    target[0].down();
    let uri = |of: &[Proxy; 2]| either([of[0].port(), of[1].port()], harness::DATABASE);
    let mut run = life.run_between(&uri(&source), &uri(&target), INSERT_ONLY);
    life.wait_for(&mut run, "follow", FOLLOW).await;
    for (there, here) in [(1, 0), (0, 1)] {
        source[here].down();
        target[there].down();
        source[there].go_on();
        target[here].go_on();
        writers.write_more(20).await;
        let lsn = life.lsn().await;
        life.is_applied(&mut run, "changes to be applied", &lsn).await;
    }
    writers.stop().await;
    life.end(run).await;
    Ok(())
}

/// The slot of the run is on the standby as well, and nothing is sent that the standby does not have.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_with_the_slot_takes_over_and_nothing_is_lost() -> Outcome {
    let Some(bin) = versions().into_iter().find(|bin| bin.major() >= 17) else {
        tell("not shown without PostgreSQL 17 or later: a promoted standby. `make it` brings it");
        return Ok(());
    };
    let server = || Cluster::builder().bin_dir(bin.path());
    let mut life = Life::between(PLAIN, server(), server()).await;
    life.allowed = TOLD_AND_INSERT_ONLY;
    life.source.batch_execute(writers::SCHEMA).await?;
    life.on_source("select pg_create_physical_replication_slot('standby', true)").await;
    let settings = [("hot_standby_feedback", "on"), ("sync_replication_slots", "on")];
    let standby = life.pair.source.standby("standby", &settings).await?;
    life.on_source("alter system set synchronized_standby_slots = 'standby'").await;
    life.on_source("select pg_reload_conf()").await;
    let uri = either([life.pair.source.port(), standby.port()], harness::DATABASE);
    let writers = Writers::surviving(&uri, 2, seed()).await;
    let mut run = life.run_from(&uri, INSERT_ONLY);
    life.wait_for(&mut run, "follow", FOLLOW).await;
    writers.write_more(50).await;
    let synced =
        "select count(*) = 1 from pg_replication_slots where slot_name = 'pgmig_default' and synced and not temporary";
    let is_synced = async || standby.value("postgres", synced).await.is_ok_and(|found| found.as_deref() == Some("t"));
    wait_until(Duration::from_secs(60), "the slot to be on the standby", is_synced).await;
    writers.write_more(50).await;

    life.pair.source.stop(Stop::Immediate).await?;
    standby.sql("postgres", "select pg_promote()").await?;
    standby.sql("postgres", "alter system reset synchronized_standby_slots").await?;
    standby.sql("postgres", "select pg_reload_conf()").await?;
    // What is compared is the new primary.
    let old = std::mem::replace(&mut life.pair.source, standby);
    life.connect_again().await;
    writers.write_more(50).await;
    let lsn = life.lsn().await;
    life.is_applied(&mut run, "changes of the new primary", &lsn).await;
    // Another run needs nothing of the old one either.
    life.kill(run).await;
    drop(old);
    writers.write_more(20).await;
    let run = life.follow_with(INSERT_ONLY).await;
    writers.stop().await;
    life.end(run).await;
    tell(&format!("a promoted standby of PostgreSQL {} took over", bin.version()));
    Ok(())
}
