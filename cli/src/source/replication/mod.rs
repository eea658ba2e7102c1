//! A client of the streaming replication protocol (manual 55.4) for any output plugin: slots, exported
//! snapshots, the stream as borrowed payloads, feedback. It never looks into a payload and never
//! decides what to confirm.

mod channel;
mod copy;
mod hint;
pub mod message;
pub mod pooled;
mod startup;

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{backend, frontend};

use crate::config::Conninfo;
use crate::connect::{self, Side, dial};
use crate::error::{Error, Result};
use crate::model::lsn::Lsn;
use channel::{Broken, Channel};
pub use copy::CopyClient;
pub use message::{Keepalive, Message, XLogData};

/// In kB; shared_buffers counts blocks of 8 kB.
const DECODE_IN_MEMORY: &str = "\
select pg_catalog.set_config(m.name, greatest(m.setting::bigint, least(b.setting::bigint * 4, 1048576))::text || 'kB', false)
  from pg_catalog.pg_settings m, pg_catalog.pg_settings b
 where m.name = 'logical_decoding_work_mem' and b.name = 'shared_buffers'";

/// Whether `CREATE_REPLICATION_SLOT` leaves a snapshot that other sessions can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshot {
    /// It lives until the next command on this client, or its end.
    Export,
    NoExport,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The stream holds every transaction that commits after this.
    pub consistent_point: Lsn,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub snapshot: Option<String>,
}

/// The answer to a simple query or replication command, in text form.
#[derive(Debug, Default)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// The column's value in the first row. By name: forks of PostgreSQL add columns.
    pub fn first(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| name == column)?;
        self.rows.first()?.get(index)?.as_deref()
    }
}

/// One connection with `replication=database`.
pub struct ReplicationClient {
    channel: Channel,
    side: Side,
    user: String,
    major: u32,
    backend_pid: i32,
    streamed: bool,
}

impl ReplicationClient {
    /// Connects by the same rules as [`crate::connect::client`]. The session prints values as the
    /// decoders expect them and has the server's timeouts switched off; settings come on top of the
    /// connection string's `options`.
    ///
    /// # Errors
    /// Exit 3 or 4 by `side`, with a hint.
    pub async fn connect(conninfo: &Conninfo, side: Side, application_name: &str) -> Result<ReplicationClient> {
        let startup = startup::Startup { conninfo, side, application_name, replication: true, bare: false };
        dial::connect(conninfo, side, &startup).await
    }

    /// The server's process, to find it in `pg_stat_replication` or end it from another session.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Creates a logical slot. Waits for the transactions that are open on the server to end; to give
    /// up, end [`backend_pid`](Self::backend_pid) from another session. A temporary slot ends with this
    /// client, or with the first command of it that fails.
    ///
    /// # Errors
    /// The server's, with a hint for the usual ones (wal_level, plugin, rights, number of slots, name).
    pub async fn create_slot(
        &mut self,
        name: &str,
        plugin: &str,
        temporary: bool,
        snapshot: Snapshot,
    ) -> Result<CreatedSlot> {
        let doing = format!("cannot create slot `{name}` on the {}", self.side);
        // Where standbys can keep a copy of the slot, one that is promoted goes on with it.
        let failover = if self.major >= 17 && !temporary { ", FAILOVER" } else { "" };
        let snapshot = match (self.major >= 15, snapshot) {
            (true, Snapshot::Export) => format!("(SNAPSHOT 'export'{failover})"),
            (true, Snapshot::NoExport) => format!("(SNAPSHOT 'nothing'{failover})"),
            (false, Snapshot::Export) => "EXPORT_SNAPSHOT".into(),
            (false, Snapshot::NoExport) => "NOEXPORT_SNAPSHOT".into(),
        };
        let command = format!(
            "CREATE_REPLICATION_SLOT {}{} LOGICAL {} {snapshot}",
            identifier(name),
            if temporary { " TEMPORARY" } else { "" },
            identifier(plugin),
        );
        let rows = match self.query(&command).await {
            Ok(rows) => rows,
            Err(broken) => {
                let hint = hint::of_slot(&broken, name, Some(plugin), &self.user, self.major, self.side);
                return Err(with_hint(self.error(&doing, broken), hint));
            }
        };
        let Some(consistent_point) = rows.first("consistent_point").and_then(|lsn| lsn.parse().ok()) else {
            return Err(self.error(&doing, Broken::Malformed("an unexpected answer to CREATE_REPLICATION_SLOT")));
        };
        Ok(CreatedSlot { consistent_point, snapshot: rows.first("snapshot_name").map(str::to_string) })
    }

