//! The schema as pg_dump sees it under the migration's snapshot, entry by entry. pg_dump knows every
//! kind of object; we only cut its text at the entries of its own table of contents. Connection
//! settings go through the environment: no password is ever in the process list.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::{script, toc};
use crate::config::conninfo::Conninfo;
use crate::error::{Context, Error, Exit, Result};
use crate::model::{Leave, TableName};

/// What libpq says, in its own words and never in another language here, when a connection is lost or cannot
/// be had: the tools tell no SQLSTATE. The last one is the server's, in English.
const LOST: [&str; 6] = [
    "server closed the connection unexpectedly",
    "could not receive data from server",
    "could not send data to server",
    "Connection refused",
    "timeout expired",
    "the database system is ",
];

/// pg_dump and pg_restore of one version.
#[derive(Debug, Clone)]
pub struct Tools {
    bin_dir: PathBuf,
    pub major: u32,
}

/// Which half of the dump: what tables need, or what needs tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    PreData,
    PostData,
}

/// An entry of the dump's table of contents with its SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the dump.
    pub id: u32,
    /// Oid of the catalog that describes the object, and the object's own oid there.
    pub catalog: u32,
    pub oid: u32,
    /// What it is, as `pg_restore --list` says: TABLE, INDEX, FK CONSTRAINT …
    pub kind: String,
    pub schema: Option<String>,
    /// Name, often with the table before it.
    pub tag: String,
    /// What it needs among the entries, as catalog and oid: comments and privileges are no objects
    /// themselves.
    pub needs: Vec<(u32, u32)>,
    pub sql: String,
    /// What must be set before it, for the transaction: tablespace and access method.
    pub settings: String,
}

impl Tools {
    /// The oldest tools that are at least as new as the source: a newer pg_dump reads an older
    /// server, not the other way round, and its SQL fits an older target less well.
    pub async fn find(source_major: u32) -> Result<Tools> {
        let mut dirs: Vec<PathBuf> = std::env::var_os("PGMIG_PG_BIN").map(PathBuf::from).into_iter().collect();
        // Before PATH, where Debian has a wrapper in Perl that takes longer than the program.
        let debian = Path::new("/usr/lib/postgresql");
        dirs.push(debian.join(source_major.to_string()).join("bin"));
        if let Ok(versions) = std::fs::read_dir(debian) {
            dirs.extend(versions.flatten().map(|version| version.path().join("bin")));
        }
        dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut found: Vec<Tools> = Vec::new();
        for bin_dir in dirs {
            if bin_dir.join("pg_restore").exists()
                && let Some(major) = major_of(&bin_dir.join("pg_dump")).await
                && !found.iter().any(|tools| tools.major == major)
            {
                if major == source_major {
                    return Ok(Tools { bin_dir, major });
                }
                found.push(Tools { bin_dir, major });
            }
        }
        found.sort_by_key(|tools| tools.major);
        let newest = found.last().map(|tools| tools.major);
        found.into_iter().find(|tools| tools.major >= source_major).ok_or_else(|| {
            let have = newest.map_or("none was found".into(), |major| format!("the newest found is {major}"));
            Error::new(Exit::Source, format!("no pg_dump of PostgreSQL {source_major} or later: {have}"))
                .hint(format!("install postgresql-client-{source_major}, or name its folder in PGMIG_PG_BIN"))
        })
    }

    /// Dumps the schema under an exported snapshot into `file` (custom format). `without`: relations
    /// that pg_dump must not even lock; `patterns`: what another dump holds.
    pub async fn dump(
        &self,
        source: &Conninfo,
        snapshot: &str,
        without: &[TableName],
        patterns: &[String],
        file: &Path,
    ) -> Result<()> {
        // It holds the passwords of user mappings and subscriptions: nobody else may read it.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(file).during(Exit::Dir, || format!("make {}", file.display()))?;
        let mut command = self.command("pg_dump");
        for (name, value) in source.libpq_env() {
            command.env(name, value);
        }
        command
            .args(["--no-password", "--schema-only", "--format=custom", "--exclude-schema=pgmig"])
            // Names in the source's own encoding would be no text here.
            .arg("--encoding=UTF8")
            .arg(format!("--snapshot={snapshot}"))
            .args(without.iter().map(|name| format!("--exclude-table={}", name.sql())))
            .args(patterns.iter().map(|pattern| format!("--exclude-table={pattern}")))
            .arg("--file")
            .arg(file);
        output(command, "pg_dump").await.map(drop)
    }

