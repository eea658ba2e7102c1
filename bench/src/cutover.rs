//! `pgmig-bench cutover`: how long clients have to wait for a cutover. They write through a PgBouncer at a
//! steady rate, and go on with the target; each cutover is one of a new migration. Every transaction counts:
//! one that fails, or that was answered and is not on the target, is a failure of the bench.

mod clients;
mod sequences;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clap::Args;
use pgmig::embedded::PgBouncer;

use self::clients::{Clients, Written};
use crate::meter::{Cost, Meter};
use crate::servers::{Servers, pgmig_command, run as run_to_end, session};
use crate::table::{Report, Row, Table, Target, percentile};
use crate::{Common, Outcome, why};

/// The database, the same name on both sides: PgBouncer's clients keep theirs.
const DATABASE: &str = "cut";
const USER: &str = "postgres";

#[derive(Debug, Args)]
pub struct CutoverArgs {
    #[command(flatten)]
    pub common: Common,

    /// How many migrations are cut over [default: 20 at scale 1, less below, at least 2]
    #[arg(long, value_name = "N")]
    cutovers: Option<usize>,

    /// Transactions a second that the clients write
    #[arg(long, default_value_t = 500, value_name = "N")]
    rate: u32,

    /// How many clients there are
    #[arg(long, default_value_t = 10, value_name = "N")]
    clients: u32,
}

/// What one cutover came to.
struct Cut {
    /// The longest that a client waited for an answer, from before the cutover until after it.
    waited: Duration,
    /// How long writes were stopped, as pgmig says.
    told: f64,
    written: Written,
    /// Answered transactions that are not on the target, and those that are there twice.
    lost: i64,
    rate: f64,
    cost: Cost,
}

pub async fn run(args: CutoverArgs) -> Outcome<Report> {
    let program = PgBouncer::program().ok_or("there is no pgbouncer: make deps installs it")?;
    let servers = Servers::start("logical").await?;
    let pgmig = args.common.pgmig()?;
    let cutovers = args.cutovers.unwrap_or_else(|| args.common.scaled(20.0).clamp(2, 20) as usize);
    let about = vec![format!(
        "cutover: PostgreSQL {}, {cutovers} cutovers, {} clients through PgBouncer; {}",
        servers.source.bin_dir().version(),
        args.clients,
        run_to_end(pgmig_command(&pgmig).arg("--version"))?.trim(),
    )];
    let (mut cuts, mut row) = (Vec::new(), Row { name: "longest wait".into(), runs: Vec::new(), error: None });
    for at in 0..cutovers {
        match one(&args, &servers, &pgmig, program).await {
            Ok(cut) => {
                eprintln!(
                    "cutover {}: a client waited {:.0} ms at most, pgmig says {:.0} ms; {} written at {:.0} a second, {} failed, {} lost",
                    at + 1,
                    cut.waited.as_secs_f64() * 1000.0,
                    cut.told * 1000.0,
                    cut.written.answered,
                    cut.rate,
                    cut.written.failed,
                    cut.lost
                );
                row.runs.push(Some(Cost { wall: cut.waited.as_secs_f64(), ..cut.cost }));
                cuts.push(cut);
            }
            Err(err) => {
                eprintln!("cutover {}: failed: {err}", at + 1);
                row.runs.push(None);
                row.error = Some(why(&err));
            }
        }
    }
    let waits = table(&args, cutovers, row, &cuts);
    let sequences = sequences::measure(&args.common, &servers, &pgmig).await?;
    Ok(Report { about, tables: vec![waits, sequences] })
}

fn table(args: &CutoverArgs, cutovers: usize, row: Row, cuts: &[Cut]) -> Table {
    let mut table = Table {
        title: format!("cutover: {} transactions a second through PgBouncer, cut over {cutovers} times", args.rate),
        rows: vec![row],
        ..Table::default()
    };
    let waits: Vec<Duration> = cuts.iter().map(|cut| cut.waited).collect();
    let told: Vec<Duration> = cuts.iter().map(|cut| Duration::from_secs_f64(cut.told)).collect();
    let (failed, lost) =
        (cuts.iter().map(|cut| cut.written.failed).sum::<u64>(), cuts.iter().map(|cut| cut.lost).sum::<i64>());
    let answered: u64 = cuts.iter().map(|cut| cut.written.answered).sum();
    let slowest = cuts.iter().map(|cut| cut.rate).min_by(f64::total_cmp);
    table.notes.push(format!(
        "longest wait of a client: p50 {:.0} ms, p99 {:.0} ms; writes stopped, as pgmig says: p50 {:.0} ms, p99 {:.0} ms",
        percentile(&waits, 0.5),
        percentile(&waits, 0.99),
        percentile(&told, 0.5),
        percentile(&told, 0.99),
    ));
    table.notes.push(format!(
        "{answered} transactions answered, {failed} failed, {lost} lost or doubled; the slowest rate was {:.0} a second",
        slowest.unwrap_or(f64::NAN)
    ));
    let all = cuts.len() == cutovers;
    let found = |value: f64| all.then_some(value);
    table.targets = vec![
        Target::at_most("p99 s that a client waits", 2.0, found(percentile(&waits, 0.99) / 1000.0)),
        Target::at_most("failed client transactions", 0.0, found(failed as f64)),
        Target::at_most("transactions lost or doubled", 0.0, found(lost as f64)),
    ];
    table
}

