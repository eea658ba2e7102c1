//! What becomes of DDL on the source: with `--ddl` it is told in the stream, and applied or stopped at there.

use std::sync::Once;
use std::sync::atomic::Ordering;

use tokio_postgres::Client;

use super::Run;
use crate::apply::ddl::{Mode, Taken};
use crate::error::Result;
use crate::plan_db::PlanDb;
use crate::source::{checks, ddl};

impl Run {
    /// What was asked of this run, or else of one before it.
    pub(super) fn ddl(&self) -> Result<Mode> {
        Ok(match self.config.ddl {
            Some(mode) => mode,
            None => self.plan.ddl()?.and_then(|mode| Mode::parse(&mode)).unwrap_or(Mode::Off),
        })
    }

    /// What apply is told of it.
    pub(super) fn taken_ddl(&self) -> Result<Taken> {
        let selection = self.plan.selection()?.unwrap_or_default();
        let flag = |flag: &str| selection.left_out.iter().any(|left| left.why == flag);
        Ok(Taken {
            mode: self.ddl()?,
            key: self.plan.ddl_key()?,
            forged: Once::new(),
            partitions: self.takes_partitions()?,
            comments: flag("--no-comments"),
            privileges: flag("--no-acl"),
            owners: flag("--no-owner"),
            origins: selection.origins.into_iter().map(|origin| (origin.oid, origin.name)).collect(),
        })
    }

    /// Whether partitions that the source makes become part of the migration as they are made. What filters say of
    /// a new name only the source's catalog tells.
    pub(super) fn takes_partitions(&self) -> Result<bool> {
        Ok(self.ddl()? == Mode::Apply && self.filters.is_none() && !self.config.leave_new_tables)
    }

    /// What a plan says that DDL is told with. A plan that was lost takes what the side tells it with: it has told
    /// some meanwhile.
    pub(super) async fn ddl_key(&self, side: &Client, plan: &PlanDb) -> Result<String> {
        if let Some(key) = plan.ddl_key()? {
            return Ok(key);
        }
        let kept = ddl::kept_key(side, &self.config.name).await;
        let kept = kept.map_err(|err| match err.sqlstate() {
            Some("42501") => err.hint("run as the role that made the event triggers there, or with --ddl=off"),
            _ => err,
        })?;
        let key = kept.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        plan.set_ddl_key(&key)?;
        Ok(key)
    }

    /// Before a run goes on: whether the source has told its DDL ever since.
    pub(super) async fn was_ddl_told(&self) -> Result<()> {
        if let (true, Some(key)) = (self.ddl()? != Mode::Off, self.plan.ddl_key()?) {
            let told = ddl::is_captured(&self.source, &self.config.name, self.takes_partitions()?, &key).await?;
            self.told_ddl.store(told, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has the source tell its DDL from here on, or no longer.
    pub(super) async fn capture_ddl(&self, plugin: &str) -> Result<()> {
        let (mode, name) = (self.ddl()?, &self.config.name);
        if self.config.ddl.is_some() {
            self.plan.set_ddl(mode.as_str())?;
        }
        if mode == Mode::Off {
            return match self.config.ddl {
                Some(_) => ddl::release(&self.source, name).await.map(drop),
                None => Ok(()),
            };
        }
        self.told_ddl.store(false, Ordering::Relaxed);
        let why = if plugin == "pgoutput" && checks::abilities(&self.source).await?.version < 140_000 {
            "pgoutput sends no messages before PostgreSQL 14".to_string()
        } else {
            let key = self.ddl_key(&self.source, &self.plan).await?;
            match ddl::capture(&self.source, name, self.takes_partitions()?, &key).await? {
                Err(why) => why,
                Ok(()) => {
                    self.told_ddl.store(true, Ordering::Relaxed);
                    return Ok(());
                }
            }
        };
        self.report
            .warning(format!("the source cannot tell its DDL: {why}; apply stops at the first row that it shaped"));
        Ok(())
    }

    /// Whether the stream holds the source's DDL.
    pub(super) fn tells_ddl(&self) -> bool {
        self.told_ddl.load(Ordering::Relaxed)
    }
}
