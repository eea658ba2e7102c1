//! Who hears of a run beside its terminal: Prometheus, a webhook, the log file, systemd. What is documented
//! is held to what a run says.

pub mod hook;
mod standing;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use harness::{Outcome, Pgmig, assert_same, wait_until};
use pgmig::embedded::Cluster;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::life::{EXTENSION, Life, PLAIN};
use hook::Hook;

const TABLE: &str = "create table t (id int primary key, note text); \
                     insert into t select n, 'geheim-' || n from generate_series(1, 500) n";
/// Functions of users that say of rows what they hold, while indexes are made and while changes are applied.
const LOUD: &str = "create function loud(note text) returns text language plpgsql immutable \
                        as $$ begin raise notice 'a row: %', note; return note; end $$; \
                    create index on t (loud(note)); \
                    create function cry() returns trigger language plpgsql \
                        as $$ begin raise warning 'a row: %', new.note; return new; end $$; \
                    create trigger cry after insert on t for each row execute function cry(); \
                    alter table t enable always trigger cry";
/// The end of the webhook's URL, which nobody is to see, and the start of every row's value.
const SECRETS: [&str; 2] = ["hook-secret", "geheim-"];

fn docs(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// A port of the loopback interface that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

pub async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// Every word of a text that is a name of ours.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("pgmig_"))
        .map(str::to_string)
        .collect()
}

/// The names of what is sampled: those of its lines that are no comment.
fn sampled(scrape: &str) -> BTreeSet<String> {
    let body = scrape.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| names(line.split(['{', ' ']).next().unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_a_webhook_and_the_log_hear_of_a_run_and_no_secret() -> Outcome {
    let builder = || Cluster::builder().with_password();
    let life = Life::between(EXTENSION, builder(), builder()).await;
    life.source.batch_execute(TABLE).await?;
    let mut hook = Hook::listen().await?;
    let (port, folder) = (free_port(), tempfile::tempdir()?);
    let log = folder.path().join("logs/run.log");
    let (address, url, log_file) = (format!("127.0.0.1:{port}"), hook.url("hook-secret"), log.display().to_string());
    let watched = ["--metrics-listen", &address, "--notify", &url, "--notify-lag", "1kB"];
    let logged = ["--log-file", &log_file, "--log-format", "json", "--log-level", "trace", "--log-rotate", "1kB"];
    // The first try is answered with an error of the server's: it comes again.
    hook.refuse(1);
    let mut run = life.run_with(&[&watched[..], &logged[..]].concat());
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    for event in ["started", "copy_done", "caught_up"] {
        let heard = hook.next().await;
        assert_eq!(heard["event"], event, "{heard}");
        assert_eq!(heard["migration"], "default", "{heard}");
    }
    // Behind, level again.
    life.on_target("select pgmig.pause()").await;
    life.on_source("insert into t select n, 'geheim-' || n from generate_series(1001, 3000) n").await;
    assert_eq!(hook.next().await["event"], "lag_above");
    life.on_target("select pgmig.resume()").await;
    assert_eq!(hook.next().await["event"], "caught_up");

    let wanted = ["pgmig_applied_rows{migration=\"default\"} 2000", "pgmig_slot_active{migration=\"default\"} 1"];
    let says = async || get(port, "/metrics").await.is_some_and(|text| wanted.iter().all(|line| text.contains(line)));
    wait_until(Duration::from_secs(20), "the figures", says).await;
    let scrape = get(port, "/metrics").await.unwrap_or_default();
    assert!(scrape.starts_with("HTTP/1.1 200 OK") && scrape.ends_with("# EOF\n"), "{scrape}");
    assert!(scrape.contains("application/openmetrics-text"), "{scrape}");
    for line in [
        "pgmig_phase{phase=\"follow\",migration=\"default\"} 1",
        "pgmig_phase{phase=\"copy\",migration=\"default\"} 0",
        "pgmig_copy_rows{migration=\"default\"} 500",
        "pgmig_slot_status{status=\"reserved\",migration=\"default\"} 1",
    ] {
        let same = |other: &str| {
            BTreeSet::from_iter(line.split(['{', ',', '}', ' ']))
                == BTreeSet::from_iter(other.trim_end_matches(".0").split(['{', ',', '}', ' ']))
        };
        assert!(scrape.lines().any(same), "no {line} in\n{scrape}");
    }
    assert!(get(port, "/").await.is_some_and(|text| text.starts_with("HTTP/1.1 404")));
    // Those of tables are there while they are copied.
    let of_tables = ["bytes", "done_bytes", "rows", "parts_left", "rate_bytes", "left_seconds"];
    let of_tables = of_tables.map(|name| format!("pgmig_table_{name}"));
    let known: BTreeSet<String> = sampled(&scrape).into_iter().chain(of_tables).collect();
    let documented: BTreeSet<String> = docs("metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `pgmig_"))
        .flat_map(|line| names(line.split('|').nth(1).unwrap_or_default()))
        .collect();
    assert_eq!(known, documented, "docs/metrics.md has every name, and no other");
    for file in ["alerts.yml", "grafana.json"] {
        let used = names(&docs(file));
        assert!(used.len() > 5 && used.is_subset(&known), "{file} uses {:?}", used.difference(&known));
    }
    let taken = life.run_with(&["--metrics-listen", &address]).finish(&["error: cannot listen on"]).await;
    assert!(taken.expect_code(2).stderr.contains("hint: "));

    life.set_endpos(life.lsn().await).await;
    let done = run.finish(&[]).await.expect_code(0);
    let last = hook.next().await;
    assert_eq!((&last["event"], &last["exit_code"]), (&Value::from("done"), &Value::from(0)), "{last}");
    assert_same(&life.pair).await;

    let mut text = String::new();
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path().join("logs"))?.flatten() {
        text.push_str(&std::fs::read_to_string(entry.path())?);
        files += 1;
    }
    assert!(files > 1, "1 kB is less than was said: {}", text.len());
    let messages: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|err| panic!("{err}: {line}")))
        .map(|line| line["message"].as_str().unwrap_or_default().to_string())
        .collect();
    for said in ["copy: 1 tables", "follow: level with the source", "done", "batch applied"] {
        assert!(messages.iter().any(|message| message.starts_with(said)), "no `{said}` in {messages:?}");
    }
    let password = |cluster: &Cluster| cluster.password().unwrap_or_default().to_string();
    let (source, target) = (password(&life.pair.source), password(&life.pair.target));
    for secret in SECRETS.into_iter().chain([source.as_str(), target.as_str()]) {
        for (where_, said) in [("the log", &text), ("stderr", &done.stderr), ("stdout", &done.stdout)] {
            assert!(!secret.is_empty() && !said.contains(secret), "{where_} has `{secret}`");
        }
        assert!(hook.heard().iter().all(|body| !body.contains(secret)), "the webhook has `{secret}`");
    }
    Ok(())
}

