//! The messages of the stream (manual 55.4 and 55.7), read in place. Any bytes may come: the answer to
//! wrong ones is an error, never a panic.

use crate::error::ServerError;
use crate::model::lsn::Lsn;

/// One message of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    XLogData(XLogData<'a>),
    Keepalive(Keepalive),
    /// The server has ended the stream; `stop` or drop the client.
    CopyDone,
}

/// One message of the output plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XLogData<'a> {
    pub wal_start: Lsn,
    /// For a logical slot PostgreSQL sends the same value twice: do not take it for the server's end of WAL.
    pub wal_end: Lsn,
    /// Microseconds since 2000-01-01 UTC on the server's clock.
    pub sent_at_us: i64,
    pub data: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How far the server has read and sent.
    pub wal_end: Lsn,
    /// Microseconds since 2000-01-01 UTC on the server's clock.
    pub sent_at_us: i64,
    /// Answer with a status at once, else the server may hang up.
    pub reply_requested: bool,
}

/// What was wrong, as the end of "the server sent ..".
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

/// Tag and length of a message. Its body may not be there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub tag: u8,
    /// With tag and length.
    pub total: usize,
}

/// PostgreSQL's limit of a message is 1 GiB less one byte, and a few bytes go round it.
const MAX_BODY: usize = (1 << 30) + 64;

/// The frame at the head of `bytes`; None if its five bytes are not there yet.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<Frame>, Malformed> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_BODY).contains(&length) {
        return Err(Malformed("a message of impossible length"));
    }
    Ok(Some(Frame { tag, total: length + 1 }))
}

/// The body of a CopyData message of the stream.
pub(super) fn of_copy_data(body: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader(body);
    match reader.byte()? {
        b'w' => Ok(Message::XLogData(XLogData {
            wal_start: Lsn(reader.int64()? as u64),
            wal_end: Lsn(reader.int64()? as u64),
            sent_at_us: reader.int64()?,
            data: reader.0,
        })),
        b'k' => Ok(Message::Keepalive(Keepalive {
            wal_end: Lsn(reader.int64()? as u64),
            sent_at_us: reader.int64()?,
            reply_requested: reader.byte()? != 0,
        })),
        _ => Err(Malformed("a replication message of unknown kind")),
    }
}

/// The body of an ErrorResponse or NoticeResponse (manual 55.8), as far as it can be read.
pub(super) fn server_error(body: &[u8]) -> ServerError {
    let mut err = ServerError { sqlstate: String::new(), message: String::new(), hint: None };
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { break };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => err.sqlstate = text,
            b'M' => err.message = text,
            b'H' => err.hint = Some(text),
            // DETAIL among them: it may hold row values.
            _ => {}
        }
    }
    err
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed("a replication message that is too short"))?;
        self.0 = rest;
        Ok(*byte)
    }
    fn int64(&mut self) -> Result<i64, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed("a replication message that is too short"))?;
        self.0 = rest;
        Ok(i64::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xlog_data(payload: &[u8]) -> Vec<u8> {
        let head = [&[b'w'][..], &7u64.to_be_bytes(), &9u64.to_be_bytes(), &(-5i64).to_be_bytes()].concat();
        [head.as_slice(), payload].concat()
    }
    fn keepalive(reply: u8) -> Vec<u8> {
        [&[b'k'][..], &u64::MAX.to_be_bytes(), &3i64.to_be_bytes(), &[reply]].concat()
    }

    #[test]
    fn both_kinds_of_message_are_read() {
        let bytes = xlog_data(b"{}");
        let expected = XLogData { wal_start: Lsn(7), wal_end: Lsn(9), sent_at_us: -5, data: b"{}" };
        assert_eq!(of_copy_data(&bytes), Ok(Message::XLogData(expected)));
        let expected = Keepalive { wal_end: Lsn(u64::MAX), sent_at_us: 3, reply_requested: true };
        assert_eq!(of_copy_data(&keepalive(1)), Ok(Message::Keepalive(expected)));
        assert!(matches!(of_copy_data(&xlog_data(b"")), Ok(Message::XLogData(data)) if data.data.is_empty()));
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error() {
        let bytes = xlog_data(b"");
        for length in 0..bytes.len() {
            assert!(of_copy_data(&bytes[..length]).is_err(), "{length}");
        }
        let bytes = keepalive(0);
        for length in 0..bytes.len() {
            assert!(of_copy_data(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused_before_memory_is_asked_for() {
        assert_eq!(frame(b"d\0\0\0"), Ok(None));
        assert_eq!(frame(b"d\0\0\0\x04"), Ok(Some(Frame { tag: b'd', total: 5 })));
        for length in [0u32, 3, 0x4000_0041, u32::MAX] {
            assert!(frame(&[&[b'd'][..], &length.to_be_bytes()].concat()).is_err(), "{length}");
        }
    }

    #[test]
    fn garbage_never_panics() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
            if let Some(first) = bytes.first_mut() {
                *first = *rng.choice(b"wkdEN").unwrap_or(&0);
            }
            let _ = (frame(&bytes), of_copy_data(&bytes), server_error(&bytes));
        }
    }

    #[test]
    fn an_error_is_read_without_its_detail() {
        let err = server_error(b"SERROR\0C42501\0Mno \xff way\0Dsecret row\0Hask\0\0junk");
        assert_eq!((err.sqlstate.as_str(), err.message.as_str()), ("42501", "no \u{fffd} way"));
        assert_eq!(err.hint.as_deref(), Some("ask"));
        assert!(!format!("{err:?}").contains("secret"));
    }
}
