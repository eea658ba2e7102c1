//! The verbs that make servers and shells ready: settings side by side, replica identities given and
//! taken back, completions, manual; and the README's own commands, run as it has them.

use std::time::Duration;

use harness::{Outcome, Pair, Pgmig, wait_until};
use pgmig::embedded::Cluster;
use serde_json::Value;

use crate::bench::{Bench, phase};

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_compared_in_equal_units_with_what_a_difference_does() -> Outcome {
    let source = Cluster::builder()
        .setting("work_mem", "65536kB")
        .setting("max_connections", "70")
        .setting("temp_buffers", "8192kB")
        .setting("timezone", "Europe/Berlin");
    let target = Cluster::builder().setting("work_mem", "4MB").setting("temp_buffers", "8MB");
    let mut bench = Bench::start("params.txt", source, target).await?;
    let (source, target) = (bench.pair.source_uri(), bench.pair.target_uri());
    let secret = "alter database app set app.secret = 'mellon'; alter database app set search_path = 'shop'";
    bench.on_source(secret).await?;
    bench.on_target("alter database app set app.secret = 'friend'").await?;
    let version =
        bench.pair.source.value("app", "select split_part(current_setting('server_version'), ' ', 1)").await?;
    bench.transcript.replace(format!("PostgreSQL {}", version.unwrap_or_default()), "PostgreSQL VERSION");
    let args = ["params", "--source", &source, "--target", &target];
    let text = bench.answers("what differs", 0, &args).await?;
    assert!(!text.stdout.contains("mellon") && !text.stdout.contains("temp_buffers"), "{}", text.stdout);
    bench.transcript.check();
    let json = Pgmig::start(&[&args[..], &["--json"]].concat(), &[]).finish(&[]).await.expect_code(0);
    let json: Value = serde_json::from_str(&json.stdout)?;
    let parameters = json["parameters"].as_array().ok_or("parameters")?;
    let of = |name: &str| parameters.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!((&of("temp_buffers")["same"], &of("temp_buffers")["source"]), (&true.into(), &"8MB".into()));
    assert_eq!(of("max_connections")["change"], "restart");
    assert_eq!(of("work_mem")["statement"], "alter system set work_mem = '64MB';");
    // Every parameter that the helper script compares, and more, where this version knows it.
    assert!(parameters.len() > 90, "{}", parameters.len());
    // What it says to run makes both the same.
    for parameter in parameters.iter().filter(|p| p["change"] == "reload") {
        if let Some(statement) = parameter["statement"].as_str() {
            bench.on_target(statement).await?;
        }
    }
    bench.on_target("select pg_reload_conf()").await?;
    let left = |json: &Value| -> Vec<String> {
        let list = json["parameters"].as_array().cloned().unwrap_or_default();
        let differ = list.iter().filter(|p| p["same"] == false && p["change"] == "reload");
        differ.map(|p| p["name"].to_string()).collect()
    };
    let again = Pgmig::start(&[&args[..], &["--json"]].concat(), &[]).finish(&[]).await.expect_code(0);
    // The search path is set for the database there, not in the server's file.
    assert_eq!(left(&serde_json::from_str(&again.stdout)?), ["\"search_path\""]);
    Ok(())
}

const IDENTITIES: &str = "select string_agg(relname || ' ' || relreplident::text, ', ' order by relname) from pg_class
                           where relkind = 'r' and relnamespace = 'public'::regnamespace";