/// Libraries log the parameters of statements, and functions of users what they like.
#[tokio::test(flavor = "multi_thread")]
async fn no_log_holds_a_row_whatever_is_logged() -> Outcome {
    let life = Life::begin(PLAIN, TABLE).await;
    life.source.batch_execute(LOUD).await?;
    let (source, target) = (life.pair.source_uri(), life.pair.target_uri());
    let dir = life.dir.path().display().to_string();
    let bin = life.pair.source.bin_dir().path().display().to_string();
    let args = ["run", "-vv", "--flavour", "plain", "--dir", &dir, "--source", &source, "--target", &target];
    let mut run = Pgmig::start(&args, &[("PGMIG_LOG", "trace"), ("PGMIG_PG_BIN", &bin)]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.on_source("insert into t values (501, 'geheim-501'); update t set note = 'geheim-0' where id = 1").await;
    life.set_endpos(life.lsn().await).await;
    let done = run.wait(Duration::from_secs(60)).await.expect_code(0);
    assert_same(&life.pair).await;
    for said in ["TRACE", "the server gave notice", "batch applied"] {
        assert!(done.stderr.contains(said), "nothing is logged of `{said}`");
    }
    let odd: Vec<&str> = done.stderr.lines().filter(|line| line.contains(SECRETS[1])).take(3).collect();
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_changes_nothing_whatever_it_answers() -> Outcome {
    let life = Life::begin(EXTENSION, TABLE).await;
    // Nobody answers it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hook-secret", silent.local_addr()?);
    let mut run = life.run_with(&["--notify", &url]);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    run.interrupt();
    let ended = run.finish(&["error: stopped", "could not notify"]).await.expect_code(130);
    assert!(!ended.stderr.contains("hook-secret"), "{}", ended.stderr);

    // It refuses, for good: told once, with its address masked. Then the run fails, which it hears of.
    let mut hook = Hook::listen().await?;
    let url = hook.url("hook-secret");
    life.on_source("alter table t add column more int; update t set more = 1 where id = 1").await;
    let failed =
        life.run_with(&["--notify", &url, "--notify-format", "slack"]).finish(&["error: "]).await.expect_code(6);
    assert!(!failed.stderr.contains("hook-secret"), "{}", failed.stderr);
    let texts = [hook.next().await, hook.next().await, hook.next().await].map(|heard| heard["text"].to_string());
    assert!(texts[0].contains(":arrow_forward:") && texts[0].contains("started"), "{texts:?}");
    assert!(
        texts.iter().any(|text| text.contains(":rotating_light:") && text.contains("ended with an error")),
        "{texts:?}"
    );

    let test = async |url: &str| Pgmig::start(&["notify", "--test", url], &[]).wait(Duration::from_secs(60)).await;
    let good = test(&url).await.expect_code(0);
    assert_eq!(hook.next().await["event"], "test");
    hook.refuse(100);
    let refused = test(&url).await.expect_code(1);
    assert!(refused.stderr.contains("500") && refused.stderr.contains("hint: "), "{}", refused.stderr);
    let nobody = test(&format!("http://127.0.0.1:{}/hook-secret", free_port())).await.expect_code(1);
    let no_url = test("hook-secret").await.expect_code(2);
    for said in [good, refused, nobody, no_url] {
        assert!(!said.stderr.contains("hook-secret"), "{}", said.stderr);
    }
    Ok(())
}

/// The rules fire when they should, and not before; Prometheus's own word on it, where its promtool is here.
#[test]
fn each_alert_fires_when_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (rules, tests) = (folder.join("../docs/alerts.yml"), folder.join("it/data/alerts.test.yml"));
    // Without it: each rule has a case at least.
    let cases = std::fs::read_to_string(&tests).expect("the cases are there");
    for rule in docs("alerts.yml").lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(cases.contains(&format!("alertname: {rule}\n")), "{rule} has no case in which it fires");
    }
    let promtool = |args: [&std::ffi::OsStr; 3]| std::process::Command::new("promtool").args(args).output();
    for args in [
        ["check".as_ref(), "rules".as_ref(), rules.as_os_str()],
        ["test".as_ref(), "rules".as_ref(), tests.as_os_str()],
    ] {
        match promtool(args) {
            Ok(output) => assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(_) => {
                return harness::tell(
                    "alert rules were not tested: there is no promtool (Debian's package prometheus)",
                );
            }
        }
    }
}

