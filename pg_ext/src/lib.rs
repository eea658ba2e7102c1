//! pgmig_sentinel: the compiled half of the schema pgmig on the target (sql/extension declares it).
//! Holds the two functions that SQL calls, and nothing else. What is in a Batch is never trusted here:
//! whatever the bytes, the answer is rows or an error, not a crash.

mod apply;
mod bare;
mod gather;
mod lookup;
mod relation;
mod report;
mod route;
mod routed;
mod row;
mod shape;
mod value;
mod walk;
mod wire;

use apply::Applier;
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

/// The other flavour, the plain one, has a function in SQL that returns 'plain'.
#[pg_extern(sql = false)]
fn flavour() -> &'static str {
    "extension"
}

/// pgmig.apply(migration text, batch bytea, replay_lsn pg_lsn, commit_at timestamptz, transactions bigint)
///
/// By hand, not with pg_extern: a server error is passed on as it was, which pgrx's wrapper would not
/// do (see report.rs), and that jump must start in a frame which owns nothing, as this one.
///
/// # Safety
///
/// For the server alone: `fcinfo` holds the five arguments above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn apply_wrapper(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    match unsafe { pgrx_extern_c_guard(|| report::watched(|watch| apply_arguments(fcinfo, watch))) } {
        Ok(rows) => pg_sys::Datum::from(rows),
        Err(error) => unsafe { report::rethrow(error) },
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_apply_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

unsafe fn apply_arguments(fcinfo: pg_sys::FunctionCallInfo, watch: &report::Watch) -> i64 {
    apply::check_session();
    unsafe {
        let batch = pgrx::fcinfo::pg_getarg::<&[u8]>(fcinfo, 1).unwrap_or_else(|| {
            report::fail(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "batch is null".to_owned())
        });
        let rows = Applier::new(batch, watch).run();
        // The others only pass through, so their types need no counterpart in Rust.
        let arguments = [0, 2, 3, 4].map(|number| pgrx::fcinfo::pg_getarg_datum(fcinfo, number));
        if arguments[1].is_some() {
            apply::advance(arguments, rows);
        }
        rows
    }
}
