//! Extensions of the source: which there are, and the tables whose rows belong to the user rather than to
//! the extension. Reads only.

use tokio_postgres::{Client, Row};

use crate::error::{Context, Result};
use crate::model::TableName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    pub oid: u32,
    pub name: String,
    pub version: String,
    pub schema: String,
}

/// Extensions that a dump would make again.
pub async fn list(client: &Client) -> Result<Vec<Extension>> {
    let query = "select e.oid, extname::text, extversion, nspname::text
                   from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = extnamespace
                  where extname not in ('plpgsql', 'pgmig_sentinel') order by 2";
    let rows = client.query(query, &[]).await.on_source(|| "read the extensions of the source".into())?;
    let extension =
        |row: &Row| Extension { oid: row.get(0), name: row.get(1), version: row.get(2), schema: row.get(3) };
    Ok(rows.iter().map(extension).collect())
}

/// A configuration table of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigTable {
    pub oid: u32,
    pub name: TableName,
    /// Oid of the extension.
    pub extension: u32,
    pub extension_name: String,
    /// Which rows are the user's.
    pub condition: String,
    pub columns: Vec<String>,
    pub bytes: u64,
    pub readable: bool,
    refers_to: Vec<u32>,
}

/// Configuration tables, each behind those that it refers to.
pub async fn config_tables(client: &Client) -> Result<Vec<ConfigTable>> {
    let rows = client
        .query(include_str!("../../../sql/source/extension_tables.sql"), &[])
        .await
        .on_source(|| "read the configuration tables of extensions".into())?;
    let table = |row: &Row| ConfigTable {
        oid: row.get("oid"),
        name: TableName::new(row.get::<_, String>("schema_name"), row.get::<_, String>("table_name")),
        extension: row.get("extension"),
        extension_name: row.get("extension_name"),
        condition: condition(row.get::<_, Option<&str>>("condition").unwrap_or_default()),
        columns: row.get("columns"),
        bytes: row.get::<_, i64>("bytes").max(0) as u64,
        readable: row.get("readable"),
        refers_to: row.get("refers_to"),
    };
    Ok(in_order(rows.iter().map(table).collect()))
}

/// The condition without the WHERE that extensions write before it.
fn condition(text: &str) -> String {
    let text = text.trim();
    match text.get(..5) {
        None | Some("") if text.is_empty() => "true".into(),
        Some(word) if word.eq_ignore_ascii_case("where") => text[5..].trim().into(),
        _ => text.into(),
    }
}

/// Referred-to tables first. Tables that refer to each other in a ring stay as they are.
fn in_order(mut waiting: Vec<ConfigTable>) -> Vec<ConfigTable> {
    let mut ordered: Vec<ConfigTable> = Vec::new();
    while !waiting.is_empty() {
        let free = |table: &ConfigTable| !waiting.iter().any(|other| table.refers_to.contains(&other.oid));
        let at = waiting.iter().position(free).unwrap_or(0);
        ordered.push(waiting.remove(at));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(oid: u32, refers_to: &[u32]) -> ConfigTable {
        let name = TableName::new("public", "t");
        let (columns, refers_to) = (Vec::new(), refers_to.to_vec());
        let (extension, extension_name, condition) = (1, String::new(), String::new());
        ConfigTable { oid, name, extension, extension_name, condition, columns, bytes: 0, readable: true, refers_to }
    }

    #[test]
    fn a_table_comes_behind_those_that_it_refers_to() {
        let order = |tables| in_order(tables).iter().map(|table: &ConfigTable| table.oid).collect::<Vec<_>>();
        assert_eq!(order(vec![table(1, &[2, 9]), table(2, &[3]), table(3, &[])]), [3, 2, 1]);
        assert_eq!(order(vec![table(1, &[2]), table(2, &[1])]), [1, 2]);
    }

    #[test]
    fn the_word_where_is_no_part_of_the_condition() {
        assert_eq!(condition(""), "true");
        assert_eq!(condition("where not standard"), "not standard");
        assert_eq!(condition(" WHERE (id > 1)"), "(id > 1)");
    }
}
