//! An open target table: its executor state, attributes, unique indexes and slots, as worker.c sets
//! them up. Opened once a call and shared by every relation id that names it.
//! Must refuse whatever the executor's simple calls would crash on, or would not check themselves.

use crate::gather::Gathered;
use crate::lookup::UniqueIndex;
use crate::report::{Watch, fail};
use crate::value::{Encoding, Input, Receive, Storage};
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use std::ffi::{CStr, CString, c_int};
use std::ptr;

pub struct Attribute {
    pub name: CString,
    /// None for a dropped column.
    pub input: Option<Input>,
    pub storage: Storage,
    /// Computed by the target: what the source sends for it is ignored.
    pub generated: bool,
    /// Generated, and not even stored.
    pub is_virtual: bool,
}

pub struct Table {
    pub oid: pg_sys::Oid,
    /// schema.table, for messages.
    pub label: String,
    pub label_c: CString,
    /// Since it was opened.
    pub changes: u32,
    /// Reset for each row.
    pub row_memory: pg_sys::MemoryContext,
    /// The row to store, virtual.
    pub new: *mut pg_sys::TupleTableSlot,
    /// The row found on the target.
    pub found: *mut pg_sys::TupleTableSlot,
    pub attributes: Vec<Attribute>,
    /// For values in binary: attribute, type on the source, and what reads it once the first has come.
    pub receivers: Vec<(usize, pg_sys::Oid, Option<Receive>)>,
    /// For the bytes of one value.
    pub buffer: pg_sys::StringInfoData,
    pub unique: Vec<UniqueIndex>,
    pub(crate) relation: pg_sys::Relation,
    pub(crate) estate: *mut pg_sys::EState,
    pub(crate) sequential: pg_sys::TableScanDesc,
    /// Boxed, as open scans point to it.
    pub(crate) dirty: Box<pg_sys::SnapshotData>,
    /// `found` is a heap tuple, whose header can be read.
    pub(crate) is_heap: bool,
    /// A row trigger fires before update or delete, or is there at all: see `settle`.
    pub(crate) lock_always: bool,
    /// A trigger that fires in a replica session may look at earlier rows.
    pub(crate) fires: bool,
    has_triggers: bool,
    /// Rows are stored together where nothing looks at each as it comes: no trigger that fires, no
    /// generated column (`ExecComputeStoredGenerated` belongs to the executor's own inserts).
    pub gathers: bool,
    pub(crate) gathered: Gathered,
    pub(crate) result: *mut pg_sys::ResultRelInfo,
    plan_quals: Box<pg_sys::EPQState>,
    granted: pg_sys::AclMode,
}

/// Looks a table up by name and locks it. Raises 42P01 if there is none.
pub unsafe fn resolve(encoding: Encoding, schema: &str, table: &str) -> pg_sys::Oid {
    let (schema_name, table_name) = (encoding.name(schema), encoding.name(table));
    unsafe {
        let names = (schema_name.as_ptr().cast_mut(), table_name.as_ptr().cast_mut());
        let range = pg_sys::makeRangeVar(names.0, names.1, -1);
        let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let oid = pg_sys::RangeVarGetRelidExtended(range, lock, missing_ok, None, ptr::null_mut());
        pg_sys::pfree(range.cast());
        if oid == pg_sys::InvalidOid {
            fail(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, format!("table {schema}.{table} does not exist"));
        }
        oid
    }
}

