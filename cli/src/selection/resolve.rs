//! Filters held against the catalog, section by section: what is left out by name. What must go with
//! it is found in `spread`. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::matching::{Patterns, matches};
use crate::config::filters::{Entry, Filters, Section};
use crate::error::{Error, Result};
use crate::model::{LeftOut, What};
use crate::source::inventory::{Inventory, Object, Relation, class};

/// Whether what needs an object must go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    Hard,
    Soft,
}

#[derive(Debug, Clone, Default)]
pub struct Resolved {
    pub out: HashMap<Object, Gone>,
    pub without_rows: HashSet<u32>,
    pub disowned: Vec<u32>,
    pub unchecked: Vec<u32>,
    pub left_out: Vec<LeftOut>,
    /// What is left out since it needs something that is: the object, and what it needs.
    pub dependents: Vec<(Object, Object)>,
    /// What is left out and may be missed: by whom.
    pub needed: BTreeMap<Object, Vec<Object>>,
    pub unmatched: Vec<String>,
}

pub(super) struct Resolver<'a> {
    pub(super) catalog: &'a Inventory,
    pub(super) filters: &'a Filters,
    patterns: &'a Patterns,
    pub(super) relations: HashMap<u32, &'a Relation>,
    /// Partitions by what they are partitions of.
    partitions: HashMap<u32, Vec<u32>>,
    pub(super) done: Resolved,
}

/// Resolves everything. `follow`: the indexes that identify rows may not be left out.
pub fn resolve(catalog: &Inventory, filters: &Filters, patterns: &Patterns, follow: bool) -> Result<Resolved> {
    let mut partitions: HashMap<u32, Vec<u32>> = HashMap::new();
    for relation in &catalog.relations {
        if let Some(parent) = relation.parent {
            partitions.entry(parent).or_default().push(relation.oid);
        }
    }
    let relations = catalog.relations.iter().map(|relation| (relation.oid, relation)).collect();
    let mut resolver = Resolver { catalog, filters, patterns, relations, partitions, done: Resolved::default() };
    resolver.schemas()?;
    resolver.tables()?;
    resolver.rows()?;
    resolver.sequences();
    resolver.indexes(follow)?;
    resolver.extensions()?;
    resolver.event_triggers()?;
    resolver.spread()?;
    resolver.foreign_keys();
    resolver.views_without_rows();
    resolver.keep_schemas_of_extensions();
    Ok(resolver.done)
}

impl<'a> Resolver<'a> {
    pub(super) fn leave(&mut self, object: Object, gone: Gone, kind: &str, name: impl ToString, why: String) {
        self.done.out.insert(object, gone);
        self.tell(What::Object, kind, name, why);
    }
    pub(super) fn tell(&mut self, what: What, kind: &str, name: impl ToString, why: String) {
        self.done.left_out.push(LeftOut { what, kind: kind.into(), name: name.to_string(), why });
    }
    pub(super) fn is_out(&self, oid: u32) -> bool {
        self.done.out.contains_key(&(class::RELATION, oid))
    }

    /// Entry by entry what it means; one that means nothing is noted.
    fn matched<T: Copy>(&mut self, section: Section, all: &[(&str, &str, T)]) -> Result<Vec<(T, &'a Entry)>> {
        let mut found = Vec::new();
        for entry in self.filters.of(section) {
            let these = matches(self.filters, entry, self.patterns, all.iter().copied())?;
            if these.is_empty() {
                self.done.unmatched.push(format!("{} {}", self.filters.place(entry), entry.text));
            }
            found.extend(these.into_iter().map(|this| (this, entry)));
        }
        Ok(found)
    }
    fn named(of: &'a [(u32, String)]) -> Vec<(&'a str, &'a str, u32)> {
        of.iter().map(|(oid, name)| ("", name.as_str(), *oid)).collect()
    }
    fn of_kinds(&self, kinds: &str) -> Vec<(&'a str, &'a str, u32)> {
        let fits = self.catalog.relations.iter().filter(|relation| kinds.contains(relation.kind));
        fits.map(|r| (r.name.schema.as_str(), r.name.table.as_str(), r.oid)).collect()
    }

