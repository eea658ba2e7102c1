//! Tables that the source has made since the migration began: named, and taken in once the target has them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::Run;
use super::drift::{Eyes, Seen};
use super::stream::Streaming;
use super::tables::Tables;
use crate::apply::tags::Copy;
use crate::apply::{Apply, Writer};
use crate::connect::Side;
use crate::copy::parts::{self, Cut, SplitBy};
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Phase, TableName};
use crate::selection::{Origin, select};
use crate::source::catalog::{Sizes, Table};
use crate::source::dump::Tools;
use crate::source::slot;
use crate::target::layout::{self, rows_of};
use crate::target::sentinel::Sentinel;
use crate::target::{checks, queue};
use crate::{source, target};

/// How long the end waits for the stream to come to what the source's catalog shows.
const RECEIVED_WITHIN: Duration = Duration::from_secs(2);

impl Run {
    /// An error if there are any.
    pub(super) async fn refuse_new(&self, new: &[TableName]) -> Result<()> {
        let Some(first) = new.first() else { return Ok(()) };
        let names: Vec<String> = new.iter().map(TableName::to_string).collect();
        Err(Error::new(Exit::Differ, format!("created on the source since the migration began: {}", names.join(", ")))
            .hint(self.make_table(first).await?))
    }

    /// When endpos is reached: those that the stream does not tell behind it.
    pub(super) async fn made_before_the_end<W: Writer>(
        &self,
        mut new: Vec<TableName>,
        source: &Client,
        streaming: &Streaming,
        apply: &mut Apply<W>,
    ) -> Result<Vec<TableName>> {
        if new.is_empty() || !self.tells_ddl() {
            return Ok(new);
        }
        let now = slot::current_lsn(source).await?;
        let mut received = streaming.received.clone();
        // A stream that ends at endpos never comes there.
        let _ = tokio::time::timeout(RECEIVED_WITHIN, received.wait_for(|received| received.write_lsn >= now)).await;
        let behind = apply.made_behind()?;
        new.retain(|table| !behind.contains(table));
        Ok(new)
    }

    /// What to do about a table that the migration does not know.
    pub(super) async fn make_table(&self, table: &TableName) -> Result<String> {
        let version = source::checks::abilities(&self.source).await?.version;
        let statements = Tools::find((version / 10_000) as u32).await?.table_ddl(&self.config.source, table).await?;
        Ok(format!(
            "make it on the target, empty, then run again, and it is copied and followed; or leave it behind with --leave-new-tables. On the target:\n{}",
            statements.join("\n")
        ))
    }

    /// Those whose rows go into a table of the same name.
    pub(super) async fn selected_tables(&self, eyes: Eyes<'_>) -> Result<Vec<Table>> {
        let mut tables = select(eyes.source, self.filters.as_ref(), true, Sizes::Estimates).await?.tables;
        let united = self.united_partitions(eyes).await?;
        tables.retain(|table| !united.iter().any(|leaf| leaf.name == table.name));
        Ok(tables)
    }

    /// Whether changes of a table that the migration does not know are none of its business: left out
    /// by the filters, or to be left behind. A name that is gone may have been that of any table.
    pub(super) async fn is_left_out(&self, plugin: &str, table: &TableName) -> Result<bool> {
        if queue::tables(&self.target, &self.config.name).await?.contains(table) {
            return Ok(false);
        }
        let sessions = self.sessions_to_look_by().await?;
        let eyes = Eyes::of(&sessions);
        self.look_for_others(eyes, plugin, &source::columns::forms(eyes.source).await?, Some(&mut Seen::default()))
            .await?;
        let renamed_back = self.plan.selection()?.is_some_and(|selection| selection.former_names.contains(table));
        if self.config.leave_new_tables {
            return Ok(true);
        }
        if !source::columns::exists(eyes.source, table).await? {
            if renamed_back {
                return Ok(true);
            }
            return Err(Error::new(
                Exit::Differ,
                format!("there are changes of {table}, which the migration does not know and which is gone from the source"),
            )
            .hint(
                "if it was a table of its own, or one that was copied anew since it lost that name: --leave-new-tables; \
                 if it was a partition of a table that is kept on the target, pgmig table resync of that table too; \
                 if a table of the migration bore that name for a while, begin again (pgmig cleanup --force, empty the target, pgmig run)",
            ));
        }
        Ok(!self.selected_tables(eyes).await?.iter().any(|selected| selected.name == *table))
    }

    /// Tables that the source has made since the migration began and that are on the target now: they
    /// become part of it, and the copy that follows brings their rows, under a snapshot of their own.
    pub(super) async fn take_in_new_tables(&self, found: &Sentinel) -> Result<()> {
        if found.phase <= Phase::Indexes || self.config.leave_new_tables {
            return Ok(());
        }
        let planned = queue::tables(&self.target, &self.config.name).await?;
        let mut new = self.selected_tables(Eyes { source: &self.source, target: &self.target }).await?;
        // Apply has made them, and nothing of them is to be copied.
        let selection = self.plan.selection()?;
        let known: HashSet<&TableName> = selection.iter().flat_map(|selection| &selection.tables).collect();
        let born = |table: &&Table| planned.contains(&table.name) && !known.contains(&table.name);
        let born: Vec<Table> = new.iter().filter(born).cloned().collect();
        self.remember_new_tables(&self.source, &born).await?;
        new.retain(|table| !planned.contains(&table.name));
        let names: Vec<TableName> = new.iter().map(|table| table.name.clone()).collect();
        let there = checks::existing(&self.target, &names).await?;
        new.retain(|table| there.contains(&table.name));
        if new.is_empty() {
            return Ok(());
        }
        for table in &new {
            self.check_new_table(table).await?;
        }
        if found.plugin == "pgoutput" {
            let published: Vec<(TableName, bool)> =
                new.iter().filter(|table| table.logged).map(|table| (table.name.clone(), table.identified)).collect();
            slot::publish(&self.source, &self.config.name, &published).await?;
            // What is being written to them now is not in the stream, so the snapshot must show it.
            self.wait_for_writers().await?;
        }
        let cut = Cut { larger_than: None, parts_max: 1, by: SplitBy::Ctid, binary: false };
        let parts: Vec<_> = new.iter().flat_map(|table| parts::parts(table, cut, &[])).collect();
        self.remember_new_tables(&self.source, &new).await?;
        queue::store_parts(&self.target, &self.config.name, &parts).await?;
        for table in &new {
            self.report.info(format!("{} is new and becomes part of the migration", table.name));
        }
        Ok(())
    }