    /// The entries of both halves of a dump, in the order in which they must be made. Those that flags
    /// leave out are among them: only owners and tablespaces are no entries of their own.
    pub async fn entries(&self, file: &Path, leave: Leave) -> Result<(Vec<Entry>, Vec<Entry>)> {
        let restore = |args: &[&str]| {
            let mut command = self.command("pg_restore");
            if leave.owner {
                command.arg("--no-owner");
            }
            if leave.tablespaces {
                command.arg("--no-tablespaces");
            }
            // With what is set for the database itself.
            command.arg("--create").args(args).arg(file);
            command
        };
        let whole = output(self.whole_list(file), "pg_restore --list").await?;
        let half = async |section| {
            let list = output(restore(&[section, "--list"]), "pg_restore --list").await?;
            let text = output(restore(&[section, "--file=-"]), "pg_restore").await?;
            let mut entries = cut(&list, &text);
            let listed = list.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty()).count();
            let found = entries.len();
            if found != listed {
                return Err(Error::bug(format!("the dump lists {listed} entries and {found} were found in its text")));
            }
            toc::fill_needs(&whole, &mut entries);
            Ok(entries)
        };
        Ok((half("--section=pre-data").await?, half("--section=post-data").await?))
    }

    /// Statements that drop what the entries of these numbers make, in an order that fits, if it is there.
    pub async fn drops(&self, file: &Path, ids: &[u32]) -> Result<Vec<String>> {
        let list = file.with_extension("list");
        let lines: String = ids.iter().map(|id| format!("{id};\n")).collect();
        std::fs::write(&list, lines).during(Exit::Dir, || format!("write {}", list.display()))?;
        let mut command = self.command("pg_restore");
        command.args(["--clean", "--if-exists", "--file=-"]).arg(format!("--use-list={}", list.display())).arg(file);
        let text = output(command, "pg_restore --clean").await;
        std::fs::remove_file(&list).during(Exit::Dir, || format!("remove {}", list.display()))?;
        let text = text?;
        let made = text.find("\n--\n-- Name: ").unwrap_or(text.len());
        Ok(script::statements(&text[..made]))
    }

    /// What `pg_dumpall --roles-only` says, without passwords.
    pub async fn roles(&self, source: &Conninfo) -> Result<String> {
        let mut command = self.command("pg_dumpall");
        for (name, value) in source.libpq_env() {
            command.env(name, value);
        }
        command.args(["--no-password", "--roles-only", "--no-role-passwords"]).arg("--database").arg(&source.dbname);
        output(command, "pg_dumpall").await
    }

    /// The table of contents of the whole dump, with what each entry needs.
    fn whole_list(&self, file: &Path) -> Command {
        let mut command = self.command("pg_restore");
        command.args(["--list", "--verbose"]).arg(file);
        command
    }

    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(name));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

async fn major_of(pg_dump: &Path) -> Option<u32> {
    let output = Command::new(pg_dump).arg("--version").stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

pub(super) async fn output(mut command: Command, name: &str) -> Result<String> {
    let output = command.output().await.on_source(|| format!("start {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        if said.contains("error: could not write") && said.contains("No space left on device") {
            let full = std::io::Error::new(std::io::ErrorKind::StorageFull, said);
            return Err(Error::new(Exit::Dir, format!("{name} failed")).cause(full));
        }
        let failed = Error::new(Exit::Source, format!("{name} failed"));
        return Err(if LOST.iter().any(|text| said.contains(text)) {
            let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
            failed.cause(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, line))
        } else {
            failed.cause(said)
        });
    }
    String::from_utf8(output.stdout).on_source(|| format!("read the output of {name}"))
}

/// A line of the list: number of the entry, catalog and oid.
type Line = (u32, u32, u32);

/// Cuts the text at the headers that the list announces. A line in a function body that looks like a
/// header is not in the list, or its entry has been seen already.
fn cut(list: &str, text: &str) -> Vec<Entry> {
    // dumpId; catalog oid kind schema tag owner
    let mut announced: BTreeMap<&str, VecDeque<Line>> = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with(';')) {
        let mut words = line.splitn(4, ' ');
        let (id, catalog, oid, rest) = (words.next(), words.next(), words.next(), words.next());
        let id = id.and_then(|id| id.strip_suffix(';'));
        if let (Some(Ok(id)), Some(Ok(catalog)), Some(Ok(oid)), Some(rest)) =
            (id.map(str::parse), catalog.map(str::parse), oid.map(str::parse), rest)
        {
            // The owner is last and has no spaces that the header shows: compare without it.
            announced.entry(rest).or_default().push_back((id, catalog, oid));
        }
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut settings = Settings::default();
    // Not `lines`: a carriage return inside a body is part of it.
    let mut lines = text.split('\n').peekable();
    let mut open = false;
    while let Some(line) = lines.next() {
        if line == "--"
            && let Some(header) = lines.peek().and_then(|next| Header::parse(next))
            && let Some((id, catalog, oid)) = take_announced(&mut announced, &header)
        {
            lines.next();
            if lines.peek() == Some(&"--") {
                lines.next();
            }
            if let Some(last) = entries.last_mut() {
                settings.move_from(&mut last.sql);
            }
            let schema = (header.schema != "-").then(|| header.schema.to_string());
            let (kind, tag) = (header.kind.to_string(), header.tag.to_string());
            let settings = settings.prefix();
            let (needs, sql) = (Vec::new(), String::new());
            entries.push(Entry { id, catalog, oid, kind, schema, tag, needs, sql, settings });
            open = true;
        } else if open {
            let sql = &mut entries.last_mut().expect("an open entry is the last one").sql;
            sql.push_str(line);
            sql.push('\n');
        } else {
            settings.note(line);
        }
    }
    for entry in &mut entries {
        let end = entry.sql.trim_end().strip_suffix("--\n-- PostgreSQL database dump complete\n--").map(str::len);
        if let Some(end) = end {
            entry.sql.truncate(end);
        }
        // psql's own commands that guard a plain dump (CVE-2025-8714).
        if let Some(at) = entry.sql.find("\n\\unrestrict ") {
            entry.sql.truncate(at);
        }
        if let Some(at) = entry.sql.find("--\n-- PostgreSQL database dump complete\n--") {
            entry.sql.truncate(at);
        }
        entry.sql.truncate(entry.sql.trim_end().len());
    }
    entries
}

