//! What no stream holds: rows of unlogged tables, and large objects. Tells by the server's own counters whether
//! they were written to since; reads none of them.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::TableName;

/// What stands for all large objects.
const LARGE_OBJECTS: &str = "large objects";

/// What each was written to so far. Two equal ones say that nothing was written between.
pub type Written = HashMap<String, String>;

/// As it is now. What a session wrote is told within ten seconds, or when it ends.
pub async fn written(client: &Client) -> Result<Written> {
    let rows = client
        .query(
            "select case when c.relpersistence = 'u' then n.nspname::text end, c.relname::text,
                    concat_ws(' ', pg_catalog.pg_relation_filenode(c.oid), pg_catalog.pg_stat_get_tuples_inserted(c.oid),
                              pg_catalog.pg_stat_get_tuples_updated(c.oid), pg_catalog.pg_stat_get_tuples_deleted(c.oid))
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'r' and c.relpersistence = 'u' and n.nspname !~ '^pg_'
                 or c.oid in ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_largeobject_metadata'::regclass)
              order by c.relname",
            &[],
        )
        .await
        .on_source(|| "look at what no stream holds".into())?;
    let mut written = Written::new();
    for row in &rows {
        let state: String = row.get(2);
        match row.get::<_, Option<String>>(0) {
            Some(schema) => written.insert(unlogged(&TableName::new(schema, row.get::<_, String>(1))), state),
            None => {
                let other = written.remove(LARGE_OBJECTS).unwrap_or_default();
                written.insert(LARGE_OBJECTS.into(), format!("{other} {state}"))
            }
        };
    }
    Ok(written)
}

fn unlogged(table: &TableName) -> String {
    format!("unlogged table {table}")
}

/// What was written to since `before`, or may have been if that is not known: those of the tables that are
/// unlogged, and large objects.
pub fn changed(before: Option<&Written>, now: &Written, tables: &[TableName], large_objects: bool) -> Vec<String> {
    let moved = tables.iter().map(unlogged).chain(large_objects.then(|| LARGE_OBJECTS.to_string()));
    let is_changed =
        |name: &String| now.get(name).is_some_and(|now| before.is_none_or(|before| before.get(name) != Some(now)));
    moved.filter(is_changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_to_is_named_and_what_is_not_known_too() {
        let state = |scratch: &str, large: &str| -> Written {
            [("unlogged table public.scratch", scratch), (LARGE_OBJECTS, large)]
                .map(|(name, state)| (name.to_string(), state.to_string()))
                .into()
        };
        let tables = [TableName::new("public", "scratch"), TableName::new("public", "orders")];
        let before = state("1 0 0 0", "5");
        assert!(changed(Some(&before), &before, &tables, true).is_empty());
        assert_eq!(changed(Some(&before), &state("1 1 0 0", "5"), &tables, true), ["unlogged table public.scratch"]);
        assert_eq!(changed(Some(&before), &state("1 1 0 0", "6"), &[], true), [LARGE_OBJECTS]);
        assert_eq!(changed(None, &before, &tables, false).len(), 1, "nobody knows");
    }
}
