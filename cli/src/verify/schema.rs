//! Compares what pg_dump says of both schemas, statement by statement and in any order. What pgmig
//! itself brings along is left out. Passwords reach PostgreSQL's programs through their environment.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt;
use tokio_postgres::config::{Host, SslMode};

use super::side::Side;
use super::{Difference, Kind};
use crate::error::{Context, Error, Exit, Result};
use crate::selection::Selection;
use crate::source::toc;

/// What pg_dump prints of a side's schema. `pg_dump` comes with its first arguments.
pub async fn script(side: &Side, pg_dump: Command) -> Result<String> {
    dump(side, pg_dump, &[]).await
}

/// The same of what is selected. `pg_restore` comes with its first arguments, too.
pub async fn selected_script(
    side: &Side,
    pg_dump: Command,
    pg_restore: impl Fn() -> Command,
    selection: &Selection,
) -> Result<String> {
    let doing = || format!("select from the schema of the {}", side.name());
    let folder = tempfile::tempdir().during(Exit::Dir, || "make a temporary folder".into())?;
    let (file, list) = (folder.path().join("dump"), folder.path().join("list"));
    dump(side, pg_dump, &["--format=custom".into(), format!("--file={}", file.display())]).await?;
    let restore = async |args: &[String]| {
        let mut command = tokio::process::Command::from(pg_restore());
        command.args(args).arg(&file);
        output(side, command, "pg_restore", None, doing).await
    };
    let contents = restore(&["--list".into(), "--verbose".into()]).await?;
    let (toc, lines) = (selection.toc(), toc::lines(&contents));
    let text = async |lines: Vec<&str>| {
        std::fs::write(&list, lines.join("\n")).during(Exit::Dir, || "write a temporary file".into())?;
        restore(&[format!("--use-list={}", list.display()), "--file=-".into()]).await
    };
    let is_unchecked = |line: &&toc::Line<'_>| toc.is_unchecked(line.object);
    let kept = lines.iter().filter(|line| {
        let kind = ["ROW SECURITY", "SEQUENCE OWNED BY"].into_iter().find(|kind| line.rest.starts_with(kind));
        !is_unchecked(line) && toc.keeps_object(kind.unwrap_or_default(), line.object, &line.needs)
    });
    let mut script = text(kept.map(|line| line.text).collect()).await?;
    let unchecked: Vec<&str> = lines.iter().filter(is_unchecked).map(|line| line.text).collect();
    if !unchecked.is_empty() {
        for statement in statements(&text(unchecked).await?) {
            let not_valid = if statement.ends_with(" NOT VALID") { "" } else { " NOT VALID" };
            script.extend([&statement, not_valid, ";\n"]);
        }
    }
    Ok(script)
}

/// The statements of a script, in normal form.
pub fn statements(script: &str) -> Vec<String> {
    split(script).into_iter().filter(|statement| is_of_interest(statement)).collect()
}

async fn dump(side: &Side, pg_dump: Command, args: &[String]) -> Result<String> {
    let mut command = tokio::process::Command::from(pg_dump);
    command.args(["--schema-only", "--exclude-schema=pgmig", "--no-password", "--encoding=UTF8"]).args(args);
    command.envs(environment(side));
    output(side, command, "pg_dump", None, || format!("dump the schema of the {}", side.name())).await
}

/// Makes what a script describes, or nothing is made of what follows its first error. `psql` comes bare.
pub async fn run(side: &Side, psql: Command, script: &str) -> Result<()> {
    let mut command = tokio::process::Command::from(psql);
    command.args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]);
    command.envs(environment(side));
    let doing = || "make the source's schema once more, to print it as the target's version does".to_string();
    output(side, command, "psql", Some(script), doing).await.map(drop)
}