impl Table {
    /// Opens a table that `resolve` has locked.
    pub unsafe fn open(oid: pg_sys::Oid, label: String) -> Table {
        unsafe {
            let relation = pg_sys::relation_open(oid, pg_sys::NoLock as pg_sys::LOCKMODE);
            refuse_unless_plain_table(relation, &label);
            let estate = pg_sys::CreateExecutorState();
            // All that follows lives as long as the table is open.
            let caller = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let descriptor = (*relation).rd_att;
            let attributes = read_attributes(descriptor);
            init_range_table(estate, relation, &attributes);

            let result = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, relation, 1, ptr::null_mut(), 0);
            // AFTER triggers look their table up here. ExecCloseResultRelations is not called for
            // it: that would close a relation it has not opened.
            (*estate).es_opened_result_relations = pg_sys::lappend((*estate).es_opened_result_relations, result.cast());
            (*estate).es_output_cid = pg_sys::GetCurrentCommandId(true);
            pg_sys::ExecOpenIndices(result, false);

            let mut plan_quals = Box::new(pg_sys::EPQState::default());
            #[cfg(feature = "pg15")]
            pg_sys::EvalPlanQualInit(&mut *plan_quals, estate, ptr::null_mut(), ptr::null_mut(), -1);
            #[cfg(not(feature = "pg15"))]
            pg_sys::EvalPlanQualInit(&mut *plan_quals, estate, ptr::null_mut(), ptr::null_mut(), -1, ptr::null_mut());

            let mut buffer = pg_sys::StringInfoData::default();
            pg_sys::initStringInfo(&mut buffer);
            let new = pg_sys::ExecInitExtraTupleSlot(estate, descriptor, &raw const pg_sys::TTSOpsVirtual);
            let found = pg_sys::table_slot_create(relation, &mut (*estate).es_tupleTable);
            let triggers = (*result).ri_TrigDesc;
            let fires = triggers.as_ref().is_some_and(|t| fires_in_replica(t));
            let is_heap = ptr::eq((*found).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple);
            let table = Table {
                oid,
                label_c: CString::new(label.as_str()).expect("names of the catalogs hold no NUL"),
                label,
                changes: 0,
                row_memory: (*pg_sys::MakePerTupleExprContext(estate)).ecxt_per_tuple_memory,
                new,
                found,
                gathers: is_heap && !fires && !attributes.iter().any(|a| a.generated),
                gathered: Gathered::default(),
                attributes,
                receivers: Vec::new(),
                buffer,
                unique: UniqueIndex::all(result),
                relation,
                estate,
                sequential: ptr::null_mut(),
                dirty: Box::new(pg_sys::SnapshotData {
                    snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY,
                    ..Default::default()
                }),
                is_heap,
                lock_always: triggers.as_ref().is_some_and(|t| t.trig_update_before_row || t.trig_delete_before_row),
                fires,
                has_triggers: !triggers.is_null(),
                result,
                plan_quals,
                granted: 0,
            };
            pg_sys::MemoryContextSwitchTo(caller);
            table
        }
    }

    /// Ends what `open` began; the lock stays until the transaction ends.
    pub unsafe fn close(mut self, watch: &Watch) {
        unsafe {
            self.flush(watch);
            pg_sys::EvalPlanQualEnd(&mut *self.plan_quals);
            self.end_scans();
            pg_sys::ExecCloseIndices(self.result);
            pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::relation_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }

    /// Raises 42501 unless the caller holds every privilege in `wanted` on the table: the executor
    /// checks them when it starts a plan, and there is no plan here.
    #[inline]
    pub unsafe fn require(&mut self, wanted: u32) {
        let wanted = pg_sys::AclMode::from(wanted);
        if self.granted & wanted == wanted {
            return;
        }
        unsafe {
            // One by one: pg_class_aclcheck is content with any of several.
            for bit in (0..32).map(|shift| 1 << shift).filter(|bit| wanted & bit != 0) {
                let answer = pg_sys::pg_class_aclcheck(self.oid, pg_sys::GetUserId(), bit);
                if answer != pg_sys::AclResult::ACLCHECK_OK {
                    pg_sys::aclcheck_error(answer, pg_sys::ObjectType::OBJECT_TABLE, self.label_c.as_ptr());
                }
            }
        }
        self.granted |= wanted;
    }

    pub unsafe fn insert(&mut self) {
        unsafe {
            if self.fires {
                self.next_command();
            }
            self.with_triggers(|table| pg_sys::ExecSimpleRelationInsert(table.result, table.estate, table.new));
        }
    }

    /// Stores `new` over `found`.
    pub unsafe fn update(&mut self) {
        unsafe {
            self.plan_quals.origslot = self.new;
            self.with_triggers(|table| {
                let quals = &raw mut *table.plan_quals;
                pg_sys::ExecSimpleRelationUpdate(table.result, table.estate, quals, table.found, table.new);
            });
        }
    }

    /// Deletes `found`.
    pub unsafe fn delete(&mut self) {
        unsafe {
            self.plan_quals.origslot = self.found;
            self.with_triggers(|table| {
                let quals = &raw mut *table.plan_quals;
                pg_sys::ExecSimpleRelationDelete(table.result, table.estate, quals, table.found);
            });
        }
    }

    /// The place in `receivers` for values of this type on the source.
    pub fn receiver(&mut self, attribute: usize, source_type: pg_sys::Oid) -> usize {
        let known = self.receivers.iter().position(|known| (known.0, known.1) == (attribute, source_type));
        known.unwrap_or_else(|| {
            self.receivers.push((attribute, source_type, None));
            self.receivers.len() - 1
        })
    }

    /// What reads the values in binary; of use as long as the table is open.
    #[inline]
    pub unsafe fn receive(&mut self, receiver: usize) -> *mut Receive {
        let (attribute, source_type, receive) = &mut self.receivers[receiver];
        if let Some(receive) = receive {
            return receive;
        }
        let input = self.attributes[*attribute].input.as_ref().expect("no dropped column is bound");
        unsafe {
            let caller = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let made = Receive::of(*source_type, input);
            pg_sys::MemoryContextSwitchTo(caller);
            receive.insert(made)
        }
    }

    /// What was written so far becomes visible to what is written from now on.
    pub unsafe fn next_command(&mut self) {
        unsafe {
            pg_sys::CommandCounterIncrement();
            (*self.estate).es_output_cid = pg_sys::GetCurrentCommandId(true);
        }
    }

    /// AFTER triggers fire after each row, as in worker.c, so events do not pile up with the Batch.
    unsafe fn with_triggers(&mut self, change: impl FnOnce(&mut Table)) {
        unsafe {
            let caller = self.enter();
            if self.has_triggers {
                (*self.estate).es_output_cid = pg_sys::GetCurrentCommandId(true);
                pg_sys::AfterTriggerBeginQuery();
                change(self);
                pg_sys::AfterTriggerEndQuery(self.estate);
            } else {
                change(self);
            }
            pg_sys::MemoryContextSwitchTo(caller);
        }
    }

    /// Into memory that lives as long as the table is open; returns the one to go back to. Scans and
    /// triggers keep what they allocate for the next row (a btree scan the entries that it will mark
    /// as dead): in the memory of one row that would be gone by then.
    pub(crate) unsafe fn enter(&self) -> pg_sys::MemoryContext {
        unsafe { pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt) }
    }
}

