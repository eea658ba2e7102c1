//! Every keyword of a libpq connection string (manual 34.1.2) and what pgmig does with it.
//! A keyword that protects the connection is honoured or refused, never ignored.

/// What becomes of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Used,
    /// Leaving it out changes nothing that matters to pgmig.
    Ignored,
    /// It would make the connection safer and pgmig cannot do it.
    Refused,
}

pub(super) struct Keyword {
    pub name: &'static str,
    /// The environment variable that stands in for it.
    pub var: Option<&'static str>,
    pub fate: Fate,
}

const fn used(name: &'static str, var: &'static str) -> Keyword {
    Keyword { name, var: Some(var), fate: Fate::Used }
}
const fn used_without_var(name: &'static str) -> Keyword {
    Keyword { name, var: None, fate: Fate::Used }
}
const fn ignored(name: &'static str) -> Keyword {
    Keyword { name, var: None, fate: Fate::Ignored }
}
const fn refused(name: &'static str, var: &'static str) -> Keyword {
    Keyword { name, var: Some(var), fate: Fate::Refused }
}

pub(super) const KEYWORDS: &[Keyword] = &[
    used("service", "PGSERVICE"),
    used("servicefile", "PGSERVICEFILE"),
    used("host", "PGHOST"),
    used("hostaddr", "PGHOSTADDR"),
    used("port", "PGPORT"),
    used("dbname", "PGDATABASE"),
    used("user", "PGUSER"),
    used("password", "PGPASSWORD"),
    used("passfile", "PGPASSFILE"),
    used("sslmode", "PGSSLMODE"),
    used("sslnegotiation", "PGSSLNEGOTIATION"),
    used("sslrootcert", "PGSSLROOTCERT"),
    used("sslcert", "PGSSLCERT"),
    used("sslkey", "PGSSLKEY"),
    used("sslsni", "PGSSLSNI"),
    used("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    used("channel_binding", "PGCHANNELBINDING"),
    used("gssencmode", "PGGSSENCMODE"),
    used("requirepeer", "PGREQUIREPEER"),
    used("connect_timeout", "PGCONNECT_TIMEOUT"),
    used("options", "PGOPTIONS"),
    used("target_session_attrs", "PGTARGETSESSIONATTRS"),
    used_without_var("keepalives"),
    used_without_var("keepalives_idle"),
    used_without_var("keepalives_interval"),
    used_without_var("keepalives_count"),
    used_without_var("tcp_user_timeout"),
    // pgmig names its own sessions and always talks UTF-8.
    ignored("application_name"),
    ignored("fallback_application_name"),
    ignored("client_encoding"),
    ignored("replication"),
    // GSSAPI is not spoken, TLS is never compressed, hosts are tried in the order given.
    ignored("krbsrvname"),
    ignored("gsslib"),
    ignored("gssdelegation"),
    ignored("sslcompression"),
    ignored("ssl_max_protocol_version"),
    ignored("load_balance_hosts"),
    refused("sslcrl", "PGSSLCRL"),
    refused("sslcrldir", "PGSSLCRLDIR"),
    Keyword { name: "sslpassword", var: None, fate: Fate::Refused },
    refused("sslcertmode", "PGSSLCERTMODE"),
    refused("require_auth", "PGREQUIREAUTH"),
];

pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// The variables libpq would read. A child process must inherit none of them: it gets those of
/// `Conninfo::libpq_env` and no others.
pub const LIBPQ_VARS: &[&str] = &[
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGREQUIREAUTH",
    "PGCHANNELBINDING",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGSSLMODE",
    "PGREQUIRESSL",
    "PGSSLNEGOTIATION",
    "PGSSLCOMPRESSION",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCERTMODE",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
    "PGREQUIREPEER",
    "PGGSSENCMODE",
    "PGKRBSRVNAME",
    "PGGSSLIB",
    "PGGSSDELEGATION",
    "PGCONNECT_TIMEOUT",
    "PGCLIENTENCODING",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
    "PGMINPROTOCOLVERSION",
    "PGMAXPROTOCOLVERSION",
    "PGDATESTYLE",
    "PGTZ",
    "PGGEQO",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_that_stands_for_a_keyword_is_kept_from_children() {
        for keyword in KEYWORDS {
            let Some(var) = keyword.var else { continue };
            assert!(LIBPQ_VARS.contains(&var), "{var}");
        }
    }
}
