//! Rows that are asked for in the order of an index are walked along it: the next one is mostly the next entry
//! of the same page, and no descent from the root is needed. Large updates and deletes of the source arrive
//! like that. Only where a key is one integer; whatever the walk does not meet is looked up as ever.

use crate::bare;
use crate::lookup::{begin_scan, scan_key};
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::ptr;

/// Keys that are so close are near each other.
const NEAR: i64 = 4;
/// So many in a row make a walk.
const STREAK: i32 = 4;
/// After a walk that met nothing, so many more are asked for first.
const PENALTY: i32 = 64;

/// Where lookups by one index are.
pub struct Walk {
    index: pg_sys::Relation,
    /// Of the integer: 2, 4 or 8 bytes.
    width: i16,
    attribute: i32,
    /// From this key on.
    from: pg_sys::ScanKeyData,
    scan: pg_sys::IndexScanDesc,
    under_way: bool,
    last: i64,
    streak: i32,
}

impl Walk {
    /// None where the key is not one integer.
    pub unsafe fn along(index: pg_sys::Relation, attributes: &[usize]) -> Option<Walk> {
        let [attribute] = attributes else { return None };
        let width = match unsafe { *(*index).rd_opcintype } {
            pg_sys::INT2OID => 2,
            pg_sys::INT4OID => 4,
            pg_sys::INT8OID => 8,
            _ => return None,
        };
        Some(Walk {
            index,
            width,
            attribute: *attribute as i32 + 1,
            from: unsafe { scan_key(index, 0, pg_sys::BTGreaterEqualStrategyNumber) },
            scan: ptr::null_mut(),
            under_way: false,
            last: 0,
            streak: 0,
        })
    }

    fn integer(&self, value: pg_sys::Datum) -> i64 {
        match self.width {
            2 => i64::from(value.value() as i16),
            4 => i64::from(value.value() as i32),
            _ => value.value() as i64,
        }
    }

    /// Puts the row of this key into `found` if the walk comes by it.
    pub unsafe fn meets(
        &mut self,
        table: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        key: pg_sys::Datum,
        found: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        let wanted = self.integer(key);
        let step = wanted.wrapping_sub(self.last);
        self.last = wanted;
        if !(1..=NEAR).contains(&step) {
            (self.streak, self.under_way) = (self.streak.min(0), false);
            return false;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak < STREAK {
            return false;
        }
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        unsafe {
            if !self.under_way {
                if self.scan.is_null() {
                    self.scan = begin_scan(table, self.index, snapshot, 1);
                }
                self.from.sk_argument = key;
                pg_sys::index_rescan(self.scan, &mut self.from, 1, ptr::null_mut(), 0);
                self.under_way = true;
            }
            let scan = self.scan;
            for _ in 0..=NEAR {
                let more = pg_guard_ffi_boundary(|| {
                    // A pin that is left from the row before would keep its page from being pruned.
                    bare::ExecClearTuple(found);
                    bare::index_getnext_slot(scan, forward, found)
                });
                if !more {
                    break;
                }
                let mut is_null = false;
                let at = self.integer(pg_sys::slot_getattr(found, self.attribute, &mut is_null));
                if at == wanted {
                    return true;
                }
                if at > wanted {
                    break;
                }
            }
        }
        (self.streak, self.under_way) = (-PENALTY, false);
        false
    }

    /// Lets go of the page it stands on.
    pub unsafe fn rest(&mut self) {
        self.under_way = false;
        if !self.scan.is_null() {
            unsafe { pg_sys::index_rescan(self.scan, &mut self.from, 1, ptr::null_mut(), 0) };
        }
    }

    pub unsafe fn end(&self) {
        if !self.scan.is_null() {
            unsafe { pg_sys::index_endscan(self.scan) };
        }
    }
}
