//! Whether the tables of the source are still those that the migration began with, and not others that
//! have taken their names: the stream knows tables and columns by name only.

use std::collections::{BTreeMap, HashMap};

use super::Run;
use super::drift::{Eyes, Seen, run_on_target};
use crate::copy::failure::Altered;
use crate::error::{Error, Exit, Result};
use crate::model::name::identifier;
use crate::model::{Form, Phase, TableName};
use crate::selection::Origin;
use crate::source::catalog::NEVER_BINARY;
use crate::source::slot;
use crate::target::queue;
use crate::target::sentinel::Sentinel;
use crate::{source, target};

impl Run {
    /// An error if a table, or a column of it, is another one than the migration knows by that name; the
    /// table is copied anew then. Gives the tables that were dropped: they have the last word of the stream.
    pub(super) async fn look_for_others(
        &self,
        eyes: Eyes<'_>,
        plugin: &str,
        there: &HashMap<TableName, Form>,
        mut seen: Option<&mut Seen>,
    ) -> Result<Vec<TableName>> {
        let Some(mut selection) = self.plan.selection()? else { return Ok(Vec::new()) };
        let by_oid: HashMap<u32, &TableName> = there.iter().map(|(name, form)| (form.oid, name)).collect();
        let published = match plugin {
            "pgoutput" => Some(slot::published(eyes.source, &self.config.name).await?),
            _ => None,
        };
        let mut gone = Vec::new();
        // Asked for only where a table of the migration is partitioned there.
        let united = match selection.origins.iter().any(|o| there.get(&o.name).is_some_and(|form| form.partitioned)) {
            true => queue::united(eyes.target, &self.config.name).await?,
            false => BTreeMap::new(),
        };
        for at in 0..selection.origins.len() {
            let origin = selection.origins[at].clone();
            let name = &origin.name;
            // A plain table may have become a partition of one that took its name.
            let form = match there.get(name) {
                Some(form) if form.partitioned && !united.contains_key(name) => None,
                form => form,
            };
            let Some(form) = form else {
                let Some(renamed) = by_oid.get(&origin.oid) else {
                    gone.push(name.clone());
                    continue;
                };
                self.copy_again(name).await?;
                if !selection.former_names.contains(renamed) {
                    selection.former_names.push((*renamed).clone());
                    self.plan.store_selection(&selection)?;
                }
                return Err(Error::new(
                    Exit::Differ,
                    format!(
                        "{name} was renamed to {renamed} on the source: what is changed under that name is not followed"
                    ),
                )
                .hint(format!(
                    "on the source, rename it back, then run again, and it is copied anew:\n{}",
                    rename_back(renamed, name)
                )));
            };
            let replaced = origin.replaced(form);
            // Of a partitioned table its partitions are looked at.
            let followed = form.logged && !form.partitioned;
            let unpublished = followed && published.as_ref().is_some_and(|published| !published.contains(&form.oid));
            // Where DDL is told, apply comes upon it, and may make the new one.
            if form.oid != origin.oid
                && let Some(seen) = seen.as_deref_mut().filter(|_| self.tells_ddl())
                && !seen.has_passed(name, form.oid, slot::current_lsn(eyes.source).await?)
            {
                continue;
            }
            let what = if form.oid != origin.oid {
                format!("{name} was replaced on the source by another table of that name")
            } else if !replaced.is_empty() {
                format!("columns of {name} have taken the names of others on the source: {}", replaced.join(", "))
            } else if unpublished {
                format!("{name} was taken out of the publication of pgmig on the source")
            } else {
                continue;
            };
            if unpublished && form.oid == origin.oid {
                // The publications were read later than the tables, which may be others since then.
                let now = source::columns::forms(eyes.source).await?;
                if now.get(name).map(|now| now.oid) != Some(form.oid) {
                    return Box::pin(self.look_for_others(eyes, plugin, &now, seen)).await;
                }
            }
            let insert_only = selection.insert_only.contains(name);
            if followed && !form.identified && !insert_only {
                return Err(self.without_key(plugin, name).await?);
            }
            if unpublished {
                slot::publish(eyes.source, &self.config.name, &[(name.clone(), !insert_only)]).await?;
                // What is being written to it now is not in the stream, so the snapshot must show it.
                self.wait_for_writers().await?;
            }
            self.copy_again(name).await?;
            selection.origins[at] = Origin::new(name, form);
            self.plan.store_selection(&selection)?;
            return Err(Error::new(Exit::Differ, what).hint("run again, and the table is copied anew"));
        }
        Ok(gone)
    }

