//! A frame on disk: its header and checksum. Bytes from a file are checked before they are believed.
//!
//! A segment is a run of frames: a header of 32 bytes, then the records (`model::wire`), compressed
//! with zstd. Numbers are little endian.
//!
//! ```text
//! u32 magic  u8 version  u8 flags (1: ends at a transaction's end, 2: head of a segment)  u16 0
//! u32 stored bytes  u32 raw bytes  u64 end_lsn  u32 crc32 of the 24 bytes before
//! u32 crc32 of the 28 bytes before and the body
//! ```
//!
//! The headers alone say how far the spool goes when it is opened: they have a checksum of their own.
//!
//! Each segment after the first begins with an empty frame whose end_lsn is the largest of all
//! segments before it: what the target must have applied if those are gone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Result, SpoolError};
use crate::model::Lsn;
use crate::stream::assemble::Frame;

const MAGIC: u32 = u32::from_le_bytes(*b"PGMS");
const VERSION: u8 = 3;
pub(super) const HEADER: usize = 32;
/// No frame is near this large: a length beyond it is damage. One value may be up to 1 GiB.
const FRAME_MAX: u32 = 2 << 30;

pub(super) struct Header {
    stored: u32,
    raw: u32,
    pub(super) boundary: bool,
    pub(super) head: bool,
    pub(super) end_lsn: Lsn,
    crc: u32,
    pub(super) bytes: [u8; HEADER],
}

impl Header {
    pub(super) fn new(frame: &Frame, stored: &[u8], head: bool) -> Header {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = u8::from(frame.boundary) | u8::from(head) << 1;
        bytes[8..12].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&(frame.body.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&frame.end_lsn.0.to_le_bytes());
        let alone = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&alone.to_le_bytes());
        let crc = checksum(&bytes, stored);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        Header {
            stored: stored.len() as u32,
            raw: frame.body.len() as u32,
            boundary: frame.boundary,
            head,
            end_lsn: frame.end_lsn,
            crc,
            bytes,
        }
    }

    fn parse(bytes: [u8; HEADER]) -> std::result::Result<Header, &'static str> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if u32_at(0) != MAGIC {
            return Err("no frame begins here");
        }
        if bytes[4] != VERSION {
            return Err("written by another version of pgmig");
        }
        if crc32fast::hash(&bytes[..24]) != u32_at(24) {
            return Err("wrong checksum of a header");
        }
        let (stored, raw) = (u32_at(8), u32_at(12));
        if stored > FRAME_MAX || raw > FRAME_MAX {
            return Err("impossible length");
        }
        let end_lsn = Lsn(u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32);
        Ok(Header {
            stored,
            raw,
            boundary: bytes[5] & 1 == 1,
            head: bytes[5] & 2 == 2,
            end_lsn,
            crc: u32_at(28),
            bytes,
        })
    }

    pub(super) fn size(&self) -> u64 {
        HEADER as u64 + u64::from(self.stored)
    }
}

fn checksum(header: &[u8; HEADER], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..HEADER - 4]);
    hasher.update(body);
    hasher.finalize()
}

pub(super) fn read_header(file: &File, path: &Path, at: u64, size: u64) -> Result<Header> {
    let damaged = |what| SpoolError::Damaged { path: path.to_path_buf(), at, what };
    if size - at < HEADER as u64 {
        return Err(damaged("cut short"));
    }
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, at).map_err(|source| SpoolError::Io { path: path.to_path_buf(), source })?;
    Header::parse(bytes).map_err(damaged)
}

pub(super) fn read_body(file: &File, path: &Path, at: u64, header: &Header) -> Result<Vec<u8>> {
    let damaged = |what| SpoolError::Damaged { path: path.to_path_buf(), at, what };
    let mut stored = vec![0; header.stored as usize];
    file.read_exact_at(&mut stored, at + HEADER as u64).map_err(|_| damaged("cut short"))?;
    if checksum(&header.bytes, &stored) != header.crc {
        return Err(damaged("wrong checksum"));
    }
    let body = zstd::bulk::decompress(&stored, header.raw as usize).map_err(|_| damaged("not zstd"))?;
    if body.len() != header.raw as usize { Err(damaged("wrong length")) } else { Ok(body) }
}
