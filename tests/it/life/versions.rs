//! From one major version to another, and between two of the newer ones: every object and change, and
//! what only the newer versions have. Which versions, is for `PGMIG_TEST_PG_BINS` to say.

use harness::{Outcome, Pair, assert_same, tell, versions};
use pgmig::embedded::{BinDir, Cluster};
use pgmig::verify::{self, Kind};
use tokio::task::JoinSet;

use super::load::{follow_writers, move_shop};
use super::objects::move_everything;
use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way};

/// Each flavour with either plugin, by turns.
const WAYS: [[Way; 2]; 2] = [[EXTENSION, PLAIN_WAL2JSON], [PLAIN, EXTENSION_WAL2JSON]];

/// From the oldest version to each newer one, and from the newest to itself. The oldest to itself is
/// what all other tests do.
fn pairs() -> Vec<(BinDir, BinDir)> {
    let found = versions();
    let (oldest, newest) = (&found[0], &found[found.len() - 1]);
    let upgrades = found[1..].iter().map(|newer| (oldest.clone(), newer.clone()));
    let alone = (found.len() > 1).then(|| (newest.clone(), newest.clone()));
    upgrades.chain(alone).collect()
}

fn name((source, target): &(BinDir, BinDir)) -> String {
    format!("PostgreSQL {} to {}", source.version(), target.version())
}

