//! Finds the row that a change is about: by the best unique index, else by reading the table.
//! Follows RelationFindReplTupleByIndex and RelationFindReplTupleSeq of execReplication.c, but keeps
//! its scans open. Must never settle for a row that another transaction is still changing.

use crate::bare;
use crate::relation::Table;
use crate::report::{Watch, fail};
use crate::shape::{Bound, KeyColumn};
use crate::walk::Walk;
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::ffi::c_int;
use std::ptr;

/// An index that a row can be found by: unique, valid, btree, without predicate and expressions.
pub struct UniqueIndex {
    attributes: Vec<usize>,
    primary: bool,
    /// Only its first columns: below a root the rest may be what it is partitioned by, which the source's key
    /// need not have. The key is unique there.
    part: bool,
    index: pg_sys::Relation,
    keys: Vec<pg_sys::ScanKeyData>,
    scan: pg_sys::IndexScanDesc,
    walk: Option<Walk>,
}

/// A unique index that a declared key covers.
pub struct Lookup {
    index: usize,
    /// For each column of the index its position in the key.
    positions: Vec<usize>,
    /// The key has no further column to compare.
    exact: bool,
}

/// Values of the key of the change in hand.
#[derive(Default)]
pub struct Key {
    pub values: Vec<pg_sys::Datum>,
    pub nulls: Vec<bool>,
}

enum Look {
    Nothing,
    Row,
    /// The row is being written by this transaction.
    Busy(pg_sys::TransactionId),
}

impl UniqueIndex {
    /// From the indexes that ExecOpenIndices has opened, so nothing is opened twice. `parts`: also what is
    /// found by the first columns of each.
    pub unsafe fn all(result: *mut pg_sys::ResultRelInfo, parts: bool) -> Vec<UniqueIndex> {
        let equal = pg_sys::BTEqualStrategyNumber;
        unsafe {
            let read = |at: usize| {
                let index = *(*result).ri_IndexRelationDescs.add(at);
                let info = *(*result).ri_IndexRelationInfo.add(at);
                let form = (*index).rd_index;
                let usable = (*form).indisunique
                    && (*form).indisvalid
                    && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                    && (*info).ii_Predicate.is_null()
                    && (*info).ii_Expressions.is_null();
                // The key columns come first, INCLUDE columns after them.
                let count = if usable { (*info).ii_NumIndexKeyAttrs as usize } else { 0 };
                let least = if parts { 1 } else { count.max(1) };
                (least..=count).map(move |columns| {
                    let numbers = &(*info).ii_IndexAttrNumbers;
                    let attributes = numbers[..columns].iter().map(|&number| number as usize - 1);
                    let attributes: Vec<usize> = attributes.collect();
                    UniqueIndex {
                        walk: if columns == count { Walk::along(index, &attributes) } else { None },
                        attributes,
                        primary: (*form).indisprimary,
                        part: columns < count,
                        index,
                        keys: (0..columns).map(|column| scan_key(index, column, equal)).collect(),
                        scan: ptr::null_mut(),
                    }
                })
            };
            (0..(*result).ri_NumIndices as usize).flat_map(read).collect()
        }
    }
}

/// A scan by so many keys, which are put in before it is begun again.
pub unsafe fn begin_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: c_int,
) -> pg_sys::IndexScanDesc {
    #[cfg(not(feature = "pg18"))]
    return unsafe { pg_sys::index_beginscan(table, index, snapshot, keys, 0) };
    #[cfg(feature = "pg18")]
    return unsafe { pg_sys::index_beginscan(table, index, snapshot, ptr::null_mut(), keys, 0) };
}

/// What a column of the index is compared with, and how; the value is to be put in.
pub unsafe fn scan_key(index: pg_sys::Relation, column: usize, strategy: u32) -> pg_sys::ScanKeyData {
    unsafe {
        let family = *(*index).rd_opfamily.add(column);
        let opclass_type = *(*index).rd_opcintype.add(column);
        let operator = pg_sys::get_opfamily_member(family, opclass_type, opclass_type, strategy as i16);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyEntryInitialize(
            &mut key,
            0,
            column as pg_sys::AttrNumber + 1,
            strategy as pg_sys::StrategyNumber,
            pg_sys::InvalidOid,
            *(*index).rd_indcollation.add(column),
            pg_sys::get_opcode(operator),
            pg_sys::Datum::from(0),
        );
        key
    }
}

