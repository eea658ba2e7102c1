//! The connection service file (manual 34.17). It stands between the connection string and the
//! environment: what the string says wins, what neither says is looked for further on.

use std::path::{Path, PathBuf};

use super::Environment;
use super::syntax::Pairs;
use crate::error::{Error, Result};

/// Debian's; upstream builds have another, set PGSYSCONFDIR there.
const SYSCONFDIR: &str = "/etc/postgresql-common";

/// The pairs of service `name`, from `file`, `PGSERVICEFILE` or `~/.pg_service.conf`, else from
/// `pg_service.conf` in `PGSYSCONFDIR`.
///
/// # Errors
/// Exit `Usage` if a named file cannot be read, a line is malformed, or no file defines the service.
pub(super) fn service(name: &str, file: Option<&str>, env: &Environment) -> Result<Pairs> {
    let named = file.or_else(|| env.var("PGSERVICEFILE")).map(PathBuf::from);
    if let Some(path) = &named
        && !path.is_file()
    {
        return Err(Error::usage(format!("service file {} not found", path.display())));
    }
    let own = named.or_else(|| env.in_home(".pg_service.conf"));
    let common = Path::new(env.var("PGSYSCONFDIR").unwrap_or(SYSCONFDIR)).join("pg_service.conf");
    let mut searched = Vec::new();
    for path in own.into_iter().chain([common]).filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path)
            .map_err(|err| Error::usage(format!("cannot read service file {}", path.display())).cause(err))?;
        if let Some(pairs) = section(&text, name, &path)? {
            return Ok(pairs);
        }
        searched.push(path.display().to_string());
    }
    let err = Error::usage(format!("connection service `{name}` is not defined"));
    Err(match searched.is_empty() {
        true => err.hint("there is no service file: write ~/.pg_service.conf or set PGSERVICEFILE"),
        false => err.hint(format!("searched {}", searched.join(" and "))),
    })
}

/// The lines of `[name]`; None if there is no such section.
fn section(text: &str, name: &str, path: &Path) -> Result<Option<Pairs>> {
    let wrong = |number: usize, what: &str| {
        Error::usage(format!("line {} of service file {} {what}", number + 1, path.display()))
    };
    let mut found: Option<Pairs> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(name) {
                found = Some(Pairs::new());
            }
            continue;
        }
        let Some(pairs) = &mut found else { continue };
        if line.starts_with("ldap") {
            return Err(wrong(number, "asks an LDAP server, which pgmig cannot do"));
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(wrong(number, "is not of the form keyword=value"));
        };
        if key == "service" || key == "servicefile" {
            return Err(wrong(number, "names another service, which is not allowed"));
        }
        // The first line for a keyword counts.
        if !pairs.iter().any(|(known, _)| known == key) {
            pairs.push((key.to_string(), value.to_string()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, name: &str) -> Result<Option<Pairs>> {
        section(text, name, Path::new("pg_service.conf"))
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "# all\nhost=none\n[a]\nhost=h1\n\nport=1\nhost=late\n[b]\nhost=h2\npassword=x = y\n";
        let a = read(text, "a").unwrap().unwrap();
        assert_eq!(a, [("host".to_string(), "h1".to_string()), ("port".to_string(), "1".to_string())]);
        let b = read(text, "b").unwrap().unwrap();
        assert_eq!(b[1].1, "x = y");
        assert!(read(text, "c").unwrap().is_none());
    }

    #[test]
    fn malformed_lines_are_named_by_number_only() {
        for text in ["[a]\nhunter2", "[a]\nservice=hunter2", "[a]\nldap://hunter2"] {
            let err = read(text, "a").unwrap_err();
            assert!(err.chain().starts_with("line 2 of service file"), "{}", err.chain());
            assert!(!err.chain().contains("hunter2"));
        }
    }

    #[test]
    fn a_missing_file_or_service_says_where_was_searched() {
        let dir = tempfile::tempdir().unwrap();
        let mut env = Environment { home: Some(dir.path().into()), ..Default::default() };
        env.vars.insert("PGSYSCONFDIR".into(), dir.path().join("etc").display().to_string());
        assert!(service("a", None, &env).unwrap_err().hint_text().unwrap().contains("no service file"));
        std::fs::write(dir.path().join(".pg_service.conf"), "[b]\nhost=h\n").unwrap();
        assert!(service("a", None, &env).unwrap_err().hint_text().unwrap().contains(".pg_service.conf"));
        assert_eq!(service("b", None, &env).unwrap().len(), 1);
        assert!(service("b", Some("/nowhere/x"), &env).is_err());
    }
}
