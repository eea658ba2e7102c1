//! The phases schema, copy and indexes of a run.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::forecast::Forecaster;
use super::{Config, Control, Run, watchdog};
use crate::connect::{self, Side};
use crate::copy::board::Board;
use crate::copy::builder::{self, Builder};
use crate::copy::extension_data;
use crate::copy::in_hand::InHand;
use crate::copy::pool::{self, Hand};
use crate::copy::shared::Shared;
use crate::copy::worker::Worker;
use crate::crash;
use crate::error::{Error, Exit, Result};
use crate::model::{Lsn, Phase};
use crate::patience::Patience;
use crate::report::Reporter;
use crate::source;
use crate::source::large_objects::Belongings;
use crate::source::snapshot::{self, SnapshotHolder};
use crate::target::{extension_parts, queue, rounds, sentinel};

impl Run {
    /// Goes on from `phase` until every table is copied and indexed. `holder` keeps the snapshot of a
    /// run that has just planned, or of one that has lost other sessions; without it a new one is taken.
    pub(super) async fn copy(&self, phase: Phase, holder: &mut Option<SnapshotHolder>, follow: bool) -> Result<()> {
        let name = &self.config.name;
        if phase <= Phase::Schema {
            self.unless_stopping(self.stage("schema")).await?;
        }
        if phase <= Phase::Copy {
            self.enter(Phase::Copy).await?;
        } else {
            self.report.phase(phase);
        }
        let board = Arc::new(Board::default());
        let per_part = self.config.cut.snapshot_per_part;
        // It ends with this.
        let mut beside = JoinSet::new();
        let workers = if queue::parts_left(&self.target, name).await? == 0 {
            Vec::new()
        } else {
            // Kept until the copy is over: a worker that leaves the snapshot for a while comes back to it.
            let holder = match holder {
                Some(holder) => holder,
                None => {
                    let fresh = self.new_snapshot(phase, follow).await?;
                    self.renew_partitions(&fresh.client).await?;
                    self.renew_columns(&source::columns::forms(&fresh.client).await?).await?;
                    holder.insert(fresh)
                }
            };
            if per_part && let Some(table) = queue::needs_one_snapshot(&self.target, name).await? {
                return Err(Error::usage(format!("{table} was cut for a copy under one snapshot"))
                    .hint("leave --snapshot-per-part out, or begin again (pgmig cleanup --force, empty the target, pgmig run)"));
            }
            self.extension_data(holder).await?;
            // From here on others may join.
            let exported = if per_part { "" } else { &holder.exported };
            sentinel::set_exported(&self.target, name, Some((exported, holder.lsn))).await?;
            beside.spawn(self.forecaster().watch());
            self.workers(holder, &board, follow, phase > Phase::Copy, true).await?
        };
        if per_part {
            drop(holder.take());
        }
        let builders = self.builders(&board).await?;
        rounds::hold_table_steps(&self.target, name, self.config.fail_fast).await?;
        queue::put_off_one_moment(&self.target, name).await?;
        board.offer(queue::tables_to_build(&self.target, name, false).await?);
        let copied = async || {
            sentinel::set_exported(&self.target, name, None).await?;
            drop(holder.take());
            // Those without rows, and those whose worker did not hear that its Part was committed.
            board.offer(queue::tables_to_build(&self.target, name, true).await?);
            if phase <= Phase::Copy { self.enter(Phase::Indexes).await } else { Ok(()) }
        };
        if let Err(err) = pool::run(workers, builders, &board, &self.control.stopping, copied).await {
            return Err(self.explain_altered(err).await);
        }
        let left = queue::table_steps_left(&self.target, name).await?;
        if left > 0 {
            return Err(Error::new(Exit::Target, format!("{left} indexes, constraints or statistics were not made"))
                .hint("run the same command again"));
        }
        self.unless_stopping(self.stage("attach")).await?;
        self.unless_stopping(self.stage("rest")).await
    }

    fn forecaster(&self) -> Forecaster {
        Forecaster {
            target: self.config.target.clone(),
            migration: self.config.name.clone(),
            report: self.report.clone(),
            patience: self.patience.clone(),
            throttle: self.control.throttle.clone(),
        }
    }

    /// Rows that users put into tables of extensions, before workers take the other Parts.
    async fn extension_data(&self, holder: &SnapshotHolder) -> Result<()> {
        if extension_parts::pending(&self.target, &self.config.name).await?.is_empty() {
            return Ok(());
        }
        let source = self.source_client("pgmig copy").await?;
        snapshot::begin_under(&source, Some(&holder.exported)).await?;
        let tag = snapshot::tag(&source).await?;
        let target = self.target_client("pgmig copy", &[]).await?;
        extension_data::copy(&source, &target, &self.config.name, &tag, holder.lsn, &self.report).await
    }

