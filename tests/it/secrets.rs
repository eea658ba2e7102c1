//! Passwords and TLS: a password shows up nowhere, however it was given and whatever goes wrong, and
//! a server whose certificate does not prove who it is gets no session, of whichever kind.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Outcome, Pgmig};
use pgmig::embedded::Cluster;

use crate::bench::to_the_end;

const TABLE: &str =
    "create table t (id int primary key, note text); insert into t select g, 'n' from generate_series(1, 100) g;
                     create index on t (note); create view v as select * from t";

/// Looks at the command line of every process, again and again, until it is stopped.
struct ProcessList {
    stop: Arc<AtomicBool>,
    watcher: std::thread::JoinHandle<(BTreeSet<String>, BTreeSet<String>)>,
}

impl ProcessList {
    fn watch(secrets: Vec<String>) -> ProcessList {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watcher = std::thread::spawn(move || {
            let (mut seen, mut leaks) = (BTreeSet::new(), BTreeSet::new());
            while !stopped.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
                    let line = String::from_utf8_lossy(&line).replace('\0', " ");
                    let program = line.split(' ').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
                    seen.insert(program.to_string());
                    if secrets.iter().any(|secret| line.contains(secret)) {
                        leaks.insert(line);
                    }
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            (seen, leaks)
        });
        ProcessList { stop, watcher }
    }
    /// Names of the programs that were seen, and command lines that held a secret.
    fn stop(self) -> (BTreeSet<String>, BTreeSet<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().expect("reading /proc does not panic")
    }
}

/// A way to give a password, named like its migration and its target database.
struct Way {
    name: &'static str,
    env: Vec<(String, String)>,
}

/// Every file below a folder whose bytes hold one of the secrets.
fn files_with(folder: &Path, secrets: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, secrets));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let holds = |secret: &String| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            if secrets.iter().any(holds) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_seen_nowhere_however_it_was_given() -> Outcome {
    let builder = || Cluster::builder().with_password();
    let (source, target) = tokio::try_join!(builder().start(), builder().start())?;
    // One that has to be escaped in a URI, and must not turn up escaped either. The same on both sides,
    // as PGPASSWORD speaks for both.
    let secrets = vec!["Mellon/friend 7".to_string(), "Mellon%2Ffriend%207".to_string()];
    let wrong = "Speak/friend 8".to_string();
    for cluster in [&source, &target] {
        cluster.sql("postgres", &format!("alter role postgres password '{}'", secrets[0])).await?;
    }
    source.create_database("app").await?;
    source.sql("app", TABLE).await?;
    let folder = tempfile::tempdir()?;
    let address = |cluster: &Cluster, database: &str, password: &str| {
        format!("postgresql://postgres{password}@127.0.0.1:{}/{database}", cluster.port())
    };
    let passfile = folder.path().join("pgpass");
    let line = |cluster: &Cluster| format!("127.0.0.1:{}:*:postgres:{}\n", cluster.port(), secrets[0]);
    std::fs::write(&passfile, line(&source) + &line(&target))?;
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600))?;
    let uris = |database: &str, password: &str| {
        vec![
            ("PGMIG_SOURCE".to_string(), address(&source, "app", password)),
            ("PGMIG_TARGET".to_string(), address(&target, database, password)),
        ]
    };
    let with = |name: &str, value: String, mut env: Vec<(String, String)>| {
        env.push((name.to_string(), value));
        env
    };
    let ways = [
        Way { name: "uri", env: uris("uri", &format!(":{}", secrets[1])) },
        Way { name: "variable", env: with("PGPASSWORD", secrets[0].clone(), uris("variable", "")) },
        Way { name: "file", env: with("PGPASSFILE", passfile.display().to_string(), uris("file", "")) },
    ];
    let processes = ProcessList::watch(secrets.clone());
    let mut runs = Vec::new();
    for way in &ways {
        target.create_database(way.name).await?;
        let dir = folder.path().join("dirs").join(way.name).display().to_string();
        // Everything that any library of ours has to say.
        let mut env: Vec<(&str, &str)> = way.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if way.name == "file" {
            env.push(("PGMIG_LOG", "trace"));
        }
        let args = ["run", "-vv", "--name", way.name, "--dir", &dir];
        runs.push(to_the_end(Pgmig::start(&args, &env), &source, (&target, way.name), &secrets));
    }
    for (finished, way) in futures_util::future::try_join_all(runs).await?.into_iter().zip(&ways) {
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!secrets.iter().any(|secret| said.contains(secret)), "{}: it was said", way.name);
        assert_eq!(
            finished.code(),
            0,
            "{}: {}",
            way.name,
            finished.stderr.lines().rev().take(5).collect::<Vec<_>>().join("\n")
        );
        assert_eq!(target.value(way.name, "select count(*) from t").await?.as_deref(), Some("100"));
    }
    let (seen, leaks) = processes.stop();
    assert!(seen.contains("pg_dump"), "the process list was not watched closely enough: {seen:?}");
    assert_eq!(leaks, BTreeSet::new(), "a command line holds the password");
    assert_eq!(files_with(&folder.path().join("dirs"), &secrets), Vec::<String>::new());

    // Runs that fail: neither the right password nor the wrong one is said.
    let both = [secrets[0].clone(), secrets[1].clone(), wrong.clone(), "Speak%2Ffriend%208".into()];
    let failing = [
        uris("uri", ":Speak%2Ffriend%208"),
        with("PGPASSWORD", wrong, uris("uri", "")),
        uris("nowhere", &format!(":{}", secrets[1])),
        // Not escaped: what follows the slash is no port.
        uris("uri", &format!(":{}", secrets[0])),
        vec![
            ("PGMIG_SOURCE".to_string(), format!("hosst=127.0.0.1 password='{}'", secrets[0])),
            ("PGMIG_TARGET".to_string(), format!("host=127.0.0.1 password={}", secrets[0])),
        ],
    ];
    for env in failing {
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let finished = Pgmig::start(&["run", "-vv"], &env).wait(Duration::from_secs(30)).await;
        assert!((2..=4).contains(&finished.code()), "{env:?}: {}", finished.stderr);
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!both.iter().any(|secret| said.contains(secret)), "{env:?} is repeated in:\n{said}");
        // Part of it would be too much as well.
        assert!(!said.contains("friend"), "{env:?} is repeated in part in:\n{said}");
    }
    // Nor the administrator's, right or wrong.
    source.sql("app", "create table log (line text)").await?;
    for (password, code) in [("Speak%2Ffriend%208", 3), (secrets[1].as_str(), 1)] {
        let admin = address(&source, "app", &format!(":{password}"));
        let env = with("PGMIG_ADMIN_SOURCE", admin, uris("uri", &format!(":{}", secrets[1])));
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let dir = folder.path().join("fixed").display().to_string();
        let args = ["preflight", "-vv", "--fix", "--yes", "--dir", &dir];
        let finished = Pgmig::start(&args, &env).wait(Duration::from_secs(30)).await.expect_code(code);
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!said.contains("friend"), "{said}");
        assert_eq!(said.contains("done on the source: alter table public.log"), code == 1, "{said}");
    }
    // Nor does a mistyped flag print what the environment holds.
    for args in [["run", "--help"], ["run", "--souce"]] {
        let finished = Pgmig::start(&args, &[("PGMIG_SOURCE", "postgresql://a:friend@h/d"), ("PGMIG_DIR", "/friend")])
            .wait(Duration::from_secs(30))
            .await;
        assert!(!format!("{}{}", finished.stdout, finished.stderr).contains("friend"));
    }
    Ok(())
}

