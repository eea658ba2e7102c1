//! Changes of partitions of the source as changes of the one table of the target that their rows go into.

use std::sync::Arc;

use super::gather::{Gatherer, REMEMBERED};
use super::tags::Leaf;
use crate::model::TableName;
use crate::model::wire::{Change, Shape};

impl Gatherer {
    /// Makes a change of a partition one of its table.
    pub(super) fn unite(&mut self, change: &mut Change) {
        let Some(leaf) = self.tags.leaf(&change.shape.table) else { return };
        if self.united.len() >= REMEMBERED {
            self.united.clear();
        }
        let at = Arc::as_ptr(&change.shape) as usize;
        let (_, there) = self.united.entry(at).or_insert_with(|| {
            let there = Shape { table: leaf.root.clone(), ..Shape::clone(&change.shape) };
            (Arc::clone(&change.shape), Arc::new(there))
        });
        change.shape = Arc::clone(there);
    }

    /// The tables of the target that a TRUNCATE is about, and the partitions of which a table of the target holds
    /// more than the rows.
    pub(super) fn united_shapes(&self, shapes: &[Arc<Shape>]) -> (Vec<Arc<Shape>>, Vec<Leaf>) {
        let mut whole: Vec<Arc<Shape>> = Vec::with_capacity(shapes.len());
        let mut partly = Vec::new();
        let is_named = |name: &TableName| shapes.iter().any(|shape| shape.table == *name);
        for shape in shapes {
            let Some(leaf) = self.tags.leaf(&shape.table) else {
                whole.push(Arc::clone(shape));
                continue;
            };
            let root = &leaf.root;
            // pgoutput does not name the root beside its partitions, wal2json does.
            if is_named(root) || whole.iter().any(|shape| shape.table == *root) {
                continue;
            }
            if self.tags.leaves_of(root).all(is_named) {
                whole.push(Arc::new(Shape { table: root.clone(), columns: vec![], types: vec![], key: vec![] }));
            } else {
                partly.push(leaf.clone());
            }
        }
        (whole, partly)
    }
}
