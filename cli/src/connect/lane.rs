//! A way past the general client for what is sent in bulk. Between CopyInResponse and CopyDone that
//! client writes nothing, so the caller may write CopyData to the same socket itself, from its own
//! buffer: no copy, no other task to wake. Where bytes have to pass through TLS there is no such way.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Beside one session, for one COPY at a time.
pub struct Lane {
    socket: Option<AsyncFd<Socket>>,
    ear: Arc<Ear>,
}

impl Lane {
    pub(super) fn new(socket: Option<OwnedFd>, ear: Arc<Ear>) -> Lane {
        // SAFETY: the socket is its own descriptor, and stays open as long as it is owned here.
        let register = |socket| unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) }.ok();
        let socket = socket.map(Socket::from).and_then(register);
        Lane { socket, ear }
    }
    /// No way: what is sent goes through the client.
    pub(super) fn none() -> Lane {
        Lane { socket: None, ear: Arc::default() }
    }
    /// To be called before a COPY begins.
    pub(crate) fn begin(&self) {
        self.ear.refused.store(false, Ordering::Relaxed);
    }
    /// Whether the server has answered the COPY with an error: what is sent from now on is thrown away.
    pub(crate) fn refused(&self) -> bool {
        self.ear.refused.load(Ordering::Relaxed)
    }
    /// Sends whole messages. False if there is no way past the client. If dropped half-way the session
    /// is of no use any more.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn send(&self, mut messages: &[u8]) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        while !messages.is_empty() {
            let mut ready = socket.writable().await?;
            match ready.try_io(|socket| socket.get_ref().send(messages)) {
                Ok(Ok(sent)) => messages = messages.get(sent..).unwrap_or_default(),
                Ok(Err(err)) if err.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(err)) => return Err(err),
                Err(_would_block) => {}
            }
        }
        Ok(true)
    }
}

/// Listens to what the server says for an ErrorResponse: the general client tells of one only once the
/// COPY is over, which may be a terabyte later.
#[derive(Default)]
pub(super) struct Ear {
    refused: AtomicBool,
}

/// Where an [`Ear`] is in the server's messages: a tag and a length, then the body (manual 55.7).
#[derive(Default)]
pub(super) struct Hearing {
    ear: Option<Arc<Ear>>,
    head: Vec<u8>,
    left: usize,
}

impl Hearing {
    /// From the next byte on, which is the first of a message.
    pub(super) fn with(ear: Arc<Ear>) -> Hearing {
        Hearing { ear: Some(ear), ..Hearing::default() }
    }
    pub(super) fn hear(&mut self, mut bytes: &[u8]) {
        let Some(ear) = &self.ear else { return };
        while !bytes.is_empty() {
            let body = self.left.min(bytes.len());
            self.left -= body;
            bytes = &bytes[body..];
            let head = (5 - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..head]);
            bytes = &bytes[head..];
            if let [tag, length @ ..] = self.head.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                if *tag == b'E' {
                    ear.refused.store(true, Ordering::Relaxed);
                }
                self.left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_heard_however_the_bytes_are_cut() {
        let said = |messages: &[(u8, &[u8])]| {
            let message =
                |(tag, body): &(u8, &[u8])| [&[*tag], (body.len() as u32 + 4).to_be_bytes().as_slice(), body].concat();
            messages.iter().flat_map(message).collect::<Vec<u8>>()
        };
        let calm = said(&[(b'N', b"E is no error"), (b'S', b""), (b'Z', b"E")]);
        let error = said(&[(b'N', b"notice"), (b'E', b"SERROR")]);
        for piece in 1..=error.len() {
            for (bytes, expected) in [(&calm, false), (&error, true)] {
                let ear = Arc::new(Ear::default());
                let mut hearing = Hearing::with(Arc::clone(&ear));
                bytes.chunks(piece).for_each(|bytes| hearing.hear(bytes));
                assert_eq!(ear.refused.load(Ordering::Relaxed), expected, "in pieces of {piece}");
            }
        }
    }
}
