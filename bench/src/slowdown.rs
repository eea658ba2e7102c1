//! `pgmig-bench slowdown`: what clients of the source notice of a copy. pgbench does a steady part of what the
//! machine can do; its latencies are taken while rows are copied: by a copy at full speed, and by copies that
//! give way. Source, target, clients and tool share the machine, which is the worst that can be.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::data::pgbench_init;
use crate::meter::{Cost, Meter};
use crate::servers::{Servers, TARGET, pgmig_command, run as run_to_end, session};
use crate::table::{Report, Row, Table, Target, percentile};
use crate::{Common, Outcome, why};

const DATABASE: &str = "busy";
/// What the clients do of what the machine can do without a copy.
const SHARE: f64 = 0.25;
/// The clients are at work so long before a copy begins.
const BEFORE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What workers that rest have sent before.
const A_CHUNK_EACH: f64 = 2e6;
/// pgbench's own read, of so many rows that it takes as long as its transactions do.
const READ: &str = "select sum(abalance) from pgbench_accounts, (select (random() * 90000)::int as low offset 0) from_here \
                    where aid between low and low + 2000";

#[derive(Debug, Args)]
pub struct SlowdownArgs {
    #[command(flatten)]
    pub common: Common,

    /// How long the clients work beside each copy, in seconds
    #[arg(long, default_value_t = 30, value_name = "N")]
    seconds: u64,

    /// What they do: pgbench's script of this name. The first waits for the disk, the second for a processor
    #[arg(long, value_delimiter = ',', default_values_t = ["tpcb-like".to_string(), "select-only".to_string()])]
    only: Vec<String>,

    /// What --max-slowdown is given, in percent
    #[arg(long, default_value_t = 20, value_name = "PERCENT")]
    max_slowdown: u16,
}

/// Who copies meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Contender {
    Nobody,
    FullSpeed,
    OwnProbe,
    Read,
}

const ALL: [Contender; 4] = [Contender::Nobody, Contender::FullSpeed, Contender::OwnProbe, Contender::Read];

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Contender::Nobody => "no copy",
            Contender::FullSpeed => "copy",
            Contender::OwnProbe => "copy, own probe",
            Contender::Read => "copy, pgbench's read",
        }
    }

    fn flags(self, percent: &str) -> Vec<&str> {
        match self {
            Contender::Nobody | Contender::FullSpeed => Vec::new(),
            Contender::OwnProbe => vec!["--max-slowdown", percent],
            Contender::Read => vec!["--max-slowdown", percent, "--probe", READ],
        }
    }
}

/// What one run came to.
#[derive(Default)]
struct Seen {
    cost: Cost,
    latencies: Vec<Duration>,
    megabytes: f64,
    /// How long rows were copied while the clients worked.
    seconds: f64,
}

pub async fn run(args: SlowdownArgs) -> Outcome<Report> {
    let servers = Servers::start("logical").await?;
    // On a machine of its own it would have a disk of its own.
    for statement in ["alter system set fsync = off", "select pg_reload_conf()"] {
        servers.target.sql("postgres", statement).await?;
    }
    let pgmig = args.common.pgmig()?;
    servers.source.create_database(DATABASE).await?;
    pgbench_init(&servers, DATABASE, args.common.scaled(20.0).max(2))?;
    let ballast = format!(
        "create table ballast as select n as id, repeat(md5(n::text), 30) as body from generate_series(1, {}) n;
         vacuum (analyze) ballast",
        args.common.scaled(1_500_000.0)
    );
    for statement in ballast.split(';') {
        servers.source.sql(DATABASE, statement).await?;
    }
    let mut tables = Vec::new();
    for script in &args.only {
        tables.push(measure(&servers, &pgmig, &args, script).await?);
    }
    let about = vec![format!(
        "slowdown: scale {}, PostgreSQL {}, {} rounds; {}",
        args.common.scale,
        servers.source.bin_dir().version(),
        args.common.rounds,
        run_to_end(pgmig_command(&pgmig).arg("--version"))?.trim()
    )];
    Ok(Report { about, tables })
}

async fn measure(servers: &Servers, pgmig: &Path, args: &SlowdownArgs, script: &str) -> Outcome<Table> {
    let said = run_to_end(pgbench(servers, script).args(["-T", "5"]).arg(servers.source.uri(DATABASE)))?;
    let most = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
    let rate = most.ok_or("pgbench did not say its rate")? * SHARE;
    let mut table = Table {
        title: format!("slowdown of {script}: {rate:.0} pgbench transactions a second for {} s", args.seconds),
        rows: ALL.map(|one| Row { name: one.name().into(), runs: Vec::new(), error: None }).to_vec(),
        ..Table::default()
    };
    let mut all: Vec<Seen> = ALL.iter().map(|_| Seen::default()).collect();
    for round in 0..args.common.rounds {
        for at in (0..ALL.len()).map(|n| (n + round) % ALL.len()) {
            let done = one_run(ALL[at], servers, pgmig, args, (script, rate)).await;
            let row = &mut table.rows[at];
            match done {
                Ok(seen) => {
                    let p95 = percentile(&seen.latencies, 0.95);
                    eprintln!("{script} round {}: {}: p95 {p95:.2} ms", round + 1, row.name);
                    row.runs.push(Some(seen.cost));
                    all[at].latencies.extend(seen.latencies);
                    all[at].megabytes += seen.megabytes;
                    all[at].seconds += seen.seconds;
                }
                Err(err) => {
                    eprintln!("{script} round {}: {}: failed", round + 1, row.name);
                    row.runs.push(None);
                    row.error = Some(why(&err));
                }
            }
        }
    }
    judge(&mut table, &all, f64::from(args.max_slowdown));
    Ok(table)
}

