//! From a `Conninfo` to an open session: hosts in order, each address, TLS or plain, in one time limit
//! an address. A password is never sent to a server that was to be verified and was not.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::unistd::{Uid, User};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::flow::Flow;
use super::lane::{Ear, Hearing, Lane};
use super::{Side, explain, tls};
use crate::config::conninfo::{Conninfo, Endpoint, Host, SessionAttrs, SslMode};
use crate::error::{Error, Network, Result};

/// Says who the server is, for `target_session_attrs`: two columns, both booleans.
pub(crate) const ROLE_QUERY: &str =
    "select pg_catalog.pg_is_in_recovery()::text, pg_catalog.current_setting('transaction_read_only')";

/// A way to make a session out of an open wire.
pub(crate) trait Open: Sync {
    type Session: Send;

    fn open(&self, wire: Wire, endpoint: &Endpoint) -> impl Future<Output = Result<Self::Session, Failure>> + Send;
    /// Asked only if the connection string has `target_session_attrs`.
    fn role(&self, session: &mut Self::Session) -> impl Future<Output = Result<Role, Failure>> + Send;
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Role {
    standby: bool,
    read_only: bool,
}

impl Role {
    /// The two columns of [`ROLE_QUERY`].
    pub(crate) fn read(in_recovery: Option<&str>, read_only: Option<&str>) -> Role {
        let yes = |text: Option<&str>| matches!(text, Some("t" | "true" | "on"));
        Role { standby: yes(in_recovery), read_only: yes(in_recovery) || yes(read_only) }
    }
    fn suits(self, wanted: SessionAttrs) -> bool {
        match wanted {
            SessionAttrs::Any => true,
            SessionAttrs::ReadWrite => !self.read_only,
            SessionAttrs::ReadOnly => self.read_only,
            SessionAttrs::Primary => !self.standby,
            SessionAttrs::Standby | SessionAttrs::PreferStandby => self.standby,
        }
    }
}

/// Why one attempt failed, and what is still worth trying.
#[derive(Debug)]
pub(crate) struct Failure {
    pub cause: Box<dyn StdError + Send + Sync>,
    /// Plain instead of TLS, or the other way round (`prefer`, `allow`).
    other_wire: bool,
    other_host: bool,
}

impl Failure {
    /// The network or the server's machine.
    pub(crate) fn unreachable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
        Failure { cause: cause.into(), other_wire: false, other_host: true }
    }
    /// No other host of the list would answer differently.
    pub(crate) fn stop(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
        Failure { cause: cause.into(), other_wire: false, other_host: false }
    }
    pub(crate) fn network(err: io::Error) -> Failure {
        Failure::unreachable(Network(err))
    }
    fn tls(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
        Failure { cause: cause.into(), other_wire: true, other_host: true }
    }
    /// The server said no. 28000: perhaps it wants the other kind of wire; 57P03: it is starting up.
    pub(crate) fn refused(sqlstate: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
        Failure { cause: cause.into(), other_wire: sqlstate == "28000", other_host: sqlstate == "57P03" }
    }
    pub(crate) fn of_sql(err: tokio_postgres::Error) -> Failure {
        match err.code().map(|code| code.code().to_string()) {
            Some(code) => Failure::refused(&code, err),
            None if err.source().is_some_and(|source| source.is::<io::Error>()) => Failure::unreachable(err),
            None => Failure::stop(err),
        }
    }
}

