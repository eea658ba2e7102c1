//! The whole life with roles that are no superusers on either side, shaped as managed services shape
//! theirs. What such a role cannot make is listed with its statement; run by a superuser, those make the
//! target whole.

use harness::{Outcome, Pair, Pgmig, tell, versions};
use pgmig::embedded::{BinDir, Cluster};
use pgmig::verify;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::bench::to_the_end;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A role as a service gives it.
struct Shape {
    group: &'static str,
    /// What it may on the target.
    on_target: &'static str,
    plugin: &'static str,
}

const SHAPES: [Shape; 4] = [
    Shape {
        group: "rds_superuser",
        on_target:
            "create role rds_superuser createdb createrole; grant pg_monitor, pg_signal_backend to rds_superuser;
                    grant set on parameter session_replication_role to rds_superuser",
        plugin: "wal2json",
    },
    Shape {
        group: "cloudsqlsuperuser",
        on_target: "create role cloudsqlsuperuser createdb createrole; grant pg_monitor to cloudsqlsuperuser;
                    grant set on parameter session_replication_role to cloudsqlsuperuser",
        plugin: "pgoutput",
    },
    Shape {
        group: "azure_pg_admin",
        on_target:
            "create role azure_pg_admin createdb createrole; grant pg_monitor, pg_read_all_data to azure_pg_admin;
                    grant set on parameter session_replication_role to azure_pg_admin",
        plugin: "pgoutput",
    },
    Shape {
        group: "plain_group",
        on_target: "create role plain_group; grant set on parameter session_replication_role to plain_group",
        plugin: "wal2json",
    },
];

const SCHEMA: &str = "
    set role app;
    create schema shop;
    create type shop.mood as enum ('good', 'bad');
    create table shop.orders (id int generated always as identity primary key, mood shop.mood, note text);
    create table shop.lines (id bigserial primary key, of int references shop.orders, price int check (price >= 0));
    create index on shop.lines (of);
    create table public.log (at int, line text); alter table public.log replica identity full;
    create view shop.good as select * from shop.orders where mood = 'good';
    create materialized view shop.totals as select of, sum(price) from shop.lines group by of;
    create function shop.touch() returns trigger language plpgsql as $$ begin new.note := coalesce(new.note, '-'); return new; end $$;
    create trigger touch before insert on shop.orders for each row execute function shop.touch();
    create table shop.secrets (id int primary key, whose text); alter table shop.secrets enable row level security;
    create policy mine on shop.secrets using (whose = current_user);
    grant usage on schema shop to reader; grant select on shop.orders to reader;
    comment on table shop.orders is 'what was ordered';
    insert into shop.orders (mood) select 'good' from generate_series(1, 200);
    insert into shop.lines (of, price) select 1 + i % 200, i from generate_series(1, 500) i;
    insert into shop.secrets values (1, 'reader'); insert into public.log values (1, 'a'), (1, 'a');
    refresh materialized view shop.totals;
    reset role;
    create function public.noticed() returns event_trigger language plpgsql as $$ begin end $$;
    alter function public.noticed() owner to app;
    create event trigger noticed on ddl_command_end execute function public.noticed();
    create publication everything for all tables";

/// Source, target, and which shapes with which flavour.
type Between = (BinDir, BinDir, &'static [(usize, &'static str)]);

/// Which shapes are tried between which versions: all where every other test is, some between others.
fn between() -> Vec<Between> {
    let found = versions();
    let (oldest, newest) = (&found[0], &found[found.len() - 1]);
    let mut all: Vec<Between> =
        vec![(oldest.clone(), oldest.clone(), &[(0, "extension"), (1, "extension"), (2, "plain"), (3, "plain")])];
    let turns: [&[(usize, &str)]; 2] = [&[(0, "plain"), (2, "extension")], &[(1, "plain"), (3, "extension")]];
    for (number, newer) in found[1..].iter().enumerate() {
        all.push((oldest.clone(), newer.clone(), turns[number % 2]));
    }
    if found.len() > 1 {
        all.push((newest.clone(), newest.clone(), turns[0]));
    }
    all
}

