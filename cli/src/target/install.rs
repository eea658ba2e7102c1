//! Puts the schema `pgmig` on the target: by the extension where the server offers it, else as plain
//! SQL. Both give the same tables, views and functions.

use std::fmt;

use tokio_postgres::Client;

use crate::error::{Context, Error, Exit, Result};
use crate::model::mend::{OWNER, SUPERUSER};
use crate::model::name::identifier;
use crate::model::{Mend, Place, Step};

/// Files of the schema, in the order in which both flavours run them.
const PLAIN: [&str; 5] = [
    include_str!("../../../sql/schema/010_tables.sql"),
    include_str!("../../../sql/schema/020_functions.sql"),
    include_str!("../../../sql/schema/030_views.sql"),
    include_str!("../../../sql/plain/040_apply.sql"),
    include_str!("../../../sql/schema/090_grants.sql"),
];
const EXTENSION: &str = "pgmig_sentinel";

/// What a role needs that did not install the schema.
fn grants(by: &'static str, role: &str) -> impl Iterator<Item = Step> {
    let role = identifier(role);
    ["usage on schema pgmig", "all on all tables in schema pgmig", "execute on all functions in schema pgmig"]
        .into_iter()
        .map(move |what| Step::sql(Place::Target, by, format!("grant {what} to {role};")))
}

/// Why the schema does not answer; for a role that may not use it, with the grants that let it.
async fn unusable(client: &Client, err: tokio_postgres::Error) -> Error {
    let refused = err.code().is_some_and(|code| code.code() == "42501");
    let error = Error::new(Exit::Target, "cannot use the schema pgmig on the target").cause(err);
    if refused { closed(client, error).await } else { error }
}

/// How a role gets to use a schema that is another role's.
pub fn opened(role: &str) -> Mend {
    Mend::new("on the target, as the owner of the schema pgmig:", grants(OWNER, role))
}

async fn closed(client: &Client, error: Error) -> Error {
    let role = client.query_one("select current_user::text", &[]).await;
    let role = role.map_or_else(|_| "…".to_string(), |row| row.get(0));
    error.hint(opened(&role).to_string())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    Extension,
    Plain,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Extension => "extension",
            Flavour::Plain => "plain",
        })
    }
}

/// What is installed; None if nothing is. An error if another version is.
pub async fn installed(client: &Client) -> Result<Option<Flavour>> {
    let asked = client
        .query_one(
            "select to_regprocedure('pgmig.version()') is not null,
                    exists (select from pg_catalog.pg_namespace n
                             where n.nspname = 'pgmig'
                               -- A source that tells its DDL has one, too.
                               and not exists (select from pg_catalog.pg_proc p
                                                where p.pronamespace = n.oid and p.proname ~ '^tell_ddl_'))",
            &[],
        )
        .await;
    let row = match asked {
        Ok(row) => row,
        Err(err) => return Err(unusable(client, err).await),
    };
    match (row.get(0), row.get(1)) {
        (true, _) => {}
        (false, false) => return Ok(None),
        (false, true) => {
            return Err(Error::new(Exit::Target, "the target has a schema pgmig that is not ours")
                .hint("rename or drop it, then run again"));
        }
    }
    let row = match client.query_one("select pgmig.version(), pgmig.flavour()", &[]).await {
        Ok(row) => row,
        Err(err) => return Err(unusable(client, err).await),
    };
    let (version, flavour): (String, String) = (row.get(0), row.get(1));
    if version != env!("CARGO_PKG_VERSION") {
        return Err(Error::new(
            Exit::Target,
            format!("the schema pgmig on the target is version {version}, this is pgmig {}", env!("CARGO_PKG_VERSION")),
        )
        .hint("use the pgmig that began the migration, or clean up: pgmig cleanup"));
    }
    Ok(Some(if flavour == "extension" { Flavour::Extension } else { Flavour::Plain }))
}