/// Tries the hosts until one gives a session that suits `target_session_attrs`.
///
/// # Errors
/// Exit 3 or 4 by `side`: what the last attempt met, with a hint, and the earlier hosts in short.
pub(crate) async fn connect<O: Open>(conninfo: &Conninfo, side: Side, opener: &O) -> Result<O::Session> {
    let cannot = |cause: Box<dyn StdError + Send + Sync>| {
        let hint = explain::hint(&*cause, conninfo, side);
        let err = Error::new(side.exit(), format!("cannot connect to the {side} {conninfo}")).cause(cause);
        match hint {
            Some(hint) => err.hint(hint),
            None => err,
        }
    };
    let tls = tls::setup(conninfo, side)?;
    let passes: &[SessionAttrs] = match conninfo.target_session_attrs {
        SessionAttrs::PreferStandby => &[SessionAttrs::Standby, SessionAttrs::Any],
        SessionAttrs::Any => &[SessionAttrs::Any],
        SessionAttrs::ReadWrite => &[SessionAttrs::ReadWrite],
        SessionAttrs::ReadOnly => &[SessionAttrs::ReadOnly],
        SessionAttrs::Primary => &[SessionAttrs::Primary],
        SessionAttrs::Standby => &[SessionAttrs::Standby],
    };
    let mut failed: Vec<(String, Failure)> = Vec::new();
    for wanted in passes {
        failed.clear();
        for endpoint in &conninfo.endpoints {
            let addresses = match in_time(conninfo.connect_timeout, addresses(endpoint)).await {
                Ok(addresses) => addresses,
                Err(failure) => {
                    failed.push((endpoint.to_string(), failure));
                    continue;
                }
            };
            for address in addresses {
                let attempt = Attempt { conninfo, endpoint, address: &address, tls: tls.as_ref(), wanted: *wanted };
                match attempt.any_wire(opener).await {
                    Ok(session) => return Ok(session),
                    Err(failure) if failure.other_host => failed.push((endpoint.to_string(), failure)),
                    Err(failure) => return Err(cannot(failure.cause)),
                }
            }
        }
    }
    let Some((_, last)) = failed.pop() else { return Err(cannot("no host to connect to".into())) };
    let mut earlier: Vec<String> =
        failed.iter().map(|(host, failure)| format!("{host}: {}", explain::brief(&*failure.cause))).collect();
    earlier.dedup();
    if conninfo.endpoints.len() == 1 || earlier.is_empty() {
        return Err(cannot(last.cause));
    }
    let hint = explain::hint(&*last.cause, conninfo, side);
    let inner = Error::new(side.exit(), format!("after {}", earlier.join("; "))).cause(last.cause);
    let err = cannot(Box::new(inner));
    Err(match hint {
        Some(hint) => err.hint(hint),
        None => err,
    })
}

#[derive(Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

async fn addresses(endpoint: &Endpoint) -> Result<Vec<Address>, Failure> {
    let name = match (&endpoint.hostaddr, &endpoint.host) {
        (Some(addr), _) => return Ok(vec![Address::Tcp((*addr, endpoint.port).into())]),
        (None, Host::Unix(dir)) => return Ok(vec![Address::Unix(dir.join(format!(".s.PGSQL.{}", endpoint.port)))]),
        (None, Host::Tcp(name)) => name,
    };
    let found: Vec<Address> = match lookup_host((name.as_str(), endpoint.port)).await {
        Ok(found) => found.map(Address::Tcp).collect(),
        Err(err) => return Err(Failure::unreachable(explain::UnknownHost(name.clone(), err.to_string()))),
    };
    match found.is_empty() {
        true => Err(Failure::unreachable(explain::UnknownHost(name.clone(), "no address".into()))),
        false => Ok(found),
    }
}

async fn in_time<T>(limit: Option<Duration>, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match limit {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::unreachable(explain::NoAnswer(limit))),
        },
    }
}

struct Attempt<'a> {
    conninfo: &'a Conninfo,
    endpoint: &'a Endpoint,
    address: &'a Address,
    tls: Option<&'a tls::Setup>,
    wanted: SessionAttrs,
}

