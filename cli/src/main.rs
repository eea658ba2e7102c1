//! The binary: reads the arguments, starts logging and the runtime, and turns an error into text and
//! an exit code. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use pgmig::args::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (false, 0) => "pgmig=warn",
        (false, 1) => "pgmig=debug",
        (false, _) => "pgmig=trace",
    };
    let filter = EnvFilter::try_from_env("PGMIG_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            eprintln!("error: cannot start\n  cause: {err}");
            return ExitCode::from(70);
        }
    };
    let done = runtime.block_on(pgmig::command::dispatch(cli));
    // A thread that waits for a slow disk must not keep the prompt from the user.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match done {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            eprint!("{}", pgmig::command::render(&error));
            ExitCode::from(error.exit() as u8)
        }
    }
}
