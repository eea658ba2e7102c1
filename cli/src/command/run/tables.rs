//! Tables that are copied while changes are followed: copied again, or added. The run does it, since what
//! apply may write of a table and what its copy shows must change hands at one instant:
//!
//! ```text
//! gate closed · table marked as being copied, its Parts pending · gate open
//!   ─► snapshot ─► tag known: apply passes over what it shows, and waits at the first change behind it
//!   ─► Parts copied, each with its mark ─► apply goes on by the tags that are stored
//! ```
//! After a crash in between the Parts are pending, and the next run copies them before apply begins.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{RwLock, mpsc, watch};

use super::Run;
use super::drift::Eyes;
use super::partitions::leaves_of;
use crate::apply::Applied;
use crate::apply::tags::{self, Copy, Tag, Tags};
use crate::copy::board::Board;
use crate::copy::parts::{self, Cut, SplitBy};
use crate::copy::{draft, pool, steps};
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Phase, TableName};
use crate::selection::Origin;
use crate::source::catalog::{self, NEVER_BINARY, Sizes, Table};
use crate::source::dump::Tools;
use crate::source::snapshot::{self, SnapshotHolder};
use crate::source::{self, slot};
use crate::target::install::Flavour;
use crate::target::requests::{self, Request, Verb};
use crate::target::{checks, queue};

/// How often requests are looked for.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// What apply and the copies beside it share.
pub(super) struct Tables {
    pub tags: watch::Sender<Arc<Tags>>,
    pub gate: Arc<RwLock<()>>,
    pub applied: watch::Receiver<Applied>,
    /// Whether a table is being copied.
    pub busy: watch::Sender<bool>,
    /// Tables whose changes this run has passed over as none of the migration.
    pub ignored: Mutex<HashSet<TableName>>,
}

impl Tables {
    pub(super) fn set(&self, table: &TableName, copy: Copy) {
        self.tags.send_modify(|tags| {
            Arc::make_mut(tags).insert(table.clone(), copy);
        });
    }

    /// Marks a table that apply cannot go on with; to be copied again.
    pub fn lacks(&self, table: &TableName) {
        self.busy.send_replace(true);
        self.set(table, Copy::Running(None));
    }

    pub fn is_united(&self, table: &TableName) -> bool {
        self.tags.borrow().is_united(table)
    }

    pub fn has_leaves(&self) -> bool {
        self.tags.borrow().has_leaves()
    }

    /// Tells apply of partitions whose rows go into another table.
    pub fn know(&self, leaves: Vec<(TableName, tags::Leaf)>) {
        self.tags.send_if_modified(|tags| {
            let new: Vec<_> = leaves.into_iter().filter(|(name, leaf)| tags.leaf(name) != Some(leaf)).collect();
            let modified = !new.is_empty();
            new.into_iter().for_each(|(name, leaf)| Arc::make_mut(tags).add_leaf(name, leaf));
            modified
        });
    }

    /// Notes that changes of this table were passed over.
    pub fn ignored(&self, table: &TableName) {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone());
    }

    /// Apply knows this partition no more.
    pub fn forget(&self, partition: &TableName) {
        self.tags.send_modify(|tags| Arc::make_mut(tags).remove_leaf(partition));
    }

    pub fn was_ignored(&self, table: &TableName) -> bool {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).contains(table)
    }

    pub fn newest(&self) -> crate::model::Lsn {
        tags::newest(&self.tags.borrow())
    }

    /// Waits until no table is being copied.
    pub async fn idle(&self) {
        // The sender is ours.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }
}

