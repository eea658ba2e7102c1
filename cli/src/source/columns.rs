//! What the source's tables look like.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::{Column, Form, TableName};

/// Columns of the tables that are there.
pub async fn columns(client: &Client, tables: &[TableName]) -> Result<HashMap<TableName, Vec<Column>>> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
    let rows = client
        .query(include_str!("../../../sql/source/columns.sql"), &[&schemas, &names])
        .await
        .on_source(|| "read the columns of the source".into())?;
    Ok(Column::by_table(&rows))
}

/// The form of every table, partitioned ones too.
pub async fn forms(client: &Client) -> Result<HashMap<TableName, Form>> {
    let rows = client
        .query(include_str!("../../../sql/source/forms.sql"), &[&[b'r' as i8, b'p' as i8].as_slice()])
        .await
        .on_source(|| "look at the tables of the source".into())?;
    Ok(rows.iter().map(Form::of).collect())
}

/// Whether the source has a relation of that name.
pub async fn exists(client: &Client, name: &TableName) -> Result<bool> {
    let row = client
        .query_one("select to_regclass($1::text) is not null", &[&name.sql()])
        .await
        .on_source(|| format!("look for {name}"))?;
    Ok(row.get(0))
}

/// Triggers and rules that fire in a replica session too, by table.
pub async fn firing(client: &Client) -> Result<Vec<(TableName, String)>> {
    let rows = client
        .query(include_str!("../../../sql/source/firing.sql"), &[])
        .await
        .on_source(|| "look for triggers that always fire on the source".into())?;
    let named = |row: &tokio_postgres::Row| {
        (TableName::new(row.get::<_, String>("schema_name"), row.get::<_, String>("table_name")), row.get("firing"))
    };
    Ok(rows.iter().map(named).collect())
}
