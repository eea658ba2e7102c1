//! From one major version to another, and between two of the newer ones: every object and change, and
//! what only the newer versions have. Which versions, is for `PGMIG_TEST_PG_BINS` to say.

use harness::{Outcome, Pair, assert_same, tell, versions};
use pgmig::embedded::{BinDir, Cluster};
use pgmig::verify::{self, Kind};
use tokio::task::JoinSet;

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
