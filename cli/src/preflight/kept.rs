//! Tables that the target has already and that are to be filled as they are: whether their rows can be routed.

use super::Scope;
use super::checks::Checks;
use crate::error::{Context, Result};
use crate::model::{Place, TableName};
use crate::{source, target};

/// Of the tables that are there those that are partitioned: they are filled, unless a check fails here.
pub(super) async fn check(scope: &Scope<'_>, checks: &mut Checks, there: &[TableName]) -> Result<Vec<TableName>> {
    let partitioned = target::layout::there(scope.target).await?.partitioned;
    let moved = |table: &&TableName| partitioned.contains(table) && scope.selected.selection.tables.contains(table);
    let kept: Vec<TableName> = there.iter().filter(moved).cloned().collect();
    if kept.is_empty() {
        return Ok(kept);
    }
    let on_source = source::columns::forms(scope.source).await?;
    let on_target = target::columns::forms(scope.target).await?;
    let firing = target::columns::firing(scope.target).await?;
    for table in &kept {
        if on_source.get(table).map(|form| &form.columns) != on_target.get(table).map(|form| &form.columns) {
            let message = format!("{table} has other columns on the target than on the source, or of other types");
            checks.fail(
                Place::Target,
                "kept tables",
                message,
                "give it the columns that it has on the source, in any order",
            );
            continue;
        }
        let empty = scope
            .target
            .query_one(&format!("select not exists (select from {})", table.sql()), &[])
            .await
            .on_target(|| format!("look into {table}"))?;
        if !empty.get::<_, bool>(0) {
            let message = format!("{table} holds rows on the target");
            checks.fail(Place::Target, "kept tables", message, format!("truncate {};", table.sql()));
            continue;
        }
        if let Some((_, firing)) = firing.iter().find(|(firing, _)| firing == table) {
            let message = format!("{table} has on the target what fires for applied changes too: {firing}");
            let mend = "disable it there until the migration is done: what it does, the source has done already";
            checks.fail(Place::Target, "kept tables", message, mend);
            continue;
        }
        let message = format!(
            "{table} is plain on the source, partitioned on the target: rows are routed, and nothing of it is made but its rows"
        );
        checks.pass(Place::Target, "kept tables", message);
        let key = source::identity::key_columns(scope.source, table).await?;
        if scope.asked.follow && !key.is_empty() && !target::layout::finds_by(scope.target, table, &key).await? {
            let message = format!(
                "no unique index of {table} on the target begins with columns of the key ({}): each UPDATE and DELETE reads all of it",
                key.join(", ")
            );
            let mend = "make the primary key there begin with the source's key, and end with what it is partitioned by";
            checks.warn_aloud(Place::Target, "kept tables", message, mend);
        }
    }
    Ok(kept)
}
