//! What is left behind when a migration is over or given up: nothing of pgmig, nothing of the migration
//! where that is asked for, and everything that belongs to others.

use harness::{Outcome, assert_same, wait_until};
use std::time::Duration;

use super::{EXTENSION, Life, PLAIN};

const SHOP: &str = "create schema shop; create schema kept; create type shop.mood as enum ('glad', 'sad'); \
    create domain shop.positive as int check (value > 0); \
    create table shop.a (id int primary key, b int, mood shop.mood, n shop.positive); \
    create table shop.b (id serial primary key, a int references shop.a); \
    alter table shop.a add foreign key (b) references shop.b; \
    create table shop.\"Odd.name\" (id int generated always as identity, at date) partition by range (at); \
    create table shop.odd_1 partition of shop.\"Odd.name\" for values from ('2026-01-01') to ('2027-01-01'); \
    alter table shop.\"Odd.name\" replica identity full; alter table shop.odd_1 replica identity full; \
    create view shop.v as select a.id, b.a from shop.a join shop.b on b.id = a.b; \
    create materialized view shop.m as select count(*) from shop.v; \
    create function shop.f(x int, y shop.mood) returns int language sql as 'select x'; \
    create function shop.t() returns trigger language plpgsql as 'begin return new; end'; \
    create trigger t before insert on shop.a for each row execute function shop.t(); \
    create aggregate shop.total(int) (sfunc = int4pl, stype = int, initcond = '0'); \
    create procedure shop.p() language sql as ''; \
    insert into shop.a values (1, null, 'glad', 1); insert into shop.b values (1, 1); update shop.a set b = 1; \
    insert into shop.\"Odd.name\" values (default, '2026-05-05')";
/// What was there before, or that others have made.
const OTHERS: &str = "create schema mine; create table mine.t (id int primary key); insert into mine.t values (1)";
const OBJECTS: &str = "select coalesce(string_agg(n.nspname || '.' || c.relname, ' ' order by 1), '') from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace \
    where n.nspname in ('shop', 'mine', 'pgmig', 'public') and c.relkind <> 'i'";

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_emptied_of_what_the_migration_made_and_of_nothing_else() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        let life = Life::begin(way, SHOP).await;
        life.target.batch_execute(OTHERS).await?;
        let run = life.follow().await;
        let running = life.pgmig(&["reset-target", "--yes"]).finish(&["is running"]).await.expect_code(5);
        assert!(running.stderr.contains("pgmig stop"), "{}", running.stderr);
        life.kill(run).await;
        let gone = async || life.on_target("select running from pgmig.progress").await == "f";
        wait_until(Duration::from_secs(10), "the run's sessions to end", gone).await;
        let asked = life.pgmig(&["reset-target"]).finish(&["error: nobody is there to ask"]).await.expect_code(2);
        for text in ["shop.a", "of kind table", "database `app`", "--yes"] {
            assert!(asked.stderr.contains(text), "{text}: {}", asked.stderr);
        }
        // Somebody's view on one of the tables is not pulled down with it.
        life.on_target("create view mine.v as select id from shop.a").await;
        let left =
            life.pgmig(&["reset-target", "--yes"]).finish(&["error: the target is not empty"]).await.expect_code(1);
        assert!(left.stderr.contains("left: table shop.a: ") && left.stderr.contains("2BP01"), "{}", left.stderr);
        assert_eq!(life.on_target("select count(*) from shop.a").await, "1");
        life.on_target("drop view mine.v").await;
        let done = life.pgmig_from("host=/nowhere", &["reset-target", "--yes"]).finish(&[]).await.expect_code(0);
        assert!(done.stderr.contains("pgmig cleanup --force"), "{}", done.stderr);
        assert_eq!(life.on_target(OBJECTS).await, "mine.t", "{}", done.stderr);
        assert_eq!(
            life.on_target("select count(*) from pg_namespace where nspname in ('shop', 'kept', 'pgmig')").await,
            "0"
        );
        assert_eq!(life.on_target("select count(*) from mine.t").await, "1");

        // As the hint says, and the next beginning is as good as the first.
        assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "1");
        life.pgmig(&["cleanup", "--force"]).finish(&[]).await.expect_code(0);
        assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "0");
        life.on_target("drop schema mine cascade").await;
        std::fs::remove_dir_all(life.dir.path())?;
        let run = life.follow().await;
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        let refused = life.pgmig(&["reset-target", "--yes"]).finish(&["is done"]).await.expect_code(5);
        assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
        life.pgmig(&["cleanup"]).finish(&[]).await.expect_code(0);
        assert_same(&life.pair).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_does_what_it_can_where_one_side_is_gone_and_says_what_is_left() -> Outcome {
    let life = Life::begin(EXTENSION, "create table t (id int primary key); insert into t values (1)").await;
    let run = life.follow().await;
    let alive = life.pgmig(&["cleanup", "--force"]).finish(&["is running"]).await.expect_code(5);
    assert!(alive.stderr.contains("pgmig stop"), "{}", alive.stderr);
    life.kill(run).await;
    let gone = async || life.on_target("select running from pgmig.progress").await == "f";
    wait_until(Duration::from_secs(10), "the run's sessions to end", gone).await;
    let early = life.pgmig(&["cleanup"]).finish(&["is not done"]).await.expect_code(5);
    assert!(early.stderr.contains("--force"), "{}", early.stderr);
    let args = ["cleanup", "--target", "host=/nowhere"];
    let nowhere = life.pgmig(&args).finish(&["nothing was removed"]).await.expect_code(4);
    assert!(nowhere.stderr.contains("pgmig cleanup --force"), "{}", nowhere.stderr);

    let half = life.pgmig_from("host=/nowhere", &["cleanup", "--force"]).finish(&["warning: "]).await.expect_code(1);
    for text in
        ["removed schema pgmig on the target", "left: slot `pgmig_default`", "left: publication `pgmig_default`"]
    {
        assert!(half.stderr.contains(text), "{text}: {}", half.stderr);
    }
    assert_eq!(life.on_target("select to_regnamespace('pgmig') is null").await, "t");
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "1");
    // And the other half without the target.
    let source = life.pair.source_uri();
    let args = ["cleanup", "--force", "--target", "host=/nowhere", "--source", &source];
    let rest = life.pgmig(&args).finish(&["warning: "]).await.expect_code(1);
    assert!(rest.stderr.contains("removed slot `pgmig_default`"), "{}", rest.stderr);
    assert_eq!(
        life.on_source("select (select count(*) from pg_replication_slots) + (select count(*) from pg_publication)")
            .await,
        "0"
    );
    let again = life.pgmig(&["cleanup"]).finish(&[]).await.expect_code(0);
    assert!(again.stderr.contains("nothing of pgmig was there"), "{}", again.stderr);
    Ok(())
}
