//! Where lines of the log go: warnings to stderr, and with `--log-file` all of a run to a file that is turned
//! over by size or by day.

mod file;

use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::args::{Cli, LogArgs, LogFormatArg, Verb};
use crate::error::{Error, Exit, Result};
use crate::report::log::TARGET;
use file::{LogFile, Turn};

/// Starts logging for what was typed.
///
/// # Errors
/// Exit 7: the log file cannot be written.
pub fn start(cli: &Cli) -> Result<()> {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (false, 0) => "pgmig=warn",
        (false, 1) => "pgmig=debug",
        (false, _) => "pgmig=trace",
    };
    let mut filter = EnvFilter::try_from_env("PGMIG_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // What a run tells people stands on stderr already, in its own form; and the parameters of statements,
    // which tokio-postgres logs, are values of rows.
    for directive in [format!("{TARGET}=off"), "tokio_postgres=warn".into()] {
        if let Ok(directive) = directive.parse() {
            filter = filter.add_directive(directive);
        }
    }
    let stderr = fmt::layer().with_writer(std::io::stderr).with_target(false).with_filter(filter);
    let file = match &cli.verb {
        Verb::Run(args) => to_file(&args.log)?,
        _ => None,
    };
    tracing_subscriber::registry().with(stderr).with(file).init();
    Ok(())
}

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

fn to_file<S>(args: &LogArgs) -> Result<Option<Boxed<S>>>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let Some(path) = &args.log_file else { return Ok(None) };
    let turn = Turn { bytes: args.log_rotate.bytes, daily: args.log_rotate.daily, keep: args.log_keep };
    let file = LogFile::open(path, turn).map_err(|err| {
        Error::new(Exit::Dir, format!("cannot write the log {}", path.display()))
            .cause(err)
            .hint("give --log-file a path in a folder that this user may write to")
    })?;
    let level = args.log_level.as_str();
    let filter = EnvFilter::new(format!("pgmig={level},{TARGET}={level}"));
    let layer = fmt::layer().with_writer(Mutex::new(file)).with_ansi(false).with_target(false);
    Ok(Some(match args.log_format {
        LogFormatArg::Text => layer.with_filter(filter).boxed(),
        LogFormatArg::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter).boxed()
        }
    }))
}
