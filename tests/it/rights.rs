//! The whole life with roles that are no superusers on either side, shaped as managed services shape
//! theirs. What such a role cannot make is listed with its statement; run by a superuser, those make the
//! target whole.

use harness::{Outcome, Pair, Pgmig};
use pgmig::verify;

use crate::bench::to_the_end;

/// Name of the group role, what it may on the target, flags.
const SHAPES: [(&str, &str, &[&str]); 4] = [
    (
        "rds_superuser",
        "create role rds_superuser createdb createrole; grant pg_monitor, pg_signal_backend to rds_superuser;
         grant set on parameter session_replication_role to rds_superuser",
        &["--plugin", "wal2json"],
    ),
    (
        "cloudsqlsuperuser",
        "create role cloudsqlsuperuser createdb createrole; grant pg_monitor to cloudsqlsuperuser;
         grant set on parameter session_replication_role to cloudsqlsuperuser",
        &["--plugin", "pgoutput"],
    ),
    (
        "azure_pg_admin",
        "create role azure_pg_admin createdb createrole; grant pg_monitor, pg_read_all_data to azure_pg_admin;
         grant set on parameter session_replication_role to azure_pg_admin",
        &["--plugin", "pgoutput", "--flavour", "plain"],
    ),
    (
        "plain_group",
        "create role plain_group; grant set on parameter session_replication_role to plain_group",
        &["--plugin", "wal2json", "--flavour", "plain"],
    ),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_role_like_a_managed_services_moves_all_that_it_may_and_lists_the_rest() -> Outcome {
    let pair = Pair::start().await?;
    let roles = "create role app; create role reader";
    pair.on_source(roles).await?;
    pair.on_target(roles).await?;
    pair.on_source("grant create on database app to app; grant create on schema public to app").await?;
    pair.on_source(SCHEMA).await?;
    let folder = tempfile::tempdir()?;
    for (group, shape, flags) in SHAPES {
        // The source's role replicates, reads past row security, and is a member of the owner.
        let mover = format!("mover_{group}");
        pair.on_source(&format!(
            "create role {group}; create role {mover} login replication bypassrls in role {group}, app;
             grant create on database app to {group}"
        ))
        .await?;
        pair.on_target(shape).await?;
        pair.on_target(&format!("create role {mover} login in role {group}, app")).await?;
        pair.target.create_database(group).await?;
        let grants = format!("grant create on database {group} to {group}, app; grant create on schema public to app");
        pair.target.sql(group, &grants).await?;
        let role = |uri: String| uri.replace("//postgres@", &format!("//{mover}@"));
        let (source, target) = (role(pair.source_uri()), role(pair.target.uri(group)));
        let dir = folder.path().join(group).display().to_string();
        let at = ["--source", &source, "--target", &target, "--dir", &dir, "--name", group];
        Pgmig::start(&[&["preflight"], &at[..], flags].concat(), &[]).finish(&[]).await.expect_code(0);
        let run = Pgmig::start(&[&["run"], &at[..], flags].concat(), &[]);
        pair.on_source(
            "insert into shop.orders (mood, note) values ('bad', 'new'); update shop.lines set price = price + 1 where id < 50;
             delete from public.log where ctid = '(0,1)'; insert into public.log values (2, 'b'), (2, 'b')",
        )
        .await?;
        let ran = to_the_end(run, &pair.source, (&pair.target, group), &[]).await?;
        let ran = ran.finish(&["could not make event trigger noticed", "could not make publication everything"]);
        let ran = ran.expect_code(0);
        for statement in ["CREATE EVENT TRIGGER noticed", "CREATE PUBLICATION everything FOR ALL TABLES"] {
            assert!(ran.stderr.contains(statement), "{group}: {statement} is not listed:\n{}", ran.stderr);
        }
        // With the statements that are listed, run by a superuser, nothing is missing: owners and grants included.
        let failed = "select statement from pgmig.steps where state = 'failed' order by step_id";
        for row in pair.target.sql(group, failed).await? {
            pair.target.sql(group, row[0].as_deref().unwrap_or_default()).await?;
        }
        let options = verify::Options { bin_dir: Some(pair.target.bin_dir().path().into()), ..Default::default() };
        let compared = verify::compare(&pair.source_uri(), &pair.target.uri(group), options).await?;
        assert!(compared.is_equal(), "{group}:\n{compared}");
        let cleanup = ["cleanup", "--source", &source, "--target", &target, "--name", group];
        Pgmig::start(&cleanup, &[]).finish(&[]).await.expect_code(0);
        let left = "select slot_name::text from pg_replication_slots union all select pubname::text from pg_publication
                     where pubname like 'pgmig%'";
        assert_eq!(pair.on_source(left).await?, Vec::<Vec<Option<String>>>::new(), "{group}");
    }
    Ok(())
}
