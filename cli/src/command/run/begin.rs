//! Begins a migration: checks, installs, makes slot and snapshot, starts the stream and plans the copy.
//! Until all checks have passed nothing is changed on either side.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::Client;

use super::stream::Streaming;
use super::upstream::{Reader, check_slot};
use super::waiting::Waiting;
use super::{Config, Control, Run, identity};
use crate::connect::Side;
use crate::copy::draft::{self, Roles, draft};
use crate::copy::steps::relax_identity;
use crate::copy::united::unite;
use crate::crash;
use crate::error::{Context, Error, Exit, Result};
use crate::model::Lsn;
use crate::model::{Phase, TableName, Verdict};
use crate::plan_db::PlanDb;
use crate::preflight;
use crate::report::Reporter;
use crate::selection::{Origin, select};
use crate::source::catalog::{Sizes, Table};
use crate::source::dump::Tools;
use crate::source::replication::{ReplicationClient, Snapshot};
use crate::source::slot;
use crate::source::snapshot::SnapshotHolder;
use crate::source::unstreamed;
use crate::target::install::Flavour;
use crate::target::layout::There;
use crate::target::sentinel::{self, Begin, Sentinel};
use crate::target::{checks, install, layout, queue};

/// How often somebody looks who is in the way of a slot.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Checks both sides, installs the schema `pgmig` and writes the sentinel.
pub(super) async fn begin(
    config: Config,
    report: Reporter,
    control: Control,
    source: Client,
    target: Client,
) -> Result<Run> {
    let (facts, checks) = preflight::new_migration(&source, &target, &config.asked()).await?;
    for warning in &checks.warnings {
        report.warning(warning.clone());
    }
    let others = checks
        .findings
        .iter()
        .filter(|found| found.verdict == Verdict::Warn && !checks.warnings.contains(&found.message));
    for found in others {
        report.info(format!("to know: {}: {}", found.check, found.message));
    }
    // Found out before anything is changed, too.
    Tools::find((facts.source_version / 10_000) as u32).await?;
    let plugin = facts.plugin;
    if config.follow {
        for (table, firing) in crate::source::columns::firing(&source).await? {
            if facts.tables.iter().any(|moved| moved.name == table) {
                report.info(format!("{table} has what fires always: {firing}; on the target it is made at the end, and fires for no change of the source"));
            }
        }
    }
    let plan = PlanDb::open(&config.dir, &identity(&facts.source_identity, &config.name))?;
    plan.begin(config.filters.as_ref())?;
    let flavour = install::install(&target, config.flavour).await?;
    let begin = Begin {
        migration: &config.name,
        follow: config.follow,
        plugin,
        slot_name: &config.slot_name,
        source_identity: &facts.source_identity,
        endpos: config.endpos,
    };
    sentinel::begin(&target, &begin).await?;
    report.phase(Phase::Planned);
    report.info(format!("migration `{}`: {plugin} stream, {flavour} flavour", config.name));
    let filters = config.filters.clone();
    Run::new(config, report, control, (source, target), flavour, plan, filters).await
}

/// What a slot that is gone sent is worth nothing.
fn empty_spool(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir.join("spool")) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).during(Exit::Dir, || "empty the spool".into())
        }
        _ => Ok(()),
    }
}

impl Run {
    /// Makes slot and snapshot, starts the stream and stores the plan. Whatever an earlier try of this
    /// phase left is made anew: its snapshot is gone.
    pub(super) async fn plan(&self, found: &Sentinel) -> Result<(Option<Streaming>, SnapshotHolder)> {
        // What is written to from here on may not be in the copy.
        self.plan.store_unstreamed(&unstreamed::written(&self.source).await?)?;
        let (holder, streaming) = if found.follow {
            let (holder, streaming) = self.slot_and_snapshot(found).await?;
            (holder, Some(streaming))
        } else {
            (SnapshotHolder::new(self.source_client("pgmig snapshot").await?, None).await?, None)
        };
        self.store_plan(&holder, found).await?;
        self.planned_event().await?;
        Ok((streaming, holder))
    }

    async fn slot_and_snapshot(&self, found: &Sentinel) -> Result<(SnapshotHolder, Streaming)> {
        let name = &self.config.slot_name;
        if slot::find(&self.source, name).await?.is_some() {
            // Left by an earlier try of this phase, whose session may just be ending.
            check_slot(&self.source, name, Lsn(u64::MAX), Reader::MayBeAnother).await?;
            slot::drop(&self.source, name).await?;
        }
        empty_spool(&self.config.dir)?;
        let mut published = Vec::new();
        if found.plugin == "pgoutput" {
            published = self.tables_to_publish(&self.source).await?;
            let tables: Vec<(TableName, bool)> =
                published.iter().filter(|t| t.logged).map(|t| (t.name.clone(), t.identified)).collect();
            slot::create_publications(&self.source, &self.config.name, &tables).await?;
        }
        // Before the slot: what is altered behind the snapshot is told.
        self.capture_ddl(&found.plugin).await?;
        let mut client = ReplicationClient::connect(&self.config.source, Side::Source, slot::RECEIVER).await?;
        crash::before(crash::SLOT);
        let creating = client.create_slot(name, &found.plugin, false, Snapshot::Export);
        let created = self.while_waiting(creating).await?;
        crash::after(crash::SLOT);
        if let Some(endpos) = found.endpos.filter(|endpos| *endpos < created.consistent_point) {
            return Err(Error::usage(format!("endpos {endpos} is behind startpos {}", created.consistent_point))
                .hint("the copy holds every change up to startpos: give a later position, or none"));
        }
        let snapshot = created.snapshot.as_deref().map(|snapshot| (snapshot, created.consistent_point));
        let holder = SnapshotHolder::new(self.source_client("pgmig snapshot").await?, snapshot).await?;
        sentinel::set_startpos(&self.target, &self.config.name, created.consistent_point).await?;
        if found.plugin == "pgoutput" {
            let under_snapshot = self.tables_to_publish(&holder.client).await?;
            let published: HashSet<(u32, &TableName)> = published.iter().map(|t| (t.oid, &t.name)).collect();
            let missing = under_snapshot.iter().find(|t| t.logged && !published.contains(&(t.oid, &t.name)));
            if let Some(table) = missing {
                return Err(Error::new(Exit::Source, format!("{} was created while the migration began", table.name))
                    .hint("run the same command again"));
            }
        }
        let streaming = self.start_stream(client, found, created.consistent_point).await?;
        Ok((holder, streaming))
    }