    /// Starts the stream of a slot at `from`, or where the slot was last confirmed if that is later.
    /// `options` go to the output plugin. Next: [`fill`](Self::fill) and [`poll_message`](Self::poll_message).
    ///
    /// # Errors
    /// The server's, with a hint where the cause is known. The plugin refuses unknown options here.
    pub async fn start(&mut self, slot: &str, from: Lsn, options: &[(&str, &str)]) -> Result<()> {
        // The walsender (seen with 15.20) remembers that a stream has ended, and ends the next one at once.
        if self.streamed {
            return Err(Error::bug("a second stream on one replication connection"));
        }
        let options: Vec<String> =
            options.iter().map(|(name, value)| format!("{} {}", identifier(name), literal(value))).collect();
        let mut command = format!("START_REPLICATION SLOT {} LOGICAL {from}", identifier(slot));
        if !options.is_empty() {
            command.push_str(&format!(" ({})", options.join(", ")));
        }
        self.channel.wire.narrow();
        match self.begin_stream(&command).await {
            Ok(()) => Ok(()),
            Err(broken) => {
                let hint = hint::of_slot(&broken, slot, None, &self.user, self.major, self.side);
                Err(with_hint(self.error(&format!("cannot read slot `{slot}` on the {}", self.side), broken), hint))
            }
        }
    }

    /// Lets a database in SQL_ASCII send its values as they are stored.
    ///
    /// # Errors
    /// The server's, or the connection is gone.
    pub async fn rows_as_stored(&mut self) -> Result<()> {
        self.prepare(connect::ROWS_AS_STORED).await
    }

    /// Gives decoding more memory than the server's default of 64 MB, so that a large transaction is not
    /// written to the source's disk and read again for us: half of shared_buffers, at most 1 GB, and no
    /// less than what is set.
    ///
    /// # Errors
    /// The server's, or the connection is gone.
    pub async fn decode_in_memory(&mut self) -> Result<()> {
        self.prepare(DECODE_IN_MEMORY).await
    }

    async fn prepare(&mut self, settings: &str) -> Result<()> {
        match self.query(settings).await {
            Ok(_) => Ok(()),
            Err(broken) => Err(self.error(&format!("prepare a session on the {}", self.side), broken)),
        }
    }

    async fn begin_stream(&mut self, command: &str) -> Result<(), Broken> {
        frontend::query(command, &mut self.channel.outbox)?;
        self.channel.flush().await?;
        loop {
            let frame = self.channel.frame().await?;
            match frame.tag {
                // CopyBothResponse, which postgres-protocol does not know.
                b'W' => {
                    self.channel.inbox.advance(frame.total);
                    self.streamed = true;
                    return Ok(());
                }
                b'E' => {
                    let err = message::server_error(self.channel.body(frame));
                    self.channel.inbox.advance(frame.total);
                    self.until_ready().await?;
                    return Err(err.into());
                }
                _ => self.channel.pass_over(frame)?,
            }
        }
    }

