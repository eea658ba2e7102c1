//! The ways to copy a database that are measured, each as a person would type it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::Outcome;
use crate::data::Dataset;
use crate::meter::Tool;
use crate::servers::{Servers, TARGET, in_path, pgmig_command, run};

pub enum Contender {
    Pgmig,
    /// With a slot, and an endpos that is set as soon as the slot is there.
    PgmigFollow,
    PgDump,
    Pgcopydb(PathBuf, usize),
    /// What the servers can do if nothing but the necessary is asked of them.
    Ideal,
    /// One binary COPY into another.
    Pipe,
}

pub struct Setting {
    pub pgmig: PathBuf,
    pub pgmig_args: Vec<String>,
    pub jobs: usize,
    pub limit: Duration,
}

/// Who competes for a dataset.
pub fn all(dataset: Dataset, pgcopydb: &[PathBuf]) -> Vec<Contender> {
    let installed = || vec![in_path("pgcopydb")].into_iter().flatten().collect();
    let pgcopydb = if pgcopydb.is_empty() { installed() } else { pgcopydb.to_vec() };
    let pgcopydb = pgcopydb.into_iter().enumerate().map(|(at, path)| Contender::Pgcopydb(path, at + 1));
    match dataset {
        Dataset::Single => vec![Contender::Pgmig, Contender::Pipe],
        Dataset::Catalog => [Contender::Pgmig, Contender::PgDump].into_iter().chain(pgcopydb).collect(),
        Dataset::Pgbench | Dataset::Wide | Dataset::Mixed => [Contender::Pgmig, Contender::PgDump, Contender::Ideal]
            .into_iter()
            .chain(pgcopydb)
            .chain([Contender::PgmigFollow])
            .collect(),
    }
}

impl Contender {
    pub fn name(&self) -> String {
        match self {
            Contender::Pgmig => "pgmig".to_string(),
            Contender::PgmigFollow => "pgmig follow".to_string(),
            Contender::PgDump => "pg_dump".to_string(),
            Contender::Pgcopydb(_, 1) => "pgcopydb".to_string(),
            Contender::Pgcopydb(_, number) => format!("pgcopydb {number}"),
            Contender::Ideal => "ideal".to_string(),
            Contender::Pipe => "pipe".to_string(),
        }
    }

    pub fn is_peer(&self) -> bool {
        matches!(self, Contender::PgDump | Contender::Pgcopydb(..))
    }

    /// What is not measured: the bare pipe needs a table to fill.
    pub async fn prepare(&self, servers: &Servers, dataset: Dataset) -> Outcome<()> {
        if let Contender::Pipe = self {
            let mut dump = servers.source.bin_dir().tool("pg_dump");
            dump.args(["--schema-only", "--format=custom", "-f"]).arg(servers.folder("schema.dump")?);
            run(dump.arg(servers.source.uri(dataset.name())))?;
            let mut restore = servers.source.bin_dir().tool("pg_restore");
            restore.args(["-d", &servers.target.uri(TARGET)]).arg(servers.scratch.path().join("schema.dump"));
            run(&mut restore)?;
            std::fs::remove_file(servers.scratch.path().join("schema.dump"))?;
        }
        Ok(())
    }

    pub async fn run(&self, tool: &Tool, servers: &Servers, setting: &Setting, dataset: Dataset) -> Outcome<()> {
        let from = servers.source.uri(dataset.name());
        let to = servers.target.uri(TARGET);
        let jobs = setting.jobs.to_string();
        match self {
            // The pipe that it is held against makes no statistics.
            Contender::Pgmig if dataset == Dataset::Single => {
                tool.run(pgmig_run(servers, setting, &["--no-follow", "--skip-vacuum"], dataset)?)
            }
            Contender::Pgmig => tool.run(pgmig_run(servers, setting, &["--no-follow"], dataset)?),
            Contender::PgmigFollow => pgmig_follow(tool, servers, setting, dataset).await,
            Contender::PgDump => {
                let folder = servers.folder("dump")?;
                let mut dump = servers.source.bin_dir().tool("pg_dump");
                dump.args(["-Fd", "-Z0", "-j", &jobs, "-d", &from, "-f"]).arg(&folder);
                tool.run(dump)?;
                let mut restore = servers.source.bin_dir().tool("pg_restore");
                restore.args(["-j", &jobs, "-d", &to]).arg(&folder);
                tool.run(restore)
            }
            Contender::Pgcopydb(path, _) => {
                let mut clone = Command::new(path);
                clone.args(["clone", "--source", &from, "--target", &to, "--dir"]).arg(servers.folder("pgcopydb")?);
                clone.args(["--table-jobs", &jobs, "--index-jobs", &jobs, "--split-tables-larger-than", "200MB"]);
                clone.arg("--skip-large-objects").stdin(Stdio::null());
                // Older ones know text only.
                if run(Command::new(path).args(["clone", "--help"]).stderr(Stdio::null()))?
                    .contains("--use-copy-binary")
                {
                    clone.arg("--use-copy-binary");
                }
                tool.run(clone)
            }
            Contender::Ideal => ideal(tool, servers, setting, dataset).await,
            Contender::Pipe => copy_table(tool, servers, dataset, "public.big"),
        }
    }