async fn between((source, target): &(BinDir, BinDir), way: Way) -> Life {
    let server = |bin: &BinDir| Cluster::builder().bin_dir(bin.path());
    Life::between(way, server(source), server(target)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_and_change_arrives_in_a_newer_version() -> Outcome {
    let mut running = JoinSet::new();
    for (number, pair) in pairs().into_iter().enumerate() {
        for way in WAYS[number % 2] {
            let pair = pair.clone();
            running.spawn(async move {
                move_everything(between(&pair, way).await).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(format!("{}: {way:?}", name(&pair)))
            });
        }
    }
    if running.is_empty() {
        tell("tested with one version of PostgreSQL only: `make it` brings others, PGMIG_TEST_PG_BINS names them");
    }
    while let Some(done) = running.join_next().await {
        tell(&format!("every object and change arrived: {}", done??));
    }
    Ok(())
}

/// From the oldest version to the newest, while several sessions write.
#[tokio::test(flavor = "multi_thread")]
async fn writers_are_followed_into_a_newer_version() -> Outcome {
    let found = versions();
    let ends = (found[0].clone(), found[found.len() - 1].clone());
    if found.len() > 1 {
        tokio::try_join!(async { move_shop(between(&ends, EXTENSION).await, 80.0).await }, async {
            follow_writers(between(&ends, PLAIN_WAL2JSON).await).await
        })?;
        tell(&format!("writers were followed: {}", name(&ends)));
    }
    Ok(())
}

/// Real differences are found though two versions print one schema in different words.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_two_versions_are_compared() -> Outcome {
    for (source, target) in pairs().into_iter().filter(|(source, target)| source.major() != target.major()) {
        let server = |bin: &BinDir| Cluster::builder().bin_dir(bin.path());
        let pair = Pair::start_with(server(&source), server(&target)).await?;
        pair.on_source(
            "create table t (id int primary key, a text not null default 'x', b date default current_date, c int not null check (c > 1 and c < 99));
             create index t_a on t (lower(a)) where b > '2026-01-01';
             create view v as select t.id, x.* from t join lateral (select * from t u where u.id = t.id limit 1) x (k, a) using (a) where t.c in (1, 2);
             create function twice(n int) returns int language sql begin atomic select n * 2; end;
             create materialized view m as select count(*), date_trunc('day', b) from t group by 2;
             create table p (id int not null, r text) partition by list (r);
             create table p1 partition of p for values in ('a', 'b');
             create table q () inherits (t);
             grant select, insert on t to public",
        )
        .await?;
        pair.dump_and_restore()?;
        assert_same(&pair).await;
        let changes = [
            ("drop index t_a", "t_a"),
            ("alter table t alter a set default 'y'", "CREATE TABLE public.t"),
            (
                "create or replace view v as select t.id, x.* from t join lateral (select * from t u where u.id = t.id limit 1) x (k, a) using (a) where t.c in (1, 3)",
                "VIEW public.v",
            ),
            (
                "create or replace function twice(n int) returns int language sql begin atomic select n * 3; end",
                "twice",
            ),
            ("alter table p alter id drop not null", "CREATE TABLE public.p "),
            ("alter table q add check (c > 3)", "CREATE TABLE public.q"),
            ("revoke insert on t from public", "GRANT"),
        ];
        for (change, part) in changes {
            pair.on_target(change).await?;
            let found = pair.compare(verify::Options::default()).await?;
            assert!(found.holds(Kind::Schema, part), "{change}: {part} is not in\n{found}");
        }
        assert_eq!(
            pair.target
                .value("postgres", "select count(*) from pg_database where datname ~ '^pgmig'")
                .await?
                .as_deref(),
            Some("0")
        );
        tell(&format!("differences of schemas were found: {}", name(&(source, target))));
    }
    Ok(())
}

/// What the versions behind 15 brought. The words after `-- since` say from which source on a section holds.
const NEWS: &str = r#"
-- since 17
create table identities (id int generated always as identity, r text, primary key (id, r)) partition by list (r);
create table identities_a partition of identities for values in ('a');
create table identities_b partition of identities for values in ('b');
insert into identities (r) select (array['a', 'b'])[n % 2 + 1] from generate_series(1, 20) n;
create table booked (r text, during int4range, exclude using gist (r with =, during with &&)) partition by list (r);
create table booked_a partition of booked for values in ('a');
alter table booked replica identity full;
alter table booked_a replica identity full;
insert into booked select 'a', int4range(n, n + 1) from generate_series(1, 5) n;
create role keeper;
grant maintain on booked to keeper;
create view from_json as select j.* from json_table('[{"a": 1}]', '$[*]' columns (a int path '$.a')) j;
create collation plain (provider = builtin, locale = 'C.UTF-8');
create table sorted (id int primary key, t text collate plain);
insert into sorted values (1, 'ä'), (2, 'b');
create table numbers (id int primary key, f float8, r float4, n numeric);
insert into numbers values (1, 'NaN', 'Infinity', 'NaN'), (2, '-Infinity', 1.1, '-Infinity'), (3, 1e300, -0.0, 12345678901234567890.12345);
-- since 18
create table virtual (id int primary key, a int, twice int generated always as (a * 2), thrice int generated always as (a * 3) stored, note text default 'none');
insert into virtual (id, a) select n, n from generate_series(1, 10) n;
create table stored_full (a int, twice int generated always as (a * 2) stored);
alter table stored_full replica identity full;
insert into stored_full select n % 3 from generate_series(1, 9) n;
create table virtual_full (a int, twice int generated always as (a * 2));
alter table virtual_full replica identity full;
insert into virtual_full select n % 3 from generate_series(1, 9) n;
create table named (id int constraint id_is_there not null primary key, a int constraint a_is_there not null no inherit, b int);
insert into named select n, n, n from generate_series(1, 10) n;
insert into named values (11, 11, null);
alter table named add constraint b_some_day not null b not valid;
create table named_heir (c int) inherits (named);
alter table named_heir add primary key (id);
create table named_parts (id int, r text constraint r_is_there not null) partition by list (r);
create table named_parts_a (id int constraint own_name not null, r text constraint r_of_its_own not null);
alter table named_parts attach partition named_parts_a for values in ('a');
alter table named_parts_a replica identity full;
insert into named_parts values (1, 'a'), (2, 'a');
create table loose (id int primary key, a int constraint not_checked check (a > 0) not enforced, up int constraint not_followed references loose not enforced);
insert into loose values (1, -1, 77), (2, 2, 1);
create table rooms (id int4range, during daterange, primary key (id, during without overlaps));
insert into rooms values ('[1,2)', '[2026-01-01,2026-02-01)'), ('[1,2)', '[2026-02-01,2026-03-01)');
create table stays (id int primary key, room int4range, during daterange, foreign key (room, period during) references rooms (id, period during));
insert into stays values (1, '[1,2)', '[2026-01-15,2026-02-15)');
create table foreign_parts (id int primary key, up int references named) partition by range (id);
create table foreign_parts_1 partition of foreign_parts for values from (0) to (100);
alter table foreign_parts add constraint later foreign key (up) references named not valid;
insert into foreign_parts values (1, 1), (2, null);
"#;

const NEWER_CHANGES: &str = r#"
-- since 17
insert into identities (r) values ('a'), ('b');
update identities set r = 'b' where id = 2;
update booked set during = int4range(100, 200) where during = int4range(3, 4);
delete from booked where during = int4range(4, 5);
update sorted set t = 'Ö' where id = 1;
update numbers set n = 'Infinity', f = '-Infinity' where id = 1;
insert into numbers values (4, 'NaN', 'NaN', 'NaN');
delete from numbers where id = 2;
-- since 18
update virtual set a = a + 10 where id < 4;
update virtual set note = 'x' where id = 5;
insert into virtual (id, a) values (100, 1), (101, null);
delete from virtual where id = 7;
update stored_full set a = 7 where ctid = (select min(ctid) from stored_full);
delete from stored_full where ctid = (select max(ctid) from stored_full);
insert into virtual_full values (4), (4);
insert into named values (20, 1, 1);
update named set b = 5 where id = 3;
insert into named_heir values (1, 1, 1, 1);
update named_parts set id = 7 where id = 2;
update loose set a = -5 where id = 2;
insert into loose values (3, -3, 99);
update rooms set during = '[2026-02-01,2026-04-01)' where during = '[2026-02-01,2026-03-01)';
insert into stays values (2, '[1,2)', '[2026-03-01,2026-03-15)');
insert into foreign_parts values (3, 2);
delete from foreign_parts where id = 2;
"#;

/// The statements that a source of this version knows.
fn since(text: &str, major: u32) -> impl Iterator<Item = &str> {
    let sections =
        text.split("-- since ").skip(1).map(|section| section.split_once('\n').expect("a section has lines"));
    let known = sections.filter(move |(since, _)| since.parse::<u32>().expect("a version") <= major);
    known.flat_map(|(_, statements)| statements.lines())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_newer_versions_brought_is_moved_between_them() -> Outcome {
    let found = versions();
    let newer: Vec<&BinDir> = found.iter().filter(|bin| bin.major() >= 17).collect();
    let mut running = JoinSet::new();
    for two in newer.windows(2) {
        for way in WAYS[0] {
            running.spawn(move_news((two[0].clone(), two[1].clone()), way));
        }
    }
    for way in newer.last().iter().flat_map(|_| WAYS.concat()) {
        let newest = newer[newer.len() - 1];
        running.spawn(move_news((newest.clone(), newest.clone()), way));
    }
    while let Some(done) = running.join_next().await {
        tell(&format!("what is new arrived: {}", done??));
    }
    Ok(())
}

async fn move_news(pair: (BinDir, BinDir), way: Way) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let major = pair.0.major();
    let mut life = between(&pair, way).await;
    life.target.batch_execute("create role keeper").await?;
    for statement in ["create extension btree_gist"].into_iter().chain(since(NEWS, major)) {
        life.source.batch_execute(statement).await.map_err(|e| format!("{statement}: {e:?}"))?;
    }
    life.allowed = &["public.virtual_full has no key: an UPDATE or DELETE on the source is not followed"];
    let run = life.follow_with(&["--allow-insert-only"]).await;
    // A standby that is promoted can go on with it.
    assert_eq!(life.on_source("select failover from pg_replication_slots").await, "t");
    if major >= 18 {
        // Not followed, and yet nothing that the application does on the source fails because of us.
        life.on_source("begin; update virtual_full set a = 7; delete from virtual_full; rollback").await;
    }
    for statement in since(NEWER_CHANGES, major) {
        life.source.batch_execute(statement).await.map_err(|e| format!("{statement}: {e:?}"))?;
    }
    life.end(run).await;
    assert_eq!(life.on_target("select count(*) from pgmig.steps where state <> 'done'").await, "0");
    Ok(format!("{}: {way:?}", name(&pair)))
}