#[tokio::test(flavor = "multi_thread")]
async fn replica_identities_are_given_sparingly_and_taken_back() -> Outcome {
    let mut bench = Bench::start("replica_identity.txt", Cluster::builder(), Cluster::builder()).await?;
    let (source, target, dir) = (bench.pair.source_uri(), bench.pair.target_uri(), bench.dir());
    bench
        .on_source(
            "create table good (id int primary key);
             create table log (line text);
             create table by_index (id int not null, wide text not null, note text);
             create unique index by_wide on by_index (wide); create unique index by_id on by_index (id);
             create table silent (id int primary key); alter table silent replica identity nothing;
             create table nullable (id int unique);
             create table later (id int not null, constraint later_key unique (id) deferrable);
             create table part (id int not null); create unique index on part (id) where id > 0;
             create table \"Odd\" (\"A\" int not null unique);
             create unlogged table cache (line text);
             create role stranger; create table hers (line text); alter table hers owner to stranger;
             create role mover login; grant mover to postgres;
             do $$ declare r regclass; begin
                 for r in select oid from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relname <> 'hers' loop
                     execute format('alter table %s owner to mover', r);
                 end loop;
             end $$",
        )
        .await?;
    let before = bench.on_source(IDENTITIES).await?;
    let mover = source.replace("//postgres@", "//mover@");
    let args = ["replica-identity", "--source", &mover, "--target", &target, "--dir", &dir];
    bench.answers("nobody said yes", 1, &args).await?;
    let yes = [&args[..], &["--yes"]].concat();
    let finished = Pgmig::start(&yes, &[]).finish(&[]).await;
    bench.transcript.add("given", &yes, &finished);
    let given = "Odd i, by_index i, cache d, good d, hers d, later f, log f, nullable f, part f, silent d";
    assert_eq!(bench.on_source(IDENTITIES).await?[0][0].as_deref(), Some(given));
    let used = "select relname from pg_class join pg_index on indexrelid = oid where indisreplident order by 1";
    assert_eq!(bench.on_source(used).await?, [[Some("Odd_A_key".into())], [Some("by_id".into())]]);
    // While a slot of the migration is there it stays.
    bench.on_source("select pg_create_logical_replication_slot('pgmig_default', 'test_decoding')").await?;
    let revert = [&args[..], &["--revert", "--yes"]].concat();
    let refused = Pgmig::start(&revert, &[]).wait(Duration::from_secs(30)).await;
    bench.transcript.add("taken back too early", &revert, &refused);
    assert_eq!(refused.code(), 5, "{}", refused.stderr);
    bench.on_source("select pg_drop_replication_slot('pgmig_default')").await?;
    // What somebody has changed since is theirs.
    bench.on_source("alter table log replica identity nothing").await?;
    let reverted = Pgmig::start(&revert, &[]).finish(&[]).await.expect_code(0);
    bench.transcript.add("taken back", &revert, &reverted);
    bench.on_source("alter table log replica identity default").await?;
    assert_eq!(bench.on_source(IDENTITIES).await?, before);
    let again = Pgmig::start(&revert, &[]).finish(&[]).await.expect_code(0);
    bench.transcript.add("taken back again", &revert, &again);
    bench.transcript.check();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_and_manuals_know_every_verb() -> Outcome {
    let folder = tempfile::tempdir()?;
    let help = Pgmig::start(&["--help"], &[]).finish(&[]).await.expect_code(0).stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<&str> =
        verbs.filter(|line| !line.starts_with("     ")).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains(&"run") && verbs.contains(&"replica-identity"), "{verbs:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Pgmig::start(&["completions", shell], &[]).finish(&[]).await.expect_code(0).stdout;
        assert!(verbs.iter().all(|verb| script.contains(verb)), "{shell} lacks a verb");
        if shell == "bash" {
            let file = folder.path().join("pgmig.bash");
            std::fs::write(&file, &script)?;
            assert!(std::process::Command::new("bash").arg("-n").arg(&file).status()?.success());
        }
    }
    let dir = folder.path().join("man").display().to_string();
    Pgmig::start(&["man", &dir], &[]).finish(&[]).await.expect_code(0);
    for verb in &verbs {
        let page = std::fs::read_to_string(format!("{dir}/pgmig-{verb}.1"))?;
        assert!(page.contains(".SH NAME") && page.contains(&verb.replace('-', "\\-")), "{verb}: {page}");
    }
    let run = std::fs::read_to_string(format!("{dir}/pgmig-run.1"))?;
    assert!(run.contains("wal\\-budget") && run.contains("PGMIG_SOURCE"), "{run}");
    Ok(())
}

