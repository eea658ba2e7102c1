//! Sequences: ahead of the source's while changes are followed, exactly where they stand at the cutover, and
//! quick when they are many.

use std::time::Duration;

use harness::{Outcome, tell, wait_until};
use pgmig::embedded::Cluster;

use crate::life::{EXTENSION, Life};

const MANY: u32 = 1000;
/// `make bench-cutover` holds 10,000 to two seconds, on a machine that does nothing else; here the tests
/// beside this one take their share.
const AT_MOST: f64 = 1.0;

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sequences_are_ahead_and_then_exact() -> Outcome {
    // The statements of the test itself lock all of them at once.
    let roomy = || Cluster::builder().setting("max_locks_per_transaction", "1000");
    let life = Life::between(EXTENSION, roomy(), roomy()).await;
    life.on_source("create table note (id int primary key)").await;
    for from in (0..MANY).step_by(1000) {
        let make = "do $$ begin for n in FROM..FROM + 999 loop execute format('create sequence s%s increment %s', n, 1 + n % 7); end loop; end $$";
        life.on_source(&make.replace("FROM", &from.to_string())).await;
    }
    let run = life.follow().await;
    let state = "select md5(string_agg(format('%s %s %s', sequencename, last_value, increment_by), ',' order by sequencename)) from pg_sequences where schemaname = 'public'";
    // None was used on the source: the margin is of what it would give next.
    let ahead = "select count(*) from pg_sequences where schemaname = 'public' and nextval(format('%I.%I', schemaname, sequencename)::regclass) <= 500 * increment_by";
    wait_until(Duration::from_secs(60), "all are ahead", async || life.on_target(ahead).await == "0").await;
    life.on_source(
        "select count(nextval(oid::regclass)), count(nextval(oid::regclass)) from pg_class where relkind = 'S'",
    )
    .await;
    let dir = life.dir.path().display().to_string();
    let cut = life.pgmig(&["cutover", "--dir", &dir, "--freeze", "none", "--max-downtime", "60s"]);
    cut.finish(&[]).await.expect_code(0);
    life.finish(run).await;
    assert_eq!(life.on_target(state).await, life.on_source(state).await);
    assert_eq!(
        life.on_target("select sum(last_value - 1 - increment_by) from pg_sequences where schemaname = 'public'").await,
        "0"
    );
    let took = life.on_target("select seconds from pgmig.cutover where step = 'sequences'").await;
    tell(&format!("{MANY} sequences were exact in {took} s"));
    assert!(took.parse::<f64>()? < AT_MOST, "{took} s");
    Ok(())
}
