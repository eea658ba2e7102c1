//! Applies the records of a Batch, in their order, in the caller's transaction, and moves replay_lsn.
//! Must never pass over a change: each one is applied or the whole call fails.

use crate::relation::{Table, resolve};
use crate::report::{Watch, fail, raise};
use crate::row::{Row, Scratch, refuse};
use crate::shape::Shape;
use crate::value::Encoding;
use crate::wire::{Malformed, Reader, Record};
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use std::collections::HashMap;
use std::ffi::{CStr, c_int};

/// The executor may leave a few bytes behind for each row in memory that lives until the table is
/// closed (PostgreSQL 15 does for each BEFORE UPDATE trigger), so long Batches open a table again.
const CHANGES_PER_OPENING: u32 = 100_000;

pub struct Applier<'a> {
    watch: &'a Watch,
    encoding: Encoding,
    reader: Reader<'a>,
    /// By relation id.
    shapes: Vec<Option<Shape<'a>>>,
    tables: HashMap<pg_sys::Oid, Box<Table>>,
    /// The table of the change before this one: it may still hold pages.
    last: pg_sys::Oid,
    scratch: Scratch<'a>,
    rows: i64,
}

/// Raises an error unless this session may write, and writes as a replica: foreign keys and triggers
/// did their work on the source.
pub fn check_session() {
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"pgmig.apply()".as_ptr());
        pg_sys::PreventCommandIfParallelMode(c"pgmig.apply()".as_ptr());
        if pg_sys::SessionReplicationRole != pg_sys::SESSION_REPLICATION_ROLE_REPLICA as c_int {
            let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
            let report = ErrorReport::new(code, "apply needs session_replication_role = replica", "pgmig.apply");
            raise(report.set_hint("set session_replication_role = replica;"));
        }
    }
}

impl<'a> Applier<'a> {
    pub fn new(batch: &'a [u8], watch: &'a Watch) -> Self {
        Applier {
            watch,
            encoding: Encoding::of_database(),
            reader: Reader::new(batch).unwrap_or_else(|error| refuse(error)),
            shapes: Vec::new(),
            tables: HashMap::new(),
            last: pg_sys::InvalidOid,
            scratch: Scratch::default(),
            rows: 0,
        }
    }

    /// Applies all of the Batch; returns the number of rows changed.
    pub unsafe fn run(mut self) -> i64 {
        unsafe {
            while let Some(record) = self.reader.record().unwrap_or_else(|error| refuse(error)) {
                pgrx::check_for_interrupts!();
                match record {
                    Record::Relation(declared) => {
                        let at = usize::from(declared.id);
                        if at >= self.shapes.len() {
                            self.shapes.resize_with(at + 1, || None);
                        }
                        self.shapes[at] = Some(Shape::new(declared));
                    }
                    Record::Truncate(ids) => self.truncate(&ids),
                    Record::Insert(id) => self.change(id, Table::insert_next),
                    Record::Update(id) => self.change(id, Table::update_next),
                    Record::Delete(id) => self.change(id, Table::delete_next),
                }
            }
            for (_, table) in self.tables.drain() {
                table.close(self.watch);
            }
            self.watch.rest();
            // What the caller runs next sees these rows.
            pg_sys::CommandCounterIncrement();
            self.rows
        }
    }

    #[inline]
    unsafe fn change(&mut self, id: u16, apply: unsafe fn(&mut Table, &mut Row<'_, 'a>)) {
        unsafe {
            let oid = self.bind(id);
            if oid != self.last {
                if let Some(last) = self.tables.get_mut(&self.last) {
                    last.rest(self.watch);
                }
                self.last = oid;
            }
            let shape = self.shapes[usize::from(id)].as_ref().expect("bind has found it");
            let bound = shape.bound.as_ref().expect("bind has bound it");
            let table = self.tables.get_mut(&oid).expect("bind has opened it");
            let (reader, scratch) = (&mut self.reader, &mut self.scratch);
            let mut row = Row { watch: self.watch, encoding: self.encoding, reader, scratch, shape, bound };
            // What the row before needed goes now: some of it was still in `found` and `new`.
            pg_sys::MemoryContextReset(table.row_memory);
            let caller = pg_sys::MemoryContextSwitchTo(table.row_memory);
            apply(table, &mut row);
            pg_sys::MemoryContextSwitchTo(caller);
            table.changes += 1;
            let is_worn = table.changes == CHANGES_PER_OPENING;
            self.rows += 1;
            if is_worn {
                self.close(oid);
            }
        }
    }

    /// Opens the table of a declared relation, unless that is done.
    #[inline]
    unsafe fn bind(&mut self, id: u16) -> pg_sys::Oid {
        let shape = self.shapes.get_mut(usize::from(id)).and_then(Option::as_mut);
        let shape = shape.unwrap_or_else(|| {
            let what = "before this byte: a relation that is not declared";
            refuse(Malformed { at: self.reader.at(), what })
        });
        if let Some(bound) = &shape.bound {
            return bound.table;
        }
        self.watch.rest();
        unsafe {
            let oid = resolve(self.encoding, shape.declared.schema, shape.declared.table);
            let label = shape.label();
            let table = self.tables.entry(oid).or_insert_with(|| Box::new(Table::open(oid, label)));
            shape.bind(table, self.encoding);
            oid
        }
    }

