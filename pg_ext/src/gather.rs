//! Stores consecutive inserts into one table together, as COPY does (CopyMultiInsertBufferFlush of
//! copyfrom.c): one visit and one WAL record a page instead of one a row. Must never hold a row back
//! from a change that could meet it: every other change of the table, and every other table, flushes.

use crate::bare;
use crate::relation::Table;
use crate::report::Watch;
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::ffi::c_int;
use std::ptr;

/// Both as in copyfrom.c.
const MOST_ROWS: usize = 1000;
const MOST_BYTES: usize = 65_535;

/// Rows that are read and checked, and not yet stored.
#[derive(Default)]
pub struct Gathered {
    /// Made as they are needed; the first `rows` are in use.
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    rows: usize,
    /// Where in the Batch the first of them began.
    begin: usize,
}

impl Table {
    /// An empty slot for the next row to insert. `at`: where in the Batch its values begin.
    pub unsafe fn slot_to_gather(&mut self, at: usize) -> *mut pg_sys::TupleTableSlot {
        let Gathered { slots, rows, begin } = &mut self.gathered;
        if *rows == 0 {
            *begin = at;
        }
        if *rows == slots.len() {
            unsafe {
                let caller = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
                slots.push(pg_sys::table_slot_create(self.relation, &mut (*self.estate).es_tupleTable));
                pg_sys::MemoryContextSwitchTo(caller);
            }
        }
        slots[*rows]
    }

    /// Takes the row in the slot that was handed out last, and checks its constraints but for those of
    /// indexes. `at`: where in the Batch its values ended.
    pub unsafe fn gather(&mut self, slot: *mut pg_sys::TupleTableSlot, at: usize, watch: &Watch) {
        unsafe {
            // A constraint may name tableoid.
            (*slot).tts_tableOid = self.oid;
            let is_constrained = !(*(*self.relation).rd_att).constr.is_null();
            let is_partition = (*(*self.relation).rd_rel).relispartition;
            let (result, estate) = (self.result, self.estate);
            pg_guard_ffi_boundary(|| {
                if is_constrained {
                    bare::ExecConstraints(result, slot, estate);
                }
                if is_partition {
                    bare::ExecPartitionCheck(result, slot, estate, true);
                }
                // Into memory of its own: that of the row is gone with the next.
                bare::ExecMaterializeSlot(slot);
            });
            self.gathered.rows += 1;
            if self.gathered.rows == MOST_ROWS || at - self.gathered.begin > MOST_BYTES {
                self.flush(watch);
            }
        }
    }

    /// Stores what is gathered. Resets the memory of the row.
    #[inline]
    pub unsafe fn flush(&mut self, watch: &Watch) {
        if self.gathered.rows > 0 {
            unsafe { self.store(watch) };
        }
    }

    unsafe fn store(&mut self, watch: &Watch) {
        unsafe {
            let rows = std::mem::take(&mut self.gathered.rows);
            let last = watch.changes();
            watch.again(last, c"insert into", &self.label_c);
            let caller = pg_sys::MemoryContextSwitchTo(self.row_memory);
            let slots = &mut self.gathered.slots[..rows];
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::table_multi_insert(self.relation, slots.as_mut_ptr(), rows as c_int, command, 0, ptr::null_mut());
            pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let (row_memory, result, estate, label) = (self.row_memory, self.result, self.estate, &self.label_c);
            let is_indexed = (*result).ri_NumIndices > 0;
            pg_guard_ffi_boundary(|| {
                for (&slot, behind) in slots.iter().zip((0..rows as u64).rev()) {
                    bare::MemoryContextReset(row_memory);
                    if is_indexed {
                        watch.again(last - behind, c"insert into", label);
                        bare::insert_index_tuples(result, slot, estate);
                    }
                    bare::ExecClearTuple(slot);
                }
            });
            pg_sys::MemoryContextSwitchTo(caller);
        }
    }
}