/// The value of each directive of the unit.
fn unit() -> Vec<(String, String)> {
    let directive = |line: &str| line.split_once('=').map(|(name, value)| (name.trim().into(), value.trim().into()));
    docs("pgmig.service").lines().filter(|line| !line.starts_with('#')).filter_map(directive).collect()
}

#[test]
fn the_systemd_unit_fits_the_command() {
    use clap::Parser;
    use pgmig::error::Exit;

    let unit = unit();
    let value = |name: &str| {
        let found = unit.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("the unit has no {name}"))
    };
    let mut command = value("ExecStart").split_whitespace();
    assert!(command.next().is_some_and(|program| program.ends_with("/pgmig")));
    // Source and target come from the environment file.
    let typed = ["pgmig"].into_iter().chain(command).chain(["--source", "host=a", "--target", "host=b"]);
    let parsed = pgmig::args::Cli::try_parse_from(typed).unwrap_or_else(|err| panic!("{err}"));
    assert!(matches!(parsed.verb, pgmig::args::Verb::Run(_)));
    let codes = |name: &str| -> BTreeSet<u8> {
        value(name).split_whitespace().map(|code| code.parse().expect("a code")).collect()
    };
    let prevented = codes("RestartPreventExitStatus");
    for exit in [Exit::No, Exit::Usage, Exit::Phase, Exit::Differ, Exit::Dir, Exit::Bug, Exit::Stopped] {
        assert!(prevented.contains(&(exit as u8)), "{exit:?} is not tried again");
    }
    for exit in [Exit::Source, Exit::Target] {
        assert!(!prevented.contains(&(exit as u8)), "{exit:?} is tried again");
    }
    assert_eq!(codes("SuccessExitStatus"), BTreeSet::from([Exit::Stopped as u8]));
    assert_eq!((value("Restart"), value("KillSignal"), value("KillMode")), ("on-failure", "SIGTERM", "mixed"));
    let stops: u64 = value("TimeoutStopSec").trim_end_matches('s').parse().expect("seconds");
    assert!(stops > 10, "a run may take ten seconds to end");
    // systemd's own word on it, where it is here: it warns of what it does not know.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pgmig.service");
    if let Ok(verified) = std::process::Command::new("systemd-analyze").args(["verify", path]).output() {
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let odd: Vec<&str> =
            said.lines().filter(|line| line.contains("pgmig.service") && !line.contains("is not executable")).collect();
        assert!(odd.is_empty(), "{said}");
    }
}
