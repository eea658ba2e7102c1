//! From a connection string to a `Conninfo`, with libpq's order of precedence: string, service file,
//! environment, defaults. No error may repeat a value: it may be a password.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::conninfo::{ChannelBinding, Conninfo, Endpoint, Host, Keepalive, Roots, SessionAttrs, SslMode, Tls};
use super::keyword::{self, Fate, KEYWORDS};
use super::{Environment, Secret, passfile, servicefile, syntax};
use crate::error::{Error, Result};

impl Conninfo {
    /// Reads a URI or a `keyword=value` string and fills in what it leaves out.
    ///
    /// # Errors
    /// Exit `Usage`: malformed, an unknown or refused keyword, a value out of range, an unknown
    /// service. The message never repeats the string.
    pub fn parse(text: &str, env: &Environment) -> Result<Conninfo> {
        Conninfo::parse_for(text, None, env)
    }

    /// The same, for this database whatever the string says.
    ///
    /// # Errors
    /// As of [`Conninfo::parse`].
    pub fn parse_for(text: &str, database: Option<&str>, env: &Environment) -> Result<Conninfo> {
        let values = Values::gather(syntax::pairs(text)?, env)?;
        let user = match values.text("user").or(env.os_user.as_deref()) {
            Some(user) => user.to_string(),
            None => return Err(Error::usage("the connection string has no user, and this account has no name")),
        };
        let dbname = database.or(values.text("dbname")).unwrap_or(&user).to_string();
        let passfile = values.path("passfile").or_else(|| env.in_home(".pgpass"));
        let password = values.text("password").map(Secret::new);
        let mut endpoints = endpoints(&values, env)?;
        let passwords = match &password {
            None => passfile.as_deref().and_then(passfile::read),
            Some(_) => None,
        };
        for endpoint in &mut endpoints {
            endpoint.password = password.clone().or_else(|| {
                let text = passwords.as_ref()?;
                let look_up = |host: &str| passfile::password(text, host, endpoint.port, &dbname, &user);
                endpoint.passfile_hosts().iter().find_map(|host| look_up(host))
            });
        }
        if values.text("gssencmode") == Some("require") {
            return Err(Error::usage("gssencmode=require is not possible: pgmig does not speak GSSAPI"));
        }
        Ok(Conninfo {
            endpoints,
            user,
            dbname,
            password,
            passfile,
            tls: tls(&values, env)?,
            channel_binding: match values.choice("channel_binding", &["prefer", "disable", "require"])? {
                "disable" => ChannelBinding::Disable,
                "require" => ChannelBinding::Require,
                _ => ChannelBinding::Prefer,
            },
            connect_timeout: match values.whole("connect_timeout")? {
                Some(seconds) if seconds <= 0 => None,
                // libpq's floor.
                Some(seconds) => Some(Duration::from_secs(seconds.max(2) as u64)),
                None => Some(Duration::from_secs(10)),
            },
            options: values.text("options").map(str::to_string),
            keepalive: keepalive(&values)?,
            tcp_user_timeout: values
                .whole("tcp_user_timeout")?
                .filter(|ms| *ms > 0)
                .map(|ms| Duration::from_millis(ms as u64)),
            target_session_attrs: match values.choice(
                "target_session_attrs",
                &["any", "read-write", "read-only", "primary", "standby", "prefer-standby"],
            )? {
                "read-write" => SessionAttrs::ReadWrite,
                "read-only" => SessionAttrs::ReadOnly,
                "primary" => SessionAttrs::Primary,
                "standby" => SessionAttrs::Standby,
                "prefer-standby" => SessionAttrs::PreferStandby,
                _ => SessionAttrs::Any,
            },
            requirepeer: values.text("requirepeer").map(str::to_string),
        })
    }
}

