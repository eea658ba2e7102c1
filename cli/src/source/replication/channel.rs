//! Bytes to and from the server, cut into frames. The buffer grows to what the largest frame needs and
//! shrinks back; a length that PostgreSQL cannot have sent is refused before memory is asked for.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::message::{self, Frame, Malformed};
use crate::connect::dial::Wire;
use crate::error::Network;
use crate::error::ServerError;

/// One read from the socket; what the buffer shrinks back to.
pub(super) const CHUNK: usize = 256 << 10;
/// A read of so many bytes has not taken all that there is.
const MORE: usize = 8 << 10;
/// So many bytes between two rests are a backlog: nobody waits for a single change of it.
const MUCH: usize = 64 << 10;
const REST: Duration = Duration::from_millis(4);
const LONG_REST: Duration = Duration::from_millis(20);
/// A buffer that grew for frames above this is given back.
const LARGE: usize = 4 << 20;

#[derive(Debug)]
pub(super) enum Broken {
    Network(Network),
    /// What the server sent that it should not have.
    Malformed(&'static str),
    Server(ServerError),
}

impl From<io::Error> for Broken {
    fn from(err: io::Error) -> Broken {
        Broken::Network(Network(err))
    }
}
impl From<Malformed> for Broken {
    fn from(malformed: Malformed) -> Broken {
        Broken::Malformed(malformed.0)
    }
}
impl From<ServerError> for Broken {
    fn from(err: ServerError) -> Broken {
        Broken::Server(err)
    }
}

pub(super) struct Channel {
    pub wire: Wire,
    pub inbox: BytesMut,
    /// Bytes at the head of `inbox` that were lent out with the last message.
    pub taken: usize,
    pub outbox: BytesMut,
    large: bool,
    /// Bytes of the last read, and of all since the last rest.
    read: (usize, usize),
}

impl Channel {
    pub fn new(wire: Wire) -> Channel {
        Channel {
            wire,
            inbox: BytesMut::with_capacity(CHUNK),
            taken: 0,
            outbox: BytesMut::new(),
            large: false,
            read: (0, 0),
        }
    }

    /// Sends all of `outbox`. Cancel-safe: what is not sent stays.
    pub async fn flush(&mut self) -> Result<(), Broken> {
        while self.outbox.has_remaining() {
            if self.wire.write_buf(&mut self.outbox).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        Ok(self.wire.flush().await?)
    }

    /// One read. Cancel-safe.
    pub async fn fill(&mut self) -> Result<(), Broken> {
        self.let_go();
        // Whoever let it rest may have been dropped meanwhile.
        self.wire.wake_at(1);
        let missing = match message::frame(&self.inbox)? {
            Some(frame) => frame.total.saturating_sub(self.inbox.len()),
            None => 0,
        };
        self.large |= missing > LARGE;
        // Little room at the end makes for many small reads.
        if self.inbox.capacity() - self.inbox.len() < missing.max(CHUNK / 2) {
            self.inbox.reserve(missing.max(CHUNK));
        }
        match self.wire.read_buf(&mut self.inbox).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()),
            bytes => {
                self.read = (bytes, self.read.1 + bytes);
                Ok(())
            }
        }
    }

    /// Lets the server gather what it has to send, unless more of that is waiting already.
    pub async fn rest(&mut self) {
        let (last, since) = self.read;
        if last >= MORE {
            return;
        }
        self.wire.wake_at(CHUNK);
        tokio::time::sleep(if since >= MUCH { LONG_REST } else { REST }).await;
        self.read = (0, 0);
    }

    /// Drops what was lent out, and the room a large frame took.
    fn let_go(&mut self) {
        self.inbox.advance(self.taken);
        self.taken = 0;
        if self.large && self.inbox.len() < CHUNK {
            let mut small = BytesMut::with_capacity(CHUNK);
            small.extend_from_slice(&self.inbox);
            self.inbox = small;
            self.large = false;
        }
    }

    /// The next frame, once it is whole.
    pub async fn frame(&mut self) -> Result<Frame, Broken> {
        self.let_go();
        loop {
            match message::frame(&self.inbox)? {
                Some(frame) if frame.total <= self.inbox.len() => return Ok(frame),
                _ => self.fill().await?,
            }
        }
    }

    pub fn body(&self, frame: Frame) -> &[u8] {
        self.inbox.get(5..frame.total).unwrap_or(&[])
    }

    /// The next message outside of a stream.
    pub async fn message(&mut self) -> Result<backend::Message, Broken> {
        loop {
            let frame = self.frame().await?;
            if frame.tag == b'N' {
                self.pass_over(frame)?;
                continue;
            }
            let mut bytes = self.inbox.split_to(frame.total);
            return match backend::Message::parse(&mut bytes) {
                Ok(Some(message)) => Ok(message),
                _ => Err(Broken::Malformed("a message that cannot be read")),
            };
        }
    }

    /// The next whole frame of a stream that matters: CopyData, or one that ends it.
    pub fn stream_frame(&mut self) -> Result<Option<Frame>, Broken> {
        self.let_go();
        loop {
            let Some(frame) = message::frame(&self.inbox)?.filter(|frame| frame.total <= self.inbox.len()) else {
                return Ok(None);
            };
            match frame.tag {
                b'd' => return Ok(Some(frame)),
                // CopyDone; a server that shuts down sends CommandComplete instead.
                b'c' | b'C' => {
                    self.taken = frame.total;
                    return Ok(Some(frame));
                }
                b'E' => {
                    let err = message::server_error(self.body(frame));
                    self.taken = frame.total;
                    return Err(err.into());
                }
                _ => self.pass_over(frame)?,
            }
        }
    }

    /// A message that may come at any time (manual 55.2.7): notice, parameter, notification.
    pub fn pass_over(&mut self, frame: Frame) -> Result<(), Broken> {
        match frame.tag {
            b'N' => {
                // Its words may be those of a function on a row: they are not kept.
                let notice = message::server_error(self.body(frame));
                tracing::trace!(code = %notice.sqlstate, "the source gave notice");
            }
            b'S' | b'A' => {}
            _ => return Err(Broken::Malformed("a message that has no place here")),
        }
        self.inbox.advance(frame.total);
        Ok(())
    }
}
