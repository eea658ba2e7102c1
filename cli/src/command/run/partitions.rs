//! Partitions of the source whose rows go into one table of the target, while they come and go.
//!
//! wal2json tells every table, and a publication that holds their root all that come later, so a new partition
//! is in the stream from its first row: it is taken in where nothing was in it before it became one. What
//! else happens to partitions moves rows without a change of any row, so the table is copied anew.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::Client;

use super::Run;
use super::tables::Tables;
use crate::apply::tags;
use crate::copy::parts::{Cut, SplitBy};
use crate::copy::united::{self, leaf, parts_of, with_conditions};
use crate::error::{Error, Exit, Result};
use crate::model::{Lsn, TableName};
use crate::source::catalog::{self, Sizes};
use crate::source::partitions::{self, Partition, Root};
use crate::source::{self, slot};
use crate::target::queue::{self, Leaf};

/// Partitions that were seen to be dropped: where the source was then, and whether it was told.
pub(super) type Gone = HashMap<TableName, (Lsn, bool)>;

/// The partitions of a table as apply knows them.
pub(super) fn leaves_of(root: &TableName, leaves: Vec<Leaf>) -> Vec<(TableName, tags::Leaf)> {
    let of = |leaf: Leaf| (leaf.name, tags::Leaf { root: root.clone(), condition: leaf.condition });
    leaves.into_iter().map(of).collect()
}

/// What a look at the partitions needs of both sides.
struct Look<'a> {
    tables: &'a Tables,
    source: Client,
    target: Client,
    /// What the publications hold; None: the plugin tells every table.
    published: Option<HashSet<u32>>,
    /// Tables of the migration.
    own: HashSet<TableName>,
}

impl Look<'_> {
    fn is_told(&self, root: &Root, partition: &Partition) -> bool {
        self.published.as_ref().is_none_or(|oids| oids.contains(&root.oid) || oids.contains(&partition.oid))
    }
}

impl Run {
    /// The partitions that the source has of such tables.
    pub(super) async fn united_partitions(&self, source: &Client) -> Result<Vec<Partition>> {
        let united = queue::united(&self.target_client("pgmig watch", &[]).await?, &self.config.name).await?;
        Ok(found(source, &united).await?.into_iter().flat_map(|(_, partitions)| partitions).collect())
    }

    /// Whether a table that apply does not know is one of them.
    pub(super) async fn is_united_partition(&self, table: &TableName) -> Result<bool> {
        let partitions = self.united_partitions(&self.source_client("pgmig watch").await?).await?;
        Ok(partitions.iter().any(|partition| partition.name == *table))
    }

    /// Tables that are to be copied under this snapshot are copied from the partitions that it shows: whatever
    /// was written before it is not in the stream that counts.
    pub(super) async fn renew_partitions(&self, snapshot: &Client) -> Result<()> {
        let migration = &self.config.name;
        let mut planned = queue::united(&self.target, migration).await?;
        let pending = queue::pending_tables(&self.target, migration).await?;
        planned.retain(|root, _| pending.contains(root));
        for (Root { name, .. }, partitions) in found(snapshot, &planned).await? {
            let mut tables = catalog::tables(snapshot, Sizes::Estimates).await?;
            tables.retain(|table| partitions.iter().any(|partition| partition.name == table.name));
            if let Some(why) = united::refused(&name, &partitions, &tables, true) {
                return Err(Error::new(Exit::Source, why).hint("mend it on the source, then run again"));
            }
            let (here, there) = (source::checks::abilities(snapshot).await?.version, self.target_version().await?);
            let cut = Cut {
                larger_than: self.config.cut.larger_than,
                parts_max: self.config.cut.parts_max,
                by: SplitBy::Ctid,
                binary: here / 10_000 == there / 10_000,
            };
            let parts = parts_of(&name, &with_conditions(tables, &partitions), cut);
            queue::replace_parts(&self.target, migration, &name, &parts).await?;
            self.forget_partitions(planned.get(&name).map_or(&[], Vec::as_slice), &partitions)?;
        }
        Ok(())
    }

    /// What the stream still holds of partitions that are gone lies before the copy.
    fn forget_partitions(&self, planned: &[Leaf], found: &[Partition]) -> Result<()> {
        let gone = planned.iter().filter(|leaf| !found.iter().any(|found| found.name == leaf.name));
        let gone: Vec<TableName> = gone.map(|leaf| leaf.name.clone()).collect();
        let Some(mut selection) = self.plan.selection()?.filter(|_| !gone.is_empty()) else { return Ok(()) };
        selection.former_names.extend(gone);
        selection.former_names.sort();
        selection.former_names.dedup();
        self.plan.store_selection(&selection)
    }

    /// Looks which partitions have come and gone on the source. One that was dropped is told of once apply has
    /// passed that; at the end, without `gone`, at once.
    ///
    /// # Errors
    /// Rows have moved that the stream says nothing of.
    pub(super) async fn look_at_partitions(
        &self,
        plugin: &str,
        tables: &Tables,
        mut gone: Option<&mut Gone>,
    ) -> Result<()> {
        if !tables.has_leaves() || *tables.busy.borrow() {
            return Ok(());
        }
        let (source, target) =
            (self.source_client("pgmig watch").await?, self.target_client("pgmig watch", &[]).await?);
        let planned = queue::united(&target, &self.config.name).await?;
        let own = queue::tables(&target, &self.config.name).await?;
        let published = match plugin {
            "pgoutput" => Some(slot::published(&source, &self.config.name).await?),
            _ => None,
        };
        let look = Look { tables, source, target, published, own };
        for (root, partitions) in found(&look.source, &planned).await? {
            let leaves = planned.get(&root.name).map_or(&[][..], Vec::as_slice);
            for partition in &partitions {
                self.look_at(&look, &root, leaves, partition).await?;
            }
            let there = |leaf: &&Leaf| !partitions.iter().any(|p| p.name == leaf.name || p.oid == leaf.oid);
            for leaf in leaves.iter().filter(there) {
                if source::columns::exists(&look.source, &leaf.name).await? {
                    return Err(self.copy_anew(&root.name, &leaf.name, "was detached").await?);
                }
                self.is_gone(&look, &root.name, leaf, gone.as_deref_mut()).await?;
            }
        }
        Ok(())
    }

