//! `pgmig reset-target`: drops from the target what a migration has made there, so that it can begin again.
//! Shows what that is, and asks. Never speaks to a source.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use crate::args::ResetTargetArgs;
use crate::command::{conninfo, control};
use crate::error::{Error, Exit, Result};
use crate::model::Phase;
use crate::report::units;
use crate::target::{install, reset, sentinel};

/// How many names are shown before it asks.
const SHOWN: usize = 15;

pub async fn reset_target(args: ResetTargetArgs) -> Result<Exit> {
    let name = &args.target.name;
    let database = conninfo(&args.target.target)?.dbname;
    let client = control::target(&args.target.target, "pgmig reset-target").await?;
    let Some(found) = sentinel::load(&client, name).await? else {
        return Err(Error::new(Exit::Phase, format!("there is no migration `{name}` on the target"))
            .hint("see them all: pgmig status"));
    };
    if found.is_way_back {
        return Err(Error::new(Exit::Phase, format!("this is the way back of migration `{name}`, into its source"))
            .hint("its tables were there before: pgmig cleanup, with source and target as they were, removes the way back"));
    }
    if !sentinel::lock(&client, name).await? {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is running")).hint("stop it first: pgmig stop"));
    }
    if found.phase == Phase::Done && !args.force {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is done: an application may use the target"))
            .hint("if nobody needs it any more: pgmig reset-target --force"));
    }
    let made = reset::made(&client, name).await?;
    preview(&made, &reset::kept(&client, name).await?, &database);
    if !args.yes {
        confirm(&database)?;
    }
    let dropped = reset::drop(&client, made, &mut |made| {
        tracing::debug!(kind = made.kind, name = made.name, "dropped");
    })
    .await?;
    eprintln!("dropped {} objects", units::count(dropped.count as u64));
    if !dropped.left.is_empty() {
        for (made, why) in &dropped.left {
            eprintln!("left: {} {}: {why}", made.kind.to_lowercase(), made.name);
        }
        // A schema that holds what others put into it does not stand in the way of a new beginning.
        if dropped.left.iter().any(|(made, _)| made.kind != "SCHEMA") {
            return Err(Error::new(Exit::No, "the target is not empty of the migration")
                .hint("drop what uses these, then run the same command again"));
        }
    }
    sentinel::remove(&client, name).await?;
    if sentinel::migrations(&client).await?.is_empty()
        && let Some(flavour) = install::installed(&client).await?
    {
        install::uninstall(&client, flavour).await?;
    }
    eprintln!(
        "the target is empty of migration `{name}`\nnext: `pgmig cleanup --force` removes its slot `{}` from the source; then `pgmig run` begins again",
        found.slot_name
    );
    Ok(Exit::Done)
}

/// Counts and names of what goes, and what stays.
fn preview(made: &[reset::Made], kept: &[(String, i64)], database: &str) {
    eprintln!("this drops from database `{database}`, with all rows in them:");
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for made in made {
        kinds.entry(&made.kind).or_default().push(&made.name);
    }
    for (kind, names) in &kinds {
        eprintln!("  {} of kind {}", units::count(names.len() as u64), kind.to_lowercase());
        for name in names.iter().take(SHOWN) {
            eprintln!("    {name}");
        }
        if names.len() > SHOWN {
            eprintln!("    and {} more", names.len() - SHOWN);
        }
    }
    if made.is_empty() {
        eprintln!("  nothing: none of it is there");
    }
    for (kind, count) in kept {
        eprintln!("stays: {count} of kind {kind}, which others may use");
    }
}

fn confirm(database: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage("nobody is there to ask whether to drop that").hint("say so with --yes"));
    }
    eprint!("type the name of the database to drop it: ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    let read = std::io::stdin().read_line(&mut typed);
    if read.is_err() || typed.trim() != database {
        return Err(Error::new(Exit::No, "nothing was dropped"));
    }
    Ok(())
}
