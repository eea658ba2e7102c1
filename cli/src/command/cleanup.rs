//! `pgmig cleanup`: removes what pgmig made and nothing else. Safe to run again.

use crate::args::CleanupArgs;
use crate::command::conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::Phase;
use crate::source::{self, slot};
use crate::target::{install, sentinel};

pub async fn cleanup(args: CleanupArgs) -> Result<Exit> {
    let name = &args.target.name;
    let target = connect::client(&conninfo(&args.target.target)?, Side::Target, "pgmig cleanup", &[]).await?;
    let source = connect::client(&conninfo(&args.source.source)?, Side::Source, "pgmig cleanup", &[]).await?;
    if !sentinel::lock(&target, name).await? {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is running")).hint("stop it first"));
    }
    let flavour = install::installed(&target).await?;
    let found = match flavour {
        Some(_) => sentinel::load(&target, name).await?,
        None => None,
    };
    if let Some(found) = &found
        && found.phase != Phase::Done
        && !args.force
    {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` is not done: it is in phase {}", found.phase))
            .hint("go on with it: pgmig run; or give it up, with all that it has received: pgmig cleanup --force"));
    }
    if let Some(found) = &found
        && source::checks::abilities(&source).await?.identity != found.source_identity
    {
        return Err(Error::usage(format!("migration `{name}` on the target is of another source"))
            .hint("give the source it was begun with"));
    }
    let slot_name = found.as_ref().map_or_else(|| format!("pgmig_{name}"), |found| found.slot_name.clone());
    if found.is_none() && !args.force && slot::find(&source, &slot_name).await?.is_some() {
        return Err(Error::new(
            Exit::Phase,
            format!("the target knows no migration `{name}`, and slot `{slot_name}` may be in use for another target"),
        )
        .hint("if it is left over: pgmig cleanup --force"));
    }
    let mut removed = Vec::new();
    if slot::drop(&source, &slot_name).await? {
        removed.push(format!("slot `{slot_name}` on the source"));
    }
    match slot::drop_publications(&source, name).await? {
        0 => {}
        count => removed.push(format!("{count} publications on the source")),
    }
    if let Some(flavour) = flavour {
        if found.is_some() {
            sentinel::remove(&target, name).await?;
            removed.push(format!("migration `{name}` on the target"));
        }
        if sentinel::migrations(&target).await?.is_empty() {
            install::uninstall(&target, flavour).await?;
            removed.push("schema pgmig on the target".into());
        }
    }
    if removed.is_empty() {
        eprintln!("nothing of pgmig was there");
    }
    for what in removed {
        eprintln!("removed {what}");
    }
    Ok(Exit::Done)
}
