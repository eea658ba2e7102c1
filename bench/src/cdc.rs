//! `pgmig-bench cdc`: the same backlog of changes, applied by several tools to the same target, and
//! how far pgmig lags behind a steady load.
//!
//! Each contender has a slot and a target from before the backlog. A run gets a copy of both, so that
//! every run reads and applies the same changes from the first to the last. It is over when the
//! backlog's last row can be seen on the target. Where pgcopydb is installed, it applies a backlog of the
//! same changes between two servers of its own.

mod base;
mod contender;
mod lag;
mod workload;

use std::time::Duration;

use clap::{Args, ValueEnum};

use self::base::Base;
use self::contender::{Contender, Flavour, Plugin};
use self::workload::Workload;
use crate::meter::{Cost, Meter};
use crate::servers::{Servers, TARGET, in_path, pgmig_command, run as run_to_end};
use crate::table::{Report, Row, Table, Target};
use crate::{Common, Outcome, why};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// pgbench transactions, then a million rows inserted, half of them updated, half deleted
    Bulk,
    /// The standard script of pgbench at scale 1: the same rows again and again
    Hot,
    /// How far behind changes arrive at 80 % of the highest load
    Lag,
}

#[derive(Debug, Args)]
pub struct CdcArgs {
    #[command(flatten)]
    pub common: Common,

    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Bulk, Part::Hot, Part::Lag])]
    only: Vec<Part>,

    /// Leave these contenders out, by the start of their name
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    without: Vec<String>,

    /// How long the steady load lasts [default: 30 at scale 1, less below, at least 5]
    #[arg(long, value_name = "SECONDS")]
    lag_seconds: Option<u64>,
}

/// Twice what pgcopydb took for the whole backlog on a slow machine.
const PGCOPYDB_LIMIT: Duration = Duration::from_secs(240);

pub async fn run(args: CdcArgs) -> Outcome<Report> {
    let pgmig = args.common.pgmig()?;
    let servers = Servers::start("logical").await?;
    let backlogs = args.only.iter().any(|part| *part != Part::Lag);
    let apart =
        backlogs && in_path("pgcopydb").is_some() && !args.without.iter().any(|name| "pgcopydb".starts_with(name));
    let apart = if apart { Some(Servers::start("logical").await?) } else { None };
    let mut tables = Vec::new();
    for part in &args.only {
        let contenders: Vec<Contender> = contender::all(*part)
            .into_iter()
            .filter(|contender| !args.without.iter().any(|name| contender.name().starts_with(name)))
            .collect();
        tables.push(match part {
            Part::Bulk => backlog(Workload::Bulk, &contenders, &servers, apart.as_ref(), &pgmig, &args.common).await?,
            Part::Hot => backlog(Workload::Hot, &contenders, &servers, apart.as_ref(), &pgmig, &args.common).await?,
            Part::Lag => {
                let seconds = args.lag_seconds.unwrap_or((30.0 * args.common.scale.min(1.0)).max(5.0) as u64);
                lag::measure(&contenders, &servers, &pgmig, &args.common, seconds).await?
            }
        });
    }
    let about = vec![format!(
        "cdc: scale {}, PostgreSQL {}, {} rounds; {}",
        args.common.scale,
        servers.source.bin_dir().version(),
        args.common.rounds,
        run_to_end(pgmig_command(&pgmig).arg("--version"))?.trim(),
    )];
    Ok(Report { about, tables })
}

async fn backlog(
    workload: Workload,
    contenders: &[Contender],
    servers: &Servers,
    apart: Option<&Servers>,
    pgmig: &std::path::Path,
    common: &Common,
) -> Outcome<Table> {
    let (alone, together): (Vec<Contender>, Vec<Contender>) =
        contenders.iter().partition(|contender| **contender == Contender::Pgcopydb);
    let arena = Arena::make(workload, &together, servers, pgmig, common).await?;
    let changes = arena.changes.clone();
    let other = match apart {
        Some(apart) => Some(Arena::make(workload, &alone, apart, pgmig, common).await?),
        None => None,
    };
    let mut table = Table { title: format!("{}: {changes}", workload.database()), ..Table::default() };
    for contender in contenders {
        table.rows.push(Row { name: contender.name(), runs: Vec::new(), error: None });
    }
    for round in 0..common.rounds {
        for at in (0..contenders.len()).map(|n| (n + round) % contenders.len()) {
            let contender = &contenders[at];
            // What has failed once is not waited for again.
            if table.rows[at].error.is_some() {
                continue;
            }
            let arena = other.as_ref().filter(|other| other.contenders.contains(contender)).unwrap_or(&arena);
            let check = (round == 0 && contender.applies()).then_some(arena.expected.as_str());
            // pgcopydb stands still where a transaction does not end in the WAL file that it began in.
            let limit =
                if *contender == Contender::Pgcopydb { common.limit().min(PGCOPYDB_LIMIT) } else { common.limit() };
            let done = one_run(contender, &arena.base, arena.servers, limit, check).await;
            let told = done.as_ref().map_or("failed".to_string(), |cost| format!("{:.1} s", cost.wall));
            eprintln!("{} round {}: {}: {told}", workload.database(), round + 1, contender.name());
            let row = &mut table.rows[at];
            row.runs.push(done.as_ref().ok().copied());
            row.error = done.err().as_ref().map(why);
        }
    }
    for arena in [Some(arena), other].into_iter().flatten() {
        arena.base.remove(&arena.contenders, arena.servers).await?;
    }
    judge(&mut table, workload);
    Ok(table)
}

