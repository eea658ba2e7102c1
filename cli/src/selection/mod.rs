//! What is migrated, resolved once: filters and the source's catalog become a list of objects, stored
//! with the migration. Dump, copy, publications, apply, sequences, constraints and compare read this
//! list and nothing else; a name is never held against a filter again.

mod matching;
mod resolve;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::config::filters::Filters;
use crate::error::{Error, Result};
use crate::model::{Form, LeftOut, TableName, What};
use crate::source::catalog::{self, Objects, Sizes, Table};
use crate::source::dump::Entry;
use crate::source::inventory::{self, Inventory, Object, Relation, class};
use resolve::Resolved;

/// The stored list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Selection {
    /// Tables whose rows and changes are moved.
    pub tables: Vec<TableName>,
    pub sequences: Vec<TableName>,
    /// Materialized views that are filled at the end.
    pub materialized_views: Vec<TableName>,
    /// Tables of which the stream carries inserts only.
    pub insert_only: Vec<TableName>,
    /// Tables that are made and stay empty.
    #[serde(default)]
    pub without_rows: Vec<TableName>,
    /// Relations whose changes may be in the stream and are known not to be wanted.
    #[serde(default)]
    pub ignored: Vec<TableName>,
    /// What is left out, for people.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What is left out, by catalog and oid.
    #[serde(default)]
    pub objects: Vec<Object>,
    /// Sequences that belong to no column any more, since its table is left out.
    #[serde(default)]
    pub disowned: Vec<u32>,
    /// Foreign keys that stay NOT VALID: the rows they refer to are left out.
    #[serde(default)]
    pub unchecked: Vec<u32>,
    /// Left-out relations that the role may not even read: pg_dump must not lock them.
    #[serde(default)]
    pub unreadable: Vec<TableName>,
    /// Which tables of the source bore those names when their copy was planned.
    #[serde(default)]
    pub origins: Vec<Origin>,
    /// Names that tables of the migration bore for a while. What was changed under them is in a later copy.
    #[serde(default)]
    pub former_names: Vec<TableName>,
}

/// A table of the source, told from another one that has taken its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub name: TableName,
    pub oid: u32,
    /// Number and name of each column.
    pub attributes: Vec<String>,
}

impl Origin {
    pub fn new(name: &TableName, form: &Form) -> Origin {
        Origin { name: name.clone(), oid: form.oid, attributes: form.attributes.clone() }
    }

    /// Columns that another one has taken the name of.
    pub fn replaced(&self, form: &Form) -> Vec<&str> {
        let now: HashMap<&str, &str> =
            form.attributes.iter().filter_map(|a| a.split_once(' ')).map(|(n, a)| (a, n)).collect();
        let then = self.attributes.iter().filter_map(|attribute| attribute.split_once(' '));
        then.filter(|(number, name)| now.get(name).is_some_and(|now| now != number)).map(|(_, name)| name).collect()
    }
}

/// The list with what is needed once, to begin.
#[derive(Debug, Default)]
pub struct Selected {
    pub selection: Selection,
    /// The tables of the selection, with what the catalog says of them.
    pub tables: Vec<Table>,
    /// Columns GENERATED ALWAYS AS IDENTITY of tables that are made.
    pub always_identity: Vec<(TableName, String)>,
    /// Entries of the filters that match nothing.
    pub unmatched: Vec<String>,
    pub warnings: Vec<String>,
}

