//! `pgmig-bench copy`: the initial copy of several databases by several tools, each into a target
//! that is new, each round in another order.

mod contender;

use std::time::Instant;

use clap::Args;

use self::contender::{Contender, Setting};
use crate::data::Dataset;
use crate::meter::{Cost, Meter};
use crate::servers::{Servers, TARGET, pgmig_command};
use crate::table::{Report, Row, Table, Target};
use crate::{Common, Outcome, servers, why};

#[derive(Debug, Args)]
pub struct CopyArgs {
    #[command(flatten)]
    pub common: Common,

    /// Only these databases
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Dataset::Pgbench, Dataset::Wide, Dataset::Mixed, Dataset::Single, Dataset::Catalog])]
    only: Vec<Dataset>,

    /// Leave these contenders out, by the start of their name
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    without: Vec<String>,

    /// Jobs of every contender
    #[arg(long, default_value_t = 2, value_name = "N")]
    jobs: usize,

    /// wal_level of the target: minimal needs no WAL for what is copied
    #[arg(long, default_value = "logical", value_name = "LEVEL")]
    target_wal_level: String,

    /// A pgcopydb to measure too; more than once for several [default: the one in PATH]
    #[arg(long, value_name = "PATH")]
    pgcopydb: Vec<std::path::PathBuf>,

    /// Further arguments for `pgmig run`, separated by white space
    #[arg(long, default_value = "", value_name = "ARGS", allow_hyphen_values = true)]
    pgmig_args: String,
}

pub async fn run(args: CopyArgs) -> Outcome<Report> {
    let setting = Setting {
        pgmig: args.common.pgmig()?,
        pgmig_args: args.pgmig_args.split_whitespace().map(String::from).collect(),
        jobs: args.jobs,
        limit: args.common.limit(),
    };
    let servers = Servers::start(&args.target_wal_level).await?;
    let mut tables = Vec::new();
    for dataset in &args.only {
        let start = Instant::now();
        dataset.load(&servers, &args.common).await?;
        eprintln!("{}: loaded in {:.1} s", dataset.name(), start.elapsed().as_secs_f64());
        tables.push(measure(*dataset, &servers, &setting, &args).await?);
        servers.drop_database(&servers.target, TARGET).await?;
        servers.drop_database(&servers.source, dataset.name()).await?;
    }
    let about = vec![format!(
        "copy: scale {}, PostgreSQL {}, {} jobs, wal_level of the target {}, {} rounds; {}",
        args.common.scale,
        servers.source.bin_dir().version(),
        args.jobs,
        args.target_wal_level,
        args.common.rounds,
        servers::run(pgmig_command(&setting.pgmig).arg("--version"))?.trim(),
    )];
    Ok(Report { about, tables })
}

async fn measure(dataset: Dataset, servers: &Servers, setting: &Setting, args: &CopyArgs) -> Outcome<Table> {
    let wanted = |contender: &Contender| !args.without.iter().any(|name| contender.name().starts_with(name));
    let contenders: Vec<Contender> =
        contender::all(dataset, &args.pgcopydb).into_iter().filter(|contender| wanted(contender)).collect();
    let bytes = servers.source.value("postgres", &format!("select pg_database_size('{}')", dataset.name())).await?;
    let megabytes = bytes.and_then(|bytes| bytes.parse::<f64>().ok()).unwrap_or_default() / 1e6;
    let mut table = Table { title: format!("{}: {megabytes:.0} MB", dataset.name()), ..Table::default() };
    for contender in &contenders {
        table.rows.push(Row { name: contender.name(), runs: Vec::new(), error: None });
    }
    let expected = contents(&servers.source, dataset.name(), dataset).await?;
    let mut plans = Vec::new();
    // Whoever is first makes the target's WAL files, which those after it use again: nobody who counts.
    if let Some(last) = contenders.last().filter(|_| dataset != Dataset::Catalog) {
        one_run(last, dataset, servers, setting, &expected).await?;
    }
    for round in 0..args.common.rounds {
        if dataset == Dataset::Catalog {
            match plan_time(servers, setting, dataset) {
                Ok(seconds) => plans.push(seconds),
                Err(err) => table.notes.push(format!("pgmig plan: {err}")),
            }
        }
        // Another one begins in each round.
        for at in (0..contenders.len()).map(|n| (n + round) % contenders.len()) {
            let contender = &contenders[at];
            let done = one_run(contender, dataset, servers, setting, &expected).await;
            let told = done.as_ref().map_or("failed".to_string(), |cost| format!("{:.1} s", cost.wall));
            eprintln!("{} round {}: {}: {told}", dataset.name(), round + 1, contender.name());
            let row = &mut table.rows[at];
            row.runs.push(done.as_ref().ok().copied());
            row.error = done.err().as_ref().map(why).or(row.error.take());
        }
    }
    if let Some(seconds) = crate::table::median(plans) {
        table.notes.push(format!("pgmig plan --no-follow: {seconds:.2} s"));
    }
    judge(&mut table, dataset, &contenders);
    Ok(table)
}