/// Lines of the README's code blocks: those of the shell that call pgmig, and the statements of SQL.
fn readme() -> (Vec<String>, Vec<String>) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("a README");
    let (mut commands, mut sql, mut block): (Vec<String>, String, Option<&str>) = Default::default();
    for line in text.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(language)) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (Some(""), None) if line.starts_with("pgmig ") => {
                commands.push(line.split('#').next().unwrap_or_default().trim().to_string());
            }
            (Some("sql"), None) => sql.push_str(&format!("{}\n", line.split("--").next().unwrap_or_default())),
            _ => {}
        }
    }
    let statements = sql.split(';').map(|one| one.trim().to_string()).filter(|one| !one.is_empty()).collect();
    (commands, statements)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_says_what_works() -> Outcome {
    let (commands, statements) = readme();
    let has =
        |command: &str| assert!(commands.iter().any(|c| c == command), "the README has no `{command}`: {commands:?}");
    let pair = Pair::start().await?;
    pair.on_source("create table orders (id int primary key, note text); insert into orders values (1, 'a')").await?;
    pair.on_target("create role mover; create role ops").await?;
    let folder = tempfile::tempdir()?;
    let (source, target, dir) = (pair.source_uri(), pair.target_uri(), folder.path().join("dir").display().to_string());
    let env = [("PGMIG_SOURCE", source.as_str()), ("PGMIG_TARGET", target.as_str()), ("PGMIG_DIR", dir.as_str())];
    let filters = folder.path().join("filters.ini");
    std::fs::write(&filters, "[exclude-schema]\nnone_such\n")?;
    let page = folder.path().join("migration.html");
    let start = |command: &str| {
        let command = command.replace("--source …", "").replace("--target …", "");
        let command = command.replace("filters.ini", &filters.display().to_string());
        let command = command.replace("migration.html", &page.display().to_string());
        let args: Vec<&str> = command.split_whitespace().skip(1).collect();
        Pgmig::start(&args, &env)
    };
    // Before, while it follows, and after.
    for command in ["pgmig preflight", "pgmig params", "pgmig plan --source … --target … --filters filters.ini"] {
        has(command);
        start(command).finish(&["matches nothing"]).await.expect_code(0);
    }
    has("pgmig run");
    let run = start("pgmig run");
    wait_until(Duration::from_secs(90), "the run follows", || async {
        phase(&pair.target, "app").await.is_ok_and(|phase| phase.as_deref() == Some("follow"))
    })
    .await;
    let known = "select name from pg_settings where name = 'output_plugin_libraries'";
    // Nothing is left out here, and the run is not to stop: see `life::tables` and `life::steered`.
    let elsewhere = |statement: &&String| ["left_out", "pgmig.stop("].iter().any(|text| statement.contains(text));
    for statement in statements.iter().filter(|statement| !elsewhere(statement)) {
        match statement.contains("alter system") {
            true if pair.on_source(known).await?.is_empty() => {}
            true => drop(pair.on_source(statement).await?),
            false => drop(pair.on_target(statement).await.map_err(|e| format!("{statement}: {}", e.chain()))?),
        }
    }
    for command in ["pgmig status", "pgmig set-endpos 16/B374D848", "pgmig set-endpos --current"] {
        has(command);
        start(command).finish(&[]).await.expect_code(0);
    }
    run.finish(&[]).await.expect_code(0);
    has("pgmig cleanup");
    start("pgmig cleanup").finish(&[]).await.expect_code(0);
    harness::assert_same(&pair).await;
    has("pgmig replica-identity --revert");
    start("pgmig replica-identity --revert").finish(&[]).await.expect_code(0);
    // Every other command of the README is one that pgmig understands.
    for command in &commands {
        let finished = start(command).wait(Duration::from_secs(60)).await;
        assert_ne!(finished.code(), 2, "{command}: {}", finished.stderr);
    }
    Ok(())
}

