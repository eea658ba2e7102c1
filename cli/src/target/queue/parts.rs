//! Parts: taken by row lock, marked done in the transaction that stored their rows.

use std::collections::HashSet;

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::name::literal;
use crate::model::{Lsn, TableName};

/// A Part as a worker takes it.
#[derive(Debug, Clone)]
pub struct Part {
    pub id: i64,
    pub table: TableName,
    pub number: i32,
    /// Into how many Parts the table is cut.
    pub parts: i32,
    pub predicate: Option<String>,
    pub columns: Vec<String>,
    pub binary: bool,
    /// Size on the source when it was planned, in bytes.
    pub bytes: i64,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.parts == 1 { self.table.fmt(f) } else { write!(f, "{} {}/{}", self.table, self.number, self.parts) }
    }
}

/// How many rows of the queue are written by one statement.
const TOGETHER: usize = 1000;

pub async fn store_parts(client: &Client, migration: &str, parts: &[Part]) -> Result<()> {
    let doing = || "store the Parts".to_string();
    let insert = client
        .prepare(
            "insert into pgmig.part (migration, schema_name, table_name, part_number, parts, predicate, columns, format, bytes)
             select $1, schema_name, table_name, part_number, parts, predicate,
                    array(select c.name from json_array_elements_text(columns::json) with ordinality as c (name, at) order by c.at),
                    format, bytes
               from unnest($2::text[], $3::text[], $4::int[], $5::int[], $6::text[], $7::text[], $8::text[], $9::bigint[])
                    with ordinality as p (schema_name, table_name, part_number, parts, predicate, columns, format, bytes, at)
              order by at",
        )
        .await
        .on_target(doing)?;
    for parts in parts.chunks(TOGETHER) {
        let schemas: Vec<&str> = parts.iter().map(|part| part.table.schema.as_str()).collect();
        let tables: Vec<&str> = parts.iter().map(|part| part.table.table.as_str()).collect();
        let numbers: Vec<i32> = parts.iter().map(|part| part.number).collect();
        let counts: Vec<i32> = parts.iter().map(|part| part.parts).collect();
        let predicates: Vec<Option<&str>> = parts.iter().map(|part| part.predicate.as_deref()).collect();
        let columns: Vec<String> = parts.iter().map(|part| serde_json::json!(part.columns).to_string()).collect();
        let formats: Vec<&str> = parts.iter().map(|part| if part.binary { "binary" } else { "text" }).collect();
        let bytes: Vec<i64> = parts.iter().map(|part| part.bytes).collect();
        client
            .execute(
                &insert,
                &[&migration, &schemas, &tables, &numbers, &counts, &predicates, &columns, &formats, &bytes],
            )
            .await
            .on_target(doing)?;
    }
    Ok(())
}

const PART_COLUMNS: &str =
    "part_id, schema_name, table_name, part_number, parts, predicate, columns, format = 'binary', bytes";

fn part(row: &tokio_postgres::Row) -> Part {
    Part {
        id: row.get(0),
        table: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        number: row.get(3),
        parts: row.get(4),
        predicate: row.get(5),
        columns: row.get(6),
        binary: row.get(7),
        bytes: row.get(8),
    }
}

/// Where a worker is in the queue: behind it, all Parts are done or somebody else's.
pub type Place = (i64, i64);
/// Before the largest Part.
pub const FRONT: Place = (i64::MAX, i64::MAX);

/// Takes up to `most` of the largest Parts behind `place` that nobody has, none larger than
/// `bytes_max`; inside a transaction, whose end gives them back or marks them. The place is what keeps a
/// queue of thousands from being read from its front for each.
pub async fn take_parts(
    client: &Client,
    migration: &str,
    place: Place,
    bytes_max: i64,
    most: i64,
) -> Result<Vec<Part>> {
    let rows = client
        .query(
            &format!(
                "select {PART_COLUMNS}
                   from pgmig.part
                  where migration = $1 and state = 'pending' and (bytes, part_id) < ($2, $3) and bytes <= $4
                  order by bytes desc, part_id desc
                  limit $5 for update skip locked"
            ),
            &[&migration, &place.0, &place.1, &bytes_max, &most],
        )
        .await
        .on_target(|| "take a Part".into())?;
    Ok(rows.iter().map(part).collect())
}

