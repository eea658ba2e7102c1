//! `pgmig demo`: the whole story on throwaway servers, with nothing faked: a database under load is
//! migrated by this very binary, stopped through SQL as a DBA would, and compared whole.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::args::{DemoArgs, FlavourArg, PluginArg};
use crate::command::interrupted;
use crate::embedded::{Cluster, Summary, Workload, Writer, WriterOptions, sample};
use crate::error::{Context, Error, Exit, Result};
use crate::report::units;
use crate::verify;

const DATABASE: &str = "app";
/// Source transactions a second at most: the demo shows a migration, not which process wins a core.
const WRITER_TPS: f64 = 150.0;
/// How much the sample database is blown up: 1 is about 60 MB.
const SCALE: f64 = 2.0;

pub async fn demo(args: DemoArgs) -> Result<Exit> {
    // Dropping the story stops its servers and removes their folders.
    tokio::select! {
        done = story(args) => done,
        stopped = interrupted("the servers of the demo are gone") => Err(stopped),
    }
}

async fn story(args: DemoArgs) -> Result<Exit> {
    let began = Instant::now();
    say("starting two throwaway PostgreSQL servers");
    let server = |bin: &Option<PathBuf>| match bin {
        Some(bin) => Cluster::builder().bin_dir(bin),
        None => Cluster::builder(),
    };
    let (source, target) = tokio::try_join!(server(&args.source_bin).start(), server(&args.target_bin).start())?;
    source.create_database(DATABASE).await?;
    target.create_database(DATABASE).await?;
    for (side, server) in [("source", &source), ("target", &target)] {
        say(&format!("{side} {}   (PostgreSQL {})", server.uri(DATABASE), server.major()));
    }
    let workload = load(&args, &source).await?;
    let seed = fastrand::u64(..);
    let writer = Writer::start(
        &source.uri(DATABASE),
        workload,
        WriterOptions { tps: Some(WRITER_TPS), ..WriterOptions::seed(seed) },
    )
    .await?;
    say("a writer with several connections writes to the source, and never pauses");
    let dir = tempfile::tempdir().during(Exit::Dir, || "make a folder for the demo".into())?;
    say("\n$ pgmig run --source … --target …");
    let mut run = start_run(&args, &source, &target, dir.path())?;
    wait_for_phase(&target, &mut run, "follow").await?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let stopped_at = Instant::now();
    let written = writer.stop().await?;
    let endpos = source.value(DATABASE, "select pg_current_wal_lsn()").await?.unwrap_or_default();
    let statement = format!("select pgmig.set_endpos('{endpos}')");
    psql(&target, &statement).await?;
    let status = run.wait().await.during(Exit::Bug, || "wait for pgmig run".into())?;
    let stopped_for = stopped_at.elapsed();
    if !status.success() {
        return Err(Error::new(Exit::No, "pgmig run has failed in the demo"));
    }
    say(&format!("\nthe writer was stopped, and `{statement}` called on the target through psql"));
    say("comparing both databases whole: every row, sequence, large object, constraint, index and the schema");
    let options = verify::Options {
        bin_dir: Some(target.bin_dir().path().to_path_buf()),
        source_bin_dir: Some(source.bin_dir().path().to_path_buf()),
        ..verify::Options::default()
    };
    let found = verify::compare(&source.uri(DATABASE), &target.uri(DATABASE), options).await?;
    conclude(&found, &written, stopped_for, began);
    if args.keep {
        say(&format!(
            "\nkept until interrupted: {}\n                        {}",
            source.uri(DATABASE),
            target.uri(DATABASE)
        ));
        let _ = tokio::signal::ctrl_c().await;
    }
    Ok(if found.is_equal() { Exit::Done } else { Exit::No })
}

fn say(text: &str) {
    eprintln!("{text}");
}

