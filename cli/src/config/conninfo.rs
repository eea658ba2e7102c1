//! Where a server is and how to talk to it, as values, and the same for child processes that use
//! libpq. No printed form of a value here may hold a password.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

pub use super::keyword::LIBPQ_VARS;

/// A parsed connection string (manual 34.1.2). Files it names are not read, except password and
/// service files.
#[derive(Clone, Debug)]
pub struct Conninfo {
    /// At least one, in the order in which they are tried.
    pub endpoints: Vec<Endpoint>,
    pub user: String,
    pub dbname: String,
    /// As given; a password file's is in the endpoint.
    pub(super) password: Option<Secret>,
    pub(super) passfile: Option<PathBuf>,
    pub tls: Tls,
    pub channel_binding: ChannelBinding,
    /// For each address tried; None waits for ever.
    pub connect_timeout: Option<Duration>,
    pub options: Option<String>,
    pub keepalive: Option<Keepalive>,
    pub tcp_user_timeout: Option<Duration>,
    pub target_session_attrs: SessionAttrs,
    pub requirepeer: Option<String>,
}

/// One server of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Host,
    /// Spares the look-up of the name.
    pub hostaddr: Option<IpAddr>,
    pub port: u16,
    /// For this host, from the string, the environment or the password file.
    pub password: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

/// TLS settings (manual 34.19).
#[derive(Clone, Debug)]
pub struct Tls {
    pub mode: SslMode,
    /// TLS from the first byte, without asking (PostgreSQL 17).
    pub direct: bool,
    pub roots: Roots,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub sni: bool,
    /// TLS 1.3 and nothing older.
    pub only_13: bool,
}

/// The certificates that a server's must lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// No file given, and no `~/.postgresql/root.crt`.
    None,
    File(PathBuf),
    /// `sslrootcert=system`: those of the operating system.
    System,
}

/// `require` with a root certificate file verifies as `verify-ca` does: see [`Tls::verifies_chain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// TCP keepalive, so that a dead peer is noticed within about two minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
}

impl Tls {
    /// The server's certificate must lead to one of the roots.
    pub fn verifies_chain(&self) -> bool {
        match self.mode {
            SslMode::VerifyCa | SslMode::VerifyFull => true,
            SslMode::Require => match &self.roots {
                Roots::File(path) => path.exists(),
                Roots::System => true,
                Roots::None => false,
            },
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => false,
        }
    }
}

impl Conninfo {
    /// The environment of a child that uses libpq (pg_dump, pg_restore, psql), to be set after
    /// removing all of [`LIBPQ_VARS`]. So a password is never among its arguments.
    pub fn libpq_env(&self) -> Vec<(String, String)> {
        let list = |part: &dyn Fn(&Endpoint) -> String| -> String {
            self.endpoints.iter().map(part).collect::<Vec<_>>().join(",")
        };
        let mut env = vec![
            ("PGHOST", list(&|endpoint| endpoint.host.to_string())),
            ("PGPORT", list(&|endpoint| endpoint.port.to_string())),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", self.dbname.clone()),
            ("PGSSLMODE", self.tls.mode.name().to_string()),
            ("PGCONNECT_TIMEOUT", self.connect_timeout.map_or(0, |timeout| timeout.as_secs()).to_string()),
            ("PGGSSENCMODE", "disable".to_string()),
        ];
        if self.endpoints.iter().any(|endpoint| endpoint.hostaddr.is_some()) {
            env.push(("PGHOSTADDR", list(&|one| one.hostaddr.map(|addr| addr.to_string()).unwrap_or_default())));
        }
        let path = |path: &PathBuf| path.display().to_string();
        let roots = match &self.tls.roots {
            Roots::None => None,
            Roots::File(file) => Some(path(file)),
            Roots::System => Some("system".to_string()),
        };
        let optional = [
            ("PGPASSWORD", self.password.as_ref().map(|password| password.reveal().to_string())),
            ("PGPASSFILE", self.passfile.as_ref().filter(|_| self.password.is_none()).map(path)),
            ("PGSSLROOTCERT", roots),
            ("PGSSLCERT", self.tls.cert.as_ref().map(path)),
            ("PGSSLKEY", self.tls.key.as_ref().map(path)),
            ("PGSSLSNI", (!self.tls.sni).then(|| "0".to_string())),
            ("PGSSLNEGOTIATION", self.tls.direct.then(|| "direct".to_string())),
            ("PGSSLMINPROTOCOLVERSION", self.tls.only_13.then(|| "TLSv1.3".to_string())),
            ("PGOPTIONS", self.options.clone()),
            ("PGREQUIREPEER", self.requirepeer.clone()),
            ("PGCHANNELBINDING", self.channel_binding.name().map(str::to_string)),
            ("PGTARGETSESSIONATTRS", self.target_session_attrs.name().map(str::to_string)),
        ];
        env.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        env.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

impl Endpoint {
    /// What a password file may call this server. The default socket directory is `localhost` there.
    pub(super) fn passfile_hosts(&self) -> Vec<String> {
        match &self.host {
            Host::Tcp(host) => vec![host.clone()],
            Host::Unix(dir) => {
                let dir = dir.display().to_string();
                let default = ["/var/run/postgresql", "/run/postgresql", "/tmp"].contains(&dir.as_str());
                if default { vec![dir, "localhost".to_string()] } else { vec![dir] }
            }
        }
    }
}

impl SslMode {
    pub fn name(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}
impl ChannelBinding {
    /// None for libpq's default.
    fn name(self) -> Option<&'static str> {
        match self {
            ChannelBinding::Disable => Some("disable"),
            ChannelBinding::Prefer => None,
            ChannelBinding::Require => Some("require"),
        }
    }
}
impl SessionAttrs {
    /// None for libpq's default.
    fn name(self) -> Option<&'static str> {
        match self {
            SessionAttrs::Any => None,
            SessionAttrs::ReadWrite => Some("read-write"),
            SessionAttrs::ReadOnly => Some("read-only"),
            SessionAttrs::Primary => Some("primary"),
            SessionAttrs::Standby => Some("standby"),
            SessionAttrs::PreferStandby => Some("prefer-standby"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Tcp(host) => f.write_str(host),
            Host::Unix(dir) => write!(f, "{}", dir.display()),
        }
    }
}
impl fmt::Display for Endpoint {
    /// `host:port`, with brackets round an IPv6 address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}
impl fmt::Display for Conninfo {
    /// `user@host:port/dbname`, hosts separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.user)?;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            write!(f, "{}{endpoint}", if index > 0 { "," } else { "" })?;
        }
        write!(f, "/{}", self.dbname)
    }
}