    fn schemas(&mut self) -> Result<()> {
        let all = Self::named(&self.catalog.schemas);
        let excluded: HashMap<u32, &Entry> = self.matched(Section::ExcludeSchema, &all)?.into_iter().collect();
        let included: HashSet<u32> =
            self.matched(Section::IncludeOnlySchema, &all)?.into_iter().map(|(oid, _)| oid).collect();
        let only = self.filters.has(Section::IncludeOnlySchema);
        for (oid, name) in &self.catalog.schemas {
            let why = match excluded.get(oid) {
                Some(entry) => self.filters.place(entry),
                None if only && !included.contains(oid) => format!("not in {}", Section::IncludeOnlySchema),
                None => continue,
            };
            for relation in self.catalog.relations.iter().filter(|r| r.name.schema == *name) {
                self.leave_relation(relation, why.clone());
            }
            self.leave((class::SCHEMA, *oid), Gone::Soft, "schema", name, why);
        }
        Ok(())
    }

    fn leave_relation(&mut self, relation: &Relation, why: String) {
        if self.is_out(relation.oid) || relation.extension.is_some() {
            return;
        }
        self.leave((class::RELATION, relation.oid), Gone::Hard, kind(relation.kind), &relation.name, why);
    }

    fn tables(&mut self) -> Result<()> {
        let excluded = self.matched(Section::ExcludeTable, &self.of_kinds("rpmvfS"))?;
        for (oid, entry) in excluded {
            let (relation, why) = (self.relations[&oid], self.filters.place(entry));
            self.leave_relation(relation, why);
        }
        if self.filters.has(Section::IncludeOnlyTable) {
            self.only_tables()?;
        }
        // Partitions cannot be without their root.
        let roots: Vec<u32> = self.partitions.keys().copied().filter(|oid| self.is_out(*oid)).collect();
        for root in roots {
            for oid in self.below(root) {
                let relation = self.relations[&oid];
                self.leave_relation(
                    relation,
                    format!("partition of {}, which is left out", self.relations[&root].name),
                );
            }
        }
        Ok(())
    }

    fn only_tables(&mut self) -> Result<()> {
        let listed = self.matched(Section::IncludeOnlyTable, &self.of_kinds("rpmvfS"))?;
        let mut wanted: HashSet<u32> = HashSet::new();
        for (oid, _) in listed {
            wanted.insert(oid);
            wanted.extend(self.below(oid));
            // A partition is attached to something: its roots come along, without their other partitions.
            let mut next = self.relations[&oid].parent;
            while let Some(parent) = next {
                wanted.insert(parent);
                next = self.relations.get(&parent).and_then(|relation| relation.parent);
            }
        }
        let used = self.used_sequences(|oid| wanted.contains(&oid));
        for relation in &self.catalog.relations {
            let keep = match relation.kind {
                'r' | 'p' | 'm' | 'f' => wanted.contains(&relation.oid),
                'S' => {
                    wanted.contains(&relation.oid)
                        || used.contains(&relation.oid)
                        || relation.owner.is_some_and(|owner| wanted.contains(&owner))
                }
                _ => true,
            };
            if !keep {
                self.leave_relation(relation, format!("not in {}", Section::IncludeOnlyTable));
            }
        }
        Ok(())
    }

    /// Everything below a partitioned table.
    pub(super) fn below(&self, root: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = vec![root];
        while let Some(oid) = next.pop() {
            for &partition in self.partitions.get(&oid).into_iter().flatten() {
                found.push(partition);
                next.push(partition);
            }
        }
        found
    }

    fn rows(&mut self) -> Result<()> {
        for (oid, entry) in self.matched(Section::ExcludeTableData, &self.of_kinds("rpm"))? {
            let why = self.filters.place(entry);
            for oid in [oid].into_iter().chain(self.below(oid)) {
                let relation = self.relations[&oid];
                if !self.is_out(oid) && relation.extension.is_none() && self.done.without_rows.insert(oid) {
                    self.tell(What::Rows, kind(relation.kind), &relation.name, why.clone());
                }
            }
        }
        Ok(())
    }

    /// Sequences that defaults of these tables draw from.
    fn used_sequences(&self, table: impl Fn(u32) -> bool) -> HashSet<u32> {
        let of_kept: HashSet<u32> = self
            .catalog
            .needs
            .iter()
            .filter(|n| n.object.0 == class::DEFAULT && n.kind == 'a' && n.on.0 == class::RELATION && table(n.on.1))
            .map(|n| n.object.1)
            .collect();
        let drawn = self.catalog.needs.iter().filter(|n| n.object.0 == class::DEFAULT && of_kept.contains(&n.object.1));
        let drawn = drawn.filter(|n| n.on.0 == class::RELATION && n.kind == 'n').map(|n| n.on.1);
        drawn.filter(|oid| self.relations.get(oid).is_some_and(|relation| relation.kind == 'S')).collect()
    }