struct Header<'a> {
    tag: &'a str,
    kind: &'a str,
    schema: &'a str,
}

impl<'a> Header<'a> {
    /// `-- Name: actor; Type: TABLE; Schema: public; Owner: -`
    fn parse(line: &'a str) -> Option<Header<'a>> {
        let (rest, _owner) = line.strip_prefix("-- Name: ")?.rsplit_once("; Owner: ")?;
        let (rest, schema) = rest.rsplit_once("; Schema: ")?;
        let (tag, kind) = rest.rsplit_once("; Type: ")?;
        Some(Header { tag, kind, schema })
    }
}

fn take_announced(announced: &mut BTreeMap<&str, VecDeque<Line>>, header: &Header<'_>) -> Option<Line> {
    let start = format!("{} {} {} ", header.kind, header.schema, header.tag);
    // The owner is what is left: nothing of the tag may be in it. Of `a` and `a b` both begin so: what is
    // left of the right one has the fewest words.
    let key = announced
        .range(start.as_str()..)
        .map(|(line, _)| *line)
        .take_while(|line| line.starts_with(&start))
        .min_by_key(|line| line[start.len()..].split(' ').count())?;
    let lines = announced.get_mut(key)?;
    let found = lines.pop_front();
    if lines.is_empty() {
        announced.remove(key);
    }
    found
}

/// `SET default_tablespace` and the like stand between entries and hold for those that follow.
#[derive(Default)]
struct Settings {
    tablespace: Option<String>,
    access_method: Option<String>,
}

impl Settings {
    fn note(&mut self, line: &str) -> bool {
        if line.starts_with("SET default_tablespace = ") {
            self.tablespace = (line != "SET default_tablespace = '';").then(|| line.to_string());
        } else if line.starts_with("SET default_table_access_method = ") {
            self.access_method = (line != "SET default_table_access_method = heap;").then(|| line.to_string());
        } else {
            return false;
        }
        true
    }
    fn move_from(&mut self, sql: &mut String) {
        loop {
            let kept = sql.trim_end().len();
            let last = sql[..kept].rsplit('\n').next().unwrap_or_default().to_string();
            if last.is_empty() || !self.note(&last) {
                return;
            }
            sql.truncate(kept - last.len());
        }
    }
    fn prefix(&self) -> String {
        [&self.tablespace, &self.access_method]
            .into_iter()
            .flatten()
            .map(|line| line.replacen("SET ", "SET LOCAL ", 1) + "\n")
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_cut_at_its_own_entries_only() {
        let list = ";\n; comment\n215; 1259 16391 TABLE public a postgres\n9; 1255 7 FUNCTION public f() postgres\n3; 2606 5 CONSTRAINT public a a_pkey postgres\n";
        let text = "\\restrict x\nSET statement_timeout = 0;\nSET default_tablespace = '';\n\nSET default_table_access_method = heap;\n\n--\n-- Name: a; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.a (\n);\n\n\n--\n-- Name: f(); Type: FUNCTION; Schema: public; Owner: -\n--\n\nCREATE FUNCTION f() AS $$\n--\n-- Name: a; Type: TABLE; Schema: public; Owner: -\n--\nbody $$;\n\n\nSET default_tablespace = fast;\n\n--\n-- Name: a a_pkey; Type: CONSTRAINT; Schema: public; Owner: -\n--\n\nALTER TABLE ONLY public.a ADD x;\n\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict x\n\n";
        let entries = cut(list, text);
        let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind.as_str(), entry.tag.as_str(), entry.oid)).collect();
        assert_eq!(kinds, [("TABLE", "a", 16391), ("FUNCTION", "f()", 7), ("CONSTRAINT", "a a_pkey", 5)]);
        assert!(entries[1].sql.contains("body"), "{}", entries[1].sql);
        assert!(!entries[1].sql.contains("default_tablespace"));
        assert_eq!(entries[2].sql.trim(), "ALTER TABLE ONLY public.a ADD x;");
        assert_eq!(entries[2].settings, "SET LOCAL default_tablespace = fast;\n");
    }
}
