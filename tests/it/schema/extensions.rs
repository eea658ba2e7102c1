//! Extensions: those that the target has, those that it cannot have, versions, and the rows that users
//! put into their configuration tables.

use harness::Outcome;
use pgmig::verify;

use super::Scene;

/// hstore with tables of its own, as a larger extension has them: two that refer to each other, a
/// sequence, and rows of which some came with CREATE EXTENSION.
const CONFIGURED: &str = "
    create extension hstore version '1.7';
    create table systems (id int primary key, name text, twice int generated always as (id * 2) stored);
    create table a_aliases (id int primary key, system int not null references systems);
    create table own_rows (id int);
    create sequence numbers;
    alter extension hstore add table systems; alter extension hstore add table a_aliases;
    alter extension hstore add table own_rows; alter extension hstore add sequence numbers;
    update pg_extension
       set extconfig = array['a_aliases'::regclass, 'systems'::regclass, 'numbers'::regclass],
           extcondition = array['', 'WHERE id > 100', '']
     where extname = 'hstore';
    insert into systems values (1, 'standard'), (2, 'standard too');
    insert into own_rows values (1);
";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_users_put_into_tables_of_an_extension_arrive() -> Outcome {
    let source =
        "insert into systems values (101, 'ours'), (102, 'ours'); update systems set name = 'changed' where id = 2;
        insert into a_aliases values (1, 101), (2, 1); insert into own_rows values (2); select setval('numbers', 77);
        create table t (id int primary key, place int references systems); insert into t values (1, 101)";
    // What the target's installation of it put in; and what somebody else did.
    let target = "insert into systems values (103, 'old'), (101, 'old'); insert into a_aliases values (7, 103)";
    for follow in [true, false] {
        let scene = Scene::with(&format!("{CONFIGURED}{source}"), &format!("{CONFIGURED}{target}")).await?;
        let plan = scene.pgmig("plan", &[]).finish(&[]).await.expect_code(0).stdout;
        assert!(plan.contains("changes of table public.systems"), "{plan}");
        assert!(plan.contains("rows of table public.own_rows"), "{plan}");
        if follow {
            let run = scene.pgmig("run", &["--plugin", "wal2json"]);
            scene.wait_for("select phase = 'follow' from pgmig.progress").await;
            // Of a table that is followed, and of one that is not.
            scene.source("insert into systems values (104, 'late'); insert into t values (2, 102)").await;
            scene.pgmig("set-endpos", &["--current"]).finish(&[]).await.expect_code(0);
            run.finish(&[]).await.expect_code(0);
        } else {
            scene.run(&["--no-follow"]).await.finish(&[]).expect_code(0);
        }
        let rows =
            "select string_agg(concat_ws(' ', id, name, twice), '; ' order by id) from systems where name <> 'late'";
        assert_eq!(scene.target(rows).await, "1 standard 2; 2 standard too 4; 101 ours 202; 102 ours 204");
        let aliases = "select string_agg(concat_ws(' ', id, system), '; ' order by id) from a_aliases";
        assert_eq!(scene.target(aliases).await, "1 101; 2 1");
        assert_eq!(scene.target("select string_agg(id::text, ' ') from own_rows").await, "1");
        assert_eq!(scene.target("select last_value from numbers").await, "77");
        assert_eq!(scene.target("select count(*) from t").await, if follow { "2" } else { "1" });
        if !follow {
            scene.assert_same().await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_those_of_the_requirements_and_another_one_is_told() -> Outcome {
    let scene = Scene::with(
        "create extension hstore; create extension earthdistance cascade; create extension citext; create table t (h hstore, id int primary key)",
        "create extension citext version '1.5'",
    )
    .await?;
    let file =
        scene.write("requirements.json", r#"[{"name": "hstore", "version": "1.7"}, {"name": "nope", "version": "1"}]"#);
    let flags = ["--requirements", file.as_str(), "--no-follow"];
    let allowed =
        ["extension citext is 1.5 on the target, not 1.6", "--requirements names nope, which the source does not have"];
    let plan = scene.pgmig("plan", &flags).finish(&[]).await.expect_code(0).stdout;
    let done = scene.run(&flags).await.finish(&allowed).expect_code(0);
    for warning in allowed {
        assert!(plan.contains(warning), "{plan}");
        assert!(done.stderr.contains(warning), "{}", done.stderr);
    }
    let versions = "select string_agg(extname || ' ' || extversion, ', ' order by extname) from pg_extension where extname not like 'p%'";
    assert_eq!(scene.target(versions).await, "citext 1.5, cube 1.5, earthdistance 1.1, hstore 1.7");
    let broken = scene.write("requirements.json", r#"{"name": "hstore"}"#);
    scene.run(&["--requirements", &broken]).await.finish(&["cannot understand the requirements"]).expect_code(2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_that_the_target_cannot_have_are_refused_with_their_statement() -> Outcome {
    let scene = Scene::with(
        "create extension hstore; create extension pageinspect; create extension amcheck; create table t (id int primary key)",
        "create role mover login; grant create on database app to mover; grant create on schema public to mover",
    )
    .await?;
    let mover = scene.pair.target_uri().replace("postgres@", "mover@");
    let refused =
        scene.pgmig_into(&mover, "run", &["--no-follow", "--no-owner"]).finish(&["error:"]).await.expect_code(4);
    assert!(refused.stderr.contains("may not create 2 extensions"), "{}", refused.stderr);
    for statement in [
        "create extension \"amcheck\" with schema \"public\" cascade;",
        "create extension \"pageinspect\" with schema \"public\" cascade;",
        "--skip-extensions",
    ] {
        assert!(refused.stderr.contains(statement), "{}", refused.stderr);
    }
    let file = scene.write("requirements.json", r#"[{"name": "hstore", "version": "99"}]"#);
    let absent = scene.run(&["--requirements", &file, "--no-follow"]).await.finish(&["error:"]).expect_code(4);
    assert!(absent.stderr.contains("the target has no extension hstore 99 to install"), "{}", absent.stderr);
    // A superuser has made what the role may not.
    scene.target("create extension pageinspect; create extension amcheck").await;
    let comments = ["could not make comment EXTENSION"];
    scene.pgmig_into(&mover, "run", &["--no-follow", "--no-owner"]).finish(&comments).await.expect_code(0);
    let found = scene.pair.compare(verify::Options::default()).await?;
    assert!(
        found
            .differences
            .iter()
            .all(|differs| differs.object.ends_with(" mover") || differs.object.ends_with(" postgres")),
        "{found}"
    );
    Ok(())
}
