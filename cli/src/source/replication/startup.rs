//! The start of a replication connection: parameters and authentication (manual 55.2.1). A password
//! leaves this process only in the form the server asked for, and never if channel binding is required
//! and was not done.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};

use super::channel::{Broken, Channel};
use super::{ReplicationClient, message};
use crate::config::conninfo::{ChannelBinding, Conninfo, Endpoint};
use crate::connect::Side;
use crate::connect::dial::{Failure, Open, ROLE_QUERY, Role, Wire};
use crate::connect::explain::NoPassword;
use crate::error::ServerError;

/// Output plugins and COPY print values with these.
const PARAMETERS: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("search_path", ""),
];

/// No time limit may end the session while it waits; the server notices a dead peer by TCP instead.
/// All can be set by any user. A wal_sender_timeout of 0 would have the server look for an answer of ours
/// behind each message that it sends, which costs it a fifth of its time (WalSndWriteData in walsender.c);
/// a long one it looks at only.
const OPTIONS: &str = "-c wal_sender_timeout=1d -c statement_timeout=0 -c lock_timeout=0 \
    -c idle_in_transaction_session_timeout=0 -c lc_monetary=C \
    -c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6";

pub(super) struct Startup<'a> {
    pub conninfo: &'a Conninfo,
    pub side: Side,
    pub application_name: &'a str,
    /// Whether the session takes replication commands.
    pub replication: bool,
    /// With none of our settings, some of which a pooler refuses.
    pub bare: bool,
}

impl Open for Startup<'_> {
    type Session = ReplicationClient;

    async fn open(&self, wire: Wire, endpoint: &Endpoint) -> Result<ReplicationClient, Failure> {
        self.session(wire, endpoint).await.map_err(|refusal| match refusal {
            Refusal::Broken(Broken::Server(err)) => {
                let sqlstate = err.sqlstate.clone();
                Failure::refused(&sqlstate, err)
            }
            Refusal::Broken(Broken::Network(network)) => Failure::unreachable(network),
            Refusal::Broken(Broken::Malformed(what)) => Failure::unreachable(format!("the server sent {what}")),
            Refusal::NoPassword => Failure::stop(NoPassword),
            Refusal::Ours(why) => Failure::stop(why),
        })
    }

    async fn role(&self, client: &mut ReplicationClient) -> Result<Role, Failure> {
        match client.query(ROLE_QUERY).await {
            Ok(rows) => Ok(match rows.rows.first().map(Vec::as_slice) {
                Some([in_recovery, read_only, ..]) => Role::read(in_recovery.as_deref(), read_only.as_deref()),
                _ => Role::default(),
            }),
            Err(Broken::Server(err)) => Err(Failure::stop(err)),
            Err(Broken::Network(network)) => Err(Failure::unreachable(network)),
            Err(Broken::Malformed(what)) => Err(Failure::unreachable(format!("the server sent {what}"))),
        }
    }
}

enum Refusal {
    Broken(Broken),
    NoPassword,
    /// We would not go on.
    Ours(&'static str),
}

impl<E: Into<Broken>> From<E> for Refusal {
    fn from(err: E) -> Refusal {
        Refusal::Broken(err.into())
    }
}

impl Startup<'_> {
    async fn session(&self, wire: Wire, endpoint: &Endpoint) -> Result<ReplicationClient, Refusal> {
        let binding = wire.binding();
        let mut channel = Channel::new(wire);
        let options = match &self.conninfo.options {
            Some(theirs) => format!("{theirs} {OPTIONS}"),
            None => OPTIONS.to_string(),
        };
        let who = [
            ("user", self.conninfo.user.as_str()),
            ("database", &self.conninfo.dbname),
            ("application_name", self.application_name),
        ];
        let replication = self.replication.then_some(("replication", "database"));
        let settings = [("options", options.as_str())].into_iter().chain(PARAMETERS.iter().copied());
        let all = who.into_iter().chain(replication).chain(settings.filter(|_| !self.bare));
        frontend::startup_message(all, &mut channel.outbox)?;
        channel.flush().await?;
        self.authenticate(&mut channel, endpoint, binding).await?;
        let mut client = ReplicationClient {
            channel,
            side: self.side,
            user: self.conninfo.user.clone(),
            major: 0,
            backend_pid: 0,
            streamed: false,
        };
        loop {
            match client.channel.message().await? {
                backend::Message::ParameterStatus(body) if body.name()? == "server_version" => {
                    client.major = major(body.value()?);
                }
                backend::Message::ParameterStatus(_) => {}
                backend::Message::BackendKeyData(body) => client.backend_pid = body.process_id(),
                backend::Message::ErrorResponse(body) => return Err(server_error(&body).into()),
                backend::Message::ReadyForQuery(_) => return Ok(client),
                _ => return Err(Broken::Malformed("a message that has no place at startup").into()),
            }
        }
    }

