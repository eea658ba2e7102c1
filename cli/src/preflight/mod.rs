//! What must be true before anything is changed. A check reads, or tries something and undoes it; what
//! it finds is a PASS, a WARN or a FAIL with the statement that mends it. `preflight` shows all of it,
//! `run` refuses on the FAILs, all told at once.

mod checks;
mod extensions;
mod here;
mod owners;
mod plugin;
mod pooler;
mod source_side;
mod stream;
mod target_side;

use std::path::PathBuf;

use tokio_postgres::Client;

use crate::config::Conninfo;
use crate::config::filters::Filters;
use crate::config::requirements::Requirements;
use crate::connect::Side;
use crate::error::{Error, Exit, Result};
use crate::model::{Leave, Lsn, Phase, Place};
use crate::selection::{Selected, select};
use crate::server;
use crate::source::catalog::{Sizes, Table};
use crate::target::install::Flavour;
use crate::{source, target};

pub use checks::Checks;

/// What the run is asked to do, as far as checks depend on it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub follow: bool,
    pub slot_name: String,
    /// None takes what the source allows.
    pub plugin: Option<&'static str>,
    pub flavour: Option<Flavour>,
    pub allow_insert_only: bool,
    pub filters: Option<Filters>,
    pub endpos: Option<Lsn>,
    pub leave: Leave,
    pub requirements: Option<Requirements>,
    pub drop_if_exists: bool,
    /// Whether roles are made, and with their passwords.
    pub roles: Option<bool>,
    pub large_objects: bool,
    /// Sessions that the run opens on each side, about.
    pub sessions: i64,
    /// What is tried, and not only read: None where nothing may be.
    pub tries: Option<Tries>,
    /// Of a migration that was begun, with which a run goes on; None before.
    pub begun: Option<Begun>,
}

#[derive(Debug, Clone, Copy)]
pub struct Begun {
    pub phase: Phase,
    /// Whether its slot was made.
    pub has_slot: bool,
}

/// What trying needs.
#[derive(Debug, Clone)]
pub struct Tries {
    pub source: Conninfo,
    pub dir: PathBuf,
}

/// What the checks learnt on the way.
#[derive(Debug, Clone)]
pub struct Facts {
    pub source_version: i32,
    pub target_version: i32,
    pub source_encoding: String,
    /// System identifier and database oid.
    pub source_identity: String,
    pub tables: Vec<Table>,
    /// What the stream comes by: `wal2json`, `pgoutput`, or `none`.
    pub plugin: &'static str,
}

/// Refuses to migrate a database into itself, whatever names and addresses it was given by.
pub async fn two_databases(source: &Client, target: &Client) -> Result<()> {
    if server::one_database((source, Side::Source), (target, Side::Target)).await? {
        return Err(Error::usage("source and target are the same database").hint("give two databases"));
    }
    Ok(())
}

/// Whether both servers are spoken to themselves; asked before anything else, since nothing else can be relied
/// on through a pooler.
pub async fn poolers(source: &Conninfo, target: &Conninfo, checks: &mut Checks) {
    pooler::check(source, target, checks).await;
}

/// Refuses to run where sessions do not last.
///
/// # Errors
/// Exit 3 or 4, for a pooler that lends them for a transaction.
pub async fn lasting_sessions(source: &Conninfo, target: &Conninfo) -> Result<Vec<String>> {
    let mut checks = Checks::default();
    poolers(source, target, &mut checks).await;
    together(checks.wrong)?;
    Ok(checks.warnings)
}

/// Everything a new migration needs. All that is wrong is told at once.
pub async fn new_migration(source: &Client, target: &Client, asked: &Asked) -> Result<(Facts, Checks)> {
    let mut checks = Checks::default();
    let facts = check(source, target, asked, &mut checks).await?;
    // A session that was lost while something was tried says nothing about what was tried.
    if let Some(lost) = checks.wrong.iter().position(Error::connection_lost) {
        return Err(checks.wrong.swap_remove(lost));
    }
    together(std::mem::take(&mut checks.wrong))?;
    Ok((facts, checks))
}

