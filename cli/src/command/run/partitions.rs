//! Partitions of the source whose rows go into one table of the target, while they come and go.
//!
//! The publication holds their root, and wal2json tells every table, so a new partition is in the stream from
//! its first row: it is taken in where nothing was in it before it became one. What else happens to
//! partitions moves rows without a change of any row, so the table is copied anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Client;

use super::Run;
use super::tables::Tables;
use crate::apply::tags;
use crate::copy::parts::{Cut, SplitBy};
use crate::copy::united::{self, parts_of, with_conditions};
use crate::error::{Error, Exit, Result};
use crate::model::TableName;
use crate::source;
use crate::source::catalog::{self, Sizes};
use crate::source::partitions::{self, Partition};
use crate::target::queue::{self, Leaf};

/// The partitions of a table as apply knows them.
pub(super) fn leaves_of(root: &TableName, leaves: Vec<Leaf>) -> Vec<(TableName, tags::Leaf)> {
    let of = |leaf: Leaf| (leaf.name, tags::Leaf { root: root.clone(), condition: leaf.condition });
    leaves.into_iter().map(of).collect()
}

impl Run {
    /// The partitions that the migration knows.
    pub(super) async fn leaves(&self) -> Result<HashSet<TableName>> {
        let united = queue::united(&self.target_client("pgmig watch", &[]).await?, &self.config.name).await?;
        Ok(united.into_values().flatten().map(|leaf| leaf.name).collect())
    }

    /// The partitions that the source has of such tables.
    pub(super) async fn united_partitions(&self, source: &Client) -> Result<Vec<Partition>> {
        let united = queue::united(&self.target_client("pgmig watch", &[]).await?, &self.config.name).await?;
        found(source, &united).await
    }

    /// Tables that are to be copied under this snapshot are copied from the partitions that it shows: whatever
    /// was written before it is not in the stream that counts.
    pub(super) async fn renew_partitions(&self, snapshot: &Client) -> Result<()> {
        let migration = &self.config.name;
        let mut planned = queue::united(&self.target, migration).await?;
        if planned.is_empty() {
            return Ok(());
        }
        let pending = queue::pending_tables(&self.target, migration).await?;
        planned.retain(|root, _| pending.contains(root));
        let mut by_root: HashMap<TableName, Vec<Partition>> = HashMap::new();
        for partition in found(snapshot, &planned).await? {
            by_root.entry(partition.root.clone()).or_default().push(partition);
        }
        for (root, leaves) in planned {
            let found = by_root.remove(&root).unwrap_or_default();
            if found.len() == leaves.len() && found.iter().all(|found| leaves.contains(&leaf(found))) {
                continue;
            }
            let mut tables = catalog::tables(snapshot, Sizes::Estimates).await?;
            tables.retain(|table| found.iter().any(|leaf| leaf.name == table.name));
            if let Some(why) = united::refused(&root, &found, &tables, true) {
                return Err(Error::new(Exit::Source, why).hint("mend it on the source, then run again"));
            }
            let (here, there) = (source::checks::abilities(snapshot).await?.version, self.target_version().await?);
            let cut = Cut {
                larger_than: self.config.cut.larger_than,
                parts_max: self.config.cut.parts_max,
                by: SplitBy::Ctid,
                binary: here / 10_000 == there / 10_000,
            };
            let parts = parts_of(&root, &with_conditions(tables, &found), cut);
            queue::replace_parts(&self.target, migration, &root, &parts).await?;
            self.forget_partitions(&leaves, &found)?;
            self.report.info(format!("{root} has other partitions on the source by now: it is copied from these"));
        }
        Ok(())
    }

    /// What the stream still holds of partitions that are gone lies before the copy.
    fn forget_partitions(&self, planned: &[Leaf], found: &[Partition]) -> Result<()> {
        let Some(mut selection) = self.plan.selection()? else { return Ok(()) };
        let is_gone = |leaf: &&Leaf| !found.iter().any(|found| found.name == leaf.name);
        selection.former_names.extend(planned.iter().filter(is_gone).map(|leaf| leaf.name.clone()));
        selection.former_names.sort();
        selection.former_names.dedup();
        self.plan.store_selection(&selection)
    }

