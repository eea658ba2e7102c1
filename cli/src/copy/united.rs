//! Partitions of the source whose rows go into one table of the target (`--keep-tables`): one that is not
//! partitioned, or otherwise. For the target they are Parts of that table; the stream knows them by their
//! own names.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::parts::{Cut, SplitBy, parts};
use crate::error::{Error, Exit, Result};
use crate::model::TableName;
use crate::source::catalog::Table;
use crate::source::partitions::{self, Partition, Root};
use crate::target::layout::There;
use crate::target::queue::{Leaf, Part};

/// A partitioned table of the source that the target has already.
#[derive(Debug)]
pub struct United {
    pub root: TableName,
    /// Whether new partitions have a key from it.
    pub gives_key: bool,
    pub tables: Vec<Table>,
    pub partitions: Vec<Partition>,
    /// All that is below it on the source, itself included.
    pub below: Vec<(u32, TableName)>,
}

/// The partitioned tables of the source that are there.
pub async fn roots(client: &Client, there: &There) -> Result<Vec<Root>> {
    partitions::roots(client, |name| there.partitioned.contains(name) || there.plain.contains(name)).await
}

/// Puts each partitioned table that is there in the place of its partitions.
///
/// # Errors
/// One of the partitions is not selected, or cannot be followed.
pub async fn unite(
    client: &Client,
    there: Option<&There>,
    follow: bool,
    tables: &mut Vec<Table>,
) -> Result<Vec<United>> {
    let Some(there) = there else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for root in roots(client, there).await? {
        let one = std::slice::from_ref(&root);
        let found = partitions::partitions(client, one).await?;
        let names: HashSet<&TableName> = found.iter().map(|leaf| &leaf.name).collect();
        let (of_root, others) = std::mem::take(tables).into_iter().partition(|table| names.contains(&table.name));
        let of_root: Vec<Table> = of_root;
        *tables = others;
        // Left out by the filters, as a whole.
        if of_root.is_empty() && !found.is_empty() {
            continue;
        }
        if let Some(why) = refused(&root.name, &found, &of_root, follow) {
            return Err(Error::new(Exit::Source, why).hint("see: pgmig preflight --keep-tables"));
        }
        let below = partitions::below(client, one).await?;
        tables.push(sum(&root, &of_root));
        all.push(United { root: root.name, gives_key: root.gives_key, tables: of_root, partitions: found, below });
    }
    tables.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

/// Why the rows of these partitions, of which `selected` are moved, cannot go into one table; None if they can.
pub fn refused(root: &TableName, found: &[Partition], selected: &[Table], follow: bool) -> Option<String> {
    if found.is_empty() {
        return Some(format!(
            "{root} has no partition on the source, and is kept on the target: nothing says what is to come"
        ));
    }
    let one =
        |why: &str, leaf: &Partition| Some(format!("{} {why}: the rows of {root} cannot go into one table", leaf.name));
    for leaf in found {
        let Some(table) = selected.iter().find(|table| table.name == leaf.name) else {
            return one("is left out, or holds no rows of its own", leaf);
        };
        if follow && !leaf.followed {
            return one("is unlogged", leaf);
        }
        if follow && !table.identified {
            return one("has no key that says which row an UPDATE or DELETE means", leaf);
        }
        if follow && !leaf.told_apart {
            return one("has a key that other partitions may hold too", leaf);
        }
    }
    None
}

/// Each table with what is kept of it as a partition.
fn leaves(tables: &[Table], found: &[Partition]) -> Vec<(Table, Leaf)> {
    let of = |table: &Table| Some((table.clone(), found.iter().find(|leaf| leaf.name == table.name).map(leaf)?));
    tables.iter().filter_map(of).collect()
}

/// What the migration keeps of a partition.
pub fn leaf(partition: &Partition) -> Leaf {
    let Partition { name, oid, attached, condition, .. } = partition.clone();
    Leaf { name, oid, attached, condition }
}

/// The partitions as one table.
fn sum(root: &Root, leaves: &[Table]) -> Table {
    let all = |of: fn(&Table) -> Option<u64>| leaves.iter().map(of).sum::<Option<u64>>();
    Table {
        oid: root.oid,
        name: root.name.clone(),
        bytes: leaves.iter().map(|leaf| leaf.bytes).sum(),
        blocks: leaves.iter().map(|leaf| leaf.blocks).sum(),
        rows: all(|leaf| leaf.rows),
        copy_bytes: all(|leaf| leaf.copy_bytes),
        columns: leaves.first().map_or(Vec::new(), |leaf| leaf.columns.clone()),
        binary_safe: leaves.iter().all(|leaf| leaf.binary_safe),
        identified: leaves.iter().all(|leaf| leaf.identified),
        float_column: leaves.iter().find_map(|leaf| leaf.float_column.clone()),
        logged: leaves.iter().all(|leaf| leaf.logged),
        split_key: None,
    }
}

/// The Parts of a table into which these partitions go: those of each, cut by its blocks. `found` is with what is
/// true of their rows.
pub fn parts_of(root: &TableName, tables: &[Table], found: &[Partition], cut: Cut) -> Vec<Part> {
    let larger_than = if cut.by == SplitBy::Ctid { cut.larger_than } else { None };
    let cut = Cut { larger_than, by: SplitBy::Ctid, ..cut };
    let of_leaf = |(table, leaf): &(Table, Leaf)| {
        parts(table, cut, &[])
            .into_iter()
            .map(move |part| Part { leaf: Some(leaf.clone()), ..part })
            .collect::<Vec<_>>()
    };
    let mut all: Vec<Part> = leaves(tables, found).iter().flat_map(of_leaf).collect();
    let count = all.len() as i32;
    for (at, part) in all.iter_mut().enumerate() {
        (part.table, part.number, part.parts) = (root.clone(), at as i32 + 1, count);
    }
    all
}
