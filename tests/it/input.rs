//! Bad input: each case gets a clear error, the right exit code and a hint, and changes nothing on
//! either side. What pgmig says is in `expected/`, whole.

use std::time::Duration;

use harness::{Outcome, Pgmig};
use pgmig::embedded::Cluster;

use crate::bench::{Bench, to_the_end};
use crate::transcript::Transcript;

const TABLE: &str = "create table t (id int primary key, note text); insert into t values (1, 'a')";

/// The same address for another role.
fn role(uri: &str, name: &str) -> String {
    uri.replace("//postgres@", &format!("//{name}@"))
}

#[tokio::test(flavor = "multi_thread")]
async fn help_is_as_people_should_read_it() -> Outcome {
    let mut transcript = Transcript::new("help.txt");
    let cases: [&[&str]; 26] = [
        &[],
        &["--help"],
        &["run", "--help"],
        &["preflight", "--help"],
        &["params", "--help"],
        &["replica-identity", "--help"],
        &["plan", "--help"],
        &["status", "--help"],
        &["stalls", "--help"],
        &["set-endpos", "--help"],
        &["pause", "--help"],
        &["resume", "--help"],
        &["throttle", "--help"],
        &["stop", "--help"],
        &["reset-target", "--help"],
        &["table", "--help"],
        &["table", "add", "--help"],
        &["table", "resync", "--help"],
        &["verify", "--help"],
        &["cutover", "--help"],
        &["report", "--help"],
        &["cleanup", "--help"],
        &["notify", "--help"],
        &["demo", "--help"],
        &["completions", "--help"],
        &["man", "--help"],
    ];
    for args in cases {
        let finished = Pgmig::start(args, &[("COLUMNS", "100")]).wait(Duration::from_secs(30)).await;
        transcript.add("help", args, &finished);
    }
    transcript.check();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_cannot_be_meant_are_refused_before_any_connection() -> Outcome {
    let mut transcript = Transcript::new("arguments.txt");
    // Nobody listens there, and nobody is asked.
    let (source, target) = ("postgresql://nowhere.invalid/a", "postgresql://nowhere.invalid/b");
    let cases: [(&str, &[&str]); 17] = [
        ("neither source nor target", &["run"]),
        ("no target", &["run", "--source", source]),
        ("an unknown verb", &["migrate"]),
        ("an unknown flag", &["run", "--souce", source]),
        ("an unknown connection keyword", &["run", "--source", "hosst=nowhere dbname=a", "--target", target]),
        ("an unknown parameter in a URI", &["run", "--source", source, "--target", "postgresql://h/b?sslmod=require"]),
        ("a value that a keyword does not take", &["run", "--source", "sslmode=sometimes", "--target", target]),
        ("a malformed LSN", &["run", "--source", source, "--target", target, "--endpos", "16-B374D848"]),
        ("a malformed LSN for set-endpos", &["set-endpos", "--target", target, "4711"]),
        ("neither LSN nor --current", &["set-endpos", "--target", target]),
        ("--current without a source", &["set-endpos", "--target", target, "--current"]),
        ("a bad SIZE", &["run", "--source", source, "--target", target, "--split-tables-larger-than", "10 parsecs"]),
        ("no job", &["run", "--source", source, "--target", target, "--table-jobs", "0"]),
        ("a bad name", &["run", "--source", source, "--target", target, "--name", "My-Name"]),
        ("a bad slot name", &["run", "--source", source, "--target", target, "--slot-name", "My-Slot"]),
        (
            "--no-follow with --endpos",
            &["run", "--source", source, "--target", target, "--no-follow", "--endpos", "0/1"],
        ),
        (
            "--filters of a file that is not there",
            &["run", "--source", source, "--target", target, "--filters", "f.ini"],
        ),
    ];
    for (title, args) in cases {
        let finished = Pgmig::start(args, &[("COLUMNS", "100")]).wait(Duration::from_secs(30)).await;
        transcript.add(title, args, &finished);
        assert_eq!(finished.code(), 2, "{title}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{title}");
    }
    transcript.check();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_or_lets_nobody_in_is_named_with_a_hint() -> Outcome {
    let builder = || Cluster::builder().with_password();
    let mut bench = Bench::start("connect.txt", builder(), builder()).await?;
    bench.on_source(TABLE).await?;
    let (source, target) = (bench.pair.source_uri(), bench.pair.target_uri());
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    bench.transcript.replace(free, "CLOSED_PORT");
    let closed = format!("postgresql://postgres@127.0.0.1:{free}/app");
    let unknown = "postgresql://postgres@nowhere.invalid/app".to_string();
    let password = bench.pair.source.password().unwrap_or_default().to_string();
    let (wrong, none) = (source.replace(&password, "mellon"), source.replace(&format!(":{password}"), ""));
    let other_role = source.replace("//postgres:", "//nobody:");
    let socket_role = bench.pair.source.socket_uri("app").replace("//postgres@", "//nobody@");
    let no_source = bench.pair.source.uri("nowhere");
    let no_target = bench.pair.target.uri("nowhere");
    let between = [
        ("the source's port is closed", 3, &closed, &target),
        ("the target's port is closed", 4, &source, &closed),
        ("the source's host is not known", 3, &unknown, &target),
        ("the password is wrong", 3, &wrong, &target),
        ("the password is missing", 3, &none, &target),
        ("the role does not exist, seen over TCP", 3, &other_role, &target),
        ("the role does not exist, seen through the socket", 3, &socket_role, &target),
        ("the source database does not exist", 3, &no_source, &target),
        ("the target database does not exist", 4, &source, &no_target),
    ];
    for (title, code, source, target) in between {
        bench.refused_between(title, code, source, target, &[]).await?;
    }
    let env = [("PGPASSWORD", "mellon")];
    let dir = bench.dir();
    let args = ["run", "--source", &none, "--target", &target, "--dir", &dir];
    bench.command_refused("the password in PGPASSWORD is wrong", 3, &args, &env).await?;
    bench.command_refused("status of a closed port", 4, &["status", "--target", &closed], &[]).await?;
    bench.command_refused("status where nothing was begun", 5, &["status", "--target", &target], &[]).await?;
    let set = ["set-endpos", "--target", &target, "0/1"];
    bench.command_refused("set-endpos where nothing was begun", 5, &set, &[]).await?;

    let socket = bench.pair.source.socket_uri("app");
    let localhost = source.replace("127.0.0.1", "localhost");
    bench.refused_between("source and target are the same address", 2, &source, &source, &[]).await?;
    bench.refused_between("source and target are one database, by TCP and socket", 2, &source, &socket, &[]).await?;
    bench.refused_between("source and target are one database, by two names", 2, &source, &localhost, &[]).await?;
    bench.transcript.check();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_migrated_whole_is_refused_with_what_mends_it() -> Outcome {
    let mut bench = Bench::start("source.txt", Cluster::builder(), Cluster::builder()).await?;
    let (source, target) = (bench.pair.source_uri(), bench.pair.target_uri());
    bench.refused("the source holds no tables", 3, &[]).await?;

    bench.on_source(TABLE).await?;
    bench.on_source("create role mover login; grant select on t to mover").await?;
    bench.refused_between("the role may not replicate", 3, &role(&source, "mover"), &target, &[]).await?;
    bench.on_source("alter role mover replication; create table hers (id serial primary key)").await?;
    bench.refused_between("the role may not read a table", 3, &role(&source, "mover"), &target, &[]).await?;
    let closed =
        "grant select on all tables in schema public to mover; grant select on all sequences in schema public to mover;
                  create schema closed; create table closed.t (id int primary key); grant select on closed.t to mover";
    bench.on_source(closed).await?;
    bench.refused_between("the role may not use a schema", 3, &role(&source, "mover"), &target, &[]).await?;
    let hidden = "drop schema closed cascade; alter table hers enable row level security; create policy p on hers using (id > 9)";
    bench.on_source(hidden).await?;
    bench.refused_between("row security hides rows", 3, &role(&source, "mover"), &target, &[]).await?;
    let hashed = "drop table hers; create type mood as enum ('sad', 'happy'); create table feels (mood mood primary key) partition by hash (mood);
                  create table feels_0 partition of feels for values with (modulus 1, remainder 0)";
    bench.on_source(hashed).await?;
    bench.refused("rows belong to other partitions on another server", 3, &[]).await?;
    bench.on_source("drop table feels; drop type mood").await?;

    bench.on_source("select pg_create_logical_replication_slot('pgmig_default', 'test_decoding')").await?;
    bench.refused("the slot is there already", 3, &[]).await?;
    bench.on_source("select pg_drop_replication_slot('pgmig_default')").await?;
    bench.refused("endpos lies before the beginning", 2, &["--endpos", "0/1"]).await?;

    bench.on_source("create table prices (id int primary key, price numeric(8,2))").await?;
    bench.refused("wal2json 2.5 would lose a NaN", 3, &["--plugin", "wal2json"]).await?;
    bench.on_source("alter table prices alter price type text, add weight real").await?;
    bench.refused("wal2json 2.5 would lose an infinity", 3, &["--plugin", "wal2json"]).await?;

    bench.on_source("create table log (line text); create table \"Odd\" (\"A\" int)").await?;
    bench.refused("tables without a key", 3, &[]).await?;
    bench.transcript.check();

    // With the flag that the hint names it goes.
    let args =
        ["run", "--source", &source, "--target", &target, "--dir", &bench.dir(), "--allow-insert-only", "--no-acl"];
    let pair = &bench.pair;
    let ran = to_the_end(Pgmig::start(&args, &[]), &pair.source, (&pair.target, "app"), &[]).await?;
    let warned = ["public.log has no key", "public.\"Odd\" has no key"];
    assert!(warned.iter().all(|warning| ran.stderr.contains(warning)), "{}", ran.stderr);
    ran.finish(&warned).expect_code(0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_server_that_is_not_set_up_for_decoding_is_refused_with_the_setting() -> Outcome {
    let source = Cluster::builder().setting("wal_level", "replica").setting("max_replication_slots", "1");
    let mut bench = Bench::start("settings.txt", source, Cluster::builder()).await?;
    bench.on_source(TABLE).await?;
    bench.refused("wal_level is not logical", 3, &[]).await?;
    bench.on_source("select pg_create_physical_replication_slot('standby'); create table log (line text)").await?;
    bench.on_source("create role mover login; grant select on t to mover").await?;
    bench.on_target(TABLE).await?;
    let (mover, target) = (role(&bench.pair.source_uri(), "mover"), bench.pair.target_uri());
    bench.refused_between("many things at once", 3, &mover, &target, &["--plugin", "wal2json"]).await?;
    bench.on_target("drop table t").await?;
    bench.on_source("drop table log").await?;
    bench.on_source("alter system set wal_level = logical").await?;
    let known = "select name from pg_settings where name = 'output_plugin_libraries'";
    if bench.on_source(known).await?.is_empty() {
        println!("skipped the rest: this minor version lets every output plugin be used");
        return Ok(());
    }
    bench.on_source("alter system set output_plugin_libraries = pgoutput, test_decoding").await?;
    bench.pair.source.restart(pgmig::embedded::Stop::Fast).await?;
    bench.refused("every slot is in use", 3, &[]).await?;
    bench.on_source("select pg_drop_replication_slot('standby')").await?;
    bench.refused("wal2json is not allowed", 3, &["--plugin", "wal2json"]).await?;
    bench.transcript.check();

    // Left to choose, pgmig takes what it may.
    let (source, dir) = (bench.pair.source_uri(), bench.dir());
    let run =
        Pgmig::start(&["run", "--source", &source, "--target", &target, "--dir", &dir, "--no-acl", "--quiet"], &[]);
    let ran = to_the_end(run, &bench.pair.source, (&bench.pair.target, "app"), &[]).await?.expect_code(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "--quiet");
    let plugin = bench.pair.target.value("app", "select plugin from pgmig.progress").await?;
    assert_eq!(plugin.as_deref(), Some("pgoutput"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_take_the_migration_is_refused_with_what_mends_it() -> Outcome {
    let mut bench = Bench::start("target.txt", Cluster::builder(), Cluster::builder()).await?;
    let (source, target) = (bench.pair.source_uri(), bench.pair.target_uri());
    bench.on_source(TABLE).await?;
    bench.on_target("create table t (id int)").await?;
    bench.refused("the target already holds the table", 4, &[]).await?;
    bench.on_target("drop table t; create role mover login").await?;
    let mover = role(&target, "mover");
    bench.refused_between("the role may neither create nor replicate", 4, &source, &mover, &[]).await?;
    bench.on_target("grant create on database app to mover").await?;
    bench.refused_between("the role may not turn triggers off", 4, &source, &mover, &[]).await?;
    bench.on_target("revoke create on database app from mover").await?;
    bench.on_target("grant set on parameter session_replication_role to mover").await?;
    bench.refused_between("the role may not create schemas", 4, &source, &mover, &[]).await?;
    bench.on_target("grant create on database app to mover; grant create on schema public to mover").await?;
    let extension = ["--flavour", "extension", "--no-owner"];
    bench.refused_between("the role may not create the extension", 4, &source, &mover, &extension).await?;
    bench.on_target("create extension pgmig_sentinel").await?;
    bench.refused_between("the schema pgmig is another role's", 4, &source, &mover, &["--no-owner"]).await?;
    bench.on_target("drop extension pgmig_sentinel; create schema pgmig").await?;
    bench.refused("a schema pgmig that is not ours", 4, &[]).await?;
    bench.on_target("drop schema pgmig").await?;
    // That a server does not offer the extension cannot be tried on one that has it installed.

    let other = tempfile::tempdir()?;
    let dir = other.path().display().to_string();
    let first = ["run", "--source", &source, "--target", &target, "--dir", &dir, "--no-follow", "--flavour", "plain"];
    Pgmig::start(&first, &[]).finish(&[]).await.expect_code(0);
    bench.on_source("create database second").await?;
    bench.pair.source.sql("second", "create table other (id int primary key)").await?;
    let second = bench.pair.source.uri("second");
    bench.refused_between("a migration of another source has this name", 2, &second, &target, &["--no-follow"]).await?;
    bench.refused("begun with --no-follow, gone on with without", 2, &[]).await?;
    bench.refused("gone on with under another flavour", 2, &["--no-follow", "--flavour", "extension"]).await?;
    bench.refused("gone on with under another slot name", 2, &["--no-follow", "--slot-name", "x"]).await?;
    let set = ["set-endpos", "--target", &target, "0/1"];
    bench.command_refused("set-endpos of a migration that is done", 5, &set, &[]).await?;
    let set = ["set-endpos", "--target", &target, "--name", "nobody", "0/1"];
    bench.command_refused("set-endpos of a name that is not there", 5, &set, &[]).await?;
    let status = ["status", "--target", &target, "--name", "nobody"];
    bench.command_refused("status of a name that is not there", 5, &status, &[]).await?;
    let cleanup = ["cleanup", "--source", &source, "--target", &target, "--name", "nobody"];
    bench.on_source("select pg_create_logical_replication_slot('pgmig_nobody', 'test_decoding')").await?;
    bench.command_refused("cleanup of a slot that the target does not know", 5, &cleanup, &[]).await?;
    bench.transcript.check();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_are_no_superusers_can_migrate_with_the_rights_that_the_hints_name() -> Outcome {
    let pair = harness::Pair::start().await?;
    pair.on_source(TABLE).await?;
    pair.on_source(
        "create role mover login replication; alter table t owner to mover; grant create on database app to mover",
    )
    .await?;
    pair.on_target("create role mover login; grant set on parameter session_replication_role to mover").await?;
    for flavour in ["plain", "extension"] {
        pair.target.create_database(flavour).await?;
        let grants = format!("grant create on database {flavour} to mover; grant create on schema public to mover");
        pair.target.sql(flavour, &grants).await?;
    }
    let made = "create extension pgmig_sentinel; grant usage on schema pgmig to mover;
                grant all on all tables in schema pgmig to mover; grant execute on all functions in schema pgmig to mover";
    pair.target.sql("extension", made).await?;
    let folder = tempfile::tempdir()?;
    for flavour in ["plain", "extension"] {
        let (source, target) = (role(&pair.source_uri(), "mover"), role(&pair.target.uri(flavour), "mover"));
        let dir = folder.path().join(flavour).display().to_string();
        let args = ["run", "--source", &source, "--target", &target, "--dir", &dir, "--name", flavour, "--no-owner"];
        let run = Pgmig::start(&args, &[]);
        let ran = to_the_end(run, &pair.source, (&pair.target, flavour), &[]).await?.finish(&[]).expect_code(0);
        assert!(ran.stderr.contains(&format!("{flavour} flavour")), "{}", ran.stderr);
        assert_eq!(pair.target.value(flavour, "select note from t").await?.as_deref(), Some("a"));
    }
    Ok(())
}