    /// Leaves nothing on the source or on disk that the next one would pay for.
    pub async fn clean_up(&self, servers: &Servers, setting: &Setting, dataset: Dataset) -> Outcome<()> {
        if let Contender::PgmigFollow = self {
            let mut cleanup = pgmig_command(&setting.pgmig);
            cleanup.args(["cleanup", "--force", "--source", &servers.source.uri(dataset.name())]);
            run(cleanup.args(["--target", &servers.target.uri(TARGET)]))?;
        }
        for folder in ["pgmig", "dump", "pgcopydb"] {
            servers.folder(folder)?;
        }
        Ok(())
    }
}

fn pgmig_run(servers: &Servers, setting: &Setting, args: &[&str], dataset: Dataset) -> Outcome<Command> {
    let mut command = pgmig_command(&setting.pgmig);
    command.args(["run", "--quiet", "--source", &servers.source.uri(dataset.name())]);
    command.args(["--target", &servers.target.uri(TARGET), "--dir"]).arg(servers.folder("pgmig")?);
    let jobs = setting.jobs.to_string();
    command.args(["--table-jobs", &jobs, "--index-jobs", &jobs]).args(args).args(&setting.pgmig_args);
    Ok(command)
}

async fn pgmig_follow(tool: &Tool, servers: &Servers, setting: &Setting, dataset: Dataset) -> Outcome<()> {
    // pgbench_history has no key, and nothing is written meanwhile.
    let mut command = pgmig_run(servers, setting, &["--allow-insert-only"], dataset)?;
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = tool.spawn(command)?;
    // Its schema is not there at first.
    let begun = "select startpos from pgmig.sentinel where startpos is not null";
    while child.try_wait()?.is_none() {
        if let Ok(Some(_)) = servers.target.value(TARGET, begun).await {
            let lsn = servers.source.value("postgres", "select pg_current_wal_insert_lsn()").await?;
            let set = format!("select pgmig.set_endpos('{}')", lsn.unwrap_or_default());
            servers.target.sql(TARGET, &set).await?;
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("pgmig ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
}

async fn ideal(tool: &Tool, servers: &Servers, setting: &Setting, dataset: Dataset) -> Outcome<()> {
    let bin = servers.source.bin_dir();
    let to = servers.target.uri(TARGET);
    let archive = servers.folder("dump")?;
    let mut dump = bin.tool("pg_dump");
    dump.args(["-Fc", "--schema-only", "-d", &servers.source.uri(dataset.name()), "-f"]).arg(&archive);
    tool.run(dump)?;
    let mut before = bin.tool("pg_restore");
    before.args(["--section=pre-data", "-d", &to]).arg(&archive);
    tool.run(before)?;

    let largest_first =
        "select oid::regclass from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
                          order by pg_table_size(oid)";
    let tables = servers.source.sql(dataset.name(), largest_first).await?;
    let queue: Mutex<Vec<String>> = Mutex::new(tables.into_iter().filter_map(|row| row.into_iter().next()?).collect());
    std::thread::scope(|scope| {
        let work = || -> Outcome<()> {
            loop {
                let table = queue.lock().map_err(|_| "another worker failed")?.pop();
                let Some(table) = table else { return Ok(()) };
                copy_table(tool, servers, dataset, &table)?;
            }
        };
        let workers: Vec<_> = (0..setting.jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })?;

    let mut after = bin.tool("pg_restore");
    after.args(["--section=post-data", "-j", &setting.jobs.to_string(), "-d", &to]).arg(&archive);
    tool.run(with_options(after, "-c maintenance_work_mem=1GB"))?;
    tool.run(psql(servers, &to, &["analyze"]))?;
    Ok(std::fs::remove_file(archive)?)
}

fn with_options(mut command: Command, options: &str) -> Command {
    command.env("PGOPTIONS", options);
    command
}

/// `psql` that runs its commands in one transaction.
fn psql(servers: &Servers, uri: &str, commands: &[&str]) -> Command {
    let mut psql = servers.source.bin_dir().tool("psql");
    psql.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-d", uri]);
    if commands.len() > 1 {
        psql.arg("--single-transaction");
    }
    for command in commands {
        psql.args(["-c", command]);
    }
    psql
}

/// Binary COPY with FREEZE in the transaction that truncates.
fn copy_table(tool: &Tool, servers: &Servers, dataset: Dataset, table: &str) -> Outcome<()> {
    let out = format!("copy {table} to stdout (format binary)");
    let (truncate, into) =
        (format!("truncate only {table}"), format!("copy {table} from stdin (format binary, freeze)"));
    let from = psql(servers, &servers.source.uri(dataset.name()), &[&out]);
    let to = psql(servers, &servers.target.uri(TARGET), &[&truncate, &into]);
    tool.pipe(from, to)
}