/// The values of all keywords, each from the first of the sources that has it.
struct Values(HashMap<&'static str, String>);

impl Values {
    fn gather(pairs: syntax::Pairs, env: &Environment) -> Result<Values> {
        let mut values = HashMap::new();
        for (key, value) in pairs {
            // Of a keyword given twice the later one counts.
            values.insert(known(&key, "the connection string")?, value);
        }
        let service = values.get("service").map(String::as_str).or(env.var("PGSERVICE"));
        if let Some(service) = service.filter(|name| !name.is_empty()).map(str::to_string) {
            let file = values.get("servicefile").map(String::as_str);
            for (key, value) in servicefile::service(&service, file, env)? {
                values.entry(known(&key, "the service file")?).or_insert(value);
            }
        }
        for keyword in KEYWORDS {
            let Some(value) = keyword.var.and_then(|var| env.var(var)) else { continue };
            values.entry(known(keyword.name, "the environment")?).or_insert_with(|| value.to_string());
        }
        Ok(Values(values))
    }

    /// An empty value means the default.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }
    /// One of `allowed`, the first of which is the default.
    fn choice(&self, name: &str, allowed: &[&'static str]) -> Result<&'static str> {
        match (self.text(name), allowed.first()) {
            (None, Some(default)) => Ok(default),
            (value, _) => allowed.iter().find(|one| value == Some(**one)).copied().ok_or_else(|| {
                Error::usage(format!("{name} in the connection string is none of {}", allowed.join(", ")))
            }),
        }
    }
    fn whole(&self, name: &str) -> Result<Option<i32>> {
        let number = self.text(name).map(|value| value.trim().parse().map_err(|_| not_a_number(name)));
        number.transpose()
    }
}

fn not_a_number(name: &str) -> Error {
    Error::usage(format!("{name} in the connection string is not a whole number"))
}

/// The keyword as it stands in the table.
fn known(key: &str, place: &str) -> Result<&'static str> {
    // What does not look like a keyword may be a piece of a password.
    let shown = if key.len() <= 32 && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') { key } else { "…" };
    match keyword::find(key) {
        Some(keyword) if keyword.fate == Fate::Refused => {
            Err(Error::usage(format!("pgmig cannot do what `{}` in {place} asks for", keyword.name)))
        }
        Some(keyword) => Ok(keyword.name),
        None => Err(Error::usage(format!("unknown keyword `{shown}` in {place}"))
            .hint("a value that holds spaces goes in single quotes; in a URI, write the characters @ : / ? & % of a password percent-encoded")),
    }
}

fn endpoints(values: &Values, env: &Environment) -> Result<Vec<Endpoint>> {
    let split = |name| values.text(name).map(|list| list.split(',').map(str::trim).collect::<Vec<_>>());
    let hosts = split("host");
    let addrs = split("hostaddr");
    let ports = split("port").unwrap_or_default();
    let count = addrs.as_ref().or(hosts.as_ref()).map_or(1, Vec::len);
    if hosts.as_ref().is_some_and(|hosts| hosts.len() != count) {
        return Err(Error::usage("host and hostaddr in the connection string are lists of different lengths"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::usage("host and port in the connection string are lists of different lengths"));
    }
    let default_host = || match &env.socket_dir {
        Some(dir) => Host::Unix(dir.clone()),
        None => Host::Tcp("localhost".into()),
    };
    let endpoint = |index: usize| -> Result<Endpoint> {
        let at = |list: &Option<Vec<&'_ str>>| {
            list.as_ref().and_then(|list| list.get(index)).map(|one| one.to_string()).filter(|one| !one.is_empty())
        };
        let hostaddr = match at(&addrs).map(|addr| addr.parse::<IpAddr>()) {
            Some(Err(_)) => return Err(Error::usage("hostaddr in the connection string is not an IP address")),
            Some(Ok(addr)) => Some(addr),
            None => None,
        };
        let host = match (at(&hosts), hostaddr) {
            (Some(dir), _) if dir.starts_with('/') => Host::Unix(dir.into()),
            (Some(host), _) if host.contains('@') => {
                return Err(Error::usage("the host in the connection string holds an `@`")
                    .hint("in a URI, write an `@` that is part of a password as %40"));
            }
            (Some(host), _) => Host::Tcp(host),
            (None, Some(addr)) => Host::Tcp(addr.to_string()),
            (None, None) => default_host(),
        };
        let port = match ports.get(index).or(ports.first()).copied().unwrap_or("") {
            "" => 5432,
            digits => digits.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                Error::usage("a port in the connection string is not a number from 1 to 65535")
                    .hint("in a URI, write a `/` or `:` that is part of a user or password as %2F or %3A")
            })?,
        };
        Ok(Endpoint { host, hostaddr, port, password: None })
    };
    (0..count).map(endpoint).collect()
}

