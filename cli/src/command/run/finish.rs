//! The end of a run: what could not be done before the last change was there.

use std::collections::HashSet;

use super::Run;
use crate::crash;
use crate::error::Result;
use crate::model::{Phase, TableName};
use crate::source::catalog;
use crate::target::{checks, objects, queue};

impl Run {
    /// Foreign keys that are still missing, sequences, materialized views, and what would have fired
    /// while changes were applied. Every part of it may be done twice.
    pub(super) async fn finish(&self) -> Result<()> {
        self.enter(Phase::Cutover).await?;
        self.sequences().await?;
        self.stage("unique").await?;
        self.foreign_keys(None).await?;
        self.refresh().await?;
        self.stage("finish").await?;
        queue::give_up_rest(&self.target, &self.config.name).await?;
        self.enter(Phase::Done).await
    }

    /// Sequences stand exactly where those of the source stand now.
    async fn sequences(&self) -> Result<()> {
        let source = self.source_client("pgmig run").await?;
        let there: HashSet<TableName> = catalog::sequences(&source).await?.into_iter().collect();
        let names: Vec<TableName> = match self.plan.selection()? {
            // One that was dropped on the source in the meantime has no value to carry over.
            Some(selection) => selection.sequences.into_iter().filter(|name| there.contains(name)).collect(),
            // The plan is lost with its disk: the source still has them.
            None => there.into_iter().collect(),
        };
        let names = checks::existing(&self.target, &names).await?;
        let values: Vec<(TableName, i64, bool)> = catalog::sequence_values(&source, &names)
            .await?
            .into_iter()
            .map(|value| (value.name, value.last_value, value.is_called))
            .collect();
        crash::before(crash::SEQUENCES);
        objects::set_sequences(&self.target, &values).await?;
        crash::after(crash::SEQUENCES);
        Ok(())
    }
}
