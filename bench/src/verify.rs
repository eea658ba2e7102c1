//! `pgmig-bench verify`: a comparison of two databases by pgmig, in turn with the least that reading them both
//! costs: `select sum(hashtext(t::text))` over the same tables, by as many sessions a side.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use clap::Args;
use tokio::task::JoinSet;

use crate::data::Dataset;
use crate::meter::{Cost, Meter};
use crate::servers::{Servers, TARGET, pgmig_command, run as run_program, session};
use crate::table::{Report, Row, Table, Target};
use crate::{Common, Outcome, why};

const PGMIG: &str = "pgmig verify";
const HASHTEXT: &str = "sum(hashtext)";

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub common: Common,

    /// Only these databases
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Dataset::Pgbench, Dataset::Wide])]
    only: Vec<Dataset>,

    /// Tables that are read at once, on each side
    #[arg(long, default_value_t = 2, value_name = "N")]
    jobs: usize,
}

pub async fn run(args: VerifyArgs) -> Outcome<Report> {
    let servers = Servers::start("logical").await?;
    let mut tables = Vec::new();
    for dataset in &args.only {
        dataset.load(&servers, &args.common).await?;
        migrate(&servers, &args, *dataset).await?;
        tables.push(measure(&servers, &args, *dataset).await?);
        servers.drop_database(&servers.target, TARGET).await?;
        servers.drop_database(&servers.source, dataset.name()).await?;
    }
    let about = format!(
        "verify: scale {}, PostgreSQL {}, {} jobs, {} rounds",
        args.common.scale,
        servers.source.bin_dir().version(),
        args.jobs,
        args.common.rounds
    );
    Ok(Report { about: vec![about], tables })
}

/// Moves the database, so that there is something to compare.
async fn migrate(servers: &Servers, args: &VerifyArgs, dataset: Dataset) -> Outcome<()> {
    servers.new_target().await?;
    let mut command = pgmig_command(&args.common.pgmig()?);
    command.args(["run", "--quiet", "--no-follow", "--source", &servers.source.uri(dataset.name())]);
    command.args(["--target", &servers.target.uri(TARGET), "--dir"]).arg(servers.folder("pgmig")?);
    run_program(&mut command).map(drop)
}

async fn measure(servers: &Servers, args: &VerifyArgs, dataset: Dataset) -> Outcome<Table> {
    let size = format!("select pg_database_size('{}')", dataset.name());
    let bytes = servers.source.value("postgres", &size).await?.and_then(|bytes| bytes.parse::<f64>().ok());
    let title = format!("{}: {:.0} MB a side", dataset.name(), bytes.unwrap_or_default() / 1e6);
    let row = |name: &str| Row { name: name.into(), runs: Vec::new(), error: None };
    let mut table = Table { title, rows: vec![row(PGMIG), row(HASHTEXT)], ..Table::default() };
    for round in 0..args.common.rounds {
        // Another one begins in each round.
        for at in [round % 2, (round + 1) % 2] {
            servers.settle().await?;
            let meter = Meter::start(&servers.source, &servers.target, args.common.limit())?;
            let began = Instant::now();
            let done = match at {
                0 => {
                    let mut command = pgmig_command(&args.common.pgmig()?);
                    command.args(["verify", "--quiet", "--source", &servers.source.uri(dataset.name())]);
                    command.args(["--target", &servers.target.uri(TARGET), "--table-jobs", &args.jobs.to_string()]);
                    meter.tool.run(command)
                }
                _ => hashtext(servers, args.jobs, dataset).await,
            };
            let cost: Cost = meter.finish()?;
            eprintln!("{} round {}: {:.1} s", table.rows[at].name, round + 1, began.elapsed().as_secs_f64());
            let row = &mut table.rows[at];
            row.runs.push(done.is_ok().then_some(cost));
            row.error = done.err().as_ref().map(why).or(row.error.take());
        }
    }
    table.references = vec![HASHTEXT.into()];
    let found = table.ratio(PGMIG, HASHTEXT, |cost| cost.wall);
    table.targets = vec![Target::at_most("wall of pgmig verify to sum(hashtext(t::text))", 2.0, found)];
    Ok(table)
}

/// Reads the same tables on both sides at once, the largest first.
async fn hashtext(servers: &Servers, jobs: usize, dataset: Dataset) -> Outcome<()> {
    let largest_first = "select c.oid::regclass from pg_class c
                          where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace order by pg_table_size(c.oid) desc";
    let found = servers.source.sql(dataset.name(), largest_first).await?;
    let names: VecDeque<String> = found.into_iter().filter_map(|row| row.into_iter().next()?).collect();
    let mut work = JoinSet::new();
    for uri in [servers.source.uri(dataset.name()), servers.target.uri(TARGET)] {
        let queue = Arc::new(Mutex::new(names.clone()));
        for _ in 0..jobs {
            work.spawn(read(uri.clone(), queue.clone()));
        }
    }
    while let Some(done) = work.join_next().await {
        done??;
    }
    Ok(())
}

async fn read(uri: String, queue: Arc<Mutex<VecDeque<String>>>) -> Outcome<()> {
    let client = session(&uri).await?;
    loop {
        let next = queue.lock().map_err(|_| "another session failed")?.pop_front();
        let Some(table) = next else { return Ok(()) };
        client.query_one(&format!("select sum(hashtext(t::text)) from {table} t"), &[]).await?;
    }
}