fn tls(values: &Values, env: &Environment) -> Result<Tls> {
    let in_home = |name: &str| env.in_home(&format!(".postgresql/{name}")).filter(|path| path.is_file());
    let roots = match values.text("sslrootcert") {
        Some("system") => Roots::System,
        Some(path) => Roots::File(path.into()),
        None => in_home("root.crt").map_or(Roots::None, Roots::File),
    };
    let default = if roots == Roots::System { "verify-full" } else { "prefer" };
    let modes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    let mode = match values.text("sslmode").map_or(Ok(default), |_| values.choice("sslmode", &modes))? {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => SslMode::Prefer,
    };
    if roots == Roots::System && mode != SslMode::VerifyFull {
        return Err(Error::usage("sslrootcert=system needs sslmode=verify-full"));
    }
    let direct = values.choice("sslnegotiation", &["postgres", "direct"])? == "direct";
    if direct && mode < SslMode::Require {
        return Err(Error::usage("sslnegotiation=direct needs sslmode=require or stronger"));
    }
    let versions = ["TLSv1.2", "TLSv1", "TLSv1.1", "TLSv1.3"];
    Ok(Tls {
        mode,
        direct,
        roots,
        cert: values.path("sslcert").or_else(|| in_home("postgresql.crt")),
        key: values.path("sslkey").or_else(|| in_home("postgresql.key")),
        sni: values.choice("sslsni", &["1", "0"])? == "1",
        only_13: values.choice("ssl_min_protocol_version", &versions)? == "TLSv1.3",
    })
}

