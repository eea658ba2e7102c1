//! The two spellings of a connection string (manual 34.1.1), `key=value` and URI, to pairs of keyword
//! and value. Errors name a position or a part, never a piece of the string: it may hold a password.

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

pub(super) type Pairs = Vec<(String, String)>;

/// Keywords and values in the order written.
pub(super) fn pairs(text: &str) -> Result<Pairs> {
    match ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => uri(rest),
        None => key_values(text),
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::usage("the connection string cannot be read").cause(what.into())
}

fn key_values(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    let mut chars = text.char_indices().peekable();
    loop {
        while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
        let Some(&(start, _)) = chars.peek() else { return Ok(pairs) };
        let mut key = String::new();
        while let Some((_, c)) = chars.next_if(|(_, c)| *c != '=' && !c.is_ascii_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
        if key.is_empty() || chars.next_if(|(_, c)| *c == '=').is_none() {
            let position = text[..start].chars().count() + 1;
            return Err(wrong(format!("the word at character {position} is not of the form keyword=value"))
                .hint("write postgresql://user@host:port/dbname, or host=.. port=.. dbname=.. user=..; put a value that holds spaces in single quotes"));
        }
        while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
        let quoted = chars.next_if(|(_, c)| *c == '\'').is_some();
        let mut value = String::new();
        let mut closed = !quoted;
        while let Some((_, c)) = chars.next_if(|(_, c)| quoted || !c.is_ascii_whitespace()) {
            match c {
                '\'' if quoted => {
                    closed = true;
                    break;
                }
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c => value.push(c),
            }
        }
        if !closed {
            return Err(wrong("a quoted value has no closing quote"));
        }
        pairs.push((key, value));
    }
}

/// `[user[:password]@][host[:port][,...]][/dbname][?keyword=value&...]`, after the scheme.
fn uri(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    let mut rest = text;
    // The first `@` ends the user, unless a `/` comes before it: libpq reads it so.
    if let Some(at) = text.find(['@', '/']).filter(|at| text.as_bytes()[*at] == b'@') {
        let (user, password) = match text[..at].split_once(':') {
            Some((user, password)) => (user, password),
            None => (&text[..at], ""),
        };
        push_decoded(&mut pairs, "user", user)?;
        push_decoded(&mut pairs, "password", password)?;
        rest = &text[at + 1..];
    }
    let authority_ends = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_ends);
    let (hosts, ports) = hosts_and_ports(authority)?;
    push_decoded(&mut pairs, "host", &hosts)?;
    if ports.chars().any(|c| c != ',') {
        push_decoded(&mut pairs, "port", &ports)?;
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    push_decoded(&mut pairs, "dbname", path.strip_prefix('/').unwrap_or(path))?;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(wrong("a parameter after `?` is not of the form keyword=value"));
        };
        let (key, value) = (decode(key)?, decode(value)?);
        // For JDBC's sake, as libpq does.
        if key == "ssl" && value == "true" {
            pairs.push(("sslmode".into(), "require".into()));
        } else {
            pairs.push((key, value));
        }
    }
    Ok(pairs)
}

/// Splits `a:1,[::1]:2` into `a,::1` and `1,2`.
fn hosts_and_ports(authority: &str) -> Result<(String, String)> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for one in authority.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(bracketed) => {
                let Some((address, after)) = bracketed.split_once(']') else {
                    return Err(wrong("an IPv6 address has no closing `]`"));
                };
                if address.is_empty() || !(after.is_empty() || after.starts_with(':')) {
                    return Err(wrong("an IPv6 address in brackets must be followed by a port or by nothing"));
                }
                (address, after.strip_prefix(':').unwrap_or(""))
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    Ok((hosts.join(","), ports.join(",")))
}

fn push_decoded(pairs: &mut Pairs, key: &str, value: &str) -> Result<()> {
    if !value.is_empty() {
        pairs.push((key.to_string(), decode(value)?));
    }
    Ok(())
}

/// Strict, as libpq: each `%` is followed by two hexadecimal digits, and `%00` is refused.
fn decode(text: &str) -> Result<String> {
    let bytes = text.as_bytes();
    for at in memchr::memchr_iter(b'%', bytes) {
        match bytes.get(at + 1..at + 3) {
            Some(b"00") => return Err(wrong("%00 is not allowed in a URI")),
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            _ => {
                return Err(wrong("a `%` in the URI is not followed by two hexadecimal digits")
                    .hint("write a `%` that is part of a password as %25"));
            }
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(wrong("the URI is not UTF-8 once its percent-encoding is undone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        pairs(text).unwrap()
    }
    fn same(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(read(text), expected, "{text}");
    }

    #[test]
    fn keywords_take_spaces_quotes_and_backslashes_as_libpq_does() {
        same("", &[]);
        same("  host = a   port=1 ", &[("host", "a"), ("port", "1")]);
        same("password='two words' user=x", &[("password", "two words"), ("user", "x")]);
        same(r"password='it\'s \\ here'", &[("password", r"it's \ here")]);
        same(r"password=a\ b\'c\\", &[("password", r"a b'c\")]);
        same("password=''", &[("password", "")]);
        same("password= user=x", &[("password", "user=x")]);
        same("host=a\n\tuser=b", &[("host", "a"), ("user", "b")]);
        same("password=mid'quote dbname=d", &[("password", "mid'quote"), ("dbname", "d")]);
        same("password='a'dbname=d", &[("password", "a"), ("dbname", "d")]);
    }

    #[test]
    fn uris_give_the_same_pairs() {
        same("postgres://", &[]);
        same("postgresql:///db", &[("dbname", "db")]);
        same(
            "postgres://u:p%40ss%2F@h:5/d?sslmode=require",
            &[
                ("user", "u"),
                ("password", "p@ss/"),
                ("host", "h"),
                ("port", "5"),
                ("dbname", "d"),
                ("sslmode", "require"),
            ],
        );
        same("postgres://[::1]:5433,b/d", &[("host", "::1,b"), ("port", "5433,"), ("dbname", "d")]);
        same("postgres://%2Fvar%2Frun/d", &[("host", "/var/run"), ("dbname", "d")]);
        same("postgres:///d?host=/tmp&user=x@y", &[("dbname", "d"), ("host", "/tmp"), ("user", "x@y")]);
        same("postgres://u@/d", &[("user", "u"), ("dbname", "d")]);
        same("postgres://h?ssl=true", &[("host", "h"), ("sslmode", "require")]);
        same("postgres://u:p:w@h", &[("user", "u"), ("password", "p:w"), ("host", "h")]);
        same("postgres://u:%C3%A9+@h", &[("user", "u"), ("password", "é+"), ("host", "h")]);
    }

    #[test]
    fn an_error_never_repeats_the_string() {
        for text in [
            "host=h password=hunter2 hunter2",
            "password='hunter2",
            "hunter2",
            "=hunter2",
            "postgres://u:hunter2%@h",
            "postgres://u:hunter2%zz@h",
            "postgres://u:hunter2%00@h",
            "postgres://u:hunter2%ff@h",
            "postgres://[hunter2",
            "postgres://[::1]hunter2/d",
            "postgres://h?hunter2",
        ] {
            let err = pairs(text).expect_err(text);
            let printed = format!("{} {:?}", err.chain(), err.hint_text());
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }
}
