//! The phases catchup and follow: apply until endpos; foreign keys as soon as the target is at one
//! point in time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{RwLock, mpsc, watch};

use super::Run;
use super::drift::{Eyes, Seen};
use super::partitions::leaves_of;
use super::stream::Streaming;
use super::tables::Tables;
use crate::apply::born::Born;
use crate::apply::conflict::Deciding;
use crate::apply::drift::Drift;
use crate::apply::extension::ExtensionWriter;
use crate::apply::merge::Merger;
use crate::apply::plain::PlainWriter;
use crate::apply::tags::{Copied, Copy, Tag, Tags};
use crate::apply::{Applied, Apply, Gatherer, Watched, Writer};
use crate::connect::ROWS_AS_STORED;
use crate::error::{Context, Error, Exit, Result};
use crate::model::{KeyRange, Lsn, Phase, SnapshotTag, TableName};
use crate::source::{self, slot};
use crate::stream::spool::Spool;
use crate::target::install::Flavour;
use crate::target::{checks, keys, layout, queue, sentinel};

/// Apply is level with the source when less than this waits in the spool, in bytes.
const LEVEL_BYTES: u64 = 1 << 20;

impl Run {
    /// Applies until endpos is reached and the door behind it is closed.
    pub(super) async fn follow(&self, streaming: &mut Streaming, phase: Phase) -> Result<()> {
        match self.flavour {
            Flavour::Extension => self.apply(streaming, phase, ExtensionWriter::default(), &[]).await,
            Flavour::Plain => {
                // Arrays give the planner no statistics: keep it to the index of each key.
                let settings = [("enable_hashjoin", "off"), ("enable_mergejoin", "off")];
                self.apply(streaming, phase, PlainWriter::default(), &settings).await
            }
        }
    }

