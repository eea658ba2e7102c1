//! What must be true of the target before anything is changed. Reads only.

use std::collections::HashSet;

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::TableName;

/// Which of these relations the target already has.
pub async fn existing(client: &Client, names: &[TableName]) -> Result<Vec<TableName>> {
    Ok(kinds(client, names).await?.into_iter().map(|(name, _)| name).collect())
}

/// The first of these tables that is there as something that holds no rows.
pub async fn no_table(client: &Client, names: &[TableName]) -> Result<Option<TableName>> {
    let holds_none = |kind: i8| kind != b'r' as i8 && kind != b'p' as i8;
    Ok(kinds(client, names).await?.into_iter().find(|(_, kind)| holds_none(*kind)).map(|(name, _)| name))
}

/// Those of these relations that the target has, in the order of their names, each with its kind.
async fn kinds(client: &Client, names: &[TableName]) -> Result<Vec<(TableName, i8)>> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.table.as_str()).collect();
    let rows = client
        .query(
            "select w.s, w.t, c.relkind
               from unnest($1::text[], $2::text[]) w (s, t)
                    join pg_catalog.pg_namespace n on n.nspname = w.s
                    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t
              order by 1, 2",
            &[&schemas, &tables],
        )
        .await
        .on_target(|| "look for tables on the target".into())?;
    Ok(rows.iter().map(|row| (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2))).collect())
}

/// What the target's role and server allow.
pub struct Abilities {
    pub version: i32,
    pub encoding: String,
    pub user: String,
    pub may_create: bool,
    pub may_replica: bool,
    pub in_recovery: bool,
}

pub async fn abilities(client: &Client) -> Result<Abilities> {
    let doing = || "ask what the target allows".to_string();
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int, current_setting('server_encoding'),
                    current_user::text, has_database_privilege(current_database(), 'create'), pg_is_in_recovery()",
            &[],
        )
        .await
        .on_target(doing)?;
    // Proved by trying: managed services grant it in ways no catalog shows.
    let may_replica = client.batch_execute("begin; set local session_replication_role = replica").await.is_ok();
    client.batch_execute("rollback").await.on_target(doing)?;
    Ok(Abilities {
        version: row.get(0),
        encoding: row.get(1),
        user: row.get(2),
        may_create: row.get(3),
        in_recovery: row.get(4),
        may_replica,
    })
}

/// Of these schemas those that are there and in which the role may not make anything.
pub async fn closed_schemas(client: &Client, schemas: &[String]) -> Result<Vec<String>> {
    let rows = client
        .query(
            "select nspname::text from pg_catalog.pg_namespace
              where nspname = any ($1) and not pg_catalog.has_schema_privilege(oid, 'create') order by 1",
            &[&schemas],
        )
        .await
        .on_target(|| "look for schemas in which the role may create".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Of these schemas those that are not there.
pub async fn missing_schemas(client: &Client, schemas: &[String]) -> Result<Vec<String>> {
    let rows = client
        .query(
            "select w.name from unnest($1::text[]) w (name)
              where not exists (select from pg_catalog.pg_namespace n where n.nspname = w.name) order by 1",
            &[&schemas],
        )
        .await
        .on_target(|| "look for schemas of the target".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Of these roles those to which the target's role cannot give an object, and whether it is a superuser.
pub async fn not_member(client: &Client, roles: &[String]) -> Result<Vec<(String, bool)>> {
    let rows = client
        .query(
            "select rolname::text, rolsuper from pg_catalog.pg_roles
              where rolname = any ($1)
                and not pg_catalog.pg_has_role(oid, case when current_setting('server_version_num')::int >= 160000
                                                         then 'set' else 'member' end)
              order by 1",
            &[&roles],
        )
        .await
        .on_target(|| "ask which roles the target's role is a member of".into())?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Of these roles and schemas those in which the role may not make anything: then it can own nothing
/// there that a role without privileges gives it.
pub async fn no_create(client: &Client, pairs: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let (roles, schemas): (Vec<&str>, Vec<&str>) = pairs.iter().map(|(r, s)| (r.as_str(), s.as_str())).unzip();
    let rows = client
        .query(
            "select r.rolname::text, n.nspname::text
               from unnest($1::text[], $2::text[]) w (r, s)
                    join pg_catalog.pg_roles r on r.rolname = w.r
                    join pg_catalog.pg_namespace n on n.nspname = w.s
              where not pg_catalog.has_schema_privilege(r.oid, n.oid, 'create')
                and not (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
              order by 1, 2",
            &[&roles, &schemas],
        )
        .await
        .on_target(|| "ask what the owners may create on the target".into())?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub async fn is_superuser(client: &Client) -> Result<bool> {
    let row = client
        .query_one("select rolsuper from pg_catalog.pg_roles where rolname = current_user", &[])
        .await
        .on_target(|| "ask what the target's role is".into())?;
    Ok(row.get(0))
}

/// The roles of the target.
pub async fn roles(client: &Client) -> Result<HashSet<String>> {
    let rows = client
        .query("select rolname::text from pg_catalog.pg_roles", &[])
        .await
        .on_target(|| "read the roles of the target".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Kinds of objects that get privileges by default when this role makes them.
pub async fn default_privileges(client: &Client) -> Result<Vec<String>> {
    let rows = client
        .query(
            "select distinct case defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions'
                                                when 'T' then 'types' else 'schemas' end
               from pg_catalog.pg_default_acl
              where defaclrole = (select oid from pg_catalog.pg_roles where rolname = current_user) order by 1",
            &[],
        )
        .await
        .on_target(|| "read the default privileges of the target".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What the target can do about an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    pub name: String,
    /// The version it has.
    pub installed: Option<String>,
    /// Whether there is such a version to install.
    pub available: bool,
    /// Whether the role may install it.
    pub allowed: bool,
}

/// What the target can do about these extensions; with a version, about that one.
pub async fn extensions(client: &Client, wanted: &[(String, Option<String>)]) -> Result<Vec<Extension>> {
    let (names, versions): (Vec<&str>, Vec<Option<&str>>) =
        wanted.iter().map(|(name, version)| (name.as_str(), version.as_deref())).unzip();
    let rows = client
        .query(
            "select w.name, e.extversion, v.name is not null,
                    coalesce(not v.superuser or r.rolsuper
                             or v.trusted and has_database_privilege(current_database(), 'create'), false)
               from unnest($1::text[], $2::text[]) w (name, version)
                    join pg_catalog.pg_roles r on r.rolname = current_user
                    left join pg_catalog.pg_extension e on e.extname = w.name
                    left join pg_catalog.pg_available_extensions a on a.name = w.name
                    left join pg_catalog.pg_available_extension_versions v
                      on v.name = w.name and v.version = coalesce(w.version, a.default_version)
              order by 1",
            &[&names, &versions],
        )
        .await
        .on_target(|| "read the extensions of the target".into())?;
    let extension = |row: &tokio_postgres::Row| Extension {
        name: row.get(0),
        installed: row.get(1),
        available: row.get(2),
        allowed: row.get(3),
    };
    Ok(rows.iter().map(extension).collect())
}

/// Partitioned tables. A TRUNCATE of one may be in the stream beside that of its partitions.
pub async fn partitioned(client: &Client) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'p'",
            &[],
        )
        .await
        .on_target(|| "list the partitioned tables of the target".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// Relations whose changes may be in the stream and are nobody's to apply: rows of materialized views,
/// tables of extensions.
pub async fn not_applied(client: &Client) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relkind = 'm'
                 or exists (select from pg_catalog.pg_depend d
                             where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')",
            &[],
        )
        .await
        .on_target(|| "read what is not applied on the target".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
