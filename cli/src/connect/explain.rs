//! What a failed connection means and what to do about it: from the server's SQLSTATE, the operating
//! system's error or rustls's to one hint. It reads causes and never hides them.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::Side;
use crate::config::conninfo::{Conninfo, Host, SslMode};
use crate::error::Network;
use crate::error::ServerError;

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
pub(super) struct NoAnswer(pub Duration);

#[derive(Debug, thiserror::Error)]
#[error("host name `{0}` not found: {1}")]
pub(super) struct UnknownHost(pub String, pub String);

#[derive(Debug, thiserror::Error)]
#[error("the server does not offer TLS")]
pub(super) struct NoTls;

#[derive(Debug, thiserror::Error)]
#[error("the server is not of the kind that target_session_attrs asks for")]
pub(super) struct WrongRole;

/// The server wants a password and none is known.
#[derive(Debug, thiserror::Error)]
#[error("the server asks for a password and none was given")]
pub(crate) struct NoPassword;

type Link<'a> = &'a (dyn StdError + 'static);

fn chain<'a>(err: Link<'a>) -> impl Iterator<Item = Link<'a>> {
    std::iter::successors(Some(err), |err: &Link<'a>| {
        let err: Link<'a> = *err;
        err.source()
    })
}

/// The cause in one short line.
pub(super) fn brief(err: Link<'_>) -> String {
    chain(err).last().unwrap_or(err).to_string()
}

/// Whether no server was found, or none of the kind that is wanted.
pub(super) fn unreachable(err: Link<'_>) -> bool {
    chain(err).any(|link| link.is::<NoAnswer>() || link.is::<UnknownHost>() || link.is::<WrongRole>())
}

/// What to do about it, where the cause is known.
pub(super) fn hint(err: Link<'_>, conninfo: &Conninfo, side: Side) -> Option<String> {
    let mut hint = None;
    for link in chain(err) {
        if let Some(db) = link.downcast_ref::<tokio_postgres::error::DbError>() {
            hint = of_server(db.code().code(), db.message(), conninfo, side);
        } else if let Some(server) = link.downcast_ref::<ServerError>() {
            hint = of_server(&server.sqlstate, &server.message, conninfo, side).or(server.hint.clone());
        } else if let Some(io) = link.downcast_ref().or_else(|| link.downcast_ref::<Network>().map(|Network(io)| io)) {
            let tls = io.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
            hint = tls.map_or_else(|| of_io(io, conninfo), of_tls);
        } else if link.is::<NoAnswer>() {
            hint = Some("check host, port and firewalls between here and there; connect_timeout sets the limit".into());
        } else if link.is::<UnknownHost>() {
            hint = Some("check the host name in the connection string".into());
        } else if link.is::<NoTls>() {
            hint = Some(format!(
                "switch on `ssl` in the server, or weaken sslmode={} to prefer",
                conninfo.tls.mode.name()
            ));
        } else if link.is::<NoPassword>() {
            hint = Some(PASSWORD.into());
        }
    }
    hint
}

const PASSWORD: &str = "give a password in PGPASSWORD, in ~/.pgpass (mode 0600) or in the connection string";

fn of_server(sqlstate: &str, message: &str, conninfo: &Conninfo, side: Side) -> Option<String> {
    let (user, dbname) = (&conninfo.user, &conninfo.dbname);
    Some(match sqlstate {
        "28P01" => format!(
            "check the password of role {user}: it is taken from the connection string, PGPASSWORD or ~/.pgpass"
        ),
        "28000" if message.contains("pg_hba.conf") => {
            let plain = if conninfo.tls.mode == SslMode::Disable { "; it may want TLS (sslmode=require)" } else { "" };
            format!(
                "add a line for role {user} and this machine to the server's pg_hba.conf, then: select pg_reload_conf(){plain}"
            )
        }
        "28000" if message.contains("client certificate") => {
            "set sslcert and sslkey to a certificate that the server trusts".into()
        }
        "28000" => format!("check that role {user} exists on the {side} and may log in"),
        "3D000" => match side {
            Side::Source => format!("check the database name; psql -l lists what the {side} has"),
            Side::Target => format!("create it first: createdb {dbname}"),
        },
        "42501" if message.contains("set parameter") => {
            format!("take that setting out of `options`, or grant role {user} the right to set it")
        }
        "42501" if ["replication", "walsender", "WAL sender"].iter().any(|word| message.contains(word)) => {
            format!("on the {side}, as superuser: alter role {user} replication")
        }
        "42704" | "55P02" if conninfo.options.is_some() => "check the settings in `options` (or PGOPTIONS)".into(),
        "53300" if message.contains("max_wal_senders") => format!("raise max_wal_senders on the {side} and restart it"),
        "53300" => format!("raise max_connections on the {side}, or end idle sessions there"),
        "57P03" => "the server is starting up or shutting down: try again in a moment".to_string(),
        _ => return None,
    })
}

/// For a setting that the role may not change.
pub(super) fn of_setting(err: &tokio_postgres::Error, user: &str, side: Side) -> Option<String> {
    let refusal = err.as_db_error().filter(|db| db.code().code() == "42501")?;
    let setting = refusal.message().split('"').nth(1)?;
    Some(format!(
        "on the {side}, as superuser: grant set on parameter {setting} to \"{user}\";\nbefore PostgreSQL 15 only a superuser may set it"
    ))
}

fn of_io(err: &io::Error, conninfo: &Conninfo) -> Option<String> {
    let local = conninfo.endpoints.iter().find_map(|endpoint| match &endpoint.host {
        Host::Unix(dir) => Some(dir.join(format!(".s.PGSQL.{}", endpoint.port))),
        Host::Tcp(_) => None,
    });
    match (err.kind(), local) {
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, Some(socket)) => {
            Some(format!("is the server running, with its socket at {}? Else give host=", socket.display()))
        }
        (io::ErrorKind::ConnectionRefused, None) => Some(
            "is the server running there, and does listen_addresses include that address? Check host and port".into(),
        ),
        (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::TimedOut, _) => {
            Some("check host, port and firewalls between here and there".into())
        }
        (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset, _) => {
            Some("the other end hung up: is it PostgreSQL, and does its log say why?".into())
        }
        _ => None,
    }
}

fn of_tls(err: &TlsError) -> Option<String> {
    Some(match err {
        TlsError::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "sslrootcert must name the certificate of the authority that issued the server's; sslmode=require encrypts without that check".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "connect by a name that is in the server's certificate, or use sslmode=verify-ca, which does not look at the name".into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate needs renewing; sslmode=require encrypts without that check".into()
            }
            _ => "the server's certificate cannot be verified (it must be X.509 version 3); sslmode=require encrypts without that check".into(),
        },
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::UnknownCA | AlertDescription::BadCertificate,
        ) => "the server wants a client certificate that it trusts: sslcert and sslkey".into(),
        TlsError::PeerIncompatible(_) | TlsError::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server must speak TLS 1.2 or newer".into()
        }
        _ => return None,
    })
}
