//! What apply must know of the target's tables before it may merge changes. Reads only.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::TableName;

/// The columns of each table's unique keys: immediate, without NULL, without predicate.
pub async fn unique_keys(client: &Client) -> Result<HashMap<TableName, Vec<Vec<String>>>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text, array_agg(a.attname::text)
               from pg_catalog.pg_index i
                    join pg_catalog.pg_class c on c.oid = i.indrelid
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                    cross join pg_catalog.unnest(i.indkey[0:i.indnkeyatts - 1]) k (attnum)
                    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
              where i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null and i.indexprs is null
                and n.nspname <> 'pg_catalog' and n.nspname !~ '^pg_toast'
              group by i.indexrelid, n.nspname, c.relname
             having bool_and(a.attnotnull)",
            &[],
        )
        .await
        .on_target(|| "read the unique keys of the target".into())?;
    let mut keys: HashMap<TableName, Vec<Vec<String>>> = HashMap::new();
    for row in rows {
        keys.entry(TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).or_default().push(row.get(2));
    }
    Ok(keys)
}

/// Tables with a trigger or a rule that works while changes are applied, and those that such a partition is of.
pub async fn loud_tables(client: &Client) -> Result<HashSet<TableName>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text
               from (select l.oid from pg_catalog.pg_class l
                      where exists (select from pg_catalog.pg_trigger t where t.tgrelid = l.oid and t.tgenabled in ('A', 'R'))
                         or exists (select from pg_catalog.pg_rewrite r where r.ev_class = l.oid and r.ev_enabled in ('A', 'R'))) loud
                    join pg_catalog.pg_class c
                      on c.oid = loud.oid or c.oid in (select relid from pg_catalog.pg_partition_ancestors(loud.oid))
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace",
            &[],
        )
        .await
        .on_target(|| "read the triggers of the target".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
