//! Parts: taken by row lock, marked done in the transaction that stored their rows.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::leaves::{Leaf, leaf};
use crate::connect::Side;
use crate::error::{Context, Result};
use crate::model::name::literal;
use crate::model::{KeyRange, Lsn, TableName};
use crate::target::layout::rows_of;

/// A Part as a worker takes it.
#[derive(Debug, Clone)]
pub struct Part {
    pub id: i64,
    pub table: TableName,
    /// The partition of the source that is read, where those of the table all go into one table.
    pub leaf: Option<Leaf>,
    pub number: i32,
    /// Into how many Parts the table is cut.
    pub parts: i32,
    pub predicate: Option<String>,
    /// Where it is a range of keys that every server puts in the same order.
    pub range: Option<KeyRange>,
    pub columns: Vec<String>,
    pub binary: bool,
    /// Size on the source when it was planned, in bytes.
    pub bytes: i64,
    /// About how many there were then.
    pub rows: Option<i64>,
    /// About how many bytes of COPY they are.
    pub copy_bytes: Option<i64>,
}

impl Part {
    /// What is read of the source.
    pub fn read(&self) -> &TableName {
        self.leaf.as_ref().map_or(&self.table, |leaf| &leaf.name)
    }
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
            "insert into pgmig.part (migration, schema_name, table_name, part_number, parts, predicate, columns, format, bytes,
                                     key_column, key_type, key_lower, key_upper, planned_rows, planned_copy_bytes,
                                     leaf_schema, leaf_name, leaf_oid, leaf_attached, leaf_condition)
             select $1, schema_name, table_name, part_number, parts, predicate,
                    array(select c.name from json_array_elements_text(columns::json) with ordinality as c (name, at) order by c.at),
                    format, bytes, key_column, key_type, key_lower, key_upper, planned_rows, planned_copy_bytes,
                    leaf_schema, leaf_name, leaf_oid, leaf_attached, leaf_condition
               from unnest($2::text[], $3::text[], $4::int[], $5::int[], $6::text[], $7::text[], $8::text[], $9::bigint[],
                           $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[],
                           $16::text[], $17::text[], $18::oid[], $19::text[], $20::text[])
                    with ordinality as p (schema_name, table_name, part_number, parts, predicate, columns, format, bytes,
                                          key_column, key_type, key_lower, key_upper, planned_rows, planned_copy_bytes,
                                          leaf_schema, leaf_name, leaf_oid, leaf_attached, leaf_condition, at)
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
        let ranges = || parts.iter().map(|part| part.range.as_ref());
        let key_columns: Vec<Option<&str>> = ranges().map(|range| Some(range?.column.as_str())).collect();
        let key_types: Vec<Option<&str>> = ranges().map(|range| Some(range?.type_name.as_str())).collect();
        let lower: Vec<Option<&str>> = ranges().map(|range| range?.lower.as_deref()).collect();
        let upper: Vec<Option<&str>> = ranges().map(|range| range?.upper.as_deref()).collect();
        let rows: Vec<Option<i64>> = parts.iter().map(|part| part.rows).collect();
        let copy_bytes: Vec<Option<i64>> = parts.iter().map(|part| part.copy_bytes).collect();
        let leaves = || parts.iter().map(|part| part.leaf.as_ref());
        let leaf_schemas: Vec<Option<&str>> = leaves().map(|leaf| Some(leaf?.name.schema.as_str())).collect();
        let leaf_names: Vec<Option<&str>> = leaves().map(|leaf| Some(leaf?.name.table.as_str())).collect();
        let oids: Vec<Option<u32>> = leaves().map(|leaf| Some(leaf?.oid)).collect();
        let attached: Vec<Option<&str>> = leaves().map(|leaf| Some(leaf?.attached.as_str())).collect();
        let conditions: Vec<Option<&str>> = leaves().map(|leaf| leaf?.condition.as_deref()).collect();
        client
            .execute(
                &insert,
                &[
                    &migration,
                    &schemas,
                    &tables,
                    &numbers,
                    &counts,
                    &predicates,
                    &columns,
                    &formats,
                    &bytes,
                    &key_columns,
                    &key_types,
                    &lower,
                    &upper,
                    &rows,
                    &copy_bytes,
                    &leaf_schemas,
                    &leaf_names,
                    &oids,
                    &attached,
                    &conditions,
                ],
            )
            .await
            .on_target(doing)?;
    }
    Ok(())
}