/// Takes this Part if it is not done and nobody has it.
pub async fn take_part(client: &Client, part_id: i64) -> Result<Option<Part>> {
    let row = client
        .query_opt(
            &format!(
                "select {PART_COLUMNS} from pgmig.part where part_id = $1 and state = 'pending' for update skip locked"
            ),
            &[&part_id],
        )
        .await
        .on_target(|| "take a Part".into())?;
    Ok(row.as_ref().map(part))
}

/// What became of a Part.
#[derive(Debug, Clone)]
pub struct Copied {
    pub id: i64,
    pub rows: u64,
    /// Bytes of the COPY stream.
    pub bytes: u64,
}

/// Marks Parts done, in the transaction that stored their rows, with the tag of the snapshot they were
/// read under and a position behind which the tag says nothing.
pub async fn finish_parts(client: &Client, parts: &[Copied], tag: &str, lsn: Lsn) -> Result<()> {
    let values: Vec<String> =
        parts.iter().map(|part| format!("({}, {}::bigint, {}::bigint)", part.id, part.rows, part.bytes)).collect();
    client
        .batch_execute(&format!(
            "update pgmig.part p
                set state = 'done', copied_rows = v.rows, copied_bytes = v.bytes, snapshot = {}, snapshot_lsn = '{lsn}',
                    started_at = now(), finished_at = clock_timestamp()
               from (values {}) as v (id, rows, bytes)
              where p.part_id = v.id",
            literal(tag),
            values.join(", ")
        ))
        .await
        .on_target(|| "mark Parts done".into())
}

/// Empties a table that is gone from the source and marks all its Parts done: what the stream holds of
/// it lies before the tag. One transaction.
pub async fn finish_dropped(client: &Client, migration: &str, table: &TableName, tag: &str, lsn: Lsn) -> Result<()> {
    client
        .batch_execute(&format!(
            "begin;
             update pgmig.part
                set state = 'done', copied_rows = 0, copied_bytes = 0, snapshot = {tag}, snapshot_lsn = '{lsn}',
                    started_at = now(), finished_at = clock_timestamp()
              where migration = {migration} and schema_name = {schema} and table_name = {name};
             truncate only {sql};
             commit",
            tag = literal(tag),
            migration = literal(migration),
            schema = literal(&table.schema),
            name = literal(&table.table),
            sql = table.sql(),
        ))
        .await
        .on_target(|| format!("empty {table}, which the source has no more"))
}

/// Which of the tables have no Part left to copy.
pub async fn whole(client: &Client, migration: &str, tables: &[TableName]) -> Result<Vec<TableName>> {
    let (schemas, names) = names(tables);
    let rows = client
        .query(
            "select t.schema_name, t.table_name
               from unnest($2::text[], $3::text[]) as t (schema_name, table_name)
              where not exists (select from pgmig.part p
                                 where p.migration = $1 and p.schema_name = t.schema_name
                                   and p.table_name = t.table_name and p.state = 'pending')",
            &[&migration, &schemas, &names],
        )
        .await
        .on_target(|| "look which tables are copied".into())?;
    Ok(rows.iter().map(table_name).collect())
}

/// The backend of this session.
pub async fn session_pid(client: &Client) -> Result<i32> {
    let row = client
        .query_one("select pg_catalog.pg_backend_pid()", &[])
        .await
        .on_target(|| "read the number of a session".into())?;
    Ok(row.get(0))
}

/// Ends a session of ours whose connection is broken, should the server not have noticed: what it has
/// taken is free then.
pub async fn end_session(client: &Client, pid: i32) -> Result<()> {
    client
        .execute(
            "select pg_catalog.pg_terminate_backend(pid, 5000) from pg_catalog.pg_stat_activity
              where pid = $1 and application_name like 'pgmig %'",
            &[&pid],
        )
        .await
        .on_target(|| "end a broken session".into())?;
    Ok(())
}

pub(super) fn table_name(row: &tokio_postgres::Row) -> TableName {
    TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))
}

/// Names as two arrays, for `unnest`.
pub(super) fn names(tables: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip()
}

/// Parts that are not done.
pub async fn parts_left(client: &Client, migration: &str) -> Result<i64> {
    let row = client
        .query_one("select count(*) from pgmig.part where migration = $1 and state = 'pending'", &[&migration])
        .await
        .on_target(|| "count the Parts left".into())?;
    Ok(row.get(0))
}

