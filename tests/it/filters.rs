//! Filters from end to end: each section on real servers, with changes to what is left out flowing all
//! the while, and the plan that was shown against what is done.

mod shop;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use harness::{Finished, Outcome, Pair, Pgmig, assert_same_with, wait_until};
use pgmig::plan_db::{PlanDb, Selection};
use pgmig::verify;
use shop::{CHANGES, EXCLUDE, SCHEMA};

const NOTHING: &str = "app.nope matches nothing";

fn first(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")).collect()
}

async fn pair() -> Result<Pair, Box<dyn std::error::Error + Send + Sync>> {
    let pair = Pair::start().await?;
    pair.on_source(SCHEMA).await?;
    Ok(pair)
}

fn args(verb: &str, pair: &Pair, dir: &Path, more: &[&str]) -> Vec<String> {
    let mut args = vec![verb.to_string(), "--source".into(), pair.source_uri(), "--target".into(), pair.target_uri()];
    if verb == "run" {
        args.extend(["--dir".into(), dir.join("state").display().to_string()]);
    }
    args.extend(more.iter().map(ToString::to_string));
    args
}

fn write(dir: &Path, text: &str) -> String {
    let file = dir.join("filters.ini");
    std::fs::write(&file, text).expect("a file can be made in a folder of ours");
    file.display().to_string()
}

fn selection(dir: &Path) -> Arc<Selection> {
    Arc::new(PlanDb::selection_in(&dir.join("state")).expect("plan.db").expect("a selection is stored"))
}

async fn compare(pair: &Pair, selection: &Arc<Selection>) {
    let options = verify::Options {
        selection: Some(Arc::clone(selection)),
        materialized_rows: true,
        ..verify::Options::default()
    };
    assert_same_with(pair, options).await;
}

async fn phase_is(pair: &Pair, pgmig: &mut Pgmig, phase: &str) {
    wait_until(Duration::from_secs(90), phase, || {
        assert!(pgmig.is_running(), "it has ended:\n{}", pgmig.stderr());
        async {
            let found = pair.on_target("select phase from pgmig.sentinel").await;
            found.is_ok_and(|rows| first(rows).iter().any(|found| found == phase))
        }
    })
    .await;
}

async fn run(pair: &Pair, dir: &Path, more: &[&str]) -> Finished {
    Pgmig::start(&args("run", pair, dir, more), &[]).wait(Duration::from_secs(120)).await
}

