//! The binary: reads the arguments, starts logging and the runtime, and turns an error into text and
//! an exit code. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use pgmig::args::Cli;
use pgmig::report::log::TARGET;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = pgmig::logging::start(&cli) {
        eprint!("{}", pgmig::command::render(&error));
        return ExitCode::from(error.exit() as u8);
    }
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
            let text = pgmig::command::render(&error);
            tracing::error!(target: TARGET, exit_code = error.exit() as u8, "{}", text.trim_start_matches("error: ").trim_end());
            eprint!("{text}");
            ExitCode::from(error.exit() as u8)
        }
    }
}
