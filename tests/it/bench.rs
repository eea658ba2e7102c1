//! Two servers and commands that must fail on them: each refusal is kept in a transcript, and proved
//! to have changed nothing on either side nor under `--dir`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::{Finished, Outcome, Pair, Pgmig};
use pgmig::embedded::{Builder, Cluster};

use crate::transcript::Transcript;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Rows = Vec<Vec<Option<String>>>;

pub struct Bench {
    pub pair: Pair,
    pub transcript: Transcript,
    folder: tempfile::TempDir,
    /// Both sides as the last refusal left them; None once a test has changed something.
    known: Option<[String; 2]>,
}

impl Bench {
    pub async fn start(name: &'static str, source: Builder, target: Builder) -> pgmig::error::Result<Bench> {
        let pair = Pair::start_with(source, target).await?;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut transcript = Transcript::new(name);
        for (cluster, side) in [(&pair.source, "SOURCE"), (&pair.target, "TARGET")] {
            transcript.replace(cluster.port(), &format!("{side}_PORT"));
            if let Some(password) = cluster.password() {
                transcript.replace(password, "PASSWORD");
            }
            let sockets = cluster.data_dir().parent().map(|dir| dir.display().to_string()).unwrap_or_default();
            transcript.replace(sockets.replace('/', "%2F").replace('-', "%2D"), &format!("{side}_SOCKETS"));
            transcript.replace(sockets, &format!("{side}_SOCKETS"));
        }
        transcript.replace(folder.path().display(), "FOLDER");
        Ok(Bench { pair, transcript, folder, known: None })
    }

    pub fn dir(&self) -> String {
        self.folder.path().join("dir").display().to_string()
    }

    /// Something was changed on purpose.
    pub fn forget(&mut self) {
        self.known = None;
    }

    pub async fn on_source(&mut self, sql: &str) -> pgmig::error::Result<Rows> {
        self.known = None;
        self.pair.on_source(sql).await
    }
    pub async fn on_target(&mut self, sql: &str) -> pgmig::error::Result<Rows> {
        self.known = None;
        self.pair.on_target(sql).await
    }

    /// `pgmig run` between the two databases of the pair, which must be refused.
    pub async fn refused(&mut self, title: &str, code: i32, args: &[&str]) -> Outcome {
        let (source, target) = (self.pair.source_uri(), self.pair.target_uri());
        self.refused_between(title, code, &source, &target, args).await
    }

    pub async fn refused_between(
        &mut self,
        title: &str,
        code: i32,
        source: &str,
        target: &str,
        args: &[&str],
    ) -> Outcome {
        let dir = self.dir();
        let args = [&["run", "--source", source, "--target", target, "--dir", &dir], args].concat();
        self.command_refused(title, code, &args, &[]).await
    }

