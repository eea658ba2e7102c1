//! The way back: the stream from the target to the old source. It is made while writes go on, and begins at
//! the position that the target has when the source's last change is applied and nobody writes to either. It
//! is an ordinary migration in the other direction, of which all tables count as copied: `pgmig run` goes on
//! with it, and a cutover with source and target exchanged takes it.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Cutover;
use crate::apply::ddl::Mode;
use crate::command::run::identity;
use crate::connect::Side;
use crate::cutover::hook::{self, Action};
use crate::cutover::{Freeze, Step};
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Phase, TableName};
use crate::plan_db::PlanDb;
use crate::selection::Origin;
use crate::source::catalog::{self, Sizes};
use crate::source::freeze::{self, Before};
use crate::source::replication::{ReplicationClient, Snapshot};
use crate::source::{self, slot, snapshot, unstreamed};
use crate::target::install::{self, Flavour};
use crate::target::queue;
use crate::target::sentinel::{self, Begin};
use crate::target::{checks, cutover as record, layout, way_back};

/// What the target allows and holds.
pub(super) struct Way {
    plugin: &'static str,
    identity: String,
    /// Tables whose changes are carried back, and whether a key says which row changes.
    tables: Vec<(TableName, bool)>,
    /// What else is on the target.
    others: Vec<TableName>,
}