async fn pair(source: &BinDir, target: &BinDir) -> Result<Pair, Failure> {
    let server = |bin: &BinDir| Cluster::builder().bin_dir(bin.path());
    let pair = Pair::start_with(server(source), server(target)).await?;
    pair.on_source("create role app; create role reader").await?;
    pair.on_source("grant create on database app to app; grant create on schema public to app").await?;
    pair.on_source(SCHEMA).await?;
    Ok(pair)
}

/// One migration by roles that are no superusers.
struct Move<'a> {
    pair: &'a Pair,
    /// Of the migration and of its database on the target.
    name: &'a str,
    /// The role on either side.
    mover: &'a str,
    flags: &'a [&'a str],
    dir: tempfile::TempDir,
}

impl Move<'_> {
    fn uris(&self) -> (String, String) {
        let role = |uri: String| uri.replace("//postgres@", &format!("//{}@", self.mover));
        (role(self.pair.source_uri()), role(self.pair.target.uri(self.name)))
    }

    fn pgmig(&self, verb: &str, flags: &[&str]) -> Pgmig {
        let (source, target) = self.uris();
        let dir = self.dir.path().display().to_string();
        let bin = self.pair.target.bin_dir().path().display().to_string();
        let at = [verb, "--source", &source, "--target", &target, "--name", self.name, "--dir", &dir];
        Pgmig::start(&[&at[..], flags].concat(), &[("PGMIG_PG_BIN", &bin)])
    }

    /// The checks that failed on the target, mended by one command: as another role, or as itself.
    async fn mended(&self, admin: Option<&str>) -> Result<Vec<String>, Failure> {
        let admin = admin.map(|role| self.pair.target.uri(self.name).replace("//postgres@", &format!("//{role}@")));
        let admin: Vec<&str> = admin.iter().flat_map(|uri| ["--admin-target", uri.as_str()]).collect();
        let answer = self.pgmig("preflight", &[self.flags, &["--fix", "--yes", "--json"], &admin].concat());
        let answer = answer.finish(&[]).await.expect_code(0);
        let all: Value = serde_json::from_str(&answer.stdout)?;
        let mut checks = Vec::new();
        for fix in all["fixed"].as_array().into_iter().flatten() {
            assert_eq!(fix["outcome"], "done", "{fix}");
            checks.push(fix["check"].as_str().unwrap_or_default().to_string());
        }
        checks.dedup();
        Ok(checks)
    }

    /// From preflight to cleanup; what could not be made is listed, and made by a superuser at the end.
    async fn whole_life(&self) -> Outcome {
        let Move { pair, name, .. } = self;
        let preflight = self.pgmig("preflight", self.flags).finish(&[]).await;
        assert_eq!(preflight.code(), 0, "{name}: {}", preflight.stdout);
        let run = self.pgmig("run", self.flags);
        pair.on_source(
            "insert into shop.orders (mood, note) values ('bad', 'new'); update shop.lines set price = price + 1 where id < 50;
             delete from public.log where ctid = '(0,1)'; insert into public.log values (2, 'b'), (2, 'b')",
        )
        .await?;
        let ran = to_the_end(run, &pair.source, (&pair.target, name), &[]).await?;
        let ran = ran.finish(&["could not make event trigger noticed", "could not make publication everything"]);
        let ran = ran.expect_code(0);
        for statement in ["CREATE EVENT TRIGGER noticed", "CREATE PUBLICATION everything FOR ALL TABLES"] {
            assert!(ran.stderr.contains(statement), "{name}: {statement} is not listed:\n{}", ran.stderr);
        }
        // With the statements that are listed, run by a superuser, nothing is missing: owners and grants included.
        let failed = "select statement from pgmig.steps where state = 'failed' order by step_id";
        for row in pair.target.sql(name, failed).await? {
            pair.target.sql(name, row[0].as_deref().unwrap_or_default()).await?;
        }
        let options = verify::Options {
            bin_dir: Some(pair.target.bin_dir().path().into()),
            source_bin_dir: Some(pair.source.bin_dir().path().into()),
            ..Default::default()
        };
        let compared = verify::compare(&pair.source_uri(), &pair.target.uri(name), options).await?;
        assert!(compared.is_equal(), "{name}:\n{compared}");
        let (source, target) = self.uris();
        let cleanup = ["cleanup", "--source", &source, "--target", &target, "--name", name];
        let cleaned = Pgmig::start(&cleanup, &[]).finish(&[]).await.expect_code(0);
        if let Some((_, statement)) = cleaned.stderr.split_once("which another role owns; as that role: ") {
            pair.target.sql(name, statement.lines().next().unwrap_or_default()).await?;
        }
        let left = "select slot_name::text from pg_replication_slots union all select pubname::text from pg_publication
                     where pubname like 'pgmig%'";
        assert_eq!(pair.on_source(left).await?, Vec::<Vec<Option<String>>>::new(), "{name}");
        let left = "select nspname::text from pg_namespace where nspname = 'pgmig'";
        assert_eq!(pair.target.sql(name, left).await?, Vec::<Vec<Option<String>>>::new(), "{name}");
        Ok(())
    }
}

