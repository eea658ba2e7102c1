//! Partitions of the source whose rows go into one table of the target, while they come and go.
//!
//! wal2json tells every table, and a publication that holds their root all that come later, so a new partition
//! is in the stream from its first row: it is taken in where nothing was in it before it became one. What
//! else happens to partitions moves rows without a change of any row, so the table is copied anew.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::Client;

use super::Run;
use super::drift::Eyes;
use super::tables::Tables;
use crate::apply::tags;
use crate::copy::parts::{Cut, SplitBy};
use crate::copy::united::{self, leaf, parts_of};
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Lsn, TableName};
use crate::source::catalog::{self, Sizes};
use crate::source::partitions::{self, Partition, Root};
use crate::source::{self, slot, snapshot};
use crate::target::queue::{self, Leaf};

/// Partitions that were seen to be dropped, by oid: where the source was then, and whether it was told.
pub(super) type Gone = HashMap<u32, (Lsn, bool)>;

/// The partitions of a table as apply knows them.
pub(super) fn leaves_of(root: &TableName, leaves: Vec<Leaf>) -> Vec<(TableName, tags::Leaf)> {
    let of = |leaf: Leaf| (leaf.name, tags::Leaf { root: root.clone(), condition: leaf.condition });
    leaves.into_iter().map(of).collect()
}

