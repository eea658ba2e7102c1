//! What becomes of DDL on the source: with `--ddl` it is told in the stream, and applied or stopped at there.

use std::sync::atomic::Ordering;

use super::Run;
use crate::apply::ddl::{Mode, Taken};
use crate::error::Result;
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
        let why = if plugin == "pgoutput" && checks::abilities(&self.source).await?.version < 140_000 {
            "pgoutput sends no messages before PostgreSQL 14"
        } else if !ddl::capture(&self.source, name, self.takes_partitions()?).await? {
            "its role may make no event trigger"
        } else {
            self.told_ddl.store(true, Ordering::Relaxed);
            return Ok(());
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