/// The source's role replicates, reads past row security, and is a member of the owner.
async fn source_role(pair: &Pair, mover: &str, group: &str) -> Result<(), Failure> {
    pair.on_source(&format!(
        "create role {group}; create role {mover} login replication bypassrls in role {group}, app;
         grant create on database app to {group}"
    ))
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_like_a_managed_services_moves_all_that_it_may_and_lists_the_rest() -> Outcome {
    let mut running = JoinSet::new();
    for (source, target, shapes) in between() {
        running.spawn(async move {
            let pair = pair(&source, &target).await?;
            pair.on_target("create role app; create role reader").await?;
            for (shape, flavour) in shapes {
                let Shape { group, on_target, plugin } = &SHAPES[*shape];
                let mover = format!("mover_{group}");
                source_role(&pair, &mover, group).await?;
                pair.on_target(on_target).await?;
                pair.on_target(&format!("create role {mover} login in role {group}, app")).await?;
                pair.target.create_database(group).await?;
                let grants =
                    format!("grant create on database {group} to {group}, app; grant create on schema public to app");
                pair.target.sql(group, &grants).await?;
                let flags = ["--plugin", plugin, "--flavour", flavour];
                let this = Move { pair: &pair, name: group, mover: &mover, flags: &flags, dir: tempfile::tempdir()? };
                if *flavour == "extension" {
                    // Somebody who may makes it and grants it, by the statements that preflight gives.
                    assert_eq!(this.mended(Some("postgres")).await?, ["flavour"], "{group}");
                }
                this.whole_life().await?;
                tell(&format!("{group}, {flavour}: PostgreSQL {} to {}", source.version(), target.version()));
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// As the first user of a service does, which is no member of the roles that it makes.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_makes_the_owners_itself_gives_them_what_is_theirs() -> Outcome {
    let mut running = JoinSet::new();
    for target in versions() {
        running.spawn(async move {
            let pair = pair(&versions()[0], &target).await?;
            source_role(&pair, "master", "masters").await?;
            pair.on_target(
                "create role master login createrole; grant set on parameter session_replication_role to master",
            )
            .await?;
            for name in ["by_run", "by_hand"] {
                pair.target.create_database(name).await?;
                pair.target.sql(name, &format!("alter database {name} owner to master")).await?;
            }
            // The run makes them.
            let flags = ["--roles", "--no-role-passwords"];
            let this = Move { pair: &pair, name: "by_run", mover: "master", flags: &flags, dir: tempfile::tempdir()? };
            this.whole_life().await?;
            pair.target.sql("postgres", "drop database by_run").await?;
            pair.on_target("drop role app, reader, masters").await?;
            // It has made them before.
            let by_hand = pair.target.uri("by_hand").replace("//postgres@", "//master@");
            let client = crate::life::session(&by_hand).await;
            client
                .batch_execute(
                    "create role app; create role reader; create role masters; grant create on schema public to app",
                )
                .await?;
            let flags = ["--flavour", "plain"];
            let this = Move { pair: &pair, name: "by_hand", mover: "master", flags: &flags, dir: tempfile::tempdir()? };
            assert_eq!(this.mended(None).await?, ["owners"]);
            this.whole_life().await?;
            tell(&format!("its own roles: PostgreSQL {} to {}", versions()[0].version(), target.version()));
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}
