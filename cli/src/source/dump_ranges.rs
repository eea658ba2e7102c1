//! A schema too large for one pg_dump. It locks every table it dumps, and a server's lock table is made
//! for `max_locks_per_transaction` of every session there may be (NLOCKENTS in PostgreSQL's lock.c); a
//! larger catalog is dumped in ranges of names, one after the other, and the entries are put in order
//! again. What is in no range by its name (types, functions …) is in every dump, and kept once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use super::dump::{Entry, Tools};
use super::inventory::{Object, class};
use super::snapshot::SnapshotHolder;
use crate::config::Conninfo;
use crate::error::{Context, Result};
use crate::model::{Leave, TableName};

/// Of the server's lock table, what one dump may use.
const SHARE: f64 = 0.8;

/// What is dumped.
pub struct Dumped<'a> {
    pub source: &'a Conninfo,
    /// Relations that pg_dump must not even lock.
    pub without: &'a [TableName],
    pub leave: Leave,
}

/// What an entry is called in each dump that holds it.
type Title = (Object, String, Option<String>, String);

/// The dumps of a schema: one, or several ranges.
pub struct Dumps(Vec<(PathBuf, Vec<(u32, Title)>)>);

impl Dumps {
    /// Dumps under the snapshot into `file` and, where one is not enough, files beside it. The entries
    /// come in an order in which they can be made, before the data and after.
    pub async fn make(
        tools: &Tools,
        holder: &SnapshotHolder,
        what: Dumped<'_>,
        file: &Path,
    ) -> Result<(Dumps, Vec<Entry>, Vec<Entry>)> {
        let ranges = ranges(&holder.client).await?;
        let needs = if ranges.len() > 1 { relation_needs(&holder.client).await? } else { HashMap::new() };
        let (mut pre, mut post, mut dumps) = (Vec::new(), Vec::new(), Vec::new());
        for (at, patterns) in ranges.iter().enumerate() {
            let file = if at == 0 { file.to_path_buf() } else { file.with_extension(format!("{at}.dump")) };
            tools.dump(what.source, &holder.exported, what.without, patterns, &file).await?;
            let (before, after) = tools.entries(&file, what.leave).await?;
            pre.push(before);
            post.push(after);
            let entries = pre[at].iter().chain(&post[at]);
            dumps.push((file, entries.map(|entry| (entry.id, title(entry))).collect()));
        }
        Ok((Dumps(dumps), merge(pre, &needs), merge(post, &needs)))
    }

    /// Statements that drop the objects of these entries where they exist, in an order that works.
    pub async fn drops(&self, tools: &Tools, entries: impl Iterator<Item = &Entry>) -> Result<Vec<String>> {
        let mut wanted: HashSet<Title> = entries.map(title).collect();
        let mut statements = Vec::new();
        for (file, known) in self.0.iter().rev() {
            let ids: Vec<u32> = known.iter().filter(|(_, title)| wanted.remove(title)).map(|(id, _)| *id).collect();
            statements.extend(tools.drops(file, &ids).await?);
        }
        Ok(statements)
    }
}

fn title(entry: &Entry) -> Title {
    ((entry.catalog, entry.oid), entry.kind.clone(), entry.schema.clone(), entry.tag.clone())
}

/// For each dump, the patterns of `--exclude-table` that leave it its range; one without any where all
/// fits.
async fn ranges(client: &Client) -> Result<Vec<Vec<String>>> {
    let doing = || "count the tables that pg_dump locks".to_string();
    let row = client
        .query_one(
            "select current_setting('max_locks_per_transaction')::int8
                    * (select sum(setting::int8)::int8 from pg_catalog.pg_settings
                        where name in ('max_connections', 'autovacuum_max_workers', 'max_worker_processes',
                                       'max_wal_senders', 'max_prepared_transactions')),
                    (select count(*) from pg_catalog.pg_class where relkind in ('r', 'p') and oid >= 16384)",
            &[],
        )
        .await
        .on_source(doing)?;
    let (room, tables): (i64, i64) = (row.get(0), row.get(1));
    let most = ((room as f64 * SHARE) as usize).max(100);
    if tables as usize <= most {
        return Ok(vec![Vec::new()]);
    }
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind in ('r', 'p') and c.oid >= 16384",
            &[],
        )
        .await
        .on_source(doing)?;
    let mut names: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    names.sort_unstable();
    let bounds = bounds(&names, most);
    let lower = std::iter::once(None).chain(bounds.iter().map(Some));
    let upper = bounds.iter().map(Some).chain([None]);
    Ok(lower.zip(upper).map(|(lower, upper)| patterns(lower, upper)).collect())
}

