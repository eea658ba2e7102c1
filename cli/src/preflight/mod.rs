//! What must be true before anything is changed. Every check only reads; what it finds is an error
//! with the statement that mends it. The full list of checks is a command of its own, later; these
//! are those without which a run fails half-way or loses something.

mod extensions;

use std::collections::HashSet;

use tokio_postgres::Client;

use crate::config::filters::Filters;
use crate::config::requirements::Requirements;
use crate::error::{Error, Exit, Result};
use crate::model::name::identifiers;
use crate::model::{Leave, Lsn, TableName};
use crate::selection::{Selected, select};
use crate::source::catalog::Sizes;
use crate::source::catalog::Table;
use crate::target::install::Flavour;
use crate::{source, target};

/// What the run is asked to do, as far as checks depend on it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub follow: bool,
    pub slot_name: String,
    pub wal2json: bool,
    pub flavour: Option<Flavour>,
    pub allow_insert_only: bool,
    pub filters: Option<Filters>,
    pub endpos: Option<Lsn>,
    pub leave: Leave,
    pub requirements: Option<Requirements>,
    pub drop_if_exists: bool,
    /// Whether passwords of roles are to be read.
    pub role_passwords: bool,
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
    /// What does not stand in the way and should be known.
    pub warnings: Vec<String>,
}

/// Refuses to migrate a database into itself, whatever names and addresses it was given by.
pub async fn two_databases(source: &Client, target: &Client) -> Result<()> {
    let key = fastrand::i64(1..i64::MAX);
    source::checks::take_lock(source, key).await?;
    let same = target::checks::sees_lock(target, key).await;
    source::checks::release_lock(source, key).await?;
    if same? {
        return Err(Error::usage("source and target are the same database").hint("give two databases"));
    }
    Ok(())
}

/// Everything a new migration needs. All that is wrong is told at once.
pub async fn new_migration(source: &Client, target: &Client, asked: &Asked) -> Result<Facts> {
    let (facts, wrong) = check(source, target, asked).await?;
    together(wrong)?;
    Ok(facts)
}

/// All that stands in the way of a new migration. Only what is selected counts.
pub async fn check(source: &Client, target: &Client, asked: &Asked) -> Result<(Facts, Vec<Error>)> {
    let mut on_source = source::checks::abilities(source).await?;
    let on_target = target::checks::abilities(target).await?;
    let Selected { selection, tables, .. } =
        select(source, asked.filters.as_ref(), asked.follow, Sizes::Estimates).await?;
    let moved: HashSet<&TableName> = selection.tables.iter().chain(&selection.sequences).collect();
    on_source.unreadable.retain(|name| moved.contains(name));
    on_source.hidden.retain(|name| moved.contains(name));
    on_source.closed.retain(|schema| moved.iter().any(|name| name.schema == *schema));
    let mut wrong: Vec<Error> = Vec::new();
    let user = &on_source.user;
    if on_source.version < 130_000 {
        wrong.push(Error::new(
            Exit::Source,
            format!("the source is PostgreSQL {}: 13 is the oldest that is supported", on_source.version / 10_000),
        ));
    }
    if on_target.version < 150_000 {
        wrong.push(Error::new(
            Exit::Target,
            format!("the target is PostgreSQL {}: 15 is the oldest that is supported", on_target.version / 10_000),
        ));
    }
    if on_source.version / 10_000 > on_target.version / 10_000 {
        wrong.push(Error::new(
            Exit::Target,
            format!(
                "the target is PostgreSQL {}, older than the source's {}",
                on_target.version / 10_000,
                on_source.version / 10_000
            ),
        ));
    }
    if on_target.in_recovery {
        wrong.push(Error::new(Exit::Target, "the target is a standby: it cannot be written").hint("give the primary"));
    }
    if on_source.in_recovery {
        wrong.push(
            Error::new(Exit::Source, "the source is a standby, which this version does not read from")
                .hint("give the primary"),
        );
    }
    // A source in SQL_ASCII may hold anything. What is not UTF-8 there is refused by the server that
    // sends it, in the copy and in the stream.
    if on_target.encoding != "UTF8" {
        wrong.push(
            Error::new(Exit::Target, format!("the target database is in {}", on_target.encoding))
                .hint("make it with encoding UTF8, which holds what any other can"),
        );
    }
    if !on_source.closed.is_empty() {
        wrong.push(
            Error::new(Exit::Source, format!("the role {user} may not use the schema {}", some(&on_source.closed)))
                .hint(format!("grant usage on schema {} to {user}", identifiers(&on_source.closed))),
        );
    }
    if !on_source.unreadable.is_empty() {
        wrong.push(
            Error::new(Exit::Source, format!("the role {user} may not read {}", some(&on_source.unreadable)))
                .hint(format!("grant select on {} to {user}", list(&on_source.unreadable, usize::MAX))),
        );
    }
    if !on_source.hidden.is_empty() {
        wrong.push(
            Error::new(
                Exit::Source,
                format!("row security hides rows of {} from the role {user}", some(&on_source.hidden)),
            )
            .hint(format!("alter role {user} bypassrls")),
        );
    }
    if asked.follow {
        check_stream(source, &on_source, &tables, asked, &mut wrong).await?;
    }
    if !on_target.may_create {
        wrong.push(
            Error::new(Exit::Target, format!("the role {} may not create schemas on the target", on_target.user))
                .hint(format!("grant create on the database to {}", on_target.user)),
        );
    }
    if asked.follow && !on_target.may_replica {
        wrong.push(
            Error::new(
                Exit::Target,
                format!("the role {} may not set session_replication_role on the target", on_target.user),
            )
            .hint(format!("grant set on parameter session_replication_role to {}", on_target.user)),
        );
    }
    if asked.flavour == Some(Flavour::Extension) && !target::install::offered(target).await? {
        wrong.push(target::install::not_offered());
    }
    let names: Vec<TableName> = selection.tables.iter().chain(&selection.without_rows).cloned().collect();
    let there = target::checks::existing(target, &names).await?;
    if !there.is_empty() && !asked.drop_if_exists {
        wrong.push(
            Error::new(Exit::Target, format!("the target already holds {}", some(&there)))
                .hint("give an empty database; pgmig never overwrites a table it did not make, unless told to with --drop-if-exists"),
        );
    }
    if names.is_empty() && asked.filters.is_some() {
        wrong.push(Error::usage("the filters leave no table").hint("see what they match: pgmig plan"));
    } else if names.is_empty() {
        wrong.push(Error::new(Exit::Source, "the source holds no tables").hint("is it the right database?"));
    }
    let mut warnings = extensions::check(source, target, asked, &selection, &mut wrong).await?;
    if !there.is_empty() && asked.drop_if_exists {
        warnings.push(format!("dropped on the target first, with their rows: {}", some(&there)));
    }
    let defaults = target::checks::default_privileges(target).await?;
    if !defaults.is_empty() && !asked.drop_if_exists {
        warnings.push(format!(
            "the target gives the role {} default privileges on {}: what it makes will have them too",
            on_target.user,
            defaults.join(", ")
        ));
    }
    if asked.role_passwords && !source::roles::passwords_readable(source).await? {
        wrong.push(
            Error::new(Exit::Source, format!("the role {user} may not read the passwords of roles"))
                .hint("give a superuser, or --no-role-passwords"),
        );
    }
    let facts = Facts {
        warnings,
        source_version: on_source.version,
        target_version: on_target.version,
        source_encoding: on_source.encoding,
        source_identity: on_source.identity,
        tables,
    };
    Ok((facts, wrong))
}