/// Parts that are done.
pub async fn parts_done(client: &Client, migration: &str) -> Result<i64> {
    let row = client
        .query_one("select count(*) from pgmig.part where migration = $1 and state = 'done'", &[&migration])
        .await
        .on_target(|| "count the Parts that are done".into())?;
    Ok(row.get(0))
}

/// Tables whose copy a crash left half done. Their Parts would come from two snapshots, and only a
/// table as a whole can be reconciled with the stream, so it is emptied and begun again.
pub async fn restart_split_tables(client: &Client, migration: &str) -> Result<Vec<TableName>> {
    let doing = || "begin half copied tables again".to_string();
    let rows = client
        .query(
            "select schema_name, table_name from pgmig.part
              where migration = $1 and parts > 1 and schema_name <> 'pg_catalog'
              group by schema_name, table_name
             having bool_or(state = 'done') and bool_or(state = 'pending')",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    let tables: Vec<TableName> =
        rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect();
    for table in &tables {
        client.batch_execute(&format!("begin; truncate only {}", table.sql())).await.on_target(doing)?;
        client
            .execute(
                "update pgmig.part
                    set state = 'pending', copied_rows = null, copied_bytes = null, snapshot = null, snapshot_lsn = null,
                        started_at = null, finished_at = null
                  where migration = $1 and schema_name = $2 and table_name = $3",
                &[&migration, &table.schema, &table.table],
            )
            .await
            .on_target(doing)?;
        client.batch_execute("commit").await.on_target(doing)?;
    }
    Ok(tables)
}

/// Lets a table be copied again by the next run. One Part of it is enough: a table of which some are done
/// and some are not is emptied and begun anew.
pub async fn copy_again(client: &Client, migration: &str, table: &TableName) -> Result<()> {
    client
        .execute(
            "update pgmig.part
                set state = 'pending', copied_rows = null, copied_bytes = null, snapshot = null, snapshot_lsn = null,
                    started_at = null, finished_at = null
              where migration = $1 and schema_name = $2 and table_name = $3 and part_number = 1",
            &[&migration, &table.schema, &table.table],
        )
        .await
        .on_target(|| format!("let {table} be copied again"))?;
    Ok(())
}

/// Tables that are to be copied, with at least one Part left.
pub async fn pending_tables(client: &Client, migration: &str) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            "select distinct schema_name, table_name from pgmig.part where migration = $1 and state = 'pending'",
            &[&migration],
        )
        .await
        .on_target(|| "list the tables that are to be copied".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// Has a table that is copied again copied with the columns that it has on the target by now.
pub async fn renew_columns(client: &Client, migration: &str, table: &TableName) -> Result<()> {
    client
        .execute(
            "update pgmig.part
                set columns = array(select a.attname::text from pg_catalog.pg_attribute a
                                     where a.attrelid = $4::text::regclass and a.attnum > 0
                                       and not a.attisdropped and a.attgenerated = ''
                                     order by a.attnum),
                    format = 'text'
              where migration = $1 and schema_name = $2 and table_name = $3",
            &[&migration, &table.schema, &table.table, &table.sql()],
        )
        .await
        .on_target(|| format!("plan the copy of {table} anew"))?;
    Ok(())
}

/// The snapshot tag of every table that is copied, and the position behind which it says nothing.
pub async fn tags(client: &Client, migration: &str) -> Result<Vec<(TableName, Option<(String, Lsn)>)>> {
    let rows = client
        .query(
            "select distinct schema_name, table_name, snapshot, snapshot_lsn
               from pgmig.part where migration = $1 and schema_name <> 'pg_catalog'",
            &[&migration],
        )
        .await
        .on_target(|| "read the tags of the copies".into())?;
    Ok(rows
        .iter()
        .map(|row| {
            (
                TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
                row.get::<_, Option<String>>(2).zip(row.get::<_, Option<Lsn>>(3)),
            )
        })
        .collect())
}

/// The tables that are copied.
pub async fn tables(client: &Client, migration: &str) -> Result<HashSet<TableName>> {
    let rows = client
        .query("select distinct schema_name, table_name from pgmig.part where migration = $1", &[&migration])
        .await
        .on_target(|| "list the tables of the migration".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