impl Run {
    /// Does what is asked for, one table after the other, and copies tables again that apply lacks. Ends
    /// only with an error.
    pub(super) async fn table_requests(&self, tables: &Tables, mut lacking: mpsc::Receiver<TableName>) -> Error {
        let work = async {
            requests::finish_earlier(&self.target, &self.config.name).await?;
            // Foreign keys of a table that was added come once apply has passed its snapshot.
            let mut keys_behind = None;
            loop {
                if keys_behind.is_some_and(|lsn| tables.applied.borrow().level_with >= lsn) {
                    keys_behind = None;
                    self.foreign_keys(Some(Arc::clone(&tables.gate))).await?;
                }
                let asked = tokio::select! {
                    Some(table) = lacking.recv() => {
                        self.report.info(match tables.is_united(&table) {
                            true => format!("a partition of {table} was emptied on the source, and nothing says which rows of the target were in it: the table is copied anew"),
                            false => format!("a row of {table} moved to a Part that was read under another snapshot, and the stream does not have all of it: the table is copied anew"),
                        });
                        tables.busy.send_replace(true);
                        self.resync(tables, &table, None).await?;
                        tables.busy.send_replace(false);
                        continue;
                    }
                    () = tokio::time::sleep(LOOK_EVERY) => requests::next(&self.target, &self.config.name).await?,
                };
                let Some(request) = asked else { continue };
                // Before that, foreign keys are made and checked.
                if self.sentinel().await?.phase != Phase::Follow {
                    continue;
                }
                tables.busy.send_replace(true);
                let done = match request.verb {
                    Verb::Resync => self.resync(tables, &request.table, Some(&request)).await,
                    Verb::Add => self.add(tables, &request).await,
                };
                match done {
                    Ok(()) => requests::set(&self.target, request.id, "done", None).await?,
                    Err(err) if err.exit() == Exit::Usage => {
                        self.report.warning(err.chain());
                        requests::set(&self.target, request.id, "refused", Some(&err.chain())).await?;
                    }
                    Err(err) => return Err(err),
                }
                tables.busy.send_replace(false);
                if request.verb == Verb::Add {
                    if let Err(err) = slot::nudge(&self.source_client("pgmig table").await?).await {
                        tracing::debug!(error = %err.chain(), "the source takes no message: its keepalives will do");
                    }
                    keys_behind = Some(tables.newest());
                }
            }
        };
        match work.await {
            Err(err) => err,
            Ok(never) => never,
        }
    }