const PART_COLUMNS: &str = "part_id, schema_name, table_name, part_number, parts, predicate, columns, format = 'binary', bytes, \
                            planned_rows, planned_copy_bytes, key_column, key_type, key_lower, key_upper, \
                            leaf_schema, leaf_name, leaf_oid, leaf_attached, leaf_condition";

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
        rows: row.get(9),
        copy_bytes: row.get(10),
        range: range(row, 11),
        leaf: leaf(row, 15),
    }
}

/// The range of keys in four columns of a row.
fn range(row: &tokio_postgres::Row, at: usize) -> Option<KeyRange> {
    Some(KeyRange {
        column: row.get::<_, Option<String>>(at)?,
        type_name: row.get::<_, Option<String>>(at + 1)?,
        lower: row.get(at + 2),
        upper: row.get(at + 3),
    })
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
    let rows = rows_of(client, Side::Target, table).await?;
    client
        .batch_execute(&format!(
            "begin;
             update pgmig.part
                set state = 'done', copied_rows = 0, copied_bytes = 0, snapshot = {tag}, snapshot_lsn = '{lsn}',
                    started_at = now(), finished_at = clock_timestamp()
              where migration = {migration} and schema_name = {schema} and table_name = {name};
             truncate {rows};
             commit",
            tag = literal(tag),
            migration = literal(migration),
            schema = literal(&table.schema),
            name = literal(&table.table),
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

/// Whether there are tables, and none has a Part that is done. Large objects are none: the stream does not have them.
pub async fn all_tables_pending(client: &Client, migration: &str) -> Result<bool> {
    let row = client
        .query_one(
            "select coalesce(pg_catalog.bool_and(state <> 'done'), false)
               from pgmig.part where migration = $1 and schema_name <> 'pg_catalog'",
            &[&migration],
        )
        .await
        .on_target(|| "look whether a table is copied".into())?;
    Ok(row.get(0))
}

/// Begins tables again whose copy cannot go on where it stopped: half copied ones whose Parts would come
/// from two snapshots, which only a table as a whole can be reconciled with, unless every change says by
/// its key to which Part it belongs (`keep_ranges`); and those that are to be copied again. They are emptied.
pub async fn restart_split_tables(client: &Client, migration: &str, keep_ranges: bool) -> Result<Vec<TableName>> {
    let doing = || "begin half copied tables again".to_string();
    let rows = client
        .query(
            "select schema_name, table_name, bool_or(state = 'done') from pgmig.part
              where migration = $1 and (parts > 1 or leaf_name is not null) and schema_name <> 'pg_catalog'
              group by schema_name, table_name
             having bool_or(state = 'pending') and (not $2 or bool_or(key_column is null) or bool_and(state = 'pending'))",
            &[&migration, &keep_ranges],
        )
        .await
        .on_target(doing)?;
    let mut half_copied = Vec::new();
    for row in &rows {
        let table = table_name(row);
        client.batch_execute("begin").await.on_target(doing)?;
        empty(client, &table).await?;
        set_pending(client, migration, &table).await?;
        client.batch_execute("commit").await.on_target(doing)?;
        if row.get(2) {
            half_copied.push(table);
        }
    }
    Ok(half_copied)
}

/// A table whose Parts must all be read under one snapshot: cut, and not by ranges of keys that tell them
/// apart.
pub async fn needs_one_snapshot(client: &Client, migration: &str) -> Result<Option<TableName>> {
    let row = client
        .query_opt(
            "select schema_name, table_name from pgmig.part
              where migration = $1 and state = 'pending' and schema_name <> 'pg_catalog'
                and (parts > 1 and key_column is null or leaf_name is not null)
              limit 1",
            &[&migration],
        )
        .await
        .on_target(|| "look how tables are cut".into())?;
    Ok(row.as_ref().map(table_name))
}

/// Takes all rows out of a table, in the open transaction. TRUNCATE where no foreign key refers to it.
pub async fn empty(client: &Client, table: &TableName) -> Result<()> {
    let sql = match is_referred_to(client, table).await? {
        // What refers to its rows stays: they come again.
        true => "set local session_replication_role = replica; delete from",
        false => "truncate",
    };
    let rows = rows_of(client, Side::Target, table).await?;
    client.batch_execute(&format!("{sql} {rows}")).await.on_target(|| format!("empty {table}"))
}

/// Whether foreign keys of other tables refer to it: TRUNCATE refuses that.
pub async fn is_referred_to(client: &Client, table: &TableName) -> Result<bool> {
    let row = client
        .query_one(
            "select exists (select from pg_catalog.pg_constraint
                             where contype = 'f' and confrelid = $1::text::regclass and conrelid <> confrelid)",
            &[&table.sql()],
        )
        .await
        .on_target(|| format!("look which foreign keys refer to {table}"))?;
    Ok(row.get(0))
}

pub(super) async fn set_pending(client: &Client, migration: &str, table: &TableName) -> Result<()> {
    client
        .execute(
            "update pgmig.part
                set state = 'pending', copied_rows = null, copied_bytes = null, snapshot = null, snapshot_lsn = null,
                    started_at = null, finished_at = null
              where migration = $1 and schema_name = $2 and table_name = $3",
            &[&migration, &table.schema, &table.table],
        )
        .await
        .on_target(|| format!("let {table} be copied again"))?;
    Ok(())
}

/// Lets a table be copied again, as a whole, by the next run.
pub async fn copy_again(client: &Client, migration: &str, table: &TableName) -> Result<()> {
    set_pending(client, migration, table).await
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

/// Has tables copied with the columns that they have on the target by now. Those that have changed go as text,
/// since their types may be others too; so do types of the user's, and those that `never_binary` matches.
pub async fn renew_columns(client: &Client, migration: &str, tables: &[TableName], never_binary: &str) -> Result<()> {
    let (schemas, names) = names(tables);
    client
        .execute(
            "update pgmig.part p
                set columns = now.columns, format = 'text'
               from unnest($2::text[], $3::text[]) as t (schema_name, table_name),
                    lateral (select array_agg(a.attname::text order by a.attnum) filter (where a.attgenerated = '') as columns,
                                    bool_or(a.atttypid >= 10000 or y.typname ~ $4) as of_own_types
                               from pg_catalog.pg_attribute a
                                    join pg_catalog.pg_type y on y.oid = a.atttypid
                              where a.attrelid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', t.schema_name, t.table_name))
                                and a.attnum > 0 and not a.attisdropped) now
              where p.migration = $1 and p.schema_name = t.schema_name and p.table_name = t.table_name
                and (p.columns <> now.columns or now.of_own_types)",
            &[&migration, &schemas, &names, &never_binary],
        )
        .await
        .on_target(|| "plan the copy of altered tables anew".into())?;
    Ok(())
}

/// What a Part holds already.
pub struct PartTag {
    pub table: TableName,
    /// The tag, and the position behind which it says nothing; None: the Part is not copied.
    pub tag: Option<(String, Lsn)>,
    pub range: Option<KeyRange>,
}

/// The snapshot tag of every Part, in their order; of a table whose Parts carry one tag, one row.
pub async fn tags(client: &Client, migration: &str) -> Result<Vec<PartTag>> {
    let rows = client
        .query(
            "select schema_name, table_name, snapshot, snapshot_lsn, key_column, key_type, key_lower, key_upper
               from (select p.*,
                            min(coalesce(snapshot, '')) over of_table = max(coalesce(snapshot, '')) over of_table as one_tag
                       from pgmig.part p
                      where migration = $1 and schema_name <> 'pg_catalog'
                        -- Tables of extensions are copied by a condition that changes do not know.
                        and not (parts = 1 and predicate is not null)
                     window of_table as (partition by schema_name, table_name)) p
              where part_number = 1 or not one_tag
              order by schema_name, table_name, part_number",
            &[&migration],
        )
        .await
        .on_target(|| "read the tags of the copies".into())?;
    let part_tag = |row: &tokio_postgres::Row| PartTag {
        table: table_name(row),
        tag: row.get::<_, Option<String>>(2).zip(row.get::<_, Option<Lsn>>(3)),
        range: range(row, 4),
    };
    Ok(rows.iter().map(part_tag).collect())
}

/// The tables that are copied.
pub async fn tables(client: &Client, migration: &str) -> Result<HashSet<TableName>> {
    let rows = client
        .query("select distinct schema_name, table_name from pgmig.part where migration = $1", &[&migration])
        .await
        .on_target(|| "list the tables of the migration".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