    /// A sequence of a column goes with its table, unless another table draws from it.
    fn sequences(&mut self) {
        let used = self.used_sequences(|oid| !self.is_out(oid));
        for relation in self.catalog.relations.iter().filter(|relation| relation.kind == 'S') {
            let Some(owner) = relation.owner.filter(|owner| self.is_out(*owner)) else { continue };
            if self.is_out(relation.oid) {
                continue;
            }
            if used.contains(&relation.oid) {
                self.done.disowned.push(relation.oid);
            } else if let Some(table) = self.relations.get(&owner) {
                let why = format!("belongs to {}, which is left out", table.name);
                self.leave_relation(relation, why);
            }
        }
    }

    fn indexes(&mut self, follow: bool) -> Result<()> {
        let indexes = &self.catalog.indexes;
        let all: Vec<_> =
            indexes.iter().enumerate().map(|(at, i)| (i.name.schema.as_str(), i.name.table.as_str(), at)).collect();
        for (at, entry) in self.matched(Section::ExcludeIndex, &all)? {
            let index = &indexes[at];
            if self.is_out(index.table) {
                continue;
            }
            if follow && index.identity && !self.done.without_rows.contains(&index.table) {
                return Err(Error::usage(format!(
                    "{}:{}: {} cannot be left out: it says which row of {} a change means",
                    self.filters.file,
                    entry.line,
                    index.name,
                    self.relations.get(&index.table).map_or("?".into(), |table| table.name.to_string())
                ))
                .hint("take it out of the file, or copy without following changes: --no-follow"));
            }
            let why = self.filters.place(entry);
            if let Some(constraint) = index.constraint {
                self.done.out.insert((class::CONSTRAINT, constraint), Gone::Hard);
            }
            self.leave((class::RELATION, index.oid), Gone::Hard, "index", &index.name, why);
        }
        Ok(())
    }

    fn extensions(&mut self) -> Result<()> {
        let all = Self::named(&self.catalog.extensions);
        let excluded: HashMap<u32, &Entry> = self.matched(Section::ExcludeExtension, &all)?.into_iter().collect();
        let included: HashSet<u32> =
            self.matched(Section::IncludeOnlyExtension, &all)?.into_iter().map(|(oid, _)| oid).collect();
        let only = self.filters.has(Section::IncludeOnlyExtension);
        for (oid, name) in &self.catalog.extensions {
            let why = match excluded.get(oid) {
                Some(entry) => self.filters.place(entry),
                None if only && !included.contains(oid) => format!("not in {}", Section::IncludeOnlyExtension),
                None => continue,
            };
            self.leave((class::EXTENSION, *oid), Gone::Soft, "extension", name, why);
        }
        Ok(())
    }

    fn event_triggers(&mut self) -> Result<()> {
        let all = Self::named(&self.catalog.event_triggers);
        for (oid, entry) in self.matched(Section::ExcludeEventTrigger, &all)? {
            let name = all.iter().find(|(_, _, known)| *known == oid).map_or("", |(_, name, _)| name);
            let why = self.filters.place(entry);
            self.leave((class::EVENT_TRIGGER, oid), Gone::Hard, "event trigger", name, why);
        }
        Ok(())
    }

    /// Extensions have sections of their own. One that stays keeps the schema that it lives in.
    fn keep_schemas_of_extensions(&mut self) {
        let kept =
            |object: &Object, out: &HashMap<Object, Gone>| object.0 == class::EXTENSION && !out.contains_key(object);
        let schemas: Vec<Object> = self
            .catalog
            .needs
            .iter()
            .filter(|need| need.on.0 == class::SCHEMA && kept(&need.object, &self.done.out))
            .map(|need| need.on)
            .collect();
        for schema in schemas {
            self.done.out.remove(&schema);
        }
    }
}

fn kind(kind: char) -> &'static str {
    match kind {
        'm' => "materialized view",
        'v' => "view",
        'f' => "foreign table",
        'S' => "sequence",
        _ => "table",
    }
}
