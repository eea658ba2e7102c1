//! The end of a run: what could not be done before the last change was there.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Run;
use crate::connect;
use crate::crash;
use crate::error::{Error, Result};
use crate::model::{Phase, TableName};
use crate::source::catalog::{self, SequenceValue};
use crate::target::{checks, objects, queue};

/// How many values sequences are ahead of the source's while it is followed, and how often they are looked at.
const MARGIN: i64 = 1000;
const AHEAD_EVERY: Duration = Duration::from_secs(30);

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

    /// Sequences stand exactly where those of the source stand now; says how many there are.
    pub(super) async fn sequences(&self) -> Result<usize> {
        let values = self.sequence_values().await?;
        let values: Vec<(TableName, i64, bool)> =
            values.into_iter().map(|value| (value.name, value.last_value, value.is_called)).collect();
        crash::before(crash::SEQUENCES);
        objects::set_sequences(&self.target, &values).await?;
        crash::after(crash::SEQUENCES);
        Ok(values.len())
    }

    /// Sequences that have moved since `known` get ahead of the source's, so that none stands behind where
    /// the target has to take over at once.
    pub(super) async fn sequences_ahead(&self, known: &mut HashMap<TableName, SequenceValue>) -> Result<()> {
        let values = self.sequence_values().await?;
        let moved = values.into_iter().filter(|value| known.get(&value.name) != Some(value)).collect::<Vec<_>>();
        let ahead: Vec<(TableName, i64, bool)> =
            moved.iter().map(|value| (value.name.clone(), value.ahead(MARGIN), value.is_called)).collect();
        objects::set_sequences(&self.target, &ahead).await?;
        known.extend(moved.into_iter().map(|value| (value.name.clone(), value)));
        Ok(())
    }

    /// Does so while changes are followed. Ends only with an error.
    pub(super) async fn keep_sequences_ahead(&self) -> Error {
        let mut known = HashMap::new();
        loop {
            let work = async {
                if self.sentinel().await?.cutover.is_none() { self.sequences_ahead(&mut known).await } else { Ok(()) }
            };
            match work.await {
                Err(err) if err.passing() || connect::unreachable(&err) => {
                    tracing::debug!(error = %err.chain(), "sequences are looked at again later");
                }
                Err(err) => return err,
                Ok(()) => {}
            }
            tokio::time::sleep(AHEAD_EVERY).await;
        }
    }

    async fn sequence_values(&self) -> Result<Vec<SequenceValue>> {
        let source = self.source_client("pgmig run").await?;
        let there: HashSet<TableName> = catalog::sequences(&source).await?.into_iter().collect();
        let names: Vec<TableName> = match self.plan.selection()? {
            // One that was dropped on the source in the meantime has no value to carry over, one that a column got
            // in the meantime has.
            Some(selection) => {
                let mut names: HashSet<TableName> = selection.sequences.into_iter().collect();
                let left = |name: &TableName| selection.left_out.iter().any(|left| left.name == name.to_string());
                let new = catalog::owned_sequences(&source, &selection.tables).await?;
                names.extend(new.into_iter().filter(|name| !left(name)));
                names.retain(|name| there.contains(name));
                names.into_iter().collect()
            }
            // The plan is lost with its disk: the source still has them.
            None => there.into_iter().collect(),
        };
        let names = checks::existing(&self.target, &names).await?;
        catalog::sequence_values(&source, &names).await
    }
}
