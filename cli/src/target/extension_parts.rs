//! Parts of configuration tables of extensions: whole tables, of which a condition says which rows are the
//! user's. They are taken together and in their order.

use tokio_postgres::{Client, Row};

use super::queue::Part;
use crate::error::{Context, Result};
use crate::model::TableName;

/// Those that are not done.
pub async fn pending(client: &Client, migration: &str) -> Result<Vec<Part>> {
    let rows = client
        .query(
            "select part_id, schema_name, table_name, predicate, columns, bytes
               from pgmig.part
              where migration = $1 and state = 'pending' and parts = 1 and predicate is not null
                and schema_name <> 'pg_catalog'
              order by part_id",
            &[&migration],
        )
        .await
        .on_target(|| "read the Parts of extensions".into())?;
    let part = |row: &Row| Part {
        id: row.get(0),
        table: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        number: 1,
        parts: 1,
        predicate: row.get(3),
        leaf: None,
        range: None,
        columns: row.get(4),
        binary: false,
        bytes: row.get(5),
        rows: None,
        copy_bytes: None,
    };
    Ok(rows.iter().map(part).collect())
}