    /// Reads what has come from the server into the buffer, waiting if nothing has. For when
    /// `poll_message` gives None: earlier, an error that waits in the buffer would be hidden by the end
    /// of the connection. Cancel-safe: inside `select!` nothing is lost.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn fill(&mut self) -> Result<()> {
        match self.channel.fill().await {
            Ok(()) => Ok(()),
            Err(broken) => Err(self.stream_error(broken)),
        }
    }

    /// As `fill`, but once all that waits was read leaves the connection alone for a while first (4 ms,
    /// or 20 ms while much comes), so that one read takes what the server sends in many small writes.
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn fill_after_rest(&mut self) -> Result<()> {
        self.channel.rest().await;
        self.fill().await
    }

    /// The next whole message in the buffer, its payload borrowed from there; None: `fill` first.
    ///
    /// # Errors
    /// The server's, or bytes that are not of the protocol. The stream is over then.
    pub fn poll_message(&mut self) -> Result<Option<Message<'_>>> {
        match self.channel.stream_frame() {
            Ok(None) => Ok(None),
            Ok(Some(frame)) if frame.tag != b'd' => Ok(Some(Message::CopyDone)),
            // Parsed twice, since a borrow returned from one branch would cover the other.
            Ok(Some(frame)) => match message::of_copy_data(self.channel.body(frame)) {
                Ok(_) => {
                    self.channel.taken = frame.total;
                    Ok(message::of_copy_data(self.channel.body(frame)).ok())
                }
                Err(malformed) => Err(self.stream_error(malformed.into())),
            },
            Err(broken) => Err(self.stream_error(broken)),
        }
    }

    /// Tells the server how far we are (manual 55.4, Standby status update): the slot lets go of what
    /// lies before `flush`. If dropped half-way the rest goes out with the next call.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_status(&mut self, write: Lsn, flush: Lsn, apply: Lsn, reply_requested: bool) -> Result<()> {
        let outbox = &mut self.channel.outbox;
        outbox.put_u8(b'd');
        outbox.put_u32(4 + 34);
        outbox.put_u8(b'r');
        for lsn in [write, flush, apply] {
            outbox.put_u64(lsn.0);
        }
        outbox.put_i64(micros_since_2000());
        outbox.put_u8(reply_requested.into());
        match self.channel.flush().await {
            Ok(()) => Ok(()),
            Err(broken) => Err(self.stream_error(broken)),
        }
    }

    /// Ends the stream and throws away what is still on its way. The client can take commands again,
    /// but another stream needs another client.
    ///
    /// # Errors
    /// The server's, or the connection is gone.
    pub async fn stop(&mut self) -> Result<()> {
        frontend::copy_done(&mut self.channel.outbox);
        let done = async {
            self.channel.flush().await?;
            self.until_ready().await
        };
        match done.await {
            Ok(()) => Ok(()),
            Err(broken) => Err(self.stream_error(broken)),
        }
    }

    /// Drops messages up to ReadyForQuery.
    async fn until_ready(&mut self) -> Result<(), Broken> {
        let mut failed = None;
        loop {
            let frame = match (self.channel.frame().await, failed.take()) {
                (Ok(frame), earlier) => {
                    failed = earlier;
                    frame
                }
                // A FATAL error is followed by the end of the connection.
                (Err(_), Some(err)) => return Err(Broken::Server(err)),
                (Err(broken), None) => return Err(broken),
            };
            if frame.tag == b'E' && failed.is_none() {
                failed = Some(message::server_error(self.channel.body(frame)));
            }
            self.channel.inbox.advance(frame.total);
            if frame.tag == b'Z' {
                return failed.map_or(Ok(()), |err| Err(err.into()));
            }
        }
    }

    /// One replication command or SQL statement by the simple protocol. Not cancel-safe: a client
    /// whose query was dropped half-way must be dropped too.
    async fn query(&mut self, text: &str) -> Result<Rows, Broken> {
        frontend::query(text, &mut self.channel.outbox)?;
        self.channel.flush().await?;
        let mut answer = Rows::default();
        loop {
            match self.channel.message().await? {
                backend::Message::RowDescription(body) => {
                    let names = body.fields().map(|field| Ok(field.name().to_string()));
                    answer = Rows { columns: names.collect()?, rows: Vec::new() };
                }
                backend::Message::DataRow(body) => {
                    let buffer = body.buffer();
                    let cell = |range: Option<std::ops::Range<usize>>| {
                        let bytes = range.and_then(|range| buffer.get(range));
                        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
                    };
                    answer.rows.push(body.ranges().map(cell).collect()?);
                }
                backend::Message::ErrorResponse(body) => {
                    let err = startup::server_error(&body);
                    return match self.until_ready().await {
                        Ok(()) | Err(Broken::Network(_)) => Err(err.into()),
                        Err(other) => Err(other),
                    };
                }
                backend::Message::ReadyForQuery(_) => return Ok(answer),
                _ => {}
            }
        }
    }

    fn stream_error(&self, broken: Broken) -> Error {
        self.error(&format!("read the replication stream of the {}", self.side), broken)
    }

    fn error(&self, doing: &str, broken: Broken) -> Error {
        let err = Error::new(self.side.exit(), doing);
        match broken {
            Broken::Server(server) => {
                let hint = hint::of_answer(&server);
                with_hint(err.cause(server), hint)
            }
            Broken::Network(network) => err.cause(network),
            Broken::Malformed(what) => err
                .cause(format!("the server sent {what}"))
                .hint("is there a proxy in between? Connect to the server itself"),
        }
    }
}

fn with_hint(err: Error, hint: Option<String>) -> Error {
    match hint {
        Some(hint) => err.hint(hint),
        None => err,
    }
}

/// Quoted for the replication grammar, which knows no `E''` strings and no comments.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// PostgreSQL's epoch is 2000-01-01.
fn micros_since_2000() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
    since_1970 - 946_684_800_000_000
}

#[cfg(test)]
mod tests;