    async fn authenticate(
        &self,
        channel: &mut Channel,
        endpoint: &Endpoint,
        binding: Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        let password = || match &endpoint.password {
            Some(password) => Ok(password.reveal().as_bytes()),
            None => Err(Refusal::NoPassword),
        };
        let bound_only = self.conninfo.channel_binding == ChannelBinding::Require;
        let mut bound = false;
        loop {
            match channel.message().await? {
                backend::Message::AuthenticationOk if bound_only && !bound => return Err(NOT_BOUND),
                backend::Message::AuthenticationOk => return Ok(()),
                backend::Message::AuthenticationMd5Password(_) | backend::Message::AuthenticationCleartextPassword
                    if bound_only =>
                {
                    return Err(NOT_BOUND);
                }
                backend::Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(self.conninfo.user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut channel.outbox)?;
                    channel.flush().await?;
                }
                backend::Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, &mut channel.outbox)?;
                    channel.flush().await?;
                }
                backend::Message::AuthenticationSasl(body) => {
                    bound = self.scram(channel, &body, password()?, binding.clone()).await?;
                }
                backend::Message::ErrorResponse(body) => return Err(server_error(&body).into()),
                _ => {
                    return Err(Refusal::Ours(
                        "the server asks for an authentication method that pgmig does not have (it has trust, password, md5, scram-sha-256, cert)",
                    ));
                }
            }
        }
    }

    /// SCRAM-SHA-256, with channel binding where both sides have it; says whether it was used.
    async fn scram(
        &self,
        channel: &mut Channel,
        offer: &backend::AuthenticationSaslBody,
        password: &[u8],
        binding: Option<Vec<u8>>,
    ) -> Result<bool, Refusal> {
        let offered: Vec<String> = offer.mechanisms().map(|name| Ok(name.to_string())).collect()?;
        let has = |name: &str| offered.iter().any(|one| one == name);
        let wanted = self.conninfo.channel_binding;
        let (mechanism, kind) = match binding.filter(|_| wanted != ChannelBinding::Disable) {
            Some(digest) if has(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(digest))
            }
            // "We could have": the server fails if it did offer, and someone in between hid it.
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        let bound = mechanism == sasl::SCRAM_SHA_256_PLUS;
        if !bound && wanted == ChannelBinding::Require {
            return Err(NOT_BOUND);
        }
        if !has(mechanism) {
            return Err(Refusal::Ours("the server offers no SASL mechanism that pgmig has (it has SCRAM-SHA-256)"));
        }
        let mut scram = sasl::ScramSha256::new(password, kind);
        frontend::sasl_initial_response(mechanism, scram.message(), &mut channel.outbox)?;
        channel.flush().await?;
        match channel.message().await? {
            backend::Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(|_| Broken::Malformed("a SCRAM challenge that is not valid"))?;
            }
            backend::Message::ErrorResponse(body) => return Err(server_error(&body).into()),
            _ => return Err(Broken::Malformed("a message that has no place in SCRAM").into()),
        }
        frontend::sasl_response(scram.message(), &mut channel.outbox)?;
        channel.flush().await?;
        match channel.message().await? {
            backend::Message::AuthenticationSaslFinal(body) => {
                scram.finish(body.data()).map_err(|_| {
                    Refusal::Ours("the server does not know the password itself: it may be an impostor")
                })?;
            }
            backend::Message::ErrorResponse(body) => return Err(server_error(&body).into()),
            _ => return Err(Broken::Malformed("a message that has no place in SCRAM").into()),
        }
        Ok(bound)
    }
}

const NOT_BOUND: Refusal = Refusal::Ours("channel_binding=require, and the server or the connection does not offer it");

/// The fields that matter of an error that postgres-protocol has read.
pub(super) fn server_error(body: &backend::ErrorResponseBody) -> ServerError {
    let mut fields = body.fields();
    let mut bytes = Vec::new();
    while let Ok(Some(field)) = fields.next() {
        bytes.push(field.type_());
        bytes.extend_from_slice(field.value_bytes());
        bytes.push(0);
    }
    message::server_error(&bytes)
}

/// `15.20 (Debian 15.20-1)`, `18beta1`: the leading number.
fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_the_leading_number() {
        assert_eq!(major("15.20 (Debian 15.20-0+deb12u1)"), 15);
        assert_eq!(major("18beta1"), 18);
        assert_eq!(major("devel"), 0);
    }
}