    /// Partitions that apply has made, whose rows are in the stream from the first on.
    pub(super) async fn remember_born(&self, born: &[(TableName, u32)], tables: &Tables) -> Result<()> {
        let sessions = self.sessions_to_look_by().await?;
        let eyes = Eyes::of(&sessions);
        let mut found = self.selected_tables(eyes).await?;
        found.retain(|table| born.iter().any(|(name, _)| *name == table.name));
        self.remember_new_tables(eyes.source, &found).await?;
        // One that is gone by now, or has another name: apply still has changes of it.
        if let Some(mut selection) = self.plan.selection()? {
            let gone = born.iter().filter(|(name, _)| !found.iter().any(|table| table.name == *name));
            let gone: Vec<Origin> =
                gone.map(|(name, oid)| Origin { name: name.clone(), oid: *oid, attributes: Vec::new() }).collect();
            selection.origins.retain(|origin| !gone.iter().any(|gone| gone.name == origin.name));
            selection.origins.extend(gone);
            self.plan.store_selection(&selection)?;
        }
        for (table, _) in born {
            tables.set(table, Copy::of_nothing());
            self.report.info(format!("{table} is new and followed from its first row"));
        }
        Ok(())
    }

    async fn remember_new_tables(&self, source: &Client, new: &[Table]) -> Result<()> {
        let Some(mut selection) = self.plan.selection()?.filter(|_| !new.is_empty()) else { return Ok(()) };
        let fresh = select(source, self.filters.as_ref(), true, Sizes::Estimates).await?.selection;
        let forms = source::columns::forms(source).await?;
        // One of that name may have been dropped.
        selection.origins.retain(|origin| !new.iter().any(|table| table.name == origin.name));
        selection.tables.retain(|name| !new.iter().any(|table| table.name == *name));
        selection
            .origins
            .extend(new.iter().filter_map(|table| Some(Origin::new(&table.name, forms.get(&table.name)?))));
        selection.tables.extend(new.iter().map(|table| table.name.clone()));
        selection.insert_only.extend(new.iter().filter(|table| !table.identified).map(|table| table.name.clone()));
        let known: HashSet<TableName> = selection.sequences.iter().cloned().collect();
        selection.sequences.extend(fresh.sequences.into_iter().filter(|name| !known.contains(name)));
        self.plan.store_selection(&selection)
    }

    pub(super) fn check_identified(&self, table: &Table) -> Result<()> {
        if table.logged && !table.identified && !self.config.allow_insert_only {
            return Err(Error::new(
                Exit::Source,
                format!("no key says which row an UPDATE or DELETE means in {}", table.name),
            )
            .hint(format!(
                "on the source: alter table {} replica identity full; or --allow-insert-only; or --leave-new-tables",
                table.name.sql()
            )));
        }
        Ok(())
    }

    pub(super) async fn check_new_table(&self, table: &Table) -> Result<()> {
        self.check_identified(table)?;
        self.tables_there(std::slice::from_ref(&table.name)).await?;
        if let Some(root) = layout::root_of(&self.target, &table.name).await?
            && queue::tables(&self.target, &self.config.name).await?.contains(&root)
        {
            return Err(Error::new(
                Exit::Target,
                format!("{} is a table of its own on the source, and a partition of {root} on the target", table.name),
            )
            .hint("give the partition another name on the target, make the table there, then run again"));
        }
        let firing = target::columns::firing(&self.target).await?;
        if let Some((_, firing)) = firing.iter().find(|(firing, _)| *firing == table.name) {
            return Err(Error::new(
                Exit::Target,
                format!("{} is new, and on the target it has what fires for applied changes too: {firing}", table.name),
            )
            .hint("disable it there until the migration is done, then run again: what it does, the source has done already"));
        }
        let row = self
            .target
            .query_one(
                &format!("select exists (select from {})", rows_of(&self.target, Side::Target, &table.name).await?),
                &[],
            )
            .await
            .on_target(|| format!("look into {}", table.name))?;
        if row.get(0) {
            return Err(Error::new(Exit::Target, format!("{} is new on the source and holds rows on the target", table.name))
                .hint("empty it there, and its rows are copied; a table that was renamed on the source is not followed: rename it back, and it is copied anew"));
        }
        Ok(())
    }

    /// Waits until every transaction of the source that runs now has ended.
    pub(super) async fn wait_for_writers(&self) -> Result<()> {
        let (began, mut told) = (Instant::now(), false);
        let horizon = slot::next_xid(&self.source).await?;
        while !slot::all_ended(&self.source, &horizon).await? {
            if began.elapsed() > Duration::from_secs(3) && !told {
                told = true;
                self.report.info("the new tables wait for transactions of the source that were open when they became part of the migration");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}
