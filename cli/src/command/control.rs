//! `pgmig stop`, `pause`, `resume` and `throttle`: the switches of a migration, turned from any machine that
//! reaches the target. Each is the same as the function of its name in SQL.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::args::{StopArgs, SwitchArgs, ThrottleArgs};
use crate::command::{conninfo, run};
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::report::units;
use crate::target::limits::{self, Asked};
use crate::target::sentinel::{self, Stop};
use crate::target::{install, progress};

/// How long a run may take to end after it was asked to: its own ten seconds, and what the network takes.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const ENDS_AT_ONCE_WITHIN: Duration = Duration::from_secs(5);

/// A session with a target that has the schema pgmig.
pub async fn target(uri: &str, purpose: &str) -> Result<Client> {
    let client = connect::client(&conninfo(uri)?, Side::Target, purpose, &[]).await?;
    if install::installed(&client).await?.is_none() {
        return Err(Error::new(Exit::Phase, "there is no migration on the target").hint("start one: pgmig run"));
    }
    Ok(client)
}

pub async fn stop(args: StopArgs) -> Result<Exit> {
    let name = &args.target.name;
    let client = target(&args.target.target, "pgmig stop").await?;
    let now = progress::progress(&client, Some(name)).await?;
    let asked = if args.now { Stop::Now } else { Stop::Border };
    let runner = sentinel::runner(&client, name).await?;
    sentinel::stop(&client, name, asked).await?;
    if let Some(p) = now.first() {
        eprintln!("migration `{name}` is in phase {}", p.phase);
        eprintln!(
            "  tables   {} of {} are copied and stay; a Part in hand {}",
            p.tables_done,
            p.tables_total,
            match asked {
                Stop::Border => "is finished if it can be within some seconds, else copied again",
                Stop::Now => "is copied again",
            }
        );
        if p.follow {
            eprintln!(
                "  changes  what is applied stays; the source keeps its WAL for slot `{}` until pgmig runs again",
                p.slot_name
            );
        }
    }
    let within = if args.now { ENDS_AT_ONCE_WITHIN } else { ENDS_WITHIN };
    if !ended(&client, name, within).await? {
        let Some((pid, from)) = runner else { return Ok(Exit::Done) };
        if !args.now {
            return Err(Error::new(Exit::No, format!("the run of migration `{name}`, on {from}, does not answer"))
                .hint("end its sessions on the target: pgmig stop --now"));
        }
        let count = sentinel::end_sessions(&client, pid).await?;
        eprintln!("the run, on {from}, does not answer: {count} of its sessions on the target were ended");
        if !ended(&client, name, ENDS_AT_ONCE_WITHIN).await? {
            return Err(Error::new(Exit::No, format!("the run of migration `{name}`, on {from}, has come back"))
                .hint(format!("end the process there: kill -9; its session on the target was pid {pid}")));
        }
    }
    eprintln!("stopped\nnext: go on with `pgmig run`, as it was begun; or give it up with `pgmig cleanup --force`");
    Ok(Exit::Done)
}

async fn ended(client: &Client, name: &str, within: Duration) -> Result<bool> {
    let began = Instant::now();
    while sentinel::runner(client, name).await?.is_some() {
        if began.elapsed() > within {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(true)
}

pub async fn switch(args: SwitchArgs, on: bool) -> Result<Exit> {
    let name = &args.target.name;
    let client = target(&args.target.target, if on { "pgmig resume" } else { "pgmig pause" }).await?;
    sentinel::switch_apply(&client, name, on).await?;
    if on {
        eprintln!("apply of migration `{name}` goes on\nnext: see how far it is with `pgmig status`");
    } else {
        eprintln!(
            "apply of migration `{name}` is held back after the Batch in hand; copying and receiving go on, and changes gather in --dir\n\
             next: `pgmig resume`"
        );
    }
    Ok(Exit::Done)
}

pub async fn throttle(args: ThrottleArgs) -> Result<Exit> {
    let name = &args.target.name;
    let client = target(&args.target.target, "pgmig throttle").await?;
    let Asked { max_rate, max_source_connections, tolerance, .. } =
        limits::throttle(&client, name, &run::limits(args.limits)).await?;
    let rate = max_rate.map_or("as fast as it goes".into(), |rate| format!("at most {}/s", units::bytes(rate)));
    let sessions = max_source_connections.map_or("as many as it needs".into(), |most| format!("at most {most}"));
    eprintln!("the copy of migration `{name}` reads {rate}; sessions with the source: {sessions}");
    if let Some(percent) = tolerance.slowdown {
        let probe = tolerance.probe.map_or("pgmig's own probe", |_| "the probe");
        eprintln!("it gives way when {probe} takes more than {percent} % longer than without the copy");
    }
    if let Some(lag) = tolerance.standby_lag {
        eprintln!("it gives way when a standby of the source is more than {} behind", units::duration(lag));
    }
    eprintln!("next: see what that does with `pgmig status --watch`");
    Ok(Exit::Done)
}
