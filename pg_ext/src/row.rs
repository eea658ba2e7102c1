//! Reads the values of a change: from the Batch, through the functions of their types, into Datums.
//! All values of a row stand behind one guard (see bare.rs), so what can fail in our own words is done before.

use crate::bare;
use crate::lookup::Key;
use crate::relation::{Attribute, Table};
use crate::report::{Watch, fail};
use crate::shape::{Bound, Shape};
use crate::value::{Encoding, Receive};
use crate::wire::{Malformed, Reader, Value};
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::ptr;

/// A change whose values are read next.
pub struct Row<'r, 'a> {
    pub watch: &'a Watch,
    pub encoding: Encoding,
    pub reader: &'r mut Reader<'a>,
    pub scratch: &'r mut Scratch<'a>,
    pub shape: &'r Shape<'a>,
    pub bound: &'r Bound,
}

/// What one row needs, kept for the next.
#[derive(Default)]
pub struct Scratch<'a> {
    pub key: Key,
    /// Attributes whose values the change does not have.
    pub unchanged: Vec<usize>,
    pending: Vec<Pending<'a>>,
}

/// A value on its way: where it comes from, what reads it, where its Datum goes.
struct Pending<'a> {
    value: Value<'a>,
    attribute: *mut Attribute,
    /// For a value in binary.
    receive: *mut Receive,
    datum: *mut pg_sys::Datum,
    is_null: *mut bool,
}

impl<'a> Row<'_, 'a> {
    /// The key, then the new row into `slot`; `scratch` says which attributes are unchanged.
    pub unsafe fn read_key_and_new(&mut self, table: &mut Table, slot: *mut pg_sys::TupleTableSlot) {
        unsafe {
            self.take_key(table);
            self.take_new(table, slot);
            self.read(table, slot);
        }
    }

    pub unsafe fn read_key(&mut self, table: &mut Table) {
        unsafe {
            self.take_key(table);
            self.read(table, ptr::null_mut());
        }
    }

    /// The new row into `slot`; `scratch` says which attributes are unchanged.
    pub unsafe fn read_new(&mut self, table: &mut Table, slot: *mut pg_sys::TupleTableSlot) {
        unsafe {
            self.take_new(table, slot);
            self.read(table, slot);
        }
    }

    unsafe fn take_key(&mut self, table: &mut Table) {
        let bound = self.bound;
        // Of a table without columns any row will do.
        if bound.key.is_empty() && !table.attributes.iter().all(|attribute| attribute.input.is_none()) {
            let message = format!("changes of {} have no key to find a row by", table.label);
            fail(PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION, message);
        }
        let Key { values, nulls } = &mut self.scratch.key;
        values.resize(bound.key.len(), pg_sys::Datum::null());
        nulls.resize(bound.key.len(), true);
        let (values, nulls) = (values.as_mut_ptr(), nulls.as_mut_ptr());
        for (at, key) in bound.key.iter().enumerate() {
            let is_there = unsafe { self.take(table, key.column, key.attribute, values.add(at), nulls.add(at)) };
            if !is_there {
                refuse(Malformed { at: self.reader.at(), what: "before this byte: an unchanged value in a key" })
            }
        }
    }

    unsafe fn take_new(&mut self, table: &mut Table, slot: *mut pg_sys::TupleTableSlot) {
        let bound = self.bound;
        self.scratch.unchanged.clear();
        unsafe {
            let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
            for (column, target) in bound.targets.iter().enumerate() {
                match *target {
                    Some(at) => {
                        if !self.take(table, column, at, values.add(at), nulls.add(at)) {
                            self.scratch.unchanged.push(at);
                        }
                    }
                    None => _ = self.next_value(),
                }
            }
        }
    }

    /// Takes the next value of the Batch for `read`. False: it is unchanged.
    #[inline]
    unsafe fn take(
        &mut self,
        table: &mut Table,
        column: usize,
        attribute: usize,
        datum: *mut pg_sys::Datum,
        is_null: *mut bool,
    ) -> bool {
        let mut value = self.next_value();
        let mut receive = ptr::null_mut();
        match &mut value {
            Value::Unchanged => return false,
            Value::Null => {}
            Value::Text(text) => {
                self.watch.column(Some(&table.attributes[attribute].name));
                *text = unsafe { self.encoding.text(text) };
            }
            Value::Binary(_) => receive = unsafe { table.receive(self.bound.receivers[column]) },
        }
        let attribute = &raw mut table.attributes[attribute];
        self.scratch.pending.push(Pending { value, attribute, receive, datum, is_null });
        true
    }

    #[inline]
    fn next_value(&mut self) -> Value<'a> {
        self.reader.value().unwrap_or_else(|error| refuse(error))
    }

    /// Reads what was taken into the memory of the row; `slot`, unless it is null, holds a row then. Raises
    /// 22P03 for bytes that a receive function leaves over, and whatever the functions raise.
    unsafe fn read(&mut self, table: &mut Table, slot: *mut pg_sys::TupleTableSlot) {
        let (pending, watch, buffer) = (&self.scratch.pending, self.watch, &raw mut table.buffer);
        let count = table.attributes.len();
        let read = || unsafe {
            if slot.is_null() {
                return pending.iter().all(|value| value.read(watch, buffer));
            }
            bare::ExecClearTuple(slot);
            // Dropped and generated columns, above all.
            set_all_null(slot, count);
            let all_read = pending.iter().all(|value| value.read(watch, buffer));
            bare::ExecStoreVirtualTuple(slot);
            all_read
        };
        if !unsafe { pg_guard_ffi_boundary(read) } {
            let code = PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION;
            fail(code, "incorrect binary data format".to_owned());
        }
        self.scratch.pending.clear();
        self.watch.column(None);
    }

    pub unsafe fn find(&mut self, table: &mut Table, what: &str, lock: pg_sys::LockTupleMode::Type) {
        unsafe {
            if !table.find(self.bound, &self.scratch.key, lock) {
                let message = format!("{what} of {} finds no row with key ({})", table.label, self.shape.key_names());
                self.watch.fail(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, message);
            }
        }
    }
}

impl Pending<'_> {
    /// False: bytes are left over. To be called under a guard.
    #[inline]
    unsafe fn read(&self, watch: &Watch, buffer: *mut pg_sys::StringInfoData) -> bool {
        unsafe {
            let Attribute { input: Some(input), name, .. } = &mut *self.attribute else {
                // No dropped column is bound.
                return false;
            };
            watch.column(Some(name));
            let (datum, all_read) = match self.value {
                Value::Unchanged => return false,
                Value::Null => (input.read_null(), true),
                Value::Text(text) => (input.read(text.as_ptr()), true),
                Value::Binary(bytes) => (*self.receive).read(bytes, buffer, input),
            };
            *self.datum = datum;
            *self.is_null = self.value == Value::Null;
            all_read
        }
    }
}

/// Of an empty slot, before a row is put into it.
#[inline]
pub unsafe fn set_all_null(slot: *mut pg_sys::TupleTableSlot, count: usize) {
    unsafe {
        std::slice::from_raw_parts_mut((*slot).tts_isnull, count).fill(true);
        std::slice::from_raw_parts_mut((*slot).tts_values, count).fill(pg_sys::Datum::null());
    }
}

pub fn refuse(error: Malformed) -> ! {
    fail(PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION, format!("malformed batch: {error}"))
}