impl Attempt<'_> {
    /// `prefer` tries TLS, then plain; `allow` plain, then TLS; the rest have no choice.
    async fn any_wire<O: Open>(&self, opener: &O) -> Result<O::Session, Failure> {
        let wires: &[bool] = match (self.address, self.conninfo.tls.mode) {
            (Address::Unix(_), _) | (_, SslMode::Disable) => &[false],
            (_, SslMode::Allow) => &[false, true],
            (_, SslMode::Prefer) => &[true, false],
            _ => &[true],
        };
        let mut result = Err(Failure::stop("no way to connect"));
        for encrypted in wires {
            result = in_time(self.conninfo.connect_timeout, self.session(opener, *encrypted)).await;
            if !matches!(&result, Err(failure) if failure.other_wire) {
                break;
            }
        }
        result
    }

    async fn session<O: Open>(&self, opener: &O, encrypted: bool) -> Result<O::Session, Failure> {
        let wire = match self.address {
            Address::Unix(path) => self.unix(path).await?,
            Address::Tcp(address) => self.tcp(*address, encrypted).await?,
        };
        let mut session = opener.open(wire, self.endpoint).await?;
        if self.wanted != SessionAttrs::Any && !opener.role(&mut session).await?.suits(self.wanted) {
            return Err(Failure::unreachable(explain::WrongRole));
        }
        Ok(session)
    }

    async fn unix(&self, path: &PathBuf) -> Result<Wire, Failure> {
        let stream = UnixStream::connect(path).await.map_err(Failure::network)?;
        if let Some(wanted) = &self.conninfo.requirepeer {
            let uid = stream.peer_cred().map_err(Failure::network)?.uid();
            let owner = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            if owner.is_none_or(|owner| owner.name != *wanted) {
                return Err(Failure::unreachable("the server does not run as the user that requirepeer names"));
            }
        }
        let direct = SockRef::from(&stream).try_clone().ok().map(OwnedFd::from);
        Ok(Wire { direct, ..Wire::over(stream) })
    }

    async fn tcp(&self, address: SocketAddr, encrypted: bool) -> Result<Wire, Failure> {
        let mut stream = TcpStream::connect(address).await.map_err(Failure::network)?;
        self.tune(&stream).map_err(Failure::network)?;
        let flow = Flow::of(&stream);
        let direct = SockRef::from(&stream).try_clone().ok().map(OwnedFd::from);
        let Some(tls) = self.tls.filter(|_| encrypted) else {
            return Ok(Wire { flow, direct, ..Wire::over(stream) });
        };
        if !self.conninfo.tls.direct {
            let mut request = bytes::BytesMut::new();
            postgres_protocol::message::frontend::ssl_request(&mut request);
            stream.write_all(&request).await.map_err(Failure::network)?;
            // Nothing else may be read before the handshake: a man in the middle could have put it there.
            if stream.read_u8().await.map_err(Failure::network)? != b'S' {
                return match self.conninfo.tls.mode {
                    SslMode::Prefer => Ok(Wire { flow, direct, ..Wire::over(stream) }),
                    _ => Err(Failure { other_wire: false, ..Failure::tls(explain::NoTls) }),
                };
            }
        }
        let (stream, binding) =
            tls.handshake(stream, &self.endpoint.host.to_string()).await.map_err(|err| Failure::tls(Network(err)))?;
        Ok(Wire { binding, flow, ..Wire::over(stream) })
    }

    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some(keepalive) = self.conninfo.keepalive {
            let times = TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.count);
            socket.set_tcp_keepalive(&times)?;
        }
        if cfg!(target_os = "linux") && self.conninfo.tcp_user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.conninfo.tcp_user_timeout)?;
        }
        Ok(())
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Io for T {}

/// An open byte stream to a server, encrypted or not.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    /// tls-server-end-point (RFC 5929): the digest of the server's certificate.
    binding: Option<Vec<u8>>,
    flow: Flow,
    /// The socket, if the bytes on it are those of `io`.
    direct: Option<OwnedFd>,
    hearing: Hearing,
}

impl Wire {
    /// Lets reads wait until so many bytes have come; 1 is the usual.
    pub(crate) fn wake_at(&mut self, bytes: usize) {
        self.flow.wake_at(bytes);
    }
    /// For a server that sends many small messages.
    pub(crate) fn narrow(&self) {
        self.flow.narrow();
    }
    pub(crate) fn binding(&self) -> Option<Vec<u8>> {
        self.binding.clone()
    }
    /// A way past whoever is given this wire, which must not have been read from.
    pub(crate) fn lane(&mut self) -> Lane {
        let ear = Arc::new(Ear::default());
        self.hearing = Hearing::with(Arc::clone(&ear));
        Lane::new(self.direct.take(), ear)
    }
    pub(crate) fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static) -> Wire {
        Wire { io: Box::new(io), binding: None, flow: Flow::none(), direct: None, hearing: Hearing::default() }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.hearing.hear(buf.filled().get(before..).unwrap_or_default());
        read
    }
}
impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        self.binding.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// Hands tokio-postgres the wire as it is.
pub(crate) struct AlreadyOpen;

impl TlsConnect<Wire> for AlreadyOpen {
    type Stream = Wire;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Wire>>;

    fn connect(self, wire: Wire) -> Self::Future {
        std::future::ready(Ok(wire))
    }
}