/// Everything that can be known of a new migration. Only what is selected counts.
pub async fn check(source: &Client, target: &Client, asked: &Asked, checks: &mut Checks) -> Result<Facts> {
    let on_source = source::checks::abilities(source).await?;
    let on_target = target::checks::abilities(target).await?;
    let from = server::server(source, Side::Source).await?;
    let into = server::server(target, Side::Target).await?;
    let selected = select(source, asked.filters.as_ref(), asked.follow, Sizes::Estimates).await?;
    let scope = Scope {
        source,
        target,
        asked,
        on_source: &on_source,
        on_target: &on_target,
        from: &from,
        into: &into,
        selected: &selected,
    };

    scope.servers(checks);
    scope.readable(checks);
    let plugin = if asked.follow { scope.stream(checks).await? } else { "none" };
    scope.target(checks).await?;
    owners::check(&scope, checks).await?;
    extensions::check(&scope, checks).await?;
    scope.not_empty(checks).await?;
    here::check(&scope, checks).await?;
    Ok(Facts {
        source_version: on_source.version,
        target_version: on_target.version,
        source_encoding: on_source.encoding.clone(),
        source_identity: on_source.identity.clone(),
        tables: selected.tables,
        plugin,
    })
}

/// What of one side can be said while the other one cannot be reached.
pub async fn check_alone(client: &Client, side: Side, checks: &mut Checks) -> Result<()> {
    let server = server::server(client, side).await?;
    let place = match side {
        Side::Source => Place::Source,
        Side::Target => Place::Target,
    };
    checks.pass(place, "connection", introduced(&server));
    Ok(())
}

/// All that checks look at.
pub(crate) struct Scope<'a> {
    source: &'a Client,
    target: &'a Client,
    asked: &'a Asked,
    on_source: &'a source::checks::Abilities,
    on_target: &'a target::checks::Abilities,
    from: &'a server::Server,
    into: &'a server::Server,
    selected: &'a Selected,
}

fn introduced(server: &server::Server) -> String {
    format!(
        "PostgreSQL {}, {}, database {} as role {}{}",
        server.version_text,
        server.service,
        server.database,
        server.user,
        if server.superuser { ", a superuser" } else { "" }
    )
}

/// One error as it is; several under one heading, with the exit code of the first.
fn together(mut wrong: Vec<Error>) -> Result<()> {
    match wrong.len() {
        0 => Ok(()),
        1 => Err(wrong.remove(0)),
        count => {
            let list: Vec<String> = wrong
                .iter()
                .map(|error| match error.hint_text() {
                    Some(hint) => format!("- {}\n  {}", error.chain(), hint.replace('\n', "\n  ")),
                    None => format!("- {}", error.chain()),
                })
                .collect();
            Err(Error::new(wrong[0].exit(), format!("{count} things stand in the way; nothing has been changed"))
                .hint(list.join("\n")))
        }
    }
}

/// The text encodings as a failure, if the target cannot hold what the source has.
///
/// Text is converted into UTF-8 and from UTF-8 into what the target has; a database in SQL_ASCII, which
/// knows no characters, is passed on byte by byte.
fn encodings(source: &str, target: &str) -> Option<Error> {
    // What the server itself cannot convert.
    if source == "MULE_INTERNAL" {
        return Some(
            Error::new(Exit::Source, "a source in MULE_INTERNAL cannot be converted into UTF-8")
                .hint("restore a dump of it into a database in another encoding first"),
        );
    }
    if target == "UTF8" || target == source {
        return None;
    }
    let same = match source {
        "SQL_ASCII" => "SQL_ASCII, or UTF8 if all text of the source is UTF-8".to_string(),
        "UTF8" => "UTF8".to_string(),
        other => format!("UTF8 or {other}"),
    };
    Some(
        Error::new(
            Exit::Target,
            format!("the target is in {target}, which does not hold all text of a source in {source}"),
        )
        .hint(format!("make the target database in {same}: create database … template template0 encoding …")),
    )
}

#[cfg(test)]
mod tests {
    use super::encodings;

    #[test]
    fn a_target_is_in_utf8_or_in_the_encoding_of_the_source() {
        for (source, target) in [
            ("UTF8", "UTF8"),
            ("LATIN1", "UTF8"),
            ("LATIN1", "LATIN1"),
            ("SQL_ASCII", "UTF8"),
            ("SQL_ASCII", "SQL_ASCII"),
        ] {
            assert!(encodings(source, target).is_none(), "{source} to {target}");
        }
        for (source, target) in
            [("UTF8", "LATIN1"), ("LATIN1", "SQL_ASCII"), ("SQL_ASCII", "LATIN9"), ("MULE_INTERNAL", "UTF8")]
        {
            let refused = encodings(source, target).unwrap_or_else(|| panic!("{source} to {target}"));
            assert!(refused.chain().contains(source) && refused.hint_text().is_some(), "{refused:?}");
        }
    }
}
