//! Changes of a partitioned table: the row is read as the root has it, the leaf is found, and the leaf is
//! written to as any other table. A row that an update moves is deleted in one leaf and inserted into another.

use crate::relation::Table;
use crate::report::Watch;
use crate::route;
use crate::row::{Row, Scratch, refuse};
use crate::shape::Shape;
use crate::value::Encoding;
use crate::wire::{Malformed, Reader};
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use std::collections::HashMap;

/// A change whose values are read next, and all that it may touch. What is done returns the leaf that it
/// was done in.
pub(crate) struct Routing<'r, 'a> {
    pub watch: &'a Watch,
    pub encoding: Encoding,
    pub reader: &'r mut Reader<'a>,
    pub scratch: &'r mut Scratch<'a>,
    pub shape: &'r mut Shape<'a>,
    pub root: &'r mut Table,
    pub tables: &'r mut HashMap<pg_sys::Oid, Box<Table>>,
    /// The table that may still hold pages, or rows that are not stored yet.
    pub last: &'r mut pg_sys::Oid,
}

impl<'a> Routing<'_, 'a> {
    pub unsafe fn insert(&mut self) -> pg_sys::Oid {
        unsafe {
            self.root.require(pg_sys::ACL_INSERT);
            self.watch.change(c"insert into", &self.root.label_c);
            let (begin, slot) = (self.reader.at(), self.root.new);
            self.read(|row, root| {
                row.bound.require_whole_row(root);
                row.read_new(root, slot);
            });
            if !self.scratch.unchanged.is_empty() {
                refuse(Malformed { at: self.reader.at(), what: "before this byte: an unchanged value in an insert" });
            }
            let leaf = self.root.leaf_of(slot);
            self.store(leaf, begin);
            leaf
        }
    }

    pub unsafe fn update(&mut self) -> pg_sys::Oid {
        unsafe {
            self.root.require(pg_sys::ACL_UPDATE | pg_sys::ACL_SELECT);
            self.watch.change(c"update of", &self.root.label_c);
            let (begin, slot) = (self.reader.at(), self.root.new);
            self.read(|row, root| row.read_key_and_new(root, slot));
            let from = self.find("update", pg_sys::LockTupleMode::LockTupleNoKeyExclusive);
            let bound = self.shape.bound.as_ref().expect("bind has bound it");
            let kept = self.scratch.unchanged.iter().chain(&bound.kept).copied();
            self.root.keep_from(&self.tables[&from], kept);
            let into = self.root.leaf_of(slot);
            if from == into {
                let leaf = self.tables.get_mut(&from).expect("the row was found in it");
                self.root.pass_to(leaf, leaf.new);
                leaf.update();
                return into;
            }
            // What is kept still lies in the page of the old row.
            pg_sys::ExecMaterializeSlot(slot);
            self.tables.get_mut(&from).expect("the row was found in it").delete();
            self.store(into, begin);
            into
        }
    }

    pub unsafe fn delete(&mut self) -> pg_sys::Oid {
        unsafe {
            self.root.require(pg_sys::ACL_DELETE | pg_sys::ACL_SELECT);
            self.watch.change(c"delete from", &self.root.label_c);
            self.read(|row, root| row.read_key(root));
            let leaf = self.find("delete", pg_sys::LockTupleMode::LockTupleExclusive);
            self.tables.get_mut(&leaf).expect("the row was found in it").delete();
            leaf
        }
    }

    /// Reads values of the change as the root has them.
    fn read(&mut self, read: impl FnOnce(&mut Row<'_, 'a>, &mut Table)) {
        let Routing { watch, encoding, reader, scratch, shape, root, .. } = self;
        let bound = shape.bound.as_ref().expect("bind has bound it");
        read(&mut Row { watch, encoding: *encoding, reader, scratch, shape, bound }, root);
    }

    /// Inserts the root's row into a leaf. `begin`: where in the Batch its values begin.
    unsafe fn store(&mut self, leaf: pg_sys::Oid, begin: usize) {
        unsafe {
            self.turn_to(leaf);
            let leaf = self.tables.get_mut(&leaf).expect("it is open");
            let slot = if leaf.gathers { leaf.slot_to_gather(begin) } else { leaf.new };
            self.root.pass_to(leaf, slot);
            if leaf.gathers {
                leaf.gather(slot, self.reader.at(), self.watch);
            } else {
                leaf.insert();
            }
        }
    }

    /// Puts the row of the key into `found` of the leaf that it is in, which is returned.
    unsafe fn find(&mut self, what: &str, lock: pg_sys::LockTupleMode::Type) -> pg_sys::Oid {
        unsafe {
            let bound = self.shape.bound.as_ref().expect("bind has bound it");
            let router = self.root.router.as_ref().expect("it is a root");
            let candidates = if router.is_decided_by(&bound.key) {
                let slot = self.root.slot_of_key(bound, &self.scratch.key.values, &self.scratch.key.nulls);
                vec![self.root.leaf_of(slot)]
            } else {
                router.leaves.clone()
            };
            for oid in candidates {
                self.turn_to(oid);
                let leaf = self.tables.get_mut(&oid).expect("it is open");
                leaf.flush(self.watch);
                let bound = self.shape.leaf(leaf, self.encoding);
                if leaf.find(bound, &self.scratch.key, lock) {
                    self.root.router.as_mut().expect("it is a root").found_in(oid);
                    return oid;
                }
            }
            let message = format!("{what} of {} finds no row with key ({})", self.root.label, self.shape.key_names());
            self.watch.fail(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, message)
        }
    }

    /// Opens a leaf, and lets go of what another table still holds.
    unsafe fn turn_to(&mut self, leaf: pg_sys::Oid) {
        unsafe {
            if *self.last != leaf {
                if let Some(last) = self.tables.get_mut(self.last) {
                    last.rest(self.watch);
                }
                *self.last = leaf;
            }
            self.tables.entry(leaf).or_insert_with(|| {
                route::lock(leaf);
                let caller = pg_sys::MemoryContextSwitchTo(pg_sys::CurTransactionContext);
                let table = Box::new(Table::open(leaf, route::name(leaf), true));
                pg_sys::MemoryContextSwitchTo(caller);
                table
            });
        }
    }
}