    /// Looks which partitions have come and gone on the source. `told`: what was told already; without it, at
    /// the end, nothing is told.
    ///
    /// # Errors
    /// Rows have moved that the stream says nothing of.
    pub(super) async fn look_at_partitions(
        &self,
        tables: &Tables,
        mut told: Option<&mut HashSet<TableName>>,
    ) -> Result<()> {
        let target = self.target_client("pgmig watch", &[]).await?;
        let planned = queue::united(&target, &self.config.name).await?;
        if planned.is_empty() || *tables.busy.borrow() {
            return Ok(());
        }
        let source = self.source_client("pgmig watch").await?;
        let found = found(&source, &planned).await?;
        for (root, leaves) in &planned {
            let of_root = || found.iter().filter(|partition| partition.root == *root);
            for partition in of_root() {
                let moved = match leaves.iter().find(|leaf| leaf.name == partition.name) {
                    Some(known) if *known == leaf(partition) => continue,
                    Some(known) if known.oid != partition.oid => "was replaced by another one of that name",
                    Some(_) => "holds rows of other bounds than before",
                    None if leaves.iter().any(|leaf| leaf.oid == partition.oid) => {
                        self.take_in(tables, &target, partition, "has another name now").await?;
                        continue;
                    }
                    None if partition.born_one || partitions::is_empty(&source, &partition.name).await? => {
                        self.take_in(tables, &target, partition, "is new").await?;
                        continue;
                    }
                    None => "was attached with the rows that it had",
                };
                return Err(self.copy_anew(root, &partition.name, moved).await?);
            }
            for leaf in leaves.iter().filter(|leaf| !of_root().any(|found| found.name == leaf.name)) {
                if of_root().any(|found| found.oid == leaf.oid) {
                    continue;
                }
                if source::columns::exists(&source, &leaf.name).await? {
                    return Err(self.copy_anew(root, &leaf.name, "was detached").await?);
                }
                if told.as_mut().is_some_and(|told| told.insert(leaf.name.clone())) {
                    self.report.warning(format!(
                        "{} was dropped on the source: on the target its rows stay in {root}; delete them there, or pgmig table resync {root}",
                        leaf.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a table that apply does not know is a partition that it knows now.
    pub(super) async fn take_in_partition(&self, tables: &Tables, table: &TableName) -> Result<bool> {
        self.look_at_partitions(tables, Some(&mut HashSet::new())).await?;
        Ok(tables.tags.borrow().leaf(table).is_some())
    }

    /// From now on the rows of a partition go into the table of its root.
    async fn take_in(&self, tables: &Tables, target: &Client, partition: &Partition, why: &str) -> Result<()> {
        let (root, leaf) = (&partition.root, leaf(partition));
        let one = std::slice::from_ref(partition);
        let mut table = catalog::tables(&self.source_client("pgmig watch").await?, Sizes::Estimates).await?;
        table.retain(|table| table.name == partition.name);
        if let Some(why) = united::refused(root, one, &table, true) {
            return Err(Error::new(Exit::Source, why).hint(format!(
                "give it the key that the others have, or alter table {} replica identity full; then run again",
                partition.name.sql()
            )));
        }
        queue::add_leaf(target, &self.config.name, root, &leaf).await?;
        let _closed = tables.gate.write().await;
        let known = leaves_of(root, vec![leaf]);
        tables
            .tags
            .send_modify(|tags| known.into_iter().for_each(|(name, leaf)| Arc::make_mut(tags).add_leaf(name, leaf)));
        self.report.info(format!("{} {why} on the source: its rows go into {root}", partition.name));
        Ok(())
    }

    async fn copy_anew(&self, root: &TableName, partition: &TableName, what: &str) -> Result<Error> {
        self.copy_again(root).await?;
        Ok(Error::new(Exit::Differ, format!("{partition}, a partition of {root}, {what} on the source"))
            .hint("its rows came or went without a change that the stream could tell: run again, and the table is copied anew"))
    }
}

fn leaf(partition: &Partition) -> Leaf {
    Leaf { name: partition.name.clone(), oid: partition.oid, condition: partition.condition.clone() }
}

/// The partitions that the source has of these tables, by root and name.
async fn found(source: &Client, united: &BTreeMap<TableName, Vec<Leaf>>) -> Result<Vec<Partition>> {
    if united.is_empty() {
        return Ok(Vec::new());
    }
    let mut roots = partitions::roots(source).await?;
    roots.retain(|(_, name)| united.contains_key(name));
    let roots: Vec<u32> = roots.into_iter().map(|(oid, _)| oid).collect();
    partitions::partitions(source, &roots).await
}
