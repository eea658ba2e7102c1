//! `pgmig cleanup`: removes what pgmig made and nothing else. Safe to run again; with --force it goes on
//! where one side cannot be reached, and says what is left there.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::args::CleanupArgs;
use crate::command::conninfo;
use crate::command::run::{default_dir, identity};
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::Phase;
use crate::plan_db;
use crate::source::{self, slot};
use crate::target::install::Flavour;
use crate::target::sentinel::Sentinel;
use crate::target::{history, install, sentinel};

/// How long the session that reads a slot may take to end once it was told to.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// What was removed, and what could not be.
#[derive(Default)]
struct Done {
    removed: Vec<String>,
    left: Vec<String>,
}

pub async fn cleanup(args: CleanupArgs) -> Result<Exit> {
    let name = &args.target.name;
    let (source_at, target_at) = (conninfo(&args.source.source)?, conninfo(&args.target.target)?);
    let dir = args.dir.clone().unwrap_or_else(|| default_dir(&target_at, name));
    let mut done = Done::default();
    let target = connect::client(&target_at, Side::Target, "pgmig cleanup", &[]).await;
    let target =
        reached(target, &args, &mut done, || vec![format!("migration `{name}` and the schema pgmig on the target")])?;
    let (flavour, found) = match &target {
        Some(target) => known(target, &args).await?,
        None => (None, None),
    };
    let slot_name = match (&args.slot_name, &found) {
        (_, Some(found)) => found.slot_name.clone(),
        (Some(slot_name), None) => slot_name.clone(),
        (None, None) => format!("pgmig_{name}"),
    };
    let source = connect::client(&source_at, Side::Source, "pgmig cleanup", &[]).await;
    let by_hand = || {
        let mut left =
            vec![format!("slot `{slot_name}` on the source: select pg_drop_replication_slot('{slot_name}')")];
        left.extend(
            slot::publications(name)
                .map(|it| format!("publication `{it}` on the source: drop publication if exists {it}")),
        );
        left
    };
    let source = reached(source, &args, &mut done, by_hand)?;
    if let Some(source) = &source {
        if let Some(found) = &found
            && source::checks::abilities(source).await?.identity != found.source_identity
        {
            return Err(Error::usage(format!("migration `{name}` on the target is of another source"))
                .hint("give the source it was begun with"));
        }
        if found.is_none() && !args.force && slot::find(source, &slot_name).await?.is_some() {
            return Err(Error::new(
                Exit::Phase,
                format!(
                    "the target knows no migration `{name}`, and slot `{slot_name}` may be in use for another target"
                ),
            )
            .hint("if it is left over: pgmig cleanup --force"));
        }
        if drop_slot(source, &slot_name, args.force).await? {
            done.removed.push(format!("slot `{slot_name}` on the source"));
        }
        match slot::drop_publications(source, name).await? {
            0 => {}
            count => done.removed.push(format!("{count} publications on the source")),
        }
    }
    if let (Some(target), Some(flavour)) = (&target, flavour) {
        if let Some(found) = &found {
            let facts = history::facts(target, name).await?;
            if let Err(err) = plan_db::history::keep(&dir, &identity(&found.source_identity, name), &facts) {
                done.left.push(format!("what `pgmig report` would have told of it later: {}", err.chain()));
            }
            sentinel::remove(target, name).await?;
            done.removed.push(format!("migration `{name}` on the target"));
        }
        let others = sentinel::migrations(target).await?;
        if others.is_empty() {
            install::uninstall(target, flavour).await?;
            done.removed.push("schema pgmig on the target".into());
        } else {
            done.left.push(format!("schema pgmig on the target, which holds migration `{}`", others.join("`, `")));
        }
    }
    if dir.exists() {
        done.left
            .push(format!("plan and spool on this machine, which only `pgmig report` still reads: {}", dir.display()));
    }
    tell(&done);
    Ok(if source.is_none() || target.is_none() { Exit::No } else { Exit::Done })
}

fn tell(done: &Done) {
    if done.removed.is_empty() {
        eprintln!("nothing of pgmig was there");
    }
    for what in &done.removed {
        eprintln!("removed {what}");
    }
    for what in &done.left {
        eprintln!("left: {what}");
    }
}

/// A side that cannot be reached is an error, or with --force something that is left.
fn reached(
    client: Result<Client>,
    args: &CleanupArgs,
    done: &mut Done,
    left: impl FnOnce() -> Vec<String>,
) -> Result<Option<Client>> {
    match client {
        Ok(client) => Ok(Some(client)),
        Err(err) if args.force => {
            eprintln!("warning: {}", err.chain());
            done.left.extend(left());
            Ok(None)
        }
        Err(err) => {
            // The hint is the connection's own.
            let exit = err.exit();
            let what = "nothing was removed; if that server is gone for good, `pgmig cleanup --force` does what it can on the other";
            Err(Error::new(exit, what).cause(err))
        }
    }
}

/// What the target knows of the migration; refused while it is alive, or before its end.
async fn known(target: &Client, args: &CleanupArgs) -> Result<(Option<Flavour>, Option<Sentinel>)> {
    let name = &args.target.name;
    if !sentinel::lock(target, name).await? {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is running")).hint("stop it first: pgmig stop"));
    }
    let Some(flavour) = install::installed(target).await? else { return Ok((None, None)) };
    let found = sentinel::load(target, name).await?;
    if let Some(found) = &found
        && found.phase != Phase::Done
        && !args.force
    {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is not done: it is in phase {}", found.phase))
            .hint("go on with it: pgmig run; or give it up, with all that it has received: pgmig cleanup --force"));
    }
    Ok((Some(flavour), found))
}

/// With `force` a session that still reads the slot is ended: its run is not alive, as far as the target
/// knows.
async fn drop_slot(source: &Client, name: &str, force: bool) -> Result<bool> {
    let began = Instant::now();
    loop {
        match slot::drop(source, name).await {
            // Object in use.
            Err(err) if err.sqlstate() == Some("55006") && began.elapsed() < FREE_WITHIN => {
                let reader = slot::find(source, name).await?.and_then(|slot| slot.active_pid);
                if let Some(pid) = reader.filter(|_| force) {
                    slot::end_reader(source, name, pid).await?;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            dropped => return dropped,
        }
    }
}
