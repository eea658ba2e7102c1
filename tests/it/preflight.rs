//! `pgmig preflight`: it finds what would stop a run, the statements that it gives mend it, and it leaves
//! nothing behind. What it prints is in `expected/`, whole.

use harness::{Outcome, Pgmig, libraries_without};
use pgmig::embedded::{Cluster, Lends, PgBouncer, Stop};
use serde_json::Value;

use crate::bench::{Bench, to_the_end};

fn role(uri: &str, name: &str) -> String {
    uri.replace("//postgres@", &format!("//{name}@"))
}

fn failed(findings: &Value) -> Vec<&Value> {
    let list = findings["findings"].as_array().expect("a list of findings");
    list.iter().filter(|found| found["verdict"] == "FAIL").collect()
}

/// The finding of a check on one side.
fn found<'a>(findings: &'a Value, place: &str, check: &str) -> &'a Value {
    let list = findings["findings"].as_array().expect("a list of findings");
    let mut of = list.iter().filter(|found| found["place"] == place && found["check"] == check);
    of.next().unwrap_or_else(|| panic!("nothing about {check} of the {place}: {findings:#}"))
}

async fn bench(name: &'static str, source: pgmig::embedded::Builder) -> Result<Bench, pgmig::error::Error> {
    let mut bench = Bench::start(name, source, Cluster::builder()).await?;
    let version =
        bench.pair.source.value("app", "select split_part(current_setting('server_version'), ' ', 1)").await?;
    bench.transcript.replace(format!("PostgreSQL {}", version.unwrap_or_default()), "PostgreSQL VERSION");
    bench.transcript.blot("connections            ", " sessions");
    bench.transcript.blot("the source's database is ", ": have");
    bench.transcript.blot("  --dir                ", " free for");
    bench.transcript.blot("(app, ", ")");
    bench.transcript.blot("select pg_terminate_backend(", ")");
    bench.transcript.blot("waits until they end: pid ", " of");
    bench.transcript.blot("\"waits\", ", "");
    bench.transcript.blot("libc ", "");
    Ok(bench)
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_finds_what_is_wrong_and_its_statements_mend_it() -> Outcome {
    let builder = Cluster::builder()
        .setting("max_prepared_transactions", "4")
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("max_replication_slots", "4");
    let mut bench = bench("preflight.txt", builder).await?;
    let (source, target, dir) = (bench.pair.source_uri(), bench.pair.target_uri(), bench.dir());
    bench.on_source("create table t (id int primary key, note text); insert into t values (1, 'a')").await?;
    let as_postgres = ["preflight", "--source", &source, "--target", &target, "--dir", &dir];
    bench.answers("nothing is wrong", 0, &as_postgres).await?;

    bench
        .on_source(
            "create role mover login; create role app; create role reader;
             create table no_key (id int not null, note text); create unique index by_id on no_key (id);
             create table log (line text);
             create table silent (id int primary key); alter table silent replica identity nothing;
             create table parted (id int primary key) partition by range (id);
             create table parted_1 partition of parted for values from (0) to (10);
             create schema closed; create table closed.t (id serial primary key);
             grant select on t to reader;
             create table hidden (id int primary key, whose text); alter table hidden enable row level security;
             create policy mine on hidden using (whose = current_user);
             create unlogged table cache (id int primary key);
             create publication everything for all tables;
             select lo_create(4711);
             do $$ declare r regclass; begin
                 for r in select oid from pg_class where relkind in ('r', 'p') and relnamespace::regnamespace::text in ('public', 'closed') loop
                     execute format('alter table %s owner to app', r);
                 end loop;
             end $$;
             alter schema closed owner to app",
        )
        .await?;
    bench.on_target("create role mover login").await?;
    let (mover, into) = (role(&source, "mover"), role(&target, "mover"));
    let args = ["preflight", "--source", &mover, "--target", &into, "--dir", &dir];
    // What is prepared, and what writes and does not end, is in the way of a slot.
    bench.on_source("begin; insert into t values (2, 'b'); prepare transaction 'left over'").await?;
    bench.answers("everything is wrong", 1, &args).await?;
    bench.on_source("rollback prepared 'left over'").await?;

    // Nobody is there to say yes. Then one command mends it, round by round.
    let fix = [&args[..], &["--fix", "--admin-source", &source, "--admin-target", &target]].concat();
    bench.answers("nobody says yes", 1, &fix).await?;
    let fix = [&fix[..], &["--yes"]].concat();
    let mended = Pgmig::start(&fix, &[("COLUMNS", "100")]).finish(&[]).await.expect_code(0);
    bench.transcript.add("its statements mend it", &fix, &mended);
    // What it gave tables is remembered as if pgmig replica-identity had given it.
    let revert = ["replica-identity", "--source", &source, "--target", &into, "--dir", &dir, "--revert"];
    let revert = Pgmig::start(&revert, &[]).finish(&[]).await.expect_code(1);
    assert_eq!(revert.stdout.lines().count(), 3, "{}", revert.stdout);
    std::fs::remove_dir_all(&dir)?;
    bench.forget();
    bench.answers("what failed is mended", 0, &args).await?;
    bench.transcript.check();

    // And so it is: with these rights the same line runs to the end.
    bench.on_source("drop publication everything").await?;
    let run = ["run", "--source", &mover, "--target", &into, "--dir", &dir, "--skip-large-objects"];
    let run = Pgmig::start(&run, &[]);
    let ran = to_the_end(run, &bench.pair.source, (&bench.pair.target, "app"), &[]).await?;
    ran.finish(&["public.cache is unlogged", "large objects are left behind"]).expect_code(0);
    bench.on_source("select lo_unlink(4711)").await?;
    Ok(())
}

/// What `--fix` did, as `outcome side statement`, and the checks that fail after it.
fn mended(answer: &str) -> (Vec<String>, Vec<String>) {
    let all: Value = serde_json::from_str(answer).expect("an object");
    let word = |fix: &Value, key: &str| fix[key].as_str().unwrap_or_default().to_string();
    let line = |fix: &Value| format!("{} {} {}", word(fix, "outcome"), word(fix, "side"), word(fix, "statement"));
    let fixed = all["fixed"].as_array().expect("what was done").iter().map(line).collect();
    (fixed, failed(&all).iter().map(|found| word(found, "check")).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_mends_what_the_roles_lack_and_is_told_what_no_statement_does() -> Outcome {
    let source = Cluster::builder().setting("wal_level", "replica");
    let pair = harness::Pair::start_with(source, Cluster::builder()).await?;
    pair.on_source(
        "create role mover login; create role owner in role pg_monitor; create role chief login superuser;
         create schema tools; create extension pageinspect with schema tools; alter schema tools owner to owner;
         create table mine (id int, note text); alter table mine owner to mover;
         create table hers (id serial primary key, note text); alter table hers owner to owner;
         insert into mine values (1, 'a'), (1, 'a'); insert into hers (note) values ('b')",
    )
    .await?;
    pair.on_target("create role mover login; create role owner; create role chief login superuser").await?;
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("dir").display().to_string();
    let (mover, into) = (role(&pair.source_uri(), "mover"), role(&pair.target_uri(), "mover"));
    let at = ["--source", &mover, "--target", &into, "--dir", &dir, "--plugin", "wal2json", "--skip-ext-comments"];
    let preflight = |more: &[&str]| Pgmig::start(&[&["preflight"], &at[..], more].concat(), &[]);

    // What the role may not do fails, in the server's words; the rest goes on.
    let alone = preflight(&["--fix", "--yes", "--json"]).finish(&[]).await.expect_code(1);
    let (fixed, _) = mended(&alone.stdout);
    let done: Vec<&String> = fixed.iter().filter(|line| line.starts_with("done ")).collect();
    assert_eq!(done, ["done source alter table public.mine replica identity full;"], "{fixed:#?}");
    for failed in [
        "failed source alter system set wal_level = logical;",
        "failed source alter role \"mover\" replication;",
        "failed target create extension \"pageinspect\" with schema \"tools\" cascade;",
        // The server only warns that it granted nothing.
        "failed target grant create on database \"app\" to \"mover\";",
    ] {
        assert!(fixed.iter().any(|line| line == failed), "{failed}: {fixed:#?}");
    }
    assert!(alone.stderr.contains("permission denied"), "{}", alone.stderr);
    assert!(alone.stderr.contains("give a role that may: --admin-source (this takes"), "{}", alone.stderr);

    // Another server than the migration's is refused before anything is changed.
    let chief = (role(&pair.source_uri(), "chief"), role(&pair.target_uri(), "chief"));
    let swapped = preflight(&["--fix", "--yes", "--admin-source", &chief.1]).finish(&["error: "]).await.expect_code(2);
    assert!(swapped.stderr.contains("--admin-source is another server than --source"), "{}", swapped.stderr);

    // The database is that of the migration, whatever the string says.
    let other = chief.0.replace("/app", "/postgres");
    let fix = ["--fix", "--yes", "--json", "--admin-source", &other, "--admin-target", &chief.1];
    let fixed = preflight(&fix).finish(&[]).await.expect_code(1);
    let (fixed, failed) = mended(&fixed.stdout);
    assert_eq!(failed, ["wal_level"], "{fixed:#?}");
    assert!(fixed.iter().all(|line| !line.starts_with("failed ")), "{fixed:#?}");
    let left: Vec<&String> = fixed.iter().filter(|line| line.starts_with("left ")).collect();
    assert_eq!(left, ["left source -- then restart the server"]);
    let again = preflight(&["--json"]).finish(&[]).await.expect_code(1);
    let again: Value = serde_json::from_str(&again.stdout)?;
    let waits = found(&again, "source", "wal_level");
    assert!(
        waits["message"].as_str().is_some_and(|text| text.contains("holds once the server is restarted")),
        "{waits}"
    );
    assert_eq!(waits["steps"][0]["kind"], "restart", "{waits}");
    pair.source.restart(Stop::Fast).await?;
    preflight(&[]).finish(&[]).await.expect_code(0);

    let run = Pgmig::start(&[&["run"], &at[..]].concat(), &[]);
    pair.on_source("insert into mine values (2, 'c'); update mine set note = 'd' where id = 1; delete from hers")
        .await?;
    to_the_end(run, &pair.source, (&pair.target, "app"), &[]).await?.finish(&[]).expect_code(0);
    pair.on_target("comment on extension pageinspect is 'inspect the contents of database pages at a low level'")
        .await?;
    pair.on_target("revoke create on schema public from mover, owner").await?;
    harness::assert_same(&pair).await;

    // To publish a table it would have to be its owner: nobody is made a superuser in passing.
    pair.on_source("create table his (id int primary key); alter table his owner to chief").await?;
    let at = ["--source", &mover, "--target", &into, "--dir", &dir, "--plugin", "pgoutput", "--name", "second"];
    let fixed = Pgmig::start(&[&["preflight"], &at[..], &fix].concat(), &[]).finish(&[]).await.expect_code(1);
    let (fixed, _) = mended(&fixed.stdout);
    for line in ["done source grant \"owner\" to \"mover\";", "left source grant \"chief\" to \"mover\";"] {
        assert!(fixed.iter().any(|fixed| fixed == line), "{line}: {fixed:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_cannot_be_reached_is_a_failure_and_the_other_one_is_told() -> Outcome {
    let mut bench = bench("preflight_connect.txt", Cluster::builder()).await?;
    let (source, dir) = (bench.pair.source_uri(), bench.dir());
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    bench.transcript.replace(free, "CLOSED_PORT");
    let closed = format!("postgresql://postgres@127.0.0.1:{free}/app");
    let args = ["preflight", "--source", &source, "--target", &closed, "--dir", &dir];
    bench.answers("the target's port is closed", 1, &args).await?;
    let args = ["preflight", "--source", &closed, "--target", &closed, "--dir", &dir];
    bench.answers("both ports are closed", 1, &args).await?;
    bench.transcript.check();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_managed_service_is_recognised_and_spoken_to_in_its_own_words() -> Outcome {
    let pair =
        harness::Pair::start_with(Cluster::builder().setting("wal_level", "replica"), Cluster::builder()).await?;
    pair.on_source("create table t (id int primary key); create role mover login; grant select on t to mover").await?;
    pair.on_target("create role mover login").await?;
    let (mover, into) = (role(&pair.source_uri(), "mover"), role(&pair.target_uri(), "mover"));
    let cases = [
        (
            "rds.extensions",
            "Amazon RDS",
            "ParameterName=rds.logical_replication,ParameterValue=1",
            "grant rds_replication to \"mover\";",
        ),
        (
            "apg_plan_mgmt.use_plan_baselines",
            "Amazon Aurora",
            "modify-db-cluster-parameter-group",
            "grant rds_replication to \"mover\";",
        ),
        (
            "cloudsql.logical_decoding",
            "Cloud SQL",
            "--database-flags=cloudsql.logical_decoding=on",
            "alter role \"mover\" replication;",
        ),
        (
            "alloydb.logical_decoding",
            "AlloyDB",
            "--database-flags=alloydb.logical_decoding=on",
            "alter role \"mover\" replication;",
        ),
        ("azure.extensions", "Azure", "--name wal_level --value logical", "alter role \"mover\" replication;"),
        (
            "supautils.privileged_role",
            "Supabase",
            "postgres-config update --config wal_level=logical",
            "alter role \"mover\" replication;",
        ),
        (
            "planetscale.extensions",
            "PlanetScale",
            "Clusters, Parameters, wal_level = logical",
            "alter role \"mover\" replication;",
        ),
        ("my.own", "self-managed", "alter system set wal_level = logical;", "alter role \"mover\" replication;"),
    ];
    for (setting, service, decoding, replication) in cases {
        for side in [&pair.source, &pair.target] {
            side.sql("postgres", &format!("alter database app set {setting} = 'on'")).await?;
        }
        let args = ["preflight", "--source", &mover, "--target", &into, "--json"];
        let answer = Pgmig::start(&args, &[]).finish(&[]).await.expect_code(1);
        let findings: Value = serde_json::from_str(&answer.stdout)?;
        for place in ["source", "target"] {
            let message = found(&findings, place, "connection")["message"].to_string();
            assert!(message.contains(&format!(", {service}, database app")), "{setting}: {message}");
        }
        let mend = |check: &str| found(&findings, "source", check)["mend"].as_str().unwrap_or_default().to_string();
        assert!(mend("wal_level").contains(decoding), "{setting}: {}", mend("wal_level"));
        assert!(mend("replication").contains(replication), "{setting}: {}", mend("replication"));
        assert_ne!(found(&findings, "target", "replica role")["mend"], Value::Null, "{setting}");
        for side in [&pair.source, &pair.target] {
            side.sql("postgres", "alter database app reset all").await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_filters_keep_is_checked() -> Outcome {
    let pair = harness::Pair::start().await?;
    pair.on_source(
        "create role mover login replication; create table t (id int primary key); grant select on t to mover;
         create role stranger; create table hers (line text); alter table hers owner to stranger;
         create schema closed; create table closed.t (line text)",
    )
    .await?;
    let folder = tempfile::tempdir()?;
    let filters = folder.path().join("filters.ini");
    std::fs::write(&filters, "[exclude-schema]\nclosed\n[exclude-table]\npublic.hers\n")?;
    let (mover, target, filters) =
        (role(&pair.source_uri(), "mover"), pair.target_uri(), filters.display().to_string());
    let args = ["preflight", "--source", &mover, "--target", &target, "--no-acl", "--json"];
    let answer = Pgmig::start(&args, &[]).finish(&[]).await.expect_code(1);
    let findings: Value = serde_json::from_str(&answer.stdout)?;
    let checks: Vec<&str> = failed(&findings).iter().filter_map(|found| found["check"].as_str()).collect();
    assert_eq!(checks, ["schemas", "select", "replica identity", "owners"], "{findings:#}");
    let filtered = [&args[..], &["--filters", &filters]].concat();
    let answer = Pgmig::start(&filtered, &[]).finish(&[]).await.expect_code(0);
    let findings: Value = serde_json::from_str(&answer.stdout)?;
    assert_eq!(found(&findings, "here", "filters")["message"], "every entry matches; they leave 1 table");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_wal2json_could_not_write_makes_the_run_take_pgoutput() -> Outcome {
    let pair = harness::Pair::start().await?;
    // 256 MB of text, which takes little room.
    pair.on_source(
        "create table files (id int primary key, one text, other text);
         insert into files select 1, x, x from repeat('x', 128 << 20) x",
    )
    .await?;
    let (source, target) = (pair.source_uri(), pair.target_uri());
    let args = ["preflight", "--source", &source, "--target", &target, "--json"];
    let findings = async |more: &[&str], code: i32| -> Result<Value, serde_json::Error> {
        let answer = Pgmig::start(&[&args, more].concat(), &[]).finish(&[]).await.expect_code(code);
        serde_json::from_str(&answer.stdout)
    };
    let message = |finding: &Value| finding["message"].as_str().unwrap_or_default().to_string();
    let inserted = findings(&[], 0).await?;
    assert!(message(found(&inserted, "source", "output plugin")).starts_with("wal2json"), "{inserted:#}");
    // The same row twice in one change.
    pair.on_source("alter table files replica identity full").await?;
    let updated = findings(&[], 0).await?;
    assert!(message(found(&updated, "source", "output plugin")).starts_with("pgoutput"), "{updated:#}");
    let why = message(found(&updated, "source", "wal2json"));
    assert!(why.contains("an update of public.files can send 512.0 MiB of values (REPLICA IDENTITY FULL"), "{why}");
    let refused = findings(&["--plugin", "wal2json"], 1).await?;
    let refused = found(&refused, "source", "output plugin");
    assert_eq!((&refused["verdict"], &refused["mend"]), (&"FAIL".into(), &"use --plugin pgoutput".into()), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_wal2json_is_followed_by_pgoutput_unless_that_was_asked_for_by_name() -> Outcome {
    let libraries = libraries_without("wal2json")?;
    let source = Cluster::builder().setting("dynamic_library_path", &libraries.path().display().to_string());
    let pair = harness::Pair::start_with(source, Cluster::builder()).await?;
    pair.on_source("create table t (id int primary key, note text); insert into t values (1, 'a')").await?;
    let (source, target) = (pair.source_uri(), pair.target_uri());
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("dir").display().to_string();
    let pgmig = |verb: &str, more: &[&str]| {
        let at = [verb, "--source", &source, "--target", &target, "--dir", &dir];
        Pgmig::start(&[&at[..], more].concat(), &[])
    };
    let absent = "the source cannot decode with wal2json: try wal2json with a temporary slot: could not access file \"wal2json\": \
                  No such file or directory (58P01)";
    let install = format!(
        "install wal2json on the source's machine (Debian: postgresql-{}-wal2json), or use --plugin pgoutput",
        pair.source.bin_dir().major()
    );

    let named = ["--plugin", "wal2json"];
    let answer = pgmig("preflight", &[&named[..], &["--json"]].concat()).finish(&[]).await.expect_code(1);
    let findings: Value = serde_json::from_str(&answer.stdout)?;
    let plugin = found(&findings, "source", "output plugin");
    assert_eq!((&plugin["verdict"], &plugin["message"]), (&"FAIL".into(), &absent.into()), "{plugin}");
    assert_eq!(plugin["mend"], install.as_str());
    let refused = pgmig("run", &named).finish(&["error: "]).await.expect_code(3);
    assert!(refused.stderr.starts_with("error: the source cannot decode with wal2json\n"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("hint: {install}")), "{}", refused.stderr);
    let nothing = "select (select count(*) from pg_replication_slots) + (select count(*) from pg_publication)";
    assert_eq!(pair.on_source(nothing).await?, [[Some("0".to_string())]]);

    let answer = pgmig("preflight", &["--json"]).finish(&[]).await.expect_code(0);
    let findings: Value = serde_json::from_str(&answer.stdout)?;
    assert_eq!(found(&findings, "source", "wal2json")["message"], format!("not taken: {absent}"));
    let plugin = found(&findings, "source", "output plugin");
    assert_eq!(plugin["message"], "pgoutput, tried with a temporary slot");
    let run = pgmig("run", &[]);
    pair.on_source("insert into t values (2, 'b'); update t set note = 'c' where id = 1").await?;
    to_the_end(run, &pair.source, (&pair.target, "app"), &[]).await?.finish(&[]).expect_code(0);
    let plugin = pair.target.value("app", "select plugin from pgmig.progress").await?;
    assert_eq!(plugin.as_deref(), Some("pgoutput"));
    harness::assert_same(&pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_between_is_seen_and_one_that_lends_transactions_is_refused() -> Outcome {
    let Some(program) = PgBouncer::program() else {
        println!("skipped: PgBouncer is not installed");
        return Ok(());
    };
    let pair = harness::Pair::start().await?;
    pair.on_source("create role app login superuser; create table t (id int primary key)").await?;
    pair.on_target("create role app login superuser").await?;
    let bouncer = PgBouncer::start(program, &pair.source, harness::DATABASE, "app").await?;
    let pooled = bouncer.uri();
    let target = pair.target_uri();
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("dir").display().to_string();
    let args = ["--source", &pooled, "--target", &target, "--dir", &dir];
    let answer = Pgmig::start(&[&["preflight", "--json"], &args[..]].concat(), &[]).finish(&[]).await.expect_code(1);
    let findings: Value = serde_json::from_str(&answer.stdout)?;
    let pooler = found(&findings, "source", "pooler");
    assert_eq!(pooler["verdict"], "FAIL", "{pooler}");
    assert!(pooler["mend"].as_str().is_some_and(|mend| mend.contains("own address and port")), "{pooler}");
    assert_eq!(found(&findings, "target", "pooler")["verdict"], "PASS");
    let run = Pgmig::start(&[&["run"], &args[..]].concat(), &[]).finish(&["error: "]).await.expect_code(3);
    assert!(run.stderr.contains("behind a pooler that lends sessions for a transaction"), "{}", run.stderr);
    assert_eq!(pair.on_source("select count(*) from pg_replication_slots").await?, [[Some("0".to_string())]]);

    // A session that a client keeps does; what ends it behind our back does not. Before the target it only warns.
    pair.target.create_database("pooled").await?;
    let bouncer = PgBouncer::start_that(Lends::Session, program, &pair.target, "pooled", "app").await?;
    let (source, pooled) = (pair.source_uri(), bouncer.uri());
    let args = ["--source", &source, "--target", &pooled, "--dir", &dir];
    let answer = Pgmig::start(&[&["preflight", "--json"], &args[..]].concat(), &[]).finish(&[]).await.expect_code(0);
    let findings: Value = serde_json::from_str(&answer.stdout)?;
    let pooler = found(&findings, "target", "pooler");
    assert_eq!(pooler["verdict"], "WARN", "{pooler}");
    assert!(pooler["mend"].as_str().is_some_and(|mend| mend.contains("own address and port")), "{pooler}");
    assert_eq!(found(&findings, "source", "pooler")["verdict"], "PASS");
    let run = Pgmig::start(&[&["run"], &args[..], &["--no-follow"]].concat(), &[]);
    let run = run.finish(&["the target is behind a pooler: "]).await.expect_code(0);
    assert!(run.stderr.contains("warning: the target is behind a pooler: "), "{}", run.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_out_of_transaction_numbers_is_told_before_a_long_copy() -> Outcome {
    // Nothing is frozen meanwhile by autovacuum.
    let builder = Cluster::builder().setting("autovacuum_freeze_max_age", "2000000000").setting("autovacuum", "off");
    let pair = harness::Pair::start_with(builder, Cluster::builder()).await?;
    pair.on_source("create table t (id int primary key)").await?;
    // (page of pg_xact that is made, its first transaction, verdict)
    for (segment, verdict) in [(950_u32, "WARN"), (1930, "FAIL")] {
        pair.source.stop(Stop::Fast).await?;
        let data = pair.source.data_dir();
        let path = data.join(format!("pg_xact/{segment:04X}"));
        std::fs::write(&path, vec![0_u8; 256 * 1024])?;
        let run_as = pgmig::embedded::RunAs::choose()?;
        run_as.give(&path)?;
        let mut reset = pair.source.bin_dir().tool("pg_resetwal");
        reset.args(["-x", &(segment * (1 << 20)).to_string(), "-D"]).arg(&data);
        let done = run_as.apply(&mut reset).output()?;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        pair.source.start().await?;
        let (source, target) = (pair.source_uri(), pair.target_uri());
        // A server that is about to stop vacuums whatever its settings say; it is kept from writing that down.
        let holder = crate::life::session(&source).await;
        holder.batch_execute("begin; lock table pg_catalog.pg_database in share mode").await?;
        let args = ["preflight", "--source", &source, "--target", &target, "--json"];
        let answer = Pgmig::start(&args, &[]).finish(&[]).await.expect_code(i32::from(verdict == "FAIL"));
        drop(holder);
        let findings: Value = serde_json::from_str(&answer.stdout)?;
        let wraparound = found(&findings, "source", "wraparound");
        assert_eq!(wraparound["verdict"], verdict, "{wraparound}");
        assert!(
            wraparound["mend"].as_str().is_some_and(|mend| mend.ends_with("vacuum (freeze, verbose);")),
            "{wraparound}"
        );
        assert_eq!(found(&findings, "target", "wraparound")["verdict"], "PASS");
    }
    Ok(())
}