unsafe fn refuse_unless_plain_table(relation: pg_sys::Relation, label: &str) {
    unsafe {
        // Partitioned roots above all: ExecSimpleRelationInsert crashes the server on one.
        if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
            fail(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{label} is not a plain table"));
        }
        let security = pg_sys::check_enable_rls((*relation).rd_id, pg_sys::InvalidOid, false);
        if security == pg_sys::CheckEnableRlsResult::RLS_ENABLED as c_int {
            let message = format!("row security of table {label} applies to this role, and apply cannot follow it");
            fail(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
        }
    }
}

unsafe fn fires_in_replica(triggers: &pg_sys::TriggerDesc) -> bool {
    unsafe {
        std::slice::from_raw_parts(triggers.triggers, triggers.numtriggers as usize).iter().any(|trigger| {
            ![pg_sys::TRIGGER_FIRES_ON_ORIGIN, pg_sys::TRIGGER_DISABLED].contains(&(trigger.tgenabled as u8))
        })
    }
}

unsafe fn read_attributes(descriptor: pg_sys::TupleDesc) -> Vec<Attribute> {
    unsafe {
        let read = |position: c_int| {
            #[cfg(not(feature = "pg18"))]
            let attribute = &*(*descriptor).attrs.as_ptr().add(position as usize);
            #[cfg(feature = "pg18")]
            let attribute = &*pg_sys::TupleDescAttr(descriptor, position);
            Attribute {
                name: CStr::from_ptr(attribute.attname.data.as_ptr()).to_owned(),
                input: (!attribute.attisdropped).then(|| Input::of(attribute.atttypid, attribute.atttypmod)),
                storage: Storage { by_value: attribute.attbyval, length: attribute.attlen },
                generated: attribute.attgenerated != 0,
                is_virtual: attribute.attgenerated as u8 == b'v',
            }
        };
        (0..(*descriptor).natts).map(read).collect()
    }
}

/// The range table has the one entry. Every column counts as updated, so that triggers on columns fire
/// and generated columns are computed (the executor skips those whose inputs are not in this set).
unsafe fn init_range_table(estate: *mut pg_sys::EState, relation: pg_sys::Relation, attributes: &[Attribute]) {
    unsafe {
        let entry = pg_sys::palloc0(size_of::<pg_sys::RangeTblEntry>()).cast::<pg_sys::RangeTblEntry>();
        (*entry).type_ = pg_sys::NodeTag::T_RangeTblEntry;
        (*entry).rtekind = pg_sys::RTEKind::RTE_RELATION;
        (*entry).relid = (*relation).rd_id;
        (*entry).relkind = (*(*relation).rd_rel).relkind;
        (*entry).rellockmode = pg_sys::RowExclusiveLock as c_int;
        let (mut updated, mut computed) = (ptr::null_mut(), ptr::null_mut());
        for (position, attribute) in attributes.iter().enumerate().filter(|(_, a)| a.input.is_some()) {
            let member = position as c_int + 1 - pg_sys::FirstLowInvalidHeapAttributeNumber;
            let set = if attribute.generated { &mut computed } else { &mut updated };
            *set = pg_sys::bms_add_member(*set, member);
        }
        let range_table = pg_sys::lappend(ptr::null_mut(), entry.cast());
        #[cfg(feature = "pg15")]
        {
            (*entry).updatedCols = updated;
            (*entry).extraUpdatedCols = computed;
            pg_sys::ExecInitRangeTable(estate, range_table);
        }
        #[cfg(not(feature = "pg15"))]
        {
            // From 16 on the executor works the computed columns out by itself.
            let _ = computed;
            let mut permissions = ptr::null_mut();
            let permission = pg_sys::addRTEPermissionInfo(&mut permissions, entry);
            (*permission).updatedCols = updated;
            #[cfg(not(feature = "pg18"))]
            pg_sys::ExecInitRangeTable(estate, range_table, permissions);
            #[cfg(feature = "pg18")]
            pg_sys::ExecInitRangeTable(estate, range_table, permissions, pg_sys::bms_make_singleton(1));
        }
    }
}
