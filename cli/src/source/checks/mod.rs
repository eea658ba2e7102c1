//! What must be true of the source before anything is changed. Reads only.

pub mod roles;
pub mod stream;
pub mod transactions;
pub mod values;

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::TableName;

/// What the source's role and server allow.
pub struct Abilities {
    pub version: i32,
    pub encoding: String,
    pub user: String,
    pub wal_level: String,
    pub may_replicate: bool,
    pub slots_free: i64,
    pub senders_free: i64,
    /// System identifier and database oid: which database this is, whatever its address.
    pub identity: String,
    pub in_recovery: bool,
    /// Output plugins the server allows; None where it knows no such setting or does not tell.
    pub plugins: Option<String>,
    /// Tables and sequences that the role may not read.
    pub unreadable: Vec<TableName>,
    /// Partitioned tables that it may not read: a dump locks them.
    pub unreadable_roots: Vec<TableName>,
    /// Schemas with tables that the role may not look into.
    pub closed: Vec<String>,
    /// Tables whose rows row security would hide from the role.
    pub hidden: Vec<TableName>,
    /// Partitions by the hash of an enum, which is that of an oid: on another server rows belong elsewhere.
    pub hashed_by_enum: Vec<TableName>,
}

/// A column of any table, moved or not, whose type wal2json prints as broken JSON: it leaves a name
/// that begins with a quote as it is, and so `"My Shop".mood` too.
pub async fn unprintable_type(client: &Client) -> Result<Option<(TableName, String)>> {
    let row = client
        .query_opt(
            r#"select n.nspname::text, c.relname::text, a.attname::text
                 from pg_catalog.pg_attribute a
                      join pg_catalog.pg_class c on c.oid = a.attrelid
                      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                      join pg_catalog.pg_type t on t.oid = a.atttypid
                      join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
                where c.relkind in ('r', 'p', 'm') and a.attnum > 0 and not a.attisdropped
                  and tn.nspname <> 'pg_catalog' and t.typcategory <> 'A'
                  and (quote_ident(tn.nspname) ~ '^"' or t.typname ~ '["\\]')
                order by 1, 2, 3 limit 1"#,
            &[],
        )
        .await
        .on_source(|| "look for types that wal2json cannot name".into())?;
    Ok(row.map(|row| (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2))))
}

/// Which database of which server this is, and whether the server is a standby.
pub async fn identity(client: &Client) -> Result<(String, bool)> {
    let row = client
        .query_one(
            "select (select system_identifier from pg_catalog.pg_control_system())::text
                    || '/' || (select oid from pg_catalog.pg_database where datname = current_database()),
                    pg_catalog.pg_is_in_recovery()",
            &[],
        )
        .await
        .on_source(|| "ask the source who it is".into())?;
    Ok((row.get(0), row.get(1)))
}

pub async fn abilities(client: &Client) -> Result<Abilities> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int,
                    current_setting('server_encoding'),
                    current_user::text,
                    current_setting('wal_level'),
                    (select rolreplication or rolsuper from pg_catalog.pg_roles where rolname = current_user)
                    or exists (select from pg_catalog.pg_roles r
                                where r.rolname in ('rds_replication', 'rds_superuser', 'azure_pg_admin', 'cloudsqlsuperuser')
                                  and pg_catalog.pg_has_role(r.oid, 'member')),
                    current_setting('max_replication_slots')::bigint - (select count(*) from pg_catalog.pg_replication_slots),
                    current_setting('max_wal_senders')::bigint - (select count(*) from pg_catalog.pg_stat_replication),
                    (select system_identifier from pg_catalog.pg_control_system())::text
                    || '/' || (select oid from pg_catalog.pg_database where datname = current_database()),
                    pg_catalog.pg_is_in_recovery(),
                    (select setting from pg_catalog.pg_settings where name = 'output_plugin_libraries')",
            &[],
        )
        .await
        .on_source(|| "ask what the source allows".into())?;
    let (closed_to_it, doing) = ("not pg_catalog.has_table_privilege(c.oid, 'select')", "look for what cannot be read");
    let unreadable = names(client, "r, S", closed_to_it, doing).await?;
    let unreadable_roots = names(client, "p", closed_to_it, doing).await?;
    // With row_security = off reading these is an error, never a smaller copy.
    let hidden = names(client, "r", "pg_catalog.row_security_active(c.oid)", "look for row security").await?;
    let doing = "look for partitions by the hash of an enum";
    let hashed_by_enum = names(client, "r", HASHED_BY_ENUM, doing).await?;
    Ok(Abilities {
        version: row.get(0),
        encoding: row.get(1),
        user: row.get(2),
        wal_level: row.get(3),
        may_replicate: row.get(4),
        slots_free: row.get(5),
        senders_free: row.get(6),
        identity: row.get(7),
        in_recovery: row.get(8),
        plugins: row.get(9),
        unreadable,
        unreadable_roots,
        closed: closed_schemas(client).await?,
        hidden,
        hashed_by_enum,
    })
}

const HASHED_BY_ENUM: &str = "\
c.relispartition
and exists (select from pg_catalog.pg_partition_ancestors(c.oid) a
                   join pg_catalog.pg_partitioned_table p on p.partrelid = a.relid
             where p.partstrat = 'h'
               and (exists (select from pg_catalog.pg_opclass o
                             where o.oid = any (p.partclass::oid[]) and o.opcname = 'enum_ops')
                    or exists (select from pg_catalog.pg_attribute k
                                      join pg_catalog.pg_type t on t.oid = k.atttypid
                                      join pg_catalog.pg_type e on e.oid = t.typelem
                                where k.attrelid = p.partrelid and k.attnum = any (p.partattrs::int2[]) and e.typtype = 'e')))";

async fn names(client: &Client, kinds: &str, condition: &str, doing: &str) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            &format!(
                "select n.nspname::text, c.relname::text
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.relkind = any ('{{{kinds}}}') and c.relpersistence <> 't'
                    and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
                    and not exists (select from pg_catalog.pg_depend d
                                     where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
                    and {condition}
                  order by 1, 2"
            ),
            &[],
        )
        .await
        .on_source(|| doing.to_string())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

async fn closed_schemas(client: &Client) -> Result<Vec<String>> {
    let rows = client
        .query(
            "select n.nspname::text
               from pg_catalog.pg_namespace n
              where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmig')
                and not pg_catalog.has_schema_privilege(n.oid, 'usage')
                and exists (select from pg_catalog.pg_class c
                             where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'S'))
              order by 1",
            &[],
        )
        .await
        .on_source(|| "look for schemas that cannot be used".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
