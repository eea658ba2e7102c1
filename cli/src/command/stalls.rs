//! `pgmig stalls`: why a copy or apply is slow now, who is in the way, and what mends it. Reads only.

use std::io::Write;
use std::time::Duration;

use tokio_postgres::Client;

use super::control::target;
use crate::args::StallsArgs;
use crate::command::conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::report::{json, stalls as report};
use crate::stalls;

/// How long the source may take to let us in.
const SOURCE_WITHIN: Duration = Duration::from_secs(5);

pub async fn stalls(args: StallsArgs) -> Result<Exit> {
    let target = target(&args.target.target, "pgmig stalls").await?;
    let source = match &args.source {
        Some(source) => reached(connect::client(&conninfo(source)?, Side::Source, "pgmig stalls", &[])).await,
        None => None,
    };
    let watched = stalls::watch(&target, source.as_ref(), &args.target.name, args.during).await?;
    let found = stalls::diagnosis(&watched);
    let text = match args.json {
        true => {
            let object = serde_json::json!({
                "format": json::FORMAT,
                "migration": watched.after.migration,
                "phase": watched.after.phase,
                "verdict": found,
                "watched_seconds": watched.seconds,
                "target": watched.target,
                "source": watched.source,
                "slot": watched.health,
                "still": watched.still,
                "growth": { "target": watched.growth, "source": watched.source_growth },
                "progress": watched.after,
            });
            format!("{object}\n")
        }
        false => report::text(&watched, &found),
    };
    // A reader that went away is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(if found.stalled { Exit::No } else { Exit::Done })
}

/// A source that is gone may be why: the target is looked at all the same.
async fn reached(connecting: impl Future<Output = Result<Client>>) -> Option<Client> {
    let failed = match tokio::time::timeout(SOURCE_WITHIN, connecting).await {
        Ok(Ok(client)) => return Some(client),
        Ok(Err(error)) => error,
        Err(_) => Error::new(Exit::Source, "the source does not answer"),
    };
    eprintln!("warning: {}", failed.chain());
    None
}