    pub async fn command_refused(&mut self, title: &str, code: i32, args: &[&str], env: &[(&str, &str)]) -> Outcome {
        let before = match self.known.take() {
            Some(known) => known,
            None => self.state().await?,
        };
        let finished = Pgmig::start(args, env).wait(Duration::from_secs(30)).await;
        self.transcript.add(title, args, &finished);
        let said = format!("{title}: stdout:\n{}\nstderr:\n{}", finished.stdout, finished.stderr);
        assert_eq!(finished.code(), code, "{said}");
        assert_eq!(finished.stdout, "", "{said}");
        assert!(finished.stderr.starts_with("error: "), "{said}");
        // clap says where to look in its own words.
        let helps = finished.stderr.contains("\nhint: ") || finished.stderr.contains("For more information, try");
        assert!(helps, "no hint; {said}");
        self.preflight_names_it(args, env, &finished).await;
        let after = self.state().await?;
        assert!(after == before, "something was changed; {said}");
        self.known = Some(after);
        // A refusal late on may leave a plan that says whose folder it is, and no more.
        let left: Vec<_> =
            std::fs::read_dir(self.dir()).into_iter().flatten().flatten().map(|file| file.file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().starts_with("plan.db")), "--dir holds {left:?}; {said}");
        let _ = std::fs::remove_dir_all(self.dir());
        Ok(())
    }

    /// What refuses a run is found by preflight with the same flags, in the same words.
    async fn preflight_names_it(&self, args: &[&str], env: &[(&str, &str)], refused: &Finished) {
        let ["run", flags @ ..] = args else { return };
        let args = [&["preflight"], flags, &["--json"]].concat();
        let answer = Pgmig::start(&args, env).wait(Duration::from_secs(30)).await;
        // What cannot be meant is refused by both in one line.
        let said = refused.stderr.lines().next().unwrap_or_default().trim_start_matches("error: ");
        if answer.code() == 2 {
            assert!(answer.stderr.contains(said), "{said}: {}", answer.stderr);
            return;
        }
        let findings: serde_json::Value = serde_json::from_str(&answer.stdout).expect("one object");
        let findings = findings["findings"].as_array().cloned().unwrap_or_default();
        let failed: Vec<&str> = findings
            .iter()
            .filter(|found| found["verdict"] == "FAIL")
            .filter_map(|found| found["message"].as_str())
            .collect();
        let listed: Vec<&str> = refused
            .stderr
            .lines()
            .filter_map(|line| line.trim_start_matches("hint:").trim_start().strip_prefix("- "))
            .collect();
        let reasons = if said.contains("things stand in the way") { listed } else { vec![said] };
        for reason in reasons {
            assert!(
                failed.iter().any(|message| message.starts_with(reason)),
                "preflight does not say `{reason}`: {failed:#?}"
            );
        }
    }

    /// A command that answers on stdout and changes nothing.
    pub async fn answers(&mut self, title: &str, code: i32, args: &[&str]) -> Result<Finished, Failure> {
        let before = match self.known.take() {
            Some(known) => known,
            None => self.state().await?,
        };
        let finished = Pgmig::start(args, &[("COLUMNS", "100")]).wait(Duration::from_secs(90)).await;
        self.transcript.add(title, args, &finished);
        assert_eq!(finished.code(), code, "{title}: stdout:\n{}\nstderr:\n{}", finished.stdout, finished.stderr);
        let after = self.state().await?;
        assert!(after == before, "{title}: something was changed: {before:?}\n{after:?}");
        self.known = Some(after);
        assert!(!std::path::Path::new(&self.dir()).exists(), "{title}: --dir was made");
        Ok(finished)
    }

    /// Everything that a refused command could have left on the servers.
    async fn state(&self) -> Result<[String; 2], Box<dyn std::error::Error + Send + Sync>> {
        let (source, target) = tokio::join!(state(&self.pair.source), state(&self.pair.target));
        Ok([source?, target?])
    }
}

async fn state(cluster: &Cluster) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut dump = cluster.bin_dir().tool("pg_dump");
    dump.arg("-d").arg(cluster.socket_uri("app")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let dump = tokio::process::Command::from(dump).output().await?;
    assert!(dump.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dump.stderr));
    // Newer minor versions guard a dump with a random word.
    let dump = String::from_utf8(dump.stdout)?;
    let dump: String = dump.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n");
    let others = "select 'slot', slot_name, plugin, confirmed_flush_lsn::text from pg_replication_slots
                  union all select 'database', datname, null, null from pg_database
                  union all select 'role', rolname, null, null from pg_roles order by 1, 2";
    Ok(format!("{dump}\n{:?}", cluster.sql("app", others).await?))
}

/// Waits for a run to follow, then sets endpos to where the source `app` stands; gives what the run
/// said. None of the secrets may ever be in what a session of either server executes.
pub async fn to_the_end(
    mut run: Pgmig,
    source: &Cluster,
    (target, database): (&Cluster, &str),
    secrets: &[String],
) -> Result<Finished, Box<dyn std::error::Error + Send + Sync>> {
    let (start, mut set) = (Instant::now(), false);
    while run.is_running() {
        assert!(start.elapsed() < Duration::from_secs(60), "{database}: {}", run.stderr());
        for cluster in [source, target] {
            let said = cluster.sql("postgres", "select query, application_name from pg_stat_activity").await?;
            assert!(!secrets.iter().any(|secret| format!("{said:?}").contains(secret)), "{database}: {said:?}");
        }
        if !set && phase(target, database).await?.as_deref() == Some("follow") {
            let lsn = source.value("app", "select pg_current_wal_lsn()").await?.unwrap_or_default();
            target.sql(database, &format!("select pgmig.set_endpos('{lsn}')")).await?;
            set = true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(run.wait(Duration::from_secs(5)).await)
}

/// The phase of the only migration; None before there is one.
pub async fn phase(target: &Cluster, database: &str) -> pgmig::error::Result<Option<String>> {
    // The view is not there before the run has installed it.
    match target.value(database, "select to_regclass('pgmig.progress')").await? {
        Some(_) => target.value(database, "select phase from pgmig.progress").await,
        None => Ok(None),
    }
}