/// What a look at the partitions needs of both sides.
struct Look<'a> {
    tables: &'a Tables,
    source: &'a Client,
    target: &'a Client,
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
    pub(super) async fn united_partitions(&self, eyes: Eyes<'_>) -> Result<Vec<Partition>> {
        let united = queue::united(eyes.target, &self.config.name).await?;
        Ok(found(eyes.source, &united).await?.into_iter().flat_map(|(_, partitions)| partitions).collect())
    }

    /// Whether a table that apply does not know is one of them.
    pub(super) async fn is_united_partition(&self, table: &TableName) -> Result<bool> {
        let partitions = self.united_partitions(Eyes::of(&self.sessions_to_look_by().await?)).await?;
        Ok(partitions.iter().any(|partition| partition.name == *table))
    }

    /// Tables that are to be copied under this snapshot are copied from the partitions that it shows: whatever
    /// was written before it is not in the stream that counts.
    pub(super) async fn renew_partitions(&self, snapshot: &Client) -> Result<()> {
        let migration = &self.config.name;
        let mut planned = queue::united(&self.target, migration).await?;
        let pending = queue::pending_tables(&self.target, migration).await?;
        planned.retain(|root, _| pending.contains(root));
        if planned.is_empty() {
            return Ok(());
        }
        let (here, there) = (source::checks::abilities(snapshot).await?.version, self.target_version().await?);
        let cut = Cut {
            // Before 14 each Part would read the whole partition.
            larger_than: self.config.cut.larger_than.filter(|_| here >= 140_000),
            parts_max: self.config.cut.parts_max,
            by: SplitBy::Ctid,
            binary: here / 10_000 == there / 10_000,
        };
        let all = catalog::tables(snapshot, Sizes::Estimates).await?;
        let mut found: HashMap<TableName, Vec<Partition>> =
            found(snapshot, &planned).await?.into_iter().map(|(root, found)| (root.name, found)).collect();
        for (root, leaves) in &planned {
            let Some(mut partitions) = found.remove(root) else {
                self.is_no_root(snapshot, root).await?;
                continue;
            };
            let mut tables = all.clone();
            tables.retain(|table| partitions.iter().any(|partition| partition.name == table.name));
            if let Some(why) = united::refused(root, &partitions, &tables, true) {
                return Err(Error::new(Exit::Source, why).hint("mend it on the source, then run again"));
            }
            partitions::read_conditions(snapshot, &mut partitions).await?;
            let parts = parts_of(root, &tables, &partitions, cut);
            queue::replace_parts(&self.target, migration, root, &parts).await?;
            self.forget_partitions(leaves, &partitions)?;
        }
        Ok(())
    }

    /// A table that is to be copied and is no partitioned table of the source any more.
    async fn is_no_root(&self, snapshot: &Client, root: &TableName) -> Result<()> {
        if source::columns::exists(snapshot, root).await? {
            return Err(Error::new(
                Exit::Differ,
                format!("{root} is no table with partitions of its own any more on the source"),
            )
            .hint("make it one again, or begin again (pgmig cleanup --force, empty the target, pgmig run)"));
        }
        let tag = snapshot::tag(snapshot).await?;
        let lsn = slot::current_lsn(&self.source).await?;
        queue::finish_dropped(&self.target, &self.config.name, root, &tag, lsn).await?;
        self.report.warning(format!("{root} was dropped on the source: it is empty on the target"));
        Ok(())
    }

    /// Before a snapshot that tables are copied anew under: whatever is written to their partitions behind it is
    /// in the stream.
    pub(super) async fn publish_partitions(&self) -> Result<()> {
        let migration = &self.config.name;
        let mut planned = queue::united(&self.target, migration).await?;
        let pending = queue::pending_tables(&self.target, migration).await?;
        planned.retain(|root, _| pending.contains(root));
        if planned.is_empty() || self.sentinel().await?.plugin != "pgoutput" {
            return Ok(());
        }
        let mut found = found(&self.source, &planned).await?;
        // The publication of a root holds all that is below it.
        found.retain(|(root, _)| !root.gives_key);
        let partitions = found.iter().flat_map(|(_, partitions)| partitions).filter(|p| p.told_apart && p.followed);
        let partitions: Vec<(TableName, bool)> = partitions.map(|partition| (partition.name.clone(), true)).collect();
        slot::publish(&self.source, migration, &partitions).await?;
        // What was being written to one of them when it was published is not in the stream.
        if partitions.is_empty() { Ok(()) } else { self.wait_for_writers().await }
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
        Eyes { source, target }: Eyes<'_>,
        plugin: &str,
        tables: &Tables,
        mut gone: Option<&mut Gone>,
    ) -> Result<()> {
        if !tables.has_leaves() || *tables.busy.borrow() {
            return Ok(());
        }
        let planned = queue::united(target, &self.config.name).await?;
        let own = queue::tables(target, &self.config.name).await?;
        let published = match plugin {
            "pgoutput" => Some(slot::published(source, &self.config.name).await?),
            _ => None,
        };
        let look = Look { tables, source, target, published, own };
        // All of them are looked at: a partition may have moved from one table to another.
        let mut first = None;
        for (root, partitions) in found(look.source, &planned).await? {
            let leaves = planned.get(&root.name).map_or(&[][..], Vec::as_slice);
            let mut moved = None;
            for leaf in leaves.iter().filter(|leaf| !partitions.iter().any(|found| found.name == leaf.name)) {
                if let Some(what) = self.look_for(&look, &root, leaf, &partitions, gone.as_deref_mut()).await? {
                    moved.get_or_insert((leaf.name.clone(), what));
                }
            }
            for partition in &partitions {
                if let Some(what) = self.look_at(&look, &root, leaves, partition).await? {
                    moved.get_or_insert((partition.name.clone(), what));
                }
            }
            if let Some((partition, what)) = moved {
                first.get_or_insert(self.copy_anew(&root.name, &partition, what).await?);
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Looks for a partition that the table has no more. Some: its rows went without a change of any row.
    async fn look_for(
        &self,
        look: &Look<'_>,
        root: &Root,
        leaf: &Leaf,
        partitions: &[Partition],
        gone: Option<&mut Gone>,
    ) -> Result<Option<&'static str>> {
        let is_other = source::columns::exists(look.source, &leaf.name).await?;
        if !is_other && partitions.iter().any(|found| found.oid == leaf.oid) {
            // It has another name now.
            return Ok(None);
        }
        if is_other || partitions::is_there(look.source, leaf.oid).await? {
            return Ok(Some("was detached, or is another table now,"));
        }
        self.is_gone(look, &root.name, leaf, gone).await.map(|()| None)
    }

    /// Looks at one partition. Some: its rows came without a change of any row.
    async fn look_at(
        &self,
        look: &Look<'_>,
        root: &Root,
        leaves: &[Leaf],
        partition: &Partition,
    ) -> Result<Option<&'static str>> {
        let known = leaves.iter().find(|known| known.name == partition.name);
        let renamed = || leaves.iter().any(|known| known.oid == partition.oid && known.attached == partition.attached);
        // Through wal2json a change is not told that came before the key.
        let had_key = look.published.is_some() || root.gives_key || partition.identity_kept;
        Ok(match known {
            _ if !partition.followed => Some("is unlogged"),
            _ if !partition.told_apart => Some("has no key that tells its rows from all others of the table"),
            _ if !look.is_told(root, partition) => Some("is not in the publication of pgmig"),
            Some(known) if known.oid != partition.oid => Some("was replaced by another one of that name"),
            Some(known) if known.attached != partition.attached => Some("was detached and attached again"),
            Some(_) => None,
            None if look.own.contains(&partition.name) => {
                queue::forget_table(look.target, &self.config.name, &partition.name).await?;
                self.report.warning(format!(
                    "{} became a partition of {} on the source: the table of that name on the target is of no use any more",
                    partition.name, root.name
                ));
                Some("was a table of its own")
            }
            None if look.tables.was_ignored(&partition.name) => Some("was no part of the migration"),
            None if renamed() => self.take_in(look, partition, "has another name now").await.map(|()| None)?,
            None if had_key && (partition.born_one || partitions::is_empty(look.source, &partition.name).await?) => {
                self.take_in(look, partition, "is new").await.map(|()| None)?
            }
            None if !had_key => Some("got its key later than it became one"),
            None => Some("was attached with the rows that it had"),
        })
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
        let doing = || format!("read the bounds of {}", partition.name);
        let mut one = [partition.clone()];
        look.source.batch_execute("begin").await.on_source(doing)?;
        let read = partitions::read_conditions(look.source, &mut one).await;
        look.source.batch_execute("rollback").await.on_source(doing)?;
        read?;
        let (root, leaf) = (&partition.root, leaf(&one[0]));
        if queue::add_leaf(look.target, &self.config.name, root, &leaf).await? {
            look.tables.know(leaves_of(root, vec![leaf]));
            self.report.info(format!("{} {why} on the source: its rows go into {root}", partition.name));
        }
        Ok(())
    }

    /// The rows of a partition that was dropped stay on the target: no change removes them.
    async fn is_gone(&self, look: &Look<'_>, root: &TableName, leaf: &Leaf, gone: Option<&mut Gone>) -> Result<()> {
        if let Some(gone) = gone {
            let now = slot::current_lsn(look.source).await?;
            let (at, told) = gone.entry(leaf.oid).or_insert((now, false));
            if *told || look.tables.applied.borrow().level_with < *at {
                return Ok(());
            }
            *told = true;
            queue::forget_leaf(look.target, &self.config.name, leaf).await?;
            look.tables.forget(&leaf.name);
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
    let roots = partitions::roots(source, |name| united.contains_key(name)).await?;
    let all = partitions::partitions(source, &roots).await?;
    let of = |root: &Root| all.iter().filter(|partition| partition.root == root.name).cloned().collect();
    Ok(roots.into_iter().map(|root| (root.clone(), of(&root))).collect())
}