async fn one_run(
    contender: &Contender,
    dataset: Dataset,
    servers: &Servers,
    setting: &Setting,
    expected: &str,
) -> Outcome<Cost> {
    servers.new_target().await?;
    contender.prepare(servers, dataset).await?;
    servers.settle().await?;
    let meter = Meter::start(&servers.source, &servers.target, setting.limit)?;
    let done = contender.run(&meter.tool, servers, setting, dataset).await;
    let cost = meter.finish()?;
    let cleaned = contender.clean_up(servers, setting, dataset).await;
    done.and(cleaned)?;
    let arrived = contents(&servers.target, TARGET, dataset).await?;
    if arrived != expected {
        return Err(format!("it brought {arrived} where the source has {expected}").into());
    }
    Ok(cost)
}

/// Tables, rows, indexes and validated constraints of a database, as a text to compare.
async fn contents(cluster: &pgmig::embedded::Cluster, database: &str, dataset: Dataset) -> Outcome<String> {
    // Counting rows locks every table; more of them than a server takes by default are not counted.
    let count = if dataset == Dataset::Catalog { "0" } else { "pg_temp.rows_of(c.oid)" };
    let text = format!(
        "create function pg_temp.rows_of(relation regclass) returns bigint language plpgsql as
             $$ declare n bigint; begin execute 'select count(*) from ' || relation into n; return n; end $$;
         select count(*) || ' tables, ' || sum({count}) || ' rows, '
                || sum((select count(*) from pg_index i where i.indrelid = c.oid and i.indisvalid)) || ' indexes, '
                || sum((select count(*) from pg_constraint k where k.conrelid = c.oid and k.convalidated)) || ' constraints'
           from pg_class c
          where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace"
    );
    let answer = cluster.value(database, &text).await?;
    Ok(answer.unwrap_or_default())
}

fn plan_time(servers: &Servers, setting: &Setting, dataset: Dataset) -> Outcome<f64> {
    let start = Instant::now();
    let mut plan = pgmig_command(&setting.pgmig);
    plan.args(["plan", "--no-follow", "--json", "--source", &servers.source.uri(dataset.name())]);
    servers::run(&mut plan)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Holds the figures against the targets.
fn judge(table: &mut Table, dataset: Dataset, contenders: &[Contender]) {
    const PGMIG: &str = "pgmig";
    let wall = |cost: &Cost| cost.wall;
    let names: Vec<String> = contenders.iter().filter(|one| one.is_peer()).map(Contender::name).collect();
    let peers = || names.iter().map(String::as_str);
    let mut targets = Vec::new();
    if matches!(dataset, Dataset::Pgbench | Dataset::Wide | Dataset::Mixed) {
        // Mixed is for information: the targets name the other two.
        let (fast, thrifty) = (table.best(peers(), wall), table.best(peers(), Cost::total_cpu));
        let ideal = "ideal";
        if dataset != Dataset::Mixed {
            for (what, best, of) in
                [("wall", fast, wall as fn(&Cost) -> f64), ("CPU", thrifty, Cost::total_cpu as fn(&Cost) -> f64)]
            {
                let found = best.and_then(|best| table.ratio(PGMIG, best, of));
                targets.push(Target::at_most(format!("{what} of pgmig to the best peer"), 0.9, found));
                let found = table.ratio(PGMIG, ideal, of);
                targets.push(Target::at_most(format!("{what} of pgmig to the ideal"), 1.05, found));
            }
        }
        table.references = fast.map(String::from).into_iter().chain([ideal.to_string()]).collect();
    }
    if dataset == Dataset::Single {
        table.references = vec!["pipe".to_string()];
        targets.push(Target::at_most("wall of pgmig to the pipe", 1.05, table.ratio(PGMIG, "pipe", wall)));
    }
    let share = table.median(PGMIG, |cost| 100.0 * cost.own_cpu / cost.total_cpu());
    let what = "percent of the run's CPU in pgmig (pg_dump and pg_restore apart)";
    match dataset {
        Dataset::Pgbench | Dataset::Wide => targets.push(Target::at_most(what, 5.0, share)),
        // Without indexes and constraints hardly anything is done but to move bytes, which costs the kernel
        // what it costs; the limit is for databases as they are.
        _ => table.notes.extend(share.map(|share| format!("{what}: {share:.1}"))),
    }
    let resident = [PGMIG, "pgmig follow"].iter().filter_map(|name| table.highest(name, |cost| cost.rss_mb));
    targets.push(Target::at_most("resident MB of pgmig", 100.0, resident.max_by(f64::total_cmp)));
    table.targets = targets;
}
