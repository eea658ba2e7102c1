//! `pgmig cleanup`: removes what pgmig made and nothing else. Safe to run again; with --force it goes on
//! where one side cannot be reached, and says what is left there.

use tokio_postgres::Client;

use crate::args::CleanupArgs;
use crate::command::conninfo;
use crate::command::run::{default_dir, identity, slot_back};
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::Phase;
use crate::plan_db;
use crate::source::{self, slot};
use crate::target::install::Flavour;
use crate::target::sentinel::Sentinel;
use crate::target::{history, install, sentinel, way_back};

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
        if let Some(client) = source_state(source, name).await?.map(|_| source)
            && !sentinel::lock(client, name).await?
        {
            return Err(Error::new(Exit::Phase, format!("the way back of migration `{name}` is running"))
                .hint("stop it first: pgmig stop, given the source as target; or Ctrl-C where pgmig run is"));
        }
        if slot::drop_when_free(source, &slot_name, args.force).await? {
            done.removed.push(format!("slot `{slot_name}` on the source"));
        }
        if source::ddl::release(source, name).await? {
            done.removed.push("event triggers on the source".into());
        }
        match slot::drop_publications(source, name).await? {
            0 => {}
            count => done.removed.push(format!("{count} publications on the source")),
        }
    }
    way_back_gone(&mut done, &args, source.as_ref(), target.as_ref()).await?;
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
        if others.is_empty() && install::removable(target).await? {
            install::uninstall(target, flavour).await?;
            done.removed.push("schema pgmig on the target".into());
        } else if others.is_empty() {
            let statement = flavour.removal();
            done.left.push(format!("schema pgmig on the target, which another role owns; as that role: {statement}"));
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

/// The flavour of the schema `pgmig` on the old source, if the state of a way back is in it.
async fn source_state(source: &Client, name: &str) -> Result<Option<(Flavour, Sentinel)>> {
    let Some(flavour) = install::installed(source).await? else { return Ok(None) };
    let found = sentinel::load(source, name).await?.filter(|found| found.is_way_back);
    Ok(found.map(|found| (flavour, found)))
}

/// Removes the way back: its slot and publications on the target, and its state on the old source, which gets
/// back what was quiet for it.
async fn way_back_gone(
    done: &mut Done,
    args: &CleanupArgs,
    source: Option<&Client>,
    target: Option<&Client>,
) -> Result<()> {
    let (name, slot_name) = (&args.target.name, slot_back(&args.target.name));
    let state = match source {
        Some(source) => source_state(source, name).await?,
        None => None,
    };
    if let Some(target) = target
        && (state.is_some() || slot::find(target, &slot_name).await?.is_some())
    {
        if slot::drop_when_free(target, &slot_name, true).await? {
            done.removed.push(format!("slot `{slot_name}` of the way back on the target"));
        }
        source::ddl::release(target, name).await?;
        match slot::drop_publications(target, name).await? {
            0 => {}
            count => done.removed.push(format!("{count} publications of the way back on the target")),
        }
    } else if target.is_none() && state.is_some() {
        done.left.push(format!("slot `{slot_name}` on the target: select pg_drop_replication_slot('{slot_name}')"));
    }
    let (Some(source), Some((flavour, found))) = (source, state) else { return Ok(()) };
    if found.phase != Phase::Done && way_back::restore(source, name).await? > 0 {
        done.removed.push("the quiet of triggers and rules on the source".into());
    }
    sentinel::remove(source, name).await?;
    if sentinel::migrations(source).await?.is_empty() {
        install::uninstall(source, flavour).await?;
    }
    done.removed.push("state of the way back on the source".into());
    Ok(())
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
    let flavour = install::installed(target).await?;
    let found = match flavour {
        Some(_) => sentinel::load(target, name).await?,
        None => None,
    };
    if found.as_ref().is_some_and(|found| found.is_way_back) {
        return Err(Error::usage(format!("this is the way back of migration `{name}`"))
            .hint("give source and target as they were when it was begun"));
    }
    if !sentinel::lock(target, name).await? {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is running")).hint("stop it first: pgmig stop"));
    }
    let Some(flavour) = flavour else { return Ok((None, None)) };
    if let Some(found) = &found
        && found.phase != Phase::Done
        && !args.force
    {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is not done: it is in phase {}", found.phase))
            .hint("go on with it: pgmig run; or give it up, with all that it has received: pgmig cleanup --force"));
    }
    Ok((Some(flavour), found))
}
