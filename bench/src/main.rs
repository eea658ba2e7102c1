//! Measures pgmig beside other ways to do the same, in one run and in turn, on throwaway servers.
//! It judges the figures by the project's targets; it never touches a server that it did not start.

mod cdc;
mod copy;
mod cutover;
mod data;
mod meter;
mod servers;
mod slowdown;
mod table;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What failed, with its causes where it is an error of pgmig's.
fn why(err: &Failure) -> String {
    err.downcast_ref().map_or_else(|| err.to_string(), pgmig::error::Error::chain)
}
type Outcome<T> = Result<T, Failure>;

#[derive(Debug, Parser)]
#[command(name = "pgmig-bench", about = "Measures pgmig beside other ways to do the same", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The initial copy, beside pg_dump with pg_restore, pgcopydb, and the ideal made by hand
    Copy(copy::CopyArgs),
    /// Change data capture from a backlog and under load, beside the server's own replication
    Cdc(cdc::CdcArgs),
    /// A comparison of two databases, beside reading both with hashtext
    Verify(verify::VerifyArgs),
    /// How long clients wait for a cutover, and how long many sequences take in it
    Cutover(cutover::CutoverArgs),
    /// What clients of the source notice of a copy, at full speed and where it gives way
    Slowdown(slowdown::SlowdownArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// Size of the data; 1 is the size that the targets are set for
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    scale: f64,

    /// How often each contender runs; every one runs once before any runs again
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,

    /// The pgmig to measure [default: the one that was built with this bench]
    #[arg(long, env = "PGMIG_BIN", value_name = "PATH")]
    pgmig: Option<PathBuf>,

    /// A run that takes longer is killed, and counts as failed
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    limit: u64,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl Common {
    fn pgmig(&self) -> Outcome<PathBuf> {
        let built = || std::env::current_exe().map(|bench| bench.with_file_name("pgmig"));
        let path = self.pgmig.clone().map_or_else(built, Ok)?;
        if path.exists() { Ok(path) } else { Err(format!("there is no {}: run make build", path.display()).into()) }
    }
    fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
    /// A number of rows or tables at this scale.
    fn scaled(&self, at_full_size: f64) -> u64 {
        (at_full_size * self.scale).round().max(1.0) as u64
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let (json, report) = match cli.bench {
        Bench::Cdc(args) => (args.common.json, cdc::run(args).await),
        Bench::Cutover(args) => (args.common.json, cutover::run(args).await),
        Bench::Copy(args) => (args.common.json, copy::run(args).await),
        Bench::Verify(args) => (args.common.json, verify::run(args).await),
        Bench::Slowdown(args) => (args.common.json, slowdown::run(args).await),
    };
    match report {
        Ok(report) => {
            if json {
                println!("{}", report.json());
            } else {
                print!("{report}");
            }
            std::process::ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("error: {}", why(&err));
            std::process::ExitCode::FAILURE
        }
    }
}