    /// Of partitions that go into one table of the target the root, where it stands for those that come later
    /// too: for one without a key of its own the source would refuse UPDATE and DELETE of a new one.
    async fn tables_to_publish(&self, source: &Client) -> Result<Vec<Table>> {
        let mut tables = select(source, self.filters.as_ref(), true, Sizes::Estimates).await?.tables;
        for united in unite(source, self.there().await?.as_ref(), true, &mut tables).await? {
            if !united.gives_key {
                tables.retain(|table| table.name != united.root);
                tables.extend(united.tables);
            }
        }
        Ok(tables)
    }

    /// What the target has already, if tables of it are kept.
    async fn there(&self) -> Result<Option<There>> {
        Ok(if self.config.keep_tables { Some(layout::there(&self.target).await?) } else { None })
    }

    /// Creating a slot waits for every transaction that was running when it began: says for which, and gives
    /// up in time.
    async fn while_waiting<T>(&self, creating: impl Future<Output = Result<T>>) -> Result<T> {
        let mut creating = std::pin::pin!(creating);
        let mut waiting = Waiting::new(self.config.slot_wait);
        loop {
            tokio::select! {
                created = &mut creating => return created,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match waiting.look(&self.source).await {
                Ok(told) => told.into_iter().for_each(|text| self.report.info(text)),
                Err(given_up) => {
                    // It would wait on, and the slot be there in the end.
                    slot::end_left_over(&self.source, &self.config.slot_name).await?;
                    return Err(given_up);
                }
            }
        }
    }

    async fn store_plan(&self, holder: &SnapshotHolder, found: &Sentinel) -> Result<()> {
        let there = self.there().await?;
        let asked = draft::Asked {
            source: &self.config.source,
            filters: self.filters.as_ref(),
            follow: found.follow,
            cut: self.config.cut,
            leave: self.config.leave,
            large_object_parts: self.config.large_object_parts,
            requirements: self.config.requirements.as_ref(),
            drop_if_exists: self.config.drop_if_exists,
            there: there.as_ref(),
            roles: match self.config.roles {
                Some(passwords) => Some(Roles {
                    passwords,
                    there: checks::roles(&self.target).await?,
                    by_superuser: checks::is_superuser(&self.target).await?,
                }),
                None => None,
            },
            target_version: Some(self.target_version().await?),
            target_database: Some(self.config.target.dbname.clone()),
        };
        let drafted = draft(holder, &asked, &self.config.dir.join("schema.dump")).await;
        // What pg_dump cannot do without the snapshot says nothing of why it is gone.
        let draft = drafted.map_err(|err| if holder.client.is_closed() { holder.lost(err) } else { err })?;
        for warning in draft.warnings(&asked) {
            self.report.warning(warning);
        }
        let mut steps = draft.steps;
        if found.follow && self.flavour == Flavour::Plain {
            steps.extend(relax_identity(&draft.selected.always_identity));
        }
        // They fire for whatever is made after them.
        steps.sort_by_key(|step| step.kind == "EVENT TRIGGER" || step.name.starts_with("EVENT TRIGGER "));
        let mut selection = draft.selected.selection;
        let forms = crate::source::columns::forms(&holder.client).await?;
        selection.origins =
            selection.tables.iter().filter_map(|name| Some(Origin::new(name, forms.get(name)?))).collect();
        self.plan.store_selection(&selection)?;
        let doing = || "store the plan".to_string();
        self.target.batch_execute("begin").await.on_target(doing)?;
        queue::store_parts(&self.target, &self.config.name, &draft.parts).await?;
        queue::store_steps(&self.target, &self.config.name, &steps).await?;
        queue::mark_one_moment(&self.target, &self.config.name, &draft.one_moment).await?;
        sentinel::set_phase(&self.target, &self.config.name, Phase::Schema).await?;
        crash::before(crash::PLAN);
        self.target.batch_execute("commit").await.on_target(doing)?;
        crash::after(crash::PLAN);
        self.plan.timing("phase schema")?;
        self.report.phase(Phase::Schema);
        Ok(())
    }

    pub(super) async fn target_version(&self) -> Result<i32> {
        let row = self
            .target
            .query_one("select current_setting('server_version_num')::int", &[])
            .await
            .on_target(|| "read the version of the target".into())?;
        Ok(row.get(0))
    }
}