/// What libpq needs to reach a side.
fn environment(side: &Side) -> impl Iterator<Item = (&'static str, String)> {
    let config = side.config();
    let hosts: Vec<String> = config.get_hosts().iter().map(host).collect();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    let password = config.get_password().map(|p| String::from_utf8_lossy(p).into_owned());
    let sslmode = match config.get_ssl_mode() {
        SslMode::Disable => "disable",
        SslMode::Require => "require",
        _ => "prefer",
    };
    let variables = [
        ("PGHOST", Some(hosts.join(","))),
        ("PGPORT", Some(ports.join(",")).filter(|p| !p.is_empty())),
        ("PGUSER", config.get_user().map(str::to_string)),
        ("PGDATABASE", config.get_dbname().or(config.get_user()).map(str::to_string)),
        ("PGPASSWORD", password),
        ("PGSSLMODE", Some(sslmode.to_string())),
        ("PGAPPNAME", Some("pgmig verify".to_string())),
    ];
    variables.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

async fn output(
    side: &Side,
    mut command: tokio::process::Command,
    name: &str,
    input: Option<&str>,
    doing: impl Fn() -> String,
) -> Result<String> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().during(side.exit(), &doing)?;
    let pipe = child.stdin.take();
    let feed = async {
        if let (Some(mut pipe), Some(text)) = (pipe, input) {
            // A program that ends before it has read all says why itself.
            let _ = pipe.write_all(text.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.during(side.exit(), &doing)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Error::new(side.exit(), doing()).cause(format!("{name}: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn host(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

fn is_of_interest(statement: &str) -> bool {
    let ours = [
        "EXTENSION pgmig_sentinel",
        "EXTENSION IF NOT EXISTS pgmig_sentinel",
        "PUBLICATION pgmig_",
        "EVENT TRIGGER pgmig_",
    ];
    // The extension's schema is no part of a dump, what is granted on it is.
    let granted = ["FUNCTION pgmig.", "TABLE pgmig.", "SEQUENCE pgmig.", "SCHEMA pgmig "];
    let of_ours = (statement.starts_with("GRANT ") || statement.starts_with("REVOKE "))
        && granted.iter().any(|object| statement.contains(&format!(" ON {object}")));
    !of_ours
        && !statement.starts_with("SET ")
        && !statement.starts_with("SELECT pg_catalog.set_config(")
        && !ours.iter().any(|name| statement.lines().next().is_some_and(|line| line.contains(name)))
}

/// Splits a script into statements, without comments and psql's own lines. A body in BEGIN ATOMIC
/// falls into its statements, which does a comparison no harm.
fn split(script: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut rest = script;
    let mut depth = 0_i32;
    while let Some(next) = rest.chars().next() {
        let at_line_start = statement.is_empty() || statement.ends_with('\n');
        let length = match next {
            // \restrict, \unrestrict, \connect; comments.
            '\\' if statement.trim().is_empty() && at_line_start => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '-' if rest.starts_with("--") => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '\'' => literal(rest, statement.ends_with(['E', 'e'])),
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '$' => dollar_quoted(rest, &statement),
            _ => next.len_utf8(),
        };
        match next {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if next == ';' && depth <= 0 {
            depth = 0;
            push(&mut statements, &statement);
            statement.clear();
        } else {
            statement.push_str(&rest[..length]);
        }
        rest = &rest[length..];
    }
    push(&mut statements, &statement);
    statements
}

fn push(statements: &mut Vec<String>, statement: &str) {
    let lines: Vec<&str> = statement.trim().lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if !lines.is_empty() {
        statements.push(lines.join("\n"));
    }
}

/// Bytes of the quoted text that `text` begins with; a doubled quote begins another one.
fn literal(text: &str, escapes: bool) -> usize {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if escapes => drop(bytes.next()),
            b'\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of `$tag$ … $tag$`, or of the lone `$`.
fn dollar_quoted(text: &str, before: &str) -> usize {
    // Inside a name a dollar is a letter.
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    if !tag[1..=end].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |body| body + 2 * tag.len())
}

/// What differs. Two statements that begin alike are told as one difference.
pub fn differences(source: Vec<String>, target: Vec<String>) -> Vec<Difference> {
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    source.into_iter().for_each(|s| *balance.entry(s).or_default() += 1);
    target.into_iter().for_each(|s| *balance.entry(s).or_default() -= 1);
    let mut by_title: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for (statement, surplus) in balance.into_iter().filter(|(_, surplus)| *surplus != 0) {
        let title = title(&statement);
        let sides = by_title.entry(title).or_default();
        if surplus > 0 { sides.0.push(statement) } else { sides.1.push(statement) }
    }
    let told = by_title.into_iter().map(|(title, sides)| match (sides.0.first(), sides.1.first()) {
        (Some(here), Some(there)) => Difference::new(Kind::Schema, title, first_difference(here, there)),
        (here, _) => Difference::one_sided(Kind::Schema, title, here.is_some()),
    });
    told.collect()
}

/// The first line; of a long ALTER, also what it adds: `ALTER TABLE ONLY t ADD CONSTRAINT c`.
fn title(statement: &str) -> String {
    let mut lines = statement.lines();
    let mut title = lines.next().unwrap_or_default().to_string();
    if title.starts_with("ALTER ")
        && let Some(second) = lines.next()
    {
        second.split_whitespace().take(3).for_each(|word| title.extend([" ", word]));
    }
    title.chars().take(160).collect()
}

fn first_difference(here: &str, there: &str) -> String {
    let (mut here, mut there) = (here.lines(), there.lines());
    loop {
        match (here.next(), there.next()) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => {
                let show = |line: Option<&str>| line.map_or("ends".to_string(), |l| format!("`{}`", l.trim()));
                return format!("source {}; target {}", show(a), show(b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_where_psql_ends_them() {
        let script = "\\restrict abc\n-- x; y\nSET a = 1;\nCREATE FUNCTION f() AS $_$ a; $$ 'b $_$;\n\
                      COMMENT ON TABLE t IS 'it''s; -- here';\nCREATE TABLE \"a;b\" (\n    c text DEFAULT E'\\';'\n);\n\
                      CREATE RULE r AS ON INSERT TO t DO (a; b);\n\\unrestrict abc\n";
        assert_eq!(
            statements(script),
            [
                "CREATE FUNCTION f() AS $_$ a; $$ 'b $_$",
                "COMMENT ON TABLE t IS 'it''s; -- here'",
                "CREATE TABLE \"a;b\" (\n    c text DEFAULT E'\\';'\n)",
                "CREATE RULE r AS ON INSERT TO t DO (a; b)",
            ]
        );
    }

    #[test]
    fn what_pgmig_brings_along_is_no_difference() {
        for statement in [
            "CREATE EXTENSION IF NOT EXISTS pgmig_sentinel WITH SCHEMA pgmig",
            "COMMENT ON EXTENSION pgmig_sentinel IS 'x'",
            "CREATE PUBLICATION pgmig_default FOR ALL TABLES",
            "ALTER PUBLICATION pgmig_default OWNER TO postgres",
        ] {
            assert!(!is_of_interest(statement), "{statement}");
        }
        assert!(is_of_interest("CREATE PUBLICATION others FOR ALL TABLES"));
    }

    #[test]
    fn a_changed_statement_is_one_difference_with_its_first_line_that_differs() {
        let found =
            differences(vec!["CREATE TABLE t (\n a int\n)".into()], vec!["CREATE TABLE t (\n a text\n)".into()]);
        assert_eq!(found, [Difference::new(Kind::Schema, "CREATE TABLE t (", "source `a int`; target `a text`")]);
    }
}
