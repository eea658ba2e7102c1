//! The table of contents of a dump as `pg_restore --list --verbose` prints it. Pure.

use std::collections::HashMap;

use super::dump::Entry;
use super::inventory::Object;

/// An entry, without its SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    pub id: u32,
    pub object: Object,
    /// What it is, its schema, name and owner.
    pub rest: &'a str,
    /// The line, as `pg_restore --use-list` takes it.
    pub text: &'a str,
    /// Objects that it needs.
    pub needs: Vec<Object>,
}

/// Every entry, in the order of the dump.
pub fn lines(list: &str) -> Vec<Line<'_>> {
    let mut found: Vec<Line<'_>> = Vec::new();
    let mut needs: Vec<(usize, Vec<u32>)> = Vec::new();
    for text in list.lines() {
        if let Some(ids) = text.strip_prefix(";\tdepends on:") {
            needs.push((found.len(), ids.split_whitespace().filter_map(|id| id.parse().ok()).collect()));
            continue;
        }
        let mut words = text.splitn(4, ' ');
        let (id, catalog, oid, rest) = (words.next(), words.next(), words.next(), words.next());
        if let (Some(Ok(id)), Some(Ok(catalog)), Some(Ok(oid)), Some(rest)) =
            (id.and_then(|id| id.strip_suffix(';')).map(str::parse), catalog.map(str::parse), oid.map(str::parse), rest)
        {
            found.push(Line { id, object: (catalog, oid), rest, text, needs: Vec::new() });
        }
    }
    let objects: HashMap<u32, Object> = found.iter().map(|line| (line.id, line.object)).collect();
    for (end, ids) in needs {
        // It stands below its entry.
        if let Some(line) = end.checked_sub(1).and_then(|at| found.get_mut(at)) {
            line.needs = ids.iter().filter_map(|id| objects.get(id).copied()).collect();
        }
    }
    found
}

/// Tells each entry what it needs.
pub fn fill_needs(list: &str, entries: &mut [Entry]) {
    let mut needs: HashMap<u32, Vec<Object>> = lines(list).into_iter().map(|line| (line.id, line.needs)).collect();
    for entry in entries {
        entry.needs = needs.remove(&entry.id).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_knows_the_objects_that_it_needs() {
        let list = ";\n; Archive created\n;\n215; 1259 16391 TABLE public a postgres\n;\tdepends on: 9\n3310; 0 0 COMMENT public TABLE a postgres\n;\tdepends on: 215 999\n";
        let lines = lines(list);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].id, lines[0].object, lines[0].needs.len()), (215, (1259, 16391), 0));
        assert_eq!((lines[1].rest, lines[1].needs.clone()), ("COMMENT public TABLE a postgres", vec![(1259, 16391)]));
        assert_eq!(lines[1].text, "3310; 0 0 COMMENT public TABLE a postgres");
    }
}
