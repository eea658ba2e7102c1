//! `pgmig status`: reads the target only, and blocks nothing.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::args::StatusArgs;
use crate::command::conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::report::{json, status};
use crate::target::{install, progress};

pub async fn status(args: StatusArgs) -> Result<Exit> {
    let client = connect::client(&conninfo(&args.target)?, Side::Target, "pgmig status", &[]).await?;
    loop {
        if install::installed(&client).await?.is_none() {
            return Err(Error::new(Exit::Phase, "there is no migration on the target").hint("start one: pgmig run"));
        }
        let migrations = progress::progress(&client, args.name.as_deref()).await?;
        if migrations.is_empty() {
            let what = args.name.as_ref().map_or("no migration".into(), |name| format!("no migration `{name}`"));
            return Err(Error::new(Exit::Phase, format!("there is {what} on the target"))
                .hint("see them all: pgmig status; start one: pgmig run"));
        }
        let text = if args.json {
            let object = serde_json::json!({ "format": json::FORMAT, "migrations": migrations });
            format!("{object}\n")
        } else {
            migrations.iter().map(status::table).collect::<Vec<_>>().join("\n")
        };
        let mut out = std::io::stdout();
        // On a terminal --watch draws over what it drew before.
        let home = if args.watch && out.is_terminal() { "\x1b[H\x1b[J" } else { "" };
        // A reader that went away is no error.
        if write!(out, "{home}{text}").and_then(|()| out.flush()).is_err() || !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