impl Lookup {
    /// The indexes whose columns are all in the key: the primary key first, then the narrowest; behind them
    /// parts of indexes, the widest first.
    pub fn choose(unique: &[UniqueIndex], key: &[KeyColumn]) -> Vec<Lookup> {
        let position = |attribute: &usize| key.iter().position(|k| k.compared && k.attribute == *attribute);
        let compared = key.iter().filter(|k| k.compared).count();
        let mut lookups: Vec<Lookup> = (0..unique.len())
            .filter_map(|index| {
                let positions: Vec<usize> = unique[index].attributes.iter().map(position).collect::<Option<_>>()?;
                Some(Lookup { index, exact: compared == positions.len(), positions })
            })
            .collect();
        lookups.sort_by_key(|l| {
            let UniqueIndex { primary, part, .. } = unique[l.index];
            let width = l.positions.len() as isize;
            (part, if part { -width } else { 0 }, !primary, width, l.index)
        });
        lookups
    }
}

impl Table {
    /// Puts the row with this key into `found`, ready to be changed. False if there is none.
    pub unsafe fn find(&mut self, bound: &Bound, key: &Key, lock: pg_sys::LockTupleMode::Type) -> bool {
        unsafe {
            let caller = self.enter();
            let found = self.find_here(bound, key, lock);
            pg_sys::MemoryContextSwitchTo(caller);
            found
        }
    }

    unsafe fn find_here(&mut self, bound: &Bound, key: &Key, lock: pg_sys::LockTupleMode::Type) -> bool {
        let mut misses = 0;
        loop {
            pgrx::check_for_interrupts!();
            unsafe {
                match self.look(bound, key) {
                    // A dirty scan can step over a row whose new version another session puts behind
                    // it, so look twice before the row is called missing.
                    Look::Nothing if misses > 0 => return false,
                    Look::Nothing => misses += 1,
                    Look::Busy(writer) => {
                        pg_sys::ExecClearTuple(self.found);
                        pg_sys::XactLockTableWait(
                            writer,
                            ptr::null_mut(),
                            ptr::null_mut(),
                            pg_sys::XLTW_Oper::XLTW_None,
                        );
                    }
                    Look::Row if self.settle(lock) => return true,
                    Look::Row => {}
                }
            }
        }
    }

    unsafe fn look(&mut self, bound: &Bound, key: &Key) -> Look {
        // Null equals nothing in an index.
        let usable = bound.lookups.iter().find(|lookup| lookup.positions.iter().all(|&at| !key.nulls[at]));
        unsafe {
            match usable {
                Some(lookup) => self.look_by_index(bound, key, lookup),
                None => self.look_by_reading(bound, key),
            }
        }
    }

    unsafe fn look_by_index(&mut self, bound: &Bound, key: &Key, lookup: &Lookup) -> Look {
        unsafe {
            let index = &mut self.unique[lookup.index];
            if lookup.exact
                && let Some(walk) = &mut index.walk
                && walk.meets(self.relation, &mut *self.dirty, key.values[lookup.positions[0]], self.found)
            {
                return self.seen();
            }
            let count = index.keys.len() as c_int;
            if index.scan.is_null() {
                index.scan = begin_scan(self.relation, index.index, &mut *self.dirty, count);
            }
            for (scan_key, &at) in index.keys.iter_mut().zip(&lookup.positions) {
                scan_key.sk_argument = key.values[at];
            }
            let (scan, keys, found) = (index.scan, index.keys.as_mut_ptr(), self.found);
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            let mut more = pg_guard_ffi_boundary(|| {
                // A pin that is left from the row before would keep this page from being pruned.
                bare::ExecClearTuple(found);
                bare::index_rescan(scan, keys, count, ptr::null_mut(), 0);
                bare::index_getnext_slot(scan, forward, found)
            });
            while more {
                if lookup.exact || self.has_key(bound, key) {
                    return self.seen();
                }
                more = pg_sys::index_getnext_slot(scan, forward, found);
            }
            Look::Nothing
        }
    }

    unsafe fn look_by_reading(&mut self, bound: &Bound, key: &Key) -> Look {
        unsafe {
            pg_sys::ExecClearTuple(self.found);
            if self.sequential.is_null() {
                self.sequential = pg_sys::table_beginscan(self.relation, &mut *self.dirty, 0, ptr::null_mut());
            } else {
                pg_sys::table_rescan(self.sequential, ptr::null_mut());
            }
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            while pg_sys::table_scan_getnextslot(self.sequential, forward, self.found) {
                pgrx::check_for_interrupts!();
                if self.has_key(bound, key) {
                    return self.seen();
                }
            }
            Look::Nothing
        }
    }

