//! Values: text to Datum through the type's input function, binary through its receive function, and
//! whether two Datums are the same.
//! Text is brought into the server's encoding here, since bytea is past the check of the protocol.
//! Must never put a value into a message.

use crate::bare;
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

/// The encoding of this database.
#[derive(Clone, Copy)]
pub struct Encoding(c_int);

impl Encoding {
    const SQL_ASCII: c_int = pg_sys::pg_enc::PG_SQL_ASCII as c_int;
    const UTF8: c_int = pg_sys::pg_enc::PG_UTF8 as c_int;

    pub fn of_database() -> Self {
        Encoding(unsafe { pg_sys::GetDatabaseEncoding() })
    }

    /// A value of the Batch as this database holds it: a Batch is UTF-8, but for a database in SQL_ASCII,
    /// which holds any bytes. Raises 22021 for bytes that are no text, 22P05 for a character that this
    /// encoding lacks. (NUL is refused by the reader of the Batch.) The answer may lie in the current
    /// memory context.
    #[inline]
    pub unsafe fn text(self, text: &CStr) -> &CStr {
        let bytes = text.to_bytes();
        if bytes.is_ascii() || self.0 == Self::SQL_ASCII {
            return text;
        }
        if self.0 == Self::UTF8 && std::str::from_utf8(bytes).is_ok() {
            return text;
        }
        unsafe { CStr::from_ptr(pg_sys::pg_any_to_server(text.as_ptr(), bytes.len() as c_int, Self::UTF8)) }
    }

    /// A name of the Batch, which is UTF-8, as the catalogs of this database spell it.
    pub fn name(self, name: &str) -> CString {
        let name = CString::new(name).expect("a name of the batch ends at its first NUL");
        if self.0 == Self::UTF8 {
            return name;
        }
        unsafe {
            let length = name.as_bytes().len() as c_int;
            CStr::from_ptr(pg_sys::pg_any_to_server(name.as_ptr(), length, Self::UTF8)).to_owned()
        }
    }
}

/// The input function of a column, looked up once.
pub struct Input {
    type_oid: pg_sys::Oid,
    function: pg_sys::FmgrInfo,
    io_param: pg_sys::Oid,
    typmod: i32,
}

impl Input {
    /// What the function remembers from call to call lives in the current memory context.
    pub unsafe fn of(type_oid: pg_sys::Oid, typmod: i32) -> Self {
        unsafe {
            let (mut oid, mut io_param) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::getTypeInputInfo(type_oid, &mut oid, &mut io_param);
            let mut function = pg_sys::FmgrInfo::default();
            pg_sys::fmgr_info(oid, &mut function);
            Input { type_oid, function, io_param, typmod }
        }
    }

    /// The Datum lives in the current memory context. To be called under a guard.
    #[inline]
    pub unsafe fn read(&mut self, text: *const c_char) -> pg_sys::Datum {
        // The pointer is *mut only because C has it so: input functions do not write to their input.
        unsafe { bare::InputFunctionCall(&mut self.function, text.cast_mut(), self.io_param, self.typmod) }
    }

    /// A domain may refuse null, so its input function is asked. To be called under a guard.
    #[inline]
    pub unsafe fn read_null(&mut self) -> pg_sys::Datum {
        if !self.function.fn_strict {
            unsafe { bare::InputFunctionCall(&mut self.function, ptr::null_mut(), self.io_param, self.typmod) };
        }
        pg_sys::Datum::null()
    }
}

/// The receive function of a column's type on the source; where the column has another type here, its
/// values go on as text to the input function of that.
pub struct Receive {
    function: pg_sys::FmgrInfo,
    io_param: pg_sys::Oid,
    typmod: i32,
    /// Null if the types are the same.
    output: Option<pg_sys::FmgrInfo>,
}