    pub(super) async fn workers(
        &self,
        holder: &SnapshotHolder,
        board: &Arc<Board>,
        follow: bool,
        late: bool,
        published: bool,
    ) -> Result<Vec<Hand>> {
        let exported = (!self.config.cut.snapshot_per_part).then(|| holder.exported.clone());
        let mut shared =
            shared(&self.config, (exported, holder.lsn), board, &self.report, &self.patience, &self.control);
        (shared.follow, shared.late, shared.published) = (follow, late, published);
        let shared = Arc::new(shared);
        self.give_way(&shared);
        workers(&self.config, shared).await
    }

    pub(super) async fn builders(&self, board: &Arc<Board>) -> Result<Vec<Builder>> {
        builders(&self.config, board, &self.report, &self.patience).await
    }

    /// The snapshot of the run that began the copy died with it. What is copied from now on carries
    /// another tag, and the stream reconciles the two, table by table. Without one, all must be of one.
    async fn new_snapshot(&self, phase: Phase, follow: bool) -> Result<SnapshotHolder> {
        if !follow && queue::parts_done(&self.target, &self.config.name).await? > 0 {
            return Err(Error::new(
                Exit::Phase,
                "the copy was interrupted, and without following changes it cannot go on under one snapshot",
            )
            .hint("begin again: pgmig cleanup --force, empty the target, then pgmig run"));
        }
        self.publish_partitions().await?;
        let holder = SnapshotHolder::new(self.source_client("pgmig snapshot").await?, None).await?;
        // What an earlier run's helpers still read is not stored any more.
        sentinel::set_exported(&self.target, &self.config.name, None).await?;
        // Once a table has all its indexes, it must be of one moment.
        let keep_ranges = phase <= Phase::Copy;
        crash::before(crash::ANEW);
        let anew = queue::restart_split_tables(&self.target, &self.config.name, keep_ranges).await?;
        crash::after(crash::ANEW);
        for table in anew {
            self.report.info(format!("{table} was copied in part and is copied anew"));
        }
        self.planned_event().await?;
        Ok(holder)
    }
}

/// What workers of a run share, of one that follows and copies for the first time.
pub(super) fn shared(
    config: &Config,
    (exported, lsn): (Option<String>, Lsn),
    board: &Arc<Board>,
    report: &Reporter,
    patience: &Patience,
    control: &Control,
) -> Shared {
    Shared {
        source: config.source.clone(),
        target: config.target.clone(),
        migration: config.name.clone(),
        exported,
        lsn,
        published: true,
        late: false,
        follow: true,
        large_objects: Semaphore::new(config.large_object_parts.max(1)),
        belongings: Belongings { owner: !config.leave.owner, acl: !config.leave.acl, comments: !config.leave.comments },
        board: Arc::clone(board),
        report: report.clone(),
        throttle: control.throttle.clone(),
        in_hand: InHand::default(),
        stopping: control.stopping.clone(),
        patience: patience.clone(),
    }
}

pub(super) async fn workers(config: &Config, shared: Arc<Shared>) -> Result<Vec<Hand>> {
    tokio::spawn(watchdog::watch(Arc::downgrade(&shared), config.stalled_after));
    let mut workers = Vec::new();
    for number in 0..config.table_jobs {
        let shared = Arc::clone(&shared);
        workers.push(if shared.throttle.admits(number) {
            Hand::Worker(Box::new(Worker::connect(shared, number).await?))
        } else {
            let target = connect::client(&config.target, Side::Target, "pgmig copy", &[]).await?;
            Hand::Resting { shared, number, target }
        });
    }
    Ok(workers)
}

pub(super) async fn builders(
    config: &Config,
    board: &Arc<Board>,
    report: &Reporter,
    patience: &Patience,
) -> Result<Vec<Builder>> {
    let shared = Arc::new(builder::Shared {
        target: config.target.clone(),
        migration: config.name.clone(),
        maintenance_work_mem: config.maintenance_work_mem,
        board: Arc::clone(board),
        report: report.clone(),
        patience: patience.clone(),
    });
    let mut builders = Vec::new();
    for _ in 0..config.index_jobs {
        builders.push(Builder::connect(Arc::clone(&shared)).await?);
    }
    Ok(builders)
}