    /// Whether `found` has exactly the values of the key; null is like null.
    unsafe fn has_key(&self, bound: &Bound, key: &Key) -> bool {
        unsafe {
            bound.key.iter().enumerate().filter(|(_, column)| column.compared).all(|(at, column)| {
                let mut is_null = false;
                let value = pg_sys::slot_getattr(self.found, column.attribute as c_int + 1, &mut is_null);
                let storage = self.attributes[column.attribute].storage;
                is_null == key.nulls[at] && (is_null || storage.is_same(value, key.values[at]))
            })
        }
    }

    /// A dirty snapshot shows what others are about to commit, and says whose it is.
    unsafe fn seen(&mut self) -> Look {
        // A heap tuple stays in its page, which the slot holds a pin on: nothing moves it meanwhile.
        if !self.is_heap {
            unsafe { pg_sys::ExecMaterializeSlot(self.found) };
        }
        let invalid = pg_sys::TransactionId::INVALID;
        match (self.dirty.xmin, self.dirty.xmax) {
            (writer, _) if writer != invalid => Look::Busy(writer),
            (_, writer) if writer != invalid => Look::Busy(writer),
            _ => Look::Row,
        }
    }

    /// Makes the row in `found` fit to be changed; false if it has changed meanwhile: look again.
    unsafe fn settle(&mut self, lock: pg_sys::LockTupleMode::Type) -> bool {
        unsafe {
            let header = if self.is_heap {
                (*(*self.found.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_data.as_ref()
            } else {
                None
            };
            let fresh = header.is_none_or(|header| is_of_this_command(header));
            if fresh || self.fires {
                self.next_command();
            }
            // Nobody has a lock on it: update and delete take their own, and what may happen in the
            // instant between is raised as 40001. The row lock would cost a fifth more CPU, and WAL.
            // With BEFORE triggers it is a must: their re-check of a moved row needs a plan.
            let untouched =
                |header: &pg_sys::HeapTupleHeaderData| u32::from(header.t_infomask) & pg_sys::HEAP_XMAX_INVALID != 0;
            if !self.lock_always && header.is_some_and(untouched) {
                return true;
            }
            let snapshot = pg_sys::GetLatestSnapshot();
            pg_sys::PushActiveSnapshot(snapshot);
            let mut failure = pg_sys::TM_FailureData::default();
            let result = pg_sys::table_tuple_lock(
                self.relation,
                &mut (*self.found).tts_tid,
                pg_sys::GetLatestSnapshot(),
                self.found,
                pg_sys::GetCurrentCommandId(false),
                lock,
                pg_sys::LockWaitPolicy::LockWaitBlock,
                0,
                &mut failure,
            );
            pg_sys::PopActiveSnapshot();
            match result {
                pg_sys::TM_Result::TM_Ok => true,
                pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted => false,
                other => fail(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    format!("a row of {} cannot be locked ({other})", self.label),
                ),
            }
        }
    }

    /// Stores what is gathered and lets go of the pages that the scans hold, before another table has its
    /// turn.
    pub unsafe fn rest(&mut self, watch: &Watch) {
        unsafe {
            self.flush(watch);
            let caller = self.enter();
            pg_sys::ExecClearTuple(self.found);
            self.unique.iter_mut().filter_map(|index| index.walk.as_mut()).for_each(|walk| walk.rest());
            for index in self.unique.iter_mut().filter(|index| !index.scan.is_null()) {
                let count = index.keys.len() as c_int;
                pg_sys::index_rescan(index.scan, index.keys.as_mut_ptr(), count, ptr::null_mut(), 0);
            }
            if !self.sequential.is_null() {
                pg_sys::table_rescan(self.sequential, ptr::null_mut());
            }
            pg_sys::MemoryContextSwitchTo(caller);
        }
    }

    pub(crate) unsafe fn end_scans(&mut self) {
        unsafe {
            pg_sys::ExecClearTuple(self.found);
            self.unique.iter().filter_map(|index| index.walk.as_ref()).for_each(|walk| walk.end());
            for index in self.unique.iter().filter(|index| !index.scan.is_null()) {
                pg_sys::index_endscan(index.scan);
            }
            if !self.sequential.is_null() {
                pg_sys::table_endscan(self.sequential);
            }
        }
    }
}

/// A row that this very command wrote cannot be changed before the command counter moves. It moves no
/// more often than that: a command each row would leave the server a combo command id each row.
unsafe fn is_of_this_command(header: &pg_sys::HeapTupleHeaderData) -> bool {
    unsafe {
        bare::TransactionIdIsCurrentTransactionId(header.t_choice.t_heap.t_xmin)
            && (u32::from(header.t_infomask) & pg_sys::HEAP_COMBOCID != 0
                || header.t_choice.t_heap.t_field3.t_cid >= bare::current_command())
    }
}
