//! `pgmig table`: asks the run that follows the source to add a table or to copy one again, and waits for
//! it. The same as `select pgmig.add_table(…)` and `select pgmig.resync_table(…)` on the target.

use std::time::Duration;

use tokio_postgres::Client;

use crate::args::{TableArgs, TableVerb};
use crate::command::{conninfo, interrupted};
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::target::requests::{self, Verb};
use crate::target::{install, sentinel};

const LOOK_EVERY: Duration = Duration::from_millis(300);

pub async fn table(args: TableArgs) -> Result<Exit> {
    let (verb, table, target, no_wait) = match args.verb {
        TableVerb::Add(args) => (Verb::Add, Some(args.table), args.target, args.no_wait),
        TableVerb::Resync(args) => (Verb::Resync, args.table, args.target, args.no_wait),
    };
    let client = connect::client(&conninfo(&target.target)?, Side::Target, "pgmig table", &[]).await?;
    if install::installed(&client).await?.is_none() {
        return Err(Error::new(Exit::Phase, "there is no migration on the target").hint("start one: pgmig run"));
    }
    let name = &target.name;
    let Some(table) = table else { return every_table(&client, name).await };
    let id = requests::ask(&client, name, verb, &table).await?;
    let asked = format!("{} of {table} is asked for", verb.as_str());
    if sentinel::lock(&client, name).await? {
        eprintln!("{asked}; no run is following\nnext: pgmig run, which does it when it follows");
        return Ok(Exit::Done);
    }
    if no_wait {
        eprintln!("{asked}\nnext: select * from pgmig.request where request_id = {id}");
        return Ok(Exit::Done);
    }
    eprintln!("{asked}; waiting for the run (interrupt at will: the run does it all the same)");
    let wait = async {
        loop {
            match requests::state(&client, id).await? {
                (state, _) if state == "done" => return Ok(None),
                (state, why) if state == "refused" => return Ok(Some(why.unwrap_or_default())),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
            // The lock is that of a run.
            if sentinel::lock(&client, name).await? {
                return Err(
                    Error::new(Exit::Phase, "the run has ended before it was done").hint("run again: it does it then")
                );
            }
        }
    };
    let refused: Option<String> = tokio::select! {
        waited = wait => waited?,
        stopped = interrupted("see it with: select * from pgmig.request") => return Err(stopped),
    };
    match refused {
        Some(why) => Err(Error::new(Exit::Phase, format!("the run did not {} {table}", verb.as_str())).cause(why)),
        None => {
            eprintln!("{table} is copied and followed\nnext: pgmig status");
            Ok(Exit::Done)
        }
    }
}

/// Asks for all of them. Only a run that begins copies them before it applies anything.
async fn every_table(client: &Client, name: &str) -> Result<Exit> {
    if !sentinel::lock(client, name).await? {
        return Err(Error::new(Exit::Phase, "a run is following, which would copy one table after the other")
            .hint("stop it first: pgmig stop"));
    }
    let count = requests::ask_all(client, name).await?;
    eprintln!("{count} tables are to be copied again\nnext: pgmig run, which copies them before it goes on");
    Ok(Exit::Done)
}