    async fn apply<W: Writer>(
        &self,
        streaming: &mut Streaming,
        phase: Phase,
        writer: W,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        self.tables_there(&self.plan.selection()?.unwrap_or_default().tables).await?;
        let united = queue::united(&self.target, &self.config.name).await?;
        for table in layout::routed(&self.target, &self.config.name).await? {
            self.report.info(match united.contains_key(&table) {
                true => format!("{table} is partitioned otherwise on the target: its rows are routed"),
                false => format!("{table} is partitioned on the target and not on the source: its rows are routed"),
            });
        }
        // What an earlier session of ours still commits counts: its end comes first.
        let settings = [&[("session_replication_role", "replica")], settings].concat();
        let client = self.target_client("pgmig apply", &settings).await?;
        sentinel::apply_alone(&client, &self.config.name).await?;
        client.batch_execute(ROWS_AS_STORED).await.on_target(|| "prepare a session on the target".into())?;
        let found = self.sentinel().await?;
        let replay_lsn = found.replay_lsn.unwrap_or_default();
        streaming.applied.send_replace(Applied { replay_lsn, level_with: replay_lsn, ..Applied::default() });
        let barrier = slot::current_lsn(&self.source_client("pgmig monitor").await?).await?;
        // An idle source may stand at a position that its stream never passes by itself.
        if let Err(err) = slot::nudge(&self.source_client("pgmig monitor").await?).await {
            tracing::debug!(error = %err.chain(), "the source takes no message: its keepalives will do");
        }
        if phase < Phase::Catchup {
            self.enter(Phase::Catchup).await?;
        } else {
            self.report.phase(phase);
        }
        let gate = Arc::new(RwLock::new(()));
        let drift = Drift::new(found.plugin == "pgoutput");
        let (tags, tagged) = watch::channel(Arc::new(self.tags().await?));
        let known = Arc::clone(&tagged.borrow());
        let applied = streaming.applied.subscribe();
        let tables =
            Tables { tags, gate: Arc::clone(&gate), applied, busy: watch::channel(false).0, ignored: Mutex::default() };
        let (lacking, lacked) = mpsc::channel(1);
        let mut gatherer = Gatherer::new(streaming.spool.reader(), known, self.ignored().await?, drift);
        gatherer.ddl = self.taken_ddl()?;
        gatherer.parents = self.parents(&united).await?;
        let mut apply = Apply::new(
            client,
            writer,
            gatherer,
            Merger::new(keys::unique_keys(&self.target).await?, keys::loud_tables(&self.target).await?),
            Deciding { policy: self.config.on_conflict, migration: self.config.name.clone() },
            replay_lsn,
            Watched {
                spool: streaming.spool.clone(),
                switches: streaming.switches.clone(),
                received: streaming.received.clone(),
                applied: streaming.applied.clone(),
                tags: tagged,
                gate: Arc::clone(&gate),
                stopping: self.control.stopping.clone(),
            },
        );
        let caught_up = self.when_level(&tables, streaming.spool.clone(), barrier);
        let mut caught_up = std::pin::pin!(caught_up);
        let seen = tokio::sync::Mutex::new(Seen::default());
        let watch = || self.watch_catalogs(&found.plugin, &tables, &seen);
        let mut catalogs = std::pin::pin!(watch());
        let mut requests = std::pin::pin!(self.table_requests(&tables, lacked));
        let mut cutovers = std::pin::pin!(self.serve_requests());
        let mut ahead = std::pin::pin!(self.keep_sequences_ahead());
        loop {
            let endpos = tokio::select! {
                reached = apply.run() => match reached {
                    Err(err) if err.exit() == Exit::Stopped && self.control.is_stopping() => {
                        // One of this run that has just begun is undone: the source takes no writes meanwhile.
                        let mut cutting = self.config.cutting.subscribe();
                        tokio::select! {
                            never = &mut cutovers => match never {},
                            _ = cutting.wait_for(|cutting| !cutting) => {}
                        }
                        streaming.stop().await?;
                        return Err(err);
                    }
                    // What it listens to is gone, and so is the stream: that is the error to tell.
                    Err(err) if err.exit() == Exit::Stopped => return Err(streaming.ended().await),
                    Err(err) if err.find::<Born>().is_some() => {
                        let born = err.find().map_or(&[][..], |Born(born)| born);
                        self.remember_born(born, &tables).await?;
                        continue;
                    }
                    Err(err) => {
                        if let Some(table) = apply.lacking.take() {
                            tables.lacks(&table);
                            // It holds one, and apply waits until that is done.
                            lacking.send(table).await.during(Exit::Bug, || "ask for a copy".into())?;
                            continue;
                        }
                        let drifted = apply.drifted.take();
                        match drifted {
                            Some(table) if self.is_united_partition(&table).await? => {
                                if *tables.busy.borrow() {
                                    tokio::select! {
                                        () = tables.idle() => {}
                                        ended = streaming.ended() => return Err(ended),
                                        drifted = &mut catalogs => return Err(drifted),
                                        failed = &mut requests => return Err(failed),
                                    }
                                } else {
                                    // A look that has begun holds what it read before this one.
                                    catalogs.set(watch());
                                    let mut seen = seen.lock().await;
                                    let sessions = self.sessions_to_look_by().await?;
                                    let eyes = Eyes::of(&sessions);
                                    match self.look_at_partitions(eyes, &found.plugin, &tables, Some(&mut seen.gone)).await {
                                        Err(err) if err.passing() => tokio::time::sleep(Duration::from_secs(1)).await,
                                        looked => looked?,
                                    }
                                    self.know_partitions(&tables).await?;
                                }
                                continue;
                            }
                            Some(table) if self.is_left_out(&found.plugin, &table).await? => {
                                self.report.info(format!("changes of {table}, which is no part of the migration, are left out"));
                                tables.ignored(&table);
                                apply.ignore(table);
                                continue;
                            }
                            drifted => return Err(self.explain_drift(err, drifted.as_ref()).await),
                        }
                    }
                    Ok(endpos) => endpos,
                },
                ended = streaming.ended() => return Err(ended),
                failed = &mut caught_up => return Err(failed),
                drifted = &mut catalogs => return Err(drifted),
                failed = &mut requests => {
                    if failed.exit() == Exit::Stopped {
                        streaming.stop().await?;
                    }
                    return Err(failed);
                }
                never = &mut cutovers => match never {},
                failed = &mut ahead => return Err(failed),
            };
            if *tables.busy.borrow() {
                // Before the end every table is copied.
                tokio::select! {
                    () = tables.idle() => continue,
                    ended = streaming.ended() => return Err(ended),
                    drifted = &mut catalogs => return Err(drifted),
                    failed = &mut requests => return Err(failed),
                }
            }
            let newest = tables.newest();
            if endpos < newest {
                return Err(Error::new(
                    Exit::Phase,
                    format!("endpos {endpos} is behind {newest}, where the last table was copied"),
                )
                .hint(format!(
                    "the copy was interrupted and went on later; set endpos to {newest} or later, then run again"
                )));
            }
            catalogs.set(watch());
            {
                let sessions = self.sessions_to_look_by().await?;
                let eyes = Eyes::of(&sessions);
                let new = self.look_for_drift(eyes, &found.plugin, None).await?;
                self.refuse_new(&self.made_before_the_end(new, eyes.source, streaming, &mut apply).await?).await?;
                self.look_at_partitions(eyes, &found.plugin, &tables, None).await?;
            }
            if !sentinel::enter_cutover(&self.target, &self.config.name, endpos).await? {
                // The switches are read again in a moment.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let over = tokio::select! {
                over = self.hold(&mut apply, streaming, endpos) => over?,
                never = &mut cutovers => match never {},
            };
            if over {
                break;
            }
        }
        streaming.stop().await
    }

