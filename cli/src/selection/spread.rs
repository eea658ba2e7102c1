//! What must go with what is left out, found along the source's own dependencies. Pure.
//!
//! Two kinds of absence. What is left out by name is gone, and so is what cannot be without it: views,
//! foreign keys, policies. What was merely inside a left-out schema or extension (functions, types)
//! may well be on the target already: what needs that is kept, with a warning.

use std::collections::{HashMap, HashSet};

use super::resolve::{Gone, Resolver};
use crate::error::{Error, Result};
use crate::model::What;
use crate::source::inventory::{Need, Object, Relation, class};

/// Oid of the catalog of casts, which are in no schema.
const CAST: u32 = 2605;

type Needs<'a> = HashMap<Object, Vec<&'a Need>>;

impl Resolver<'_> {
    /// Follows the dependencies from what is left out to what must go with it.
    pub(super) fn spread(&mut self) -> Result<()> {
        let mut by_need: Needs<'_> = HashMap::new();
        let mut by_object: Needs<'_> = HashMap::new();
        for need in &self.catalog.needs {
            by_need.entry(need.on).or_default().push(need);
            by_object.entry(need.object).or_default().push(need);
        }
        let mut next: Vec<Object> = self.done.out.keys().copied().collect();
        // The same order, and so the same reasons, every time.
        next.sort_unstable();
        next.reverse();
        while let Some(on) = next.pop() {
            let gone = self.done.out[&on];
            for need in by_need.get(&on).into_iter().flatten() {
                let object = need.object;
                let relation = (object.0 == class::RELATION).then(|| self.relations.get(&object.1)).flatten();
                if self.done.out.get(&object).is_some_and(|known| *known == Gone::Hard || gone == Gone::Soft)
                    || relation.is_some_and(|relation| relation.kind == 'S')
                    || (on.0 == class::SCHEMA && self.stays_with_extension(object, &by_object))
                {
                    continue;
                }
                let part_of = need.kind != 'n' || on.0 == class::SCHEMA;
                if part_of && relation.is_none_or(|r| r.parent == Some(on.1) || need.kind == 'e') {
                    // What an extension brought in cannot be made or missed one by one.
                    let gone = if relation.is_some() { Gone::Hard } else { gone };
                    self.done.out.insert(object, gone);
                    next.push(object);
                    continue;
                }
                if gone == Gone::Soft {
                    if object.0 == CAST {
                        self.done.out.insert(object, Gone::Soft);
                    } else if relation.is_none_or(|relation| relation.extension.is_none()) {
                        let missed = member_of(&by_object, on).unwrap_or(on);
                        self.done.needed.entry(missed).or_default().push(object);
                    }
                    continue;
                }
                self.refuse_tables(need, relation, &by_object)?;
                // The rule of a view is the view.
                let view = by_object.get(&object).into_iter().flatten().find(|n| n.kind == 'i');
                let object = match view {
                    Some(view) if object.0 == class::RULE => view.on,
                    _ => object,
                };
                if self.done.out.insert(object, Gone::Hard).is_none() {
                    self.done.dependents.push((object, described(&by_object, on)));
                    next.push(object);
                }
            }
        }
        let out = &self.done.out;
        // What is part of something that is left out need not be told beside it.
        let part_of = |object: &Object| {
            let needs = by_object.get(object).into_iter().flatten();
            needs.filter(|need| matches!(need.kind, 'a' | 'i')).any(|need| out.contains_key(&need.on))
        };
        self.done.dependents.retain(|(object, _)| object.0 == class::RELATION || !part_of(object));
        for by in self.done.needed.values_mut() {
            by.retain(|object| !out.contains_key(object));
            by.sort_unstable();
            by.dedup();
        }
        self.done.needed.retain(|_, by| !by.is_empty());
        Ok(())
    }

    /// A table that is kept and cannot be made without something that is not: nobody can guess what is
    /// meant.
    fn refuse_tables(&self, need: &Need, relation: Option<&&Relation>, by_object: &Needs<'_>) -> Result<()> {
        let of_default = || {
            let needs = by_object.get(&need.object)?;
            let table = needs.iter().find(|n| n.kind == 'a' && n.on.0 == class::RELATION)?;
            self.relations.get(&table.on.1).filter(|table| !self.is_out(table.oid))
        };
        let (table, how) = match relation {
            Some(table) if matches!(table.kind, 'r' | 'p' | 'f') => (table, "needs"),
            None if need.object.0 == class::DEFAULT => match of_default() {
                Some(table) => (table, "has a default that needs"),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let on = match need.on {
            (class::RELATION, oid) => self.relations.get(&oid).map(|relation| relation.name.to_string()),
            (class::TYPE, _) => by_object
                .get(&need.on)
                .and_then(|needs| needs.iter().find(|n| n.kind == 'i'))
                .and_then(|n| self.relations.get(&n.on.1))
                .map(|relation| format!("the row type of {}", relation.name)),
            _ => None,
        };
        let on = on.unwrap_or_else(|| "an object".into());
        Err(Error::usage(format!("{}: {} {how} {on}, which is left out", self.filters.file, table.name))
            .hint("leave both out, or neither"))
    }

    /// Foreign keys to tables whose rows stay behind: nothing to validate them with.
    pub(super) fn foreign_keys(&mut self) {
        for key in &self.catalog.foreign_keys {
            let (empty, referenced) =
                (self.done.without_rows.contains(&key.table), self.done.without_rows.contains(&key.referenced));
            let partly =
                self.below(key.referenced).iter().any(|oid| self.done.without_rows.contains(oid) || self.is_out(*oid));
            if self.done.out.contains_key(&(class::CONSTRAINT, key.oid)) || empty || !(referenced || partly) {
                continue;
            }
            let Some(table) = self.relations.get(&key.referenced) else { continue };
            let why = format!("rows of {} are left out", table.name);
            if key.partitioned {
                // It cannot be made NOT VALID.
                self.leave((class::CONSTRAINT, key.oid), Gone::Hard, "foreign key", &key.title, why);
            } else {
                self.done.unchecked.push(key.oid);
                self.tell(What::Validation, "foreign key", &key.title, why);
            }
        }
    }

    /// A materialized view that reads one without rows cannot be filled.
    pub(super) fn views_without_rows(&mut self) {
        let rules: Vec<(Object, Object)> = {
            let needs = &self.catalog.needs;
            let views: HashMap<Object, Object> =
                needs.iter().filter(|n| n.object.0 == class::RULE && n.kind == 'i').map(|n| (n.object, n.on)).collect();
            needs.iter().filter_map(|n| Some((*views.get(&n.object)?, n.on))).filter(|(view, on)| view != on).collect()
        };
        let is_view = |oid: u32| self.relations.get(&oid).is_some_and(|relation| relation.kind == 'm');
        let mut empty: HashSet<u32> = self.done.without_rows.iter().copied().filter(|oid| is_view(*oid)).collect();
        let mut found = Vec::new();
        loop {
            let next = rules
                .iter()
                .find(|(view, on)| on.0 == class::RELATION && empty.contains(&on.1) && !empty.contains(&view.1));
            let Some((view, on)) = next else { break };
            empty.insert(view.1);
            found.push((view.1, on.1));
        }
        for (view, on) in found {
            let (Some(relation), Some(reads)) = (self.relations.get(&view), self.relations.get(&on)) else { continue };
            if relation.kind == 'm' && !self.is_out(view) && self.done.without_rows.insert(view) {
                let (name, why) = (relation.name.clone(), format!("reads {}, which has no rows", reads.name));
                self.tell(What::Rows, "materialized view", name, why);
            }
        }
    }

    /// What an extension that is kept brought in, and the extension itself, do not go with a schema.
    fn stays_with_extension(&self, object: Object, by_object: &Needs<'_>) -> bool {
        let extension = if object.0 == class::EXTENSION { Some(object) } else { member_of(by_object, object) };
        extension.is_some_and(|extension| !self.done.out.contains_key(&extension))
    }
}

/// The extension that an object came with.
fn member_of(by_object: &Needs<'_>, object: Object) -> Option<Object> {
    by_object.get(&object)?.iter().find(|need| need.kind == 'e').map(|need| need.on)
}

/// The object whose name people know: the table of a row type, the view of a rule.
fn described(by_object: &Needs<'_>, object: Object) -> Object {
    match object.0 {
        class::TYPE | class::RULE => {
            let inner = by_object.get(&object).and_then(|needs| needs.iter().find(|need| need.kind == 'i'));
            inner.map_or(object, |need| need.on)
        }
        _ => object,
    }
}
