//! Differences that are none: what the migration leaves out, and what it makes only at its end.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::read::{Object, Title};
use crate::error::{Context, Result};
use crate::model::TableName;
use crate::selection::Selection;
use crate::source::inventory::{Object as Id, class};
use crate::source::partitions;
use crate::target::{layout, queue};

/// What is not held against the target.
#[derive(Debug, Default, Clone)]
pub struct Excused {
    left_out: HashSet<Id>,
    unchecked: HashSet<u32>,
    disowned: HashSet<u32>,
    pub owners: bool,
    pub privileges: bool,
    pub comments: bool,
    tablespaces: bool,
    publications: bool,
    collations: bool,
    extensions: bool,
    /// They are left out, or what has changed of them is named elsewhere.
    pub large_objects: bool,
    /// Stage, kind and name of the steps that are still to come.
    pending: Vec<(String, String, String)>,
    pending_names: HashSet<String>,
    /// Sequences are kept ahead, and set to their value at the end.
    pub follows: bool,
    /// Tables that are laid out otherwise on the target, and all that is below them there: that is chosen.
    pub(super) routed: HashSet<u32>,
    /// Partitions of the source that are none on the target.
    united: HashSet<u32>,
}

impl Excused {
    /// What the flags and filters that the migration was begun with leave out.
    pub fn of(selection: Option<&Selection>) -> Excused {
        let Some(selection) = selection else { return Excused::default() };
        let flag = |flag: &str| selection.left_out.iter().any(|left| left.why == flag);
        Excused {
            left_out: selection.objects.iter().copied().collect(),
            unchecked: selection.unchecked.iter().copied().collect(),
            disowned: selection.disowned.iter().copied().collect(),
            owners: flag("--no-owner"),
            privileges: flag("--no-acl"),
            comments: flag("--no-comments"),
            tablespaces: flag("--no-tablespaces"),
            publications: flag("--skip-publications"),
            collations: flag("--skip-collations"),
            extensions: flag("--skip-extensions"),
            large_objects: selection.left_out.iter().any(|left| left.kind.starts_with("large objects")),
            ..Excused::default()
        }
    }

    /// Takes in what comes only at the end of a migration that follows its source.
    pub async fn until_the_end(&mut self, target: &Client, migration: &str) -> Result<()> {
        let rows = target
            .query("select stage, kind, name from pgmig.step where migration = $1 and state = 'pending'", &[&migration])
            .await
            .on_target(|| "read what is still to be made".into())?;
        self.pending = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        self.pending_names = self.pending.iter().map(|(_, _, name)| name.clone()).collect();
        self.follows = true;
        Ok(())
    }

    /// Takes in which tables are laid out otherwise on the target: of those only the columns are compared.
    pub async fn laid_out_otherwise(&mut self, source: &Client, target: &Client, migration: &str) -> Result<()> {
        let united: Vec<TableName> = queue::united(target, migration).await?.into_keys().collect();
        let tables = [layout::routed(target, migration).await?, united.clone()].concat();
        self.routed = layout::oids(target, &tables).await?;
        let roots = partitions::roots(source, |name| united.contains(name)).await?;
        let below = partitions::below(source, &roots).await?.into_iter().map(|(oid, _)| oid);
        self.united = below.filter(|oid| !roots.iter().any(|root| root.oid == *oid)).collect();
        Ok(())
    }

    /// Whether this object of the source is a partition that is none on the target, or hangs on one.
    pub fn is_united(&self, object: &Object) -> bool {
        let is_table = object.id.0 == class::RELATION && self.united.contains(&object.id.1);
        is_table || self.united.contains(&object.relation)
    }

    /// Whether this object of the target is such a table, a part of one, or hangs on one.
    pub fn is_routed(&self, object: &Object) -> bool {
        let is_table = object.id.0 == class::RELATION && self.routed.contains(&object.id.1);
        is_table || self.routed.contains(&object.relation)
    }

    /// Whether flags leave out all objects of this kind.
    pub fn leaves_kind(&self, kind: &str) -> bool {
        match kind {
            "collation" => self.collations,
            "extension" => self.extensions,
            "default acl" => self.privileges,
            _ => self.publications && kind.starts_with("publication"),
        }
    }

    /// Whether the migration leaves this object of the source out.
    pub fn is_left_out(&self, (kind, _): &Title, object: &Object) -> bool {
        self.leaves_kind(kind)
            || self.left_out.contains(&object.id)
            || self.left_out.contains(&(class::RELATION, object.relation))
            || self.left_out.contains(&(class::CONSTRAINT, object.made_by))
    }

    /// Whether this property is not carried over.
    pub fn leaves(&self, object: &Object, property: &str) -> bool {
        match property {
            "owner" => self.owners,
            "tablespace" => self.tablespaces,
            "validated" => self.unchecked.contains(&object.id.1),
            "owned by" => self.disowned.contains(&object.id.1),
            _ if property.starts_with("privileges of ") => self.privileges,
            _ => self.comments && property.starts_with("comment"),
        }
    }

    /// Whether this object of the source is made only at the end.
    pub fn comes_later(&self, object: &Object) -> bool {
        object.step.as_ref().is_some_and(|step| self.pending_names.contains(step))
    }

    /// Whether this property of it is set only at the end.
    pub fn is_set_later(&self, object: &Object, property: &str) -> bool {
        let pending = |stages: &[&str], kind: &str, name: Option<&str>| {
            self.pending.iter().any(|(stage, of, named)| {
                stages.contains(&stage.as_str())
                    && (kind.is_empty() || kind == of)
                    && name.is_none_or(|name| name == named)
            })
        };
        match property {
            "row security" => pending(&["finish"], "ROW SECURITY", object.step.as_deref()),
            // Of a partition's trigger, which its root's step makes.
            "enabled" => pending(&["finish"], "TRIGGER", None),
            "populated" => pending(&["refresh"], "", None),
            "validated" => pending(&["validate", "foreign_key"], "", object.step.as_deref()),
            _ if property.starts_with("identity of ") => pending(&["finish"], "IDENTITY", None),
            _ if property.starts_with("comment") => pending(&["finish"], "COMMENT", None),
            _ => false,
        }
    }
}
