//! Partitioned tables: to which leaf a row belongs, as the server's own routing says (ExecFindPartition, as
//! worker.c calls it), and where the row of a key may be. Rows are read as the root has them and written as
//! the leaf has them, columns mapped by name.
//! Must never guess a leaf: where a key does not decide it, every leaf is looked through.

use crate::bare;
use crate::relation::{Attribute, Table};
use crate::row::set_all_null;
use crate::shape::{Bound, KeyColumn};
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::collections::HashMap;
use std::ffi::c_int;
use std::ptr;

/// What the root of a partitioned table has beside what every table has.
pub struct Router {
    state: *mut pg_sys::ModifyTableState,
    routing: *mut pg_sys::PartitionTupleRouting,
    /// All that is below it and holds rows, the one that was found last in front.
    pub leaves: Vec<pg_sys::Oid>,
    /// Attributes of the root that decide where a row belongs, on every level.
    deciding: Vec<usize>,
    /// Of each leaf that was used: where the root's attributes lie in it.
    positions: HashMap<pg_sys::Oid, Vec<Option<usize>>>,
}

impl Router {
    /// For the root, in memory that lives as long as it is open.
    pub unsafe fn new(
        estate: *mut pg_sys::EState,
        root: *mut pg_sys::ResultRelInfo,
        attributes: &[Attribute],
    ) -> Router {
        unsafe {
            let state = pg_sys::palloc0(size_of::<pg_sys::ModifyTableState>()).cast::<pg_sys::ModifyTableState>();
            (*state).ps.type_ = pg_sys::NodeTag::T_ModifyTableState;
            (*state).ps.state = estate;
            (*state).operation = pg_sys::CmdType::CMD_INSERT;
            (*state).resultRelInfo = root;
            let relation = (*root).ri_RelationDesc;
            let (mut leaves, mut deciding) = (Vec::new(), Vec::new());
            look_below(relation, attributes, &mut leaves, &mut deciding);
            let routing = pg_guard_ffi_boundary(|| bare::ExecSetupPartitionTupleRouting(estate, relation));
            Router { state, routing, leaves, deciding, positions: HashMap::new() }
        }
    }

    pub unsafe fn close(self) {
        unsafe { pg_guard_ffi_boundary(|| bare::ExecCleanupTupleRouting(self.state, self.routing)) }
    }

    /// Whether a key decides in which leaf its row is.
    pub fn is_decided_by(&self, key: &[KeyColumn]) -> bool {
        self.deciding.iter().all(|at| key.iter().any(|column| column.attribute == *at))
    }

    /// Where a row was found, more may be.
    pub fn found_in(&mut self, leaf: pg_sys::Oid) {
        if let Some(at) = self.leaves.iter().position(|oid| *oid == leaf) {
            self.leaves[..=at].rotate_right(1);
        }
    }
}

