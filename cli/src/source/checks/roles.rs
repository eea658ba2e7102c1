//! Which roles the source's objects belong to or are granted to. Reads only.

use std::collections::HashSet;

use tokio_postgres::Client;

use crate::error::{Context, Result};

/// Roles that the moved objects name.
#[derive(Debug, Clone, Default)]
pub struct Named {
    pub owners: Vec<String>,
    /// Owners of what is in a schema, with its name.
    pub in_schemas: Vec<(String, String)>,
    pub grantees: Vec<String>,
}

/// Owners and grantees of relations, schemas, types and functions, but of those in `left_out` (catalog
/// and oid) and those of extensions.
pub async fn named(client: &Client, left_out: &HashSet<(u32, u32)>) -> Result<Named> {
    let rows = client
        .query(include_str!("../../../../sql/source/named_roles.sql"), &[])
        .await
        .on_source(|| "read whose the objects of the source are".into())?;
    let mut named = Named::default();
    for row in &rows {
        if left_out.contains(&(row.get(0), row.get(1))) || left_out.contains(&(2615, row.get(2))) {
            continue;
        }
        let role: String = row.get(4);
        let list = if row.get(3) { &mut named.owners } else { &mut named.grantees };
        if !list.contains(&role) {
            list.push(role.clone());
        }
        let schema: String = row.get(5);
        if row.get(3) && !named.in_schemas.contains(&(role.clone(), schema.clone())) {
            named.in_schemas.push((role, schema));
        }
    }
    named.owners.sort();
    named.grantees.sort();
    Ok(named)
}