    /// Closes a table; the next change of it opens it again.
    unsafe fn close(&mut self, oid: pg_sys::Oid) {
        if let Some(table) = self.tables.remove(&oid) {
            unsafe { table.close(self.watch) };
        }
        for shape in self.shapes.iter_mut().flatten() {
            shape.bound.take_if(|bound| bound.table == oid);
        }
    }

    unsafe fn truncate(&mut self, ids: &[u16]) {
        unsafe {
            let mut names = Vec::new();
            for &id in ids {
                // Bound first: this is what refuses anything but plain tables.
                let oid = self.bind(id);
                self.close(oid);
                let declared = &self.shapes[usize::from(id)].as_ref().expect("bind has found it").declared;
                let quoted = [declared.schema, declared.table].map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
                names.push(format!("only {}", quoted.join(".")));
            }
            let sql = format!("truncate {} restrict", names.join(", "));
            self.watch.change(c"truncate of", c"several tables");
            spi(&self.encoding.name(&sql), &mut [], &mut [], &[]);
            self.watch.rest();
        }
    }
}

/// Calls `pgmig.advance`, the last thing in the transaction. `arguments`: migration, replay_lsn,
/// commit_at, transactions; None is null.
pub unsafe fn advance(arguments: [Option<pg_sys::Datum>; 4], rows: i64) {
    let mut types = [pg_sys::TEXTOID, pg_sys::PG_LSNOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID, pg_sys::INT8OID];
    let [migration, replay_lsn, commit_at, transactions] = arguments;
    let all = [migration, replay_lsn, commit_at, transactions, Some(pg_sys::Datum::from(rows))];
    let mut values = all.map(|value| value.unwrap_or(pg_sys::Datum::null()));
    let nulls = all.map(|value| if value.is_some() { b' ' } else { b'n' });
    unsafe { spi(c"select pgmig.advance($1, $2, $3, $4, $5)", &mut types, &mut values, &nulls) }
}

unsafe fn spi(sql: &CStr, types: &mut [pg_sys::Oid], values: &mut [pg_sys::Datum], nulls: &[u8]) {
    unsafe {
        pg_sys::SPI_connect();
        let answer = pg_sys::SPI_execute_with_args(
            sql.as_ptr(),
            types.len() as c_int,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr().cast(),
            false,
            0,
        );
        if answer < 0 {
            fail(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("SPI answers {answer}"));
        }
        pg_sys::SPI_finish();
    }
}

impl Table {
    unsafe fn insert_next(&mut self, row: &mut Row<'_, '_>) {
        unsafe {
            self.require(pg_sys::ACL_INSERT);
            row.watch.change(c"insert into", &self.label_c);
            row.bound.require_whole_row(self);
            let slot = if self.gathers { self.slot_to_gather(row.reader.at()) } else { self.new };
            row.read_new(self, slot);
            if !row.scratch.unchanged.is_empty() {
                refuse(Malformed { at: row.reader.at(), what: "before this byte: an unchanged value in an insert" });
            }
            if self.gathers {
                self.gather(slot, row.reader.at(), row.watch);
            } else {
                self.insert();
            }
        }
    }

    unsafe fn update_next(&mut self, row: &mut Row<'_, '_>) {
        unsafe {
            self.require(pg_sys::ACL_UPDATE | pg_sys::ACL_SELECT);
            self.flush(row.watch);
            row.watch.change(c"update of", &self.label_c);
            row.read_key_and_new(self, self.new);
            // NoKeyExclusive leaves foreign key checks of other sessions alone, and yet keeps every
            // writer out.
            row.find(self, "update", pg_sys::LockTupleMode::LockTupleNoKeyExclusive);
            let (unchanged, kept) = (&row.scratch.unchanged, &row.bound.kept);
            if !(unchanged.is_empty() && kept.is_empty()) {
                pg_sys::slot_getallattrs(self.found);
                // A TOAST pointer that is the same in the old row and the new is left where it is.
                for &at in unchanged.iter().chain(kept) {
                    *(*self.new).tts_values.add(at) = *(*self.found).tts_values.add(at);
                    *(*self.new).tts_isnull.add(at) = *(*self.found).tts_isnull.add(at);
                }
            }
            self.update();
        }
    }

    unsafe fn delete_next(&mut self, row: &mut Row<'_, '_>) {
        unsafe {
            self.require(pg_sys::ACL_DELETE | pg_sys::ACL_SELECT);
            self.flush(row.watch);
            row.watch.change(c"delete from", &self.label_c);
            row.read_key(self);
            row.find(self, "delete", pg_sys::LockTupleMode::LockTupleExclusive);
            self.delete();
        }
    }
}