/// The words of a line as a shell has them; quotes are only these.
fn words(line: &str) -> Vec<String> {
    line.split('\'')
        .enumerate()
        .flat_map(|(at, text)| match at % 2 {
            0 => text.split_whitespace().map(str::to_string).collect(),
            _ => vec![text.to_string()],
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_help_does_what_it_says() -> Outcome {
    let help = Pgmig::start(&["--help"], &[]).finish(&[]).await.expect_code(0).stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs = verbs.filter(|line| !line.starts_with("     ")).filter_map(|line| line.split_whitespace().next());
    let mut examples = Vec::new();
    for verb in verbs {
        let help = Pgmig::start(&[verb, "--help"], &[]).finish(&[]).await.expect_code(0).stdout;
        examples.extend(help.lines().filter_map(|line| line.strip_prefix("  pgmig ")).map(str::to_string));
    }
    assert!(examples.len() > 25, "{examples:?}");

    let pair = Pair::start().await?;
    pair.on_source(
        "create table orders (id int primary key, note text); insert into orders values (1, 'a');
         create table log (id int not null unique, line text); create table audit (id int primary key)",
    )
    .await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("filters.ini"), "[exclude-table]\npublic.audit\n")?;
    let dir = folder.path().join("dir").display().to_string();
    let (source, target) = (pair.source_uri(), pair.target_uri());
    let mut left: Vec<String> = examples.clone();
    let mut start = |example: &str| {
        left.retain(|one| one != example);
        assert!(examples.iter().any(|one| one == example), "no help has `{example}`: {examples:?}");
        let given = |word: String| match word.as_str() {
            "host=old dbname=app" => source.clone(),
            "host=new dbname=app" => target.clone(),
            "host=old user=postgres" => source.clone(),
            _ => word,
        };
        let mut command = std::process::Command::new(harness::binary::path());
        command.current_dir(folder.path()).args(words(example).into_iter().map(given)).env("NO_COLOR", "1");
        command.env("PGMIG_SOURCE", &source).env("PGMIG_TARGET", &target).env("PGMIG_DIR", &dir);
        Pgmig::spawn(command)
    };
    let follows = async || phase(&pair.target, "app").await.is_ok_and(|phase| phase.as_deref() == Some("follow"));
    let follows = async || wait_until(Duration::from_secs(60), "the run follows", follows).await;

    for (example, code) in [
        ("params", 0),
        ("params --json", 0),
        ("preflight", 1),
        ("preflight --fix --yes --admin-source 'host=old user=postgres'", 0),
        ("replica-identity --revert --yes", 0),
        ("replica-identity --yes", 0),
        ("preflight --filters filters.ini --no-owner --json", 0),
        ("plan --filters filters.ini", 0),
        ("plan --json", 0),
    ] {
        start(example).finish(&[]).await.expect_code(code);
    }
    let run = start("run --source 'host=old dbname=app' --target 'host=new dbname=app'");
    follows().await;
    start("stop --now").finish(&[]).await.expect_code(0);
    run.finish(&["error: "]).await.expect_code(130);
    start("reset-target --yes").finish(&[]).await.expect_code(0);
    start("cleanup --force").finish(&[]).await.expect_code(0);
    // What is left of it belongs to the migration before.
    std::fs::remove_dir_all(&dir)?;
    let run = start("run --filters filters.ini --no-owner --log-file pgmig.log");
    follows().await;
    start("stop").finish(&[]).await.expect_code(0);
    run.finish(&["error: "]).await.expect_code(130);
    let run = start("run --table-jobs 2 --max-rate 50MB --wal-budget 50GB");
    follows().await;
    for example in [
        "status",
        "status --json --caught-up-at 1MB,5s",
        "stalls",
        "stalls --for 1s --json",
        "throttle --max-rate 20MB --max-source-connections 8",
        "throttle --max-slowdown 20 --max-standby-lag 30s",
        "throttle --max-rate 0",
        "table add public.audit",
        "table resync public.orders",
    ] {
        start(example).finish(&[]).await.expect_code(0);
    }
    let added = async || {
        pair.on_target("select count(*) > 0 from pgmig.parts where table_name = 'audit' and state = 'done'").await
    };
    wait_until(Duration::from_secs(60), "the table is there", async || {
        added().await.is_ok_and(|rows| rows[0][0].as_deref() == Some("t"))
    })
    .await;
    for example in ["verify", "verify --quick --json", "cutover --dry-run", "set-endpos 16/B374D848"] {
        start(example).finish(&[]).await.expect_code(0);
    }
    pair.on_target("select pgmig.set_endpos(null)").await?;
    start("cutover --max-downtime 30s --verify=quick").finish(&[]).await.expect_code(0);
    run.finish(&[]).await.expect_code(0);
    start("report --output migration.html").finish(&[]).await.expect_code(0);
    // It is passed already.
    start("set-endpos --current").finish(&["cannot set endpos"]).await.expect_code(5);
    start("cleanup").finish(&[]).await.expect_code(0);
    start("replica-identity --revert --yes").finish(&[]).await.expect_code(0);
    assert_eq!(left, Vec::<String>::new(), "not run");
    pair.source.sql("postgres", "alter database app reset default_transaction_read_only").await?;
    harness::assert_same(&pair).await;
    Ok(())
}