/// Schema and name from which a range begins.
type Bound = (String, String);

/// Bounds that cut the sorted names into ranges of about `most`. They are ASCII, which a pattern can
/// express in every encoding.
fn bounds(names: &[(String, String)], most: usize) -> Vec<Bound> {
    let ascii = |name: &str| -> String { name.chars().take_while(|c| c.is_ascii() && *c != '\0').collect() };
    let mut bounds: Vec<Bound> = Vec::new();
    let mut begun = 0;
    for (at, (schema, table)) in names.iter().enumerate() {
        if at - begun < most {
            continue;
        }
        let bound = if schema.is_ascii() { (schema.clone(), ascii(table)) } else { (ascii(schema), String::new()) };
        // A shortened name may lie before what the range holds already.
        if !bound.0.is_empty() && bound > names[begun] && bounds.last() != Some(&bound) {
            bounds.push(bound);
            begun = at;
        }
    }
    bounds
}

/// What lies outside of `lower <= name < upper`, as psql's patterns (manual, psql, Patterns): regular
/// expressions, but for `*`, `?` and `.`, with capitals only as escapes.
fn patterns(lower: Option<&Bound>, upper: Option<&Bound>) -> Vec<String> {
    let mut patterns = Vec::new();
    if let Some((schema, table)) = lower {
        patterns.push(format!("{}.*", before(schema)));
        if !table.is_empty() {
            patterns.push(format!("{}.{}", exactly(schema), before(table)));
        }
    }
    if let Some((schema, table)) = upper {
        patterns.push(format!("{}.*", behind(schema)));
        let rest = match table.is_empty() {
            true => "*".into(),
            false => format!("({}*|{})", exactly(table), behind(table)),
        };
        patterns.push(format!("{}.{rest}", exactly(schema)));
    }
    patterns
}

fn exactly(name: &str) -> String {
    name.chars().map(escape).collect()
}

/// Names that sort before this one: beginnings of it, and those that have a smaller character where
/// they part from it.
fn before(name: &str) -> String {
    let mut ways = Vec::new();
    let mut start = String::new();
    for c in name.chars() {
        if !start.is_empty() {
            ways.push(start.clone());
        }
        if let Some(smaller) = (c as u32).checked_sub(1).and_then(char::from_u32).filter(|smaller| *smaller > '\0') {
            ways.push(format!("{start}[{}-{}]*", escape('\u{1}'), escape(smaller)));
        }
        start.push_str(&escape(c));
    }
    format!("({})", ways.join("|"))
}

/// Names that sort behind this one.
fn behind(name: &str) -> String {
    let mut ways = Vec::new();
    let mut start = String::new();
    for c in name.chars() {
        ways.push(format!("{start}[^{}-{}]*", escape('\u{1}'), escape(c)));
        start.push_str(&escape(c));
    }
    ways.push(format!("{start}?*"));
    format!("({})", ways.join("|"))
}

fn escape(c: char) -> String {
    format!("\\u{:04x}", c as u32)
}

/// What relations need of each other: a dump that leaves one out does not say.
async fn relation_needs(client: &Client) -> Result<HashMap<Object, Vec<Object>>> {
    let rows = client
        .query(include_str!("../../../sql/source/relation_needs.sql"), &[])
        .await
        .on_source(|| "read what tables need of each other".into())?;
    let mut needs: HashMap<Object, Vec<Object>> = HashMap::new();
    for row in &rows {
        needs.entry((class::RELATION, row.get(0))).or_default().push((class::RELATION, row.get(1)));
    }
    Ok(needs)
}