/// Loads what was asked for, else pagila where it lies beside the project, else a database that the
/// demo makes.
async fn load(args: &DemoArgs, source: &Cluster) -> Result<Workload> {
    let began = Instant::now();
    let (what, workload) = match &args.database {
        Some(file) => {
            source.load_file(DATABASE, file).await?;
            let pagila = file.file_name().is_some_and(|name| name == "pagila.sql");
            if !pagila {
                return Err(Error::usage("the demo's writer knows pagila.sql and its own database only")
                    .hint("leave --database out, or give pagila.sql"));
            }
            (file.display().to_string(), Workload::Pagila)
        }
        None => {
            sample::load(&source.uri(DATABASE), SCALE).await?;
            ("a shop".to_string(), Workload::Shop)
        }
    };
    let rows = source
        .sql(
            DATABASE,
            "select count(*)::text, pg_size_pretty(pg_database_size(current_database()))
               from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'",
        )
        .await?;
    let fact = |at: usize| rows.first().and_then(|row| row[at].clone()).unwrap_or_default();
    say(&format!("loaded {what}: {} tables, {}, in {}", fact(0), fact(1), units::duration(began.elapsed())));
    Ok(workload)
}

/// Starts this very binary, as a user would.
fn start_run(args: &DemoArgs, source: &Cluster, target: &Cluster, dir: &Path) -> Result<Child> {
    let program = std::env::current_exe().during(Exit::Bug, || "find the pgmig binary".into())?;
    let flavour = match args.flavour {
        FlavourArg::Auto => "auto",
        FlavourArg::Extension => "extension",
        FlavourArg::Plain => "plain",
    };
    let plugin = match args.plugin {
        PluginArg::Auto => "auto",
        PluginArg::Wal2json => "wal2json",
        PluginArg::Pgoutput => "pgoutput",
    };
    Command::new(program)
        .args([
            "run",
            "--flavour",
            flavour,
            "--plugin",
            plugin,
            "--allow-insert-only",
            "--split-tables-larger-than",
            "16MB",
        ])
        .arg("--dir")
        .arg(dir)
        .env("PGMIG_SOURCE", source.uri(DATABASE))
        .env("PGMIG_TARGET", target.uri(DATABASE))
        .env("PGMIG_PG_BIN", source.bin_dir().path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .during(Exit::Bug, || "start pgmig run".into())
}

async fn wait_for_phase(target: &Cluster, run: &mut Child, phase: &str) -> Result<()> {
    loop {
        if let Some(status) = run.try_wait().during(Exit::Bug, || "look after pgmig run".into())? {
            return Err(Error::new(Exit::No, format!("pgmig run ended early ({status})")));
        }
        // The view is not there before the run has installed it.
        let asked = "select to_regclass('pgmig.progress') is not null";
        if target.value(DATABASE, asked).await?.as_deref() == Some("t") {
            let at = target.value(DATABASE, "select phase from pgmig.progress").await?;
            if at.as_deref() == Some(phase) {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn psql(target: &Cluster, statement: &str) -> Result<()> {
    let mut command = target.bin_dir().tool("psql");
    command
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", statement])
        .arg(target.uri(DATABASE));
    let output = Command::from(command).output().await.on_target(|| "start psql".into())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(Exit::Target, "psql failed").cause(String::from_utf8_lossy(&output.stderr).trim().to_string()))
}

fn conclude(found: &verify::Comparison, written: &Summary, stopped_for: Duration, began: Instant) {
    say("");
    if found.is_equal() {
        say(&format!(
            "proved: source and target are the same\n  {} tables with {} rows, {} sequences, {} schema statements\n  while {} transactions ({} rows) were written, seed {}",
            found.totals.tables,
            units::count(found.totals.rows),
            found.totals.sequences,
            units::count(found.totals.statements),
            units::count(written.transactions),
            units::count(written.rows),
            written.seed
        ));
    } else {
        say(&format!("source and target DIFFER\n{found}"));
    }
    say(&format!(
        "writes were stopped for {}\nthe demo took {}",
        units::duration(stopped_for),
        units::duration(began.elapsed())
    ));
    say("next: pgmig run --source URI --target URI, with databases of your own");
}
