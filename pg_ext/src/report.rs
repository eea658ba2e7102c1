//! Errors on their way out: where they happened is added, and a server error keeps all of its fields.
//! pgrx alone would turn an SQLSTATE it does not know (PGM01) into XX000 and drop constraint and context.
//! Must never raise an error itself, and never let a server error jump over a frame that has destructors.

use crate::bare;
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgTryBuilder};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::AssertUnwindSafe;
use std::ptr;

/// What is being done at this moment, for the CONTEXT of an error. Plain pointers: the callback that
/// reads them runs inside the server's error handling and may not allocate on Rust's heap.
pub struct Watch {
    action: Cell<*const c_char>,
    table: Cell<*const c_char>,
    column: Cell<*const c_char>,
    change: Cell<u64>,
    home: pg_sys::MemoryContext,
    caught: Cell<*mut pg_sys::ErrorData>,
}

impl Watch {
    /// Counts a change and names what it does to which table. `table` must outlive the change.
    pub fn change(&self, action: &'static CStr, table: &CStr) {
        self.again(self.changes() + 1, action, table);
    }

    /// How many changes were counted.
    pub fn changes(&self) -> u64 {
        self.change.get()
    }

    /// Goes back to an earlier change, which is carried out only now.
    pub fn again(&self, change: u64, action: &'static CStr, table: &CStr) {
        self.change.set(change);
        self.action.set(action.as_ptr());
        self.table.set(table.as_ptr());
        self.column.set(ptr::null());
    }

    /// The column whose value is being read; None once the row is complete.
    pub fn column(&self, name: Option<&CStr>) {
        self.column.set(name.map_or(ptr::null(), CStr::as_ptr));
    }

    /// No change is in hand.
    pub fn rest(&self) {
        self.action.set(ptr::null());
    }

    /// Raises an error of our own, with the place of the change in the Batch as its detail.
    pub fn fail(&self, code: PgSqlErrorCode, message: String) -> ! {
        let detail = format!("change {} of the batch", self.change.get());
        raise(ErrorReport::new(code, message, "pgmig.apply").set_detail(detail))
    }
}

/// Raises `report`; it unwinds, so destructors run.
pub fn raise(report: ErrorReport) -> ! {
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

pub fn fail(code: PgSqlErrorCode, message: String) -> ! {
    raise(ErrorReport::new(code, message, "pgmig.apply"))
}

/// Called by the server for each message while `watched` runs, notices too.
unsafe extern "C-unwind" fn on_message(watch: *mut c_void) {
    unsafe {
        let watch = &*watch.cast::<Watch>();
        let action = watch.action.get();
        if !action.is_null() {
            let (table, change) = (watch.table.get(), watch.change.get());
            if watch.column.get().is_null() {
                bare::errcontext_msg(c"pgmig.apply, change %llu: %s %s".as_ptr(), change, action, table);
            } else {
                let column = watch.column.get();
                bare::errcontext_msg(
                    c"pgmig.apply, change %llu: %s %s, column %s".as_ptr(),
                    change,
                    action,
                    table,
                    column,
                );
            }
        }
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = watch.home;
        let error = bare::CopyErrorData();
        if (*error).elevel == PgLogLevel::ERROR as c_int {
            watch.caught.set(error);
        } else {
            bare::FreeErrorData(error);
        }
        pg_sys::CurrentMemoryContext = before;
    }
}

/// Runs `work`. A server error comes back as a value to be passed to `rethrow`, once no frame on the
/// stack owns anything; our own errors and panics go on unwinding.
pub unsafe fn watched(work: impl FnOnce(&Watch) -> i64) -> Result<i64, *mut pg_sys::ErrorData> {
    unsafe {
        let watch = Watch {
            action: Cell::new(ptr::null()),
            table: Cell::new(ptr::null()),
            column: Cell::new(ptr::null()),
            change: Cell::new(0),
            home: pg_sys::CurrentMemoryContext,
            caught: Cell::new(ptr::null_mut()),
        };
        let before = pg_sys::error_context_stack;
        let mut callback = pg_sys::ErrorContextCallback {
            previous: before,
            callback: Some(on_message),
            arg: (&raw const watch).cast_mut().cast(),
        };
        pg_sys::error_context_stack = &raw mut callback;
        let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work(&watch))))
            .catch_others(|cause| Err(Box::new(cause)))
            .execute();
        pg_sys::error_context_stack = before;
        match outcome {
            Ok(rows) => Ok(rows),
            Err(cause) => match *cause {
                CaughtError::PostgresError(report) if is_same(watch.caught.get(), report.message()) => {
                    Err(tidied(watch.caught.get()))
                }
                other => other.rethrow(),
            },
        }
    }
}

/// Hands the error back to the server. To be called from a frame without destructors.
pub unsafe fn rethrow(error: *mut pg_sys::ErrorData) -> ! {
    unsafe { bare::ReThrowError(error) }
}

/// A trigger may have swallowed the error that was seen last: then the copy is of another one.
unsafe fn is_same(error: *mut pg_sys::ErrorData, message: &str) -> bool {
    unsafe {
        !error.is_null() && !(*error).message.is_null() && CStr::from_ptr((*error).message).to_string_lossy() == message
    }
}

unsafe fn tidied(error: *mut pg_sys::ErrorData) -> *mut pg_sys::ErrorData {
    const CLASS: c_int = (1 << 12) - 1;
    unsafe {
        let message = CStr::from_ptr((*error).message).to_bytes();
        if (*error).sqlerrcode & CLASS == PgSqlErrorCode::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION as c_int {
            // "Failing row contains (...)": values have no place in errors and logs; the constraint's
            // name and the CONTEXT stay.
            (*error).detail = ptr::null_mut();
            (*error).detail_log = ptr::null_mut();
        } else if (*error).sqlerrcode == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR as c_int
            && matches!(message, b"tuple concurrently updated" | b"tuple concurrently deleted")
        {
            // Another session got between our look at the row and our change of it: as with any
            // serialization failure, the same Batch may simply be sent again.
            (*error).sqlerrcode = PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE as c_int;
            (*error).hint = c"Another session writes to this table: apply the batch again.".as_ptr().cast_mut();
        }
        error
    }
}