fn keepalive(values: &Values) -> Result<Option<Keepalive>> {
    let positive = |name, default: u64| -> Result<u64> {
        // 0 is the system's default for libpq; ours serves as well.
        Ok(values.whole(name)?.filter(|value| *value > 0).map_or(default, |value| value as u64))
    };
    let keepalive = Keepalive {
        idle: Duration::from_secs(positive("keepalives_idle", 60)?),
        interval: Duration::from_secs(positive("keepalives_interval", 10)?),
        count: positive("keepalives_count", 6)? as u32,
    };
    Ok((values.whole("keepalives")?.unwrap_or(1) != 0).then_some(keepalive))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Environment {
        Environment {
            vars: vars.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            home: None,
            os_user: Some("os".into()),
            socket_dir: None,
        }
    }
    fn shown(text: &str, vars: &[(&str, &str)]) -> String {
        Conninfo::parse(text, &env(vars)).map(|conninfo| conninfo.to_string()).unwrap_or_else(|err| err.chain())
    }

    #[test]
    fn defaults_are_libpqs() {
        assert_eq!(shown("", &[]), "os@localhost:5432/os");
        assert_eq!(shown("user=u", &[]), "u@localhost:5432/u");
        let mut here = env(&[]);
        here.socket_dir = Some("/run/pg".into());
        assert_eq!(Conninfo::parse("", &here).unwrap().to_string(), "os@/run/pg:5432/os");
        here.os_user = None;
        assert!(Conninfo::parse("", &here).is_err());
    }

    #[test]
    fn the_string_wins_over_the_service_over_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("services");
        std::fs::write(&file, "[s]\nhost=from_service\nport=2\nuser=service\n").unwrap();
        let vars =
            [("PGSERVICEFILE", file.to_str().unwrap()), ("PGHOST", "from_env"), ("PGDATABASE", "d"), ("PGUSER", "env")];
        assert_eq!(shown("", &vars), "env@from_env:5432/d");
        assert_eq!(shown("service=s user=string", &vars), "string@from_service:2/d");
        let with_service = [&vars[..], &[("PGSERVICE", "s")]].concat();
        assert_eq!(shown("host=string", &with_service), "service@string:2/d");
        assert_eq!(shown("service=t", &vars), "connection service `t` is not defined");
        // An empty value hides what the environment says.
        assert_eq!(shown("host=''", &vars), "env@localhost:5432/d");
    }

    #[test]
    fn lists_of_hosts_pair_up_with_ports_and_addresses() {
        assert_eq!(shown("postgres://a:1,[::1],c:3/d", &[]), "os@a:1,[::1]:5432,c:3/d");
        assert_eq!(shown("host=a,b port=7 dbname=d", &[]), "os@a:7,b:7/d");
        assert_eq!(shown("postgres://u@%2Frun%2Fpg:5433/d", &[]), "u@/run/pg:5433/d");
        assert_eq!(shown("hostaddr=10.0.0.1,::2 dbname=d", &[]), "os@10.0.0.1:5432,[::2]:5432/d");
        let both = Conninfo::parse("host=name hostaddr=10.0.0.1", &env(&[])).unwrap();
        assert_eq!(both.endpoints[0].host, Host::Tcp("name".into()));
        assert_eq!(both.endpoints[0].hostaddr, Some([10, 0, 0, 1].into()));
        for wrong in ["host=a,b port=1,2,3", "host=a,b hostaddr=::1", "hostaddr=name", "port=0", "port=65536", "port=x"]
        {
            assert!(Conninfo::parse(wrong, &env(&[])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_refused_and_ill_valued_keywords_are_errors_that_keep_quiet() {
        assert_eq!(shown("hots=x", &[]), "unknown keyword `hots` in the connection string");
        assert_eq!(shown("password=a Hunter2=x", &[]), "unknown keyword `…` in the connection string");
        assert_eq!(shown("sslcrl=x", &[]), "pgmig cannot do what `sslcrl` in the connection string asks for");
        assert_eq!(
            shown("", &[("PGREQUIREAUTH", "md5")]),
            "pgmig cannot do what `require_auth` in the environment asks for"
        );
        for text in
            ["sslmode=hunter2", "connect_timeout=hunter2", "postgres://u:hunter2/x@h/d", "postgres://u:p@hunter2@h/d"]
        {
            let printed = shown(text, &[]);
            assert!(printed.contains("connection string") && !printed.contains("hunter2"), "{printed}");
        }
        assert!(Conninfo::parse("application_name=x client_encoding=LATIN1 krbsrvname=p", &env(&[])).is_ok());
    }

    #[test]
    fn no_printed_form_holds_the_password() {
        let conninfo = Conninfo::parse("postgres://u:hunter2@h/d", &env(&[])).unwrap();
        assert!(!format!("{conninfo} {conninfo:?} {conninfo:#?}").contains("hunter2"));
        let child = conninfo.libpq_env();
        assert!(child.contains(&("PGPASSWORD".into(), "hunter2".into())));
        assert!(child.iter().all(|(name, _)| super::super::conninfo::LIBPQ_VARS.contains(&name.as_str())));
    }

    #[test]
    fn each_host_has_its_own_line_in_the_password_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".pgpass");
        std::fs::write(&file, "a:*:*:*:one\nlocalhost:*:*:*:here\nb:1:d:u:two\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut here = env(&[]);
        here.home = Some(dir.path().into());
        let passwords = |text: &str| -> Vec<Option<String>> {
            let conninfo = Conninfo::parse(text, &here).unwrap();
            conninfo.endpoints.iter().map(|one| one.password.as_ref().map(|p| p.reveal().to_string())).collect()
        };
        let some = |text: &str| Some(text.to_string());
        assert_eq!(passwords("postgres://u@a,b:1,c,%2Ftmp/d"), [some("one"), some("two"), None, some("here")]);
        assert_eq!(passwords("postgres://u:given@a,c/d"), [some("given"), some("given")]);
        let child = Conninfo::parse("host=a", &here).unwrap().libpq_env();
        assert!(child.contains(&("PGPASSFILE".into(), file.display().to_string())));
        assert!(!child.iter().any(|(name, _)| name == "PGPASSWORD"));
    }

    #[test]
    fn tls_settings_follow_libpq() {
        let tls = |text: &str, vars: &[(&str, &str)]| Conninfo::parse(text, &env(vars)).map(|conninfo| conninfo.tls);
        assert_eq!(tls("", &[]).unwrap().mode, SslMode::Prefer);
        assert_eq!(tls("", &[("PGSSLMODE", "verify-ca")]).unwrap().mode, SslMode::VerifyCa);
        assert_eq!(tls("sslrootcert=system", &[]).unwrap().mode, SslMode::VerifyFull);
        assert!(tls("sslrootcert=system sslmode=require", &[]).is_err());
        assert!(tls("sslnegotiation=direct", &[]).is_err());
        assert!(!tls("sslmode=require", &[]).unwrap().verifies_chain());
        assert!(!tls("sslmode=require sslrootcert=/nowhere", &[]).unwrap().verifies_chain());
        assert!(tls("sslmode=require sslrootcert=/etc/passwd", &[]).unwrap().verifies_chain());
    }

    #[test]
    fn timeouts_have_libpqs_floor_and_our_default() {
        let timeout = |text: &str| Conninfo::parse(text, &env(&[])).unwrap().connect_timeout.map(|t| t.as_secs());
        assert_eq!(timeout(""), Some(10));
        assert_eq!(timeout("connect_timeout=1"), Some(2));
        assert_eq!(timeout("connect_timeout=0"), None);
        assert_eq!(Conninfo::parse("keepalives=0", &env(&[])).unwrap().keepalive, None);
    }
}