/// Puts the entries of several dumps of one section in an order in which they can be made: as they
/// come, but for what an entry needs, which goes before it.
fn merge(dumps: Vec<Vec<Entry>>, relations: &HashMap<Object, Vec<Object>>) -> Vec<Entry> {
    if dumps.len() == 1 {
        return dumps.into_iter().flatten().collect();
    }
    // Entries that are no objects themselves (comments, privileges, attachments) are known by their text.
    let mut known: BTreeMap<(Object, String), usize> = BTreeMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    for entry in dumps.into_iter().flatten() {
        let object = (entry.catalog, entry.oid);
        let text = if object.0 == 0 { format!("{} {}", entry.kind, entry.sql) } else { entry.kind.clone() };
        match known.get(&(object, text.clone())) {
            Some(&at) => entries[at].needs.extend(entry.needs),
            None => {
                known.insert((object, text), entries.len());
                entries.push(entry);
            }
        }
    }
    let mut makers: HashMap<Object, Vec<usize>> = HashMap::new();
    for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.catalog != 0) {
        makers.entry((entry.catalog, entry.oid)).or_default().push(at);
    }
    let needs = |at: usize| -> Vec<usize> {
        let object = (entries[at].catalog, entries[at].oid);
        let between = relations.get(&object).map(Vec::as_slice).unwrap_or_default();
        let all = entries[at].needs.iter().chain(between);
        all.filter_map(|need| makers.get(need)).flatten().copied().filter(|&need| need != at).collect()
    };
    let mut order = Vec::with_capacity(entries.len());
    let mut seen = vec![false; entries.len()];
    // Both tables of an attachment may be in any dump.
    let (attachments, first): (Vec<usize>, Vec<usize>) =
        (0..entries.len()).partition(|&at| entries[at].kind.ends_with("ATTACH"));
    for root in first.into_iter().chain(attachments) {
        let mut open = vec![(root, false)];
        while let Some((at, needs_done)) = open.pop() {
            if needs_done {
                order.push(at);
            } else if !std::mem::replace(&mut seen[at], true) {
                open.push((at, true));
                open.extend(needs(at).into_iter().rev().filter(|&need| !seen[need]).map(|need| (need, false)));
            }
        }
    }
    let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| entries[at].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(oid: u32, kind: &str, needs: &[u32]) -> Entry {
        Entry {
            id: oid,
            catalog: class::RELATION,
            oid,
            kind: kind.into(),
            schema: None,
            tag: oid.to_string(),
            needs: needs.iter().map(|oid| (class::RELATION, *oid)).collect(),
            sql: format!("create {oid}"),
            settings: String::new(),
        }
    }

    #[test]
    fn what_an_entry_needs_goes_before_it_whichever_dump_it_is_in() {
        let dumps = vec![
            vec![entry(1, "TABLE", &[]), entry(9, "TABLE ATTACH", &[1]), entry(2, "FUNCTION", &[])],
            vec![entry(2, "FUNCTION", &[3]), entry(3, "TABLE", &[]), entry(4, "TABLE", &[])],
        ];
        let between = HashMap::from([((class::RELATION, 1), vec![(class::RELATION, 4)])]);
        let order: Vec<u32> = merge(dumps, &between).iter().map(|entry| entry.oid).collect();
        assert_eq!(order, [4, 1, 3, 2, 9]);
    }

    #[test]
    fn every_name_is_in_just_one_range() {
        let mut names: Vec<(String, String)> = ["a", "b", "public", "Öl", "z"]
            .iter()
            .flat_map(|schema| (0..30).map(|n| (schema.to_string(), format!("{}{n}", ["T", "t", "ä", "_"][n % 4]))))
            .collect();
        names.sort_unstable();
        let bounds = bounds(&names, 20);
        assert!(bounds.len() >= 4, "{bounds:?}");
        assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
    }
}
