//! Begins a migration: checks, installs, makes slot and snapshot, starts the stream and plans the copy.
//! Until all checks have passed nothing is changed on either side.

use tokio_postgres::Client;

use super::stream::Streaming;
use super::{Config, Run, identity};
use crate::args::PluginArg;
use crate::connect::Side;
use crate::copy;
use crate::copy::parts::{Cut, parts};
use crate::copy::steps::{relax_identity, steps};
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Lsn, Phase, TableName};
use crate::plan_db::{PlanDb, Selection};
use crate::preflight::{self, Asked, Facts};
use crate::report::Reporter;
use crate::source::catalog::{self, Table};
use crate::source::dump::{Section, Tools};
use crate::source::large_objects;
use crate::source::replication::{ReplicationClient, Snapshot};
use crate::source::slot;
use crate::source::snapshot::SnapshotHolder;
use crate::target::install::Flavour;
use crate::target::queue::Part;
use crate::target::sentinel::{self, Begin, Sentinel};
use crate::target::{install, queue};

/// Checks both sides, installs the schema `pgmig` and writes the sentinel.
pub(super) async fn begin(config: Config, report: Reporter, source: Client, target: Client) -> Result<Run> {
    let asked = Asked {
        follow: config.follow,
        slot_name: config.slot_name.clone(),
        wal2json: config.plugin == PluginArg::Wal2json,
        flavour: config.flavour,
        allow_insert_only: config.allow_insert_only,
    };
    let facts = preflight::new_migration(&source, &target, &asked).await?;
    if config.endpos.is_some() {
        still_ahead(config.endpos, slot::current_lsn(&source).await?)?;
    }
    // Found out before anything is changed, too.
    Tools::find((facts.source_version / 10_000) as u32).await?;
    let plugin = if config.follow { choose_plugin(&config, &facts, &source).await? } else { "none" };
    let plan = PlanDb::open(&config.dir, &identity(&facts.source_identity, &config.name))?;
    // What an earlier migration of this name left behind.
    match std::fs::remove_dir_all(config.dir.join("spool")) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            return Err(err).during(Exit::Dir, || "empty the spool".into());
        }
        _ => {}
    }
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
    Ok(Run { config, report, target, source, flavour, plan })
}

/// Refuses an endpos that lies behind where the copy will stand: the copy would hold more than was asked for.
fn still_ahead(endpos: Option<Lsn>, at: Lsn) -> Result<()> {
    match endpos {
        Some(endpos) if endpos < at => Err(Error::usage(format!(
            "endpos {endpos} is behind the source, which is at {at}: the copy would hold changes made after it"
        ))
        .hint(
            "give a position that the source has not passed, or leave --endpos out and set it later: pgmig set-endpos",
        )),
        _ => Ok(()),
    }
}

/// wal2json where it is allowed and carries every value; else pgoutput. Asked for by name, a plugin
/// that cannot do it is refused.
async fn choose_plugin(config: &Config, facts: &Facts, source: &Client) -> Result<&'static str> {
    if config.plugin == PluginArg::Pgoutput {
        return Ok("pgoutput");
    }
    let asked = config.plugin == PluginArg::Wal2json;
    let lossy = facts.tables.iter().find_map(|table| Some((&table.name, table.float_column.as_ref()?)));
    let refuse = |what: String| Error::new(Exit::Source, what).hint("use --plugin pgoutput");
    if facts.source_encoding != "UTF8" {
        // wal2json prints in the database's encoding, which is not JSON then.
        let what = format!("wal2json cannot be used on a database in {}", facts.source_encoding);
        return if asked { Err(refuse(what)) } else { Ok("pgoutput") };
    }
    match (slot::wal2json_keeps_nan(source).await, lossy) {
        (Ok(true), _) | (Ok(false), None) => Ok("wal2json"),
        (Ok(false), Some((table, column))) if asked => Err(refuse(format!(
            "the source's wal2json is older than 2.6 and turns NaN and infinity in column {column} of {table} into null"
        ))),
        (Ok(false), Some(_)) => Ok("pgoutput"),
        (Err(err), _) if asked => Err(Error::new(Exit::Source, "the source cannot decode with wal2json")
            .hint(match err.sqlstate() {
                Some("58P01" | "42704") => "install the package postgresql-NN-wal2json of the source's version, or use --plugin pgoutput",
                Some("42501") => "on the source, as superuser (no quotes round the whole list), then reload; or use --plugin pgoutput:\nalter system set output_plugin_libraries = pgoutput, test_decoding, wal2json;\nselect pg_reload_conf();",
                _ => "use --plugin pgoutput, which every server has",
            })
            .cause(err)),
        (Err(err), _) => {
            tracing::debug!(error = %err.chain(), "wal2json is not to be had");
            Ok("pgoutput")
        }
    }
}

impl Run {
    /// Makes slot and snapshot, starts the stream and stores the plan. Whatever an earlier try of this
    /// phase left is made anew: its snapshot is gone.
    pub(super) async fn plan(&self, found: &Sentinel) -> Result<(Option<Streaming>, SnapshotHolder)> {
        let (holder, streaming) = if found.follow {
            let (holder, streaming) = self.slot_and_snapshot(found).await?;
            (holder, Some(streaming))
        } else {
            (SnapshotHolder::new(self.source_client("pgmig snapshot").await?, None).await?, None)
        };
        let tables = catalog::tables(&holder.client).await?;
        self.store_plan(&holder, &tables, found).await?;
        self.planned_event().await?;
        Ok((streaming, holder))
    }