impl Cutover<'_> {
    /// Refuses, before anything is stopped, where a way back would lose something or cannot be.
    pub(super) async fn check_way_back(&self) -> Result<Way> {
        let (run, name) = (self.run, &self.run.config.name);
        let no = |exit, what: String, hint: String| {
            Err(Error::new(exit, format!("there can be no way back: {what}"))
                .hint(format!("{hint}; or cut over without --reverse")))
        };
        if let Some(table) = queue::united(&self.target, name).await?.keys().next() {
            let what = format!("{table} is partitioned on the source and not so on the target");
            return no(Exit::Target, what, "to keep one, let pgmig make it as it is on the source".into());
        }
        // The target tells changes of its partitions, which the source does not have.
        if let Some(table) = layout::routed(&self.target, name).await?.first() {
            let what = format!("{table} is partitioned on the target and not on the source");
            return no(Exit::Target, what, "to keep one, partition it when the way back is given up".into());
        }
        let can = source::checks::abilities(&self.target).await?;
        if can.wal_level != "logical" {
            let hint = "on the target, then restart it: alter system set wal_level = logical";
            return no(Exit::Target, format!("wal_level of the target is {}", can.wal_level), hint.into());
        }
        if !can.may_replicate {
            let hint = format!("on the target: alter role {} replication", crate::model::name::identifier(&can.user));
            return no(Exit::Target, format!("the role {} may not replicate from the target", can.user), hint);
        }
        if can.slots_free < 1 || can.senders_free < 1 {
            let hint =
                "on the target, raise max_replication_slots and max_wal_senders, or drop slots that nobody needs";
            return no(Exit::Target, "the target has no replication slot or WAL sender left".into(), hint.into());
        }
        let here = checks::abilities(&self.source).await?;
        if !here.may_replica || !here.may_create {
            let what = format!(
                "on the source, the role {} may not set session_replication_role, or not create a schema",
                here.user
            );
            return no(Exit::Source, what, "grant it both, as preflight says of a target".into());
        }
        if install::installed(&self.source).await?.is_some() && sentinel::load(&self.source, name).await?.is_some() {
            let hint = "remove it with `pgmig cleanup`, given the source as target";
            return no(
                Exit::Source,
                format!("the source holds the state of a migration `{name}` already"),
                hint.into(),
            );
        }
        let mut all = catalog::tables(&self.target, Sizes::Estimates).await?;
        let moved: HashSet<TableName> = run.tags().await?.into_tables().collect();
        let others = all.extract_if(.., |table| !moved.contains(&table.name)).map(|table| table.name).collect();
        let insert_only = run.plan.selection()?.unwrap_or_default().insert_only;
        let blind: Vec<&TableName> = all.iter().filter(|t| t.logged && !t.identified).map(|t| &t.name).collect();
        if let Some(table) = blind.iter().find(|table| !insert_only.contains(table)) {
            let what = format!("no key says which row an UPDATE or DELETE means in {table} of the target");
            return no(Exit::Target, what, format!("on the target: alter table {} replica identity full", table.sql()));
        }
        let unlogged: Vec<String> =
            all.extract_if(.., |table| !table.logged).map(|table| table.name.to_string()).collect();
        if !unlogged.is_empty() {
            run.report.warning(format!(
                "unlogged, so that the way back carries none of their changes: {}",
                unlogged.join(", ")
            ));
        }
        let objects = self.target.query_one("select count(*) from pg_catalog.pg_largeobject_metadata", &[]).await;
        if objects.on_target(|| "count the large objects".into())?.get::<_, i64>(0) > 0 {
            run.report.warning("the way back carries no changes of large objects");
        }
        let names: Vec<TableName> = all.iter().map(|table| table.name.clone()).collect();
        if let Some(table) = way_back::unwritable(&self.source, &names).await?.first() {
            let what = format!("the role {} may not write to {table} on the source, or does not own it", here.user);
            return no(Exit::Source, what, "grant it the role of the owner".into());
        }
        // The plugin of the way forth, if the target's server has it and it loses nothing there.
        let plugin = match run.sentinel().await?.plugin.as_str() {
            "wal2json"
                if can.encoding == "UTF8" && matches!(slot::wal2json_keeps_nan(&self.target).await, Ok(Some(true))) =>
            {
                "wal2json"
            }
            _ => "pgoutput",
        };
        let tables = all.into_iter().map(|table| (table.name, table.identified)).collect();
        Ok(Way { plugin, identity: can.identity, tables, others })
    }

    /// Makes all of it but its beginning.
    pub(super) async fn reverse(&mut self) -> Result<String> {
        self.moved = queue::tables(&self.target, &self.run.config.name).await?;
        let way = self.check_way_back().await?;
        let (run, name) = (self.run, self.run.config.name.clone());
        let back = run.config.back();
        let fresh = install::installed(&self.source).await?.is_none();
        let tells = source::ddl::telling(&self.source, &name).await?;
        if tells.is_some() {
            // It goes with what is removed below.
            run.ddl_key(&self.source, &run.plan).await?;
        }
        self.keep(Step::Reverse, json!({ "slot": back.slot_name, "installed": fresh, "tells": tells })).await?;
        let wanted = (fresh && run.flavour == Flavour::Plain).then_some(Flavour::Plain);
        // Its schema is in the way for a moment; DDL meanwhile would be noticed as it is without.
        source::ddl::release(&self.source, &name).await?;
        let flavour = install::install(&self.source, wanted).await?;
        self.tell_again(tells).await?;
        let begin = Begin {
            migration: &name,
            follow: true,
            plugin: way.plugin,
            slot_name: &back.slot_name,
            source_identity: &way.identity,
            endpos: None,
        };
        sentinel::begin(&self.source, &begin).await?;
        if way.plugin == "pgoutput" {
            slot::create_publications(&self.target, &name, &way.tables).await?;
        }
        // Taken before the slot is there: it shows nothing of what the slot sends.
        let tag = snapshot::tag(&self.target).await?;
        let mut client = ReplicationClient::connect(&back.source, Side::Target, slot::RECEIVER).await?;
        let created = client.create_slot(&back.slot_name, way.plugin, false, Snapshot::NoExport).await?;
        let names: Vec<TableName> = way.tables.iter().map(|(table, _)| table.clone()).collect();
        way_back::begin(&self.source, &name, &names, &tag, created.consistent_point).await?;
        let views = way_back::views(&self.target, &name).await?;
        way_back::store_views(&self.source, &name, &views).await?;
        remove_folder(&back.dir)?;
        let plan = PlanDb::open(&back.dir, &identity(&way.identity, &name))?;
        plan.begin(run.filters.as_ref())?;
        // DDL is told on the way back as it was on the way forth, from its begin.
        let ddl = run.ddl()?;
        if ddl != Mode::Off {
            plan.set_ddl(ddl.as_str())?;
            let key = run.ddl_key(&self.target, &plan).await?;
            if let Err(why) = source::ddl::capture(&self.target, &name, run.takes_partitions()?, &key).await? {
                run.report.warning(format!("the target cannot tell its DDL: {why}"));
            }
        }
        let mut selection = run.plan.selection()?.unwrap_or_default();
        let forms = source::columns::forms(&self.target).await?;
        selection.origins = names.iter().filter_map(|table| Some(Origin::new(table, forms.get(table)?))).collect();
        selection.insert_only.retain(|table| way.tables.contains(&(table.clone(), false)));
        selection.former_names.clear();
        selection.ignored.extend(way.others);
        selection.tables = names;
        plan.store_selection(&selection)?;
        // Nobody writes to the target before the switch.
        plan.store_unstreamed(&unstreamed::written(&self.target).await?)?;
        Ok(format!("slot `{}` on the target, {} stream, {flavour} flavour on the source", back.slot_name, way.plugin))
    }

    /// From here on the way back carries what is committed on the target.
    pub(super) async fn turn(&mut self) -> Result<String> {
        let now = queue::tables(&self.target, &self.run.config.name).await?;
        if let Some(table) = now.difference(&self.moved).next() {
            return Err(Error::new(Exit::Differ, format!("{table} was made while the way back was, which lacks it"))
                .hint("cut over again"));
        }
        let lsn = slot::current_lsn(&self.target).await?;
        let plain = install::installed(&self.source).await? == Some(Flavour::Plain);
        let quiet = way_back::turn(&self.source, &self.run.config.name, lsn, plain).await?;
        self.turned = true;
        Ok(format!("the way back begins at {lsn} of the target; {quiet} objects of the source are quiet for it"))
    }

    pub(super) async fn undo_reverse(&self, detail: &Value) -> Result<()> {
        let name = &self.run.config.name;
        // Nothing was made before that was kept.
        let Some(slot_name) = detail.get("slot").and_then(Value::as_str) else { return Ok(()) };
        slot::drop_when_free(&self.target, slot_name, true).await?;
        slot::drop_publications(&self.target, name).await?;
        source::ddl::release(&self.target, name).await?;
        if let Some(flavour) = install::installed(&self.source).await? {
            sentinel::remove(&self.source, name).await?;
            let ours = detail.get("installed").and_then(Value::as_bool) == Some(true);
            if ours && sentinel::migrations(&self.source).await?.is_empty() {
                source::ddl::release(&self.source, name).await?;
                install::uninstall(&self.source, flavour).await?;
            }
        }
        // What told DDL may have gone when the step failed, too.
        self.tell_again(detail.get("tells").and_then(Value::as_bool)).await?;
        remove_folder(&self.run.config.back().dir)
    }

    /// Makes what tells the source's DDL as it was.
    async fn tell_again(&self, partitions: Option<bool>) -> Result<()> {
        let Some(partitions) = partitions else { return Ok(()) };
        let key = self.run.ddl_key(&self.source, &self.run.plan).await?;
        match source::ddl::capture(&self.source, &self.run.config.name, partitions, &key).await? {
            Ok(()) => Ok(()),
            Err(why) => Err(Error::new(Exit::Source, format!("the source cannot tell its DDL any more: {why}"))
                .hint("run as the role that began the migration")),
        }
    }

    pub(super) async fn undo_turn(&self) -> Result<()> {
        way_back::restore(&self.source, &self.run.config.name).await.map(drop)
    }

    /// What stopped writes on the old source when it was cut over.
    async fn frozen(&self) -> Result<Value> {
        let (_, steps) = record::steps(&self.source, &self.run.config.name).await?;
        Ok(steps.into_iter().find(|step| step.step == Step::Freeze.name()).map_or(Value::Null, |step| step.detail))
    }

    /// Before a way back is taken: whether its end, the old source, can be opened.
    pub(super) async fn check_open(&self) -> Result<()> {
        if self.frozen().await?.get("hook").is_some() && !matches!(self.settings.freeze, Freeze::Hook(_)) {
            return Err(Error::usage("writes on the old source were stopped by a hook").hint(
                "give the same: --freeze=hook:CMD. It is called with PGMIG_ACTION=do PGMIG_DIRECTION=back to stop writes on the target, then with PGMIG_ACTION=undo PGMIG_DIRECTION=forth to open the source",
            ));
        }
        Ok(())
    }

    /// The old source takes writes again.
    pub(super) async fn open_writes(&self) -> Result<String> {
        let frozen = self.frozen().await?;
        if let Some(before) = frozen.get("read_only") {
            let before: Before = serde_json::from_value(before.clone())
                .during(Exit::Target, || "read what the old source was set to before".into())?;
            freeze::make_writable(&self.target, &before, &self.settings.spared).await?;
            return Ok("the old source takes writes".into());
        }
        match (&self.settings.freeze, frozen.get("hook")) {
            (Freeze::Hook(command), Some(_)) => {
                hook::run(command, "freeze", Action::Undo, &self.run.config.name, false).await?;
                Ok("the hook has opened the old source".into())
            }
            _ => Ok("nothing of pgmig keeps the old source from writes".into()),
        }
    }

    /// The migration is done; with a way back, that is open.
    pub(super) async fn close(&self) -> Result<()> {
        let name = &self.run.config.name;
        crate::target::queue::give_up_rest(&self.target, name).await?;
        record::done(&self.target, name, self.turned).await?;
        if self.run.config.is_back() {
            way_back::set(&self.source, name, Some("taken")).await?;
            sentinel::event(&self.source, name, "info", "the way back was taken").await?;
        }
        self.run.report.phase(Phase::Done);
        Ok(())
    }
}

fn remove_folder(dir: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).during(Exit::Dir, || format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