/// Resolves the filters on the source. `follow`: changes are moved too.
pub async fn select(client: &Client, filters: Option<&Filters>, follow: bool, sizes: Sizes) -> Result<Selected> {
    let (inventory, resolved) = match filters {
        None => {
            (Inventory { relations: inventory::relations(client).await?, ..Inventory::default() }, Resolved::default())
        }
        Some(filters) => {
            let inventory = inventory::inventory(client).await?;
            let matches = patterns(client, filters, &inventory).await?;
            let resolved = resolve::resolve(&inventory, filters, &matches, follow)?;
            (inventory, resolved)
        }
    };
    let mut selected = Selected { unmatched: resolved.unmatched.clone(), ..Selected::default() };
    selected.warnings = needed(client, &resolved).await?;
    selected.selection.left_out = left_out(client, &inventory, &resolved).await?;
    let gone = |oid: u32| resolved.out.contains_key(&(class::RELATION, oid));
    let by_name: HashMap<&TableName, &Relation> = inventory.relations.iter().map(|r| (&r.name, r)).collect();
    let moves =
        |name: &TableName| by_name.get(name).is_none_or(|r| !gone(r.oid) && !resolved.without_rows.contains(&r.oid));
    selected.tables = catalog::tables(client, sizes).await?;
    selected.tables.retain(|table| !gone(table.oid) && !resolved.without_rows.contains(&table.oid));
    selected.always_identity = catalog::always_identity(client).await?;
    selected.always_identity.retain(|(table, _)| by_name.get(table).is_none_or(|r| !gone(r.oid)));
    let selection = &mut selected.selection;
    selection.tables = selected.tables.iter().map(|table| table.name.clone()).collect();
    selection.sequences = catalog::sequences(client).await?;
    selection.sequences.retain(&moves);
    selection.materialized_views = catalog::populated_views(client).await?;
    selection.materialized_views.retain(&moves);
    selection.insert_only =
        selected.tables.iter().filter(|t| t.logged && !t.identified).map(|t| t.name.clone()).collect();
    for relation in &inventory.relations {
        let (without_rows, out) = (resolved.without_rows.contains(&relation.oid), gone(relation.oid));
        if without_rows && !out && relation.kind == 'r' {
            selection.without_rows.push(relation.name.clone());
        }
        if matches!(relation.kind, 'r' | 'p' | 'm')
            && (relation.kind == 'm' || without_rows || out || relation.extension.is_some())
        {
            selection.ignored.push(relation.name.clone());
        }
        if out && !relation.readable && matches!(relation.kind, 'r' | 'p' | 'f' | 'S') && relation.extension.is_none() {
            selection.unreadable.push(relation.name.clone());
        }
    }
    selection.objects = resolved.out.into_keys().collect();
    selection.objects.sort_unstable();
    selection.disowned = resolved.disowned;
    selection.unchecked = resolved.unchecked;
    if follow {
        selection.left_out.extend(selected.tables.iter().filter_map(not_followed));
    }
    selection.left_out.sort();
    selection.left_out.dedup();
    Ok(selected)
}

fn not_followed(table: &Table) -> Option<LeftOut> {
    let (what, why) = match (table.logged, table.identified) {
        (false, _) => (What::Changes, "it is unlogged: its changes are not in the WAL"),
        (true, false) => (What::UpdatesAndDeletes, "no key says which row they mean"),
        _ => return None,
    };
    Some(LeftOut { what, kind: "table".into(), name: table.name.to_string(), why: why.into() })
}

/// Asks the server what each pattern matches among all names there are.
async fn patterns(client: &Client, filters: &Filters, inventory: &Inventory) -> Result<matching::Patterns> {
    let mut names: HashSet<&str> = inventory.schemas.iter().map(|(_, name)| name.as_str()).collect();
    names.extend(inventory.relations.iter().map(|relation| relation.name.table.as_str()));
    names.extend(inventory.indexes.iter().map(|index| index.name.table.as_str()));
    let names: Vec<&str> = names.into_iter().collect();
    let mut found = matching::Patterns::new();
    for (pattern, entry) in filters.patterns() {
        let matched = inventory::matching(client, pattern, &names).await.map_err(|cause| {
            let place = format!("{}:{}", filters.file, entry.line);
            if cause.code().is_some_and(|code| code.code() == "2201B") {
                return Error::usage(format!("{place}: the pattern in {} cannot be read", entry.text))
                    .cause(cause)
                    .hint("patterns are PostgreSQL's regular expressions, as after its operator ~");
            }
            Error::new(crate::error::Exit::Source, format!("{place}: try the pattern in {}", entry.text)).cause(cause)
        })?;
        found.insert(pattern.to_string(), matched);
    }
    Ok(found)
}