/// Refuses a role that may not steer migrations with what is installed.
pub async fn usable(client: &Client) -> Result<()> {
    let row = client
        .query_one(
            "select not exists (select from pg_catalog.pg_class c
                                 where c.relnamespace = 'pgmig'::regnamespace and c.relkind in ('r', 'v')
                                   -- A server that tells its DDL has that, too, which is for one role.
                                   and c.relname !~ '^tell_ddl_key:'
                                   and not (has_table_privilege(c.oid, 'select')
                                            and (c.relkind = 'v' or has_table_privilege(c.oid, 'insert')
                                                                and has_table_privilege(c.oid, 'update')
                                                                and has_table_privilege(c.oid, 'delete'))))
                and not exists (select from pg_catalog.pg_proc p
                                 where p.pronamespace = 'pgmig'::regnamespace and p.proname !~ '^tell_ddl_' and not has_function_privilege(p.oid, 'execute'))",
            &[],
        )
        .await
        .on_target(|| "ask what the role may do with the schema pgmig".into())?;
    match row.get(0) {
        true => Ok(()),
        false => {
            Err(closed(client, Error::new(Exit::Target, "the role may not use all of the schema pgmig on the target"))
                .await)
        }
    }
}

/// Whether `create extension pgmig_sentinel` has a chance here.
pub async fn offered(client: &Client) -> Result<bool> {
    let row = client
        .query_one("select exists (select from pg_catalog.pg_available_extensions where name = $1)", &[&EXTENSION])
        .await
        .on_target(|| "look for the extension pgmig_sentinel".into())?;
    Ok(row.get(0))
}

pub fn not_offered() -> Error {
    Error::new(Exit::Target, "the target does not offer the extension pgmig_sentinel")
        .hint("on the target's machine: make install-extension PG_CONFIG=…; or use --flavour plain")
}

/// How a role gets the extension that may not make it.
pub fn made_for(role: &str) -> Mend {
    let create = Step::sql(Place::Target, SUPERUSER, "create extension pgmig_sentinel with schema pg_catalog;");
    Mend::new(
        "use --flavour plain, or have it made on the target by a superuser:",
        std::iter::once(create).chain(grants(SUPERUSER, role)),
    )
}

/// Installs what is not there, in one transaction. `wanted` None takes the extension where it can
/// be had and plain SQL elsewhere.
pub async fn install(client: &Client, wanted: Option<Flavour>) -> Result<Flavour> {
    if let Some(found) = installed(client).await? {
        usable(client).await?;
        return match wanted {
            Some(wanted) if wanted != found => Err(Error::new(
                Exit::Target,
                format!("the schema pgmig on the target is the {found} flavour, not {wanted}"),
            )
            .hint("leave --flavour out to use what is there, or clean up first: pgmig cleanup")),
            _ => Ok(found),
        };
    }
    if wanted != Some(Flavour::Plain) {
        match offered(client).await? {
            true => match client.batch_execute("create extension pgmig_sentinel with schema pg_catalog").await {
                Ok(()) => return Ok(Flavour::Extension),
                // Without the right to load it the plain flavour does the same, more slowly.
                Err(err) if wanted.is_none() && err.code().is_some_and(|code| code.code() == "42501") => {
                    tracing::info!("the role may not create the extension pgmig_sentinel: installing plain SQL");
                }
                Err(err) => {
                    return Err(Error::new(Exit::Target, "cannot create the extension pgmig_sentinel")
                        .cause(err)
                        .hint("see why: pgmig preflight; or use --flavour plain"));
                }
            },
            false if wanted == Some(Flavour::Extension) => {
                return Err(not_offered());
            }
            false => {}
        }
    }
    let script = format!("begin;\n{}\ncommit;", PLAIN.join("\n"));
    if let Err(err) = client.batch_execute(&script).await {
        let _ = client.batch_execute("rollback").await;
        return Err(err).on_target(|| "install the schema pgmig".into());
    }
    Ok(Flavour::Plain)
}

impl Flavour {
    /// Removes the schema, whichever way it came.
    pub fn removal(self) -> &'static str {
        match self {
            Flavour::Extension => "drop extension pgmig_sentinel cascade; drop schema if exists pgmig cascade;",
            Flavour::Plain => "drop schema pgmig cascade;",
        }
    }
}

/// Whether the role may remove the schema: somebody else may have installed it for it.
pub async fn removable(client: &Client) -> Result<bool> {
    let row = client
        .query_one(
            "select pg_catalog.pg_has_role(coalesce((select extowner from pg_catalog.pg_extension where extname = $1),
                                                    (select nspowner from pg_catalog.pg_namespace where nspname = 'pgmig')),
                                           'usage')",
            &[&EXTENSION],
        )
        .await
        .on_target(|| "ask whose the schema pgmig is".into())?;
    Ok(row.get(0))
}

pub async fn uninstall(client: &Client, flavour: Flavour) -> Result<()> {
    client.batch_execute(flavour.removal()).await.on_target(|| "remove the schema pgmig".into())
}
