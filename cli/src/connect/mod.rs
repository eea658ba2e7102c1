//! Opens sessions with either server, for SQL and for replication alike: one way to reach a host, one
//! set of TLS rules, one set of hints. Knows nothing of what is said once a session is open.

pub(crate) mod dial;
pub(crate) mod explain;
mod flow;
mod lane;
mod tls;
mod verify;

use std::fmt;
use std::future::poll_fn;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::config::{ChannelBinding as SqlBinding, SslMode as SqlSslMode, SslNegotiation};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Connection};

use crate::config::conninfo::{ChannelBinding, Conninfo, Endpoint};
use crate::error::{Error, Exit, Result};
use dial::{AlreadyOpen, Failure, Open, Role, Wire};
pub use lane::Lane;

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Source,
    Target,
}

impl Side {
    pub fn exit(self) -> Exit {
        match self {
            Side::Source => Exit::Source,
            Side::Target => Exit::Target,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
        })
    }
}

/// What every session of ours needs to read and write values exactly, see every row, find objects by
/// full name only, and not be cut off while it waits.
const SETTINGS: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("timezone", "UTC"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    // A peer that vanished is noticed, and what it had locked is free.
    ("tcp_keepalives_idle", "60"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "6"),
    ("array_nulls", "on"),
    ("xmloption", "content"),
    ("search_path", ""),
    ("row_security", "off"),
    ("standard_conforming_strings", "on"),
    ("quote_all_identifiers", "off"),
];

/// For sessions that carry rows: a database in SQL_ASCII gives and takes the bytes that it holds, which
/// no client encoding fits. Names and statements stay UTF-8, as everywhere.
pub(crate) const ROWS_AS_STORED: &str = "\
select pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)
 where pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'";

/// Lets commits wait for the disk whatever role and database say; how much more they wait for stays
/// theirs.
pub(crate) const COMMITS_WAIT: &str = "\
select pg_catalog.set_config(name, case reset_val when 'off' then 'on' else reset_val end, false)
  from pg_catalog.pg_settings
 where name = 'synchronous_commit'";

/// The same in a session that has set nothing yet; pg_settings takes a millisecond.
const COMMITS_WAIT_AT_FIRST: &str = "\
select pg_catalog.set_config('synchronous_commit', 'on', false)
 where pg_catalog.current_setting('synchronous_commit') = 'off'";

/// Set to 0 where the server knows them: timeouts of PostgreSQL 14 and 17; and compiling a query for the
/// catalogs, whose costs are guesses, takes a second where the query itself takes milliseconds.
const OFF_WHERE_KNOWN: &str = "\
select pg_catalog.set_config(name, '0', false)
  from pg_catalog.unnest(array['idle_session_timeout', 'transaction_timeout', 'jit']) name
 where pg_catalog.current_setting(name, true) is not null";

/// A session for SQL. Its connection runs as a task until the client is dropped. `settings` come after
/// the usual ones and win over them; those of the connection string's `options` lose to both.
///
/// # Errors
/// Exit 3 or 4 by `side`, with a hint: not reached, refused, not trusted, or a setting not allowed.
pub async fn client(
    conninfo: &Conninfo,
    side: Side,
    application_name: &str,
    settings: &[(&str, &str)],
) -> Result<Client> {
    Ok(session(&Sql { conninfo, application_name, bulk: false }, side, settings).await?.0)
}

/// The same, with a way past the client for COPY … FROM STDIN.
///
/// # Errors
/// As of [`client`].
pub async fn client_with_lane(
    conninfo: &Conninfo,
    side: Side,
    application_name: &str,
    settings: &[(&str, &str)],
) -> Result<(Client, Lane)> {
    session(&Sql { conninfo, application_name, bulk: true }, side, settings).await
}

async fn session(sql: &Sql<'_>, side: Side, settings: &[(&str, &str)]) -> Result<(Client, Lane)> {
    let conninfo = sql.conninfo;
    let (client, lane) = dial::connect(conninfo, side, sql).await?;
    client.batch_execute(&settings_sql(settings)).await.map_err(|err| {
        let hint = explain::of_setting(&err, &conninfo.user, side);
        let doing = Error::new(side.exit(), format!("cannot prepare a session on the {side} {conninfo}")).cause(err);
        match hint {
            Some(hint) => doing.hint(hint),
            None => doing,
        }
    })?;
    Ok((client, lane))
}

