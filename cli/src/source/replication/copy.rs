//! A session that reads rows as raw COPY bytes. The general client hands over every row by itself,
//! which costs more CPU than all else that the copy does; here rows are gathered as they lie in the
//! buffer, and of a row of a gigabyte only a piece is ever in memory.

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::AsyncReadExt;

use super::channel::{Broken, CHUNK};
use super::{ReplicationClient, Rows, message, startup};
use crate::config::Conninfo;
use crate::connect::{self, Side, dial};
use crate::error::{Error, Result, ServerError};

/// One session with the source, for queries by the simple protocol and for COPY … TO STDOUT.
pub struct CopyClient {
    client: ReplicationClient,
    /// Bytes still to come of the CopyData message that was begun.
    left: usize,
    rows: Option<u64>,
}

impl CopyClient {
    /// Connects by the same rules, and with the same settings, as [`crate::connect::client`]. Rows come
    /// as they are stored.
    ///
    /// # Errors
    /// Exit 3, with a hint.
    pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<CopyClient> {
        let side = Side::Source;
        let startup = startup::Startup { conninfo, side, application_name, replication: false, bare: false };
        let mut copy = CopyClient { client: dial::connect(conninfo, side, &startup).await?, left: 0, rows: None };
        let settings = format!("{};\n{}", connect::settings_sql(&[]), connect::ROWS_AS_STORED);
        copy.query(&settings, || "prepare a session on the source".into()).await?;
        Ok(copy)
    }

    pub fn backend_pid(&self) -> i32 {
        self.client.backend_pid()
    }

    /// Statements without parameters; the rows of the last one that has any, as text.
    ///
    /// # Errors
    /// The server's, or the connection is gone; `doing` says what for.
    pub async fn query(&mut self, statements: &str, doing: impl FnOnce() -> String) -> Result<Rows> {
        match self.client.query(statements).await {
            Ok(rows) => Ok(rows),
            Err(broken) => Err(self.client.error(&doing(), broken)),
        }
    }

    /// Begins a COPY … TO STDOUT. Next: [`chunk`](Self::chunk) until it says that there is no more.
    ///
    /// # Errors
    /// The server's, or the connection is gone.
    pub async fn copy_out(&mut self, statement: &str, doing: impl FnOnce() -> String) -> Result<()> {
        match self.begin(statement).await {
            Ok(()) => Ok(()),
            Err(broken) => Err(self.client.error(&doing(), broken)),
        }
    }

    /// Appends to `into` until it holds `enough` bytes or the COPY has ended; false once it has. Where
    /// rows begin and end is not kept.
    ///
    /// # Errors
    /// The server's, or the connection is gone.
    pub async fn chunk(&mut self, into: &mut BytesMut, enough: usize, doing: impl FnOnce() -> String) -> Result<bool> {
        match self.gather(into, enough).await {
            Ok(more) => Ok(more),
            Err(broken) => Err(self.client.error(&doing(), broken)),
        }
    }

    /// How many rows the server says it sent, once the COPY has ended.
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    async fn begin(&mut self, statement: &str) -> Result<(), Broken> {
        let channel = &mut self.client.channel;
        frontend::query(statement, &mut channel.outbox)?;
        channel.flush().await?;
        loop {
            let frame = channel.frame().await?;
            match frame.tag {
                // CopyOutResponse.
                b'H' => {
                    channel.inbox.advance(frame.total);
                    (self.left, self.rows) = (0, None);
                    return Ok(());
                }
                b'E' => {
                    let err = message::server_error(channel.body(frame));
                    channel.inbox.advance(frame.total);
                    return Err(self.after(err).await);
                }
                _ => channel.pass_over(frame)?,
            }
        }
    }

    /// What to tell of an error: a FATAL one is followed by the end of the connection, not by an answer.
    async fn after(&mut self, err: ServerError) -> Broken {
        match self.client.until_ready().await {
            Ok(()) | Err(Broken::Network(_)) => err.into(),
            Err(other) => other,
        }
    }

    async fn gather(&mut self, into: &mut BytesMut, enough: usize) -> Result<bool, Broken> {
        let channel = &mut self.client.channel;
        loop {
            // What is in the buffer, message by message.
            loop {
                if self.left > 0 {
                    let here = self.left.min(channel.inbox.len());
                    into.extend_from_slice(&channel.inbox[..here]);
                    channel.inbox.advance(here);
                    self.left -= here;
                }
                if into.len() >= enough {
                    return Ok(true);
                }
                let Some(frame) = message::frame(&channel.inbox)? else { break };
                if frame.tag == b'd' {
                    channel.inbox.advance(5);
                    self.left = frame.total - 5;
                    continue;
                }
                if frame.total > channel.inbox.len() {
                    break;
                }
                match frame.tag {
                    b'c' => channel.inbox.advance(frame.total),
                    // CommandComplete, `COPY 42`; ReadyForQuery is the end.
                    b'C' => {
                        let tag = String::from_utf8_lossy(channel.body(frame));
                        self.rows = tag.trim_end_matches('\0').strip_prefix("COPY ").and_then(|rows| rows.parse().ok());
                        channel.inbox.advance(frame.total);
                    }
                    b'Z' => {
                        channel.inbox.advance(frame.total);
                        return Ok(false);
                    }
                    b'E' => {
                        let err = message::server_error(channel.body(frame));
                        channel.inbox.advance(frame.total);
                        return Err(self.after(err).await);
                    }
                    _ => channel.pass_over(frame)?,
                }
            }
            if channel.inbox.capacity() - channel.inbox.len() < CHUNK / 2 {
                channel.inbox.reserve(CHUNK);
            }
            if channel.wire.read_buf(&mut channel.inbox).await? == 0 {
                return Err(
                    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server closed the connection").into()
                );
            }
        }
    }
}

impl Rows {
    /// The value in a row and column, counted from 0; None if it is null.
    ///
    /// # Errors
    /// The server did not answer with such a row.
    pub fn value(&self, row: usize, column: usize) -> Result<Option<&str>> {
        match self.rows.get(row).and_then(|row| row.get(column)) {
            Some(value) => Ok(value.as_deref()),
            None => Err(Error::bug("an answer of another shape than was asked for")),
        }
    }
}