impl Receive {
    /// What the functions remember from call to call lives in the current memory context.
    pub unsafe fn of(source_type: pg_sys::Oid, input: &Input) -> Self {
        unsafe {
            let (mut oid, mut io_param) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::getTypeBinaryInputInfo(source_type, &mut oid, &mut io_param);
            let mut function = pg_sys::FmgrInfo::default();
            pg_sys::fmgr_info(oid, &mut function);
            if source_type == input.type_oid {
                return Receive { function, io_param, typmod: input.typmod, output: None };
            }
            let mut is_varlena = false;
            pg_sys::getTypeOutputInfo(source_type, &mut oid, &mut is_varlena);
            let mut output = pg_sys::FmgrInfo::default();
            pg_sys::fmgr_info(oid, &mut output);
            Receive { function, io_param, typmod: -1, output: Some(output) }
        }
    }

    /// The Datum, in the current memory context, and whether all bytes were read. `buffer` is for the bytes
    /// alone, and shared: receive functions of arrays write into what they read. To be called under a guard.
    #[inline]
    pub unsafe fn read(
        &mut self,
        bytes: &[u8],
        buffer: *mut pg_sys::StringInfoData,
        input: &mut Input,
    ) -> (pg_sys::Datum, bool) {
        unsafe {
            fill(&mut *buffer, bytes);
            let datum = bare::ReceiveFunctionCall(&mut self.function, buffer, self.io_param, self.typmod);
            if (*buffer).cursor != (*buffer).len {
                return (pg_sys::Datum::null(), false);
            }
            match &mut self.output {
                None => (datum, true),
                Some(output) => (input.read(bare::OutputFunctionCall(output, datum)), true),
            }
        }
    }
}

/// As resetStringInfo and appendBinaryStringInfo.
#[inline]
unsafe fn fill(buffer: &mut pg_sys::StringInfoData, bytes: &[u8]) {
    unsafe {
        (buffer.len, buffer.cursor) = (0, 0);
        if bytes.len() >= buffer.maxlen as usize {
            bare::enlargeStringInfo(buffer, bytes.len() as c_int);
        }
        ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.data.cast(), bytes.len());
        *buffer.data.add(bytes.len()) = 0;
        buffer.len = bytes.len() as c_int;
    }
}

/// How the values of a column are stored.
#[derive(Clone, Copy)]
pub struct Storage {
    pub by_value: bool,
    pub length: i16,
}

impl Storage {
    /// Whether two values have the same bytes once detoasted. Needs no operator, so json works, and it
    /// tells 1.0 from 1.00, which the old row of replica identity FULL must do.
    pub unsafe fn is_same(self, a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
        unsafe {
            if self.by_value {
                // A 4-byte Oid comes sign-extended from a tuple and zero-extended from its input
                // function: only the bytes of the type count.
                let unused = 64 - 8 * i32::from(self.length).clamp(1, 8);
                return (a.value() as u64) << unused == (b.value() as u64) << unused;
            }
            match self.length {
                -1 => same_varlena(a, b),
                -2 => CStr::from_ptr(a.cast_mut_ptr()) == CStr::from_ptr(b.cast_mut_ptr()),
                length => {
                    let bytes = |d: pg_sys::Datum| std::slice::from_raw_parts(d.cast_mut_ptr::<u8>(), length as usize);
                    bytes(a) == bytes(b)
                }
            }
        }
    }
}

unsafe fn same_varlena(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    unsafe {
        // The sizes are in the headers: most values that differ are told apart without detoasting.
        if pg_sys::toast_raw_datum_size(a) != pg_sys::toast_raw_datum_size(b) {
            return false;
        }
        let plain_a = pg_sys::pg_detoast_datum_packed(a.cast_mut_ptr());
        let plain_b = pg_sys::pg_detoast_datum_packed(b.cast_mut_ptr());
        let same = pgrx::varlena_to_byte_slice(plain_a) == pgrx::varlena_to_byte_slice(plain_b);
        // A sequential scan compares many rows before the row's memory is reset.
        for (plain, given) in [(plain_a, a), (plain_b, b)] {
            if plain != given.cast_mut_ptr() {
                pg_sys::pfree(plain.cast());
            }
        }
        same
    }
}