    /// Takes up what was asked for while nobody followed: these tables are copied again before apply begins,
    /// which one of them may have stopped.
    pub(super) async fn take_up_resyncs(&self) -> Result<()> {
        let asked = requests::resyncs(&self.target, &self.config.name).await?;
        if asked.is_empty() {
            return Ok(());
        }
        let client = self.target_client("pgmig table", &[]).await?;
        for request in asked {
            match self.may_copy_again(&client, &request.table).await {
                Ok(()) => self.mark_for_copy(&client, &request.table, Some(&request)).await?,
                Err(err) if err.exit() == Exit::Usage => {
                    self.report.warning(err.chain());
                    requests::set(&self.target, request.id, "refused", Some(&err.chain())).await?;
                }
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Copies a table again, under a snapshot of its own.
    async fn resync(&self, tables: &Tables, table: &TableName, request: Option<&Request>) -> Result<()> {
        let client = self.target_client("pgmig table", &[]).await?;
        self.may_copy_again(&client, table).await?;
        {
            let _closed = tables.gate.write().await;
            tables.set(table, Copy::Running(None));
            self.mark_for_copy(&client, table, request).await?;
        }
        self.copy_late(tables, table).await
    }

    async fn may_copy_again(&self, client: &tokio_postgres::Client, table: &TableName) -> Result<()> {
        let name = std::slice::from_ref(table);
        if !queue::tables(client, &self.config.name).await?.contains(table) {
            return Err(refused(format!("{table} has no rows of its own in this migration")));
        }
        let there = source::columns::forms(&self.source_client("pgmig table").await?).await?;
        let here = crate::target::columns::forms(client).await?;
        match (there.get(table), here.get(table)) {
            (Some(there), _)
                if there.partitioned && !queue::united(client, &self.config.name).await?.contains_key(table) =>
            {
                return Err(refused(format!(
                    "{table} is partitioned on the source, and was not when the migration began"
                )));
            }
            (Some(there), Some(here)) if there.columns == here.columns => {}
            (Some(_), Some(_)) => {
                return Err(refused(format!("{table} has other columns on the target than on the source")));
            }
            _ => return Err(refused(format!("{table} is not on both sides"))),
        }
        self.tables_there(name).await
    }

    async fn mark_for_copy(
        &self,
        client: &tokio_postgres::Client,
        table: &TableName,
        request: Option<&Request>,
    ) -> Result<()> {
        let doing = || format!("begin the copy of {table}");
        client.batch_execute("begin").await.on_target(doing)?;
        queue::copy_again(client, &self.config.name, table).await?;
        queue::renew_columns(client, &self.config.name, std::slice::from_ref(table), NEVER_BINARY).await?;
        if let Some(request) = request {
            requests::set(client, request.id, "running", None).await?;
        }
        client.batch_execute("commit").await.on_target(doing)?;
        self.report.info(format!("{table} is copied again"));
        Ok(())
    }

    /// Copies the pending Parts of a table that is marked as being copied, and lets apply go on with it.
    async fn copy_late(&self, tables: &Tables, table: &TableName) -> Result<()> {
        queue::restart_split_tables(&self.target, &self.config.name, false).await?;
        self.publish_partitions().await?;
        let holder = SnapshotHolder::new(self.source_client("pgmig snapshot").await?, None).await?;
        self.renew_partitions(&holder.client).await?;
        let leaves = queue::united(&self.target, &self.config.name).await?.remove(table).unwrap_or_default();
        // Until it is copied, all of them wait.
        tables.tags.send_modify(|tags| Arc::make_mut(tags).set_leaves(table, leaves_of(table, leaves)));
        self.renew_columns(&source::columns::forms(&holder.client).await?).await?;
        let tag = snapshot::tag(&holder.client).await?;
        let snapshot = tag.parse().during(Exit::Source, || "read the tag of the snapshot".into())?;
        tables.set(table, Copy::Running(Some(Tag { snapshot, lsn: holder.lsn })));
        let board = Arc::new(Board::default());
        let workers = self.workers(&holder, &board, true, true, false).await?;
        let builders = self.builders(&board).await?;
        let copied = async || {
            drop(holder);
            board.offer(queue::tables_to_build(&self.target, &self.config.name, true).await?);
            Ok(())
        };
        pool::run(workers, builders, &board, &self.control.stopping, copied).await?;
        self.stage("attach").await?;
        self.stage("rest").await?;
        let copy = self.tags().await?.remove(table);
        tables.set(table, copy.ok_or_else(|| Error::bug(format!("{table} is copied and has no tag")))?);
        self.report.info(format!("{table} is copied and followed"));
        Ok(())
    }

    /// Takes in a table that the filters left out.
    async fn add(&self, tables: &Tables, request: &Request) -> Result<()> {
        let table = &request.table;
        let client = self.source_client("pgmig table").await?;
        let eyes = Eyes { source: &client, target: &self.target };
        if let Some(leaf) = self.united_partitions(eyes).await?.into_iter().find(|leaf| leaf.name == *table) {
            return Err(refused(format!("{table} is a partition of {}, which it is followed with", leaf.root)));
        }
        let all = catalog::tables(&client, Sizes::Files).await?;
        let found = all.into_iter().find(|found| found.name == *table).ok_or_else(|| {
            refused(format!(
                "{table} is no table of the source that has rows of its own; of a partitioned one, add each partition"
            ))
        })?;
        self.check_identified(&found).map_err(|err| refused(err.chain()))?;
        let target = self.target_client("pgmig table", &[]).await?;
        let is_there = !checks::existing(&target, std::slice::from_ref(table)).await?.is_empty();
        let steps = if is_there {
            self.check_new_table(&found).await.map_err(|err| refused(err.chain()))?;
            Vec::new()
        } else {
            self.steps_of(&client, &found).await?
        };
        let doing = || format!("make {table}");
        target.batch_execute("begin; set local check_function_bodies = off").await.on_target(doing)?;
        for step in steps.iter().filter(|step| step.stage == "schema") {
            if let Err(err) = target.batch_execute(&step.statement).await {
                let answer = err.as_db_error().map(|db| db.message().to_string());
                target.batch_execute("rollback").await.on_target(doing)?;
                let Some(answer) = answer else { return Err(err).on_target(doing) };
                return Err(refused(format!("{} {} cannot be made on the target: {answer}", step.kind, step.name)));
            }
        }
        let steps: Vec<_> = steps.into_iter().filter(|step| step.stage != "schema").collect();
        let cut = Cut { larger_than: None, parts_max: 1, by: SplitBy::Ctid, binary: false };
        queue::store_parts(&target, &self.config.name, &parts::parts(&found, cut, &[])).await?;
        queue::store_steps(&target, &self.config.name, &steps).await?;
        requests::set(&target, request.id, "running", None).await?;
        {
            let _closed = tables.gate.write().await;
            tables.set(table, Copy::Running(None));
        }
        self.select_too(&client, &found).await?;
        if self.sentinel().await?.plugin == "pgoutput" && found.logged {
            slot::publish(&client, &self.config.name, &[(table.clone(), found.identified)]).await?;
        }
        target.batch_execute("commit").await.on_target(doing)?;
        self.report.info(format!("{table} becomes part of the migration"));
        // What is being written to it now may not be in the stream, so the snapshot must show it.
        self.wait_for_writers().await?;
        self.copy_late(tables, table).await
    }

    /// The steps that make a table and what belongs to it.
    async fn steps_of(&self, client: &tokio_postgres::Client, table: &Table) -> Result<Vec<queue::Step>> {
        let version = source::checks::abilities(&self.source).await?.version;
        let tools = Tools::find((version / 10_000) as u32).await?;
        let leave = self.config.leave;
        let file = self.config.dir.join("table.dump");
        let (mut pre, mut post) = tools.table_entries(&self.config.source, &table.name, leave, &file).await?;
        std::fs::remove_file(&file).during(Exit::Dir, || format!("remove {}", file.display()))?;
        for entries in [&mut pre, &mut post] {
            entries.retain(|entry| !steps::ours(entry));
            draft::leave_out(entries, leave);
        }
        let objects = catalog::objects(client).await?;
        let mut made = steps::steps(&steps::Schema {
            pre: &pre,
            post: &post,
            objects: Some(&objects),
            tables: std::slice::from_ref(table),
            analyze: !leave.analyze,
            ..steps::Schema::default()
        });
        if self.flavour == Flavour::Plain {
            let mut always = catalog::always_identity(client).await?;
            always.retain(|(of, _)| *of == table.name);
            made.extend(steps::relax_identity(&always));
        }
        Ok(made)
    }

    /// Notes in the plan that a table is selected.
    async fn select_too(&self, client: &tokio_postgres::Client, table: &Table) -> Result<()> {
        let Some(mut selection) = self.plan.selection()? else { return Ok(()) };
        let name = &table.name;
        let forms = source::columns::forms(client).await?;
        selection.origins.retain(|origin| origin.name != *name);
        selection.origins.extend(forms.get(name).map(|form| Origin::new(name, form)));
        selection.tables.push(name.clone());
        selection.ignored.retain(|ignored| ignored != name);
        selection.without_rows.retain(|without| without != name);
        selection.left_out.retain(|left| left.name != name.to_string());
        if table.logged && !table.identified {
            selection.insert_only.push(name.clone());
        }
        for sequence in catalog::owned_sequences(client, std::slice::from_ref(name)).await? {
            if !selection.sequences.contains(&sequence) {
                selection.sequences.push(sequence);
            }
        }
        self.plan.store_selection(&selection)
    }
}

/// What is told to whoever asked, and stops nothing.
fn refused(what: String) -> Error {
    Error::usage(what)
}
