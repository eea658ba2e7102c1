//! What a comparison leaves out, since the migration left it out. Names are quoted by the server, as all
//! names are that are compared.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::Kind;
use super::catalog::Facts;
use super::side::Side;
use crate::error::{Context, Result};
use crate::model::TableName;
use crate::selection::Selection;
use crate::source::inventory::class;

#[derive(Debug, Default)]
pub struct Skipped {
    /// Relations that are not on the target, or without rows there.
    relations: HashSet<String>,
    /// Foreign keys that stay NOT VALID.
    constraints: HashSet<String>,
}

impl Skipped {
    /// `client`: a session with the source.
    pub async fn new(side: &Side, client: &Client, selection: Option<&Selection>) -> Result<Skipped> {
        let Some(selection) = selection else { return Ok(Skipped::default()) };
        let doing = || "read the names of what was left out".to_string();
        let oids: Vec<u32> =
            selection.objects.iter().filter(|(class, _)| *class == class::RELATION).map(|(_, oid)| *oid).collect();
        let unfilled = selection.ignored.iter().filter(|name| !selection.materialized_views.contains(name));
        let names: Vec<&TableName> = selection.without_rows.iter().chain(unfilled).collect();
        let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
        let tables: Vec<&str> = names.iter().map(|name| name.table.as_str()).collect();
        let relations = client
            .query(
                "select format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = any($1)
                  union
                 select format('%I.%I', s, t) from unnest($2::text[], $3::text[]) u (s, t)",
                &[&oids, &schemas, &tables],
            )
            .await
            .during(side.exit(), doing)?;
        let constraints = client
            .query(
                "select format('%s on %s', quote_ident(conname), conrelid::regclass)
                   from pg_catalog.pg_constraint where oid = any($1)",
                &[&selection.unchecked],
            )
            .await
            .during(side.exit(), doing)?;
        Ok(Skipped {
            relations: relations.iter().map(|row| row.get(0)).collect(),
            constraints: constraints.iter().map(|row| row.get(0)).collect(),
        })
    }

    pub fn relation(&self, name: &str) -> bool {
        self.relations.contains(name)
    }

    /// Takes out of the facts what is not compared.
    pub fn take_from(&self, kind: Kind, facts: &mut Facts) {
        match kind {
            Kind::Constraint => facts.retain(|name, _| !self.constraints.contains(name)),
            _ => facts.retain(|name, _| !self.relations.contains(name)),
        }
    }
}
