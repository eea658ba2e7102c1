//! Tables that the target has already and that are to be filled as they are: whether their rows can be routed,
//! and those of several partitions told apart.

use std::collections::HashMap;

use super::Scope;
use super::checks::{Checks, count};
use crate::copy::united;
use crate::error::{Context, Result};
use crate::model::{Form, Place, TableName};
use crate::source::catalog::Table;
use crate::source::partitions::Root;
use crate::target::layout::There;
use crate::{source, target};

/// Of the tables that are there those that are partitioned on one of the sides: they are filled, unless a check
/// fails here. With those that are partitions of such on both.
pub(super) async fn check(scope: &Scope<'_>, checks: &mut Checks, there: &[TableName]) -> Result<Vec<TableName>> {
    let on_target = target::layout::there(scope.target).await?;
    let moved = &scope.selected.selection.tables;
    let plain: Vec<&TableName> =
        there.iter().filter(|table| on_target.partitioned.contains(table) && moved.contains(table)).collect();
    let roots = united::roots(scope.source, &on_target).await?;
    if plain.is_empty() && roots.is_empty() {
        return Ok(Vec::new());
    }
    let sides = Sides {
        source: source::columns::forms(scope.source).await?,
        target: target::columns::forms(scope.target).await?,
        firing: target::columns::firing(scope.target).await?,
        there: on_target,
    };
    let mut kept = Vec::new();
    for table in plain {
        let key = source::identity::key_columns(scope.source, table).await?;
        let message = format!(
            "{table} is plain on the source, partitioned on the target: rows are routed, and nothing of it is made but its rows"
        );
        sides.fit(scope, checks, table, &message, &key).await?;
        kept.push(table.clone());
    }
    for root in roots {
        kept.extend(sides.check_united(scope, checks, &root).await?);
    }
    Ok(kept)
}

/// What both sides have.
struct Sides {
    source: HashMap<TableName, Form>,
    target: HashMap<TableName, Form>,
    firing: Vec<(TableName, String)>,
    there: There,
}

impl Sides {
    /// A table that is partitioned on the source, and on the target not or otherwise.
    async fn check_united(&self, scope: &Scope<'_>, checks: &mut Checks, of: &Root) -> Result<Vec<TableName>> {
        let root = &of.name;
        let found = source::partitions::partitions(scope.source, std::slice::from_ref(of)).await?;
        let of_root = |table: &&Table| found.iter().any(|leaf| leaf.name == table.name);
        let tables: Vec<Table> = scope.selected.tables.iter().filter(of_root).cloned().collect();
        if tables.is_empty() && !found.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(why) = united::refused(root, &found, &tables, scope.asked.follow) {
            let mend = format!(
                "replica identity full tells rows apart that no key does; or drop {root} on the target, and pgmig makes it as it is on the source"
            );
            checks.fail(Place::Source, "kept tables", why, mend);
        } else {
            let key = match found.first() {
                Some(leaf) => source::identity::key_columns(scope.source, &leaf.name).await?,
                None => Vec::new(),
            };
            let how = if self.there.partitioned.contains(root) { "partitioned by itself" } else { "plain" };
            let rows = count(found.len(), "partition");
            let message = format!(
                "{root} is partitioned on the source, {how} on the target: the rows of {rows} go into it, and nothing of it is made but its rows"
            );
            self.fit(scope, checks, root, &message, &key).await?;
            if scope.asked.follow && !of.gives_key {
                let message = format!("{root} has no primary key that a new partition would get from it");
                let mend = "a partition that is made while changes are followed needs a replica identity of its own; through pgoutput the table is copied anew then";
                checks.warn_aloud(Place::Source, "kept tables", message, mend);
            }
        }
        let below = source::partitions::below(scope.source, std::slice::from_ref(of)).await?;
        Ok(below.into_iter().map(|(_, name)| name).collect())
    }

    /// Whether the table on the target takes the rows of the source's: they have the columns, it is empty, and nothing
    /// acts on it. `key` is what changes name rows by.
    async fn fit(
        &self,
        scope: &Scope<'_>,
        checks: &mut Checks,
        table: &TableName,
        message: &str,
        key: &[String],
    ) -> Result<()> {
        if self.source.get(table).map(|form| &form.columns) != self.target.get(table).map(|form| &form.columns) {
            let message = format!("{table} has other columns on the target than on the source, or of other types");
            let mend = "give it the columns that it has on the source, in any order";
            checks.fail(Place::Target, "kept tables", message, mend);
            return Ok(());
        }
        let empty = scope
            .target
            .query_one(&format!("select not exists (select from {})", table.sql()), &[])
            .await
            .on_target(|| format!("look into {table}"))?;
        if !empty.get::<_, bool>(0) {
            let message = format!("{table} holds rows on the target");
            checks.fail(Place::Target, "kept tables", message, format!("truncate {};", table.sql()));
            return Ok(());
        }
        if let Some((_, firing)) = self.firing.iter().find(|(firing, _)| firing == table) {
            let message = format!("{table} has on the target what fires for applied changes too: {firing}");
            let mend = "disable it there until the migration is done: what it does, the source has done already";
            checks.fail(Place::Target, "kept tables", message, mend);
            return Ok(());
        }
        checks.pass(Place::Target, "kept tables", message);
        if scope.asked.follow && !key.is_empty() && !target::layout::finds_by(scope.target, table, key).await? {
            let message = format!(
                "no unique index of {table} on the target begins with columns of the key ({}): each UPDATE and DELETE reads all of it",
                key.join(", ")
            );
            let mend = "make the primary key there begin with the source's key, and end with what it is partitioned by";
            checks.warn_aloud(Place::Target, "kept tables", message, mend);
        }
        Ok(())
    }
}