/// Makes a certificate authority in a folder, and a certificate of it for the name localhost.
fn certificates(folder: &Path, authority: &str) -> std::io::Result<()> {
    let openssl = |args: &str| -> std::io::Result<()> {
        let output = std::process::Command::new("openssl").args(args.split(' ')).current_dir(folder).output()?;
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n")?;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout {authority}.key -out {authority}.crt -subj /CN={authority} -days 2"))?;
    openssl(&format!("req {key} -keyout {authority}-server.key -out server.csr -subj /CN=localhost"))?;
    openssl(&format!(
        "x509 -req -in server.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -out {authority}-server.crt -days 2 -extfile names"
    ))
}

/// Switches TLS on, and everything else off.
async fn encrypt(cluster: &Cluster, folder: &Path, authority: &str) -> Outcome {
    let data = cluster.data_dir();
    let owner = std::fs::metadata(&data)?;
    for kind in ["crt", "key"] {
        let file = data.join(format!("server.{kind}"));
        std::fs::copy(folder.join(format!("{authority}-server.{kind}")), &file)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    std::fs::write(data.join("pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")?;
    cluster.sql("postgres", "alter system set ssl = on").await?;
    cluster.sql("postgres", "select pg_reload_conf()").await?;
    harness::wait_until(Duration::from_secs(10), "ssl to be on", || async {
        cluster.value("postgres", "show ssl").await.ok().flatten().as_deref() == Some("on")
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_verify_full_trusts_only_the_right_certificate_and_name() -> Outcome {
    let builder = || Cluster::builder().with_password();
    let (source, target) = tokio::try_join!(builder().start(), builder().start())?;
    let folder = tempfile::tempdir()?;
    certificates(folder.path(), "right")?;
    certificates(folder.path(), "wrong")?;
    for cluster in [&source, &target] {
        encrypt(cluster, folder.path(), "right").await?;
        cluster.create_database("app").await?;
    }
    source.sql("app", TABLE).await?;
    let uri = |cluster: &Cluster, host: &str, authority: &str| {
        let roots = folder.path().join(format!("{authority}.crt"));
        cluster.uri("app").replace("127.0.0.1", host) + &format!("?sslmode=verify-full&sslrootcert={}", roots.display())
    };
    let run = |source: &str, target: &str| {
        let dir = folder.path().join("dir").display().to_string();
        Pgmig::start(&["run", "--source", source, "--target", target, "--dir", &dir], &[])
    };
    let (right_source, right_target) = (uri(&source, "localhost", "right"), uri(&target, "localhost", "right"));
    let refused = [
        (
            uri(&source, "localhost", "wrong"),
            right_target.clone(),
            3,
            "sslrootcert must name the certificate of the authority",
        ),
        (
            right_source.clone(),
            uri(&target, "localhost", "wrong"),
            4,
            "sslrootcert must name the certificate of the authority",
        ),
        (
            uri(&source, "127.0.0.1", "right"),
            right_target.clone(),
            3,
            "connect by a name that is in the server's certificate",
        ),
        (uri(&source, "localhost", "missing"), right_target.clone(), 3, "check sslrootcert and sslcert"),
        (source.uri("app") + "?sslmode=disable", right_target.clone(), 3, "it may want TLS (sslmode=require)"),
    ];
    for (from, to, code, hint) in refused {
        let finished = run(&from, &to).wait(Duration::from_secs(30)).await;
        assert_eq!(finished.code(), code, "{from}: {}", finished.stderr);
        assert!(finished.stderr.contains(hint), "{from}: {}", finished.stderr);
    }
    let finished = to_the_end(run(&right_source, &right_target), &source, (&target, "app"), &[]).await?;
    assert_eq!(finished.finish(&[]).code(), 0);
    assert_eq!(target.value("app", "select count(*) from t").await?.as_deref(), Some("100"));
    Ok(())
}
