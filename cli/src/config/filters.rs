//! pgcopydb's filter files, both versions': which section names which objects. Reads text and nothing
//! else; what an entry matches is found out with the source's catalog, in `selection`.
//!
//! A comment begins with `;` or `#`: at the start of a line, or behind white space. Inside double
//! quotes and inside `~/…/` both are what they are, so `"T #1"` names a table.

mod entry;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Exit, Result};

/// What the entries below a heading do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    IncludeOnlySchema,
    ExcludeSchema,
    IncludeOnlyTable,
    ExcludeTable,
    ExcludeTableData,
    ExcludeIndex,
    IncludeOnlyExtension,
    ExcludeExtension,
    ExcludeEventTrigger,
}

use Section::*;

impl Section {
    pub const ALL: [Section; 9] = [
        IncludeOnlySchema,
        ExcludeSchema,
        IncludeOnlyTable,
        ExcludeTable,
        ExcludeTableData,
        ExcludeIndex,
        IncludeOnlyExtension,
        ExcludeExtension,
        ExcludeEventTrigger,
    ];
    pub fn name(self) -> &'static str {
        match self {
            IncludeOnlySchema => "include-only-schema",
            ExcludeSchema => "exclude-schema",
            IncludeOnlyTable => "include-only-table",
            ExcludeTable => "exclude-table",
            ExcludeTableData => "exclude-table-data",
            ExcludeIndex => "exclude-index",
            IncludeOnlyExtension => "include-only-extension",
            ExcludeExtension => "exclude-extension",
            ExcludeEventTrigger => "exclude-event-trigger",
        }
    }
    /// Whether its entries are `schema.name`.
    fn is_qualified(self) -> bool {
        matches!(self, IncludeOnlyTable | ExcludeTable | ExcludeTableData | ExcludeIndex)
    }
    /// Whether its entries may be patterns.
    fn takes_patterns(self) -> bool {
        !matches!(self, IncludeOnlyExtension | ExcludeExtension | ExcludeEventTrigger)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.name())
    }
}

/// Sections that say two things about one object, as pgcopydb documents it.
const CONFLICTS: [(Section, Section); 4] = [
    (IncludeOnlySchema, ExcludeSchema),
    (IncludeOnlyTable, ExcludeTable),
    (IncludeOnlyTable, ExcludeSchema),
    (IncludeOnlyExtension, ExcludeExtension),
];

/// A name, or one half of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// In double quotes: as it is.
    Quoted(String),
    /// As it is (so the one pgcopydb reads it) or, where nothing is called that, folded to lower case
    /// (so the other, and PostgreSQL).
    Plain(String),
    /// `~/pattern/`: a regular expression, unanchored.
    Pattern(String),
}

/// One line of a section.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub section: Section,
    /// The schema, for sections whose entries have one.
    pub schema: Option<Name>,
    pub name: Name,
    /// As it was typed.
    pub text: String,
    pub line: usize,
}

/// A whole file, in its order. Stored with the migration, so that a later run is held to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Filters {
    pub file: String,
    pub entries: Vec<Entry>,
}

impl Filters {
    pub fn read(path: &Path) -> Result<Filters> {
        let doing = || format!("cannot read the filters in {}", path.display());
        let bytes = std::fs::read(path).during(Exit::Usage, doing)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::usage(doing()).cause("it is not in UTF-8"))?;
        let file = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        Filters::parse(&file, &text)
    }

    /// Reads the text of a file that is called `file` in errors.
    pub fn parse(file: &str, text: &str) -> Result<Filters> {
        let mut filters = Filters { file: file.into(), entries: Vec::new() };
        let mut section = None;
        for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            let (line, number) = (line.trim(), number + 1);
            let refuse =
                |wrong: entry::Wrong| Error::usage(format!("{file}:{number}: {}", wrong.what)).hint(wrong.hint);
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            if line.starts_with('[') {
                section = Some(entry::heading(line).map_err(refuse)?);
                continue;
            }
            let Some(section) = section else {
                return Err(Error::usage(format!("{file}:{number}: `{line}` stands before any section"))
                    .hint(format!("put a heading such as {ExcludeTable} above it")));
            };
            let (schema, name, text) = entry::entry(section, line).map_err(refuse)?;
            filters.entries.push(Entry { section, schema, name, text, line: number });
        }
        filters.refuse_conflicts()?;
        Ok(filters)
    }

    fn refuse_conflicts(&self) -> Result<()> {
        for (one, other) in CONFLICTS {
            if let (Some(first), Some(second)) = (self.of(one).next(), self.of(other).next()) {
                let (file, line, at) = (&self.file, first.line.max(second.line), first.line.min(second.line));
                return Err(Error::usage(format!(
                    "{file}:{line}: {one} and {other} exclude each other (the other one is at line {at})"
                ))
                .hint("say either what to take or what to leave"));
            }
        }
        Ok(())
    }

    /// The entries of a section, of all places where its heading stands.
    pub fn of(&self, section: Section) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.section == section)
    }
    pub fn has(&self, section: Section) -> bool {
        self.of(section).next().is_some()
    }
    /// Where an entry stands, for people: `filters.ini:12 [exclude-table]`.
    pub fn place(&self, entry: &Entry) -> String {
        format!("{}:{} {}", self.file, entry.line, entry.section)
    }
    /// Every regular expression, once.
    pub fn patterns(&self) -> Vec<(&str, &Entry)> {
        let mut found: Vec<(&str, &Entry)> = Vec::new();
        for entry in &self.entries {
            for name in entry.schema.iter().chain([&entry.name]) {
                if let Name::Pattern(pattern) = name
                    && !found.iter().any(|(known, _)| known == pattern)
                {
                    found.push((pattern, entry));
                }
            }
        }
        found
    }
    /// Whether both say the same, whatever the file is called and however it is laid out.
    pub fn same(&self, other: &Filters) -> bool {
        let said = |filters: &Filters| {
            let mut said: Vec<String> =
                filters.entries.iter().map(|e| format!("{} {:?} {:?}", e.section, e.schema, e.name)).collect();
            said.sort();
            said.dedup();
            said
        };
        said(self) == said(other)
    }
}

#[cfg(test)]
mod tests;
