//! What on the source is in the way of a stream, slows it down or is not in it. Reads only.

use tokio_postgres::{Client, Row};

use crate::error::{Context, Result};
use crate::model::TableName;

/// What a check of the stream needs to know besides the rights.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub max_slots: i64,
    pub max_senders: i64,
    /// In MB; None is without bound.
    pub slot_wal_keep_mb: Option<i64>,
    /// Whether the role may make publications.
    pub may_publish: bool,
    /// Publications FOR ALL TABLES.
    pub all_tables: Vec<String>,
    /// Transactions that are prepared: identifier, database, age in seconds.
    pub prepared: Vec<(String, String, f64)>,
    /// Sessions whose transaction has been open for a while: pid, user, application, age in seconds.
    pub long: Vec<(i32, String, String, f64)>,
    /// Slots that nobody reads: name, and bytes of WAL kept for it.
    pub idle_slots: Vec<(String, i64)>,
    pub event_triggers: Vec<String>,
    /// Settings that are changed, and hold once the server is restarted.
    pub pending: Vec<String>,
    pub large_objects: i64,
    /// Large objects that the role may not read.
    pub unreadable_large_objects: i64,
}

/// A transaction that is open for longer is told, in seconds.
const LONG: f64 = 60.0;

pub async fn surroundings(client: &Client) -> Result<Surroundings> {
    let doing = || "ask what is in the way of a stream".to_string();
    let row = client
        .query_one(
            "select current_setting('max_replication_slots')::bigint, current_setting('max_wal_senders')::bigint,
                    (select nullif(setting::bigint, -1) from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size'),
                    has_database_privilege(current_database(), 'create'),
                    array(select pubname::text from pg_catalog.pg_publication where puballtables order by 1),
                    array(select evtname::text from pg_catalog.pg_event_trigger e
                           where not exists (select from pg_catalog.pg_depend d
                                              where d.classid = 'pg_event_trigger'::regclass and d.objid = e.oid and d.deptype = 'e')
                           order by 1),
                    (select count(*) from pg_catalog.pg_largeobject_metadata),
                    (select count(*) from pg_catalog.pg_largeobject_metadata l
                      where not (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
                        and not pg_catalog.pg_has_role(l.lomowner, 'usage')
                        and not exists (select from pg_catalog.aclexplode(l.lomacl) a
                                         where a.privilege_type = 'SELECT'
                                           and (a.grantee = 0 or pg_catalog.pg_has_role(a.grantee, 'usage')))),
                    array(select name from pg_catalog.pg_settings where pending_restart order by 1)",
            &[],
        )
        .await
        .on_source(doing)?;
    let prepared = client
        .query(
            "select gid::text, database::text, extract(epoch from clock_timestamp() - prepared)::float8
               from pg_catalog.pg_prepared_xacts order by prepared",
            &[],
        )
        .await
        .on_source(doing)?;
    // Slot creation waits for transactions that write, whatever their database.
    let long = client
        .query(
            "select pid, coalesce(usename::text, ''), coalesce(application_name, ''),
                    extract(epoch from clock_timestamp() - xact_start)::float8
               from pg_catalog.pg_stat_activity
              where backend_xid is not null and pid <> pg_backend_pid() and backend_type = 'client backend'
                and clock_timestamp() - xact_start > make_interval(secs => $1)
              order by xact_start",
            &[&LONG],
        )
        .await
        .on_source(doing)?;
    let idle_slots = client
        .query(
            "select slot_name::text,
                    pg_catalog.pg_wal_lsn_diff(case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                                                    else pg_catalog.pg_current_wal_insert_lsn() end, restart_lsn)::bigint
               from pg_catalog.pg_replication_slots
              where not active and not temporary and restart_lsn is not null
              order by 2 desc",
            &[],
        )
        .await
        .on_source(doing)?;
    Ok(Surroundings {
        max_slots: row.get(0),
        max_senders: row.get(1),
        slot_wal_keep_mb: row.get(2),
        may_publish: row.get(3),
        all_tables: row.get(4),
        event_triggers: row.get(5),
        large_objects: row.get(6),
        unreadable_large_objects: row.get(7),
        pending: row.get(8),
        prepared: prepared.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(),
        long: long.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect(),
        idle_slots: idle_slots.iter().map(|row| (row.get(0), row.get(1))).collect(),
    })
}

/// Tables, whether they are moved or not, of which a publication sends updates that no key identifies:
/// an UPDATE or DELETE on them fails on the source.
pub async fn published_without_identity(client: &Client) -> Result<Vec<(TableName, String)>> {
    let rows = client
        .query(
            "select distinct on (1, 2) n.nspname::text, c.relname::text, p.pubname::text
               from pg_catalog.pg_publication_tables t
                    join pg_catalog.pg_publication p on p.pubname = t.pubname and (p.pubupdate or p.pubdelete)
                    join pg_catalog.pg_namespace n on n.nspname = t.schemaname
                    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
              where c.relreplident = 'n'
                 or c.relreplident in ('d', 'i')
                    and not exists (select from pg_catalog.pg_index i
                                     where i.indrelid = c.oid and i.indisvalid and i.indimmediate
                                       and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end)
              order by 1, 2, 3",
            &[],
        )
        .await
        .on_source(|| "look into the publications of the source".into())?;
    Ok(rows.iter().map(|row| (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2))).collect())
}

/// Of these tables those that the role does not own, with their owner and whether that is a superuser: only an
/// owner may publish.
pub async fn not_owned(client: &Client, oids: &[u32]) -> Result<Vec<(TableName, (String, bool))>> {
    let rows = client
        .query(
            "select n.nspname::text, c.relname::text, r.rolname::text, r.rolsuper
               from pg_catalog.pg_class c
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               join pg_catalog.pg_roles r on r.oid = c.relowner
              where c.oid = any ($1) and not pg_catalog.pg_has_role(c.relowner, 'usage')
              order by 1, 2",
            &[&oids],
        )
        .await
        .on_source(|| "look for owners of tables".into())?;
    let table = |row: &Row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    Ok(rows.iter().map(|row| (table(row), (row.get(2), row.get(3)))).collect())
}
