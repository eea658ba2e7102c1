//! Which names an entry of the filters means. Pure: what patterns match was asked of the server before.

use std::collections::{HashMap, HashSet};

use crate::config::filters::{Entry, Filters, Name};
use crate::error::{Error, Result};
use crate::model::TableName;

/// Names that each pattern matches.
pub type Patterns = HashMap<String, HashSet<String>>;

fn means(name: &Name, found: &str, patterns: &Patterns) -> bool {
    match name {
        Name::Quoted(name) => name == found,
        Name::Plain(name) => name == found || name.to_lowercase() == found,
        Name::Pattern(pattern) => patterns.get(pattern).is_some_and(|names| names.contains(found)),
    }
}

/// The candidates that an entry means. A plain name that fits two of them is refused.
pub fn matches<'a, T>(
    filters: &Filters,
    entry: &Entry,
    patterns: &Patterns,
    candidates: impl Iterator<Item = (&'a str, &'a str, T)>,
) -> Result<Vec<T>> {
    let mut names = Vec::new();
    let mut found = Vec::new();
    for (schema, name, candidate) in candidates {
        if entry.schema.as_ref().is_none_or(|part| means(part, schema, patterns)) && means(&entry.name, name, patterns)
        {
            names.push(TableName::new(schema, name));
            found.push(candidate);
        }
    }
    let patterned = entry.schema.iter().chain([&entry.name]).any(|part| matches!(part, Name::Pattern(_)));
    if !patterned && names.len() > 1 {
        let show = |name: &TableName| if entry.schema.is_some() { name.sql() } else { format!("{:?}", name.table) };
        return Err(Error::usage(format!(
            "{}:{}: {} may mean {} or {}",
            filters.file,
            entry.line,
            entry.text,
            show(&names[0]),
            show(&names[1])
        ))
        .hint("put the name in double quotes"));
    }
    Ok(found)
}
