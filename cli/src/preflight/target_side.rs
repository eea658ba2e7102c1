//! Whether the target takes what the migration makes there.

use std::collections::BTreeSet;

use super::Scope;
use super::checks::{Checks, some};
use super::kept;
use crate::error::{Error, Exit, Result};
use crate::model::mend::OWNER;
use crate::model::name::{identifier, identifiers};
use crate::model::{Place, Step, TableName};
use crate::report::units;
use crate::target::install::{self, Flavour};
use crate::{source, target};

impl Scope<'_> {
    pub(super) async fn target(&self, checks: &mut Checks) -> Result<()> {
        let (can, asked) = (self.on_target, self.asked);
        let (role, user) = (identifier(&can.user), &can.user);
        if !can.may_create {
            let message = format!("the role {user} may not create schemas on the target");
            let mend = format!("grant create on database {} to {role};", identifier(&self.into.database));
            checks.fail(Place::Target, "create", message, Step::sql(Place::Target, OWNER, mend));
        } else if asked.tries.is_some() {
            let objects = target::checks_tried::objects(self.target).await?;
            let settings = target::checks_tried::settings(self.target).await?;
            for (check, tried) in [("create", objects), ("settings", settings)] {
                let Some(refused) = tried.refused else {
                    checks.pass(Place::Target, check, format!("tried and undone: {}", tried.what));
                    continue;
                };
                let error = Error::new(Exit::Target, format!("the role {user} cannot make or set {}", tried.what));
                let hint = "grant it what the server's answer names, or use another role";
                checks.refuse(Place::Target, check, error.cause(refused).hint(hint));
            }
        }
        let selection = &self.selected.selection;
        let schemas: BTreeSet<&String> = selection.tables.iter().map(|table| &table.schema).collect();
        let schemas: Vec<String> = schemas.into_iter().cloned().collect();
        let closed = target::checks::closed_schemas(self.target, &schemas).await?;
        if !closed.is_empty() {
            let message = format!("the role {user} may not create in the schema {} of the target", some(&closed));
            let mend = format!("grant create on schema {} to {role};", identifiers(&closed));
            checks.fail(Place::Target, "create", message, Step::sql(Place::Target, OWNER, mend));
        }
        if asked.follow && !can.may_replica {
            let message = format!("the role {user} may not set session_replication_role on the target");
            let mend = self.into.service.session_replication_role(Place::Target, user);
            checks.fail(Place::Target, "replica role", message, mend);
        } else if asked.follow {
            checks.pass(Place::Target, "replica role", "session_replication_role can be set: tried and undone");
        }
        self.flavour(checks).await
    }

    async fn flavour(&self, checks: &mut Checks) -> Result<()> {
        let opened = || install::opened(&self.on_target.user);
        match install::installed(self.target).await {
            Ok(Some(flavour)) => {
                match install::usable(self.target).await {
                    Ok(()) => checks.pass(Place::Target, "schema pgmig", format!("is there: the {flavour} flavour")),
                    Err(error) => checks.refuse_mended(Place::Target, "schema pgmig", error, opened()),
                }
                return Ok(());
            }
            Ok(None) => {}
            Err(error) if error.sqlstate() == Some("42501") => {
                checks.refuse_mended(Place::Target, "schema pgmig", error, opened());
                return Ok(());
            }
            Err(error) => {
                checks.refuse(Place::Target, "schema pgmig", error);
                return Ok(());
            }
        }
        let offered = install::offered(self.target).await?;
        match (self.asked.flavour, offered) {
            (Some(Flavour::Extension), false) => checks.refuse(Place::Target, "flavour", install::not_offered()),
            (None | Some(Flavour::Extension), true) if self.asked.tries.is_some() && self.on_target.may_create => {
                self.extension(checks).await?;
            }
            (None | Some(Flavour::Extension), true) if self.into.superuser => {
                checks.pass(Place::Target, "flavour", "extension pgmig_sentinel");
            }
            _ => checks.pass(Place::Target, "flavour", "plain SQL"),
        }
        Ok(())
    }

    /// Without the right to make it the plain flavour does the same, unless it was asked for by name.
    async fn extension(&self, checks: &mut Checks) -> Result<()> {
        let tried = target::checks_tried::extension(self.target).await?;
        match tried.refused {
            None => checks.pass(Place::Target, "flavour", format!("tried and undone: {}", tried.what)),
            Some(error) if error.sqlstate() == Some("42501") && self.asked.flavour.is_none() => {
                checks.pass(Place::Target, "flavour", "plain SQL: the role may not make the extension pgmig_sentinel");
            }
            Some(error) if error.sqlstate() == Some("42501") => {
                let error = Error::new(Exit::Target, "cannot create the extension pgmig_sentinel").cause(error);
                checks.refuse_mended(Place::Target, "flavour", error, install::made_for(&self.on_target.user));
            }
            Some(error) => {
                checks.refuse(Place::Target, "flavour", error.hint("make install-extension, or use --flavour plain"))
            }
        }
        Ok(())
    }

    /// Whether what is to be made is there, and whether there is anything to make.
    pub(super) async fn not_empty(&self, checks: &mut Checks) -> Result<()> {
        let (asked, selection) = (self.asked, &self.selected.selection);
        let names: Vec<TableName> = selection.tables.iter().chain(&selection.without_rows).cloned().collect();
        // Those that have no rows of their own are made too.
        let parents = source::catalog::parents(self.source).await?.into_iter().map(|(_, name)| name);
        let parents = parents.filter(|name| !selection.ignored.contains(name) && !names.contains(name));
        let names: Vec<TableName> = names.iter().cloned().chain(parents).collect();
        let mut there = target::checks::existing(self.target, &names).await?;
        if asked.keep_tables && asked.begun.is_none() {
            let kept = kept::check(self, checks, &there).await?;
            there.retain(|table| !kept.contains(table));
        }
        if let Some(begun) = asked.begun {
            let message =
                format!("begun, in phase {}: what it has made is there, and a run goes on with it", begun.phase);
            checks.pass(Place::Target, "migration", message);
        } else if there.is_empty() {
            checks.pass(Place::Target, "empty", "it holds none of the tables");
        } else if asked.drop_if_exists {
            let message = format!("dropped on the target first, with their rows: {}", some(&there));
            checks.warn_aloud(Place::Target, "empty", message, "");
        } else {
            let mend = "give an empty database; pgmig never overwrites a table it did not make, unless told to with --drop-if-exists; \
                        with --keep-tables it fills those that are partitioned on one of the sides";
            checks.fail(Place::Target, "empty", format!("the target already holds {}", some(&there)), mend);
        }
        if names.is_empty() && asked.filters.is_some() {
            checks.fail(Place::Here, "tables", "the filters leave no table", "see what they match: pgmig plan");
        } else if names.is_empty() {
            checks.fail(Place::Source, "tables", "the source holds no tables", "is it the right database?");
        }
        let defaults = target::checks::default_privileges(self.target).await?;
        if !defaults.is_empty() && !asked.drop_if_exists {
            let user = &self.on_target.user;
            let kinds = defaults.join(", ");
            let message = format!(
                "the target gives the role {user} default privileges on {kinds}: what it makes will have them too"
            );
            checks.warn_aloud(Place::Target, "default privileges", message, "see them: \\ddp in psql");
        }
        if let Some(bytes) = self.from.bytes {
            let size = units::bytes(bytes.max(0) as u64);
            let message =
                format!("the source's database is {size}: have that free, and as much again for WAL and sorting");
            checks.pass(Place::Target, "disk", message);
        }
        Ok(())
    }
}