/// Both databases, new and empty.
async fn two_databases(servers: &Servers) -> Outcome<()> {
    for cluster in [&servers.source, &servers.target] {
        servers.drop_database(cluster, DATABASE).await?;
        cluster.create_database(DATABASE).await?;
    }
    Ok(())
}

/// A command of pgmig that is about the migration between them.
fn pgmig_to(verb: &str, pgmig: &Path, servers: &Servers, dir: &Path) -> Command {
    let mut command = pgmig_command(pgmig);
    command.args([verb, "--source", &servers.source.uri(DATABASE), "--target", &servers.target.uri(DATABASE)]);
    command.arg("--dir").arg(dir).arg("--quiet");
    command
}

async fn one(args: &CutoverArgs, servers: &Servers, pgmig: &Path, program: &Path) -> Outcome<Cut> {
    two_databases(servers).await?;
    let rows = args.common.scaled(200_000.0);
    let source = session(&servers.source.uri(DATABASE)).await?;
    source.batch_execute(&include_str!("../sql/cutover.sql").replace("{rows}", &rows.to_string())).await?;
    let bouncer = PgBouncer::start(program, &servers.source, DATABASE, USER).await?;
    let clients = Clients::start(&bouncer.uri(), args.clients, args.rate);
    servers.settle().await?;
    let meter = Meter::start(&servers.source, &servers.target, args.common.limit())?;
    let dir = servers.folder("cutover")?;
    let command = |verb: &str| pgmig_to(verb, pgmig, servers, &dir);
    let mut migration = spawn(command("run"), servers, &meter)?;
    let cut = async {
        follows(servers, args.common.limit(), &mut migration).await?;
        let before = clients.answered();
        let began = Instant::now();
        clients.have_written(u64::from(args.rate), args.common.limit()).await?;
        let rate = (clients.answered() - before) as f64 / began.elapsed().as_secs_f64();
        // What they waited for before has nothing to do with the cutover.
        clients.forget_waits();
        let mut cutover = command("cutover");
        cutover.args([
            "--max-downtime",
            "30s",
            "--pgbouncer",
            &bouncer.console(),
            "--pgbouncer-database",
            DATABASE,
            "--switch",
        ]);
        cutover.arg(bouncer.switch(&servers.source, &servers.target)?);
        let said = tokio::task::spawn_blocking(move || run_to_end(&mut cutover)).await??;
        clients.have_written(u64::from(args.rate) / 2, args.common.limit()).await?;
        let told = said.trim().strip_prefix("writes were stopped for ").and_then(|text| text.strip_suffix(" s"));
        Ok::<_, crate::Failure>((rate, told.and_then(|text| text.parse().ok()).ok_or("pgmig did not say how long")?))
    };
    let cut = cut.await;
    let written = clients.stop().await;
    if cut.is_err() {
        let _ = migration.kill();
    }
    let ended = migration.wait()?;
    let cost = meter.finish()?;
    let (rate, told) = cut?;
    if !ended.success() {
        return Err(format!("pgmig run ended with {ended}").into());
    }
    let target = session(&servers.target.uri(DATABASE)).await?;
    let lost = written.missing(&target).await?;
    // The cutover has ended the sessions that were there.
    let source = session(&servers.source.uri(DATABASE)).await?;
    let slots = source.query_one("select count(*) from pg_replication_slots where database = $1", &[&DATABASE]).await?;
    if slots.get::<_, i64>(0) > 0 {
        run_to_end(&mut command("cleanup"))?;
    }
    Ok(Cut { waited: written.longest, told, written, lost, rate, cost })
}

/// Starts `pgmig run`, whose talk goes into a file.
fn spawn(mut run: Command, servers: &Servers, meter: &Meter) -> Outcome<Child> {
    run.stdout(std::process::Stdio::null()).stderr(std::fs::File::create(log(servers))?);
    meter.tool.spawn(run)
}

fn log(servers: &Servers) -> PathBuf {
    servers.scratch.path().join("run.log")
}

/// Waits until `migration` follows changes.
async fn follows(servers: &Servers, limit: Duration, migration: &mut Child) -> Outcome<()> {
    let start = Instant::now();
    let target = session(&servers.target.uri(DATABASE)).await?;
    loop {
        // Before the schema pgmig is there the query fails.
        let phase = target.query_one("select phase from pgmig.progress", &[]).await;
        match phase.as_ref().map(|row| row.get::<_, &str>(0)) {
            Ok("follow") => return Ok(()),
            Ok("failed") => return Err("pgmig run has failed".into()),
            _ if migration.try_wait()?.is_some() => {
                let said = std::fs::read_to_string(log(servers)).unwrap_or_default();
                return Err(format!("pgmig run has ended: {}", said.trim()).into());
            }
            _ if start.elapsed() > limit => return Err("pgmig run did not come to follow".into()),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
