//! One side's catalogs. A query that fails ends the comparison: nothing that was not read counts as equal.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Client;

use crate::connect::Side;
use crate::error::{Context, Result};
use crate::source::inventory::Object as Id;

/// What an object is called: kind and name.
pub type Title = (String, String);

#[derive(Debug, Clone)]
pub struct Object {
    pub id: Id,
    /// The table that it hangs on, 0 for none.
    pub relation: u32,
    /// The constraint that made it, 0 for none.
    pub made_by: u32,
    /// What the steps of the migration call it.
    pub step: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Property {
    pub value: String,
    /// Makes the other side like this one.
    pub mend: Option<String>,
    /// Takes it away from this side.
    pub undo: Option<String>,
    /// Statements with which a server reads `value` and makes something temporary of it.
    pub probe: Option<String>,
}

#[derive(Debug)]
pub struct Catalog {
    pub objects: BTreeMap<Title, Object>,
    pub properties: HashMap<Id, BTreeMap<String, Property>>,
    /// The statement that makes an object.
    pub creates: HashMap<Id, String>,
}

impl Catalog {
    pub fn value(&self, object: &Object, property: &str) -> Option<&str> {
        Some(self.properties.get(&object.id)?.get(property)?.value.as_str())
    }
}

const OBJECTS: &str = include_str!("../../../../sql/verify/objects.sql");
const PROPERTIES: [(&str, &str); 9] = [
    ("tables and views", include_str!("../../../../sql/verify/relations.sql")),
    ("columns", include_str!("../../../../sql/verify/columns.sql")),
    ("indexes", include_str!("../../../../sql/verify/indexes.sql")),
    ("constraints", include_str!("../../../../sql/verify/constraints.sql")),
    ("functions", include_str!("../../../../sql/verify/routines.sql")),
    ("types", include_str!("../../../../sql/verify/types.sql")),
    ("triggers, rules and policies", include_str!("../../../../sql/verify/firing.sql")),
    ("owners and privileges", include_str!("../../../../sql/verify/privileges.sql")),
    ("comments", include_str!("../../../../sql/verify/comments.sql")),
];
const REST: (&str, &str) = ("other objects", include_str!("../../../../sql/verify/rest.sql"));

/// The major version of a session's server.
pub async fn major(client: &Client, side: Side) -> Result<i32> {
    let row = client.query_one("select current_setting('server_version_num')::int / 10000", &[]).await;
    Ok(row.during(side.exit(), || format!("ask the {side} for its version"))?.get(0))
}

/// A query in the words of this server, leaving out what the other does not know.
fn in_version(query: &str, major: i32, both: i32) -> String {
    let since = |version: i32, there: &'static str| if major >= version { there } else { "null::text" };
    query
        .replace("@both_since_17", if both >= 17 { "true" } else { "false" })
        .replace("@both_since_18", if both >= 18 { "true" } else { "false" })
        .replace("@compression", since(14, "nullif(a.attcompression, '')"))
        .replace("@sql_body", since(14, "pg_catalog.pg_get_function_sqlbody(p.oid)"))
        .replace("@rows_published", since(15, "pg_catalog.pg_get_expr(r.prqual, r.prrelid)"))
        .replace(
            "@columns_published",
            since(
                15,
                "(select pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' order by a.attnum)
                    from pg_catalog.pg_attribute a where a.attrelid = r.prrelid and a.attnum = any (r.prattrs))",
            ),
        )
        .replace(
            "@schemas_published",
            since(
                15,
                "(select pg_catalog.string_agg(s.pnnspid::regnamespace::text, ', ' order by s.pnnspid::regnamespace::text)
                    from pg_catalog.pg_publication_namespace s where s.pnpubid = u.oid)",
            ),
        )
}

/// Reads all of it. `both`: the older of the two servers' major versions.
pub async fn catalog(client: &Client, side: Side, major: i32, both: i32) -> Result<Catalog> {
    let rows = client.query(&in_version(OBJECTS, major, both), &[]).await;
    let rows = rows.during(side.exit(), || format!("list the objects of the {side}"))?;
    let mut objects = BTreeMap::new();
    for row in &rows {
        let object =
            Object { id: (row.get(0), row.get(1)), relation: row.get(2), made_by: row.get(3), step: row.get(4) };
        objects.insert((row.get(5), row.get(6)), object);
    }
    let (mut properties, mut creates) = (HashMap::<Id, BTreeMap<String, Property>>::new(), HashMap::new());
    for (what, query) in PROPERTIES.iter().chain([&REST]) {
        let rows = client.query(&in_version(query, major, both), &[]).await;
        for row in rows.during(side.exit(), || format!("read the {what} of the {side}"))? {
            let (id, label): (Id, String) = ((row.get(0), row.get(1)), row.get(2));
            let (value, mend): (Option<String>, Option<String>) = (row.get(3), row.get(4));
            if label.is_empty() {
                creates.extend(mend.map(|create| (id, create)));
            } else if let Some(value) = value {
                let property = Property { value, mend, undo: row.get(5), probe: row.get(6) };
                properties.entry(id).or_default().insert(label, property);
            }
        }
    }
    Ok(Catalog { objects, properties, creates })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_keeps_a_placeholder_in_any_version() {
        for (_, query) in PROPERTIES.iter().chain([&REST, &("objects", OBJECTS)]) {
            for (major, both) in [(13, 13), (15, 15), (18, 18)] {
                assert!(!in_version(query, major, both).contains('@'), "{query}");
            }
        }
    }
}