    async fn slot_and_snapshot(&self, found: &Sentinel) -> Result<(SnapshotHolder, Streaming)> {
        let name = &self.config.slot_name;
        slot::drop(&self.source, name).await?;
        let mut published = Vec::new();
        if found.plugin == "pgoutput" {
            published = catalog::tables(&self.source).await?;
            let tables: Vec<(TableName, bool)> =
                published.iter().filter(|t| t.logged).map(|t| (t.name.clone(), t.identified)).collect();
            slot::create_publications(&self.source, &self.config.name, &tables).await?;
        }
        let mut client = ReplicationClient::connect(&self.config.source, Side::Source, "pgmig receive").await?;
        let creating = client.create_slot(name, &found.plugin, false, Snapshot::Export);
        let created = self.while_waiting(creating).await?;
        still_ahead(found.endpos, created.consistent_point)?;
        let holder =
            SnapshotHolder::new(self.source_client("pgmig snapshot").await?, created.snapshot.as_deref()).await?;
        sentinel::set_startpos(&self.target, &self.config.name, created.consistent_point).await?;
        if found.plugin == "pgoutput" {
            let under_snapshot = catalog::tables(&holder.client).await?;
            let missing = under_snapshot.iter().find(|t| t.logged && !published.iter().any(|p| p.name == t.name));
            if let Some(table) = missing {
                return Err(Error::new(Exit::Source, format!("{} was created while the migration began", table.name))
                    .hint("run the same command again"));
            }
        }
        let streaming = self.start_stream(client, found, created.consistent_point).await?;
        Ok((holder, streaming))
    }

    /// Creating a slot waits for every transaction that was running when it began: says for which.
    async fn while_waiting<T>(&self, creating: impl Future<Output = Result<T>>) -> Result<T> {
        let mut creating = std::pin::pin!(creating);
        let mut told = None;
        loop {
            tokio::select! {
                created = &mut creating => return created,
                () = tokio::time::sleep(std::time::Duration::from_secs(3)) => {}
            }
            let oldest = crate::source::checks::oldest_transaction(&self.source).await?;
            if let Some((pid, application, user, age)) = oldest
                && told != Some(pid)
            {
                told = Some(pid);
                self.report.info(format!(
                    "the slot waits for a transaction that has been open for {age:.0} s on the source: pid {pid}, user {user}, application \"{application}\""
                ));
            }
        }
    }

    async fn store_plan(&self, holder: &SnapshotHolder, tables: &[Table], found: &Sentinel) -> Result<()> {
        let version: i32 = self.server_version(&holder.client).await?;
        let target_version: i32 = self.server_version(&self.target).await?;
        let cut = Cut {
            larger_than: self.config.split,
            binary: version / 10_000 == target_version / 10_000,
            by_ctid: version >= 140_000,
        };
        let mut parts: Vec<Part> = tables.iter().flat_map(|table| parts(table, cut)).collect();
        let (large_objects, bytes) = large_objects::size(&holder.client).await?;
        if large_objects > 0 && !self.config.skip_large_objects {
            parts.push(copy::parts::large_objects(bytes));
        }
        let objects = catalog::objects(&holder.client).await?;
        let tools = Tools::find((version / 10_000) as u32).await?;
        let file = self.config.dir.join("schema.dump");
        tools.dump(&self.config.source, &holder.exported, &file).await?;
        let pre = tools.entries(&file, Section::PreData, self.config.leave).await?;
        let post = tools.entries(&file, Section::PostData, self.config.leave).await?;
        let populated = catalog::populated_views(&holder.client).await?;
        let mut steps = steps(&pre, &post, &objects, tables, &populated);
        if found.follow && self.flavour == Flavour::Plain {
            steps.extend(relax_identity(&catalog::always_identity(&holder.client).await?));
        }
        let selection = Selection {
            tables: tables.iter().map(|table| table.name.clone()).collect(),
            sequences: catalog::sequences(&holder.client).await?,
            materialized_views: populated,
            insert_only: tables.iter().filter(|t| t.logged && !t.identified).map(|t| t.name.clone()).collect(),
        };
        if found.follow {
            if large_objects > 0 {
                let how = if self.config.skip_large_objects {
                    "left behind"
                } else {
                    "copied; what changes in them later is not followed"
                };
                self.report.warning(format!("{large_objects} large objects are {how}"));
            }
            for table in &selection.insert_only {
                self.report.warning(format!("{table} has no key: an UPDATE or DELETE on the source is not followed"));
            }
            for table in tables.iter().filter(|table| !table.logged) {
                self.report.warning(format!("{} is unlogged: it is copied, its changes are not followed", table.name));
            }
        }
        self.plan.store_selection(&selection)?;
        let doing = || "store the plan".to_string();
        self.target.batch_execute("begin").await.on_target(doing)?;
        queue::store_parts(&self.target, &self.config.name, &parts).await?;
        queue::store_steps(&self.target, &self.config.name, &steps).await?;
        sentinel::set_phase(&self.target, &self.config.name, Phase::Schema).await?;
        self.target.batch_execute("commit").await.on_target(doing)?;
        self.plan.timing("phase schema")?;
        self.report.phase(Phase::Schema);
        Ok(())
    }

    async fn server_version(&self, client: &Client) -> Result<i32> {
        let row = client
            .query_one("select current_setting('server_version_num')::int", &[])
            .await
            .during(Exit::Source, || "read the server's version".into())?;
        Ok(row.get(0))
    }
}