/// Contenders that apply the same backlog. pgcopydb writes to the source what all others would have to
/// follow, so it has servers of its own.
struct Arena<'a> {
    contenders: Vec<Contender>,
    servers: &'a Servers,
    base: Base,
    /// What the backlog is.
    changes: String,
    /// What the target holds once it is applied.
    expected: String,
}

impl<'a> Arena<'a> {
    async fn make(
        workload: Workload,
        contenders: &[Contender],
        servers: &'a Servers,
        pgmig: &std::path::Path,
        common: &Common,
    ) -> Outcome<Arena<'a>> {
        let base = Base::make(workload, contenders, servers, pgmig, common).await?;
        let changes = workload.write(servers, common).await?;
        let expected = workload.digest(&servers.source, workload.database()).await?;
        Ok(Arena { contenders: contenders.to_vec(), servers, base, changes, expected })
    }
}

async fn one_run(
    contender: &Contender,
    base: &Base,
    servers: &Servers,
    limit: Duration,
    expected: Option<&str>,
) -> Outcome<Cost> {
    base.restore(contender, servers).await?;
    servers.settle().await?;
    let last_row = workload::LastRow::watch(servers, contender.applies()).await?;
    let meter = Meter::start(&servers.source, &servers.target, limit)?;
    let mut begun = base.begin(contender, servers, &meter.tool).await?;
    let done = begun.until(last_row, limit).await;
    let cost = meter.finish();
    begun.end(servers).await?;
    done?;
    if let Some(expected) = expected {
        let arrived = base.workload.digest(&servers.target, TARGET).await?;
        if arrived != expected {
            return Err(format!("the target holds {arrived} where the source has {expected}").into());
        }
    }
    cost
}

/// Holds the figures against the targets.
fn judge(table: &mut Table, workload: Workload) {
    let native = Contender::Native.name();
    let pgmig = |flavour, plugin| Contender::Pgmig(flavour, plugin).name();
    let wall = |cost: &Cost| cost.wall;
    let mut targets = Vec::new();
    let fastest = pgmig(Flavour::Extension, Plugin::Pgoutput);
    let (limit, plain_limit) = if workload == Workload::Hot { (0.5, None) } else { (0.7, Some(0.9)) };
    targets.push(Target::at_most(format!("wall of {fastest} to native"), limit, table.ratio(&fastest, &native, wall)));
    for plugin in [Plugin::Pgoutput, Plugin::Wal2json] {
        let (extension, plain) = (pgmig(Flavour::Extension, plugin), pgmig(Flavour::Plain, plugin));
        let floor = Contender::Floor(plugin).name();
        if workload == Workload::Bulk {
            let found = table.ratio(&extension, &floor, wall);
            targets.push(Target::at_most(format!("wall of {extension} to {floor}"), 1.2, found));
            let found = table.ratio(&extension, &plain, |cost| cost.target_cpu);
            targets.push(Target::at_most(format!("target CPU of {extension} to plain"), 0.75, found));
        }
        // Decoding by wal2json alone takes longer than all that native replication does.
        if let Some(limit) = plain_limit.filter(|_| plugin == Plugin::Pgoutput) {
            let found = table.ratio(&plain, &native, wall);
            targets.push(Target::at_most(format!("wall of {plain} to native"), limit, found));
        }
    }
    let resident = table.rows.iter().filter(|row| row.name.starts_with("pgmig"));
    let resident = resident.filter_map(|row| table.highest(&row.name, |cost| cost.rss_mb)).max_by(f64::total_cmp);
    targets.push(Target::at_most("resident MB of pgmig", 150.0, resident));
    table.references = vec![native, Contender::Floor(Plugin::Pgoutput).name()];
    table.targets = targets;
}