/// A session with something that speaks the protocol and is no server, such as a pooler's console: nothing
/// is set in it.
pub async fn console(conninfo: &Conninfo, side: Side) -> Result<Client> {
    Ok(dial::connect(conninfo, side, &Sql { conninfo, application_name: "pgmig", bulk: false }).await?.0)
}

/// The statements that give a session the usual settings, then `settings`.
pub(crate) fn settings_sql(settings: &[(&str, &str)]) -> String {
    let calls: Vec<String> = SETTINGS
        .iter()
        .chain(settings)
        .map(|(name, value)| {
            format!("pg_catalog.set_config({}, {}, false)", escape_literal(name), escape_literal(value))
        })
        .collect();
    format!("{COMMITS_WAIT_AT_FIRST};\n{OFF_WHERE_KNOWN};\nselect {}", calls.join(", "))
}

/// Whether no server was found that answers; one may be there in a moment.
pub fn unreachable(err: &Error) -> bool {
    explain::unreachable(err)
}

/// Asks the server to cancel what the token's session is doing. With a list of hosts each is asked:
/// only the right one knows the token.
///
/// # Errors
/// Exit 3 or 4 by `side`, if no host could be asked. That nothing was running is not an error.
pub async fn cancel(conninfo: &Conninfo, side: Side, token: CancelToken) -> Result<()> {
    let mut asked = Ok(());
    for endpoint in &conninfo.endpoints {
        let mut alone = conninfo.clone();
        alone.endpoints = vec![endpoint.clone()];
        let one = dial::connect(&alone, side, &Cancel(&token)).await;
        if one.is_ok() || asked.is_ok() {
            asked = one;
        }
    }
    asked
}

/// Opens a tokio-postgres session on a wire that is encrypted already, if it is to be.
struct Sql<'a> {
    conninfo: &'a Conninfo,
    application_name: &'a str,
    /// Whether to make a way past the client.
    bulk: bool,
}

impl Open for Sql<'_> {
    type Session = (Client, Lane);

    async fn open(&self, mut wire: Wire, endpoint: &Endpoint) -> Result<(Client, Lane), Failure> {
        let lane = if self.bulk { wire.lane() } else { Lane::none() };
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.conninfo.user)
            .dbname(&self.conninfo.dbname)
            .application_name(self.application_name)
            // "Encrypt at once" makes tokio-postgres take the wire as it is, its channel binding included.
            .ssl_mode(SqlSslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct)
            .channel_binding(match self.conninfo.channel_binding {
                ChannelBinding::Disable => SqlBinding::Disable,
                ChannelBinding::Prefer => SqlBinding::Prefer,
                ChannelBinding::Require => SqlBinding::Require,
            });
        if let Some(password) = &endpoint.password {
            config.password(password.reveal());
        }
        if let Some(options) = &self.conninfo.options {
            config.options(options);
        }
        let (client, connection) = config.connect_raw(wire, AlreadyOpen).await.map_err(|err| {
            // tokio-postgres has no code for it.
            let missing = std::error::Error::source(&err).is_some_and(|cause| cause.to_string() == "password missing");
            if missing { Failure::stop(explain::NoPassword) } else { Failure::of_sql(err) }
        })?;
        tokio::spawn(run(connection));
        Ok((client, lane))
    }

    async fn role(&self, (client, _): &mut (Client, Lane)) -> Result<Role, Failure> {
        let row = client.simple_query(dial::ROLE_QUERY).await.map_err(Failure::of_sql)?;
        let row = row.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(Role::read(row.and_then(|row| row.get(0)), row.and_then(|row| row.get(1))))
    }
}

/// Moves a session's messages until it ends.
async fn run(mut connection: Connection<Wire, Wire>) {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            // Its words may be those of a function on a row: they are not kept.
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::trace!(severity = notice.severity(), code = notice.code().code(), "the server gave notice");
            }
            Some(Ok(_)) => {}
            Some(Err(err)) => {
                tracing::debug!(%err, "session lost");
                return;
            }
            None => return,
        }
    }
}

struct Cancel<'a>(&'a CancelToken);

impl Open for Cancel<'_> {
    type Session = ();

    async fn open(&self, wire: Wire, _: &Endpoint) -> Result<(), Failure> {
        self.0.cancel_query_raw(wire, AlreadyOpen).await.map_err(Failure::of_sql)
    }
    async fn role(&self, (): &mut ()) -> Result<Role, Failure> {
        Ok(Role::default())
    }
}