    /// Looks at one partition.
    async fn look_at(&self, look: &Look<'_>, root: &Root, leaves: &[Leaf], partition: &Partition) -> Result<()> {
        let known = leaves.iter().find(|known| known.name == partition.name);
        let renamed = || leaves.iter().any(|known| known.oid == partition.oid && known.attached == partition.attached);
        if known.is_some_and(|known| *known == leaf(partition)) && partition.told_apart && look.is_told(root, partition)
        {
            return Ok(());
        }
        let moved = match known {
            _ if !partition.told_apart => "has no key that tells its rows from all others of the table",
            _ if !look.is_told(root, partition) => {
                let one = [(partition.name.clone(), true)];
                slot::publish(&look.source, &self.config.name, &one).await?;
                // What is being written to it now is not in the stream, so the snapshot must show it.
                self.wait_for_writers().await?;
                "was not in the publication of pgmig"
            }
            Some(known) if known.oid != partition.oid => "was replaced by another one of that name",
            Some(known) if known.attached != partition.attached => "was detached and attached again",
            Some(_) => {
                queue::set_condition(&look.target, &self.config.name, &leaf(partition)).await?;
                look.tables.know(leaves_of(&root.name, vec![leaf(partition)]));
                return Ok(());
            }
            None if look.own.contains(&partition.name) => {
                queue::forget_table(&look.target, &self.config.name, &partition.name).await?;
                self.report.warning(format!(
                    "{} became a partition of {} on the source: the table of that name on the target is of no use any more",
                    partition.name, root.name
                ));
                "was a table of its own"
            }
            None if look.tables.was_ignored(&partition.name) => "was no part of the migration",
            None if renamed() => return self.take_in(look, partition, "has another name now").await,
            None if partition.born_one || partitions::is_empty(&look.source, &partition.name).await? => {
                return self.take_in(look, partition, "is new").await;
            }
            None => "was attached with the rows that it had",
        };
        Err(self.copy_anew(&root.name, &partition.name, moved).await?)
    }

    /// Apply knows the partitions that the queue has by now.
    pub(super) async fn know_partitions(&self, tables: &Tables) -> Result<()> {
        let united = queue::united(&self.target_client("pgmig watch", &[]).await?, &self.config.name).await?;
        tables.know(united.into_iter().flat_map(|(root, leaves)| leaves_of(&root, leaves)).collect());
        Ok(())
    }

    /// From now on the rows of a partition go into the table of its root. No gate is needed: changes of a name
    /// that apply does not know are in no Batch.
    async fn take_in(&self, look: &Look<'_>, partition: &Partition, why: &str) -> Result<()> {
        let (root, leaf) = (&partition.root, leaf(partition));
        if queue::add_leaf(&look.target, &self.config.name, root, &leaf).await? {
            look.tables.know(leaves_of(root, vec![leaf]));
            self.report.info(format!("{} {why} on the source: its rows go into {root}", partition.name));
        }
        Ok(())
    }

    /// The rows of a partition that was dropped stay on the target: no change removes them.
    async fn is_gone(&self, look: &Look<'_>, root: &TableName, leaf: &Leaf, gone: Option<&mut Gone>) -> Result<()> {
        if let Some(gone) = gone {
            let now = slot::current_lsn(&look.source).await?;
            let (at, told) = gone.entry(leaf.name.clone()).or_insert((now, false));
            if *told || look.tables.applied.borrow().level_with < *at {
                return Ok(());
            }
            *told = true;
            queue::forget_leaf(&look.target, &self.config.name, leaf).await?;
        }
        self.report.warning(format!(
            "{} was dropped on the source: on the target its rows stay in {root}; delete them there, or pgmig table resync {root}",
            leaf.name
        ));
        Ok(())
    }

    async fn copy_anew(&self, root: &TableName, partition: &TableName, what: &str) -> Result<Error> {
        self.copy_again(root).await?;
        let what = format!("{partition}, a partition of {root}, {what} on the source");
        Ok(Error::new(Exit::Differ, what).hint(
            "the stream does not tell all that was, or is, done to its rows: where it lacks a key, give it one \
             (alter table … replica identity full); then run again, and the table is copied anew",
        ))
    }
}

/// The partitions that the source has of these tables, by root and name.
async fn found(source: &Client, united: &BTreeMap<TableName, Vec<Leaf>>) -> Result<Vec<(Root, Vec<Partition>)>> {
    if united.is_empty() {
        return Ok(Vec::new());
    }
    let mut roots = partitions::roots(source).await?;
    roots.retain(|root| united.contains_key(&root.name));
    let oids: Vec<u32> = roots.iter().map(|root| root.oid).collect();
    let all = partitions::partitions(source, &oids).await?;
    let of = |root: &Root| all.iter().filter(|partition| partition.root == root.name).cloned().collect();
    Ok(roots.into_iter().map(|root| (root.clone(), of(&root))).collect())
}