    pub(super) async fn copy_again(&self, table: &TableName) -> Result<()> {
        queue::copy_again(&self.target_client("pgmig watch", &[]).await?, &self.config.name, table).await
    }

    /// Remembers the columns of tables that are the same on both sides by now.
    pub(super) fn remember_origins(&self, same: &HashMap<&TableName, &Form>) -> Result<()> {
        let Some(mut selection) = self.plan.selection()? else { return Ok(()) };
        let before = selection.origins.clone();
        let known: HashMap<TableName, usize> =
            selection.origins.iter().enumerate().map(|(at, origin)| (origin.name.clone(), at)).collect();
        for name in &selection.tables {
            let Some(form) = same.get(name) else { continue };
            match known.get(name) {
                Some(at) if selection.origins[*at].oid == form.oid => selection.origins[*at] = Origin::new(name, form),
                Some(_) => {}
                // Taken in by an earlier pgmig, or the plan was lost.
                None => selection.origins.push(Origin::new(name, form)),
            }
        }
        if selection.origins == before { Ok(()) } else { self.plan.store_selection(&selection) }
    }

    /// Before a run goes on: tables are what they were, and those that are copied again have the columns
    /// that they have on the source.
    pub(super) async fn check_origins(&self, found: &Sentinel) -> Result<()> {
        let there = source::columns::forms(&self.source).await?;
        let eyes = Eyes { source: &self.source, target: &self.target };
        self.look_for_others(eyes, &found.plugin, &there, Some(&mut Seen::default())).await?;
        if found.phase <= Phase::Indexes {
            return Ok(());
        }
        self.tables_there(&self.plan.selection()?.unwrap_or_default().tables).await?;
        self.renew_columns(&there).await
    }

    /// Tables that are still to be copied, under a newer snapshot than they were planned under, are copied with
    /// the columns that it shows, which the target must have by then.
    pub(super) async fn renew_columns(&self, there: &HashMap<TableName, Form>) -> Result<()> {
        let here = target::columns::forms(&self.target).await?;
        let mut pending = queue::pending_tables(&self.target, &self.config.name).await?;
        pending.retain(|table| there.contains_key(table) && here.contains_key(table));
        let altered = pending.iter().filter(|table| there[*table].columns != here[*table].columns);
        self.altered(altered.cloned().collect(), None).await?;
        queue::renew_columns(&self.target, &self.config.name, &pending, NEVER_BINARY).await
    }

    /// Says what DDL the target lacks, if a copy failed since its table was altered.
    pub(super) async fn explain_altered(&self, err: Error) -> Error {
        let Some(Altered { table, .. }) = err.find() else { return err };
        match self.alterations(table).await {
            Ok((statements, _)) if !statements.is_empty() => {
                Error::new(Exit::Differ, "the copy stopped").cause(err).hint(run_on_target(&statements))
            }
            // Taken back by now, or not to be asked.
            _ => Error::new(Exit::Differ, "the copy stopped").cause(err).hint("run the same command again"),
        }
    }
}

fn rename_back(from: &TableName, to: &TableName) -> String {
    let mut statements = Vec::new();
    if from.table != to.table {
        statements.push(format!("alter table {} rename to {};", from.sql(), identifier(&to.table)));
    }
    if from.schema != to.schema {
        let renamed = TableName::new(from.schema.clone(), to.table.clone());
        statements.push(format!("alter table {} set schema {};", renamed.sql(), identifier(&to.schema)));
    }
    statements.join("\n")
}
