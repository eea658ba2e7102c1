//! What filters choose from: every object of the source that they can name, and which object needs
//! which. Reads the catalog only; what becomes of it is decided in `selection`.

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Client, Row};

use crate::error::{Context, Result};
use crate::model::TableName;

/// Catalog and oid: an oid alone is unique within its catalog only.
pub type Object = (u32, u32);

/// Oids of system catalogs, the same in every version.
pub mod class {
    pub const TYPE: u32 = 1247;
    pub const RELATION: u32 = 1259;
    pub const DEFAULT: u32 = 2604;
    pub const CONSTRAINT: u32 = 2606;
    pub const SCHEMA: u32 = 2615;
    pub const RULE: u32 = 2618;
    pub const EXTENSION: u32 = 3079;
    pub const EVENT_TRIGGER: u32 = 3466;
}

#[derive(Debug, Clone)]
pub struct Relation {
    pub oid: u32,
    pub name: TableName,
    /// As in pg_class: r table, p partitioned table, m materialized view, v view, f foreign table, S sequence.
    pub kind: char,
    /// What it is a partition of.
    pub parent: Option<u32>,
    pub extension: Option<String>,
    /// The table of a sequence that belongs to a column.
    pub owner: Option<u32>,
    /// Whether the role may read it.
    pub readable: bool,
}

#[derive(Debug, Clone)]
pub struct Index {
    pub oid: u32,
    pub name: TableName,
    pub table: u32,
    pub constraint: Option<u32>,
    pub identity: bool,
}

#[derive(Debug, Clone)]
pub struct ForeignKey {
    pub oid: u32,
    pub title: String,
    pub table: u32,
    pub referenced: u32,
    pub partitioned: bool,
}

/// `object` needs `on`; `kind` as in pg_depend.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    pub object: Object,
    pub on: Object,
    pub kind: char,
}

/// All of it. Without filters only the relations are read.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    pub relations: Vec<Relation>,
    pub schemas: Vec<(u32, String)>,
    pub extensions: Vec<(u32, String)>,
    pub event_triggers: Vec<(u32, String)>,
    pub indexes: Vec<Index>,
    pub foreign_keys: Vec<ForeignKey>,
    pub needs: Vec<Need>,
}

pub async fn relations(client: &Client) -> Result<Vec<Relation>> {
    let relation = |row: &Row| Relation {
        oid: row.get(0),
        name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        kind: letter(row, 3),
        parent: row.get(4),
        extension: row.get(5),
        owner: row.get(6),
        readable: row.get(7),
    };
    list(client, include_str!("../../../sql/source/relations.sql"), "relations", relation).await
}

pub async fn inventory(client: &Client) -> Result<Inventory> {
    let named = |row: &Row| (row.get(0), row.get(1));
    let schemas = "select oid, nspname::text from pg_catalog.pg_namespace
                    where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmig') order by 2";
    let extensions =
        "select oid, extname::text from pg_catalog.pg_extension where extname <> 'pgmig_sentinel' order by 2";
    let event_triggers = "select oid, evtname::text from pg_catalog.pg_event_trigger order by 2";
    let index = |row: &Row| Index {
        oid: row.get(0),
        name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        table: row.get(3),
        constraint: row.get(4),
        identity: row.get(5),
    };
    let foreign_key = |row: &Row| ForeignKey {
        oid: row.get(0),
        title: row.get(1),
        table: row.get(2),
        referenced: row.get(3),
        partitioned: row.get(4),
    };
    let need =
        |row: &Row| Need { object: (row.get(0), row.get(1)), on: (row.get(2), row.get(3)), kind: letter(row, 4) };
    Ok(Inventory {
        relations: relations(client).await?,
        schemas: list(client, schemas, "schemas", named).await?,
        extensions: list(client, extensions, "extensions", named).await?,
        event_triggers: list(client, event_triggers, "event triggers", named).await?,
        indexes: list(client, include_str!("../../../sql/source/indexes.sql"), "indexes", index).await?,
        foreign_keys: list(client, include_str!("../../../sql/source/foreign_keys.sql"), "foreign keys", foreign_key)
            .await?,
        needs: list(client, include_str!("../../../sql/source/dependencies.sql"), "dependencies", need).await?,
    })
}

fn letter(row: &Row, at: usize) -> char {
    row.get::<_, &str>(at).chars().next().unwrap_or_default()
}

async fn list<T>(client: &Client, query: &str, what: &str, each: impl Fn(&Row) -> T) -> Result<Vec<T>> {
    let rows = client.query(query, &[]).await.on_source(|| format!("read the {what} of the source"))?;
    Ok(rows.iter().map(each).collect())
}

/// Which of the names a regular expression matches. The server is asked, so that a pattern means what
/// it means everywhere else in PostgreSQL.
pub async fn matching(
    client: &Client,
    pattern: &str,
    names: &[&str],
) -> Result<HashSet<String>, tokio_postgres::Error> {
    let query = "select n from unnest($1::text[]) n where n operator(pg_catalog.~) $2::text";
    let rows = client.query(query, &[&names, &pattern]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Kind and name of objects, as people call them.
pub async fn titles(client: &Client, objects: &[Object]) -> Result<HashMap<Object, (String, String)>> {
    let (classes, oids): (Vec<u32>, Vec<u32>) = objects.iter().copied().unzip();
    let rows = client
        .query(
            "select o.c, o.o, i.type, coalesce(i.identity, '?')
               from unnest($1::oid[], $2::oid[]) o (c, o), pg_catalog.pg_identify_object(o.c, o.o, 0) i
              where i.type is not null",
            &[&classes, &oids],
        )
        .await
        .on_source(|| "read the names of objects of the source".into())?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3)))).collect())
}