/// Leaves below a partitioned table, and what of the root's attributes it and those below it are partitioned by.
unsafe fn look_below(
    relation: pg_sys::Relation,
    of_root: &[Attribute],
    leaves: &mut Vec<pg_sys::Oid>,
    deciding: &mut Vec<usize>,
) {
    unsafe {
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        for (at, attribute) in of_root.iter().enumerate().filter(|(_, attribute)| attribute.input.is_some()) {
            let number = pg_sys::get_attnum((*relation).rd_id, attribute.name.as_ptr());
            let member = c_int::from(number) - pg_sys::FirstLowInvalidHeapAttributeNumber;
            let set = pg_sys::bms_make_singleton(member);
            let mut in_expression = false;
            if pg_guard_ffi_boundary(|| bare::has_partition_attrs(relation, set, &mut in_expression)) {
                deciding.push(at);
            }
        }
        let below = &*pg_sys::RelationGetPartitionDesc(relation, true);
        let oids: Vec<(pg_sys::Oid, bool)> =
            (0..below.nparts as usize).map(|at| (*below.oids.add(at), *below.is_leaf.add(at))).collect();
        for (oid, is_leaf) in oids {
            if is_leaf {
                leaves.push(oid);
                continue;
            }
            let between = pg_sys::relation_open(oid, lock);
            look_below(between, of_root, leaves, deciding);
            pg_sys::relation_close(between, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

impl Table {
    /// The leaf that the row in `slot`, laid out as the root has it, belongs to. Raises 23514 if there is none.
    pub unsafe fn leaf_of(&self, slot: *mut pg_sys::TupleTableSlot) -> pg_sys::Oid {
        let router = self.router.as_ref().expect("only a partitioned table is asked");
        let (state, routing, root, estate) = (router.state, router.routing, self.result, self.estate);
        unsafe {
            let leaf = pg_guard_ffi_boundary(|| bare::ExecFindPartition(state, root, routing, slot, estate));
            (*(*leaf).ri_RelationDesc).rd_id
        }
    }

    /// Puts the values of a key where the root has them, into a slot that holds nothing else.
    pub unsafe fn slot_of_key(
        &self,
        bound: &Bound,
        values: &[pg_sys::Datum],
        nulls: &[bool],
    ) -> *mut pg_sys::TupleTableSlot {
        unsafe {
            let slot = self.found;
            pg_sys::ExecClearTuple(slot);
            set_all_null(slot, self.attributes.len());
            for (at, column) in bound.key.iter().enumerate() {
                *(*slot).tts_values.add(column.attribute) = values[at];
                *(*slot).tts_isnull.add(column.attribute) = nulls[at];
            }
            pg_sys::ExecStoreVirtualTuple(slot);
            slot
        }
    }

    /// Fills the root's attributes `wanted` from the row that was found in a leaf.
    pub unsafe fn keep_from(&mut self, leaf: &Table, wanted: impl Iterator<Item = usize>) {
        unsafe {
            pg_sys::slot_getallattrs(leaf.found);
            let (root, positions) = (self.new, self.positions_in(leaf));
            for at in wanted {
                if let Some(from) = positions[at] {
                    *(*root).tts_values.add(at) = *(*leaf.found).tts_values.add(from);
                    *(*root).tts_isnull.add(at) = *(*leaf.found).tts_isnull.add(from);
                }
            }
        }
    }

    /// Copies the root's row into a slot of the leaf.
    pub unsafe fn pass_to(&mut self, leaf: &Table, slot: *mut pg_sys::TupleTableSlot) {
        unsafe {
            pg_sys::ExecClearTuple(slot);
            set_all_null(slot, leaf.attributes.len());
            let (root, positions) = (self.new, self.positions_in(leaf));
            for (at, to) in positions.iter().enumerate() {
                if let Some(to) = *to {
                    *(*slot).tts_values.add(to) = *(*root).tts_values.add(at);
                    *(*slot).tts_isnull.add(to) = *(*root).tts_isnull.add(at);
                }
            }
            pg_sys::ExecStoreVirtualTuple(slot);
        }
    }

    fn positions_in(&mut self, leaf: &Table) -> &[Option<usize>] {
        let (attributes, router) = (&self.attributes, self.router.as_mut().expect("only a root routes"));
        router.positions.entry(leaf.oid).or_insert_with(|| {
            let is_there = |attribute: &&Attribute| attribute.input.is_some();
            let place = |attribute: &Attribute| {
                leaf.attributes.iter().position(|a| a.input.is_some() && a.name == attribute.name)
            };
            attributes.iter().map(|attribute| Some(attribute).filter(is_there).and_then(place)).collect()
        })
    }
}

/// Locks a leaf as `resolve` locks what is named.
pub unsafe fn lock(leaf: pg_sys::Oid) {
    unsafe { pg_sys::LockRelationOid(leaf, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) }
}

/// schema.table of a relation, for messages.
pub unsafe fn name(oid: pg_sys::Oid) -> String {
    unsafe {
        let text = |name: *mut std::ffi::c_char| {
            if ptr::eq(name, ptr::null_mut()) {
                String::new()
            } else {
                std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
            }
        };
        format!(
            "{}.{}",
            text(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid))),
            text(pg_sys::get_rel_name(oid))
        )
    }
}