/// What is left out, with the server's names for what only depends on it.
async fn left_out(client: &Client, inventory: &Inventory, resolved: &Resolved) -> Result<Vec<LeftOut>> {
    let mut left_out = resolved.left_out.clone();
    let of_extensions = inventory.relations.iter().filter(|r| matches!(r.kind, 'r' | 'p')).filter_map(|relation| {
        let why = format!("it belongs to extension {}", relation.extension.as_ref()?);
        Some(LeftOut { what: What::Rows, kind: "table".into(), name: relation.name.to_string(), why })
    });
    left_out.extend(of_extensions);
    let gone = |oid: u32| resolved.out.contains_key(&(class::RELATION, oid));
    let foreign = inventory.relations.iter().filter(|r| r.kind == 'f' && r.extension.is_none() && !gone(r.oid));
    left_out.extend(foreign.map(|relation| LeftOut {
        what: What::Rows,
        kind: "foreign table".into(),
        name: relation.name.to_string(),
        why: "its rows are on another server".into(),
    }));
    let mut objects: Vec<Object> = resolved.dependents.iter().flat_map(|(object, on)| [*object, *on]).collect();
    objects.sort_unstable();
    objects.dedup();
    if objects.is_empty() {
        return Ok(left_out);
    }
    let titles = inventory::titles(client, &objects).await?;
    for (object, on) in &resolved.dependents {
        if let (Some((kind, name)), Some((of, needed))) = (titles.get(object), titles.get(on)) {
            let why = format!("needs {of} {needed}, which is left out");
            left_out.push(LeftOut { what: What::Object, kind: kind.clone(), name: name.clone(), why });
        }
    }
    Ok(left_out)
}

/// Warnings for what is left out by schema or extension and needed by what is not: the target may have it.
async fn needed(client: &Client, resolved: &Resolved) -> Result<Vec<String>> {
    let mut objects: Vec<Object> = resolved.needed.iter().flat_map(|(on, by)| [*on, by[0]]).collect();
    objects.sort_unstable();
    objects.dedup();
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let titles = inventory::titles(client, &objects).await?;
    let title = |object: &Object| titles.get(object).map(|(kind, name)| format!("{kind} {name}"));
    let warning = |(on, by): (&Object, &Vec<Object>)| {
        let more = if by.len() > 1 { format!(" and {} more", by.len() - 1) } else { String::new() };
        let (on, first) = (title(on)?, title(&by[0])?);
        Some(format!("{on} is left out and needed by {first}{more}: the target must have it"))
    };
    Ok(resolved.needed.iter().filter_map(warning).collect())
}

/// The selection as the dump's table of contents is held against it.
pub struct Toc<'a> {
    selection: &'a Selection,
    objects: HashSet<Object>,
}

impl Selection {
    pub fn toc(&self) -> Toc<'_> {
        Toc { selection: self, objects: self.objects.iter().copied().collect() }
    }
    /// Marks the foreign keys that are made and not validated.
    pub fn mark_unchecked(&self, objects: &mut Objects) {
        for oid in &self.unchecked {
            if let Some(facts) = objects.get_mut(&(class::CONSTRAINT, *oid))
                && facts.kind != "not valid"
            {
                facts.kind = "unchecked".into();
            }
        }
    }
}

impl Toc<'_> {
    pub fn keeps(&self, entry: &Entry) -> bool {
        self.keeps_object(&entry.kind, (entry.catalog, entry.oid), &entry.needs)
    }
    /// `needs` counts for entries that are no objects themselves: comments, privileges, attachments.
    pub fn keeps_object(&self, kind: &str, object: Object, needs: &[Object]) -> bool {
        match kind {
            "SEQUENCE OWNED BY" if needs.iter().any(|(_, oid)| self.selection.disowned.contains(oid)) => false,
            "ROW SECURITY" => !self.objects.contains(&(class::RELATION, object.1)),
            _ if object.0 != 0 => !self.objects.contains(&object),
            _ => !needs.iter().any(|object| self.objects.contains(object)),
        }
    }
    /// Whether this foreign key is made and not validated.
    pub fn is_unchecked(&self, object: Object) -> bool {
        object.0 == class::CONSTRAINT && self.selection.unchecked.contains(&object.1)
    }
}
