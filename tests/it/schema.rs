//! What flags make of a schema: what they leave behind, what they drop first, roles, extensions with the
//! rows that users put into their tables, and what becomes of an object that cannot be made.

mod extensions;
mod failures;

use std::time::Duration;

use harness::{Finished, Outcome, Pair, Pgmig, assert_same_with, wait_until};
use pgmig::embedded::Cluster;
use pgmig::verify;

const EVERYTHING: &str = include_str!("data/everything.sql");

/// A pair of servers and a folder for pgmig.
struct Scene {
    pair: Pair,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn with(source: &str, target: &str) -> Result<Scene, Box<dyn std::error::Error + Send + Sync>> {
        let server = || Cluster::builder().setting("allow_in_place_tablespaces", "on");
        let pair = Pair::start_with(server(), server()).await?;
        pair.on_source(source).await?;
        pair.on_target(target).await?;
        Ok(Scene { pair, dir: tempfile::tempdir()? })
    }
    fn pgmig(&self, verb: &str, more: &[&str]) -> Pgmig {
        self.pgmig_from(&self.pair.source_uri(), verb, more)
    }
    fn pgmig_from(&self, source: &str, verb: &str, more: &[&str]) -> Pgmig {
        self.pgmig_between(source, &self.pair.target_uri(), verb, more)
    }
    fn pgmig_into(&self, target: &str, verb: &str, more: &[&str]) -> Pgmig {
        self.pgmig_between(&self.pair.source_uri(), target, verb, more)
    }
    fn pgmig_between(&self, source: &str, target: &str, verb: &str, more: &[&str]) -> Pgmig {
        let mut args = [verb, "--source", source, "--target", target].map(String::from).to_vec();
        if verb == "run" {
            args.extend(["--dir".into(), self.dir.path().join("state").display().to_string()]);
        }
        args.extend(more.iter().map(ToString::to_string));
        Pgmig::start(&args, &[("PGMIG_PG_BIN", &self.pair.source.bin_dir().path().display().to_string())])
    }
    async fn run(&self, more: &[&str]) -> Finished {
        self.pgmig("run", more).wait(Duration::from_secs(120)).await
    }
    /// Waits until the target says yes. Before the schema pgmig is there the query fails.
    async fn wait_for(&self, query: &str) {
        let yes = async || self.pair.on_target(query).await.is_ok_and(|rows| value(rows) == "t");
        wait_until(Duration::from_secs(60), query, yes).await;
    }
    async fn source(&self, sql: &str) -> String {
        value(self.pair.on_source(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")))
    }
    async fn target(&self, sql: &str) -> String {
        value(self.pair.on_target(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")))
    }
    async fn assert_same(&self) {
        let options = verify::Options { materialized_rows: true, ..verify::Options::default() };
        assert_same_with(&self.pair, options).await;
    }
    fn write(&self, name: &str, text: &str) -> String {
        let file = self.dir.path().join(name);
        std::fs::write(&file, text).expect("a file can be made in a folder of ours");
        file.display().to_string()
    }
}

fn value(rows: Vec<Vec<Option<String>>>) -> String {
    rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default()
}

const LEFT: &str = "
    create role somebody;
    create extension hstore;
    comment on extension hstore is 'a comment of our own';
    create collation mine (provider = icu, locale = 'de');
    comment on collation mine is 'mine';
    create table t (id int primary key, note text default 'x');
    insert into t select n from generate_series(1, 100) n;
    comment on table t is 'commented';
    grant select on t to pg_monitor;
    alter table t owner to somebody;
    create publication theirs for table t;
    comment on publication theirs is 'published';
    alter database app set work_mem = '7MB';
    alter role somebody in database app set work_mem = '8MB';
    select lo_from_bytea(4711, 'x');
";
async fn left() -> Result<Scene, Box<dyn std::error::Error + Send + Sync>> {
    let scene = Scene::with(LEFT, "create role somebody").await?;
    for statement in ["create tablespace elsewhere location ''", "alter table t set tablespace elsewhere", "analyze t"]
    {
        scene.source(statement).await;
    }
    Ok(scene)
}

/// A flag, what it leaves of LEFT to be found on either side, and what the plan says of it.
const FLAGS: &[(&str, &str, &str)] = &[
    (
        "--no-owner",
        "select tableowner from pg_tables where tablename = 't' and tableowner <> current_user",
        "owners of all objects",
    ),
    ("--no-acl", "select relacl from pg_class where relname = 't'", "acl public.TABLE t"),
    ("--no-comments", "select obj_description('t'::regclass)", "comment public.TABLE t"),
    ("--no-tablespaces", "select tablespace from pg_tables where tablename = 't'", "tablespaces of all objects"),
    ("--skip-extensions", "select extname from pg_extension where extname = 'hstore'", "extension hstore"),
    (
        "--skip-ext-comments",
        "select description from pg_description where description = 'a comment of our own'",
        "comment EXTENSION hstore",
    ),
    ("--skip-publications", "select pubname from pg_publication where pubname = 'theirs'", "publication theirs"),
    ("--skip-collations", "select collname from pg_collation where collname = 'mine'", "collation public.mine"),
    (
        "--skip-db-properties",
        "select string_agg(setconfig::text, ' ' order by setrole) from pg_db_role_setting where setdatabase > 0",
        "database properties app",
    ),
    ("--skip-vacuum", "select min(tablename) from pg_stats where tablename = 't'", "statistics of all objects"),
    ("--skip-large-objects", "select oid from pg_largeobject_metadata", "large objects, 1 of them"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_flag_leaves_behind_what_it_says_and_the_plan_tells() -> Outcome {
    let scene = left().await?;
    // Left behind one by one in the plan, together in the run.
    for (flag, _, said) in FLAGS {
        let plan = scene.pgmig("plan", &[flag]).finish(&[]).await.expect_code(0).stdout;
        let (_, left_out) = plan.split_once(&format!("  {flag}\n")).unwrap_or_else(|| panic!("{flag}: {plan}"));
        assert!(left_out.lines().any(|line| line.trim() == *said), "{flag}: {plan}");
    }
    let flags: Vec<&str> = FLAGS.iter().map(|(flag, _, _)| *flag).chain(["--skip-analyze", "--no-follow"]).collect();
    scene.run(&flags).await.finish(&[]).expect_code(0);
    for (flag, query, _) in FLAGS {
        assert_ne!(scene.source(query).await, "", "{flag}: {query}");
        assert_eq!(scene.target(query).await, "", "{flag}: {query}");
    }
    assert_eq!(scene.target("select count(*) from t").await, "100");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_flags_all_of_it_arrives() -> Outcome {
    let scene = left().await?;
    let refused = scene.run(&["--no-follow"]).await.finish(&["error:"]).expect_code(4);
    assert!(refused.stderr.contains("error: cannot make table public.t\n"), "{}", refused.stderr);
    assert!(refused.stderr.contains("create the tablespace on the target"), "{}", refused.stderr);
    scene.target("create tablespace elsewhere location ''").await;
    scene.run(&["--no-follow"]).await.finish(&[]).expect_code(0);
    for (flag, query, _) in FLAGS {
        assert_eq!(scene.target(query).await, scene.source(query).await, "{flag}: {query}");
    }
    scene.assert_same().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_dropped_on_an_empty_target_and_on_a_full_one() -> Outcome {
    let scene = Scene::with(
        EVERYTHING,
        "create schema other; create table other.kept (id int); insert into other.kept values (1)",
    )
    .await?;
    let flags = ["--drop-if-exists", "--roles", "--no-follow"];
    let told = "subscription Everything from is made and left disabled";
    scene.run(&flags).await.finish(&[told]).expect_code(0);
    scene.pgmig("cleanup", &[]).finish(&[]).await.expect_code(0);
    // Rows that are not the source's, keys of the target's own, and one more table.
    scene
        .target(
            "alter table plain.parent add column up int references plain.child;
             insert into plain.audit (who) values ('not of the source');
             create view plain.over_audit as select * from plain.audit;
             create table plain.ours (id int)",
        )
        .await;
    // Without the flag a full target is refused, and so is one where something else needs a table.
    scene.run(&["--roles", "--no-follow"]).await.finish(&["the target already holds"]).expect_code(4);
    let dropped = "dropped on the target first, with their rows: \"Odd \"\"Schema\"\"\"";
    let plan = scene.pgmig("plan", &flags).finish(&[]).await.expect_code(0).stdout;
    assert!(plan.contains(dropped), "{plan}");
    let refused = scene.run(&flags).await.finish(&["error:", dropped, told]).expect_code(4);
    assert!(refused.stderr.contains("cannot make way: drop plain.audit"), "{}", refused.stderr);
    assert!(refused.stderr.contains("(2BP01)"), "{}", refused.stderr);
    scene.target("drop view plain.over_audit").await;
    scene.run(&flags).await.finish(&[]).expect_code(0);
    assert_eq!(scene.target("select count(*) from other.kept").await, "1");
    assert_eq!(scene.target("select count(*) from plain.ours").await, "0");
    scene.target("drop table plain.ours; drop schema other cascade").await;
    scene.assert_same().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_come_without_passwords_where_nobody_may_read_them() -> Outcome {
    let scene = Scene::with(
        "create role mover login replication; grant create on database app to mover;
         create role app_owner login password 'hush'; create role member; create role there login password 'hush';
         grant app_owner to member with admin option; grant app_owner to there;
         alter role app_owner set work_mem = '7MB'; alter role there set work_mem = '7MB';
         create table t (id int primary key, v text); alter table t owner to app_owner; grant select on t to mover",
        "create role there connection limit 3",
    )
    .await?;
    let mover = scene.pair.source_uri().replace("postgres@", "mover@");
    let refused = scene.pgmig_from(&mover, "run", &["--roles", "--no-follow"]).finish(&["error:"]).await.expect_code(3);
    assert!(refused.stderr.contains("may not read the passwords of roles"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--no-role-passwords"), "{}", refused.stderr);
    let flags = ["--roles", "--no-role-passwords", "--no-follow"];
    scene.pgmig_from(&mover, "run", &flags).finish(&[]).await.expect_code(0);
    let roles = "select string_agg(concat_ws(' ', rolname, rolcanlogin, rolconnlimit, rolpassword, rolconfig), '; ' order by rolname)
                   from pg_authid left join pg_roles using (rolname) where rolname in ('app_owner', 'member', 'there')";
    let roles = roles.replace(
        "rolcanlogin, rolconnlimit, rolpassword",
        "pg_authid.rolcanlogin, pg_authid.rolconnlimit, pg_authid.rolpassword",
    );
    // One that was there is left alone, and is made no member of anything.
    assert_eq!(scene.target(&roles).await, "app_owner t -1 {work_mem=7MB}; member f -1; there f 3");
    let members = "select string_agg(concat_ws(' ', roleid::regrole, member::regrole, admin_option), '; ') from pg_auth_members where roleid > 16384";
    assert_eq!(scene.target(members).await, "app_owner member t");
    scene.assert_same().await;
    Ok(())
}
