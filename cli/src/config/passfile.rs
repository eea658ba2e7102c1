//! The password file (manual 34.16). A file that others could read is passed over with a warning,
//! as libpq does; no line of it is ever printed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Secret;

/// The file's text, or None if there is none that may be used.
pub(super) fn read(path: &Path) -> Option<Secret> {
    let meta = std::fs::metadata(path).ok()?;
    if !meta.is_file() {
        tracing::warn!(file = %path.display(), "password file ignored: not a plain file");
        return None;
    }
    if meta.mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "password file ignored: group or others may read it; chmod 0600 mends that");
        return None;
    }
    match std::fs::read(path) {
        Ok(bytes) => Some(Secret::new(String::from_utf8_lossy(&bytes))),
        Err(err) => {
            tracing::warn!(file = %path.display(), %err, "password file ignored: it cannot be read");
            None
        }
    }
}

/// The password of the first line that fits: `host:port:dbname:user:password`, where `*` fits all
/// and a backslash takes the next character as it is.
pub(super) fn password(text: &Secret, host: &str, port: u16, dbname: &str, user: &str) -> Option<Secret> {
    let port = port.to_string();
    for line in text.reveal().lines().filter(|line| !line.starts_with('#')) {
        let mut rest = Some(line);
        for wanted in [host, &port, dbname, user] {
            rest = rest.and_then(|rest| field(rest, wanted));
        }
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            return Some(Secret::new(unescape(rest)));
        }
    }
    None
}

/// What follows the first field and its colon, if that field is `*` or says `wanted`.
fn field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = wanted.chars();
    let mut chars = line.chars();
    loop {
        let c = match chars.next()? {
            ':' => return wanted.next().is_none().then_some(chars.as_str()),
            '\\' => chars.next()?,
            c => c,
        };
        if wanted.next() != Some(c) {
            return None;
        }
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn lookup(text: &str, host: &str, dbname: &str, user: &str) -> Option<String> {
        password(&Secret::new(text), host, 5432, dbname, user).map(|found| found.reveal().to_string())
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        let text = "# a:5432:d:u:comment\nb:5432:d:u:other\na:5433:d:u:port\na:5432:*:u:first\na:5432:d:u:second\n";
        assert_eq!(lookup(text, "a", "d", "u").as_deref(), Some("first"));
        assert_eq!(lookup(text, "b", "d", "u").as_deref(), Some("other"));
        assert_eq!(lookup(text, "c", "d", "u"), None);
        assert_eq!(lookup("*:*:*:*:all", "x", "y", "z").as_deref(), Some("all"));
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        assert_eq!(lookup(r"\:\:1:5432:d\\b:u\:x:p\:w\\d", "::1", r"d\b", "u:x").as_deref(), Some(r"p:w\d"));
        assert_eq!(lookup("h:5432:d:u:with:colons", "h", "d", "u").as_deref(), Some("with:colons"));
        assert_eq!(lookup(r"h:5432:d:u:end\", "h", "d", "u").as_deref(), Some(r"end\"));
    }

    #[test]
    fn odd_lines_fit_nothing() {
        for line in [
            "",
            ":",
            "h",
            "h:5432",
            "h:5432:d:u:",
            "h:5432:d:u",
            "ha:5432:d:u:p",
            "*h:5432:d:u:p",
            "\\",
            "h:5432:d:u\\",
        ] {
            assert_eq!(lookup(line, "h", "d", "u"), None, "{line}");
        }
        assert_eq!(lookup("h:5432:d:u:p\r\n", "h", "d", "u").as_deref(), Some("p"));
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:p\n").unwrap();
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_some(), used, "{mode:o}");
        }
        assert!(read(dir.path()).is_none());
        assert!(read(&dir.path().join("none")).is_none());
    }
}
