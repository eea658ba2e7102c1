//! The phases schema, copy and indexes of a run.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Run;
use crate::copy::board::Board;
use crate::copy::builder::Builder;
use crate::copy::worker::{Shared, Worker};
use crate::copy::{extension_data, pool};
use crate::error::{Error, Exit, Result};
use crate::model::Phase;
use crate::source::large_objects::Belongings;
use crate::source::snapshot::{self, SnapshotHolder};
use crate::target::{extension_parts, objects, queue, rounds};

impl Run {
    /// Goes on from `phase` until every table is copied and indexed. `holder` keeps the snapshot of a
    /// run that has just planned; one that comes back takes a new one.
    pub(super) async fn copy(&self, phase: Phase, holder: Option<SnapshotHolder>, follow: bool) -> Result<()> {
        let name = &self.config.name;
        if phase <= Phase::Schema {
            self.stage("schema").await?;
        }
        if phase <= Phase::Copy {
            self.enter(Phase::Copy).await?;
        } else {
            self.report.phase(phase);
        }
        let board = Arc::new(Board::default());
        // Kept until the copy is over: a worker that leaves the snapshot for a while comes back to it.
        let mut held = None;
        let workers = if queue::parts_left(&self.target, name).await? == 0 {
            Vec::new()
        } else {
            let holder = match holder {
                Some(holder) => holder,
                None => self.new_snapshot(phase, follow).await?,
            };
            if self.config.cut.snapshot_per_part
                && let Some(table) = queue::needs_one_snapshot(&self.target, name).await?
            {
                return Err(Error::usage(format!("{table} was cut for a copy under one snapshot"))
                    .hint("leave --snapshot-per-part out, or begin again (pgmig cleanup --force, empty the target, pgmig run)"));
            }
            self.extension_data(&holder).await?;
            let workers = self.workers(&holder, &board, follow).await?;
            held = Some(holder).filter(|_| !self.config.cut.snapshot_per_part);
            workers
        };
        let mut builders = Vec::new();
        for _ in 0..self.config.index_jobs {
            builders.push(self.builder(&board).await?);
        }
        rounds::hold_table_steps(&self.target, name, self.config.fail_fast).await?;
        queue::put_off_one_moment(&self.target, name).await?;
        board.offer(queue::tables_to_build(&self.target, name, false).await?);
        let copied = async || {
            drop(held);
            // Those without rows, and those whose worker did not hear that its Part was committed.
            board.offer(queue::tables_to_build(&self.target, name, true).await?);
            if phase <= Phase::Copy { self.enter(Phase::Indexes).await } else { Ok(()) }
        };
        pool::run(workers, builders, &board, copied).await?;
        let left = queue::table_steps_left(&self.target, name).await?;
        if left > 0 {
            return Err(Error::new(Exit::Target, format!("{left} indexes, constraints or statistics were not made"))
                .hint("run the same command again"));
        }
        self.stage("attach").await?;
        self.stage("rest").await
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

    async fn workers(&self, holder: &SnapshotHolder, board: &Arc<Board>, follow: bool) -> Result<Vec<Worker>> {
        let shared = Arc::new(Shared {
            source: self.config.source.clone(),
            target: self.config.target.clone(),
            migration: self.config.name.clone(),
            exported: (!self.config.cut.snapshot_per_part).then(|| holder.exported.clone()),
            lsn: holder.lsn,
            follow,
            large_objects: Semaphore::new(self.config.large_object_parts.max(1)),
            belongings: Belongings {
                owner: !self.config.leave.owner,
                acl: !self.config.leave.acl,
                comments: !self.config.leave.comments,
            },
            board: Arc::clone(board),
            report: self.report.clone(),
            throttle: self.throttle.clone(),
        });
        let mut workers = Vec::new();
        for _ in 0..self.config.table_jobs {
            workers.push(Worker::connect(Arc::clone(&shared)).await?);
        }
        Ok(workers)
    }

    async fn builder(&self, board: &Arc<Board>) -> Result<Builder> {
        // A crash of the target takes an object and its mark together, flushed or not.
        let client = self.target_client("pgmig index", &[("synchronous_commit", "off")]).await?;
        objects::more_maintenance_work_mem(&client, self.config.maintenance_work_mem).await?;
        let (migration, report) = (self.config.name.clone(), self.report.clone());
        Ok(Builder { client, migration, board: Arc::clone(board), report })
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
        // Once a table has all its indexes, it must be of one moment.
        let keep_ranges = phase <= Phase::Copy;
        for table in queue::restart_split_tables(&self.target, &self.config.name, keep_ranges).await? {
            self.report.info(format!("{table} was copied in part and is copied anew"));
        }
        self.planned_event().await?;
        SnapshotHolder::new(self.source_client("pgmig snapshot").await?, None).await
    }
}
