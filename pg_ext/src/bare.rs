//! Functions of the server without the guard that pgrx puts round each call. That guard costs as much as
//! reading an integer does, so what runs for every row or value is called from here, many calls behind one
//! guard (`pg_guard_ffi_boundary`). Between that guard and these no frame may own anything, or panic: an
//! error of the server jumps over it.

use pgrx::pg_sys;
use std::ffi::{c_char, c_int};

unsafe extern "C-unwind" {
    // fmgr.h, stringinfo.h
    pub fn InputFunctionCall(
        function: *mut pg_sys::FmgrInfo,
        text: *mut c_char,
        io_param: pg_sys::Oid,
        typmod: i32,
    ) -> pg_sys::Datum;
    pub fn ReceiveFunctionCall(
        function: *mut pg_sys::FmgrInfo,
        buffer: pg_sys::StringInfo,
        io_param: pg_sys::Oid,
        typmod: i32,
    ) -> pg_sys::Datum;
    pub fn OutputFunctionCall(function: *mut pg_sys::FmgrInfo, value: pg_sys::Datum) -> *mut c_char;
    pub fn enlargeStringInfo(buffer: pg_sys::StringInfo, needed: c_int);

    // genam.h
    pub fn index_rescan(
        scan: pg_sys::IndexScanDesc,
        keys: pg_sys::ScanKey,
        key_count: c_int,
        orderings: pg_sys::ScanKey,
        ordering_count: c_int,
    );
    pub fn index_getnext_slot(
        scan: pg_sys::IndexScanDesc,
        direction: pg_sys::ScanDirection::Type,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool;

    // tuptable.h, executor.h
    #[link_name = "ExecClearTuple__pgrx_cshim"]
    pub fn ExecClearTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
    #[link_name = "ExecMaterializeSlot__pgrx_cshim"]
    pub fn ExecMaterializeSlot(slot: *mut pg_sys::TupleTableSlot);
    pub fn ExecStoreVirtualTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
    pub fn ExecConstraints(
        result: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    );
    pub fn ExecPartitionCheck(
        result: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
        raises: bool,
    ) -> bool;
    fn ExecInsertIndexTuples(
        result: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
        update: bool,
        no_duplicate_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
        #[cfg(not(feature = "pg15"))] only_summarizing: bool,
    ) -> *mut pg_sys::List;

    // execPartition.h, partition.h: pgrx binds none of these; they are the same from 15 to 18.
    pub fn ExecSetupPartitionTupleRouting(
        estate: *mut pg_sys::EState,
        relation: pg_sys::Relation,
    ) -> *mut pg_sys::PartitionTupleRouting;
    pub fn ExecFindPartition(
        state: *mut pg_sys::ModifyTableState,
        root: *mut pg_sys::ResultRelInfo,
        routing: *mut pg_sys::PartitionTupleRouting,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    ) -> *mut pg_sys::ResultRelInfo;
    pub fn ExecCleanupTupleRouting(state: *mut pg_sys::ModifyTableState, routing: *mut pg_sys::PartitionTupleRouting);
    pub fn has_partition_attrs(
        relation: pg_sys::Relation,
        attributes: *mut pg_sys::Bitmapset,
        in_expression: *mut bool,
    ) -> bool;

    // elog.h: called where no guard can be, from frames that own nothing.
    pub fn CopyErrorData() -> *mut pg_sys::ErrorData;
    pub fn FreeErrorData(error: *mut pg_sys::ErrorData);
    pub fn ReThrowError(error: *mut pg_sys::ErrorData) -> !;
    pub fn errcontext_msg(format: *const c_char, ...) -> c_int;

    // memutils.h, pg_list.h
    pub fn MemoryContextReset(context: pg_sys::MemoryContext);
    fn list_free(list: *mut pg_sys::List);

    // xact.h. These raise nothing: they need no guard at all.
    pub fn TransactionIdIsCurrentTransactionId(id: pg_sys::TransactionId) -> bool;
    safe fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
}

/// A deferred constraint is checked by a trigger, and none fires where this is called: what the server
/// wants checked again is dropped.
pub unsafe fn insert_index_tuples(
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    unsafe {
        list_free(ExecInsertIndexTuples(
            result,
            slot,
            estate,
            false,
            false,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            #[cfg(not(feature = "pg15"))]
            false,
        ));
    }
}

pub fn current_command() -> pg_sys::CommandId {
    GetCurrentCommandId(false)
}