async fn every_section(plugin: &str) -> Outcome {
    let (pair, dir) = (pair().await?, tempfile::tempdir()?);
    let file = write(dir.path(), EXCLUDE);
    let mut killed = Pgmig::start(&args("run", &pair, dir.path(), &["--filters", &file, "--plugin", plugin]), &[]);
    phase_is(&pair, &mut killed, "follow").await;
    pair.on_source(CHANGES).await?;
    if plugin == "pgoutput" {
        let published =
            first(pair.on_source("select schemaname || '.' || tablename from pg_publication_tables order by 1").await?);
        let expected = [
            "app.customers",
            "app.measures_1",
            "app.measures_2",
            "app.notes",
            "app.orders",
            "app.session_hits",
            "app.tmp_kept",
        ];
        assert_eq!(published, expected);
    }
    killed.kill();
    assert!(killed.stderr().contains(NOTHING), "{}", killed.stderr());
    drop(killed);
    pair.on_source(CHANGES).await?;

    // What it was begun with holds.
    let other = dir.path().join("other.ini");
    std::fs::write(&other, "[exclude-table]\napp.notes\n")?;
    let refused = run(&pair, dir.path(), &["--filters", &other.display().to_string()]).await.expect_code(2);
    assert!(refused.stderr.contains("was begun with other filters (filters.ini)"), "{}", refused.stderr);
    let again = Pgmig::start(&args("run", &pair, dir.path(), &[]), &[]);
    wait_until(Duration::from_secs(60), "the second run applies", || async {
        let found = pair.on_target("select count(*) from app.customers where name like 'new%'").await;
        found.is_ok_and(|rows| first(rows) == ["2"])
    })
    .await;
    pair.on_source(CHANGES).await?;
    Pgmig::start(&args("set-endpos", &pair, dir.path(), &["--current"]), &[]).finish(&[]).await.expect_code(0);
    again.finish(&[]).await.expect_code(0);

    let selection = selection(dir.path());
    compare(&pair, &selection).await;
    let tables = first(pair.on_target("select n.nspname || '.' || relname from pg_class c join pg_namespace n on n.oid = relnamespace where relkind in ('r', 'p', 'm', 'v') and n.nspname in ('app', 'audit', 'scratch') order by 1").await?);
    let expected = [
        "app.big",
        "app.big_count",
        "app.customer_names",
        "app.customers",
        "app.measures",
        "app.measures_1",
        "app.measures_2",
        "app.notes",
        "app.orders",
        "app.session_hits",
        "app.sessions",
        "app.summary",
        "app.tmp_kept",
    ];
    assert_eq!(tables, expected);
    let facts = [
        ("select count(*) from app.sessions", "0"),
        ("select count(*) from pg_namespace where nspname in ('audit', 'scratch')", "0"),
        ("select string_agg(relname, ' ') from pg_class where relkind = 'm' and not relispopulated", "big big_count"),
        (
            "select conname || ' ' || convalidated from pg_constraint where conname = 'session_hits_session_id_fkey'",
            "session_hits_session_id_fkey false",
        ),
        ("select count(*) from pg_constraint where conname = 'notes_log_id_fkey'", "0"),
        ("select string_agg(polname, ' ') from pg_policy", "everybody"),
        ("select string_agg(evtname, ' ') from pg_event_trigger", "kept"),
        ("select count(*) from pg_class where relname = 'orders_note'", "0"),
        ("select last_value from app.loose", "80"),
        ("select count(*) from pgmig.step where state = 'failed'", "0"),
    ];
    for (query, expected) in facts {
        assert_eq!(first(pair.on_target(query).await?), [expected], "{query}");
    }
    let told = |name: &str, why: &str| {
        let found = selection.left_out.iter().find(|left| left.name == name);
        let found = found.unwrap_or_else(|| panic!("{name} is not told in {:#?}", selection.left_out));
        assert!(found.why.contains(why), "{name}: {}", found.why);
    };
    told("audit", "filters.ini:3 [exclude-schema]");
    told("scratch.t", "filters.ini:4 [exclude-schema]");
    told("app.tmp_1", "filters.ini:7 [exclude-table]");
    told("app.\"Upper\"", "filters.ini:9 [exclude-table]");
    told("app.events_b1", "partition of app.events");
    told("app.sessions", "filters.ini:13 [exclude-table-data]");
    told("app.big_count", "reads app.big, which has no rows");
    told("app.log_view", "needs table audit.log, which is left out");
    told("app.log_count", "needs view app.log_view, which is left out");
    told("notes_log_id_fkey on app.notes", "audit.log");
    told("session_hits_session_id_fkey on app.session_hits", "rows of app.sessions are left out");
    told("seen on app.notes", "audit.log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_section_holds_for_copy_and_changes_with_wal2json() -> Outcome {
    every_section("wal2json").await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_section_holds_for_copy_and_changes_with_pgoutput() -> Outcome {
    every_section("pgoutput").await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_included_is_copied() -> Outcome {
    let pair = pair().await?;
    let rows: [(&str, &[&str], &[&str]); 3] = [
        (
            "[include-only-table]\napp.orders\napp.customers\napp.events\napp.measures_2\napp.summary\n[exclude-index]\napp.~/^orders_c/\n",
            &[
                "app.customers",
                "app.events",
                "app.events_a",
                "app.events_b",
                "app.events_b1",
                "app.measures",
                "app.measures_2",
                "app.orders",
                "app.summary",
            ],
            &["app.customers_id_seq", "app.orders_id_seq"],
        ),
        (
            "[include-only-schema]\nscratch\n[exclude-event-trigger]\nhook\nkept\n",
            &["scratch.t", "scratch.u"],
            &["scratch.t_id_seq"],
        ),
        // Its table is left out, and another one draws from it.
        ("[include-only-table]\nscratch.u\n", &["scratch.u"], &["scratch.t_id_seq"]),
    ];
    for (number, (text, tables, sequences)) in rows.into_iter().enumerate() {
        let dir = tempfile::tempdir()?;
        let file = write(dir.path(), text);
        pair.target.create_database(&format!("t{number}")).await?;
        let target = pair.target.uri(&format!("t{number}"));
        let state = dir.path().join("state").display().to_string();
        let arguments = [
            "run",
            "--source",
            &pair.source_uri(),
            "--target",
            &target,
            "--dir",
            &state,
            "--filters",
            &file,
            "--no-follow",
        ];
        Pgmig::start(&arguments, &[]).finish(&[]).await.expect_code(0);
        let options = verify::Options {
            selection: Some(selection(dir.path())),
            materialized_rows: true,
            ..verify::Options::default()
        };
        let found = verify::compare(&pair.source_uri(), &target, options).await?;
        assert!(found.is_equal(), "{text}:\n{found}");
        let made = async |kinds: &str| {
            let query = format!(
                "select n.nspname || '.' || relname from pg_class c join pg_namespace n on n.oid = relnamespace where relkind = any ('{{{kinds}}}') and n.nspname in ('app', 'audit', 'scratch') order by 1"
            );
            pair.target.sql(&format!("t{number}"), &query).await.map(first)
        };
        assert_eq!(made("r,p,m").await?, tables, "{text}");
        assert_eq!(made("S").await?, sequences, "{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_left_out_extension_is_expected_on_the_target_and_what_may_not_be_read_can_be_left_out() -> Outcome {
    let (pair, dir) = (Pair::start().await?, tempfile::tempdir()?);
    pair.on_source(
        "create schema lib; create extension citext schema lib; create schema vault; create schema app;
         create role plain login replication;
         create table app.people (id int primary key, mail lib.citext); insert into app.people values (1, 'A@b');
         create table vault.secrets (id int primary key); create function vault.f() returns int language sql as 'select 1';
         create table app.calls (id int primary key default vault.f());
         create view app.secret_count as select count(*) from vault.secrets;
         grant create on database app to plain; grant usage on schema app, lib to plain;
         grant select on all tables in schema app to plain",
    )
    .await?;
    pair.on_target(
        "create schema lib; create extension citext schema lib; create schema vault;
         create function vault.f() returns int language sql as 'select 1'; create role plain login",
    )
    .await?;
    let file = write(dir.path(), "[exclude-schema]\nvault\nlib\n[exclude-extension]\ncitext\n");
    let source = pair.source.socket_uri("app").replacen("postgres@", "plain@", 1);
    let state = dir.path().join("state").display().to_string();
    let target = pair.target_uri();
    let arguments = [
        "run",
        "--source",
        &source,
        "--target",
        &target,
        "--dir",
        &state,
        "--filters",
        &file,
        "--no-follow",
        "--no-acl",
    ];
    let needed = [
        "extension citext is left out and needed by table app.people",
        "function vault.f() is left out and needed by default value for app.calls.id",
    ];
    let done = Pgmig::start(&arguments, &[]).finish(&["is left out and needed by"]).await.expect_code(0);
    needed.iter().for_each(|text| assert!(done.stderr.contains(text), "{}", done.stderr));
    assert_eq!(first(pair.on_target("select mail from app.people").await?), ["A@b"]);
    assert_eq!(
        first(pair.on_target("select count(*) from pg_class where relname in ('secrets', 'secret_count')").await?),
        ["0"]
    );
    Ok(())
}

/// All that a plan could have left behind.
async fn traces(pair: &Pair) -> Vec<String> {
    let query = "select 'class ' || count(*) || ' ' || max(oid) from pg_class
           union all select 'depend ' || count(*) from pg_depend
           union all select 'schema ' || string_agg(nspname, ' ' order by nspname) from pg_namespace where nspname !~ '^pg_temp|^pg_toast_temp'
           union all select 'slot ' || count(*) from pg_replication_slots
           union all select 'publication ' || count(*) from pg_publication";
    let mut found = first(pair.on_source(query).await.expect(query));
    found.extend(first(pair.on_target(query).await.expect(query)));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_and_says_what_run_then_does() -> Outcome {
    let (pair, dir) = (pair().await?, tempfile::tempdir()?);
    let file = write(dir.path(), EXCLUDE);
    let more = ["--filters", &file, "--split-tables-larger-than", "8kB"];
    let before = traces(&pair).await;
    let planned = Pgmig::start(&args("plan", &pair, dir.path(), &[&more[..], &["--json"]].concat()), &[]);
    let planned = planned.finish(&[]).await.expect_code(0);
    let shown = Pgmig::start(&args("plan", &pair, dir.path(), &more), &[]).finish(&[]).await.expect_code(0);
    println!("{}", shown.stdout);
    assert_eq!(traces(&pair).await, before);
    for text in [
        "copied, in this order: ",
        "filters.ini:13 [exclude-table-data]",
        "match nothing:",
        "app.nope",
        "nothing stands in the way\nnext: `pgmig run`\n",
    ] {
        assert!(shown.stdout.contains(text), "{text} is not in\n{}", shown.stdout);
    }
    let plan: serde_json::Value = serde_json::from_str(&planned.stdout)?;
    assert_eq!(plan["format"], 1);
    assert_eq!(plan["refused"], serde_json::json!([]));

    run(&pair, dir.path(), &[&more[..], &["--no-follow"]].concat()).await.finish(&[NOTHING]).expect_code(0);
    let tables: Vec<String> = plan["tables"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|t| {
            format!(
                "{}.{} {} {} {}",
                t["schema"].as_str().expect("text"),
                t["table"].as_str().expect("text"),
                t["bytes"],
                t["parts"],
                t["format"].as_str().expect("text")
            )
        })
        .collect();
    let parts =
        "select schema_name || '.' || table_name || ' ' || sum(bytes) || ' ' || max(parts) || ' ' || max(format)
                   from pgmig.part group by schema_name, table_name order by max(bytes) desc, min(part_id)";
    assert_eq!(tables, first(pair.on_target(parts).await?));
    for (count, query) in [
        ("parts", "select count(*) from pgmig.part"),
        ("indexes", "select count(*) from pgmig.step where stage = 'index'"),
        ("constraints", "select count(*) from pgmig.step where stage = 'constraint'"),
        ("foreign_keys", "select count(*) from pgmig.step where stage = 'foreign_key'"),
        ("materialized_views", "select count(*) from pg_class where relkind = 'm' and relispopulated"),
        ("sequences", "select count(*) from pg_sequences where schemaname <> 'pgmig'"),
    ] {
        assert_eq!([plan["counts"][count].to_string()].to_vec(), first(pair.on_target(query).await?), "{count}");
    }
    let stored = serde_json::to_value(&selection(dir.path()).left_out)?;
    assert_eq!(plan["left_out"], stored);

    // The target is not empty any more.
    let refused = Pgmig::start(&args("plan", &pair, dir.path(), &more), &[]).finish(&[]).await.expect_code(1);
    assert!(refused.stdout.contains("the target already holds app.customers"), "{}", refused.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_before_anything_is_touched() -> Outcome {
    let (pair, dir) = (pair().await?, tempfile::tempdir()?);
    pair.on_source(
        "create table app.parent (a int primary key); create table app.child () inherits (app.parent);
        create table app.pairs (l app.customers); create table app.\"Two\" (a int); create table app.two (a int)",
    )
    .await?;
    let before = traces(&pair).await;
    for (text, said) in [
        ("[exclude-tables]\napp.a", "filters.ini:1: there is no section [exclude-tables]"),
        (
            "[include-only-table]\napp.a\n[exclude-schema]\nb",
            "filters.ini:4: [include-only-table] and [exclude-schema] exclude each other",
        ),
        ("[exclude-table]\napp.~/a(/", "filters.ini:2: the pattern in app.~/a(/ cannot be read"),
        ("[exclude-table]\napp.Two", "filters.ini:2: app.Two may mean \"app\".\"Two\" or \"app\".\"two\""),
        ("[exclude-table]\napp.parent", "app.child needs app.parent, which is left out"),
        ("[exclude-table]\napp.customers", "app.pairs needs the row type of app.customers, which is left out"),
        ("[exclude-table]\nscratch.t_id_seq", "has a default that needs scratch.t_id_seq, which is left out"),
        (
            "[exclude-index]\napp.orders_pkey",
            "app.orders_pkey cannot be left out: it says which row of app.orders a change means",
        ),
        ("[include-only-table]\napp.nope", "the filters leave no table"),
    ] {
        let file = write(dir.path(), text);
        let refused = run(&pair, dir.path(), &["--filters", &file]).await.expect_code(2);
        assert!(refused.stderr.contains(said), "{text:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("hint: "), "{text:?}: {}", refused.stderr);
        if !text.contains("nope") {
            let arguments = ["plan", "--source", &pair.source_uri(), "--filters", &file];
            let refused = Pgmig::start(&arguments, &[]).finish(&[said]).await.expect_code(2);
            assert!(refused.stderr.contains(said), "{text:?}: {}", refused.stderr);
        }
    }
    assert_eq!(traces(&pair).await, before);
    Ok(())
}