    /// Changes of a table go into a table, which may be partitioned where that of the source is not.
    pub(super) async fn tables_there(&self, tables: &[TableName]) -> Result<()> {
        match checks::no_table(&self.target, tables).await? {
            None => Ok(()),
            Some(table) => Err(Error::new(
                Exit::Target,
                format!("{table} is a table on the source and none on the target"),
            )
            .hint("make it a table on the target, ordinary or partitioned, with the rows that it has there, then run again")),
        }
    }

    /// Partitioned tables: what a TRUNCATE says of them it says of their partitions too.
    async fn parents(&self, united: &BTreeMap<TableName, Vec<queue::Leaf>>) -> Result<HashSet<TableName>> {
        let mut parents: HashSet<TableName> = checks::partitioned(&self.target).await?.into_iter().collect();
        if !united.is_empty() {
            let source = self.source_client("pgmig watch").await?;
            let roots = source::partitions::roots(&source, |name| united.contains_key(name)).await?;
            parents.extend(source::partitions::below(&source, &roots).await?.into_iter().map(|(_, name)| name));
            parents.retain(|name| !united.contains_key(name));
        }
        Ok(parents)
    }

    /// Relations whose changes are known not to be wanted: what was left out, and what comes in other ways.
    pub(super) async fn ignored(&self) -> Result<HashSet<TableName>> {
        let mut ignored: HashSet<TableName> = checks::not_applied(&self.target).await?.into_iter().collect();
        let selection = self.plan.selection()?.unwrap_or_default();
        ignored.extend(selection.ignored);
        // Whatever they are on the target.
        for table in &selection.tables {
            ignored.remove(table);
        }
        Ok(ignored)
    }

    /// The tags of each table's copy.
    pub(super) async fn tags(&self) -> Result<Tags> {
        let mut found: HashMap<TableName, Vec<(Option<KeyRange>, Tag)>> = HashMap::new();
        for part in queue::tags(&self.target, &self.config.name).await? {
            let table = part.table;
            let (tag, lsn) = part.tag.ok_or_else(|| Error::bug(format!("{table} is not copied and apply begins")))?;
            let snapshot: SnapshotTag = tag.parse().during(Exit::Target, || format!("read the tag of {table}"))?;
            found.entry(table).or_default().push((part.range, Tag { snapshot, lsn }));
        }
        let mut tags = Tags::default();
        for (root, leaves) in queue::united(&self.target, &self.config.name).await? {
            tags.set_leaves(&root, leaves_of(&root, leaves));
        }
        for (table, mut parts) in found {
            let copied = if parts.len() == 1 {
                Copied::Whole(parts.remove(0).1)
            } else {
                let ranges = parts.into_iter().map(|(range, tag)| Some((range?, tag))).collect::<Option<_>>();
                let ranges =
                    ranges.ok_or_else(|| Error::bug(format!("the Parts of {table} come from two snapshots")))?;
                Copied::Ranges(ranges)
            };
            tags.insert(table, Copy::Done(copied));
        }
        Ok(tags)
    }

    /// Once apply has passed the end of the copy, makes and checks the foreign keys; then the migration
    /// is level with the source. Ends only with an error.
    async fn when_level(&self, tables: &Tables, spool: Spool, barrier: Lsn) -> Error {
        let mut applied = tables.applied.clone();
        let work = async {
            loop {
                // A table that had to be copied again is newer.
                let barrier = barrier.max(tables.newest());
                if applied.wait_for(|applied| applied.level_with >= barrier).await.is_err() {
                    return Ok(());
                }
                tables.idle().await;
                if tables.newest() <= barrier {
                    break;
                }
            }
            self.stage("unique").await?;
            self.foreign_keys(Some(Arc::clone(&tables.gate))).await?;
            if applied.wait_for(|applied| spool.bytes_after(applied.position) < LEVEL_BYTES).await.is_err() {
                return Ok(());
            }
            let found = self.sentinel().await?;
            if found.phase == Phase::Catchup { self.enter(Phase::Follow).await } else { Ok(()) }
        };
        match work.await {
            Err(err) => err,
            Ok(()) => std::future::pending().await,
        }
    }

    /// Foreign keys: added without a look at the rows, while apply waits for a moment, then validated
    /// beside it. Orphans are reported and stop nothing.
    pub(super) async fn foreign_keys(&self, gate: Option<Arc<RwLock<()>>>) -> Result<()> {
        let migration = &self.config.name;
        let foreign_keys = queue::pending_steps(&self.target, migration, "foreign_key").await?;
        if !foreign_keys.is_empty() {
            let _closed = match &gate {
                Some(gate) => Some(gate.write().await),
                None => None,
            };
            for failed in self.beside(foreign_keys, &HashMap::new()).await? {
                queue::skip_validation(&self.target, migration, &failed).await?;
            }
        }
        let validations = queue::pending_steps(&self.target, migration, "validate").await?;
        self.beside(validations, &HashMap::new()).await.map(drop)
    }
}