async fn check_stream(
    source: &Client,
    can: &source::checks::Abilities,
    tables: &[Table],
    asked: &Asked,
    wrong: &mut Vec<Error>,
) -> Result<()> {
    let user = &can.user;
    if can.wal_level != "logical" {
        wrong.push(
            Error::new(Exit::Source, format!("wal_level of the source is {}: logical decoding is off", can.wal_level))
                .hint("alter system set wal_level = logical; then restart the source (managed services: rds.logical_replication = 1, cloudsql.logical_decoding = on)"),
        );
    }
    if !can.may_replicate {
        wrong.push(
            Error::new(Exit::Source, format!("the role {user} may not replicate"))
                .hint(format!("alter role {user} replication; on RDS: grant rds_replication to {user}")),
        );
    }
    if can.slots_free <= 0 {
        wrong.push(
            Error::new(Exit::Source, "every replication slot of the source is in use")
                .hint("drop one that is not needed, or raise max_replication_slots and restart"),
        );
    }
    if can.senders_free <= 0 {
        wrong.push(
            Error::new(Exit::Source, "every WAL sender of the source is in use")
                .hint("raise max_wal_senders and restart"),
        );
    }
    if asked.wal2json && can.plugins.as_ref().is_some_and(|list| !list.split(',').any(|name| name.trim() == "wal2json"))
    {
        let list = can.plugins.as_deref().unwrap_or_default();
        wrong.push(
            Error::new(Exit::Source, "the source does not allow the output plugin wal2json").hint(format!(
                "on the source, as superuser (no quotes round the whole list), then reload; or use --plugin pgoutput:\nalter system set output_plugin_libraries = {list}, wal2json;\nselect pg_reload_conf();"
            )),
        );
    }
    if let Some(endpos) = asked.endpos
        && endpos < source::slot::current_lsn(source).await?
    {
        wrong.push(
            Error::usage(format!(
                "endpos {endpos} lies behind the source's position: the copy would hold what came after it"
            ))
            .hint("give a position that is still to come, or set it later: pgmig set-endpos"),
        );
    }
    if let Some(slot) = source::slot::find(source, &asked.slot_name).await? {
        let active = if slot.active_pid.is_some() { ", in use" } else { "" };
        wrong.push(
            Error::new(Exit::Source, format!("slot `{}` is there already ({}{active})", asked.slot_name, slot.plugin))
                .hint(format!(
                    "give another --slot-name, or, if nobody needs it, on the source:\nselect pg_drop_replication_slot('{}');",
                    asked.slot_name
                )),
        );
    }
    let lost: Vec<TableName> = tables.iter().filter(|t| t.logged && !t.identified).map(|t| t.name.clone()).collect();
    if !asked.allow_insert_only && !lost.is_empty() {
        let statements: Vec<String> = tables
            .iter()
            .filter(|table| table.logged && !table.identified)
            .map(|table| format!("alter table {} replica identity full;", table.name))
            .collect();
        wrong.push(
            Error::new(Exit::Source, format!("no key says which row an UPDATE or DELETE means in {}", some(&lost))).hint(
                format!(
                    "on the source (a primary key is better); or, if they only ever get inserts, --allow-insert-only:\n{}",
                    statements.join("\n")
                ),
            ),
        );
    }
    Ok(())
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

/// The first few of a list, and how many more there are.
fn some<N: ToString>(names: &[N]) -> String {
    const SHOWN: usize = 5;
    let shown = list(names, SHOWN);
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

fn list<N: ToString>(names: &[N], shown: usize) -> String {
    names.iter().take(shown).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
