//! Tables that the target has already and keeps (`--keep-tables`): pgmig fills them and makes nothing that is
//! theirs. What refers to them is made as everything else is.

use std::collections::HashSet;

use super::united::United;
use crate::model::{LeftOut, TableName, What};
use crate::source::catalog::{Objects, Table};
use crate::source::dump::Entry;
use crate::source::inventory::class;
use crate::target::layout::There;

/// Kinds of entries that are of the table that they need, and would change it.
const OF_TABLE: [&str; 8] =
    ["COMMENT", "ACL", "SECURITY LABEL", "POLICY", "ROW SECURITY", "TABLE ATTACH", "INDEX ATTACH", "STATISTICS"];

/// The tables of the migration that stay what they are on the target.
#[derive(Debug, Default)]
pub struct Kept<'a> {
    pub tables: HashSet<TableName>,
    /// They and, where all their partitions go into one table, those.
    names: HashSet<TableName>,
    oids: HashSet<(u32, u32)>,
    there: Option<&'a There>,
}

impl<'a> Kept<'a> {
    pub fn new(there: Option<&'a There>, tables: &[Table], united: &[United]) -> Kept<'a> {
        let Some(there) = there else { return Kept::default() };
        let is_united = |table: &Table| united.iter().any(|united| united.root == table.name);
        let kept = |table: &&Table| there.partitioned.contains(&table.name) || is_united(table);
        let kept: Vec<&Table> = tables.iter().filter(kept).collect();
        let below = || united.iter().flat_map(|united| &united.below);
        let names = kept.iter().map(|table| &table.name).chain(below().map(|(_, name)| name));
        let oids = kept.iter().map(|table| table.oid).chain(below().map(|(oid, _)| *oid));
        Kept {
            tables: kept.iter().map(|table| table.name.clone()).collect(),
            names: names.cloned().collect(),
            oids: oids.map(|oid| (class::RELATION, oid)).collect(),
            there: Some(there),
        }
    }

    /// Takes out of the dump what is theirs: their own definition, and what hangs on them.
    pub fn leave_out(&self, objects: &mut Objects, entries: [&mut Vec<Entry>; 2]) -> Vec<LeftOut> {
        let mut gone = self.oids.clone();
        for entries in entries {
            entries.retain(|entry| {
                let id = (entry.catalog, entry.oid);
                let facts = objects.get_mut(&id);
                let of_kept = facts.as_ref().is_some_and(|f| f.table.as_ref().is_some_and(|t| self.names.contains(t)));
                let needs = entry.needs.iter().any(|needed| gone.contains(needed));
                // A key to a table with partitions is not added without a look at the rows.
                if let (true, false, "FK CONSTRAINT", Some(facts)) = (needs, of_kept, entry.kind.as_str(), facts) {
                    facts.kind = "partitioned".into();
                }
                let is_gone = (id.1 != 0 && gone.contains(&id))
                    || of_kept
                    || (needs && OF_TABLE.contains(&entry.kind.as_str()))
                    || (entry.kind.starts_with("SEQUENCE") && self.is_there(entry))
                    || (needs && entry.kind == "DEFAULT" && self.has_default(entry));
                // Comments and privileges are no objects.
                if is_gone && id.1 != 0 {
                    gone.insert(id);
                }
                !is_gone
            });
        }
        let left_out = |table: &TableName| LeftOut {
            what: What::Object,
            kind: "what belongs to the table".into(),
            name: table.to_string(),
            why: "--keep-tables: it has its own on the target".into(),
        };
        self.tables.iter().map(left_out).collect()
    }

    /// Whether the column that the default is for has one on the target, or is an identity there.
    fn has_default(&self, entry: &Entry) -> bool {
        let schema = entry.schema.as_deref().unwrap_or_default();
        let is_of = |(table, column): &(TableName, String)| {
            table.schema == schema && entry.tag == format!("{} {column}", table.table)
        };
        self.there.is_some_and(|there| there.defaults.iter().any(is_of))
    }

    /// Whether the target has a sequence of that name, as it has with an identity column of its own.
    fn is_there(&self, entry: &Entry) -> bool {
        let name = TableName::new(entry.schema.clone().unwrap_or_default(), entry.tag.clone());
        self.there.is_some_and(|there| there.sequences.contains(&name))
    }
}