fn judge(table: &mut Table, all: &[Seen], percent: f64) {
    let without = percentile(&all[0].latencies, 0.95);
    for (contender, seen) in ALL.iter().zip(all) {
        let [half, most, top] = [0.5, 0.95, 0.99].map(|part| percentile(&seen.latencies, part));
        table.notes.push(format!(
            "{}: pgbench p50 {half:.2} ms, p95 {most:.2} ms ({:+.0} %), p99 {top:.2} ms, of {} transactions; {:.0} MB copied meanwhile, {:.1} MB/s",
            contender.name(),
            (most / without - 1.0) * 100.0,
            seen.latencies.len(),
            seen.megabytes,
            seen.megabytes / seen.seconds.max(0.001)
        ));
        if !contender.flags("").is_empty() {
            let found = Some(most / without).filter(|ratio| ratio.is_finite());
            let what = format!("p95 of pgbench beside `{}` to without", contender.name());
            table.targets.push(Target::at_most(what, 1.0 + percent / 100.0, found));
        }
    }
}

fn pgbench(servers: &Servers, script: &str) -> Command {
    let mut pgbench = servers.source.bin_dir().tool("pgbench");
    pgbench.args(["--no-vacuum", "-c", "4", "-j", "1", "--builtin", script]);
    pgbench
}

async fn one_run(
    contender: Contender,
    servers: &Servers,
    pgmig: &Path,
    args: &SlowdownArgs,
    (script, rate): (&str, f64),
) -> Outcome<Seen> {
    servers.new_target().await?;
    servers.settle().await?;
    let logs = servers.folder("latencies")?;
    std::fs::create_dir(&logs)?;
    let meter = Meter::start(&servers.source, &servers.target, args.common.limit())?;
    let mut load = pgbench(servers, script);
    load.args(["-T", &args.seconds.to_string(), "-R", &format!("{rate:.1}"), "--log", "--log-prefix"]);
    load.arg(logs.join("log")).arg(servers.source.uri(DATABASE)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut load = load.spawn()?;
    tokio::time::sleep(BEFORE).await;
    let mut seen = Seen::default();
    let mut copying: Option<(SystemTime, Instant)> = None;
    let mut tool = None;
    if contender == Contender::Nobody {
        copying = Some((SystemTime::now(), Instant::now()));
    } else {
        let percent = args.max_slowdown.to_string();
        let mut command = pgmig_command(pgmig);
        command.args(["run", "--quiet", "--no-follow", "--split-tables-larger-than", "64MB", "--source"]);
        command.arg(servers.source.uri(DATABASE)).arg("--target").arg(servers.target.uri(TARGET));
        command.arg("--dir").arg(servers.folder("pgmig")?).args(contender.flags(&percent));
        tool = Some(meter.tool.spawn(command)?);
    }
    let target = session(&servers.target.uri(TARGET)).await?;
    let mut until = SystemTime::now();
    while load.try_wait()?.is_none() {
        if tool.is_some() {
            // Before the schema pgmig is there, and until the probe is measured, nothing is copied.
            let look = "select coalesce(sum(copied_bytes), 0)::float8, coalesce(bool_and(state = 'done'), false),
                               coalesce(max(k.load_max_rate) = 1, false)
                          from pgmig.parts, pgmig.sentinel k";
            if let Ok(row) = target.query_one(look, &[]).await {
                let (bytes, done, rests): (f64, bool, bool) = (row.get(0), row.get(1), row.get(2));
                if bytes > A_CHUNK_EACH && !rests && copying.is_none() {
                    copying = Some((SystemTime::now(), Instant::now()));
                }
                if done && bytes > 0.0 {
                    seen.megabytes = bytes / 1e6;
                    break;
                }
                seen.megabytes = bytes / 1e6;
            }
        }
        until = SystemTime::now();
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (from, began) = copying.ok_or("nothing was copied while the clients worked")?;
    seen.seconds = began.elapsed().as_secs_f64();
    if let Some(mut tool) = tool {
        let _ = tool.kill();
        tool.wait()?;
    }
    load.wait()?;
    seen.cost = meter.finish()?;
    seen.latencies = latencies(&logs, from, until)?;
    if seen.latencies.is_empty() { Err("no transaction was done meanwhile".into()) } else { Ok(seen) }
}

/// What pgbench has written of the transactions that ended between the two: client, number, microseconds
/// since it was due, script, and when it ended in seconds and microseconds.
fn latencies(folder: &Path, from: SystemTime, until: SystemTime) -> Outcome<Vec<Duration>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder)? {
        for line in std::fs::read_to_string(file?.path())?.lines() {
            let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            let [_, _, took, _, seconds, micros, ..] = fields[..] else { continue };
            let ended = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            if (from..=until).contains(&ended) {
                found.push(Duration::from_micros(took));
            }
        }
    }
    Ok(found)
}
