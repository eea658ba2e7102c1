//! Parts and steps as a queue on the target. A work item is taken by its row lock, so a dead worker's
//! claim is gone with its connection, and done in the transaction that did the work.

use std::collections::HashSet;

use tokio_postgres::Client;

use crate::error::{Context, Result};
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

/// An object to be made on the target.
#[derive(Debug, Clone)]
pub struct Step {
    /// 0 for a step that is not stored yet.
    pub id: i64,
    pub stage: String,
    pub kind: String,
    pub table: Option<TableName>,
    pub name: String,
    pub statement: String,
    pub blocking: bool,
}

pub async fn store_parts(client: &Client, migration: &str, parts: &[Part]) -> Result<()> {
    let insert = client
        .prepare(
            "insert into pgmig.part (migration, schema_name, table_name, part_number, parts, predicate, columns, format, bytes)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .await
        .on_target(|| "store the Parts".into())?;
    for part in parts {
        let format = if part.binary { "binary" } else { "text" };
        client
            .execute(
                &insert,
                &[
                    &migration,
                    &part.table.schema,
                    &part.table.table,
                    &part.number,
                    &part.parts,
                    &part.predicate,
                    &part.columns,
                    &format,
                    &part.bytes,
                ],
            )
            .await
            .on_target(|| format!("store Part {part}"))?;
    }
    Ok(())
}

pub async fn store_steps(client: &Client, migration: &str, steps: &[Step]) -> Result<()> {
    let insert = client
        .prepare(
            "insert into pgmig.step (migration, stage, kind, schema_name, table_name, name, statement, blocking)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .await
        .on_target(|| "store the steps".into())?;
    for step in steps {
        let (schema, table) = (step.table.as_ref().map(|t| &t.schema), step.table.as_ref().map(|t| &t.table));
        client
            .execute(
                &insert,
                &[&migration, &step.stage, &step.kind, &schema, &table, &step.name, &step.statement, &step.blocking],
            )
            .await
            .on_target(|| format!("store step {} {}", step.kind, step.name))?;
    }
    Ok(())
}

/// Takes the largest Part that nobody has; inside a transaction, whose end gives it back or marks it.
pub async fn take_part(client: &Client, migration: &str) -> Result<Option<Part>> {
    let row = client
        .query_opt(
            "select part_id, schema_name, table_name, part_number, parts, predicate, columns, format = 'binary', bytes
               from pgmig.part
              where migration = $1 and state = 'pending'
              order by bytes desc, part_id
              limit 1 for update skip locked",
            &[&migration],
        )
        .await
        .on_target(|| "take a Part".into())?;
    Ok(row.map(|row| Part {
        id: row.get(0),
        table: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        number: row.get(3),
        parts: row.get(4),
        predicate: row.get(5),
        columns: row.get(6),
        binary: row.get(7),
        bytes: row.get(8),
    }))
}

/// Marks a Part done, in the transaction that stored its rows.
pub async fn finish_part(client: &Client, part: &Part, rows: u64, bytes: u64, tag: &str, lsn: Lsn) -> Result<()> {
    client
        .execute(
            "update pgmig.part
                set state = 'done', copied_rows = $2, copied_bytes = $3, snapshot = $4, snapshot_lsn = $5,
                    started_at = now(), finished_at = clock_timestamp()
              where part_id = $1",
            &[&part.id, &(rows as i64), &(bytes as i64), &tag, &lsn],
        )
        .await
        .on_target(|| format!("mark {part} done"))?;
    Ok(())
}

/// Parts that are not done.
pub async fn parts_left(client: &Client, migration: &str) -> Result<i64> {
    let row = client
        .query_one("select count(*) from pgmig.part where migration = $1 and state = 'pending'", &[&migration])
        .await
        .on_target(|| "count the Parts left".into())?;
    Ok(row.get(0))
}

/// Tables whose copy a crash left half done. Their Parts would come from two snapshots, and only a
/// table as a whole can be reconciled with the stream, so it is emptied and begun again.
pub async fn restart_split_tables(client: &Client, migration: &str) -> Result<Vec<TableName>> {
    let doing = || "begin half copied tables again".to_string();
    let rows = client
        .query(
            "select schema_name, table_name from pgmig.part
              where migration = $1 and parts > 1
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

/// The snapshot tag of every table that is copied, and the position behind which it says nothing.
pub async fn tags(client: &Client, migration: &str) -> Result<Vec<(TableName, Option<(String, Lsn)>)>> {
    let rows = client
        .query(
            "select distinct schema_name, table_name, snapshot, snapshot_lsn from pgmig.part where migration = $1",
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

fn step(row: &tokio_postgres::Row) -> Step {
    Step {
        id: row.get(0),
        stage: row.get(1),
        kind: row.get(2),
        table: match (row.get::<_, Option<String>>(3), row.get::<_, Option<String>>(4)) {
            (Some(schema), Some(table)) => Some(TableName { schema, table }),
            _ => None,
        },
        name: row.get(5),
        statement: row.get(6),
        blocking: row.get(7),
    }
}
const STEP_COLUMNS: &str = "s.step_id, s.stage, s.kind, s.schema_name, s.table_name, s.name, s.statement, s.blocking";

/// Steps of a stage that are not done, in their order.
pub async fn pending_steps(client: &Client, migration: &str, stage: &str) -> Result<Vec<Step>> {
    let rows = client
        .query(
            &format!(
                "select {STEP_COLUMNS} from pgmig.step s
                  where migration = $1 and stage = $2 and state = 'pending' order by step_id"
            ),
            &[&migration, &stage],
        )
        .await
        .on_target(|| format!("read the steps of stage {stage}"))?;
    Ok(rows.iter().map(step).collect())
}

/// Takes a step of a table that is copied: its indexes first, several at once, then its constraints,
/// then its statistics. Inside a transaction.
pub async fn take_table_step(client: &Client, migration: &str) -> Result<Option<Step>> {
    let row = client
        .query_opt(
            &format!(
                "select {STEP_COLUMNS}
                   from pgmig.step s
                  where s.migration = $1 and s.state = 'pending' and s.stage in ('index', 'constraint', 'analyze')
                    and not exists (select from pgmig.part p
                                     where p.migration = s.migration and p.schema_name = s.schema_name
                                       and p.table_name = s.table_name and p.state = 'pending')
                    and not exists (select from pgmig.step e
                                     where e.migration = s.migration and e.schema_name = s.schema_name
                                       and e.table_name = s.table_name and e.state = 'pending'
                                       and e.stage in ('index', 'constraint')
                                       and (e.stage = 'index' and s.stage <> 'index'
                                            or e.stage = 'constraint' and s.stage = 'analyze'
                                            or e.stage = 'constraint' and s.stage = 'constraint' and e.step_id < s.step_id))
                  order by s.step_id
                  limit 1 for update of s skip locked"
            ),
            &[&migration],
        )
        .await
        .on_target(|| "take a step".into())?;
    Ok(row.as_ref().map(step))
}

/// Steps of tables that are not done.
pub async fn table_steps_left(client: &Client, migration: &str) -> Result<i64> {
    let row = client
        .query_one(
            "select count(*) from pgmig.step
              where migration = $1 and state = 'pending' and stage in ('index', 'constraint', 'analyze')",
            &[&migration],
        )
        .await
        .on_target(|| "count the steps left".into())?;
    Ok(row.get(0))
}

/// Marks a step done, in the transaction that did it.
pub async fn finish_step(client: &Client, step: &Step) -> Result<()> {
    client
        .execute(
            "update pgmig.step set state = 'done', sqlstate = null, message = null,
                    started_at = now(), finished_at = clock_timestamp() where step_id = $1",
            &[&step.id],
        )
        .await
        .on_target(|| format!("mark {} {} done", step.kind, step.name))?;
    Ok(())
}

/// Records that a step failed. It stays pending, so that it is tried again, if it is blocking or the
/// failure was one of the moment: a deadlock, a lack of resources, a lock, a cancel.
pub async fn fail_step(client: &Client, step: &Step, sqlstate: &str, message: &str) -> Result<()> {
    let passing = ["40", "53", "57"].iter().any(|class| sqlstate.starts_with(class)) || sqlstate == "55P03";
    client
        .execute(
            "update pgmig.step
                set state = case when blocking or $4 then 'pending' else 'failed' end,
                    sqlstate = $2, message = $3, finished_at = clock_timestamp()
              where step_id = $1",
            &[&step.id, &sqlstate, &message, &passing],
        )
        .await
        .on_target(|| format!("record the failure of {} {}", step.kind, step.name))?;
    Ok(())
}

/// Objects that could not be made: kind, name, SQLSTATE and message.
pub async fn failed_steps(client: &Client, migration: &str) -> Result<Vec<(String, String, String, String)>> {
    let rows = client
        .query(
            "select kind, name, coalesce(sqlstate, ''), coalesce(message, '') from pgmig.step
              where migration = $1 and state = 'failed' order by step_id",
            &[&migration],
        )
        .await
        .on_target(|| "list what could not be made".into())?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
}

/// Drops the validation of a foreign key that could not be made: its failure says nothing new.
pub async fn skip_validation(client: &Client, migration: &str, foreign_key: &Step) -> Result<()> {
    client
        .execute(
            "delete from pgmig.step
              where migration = $1 and stage = 'validate' and state = 'pending' and name = $2
                and not exists (select from pgmig.step f where f.step_id = $3 and f.state = 'pending')",
            &[&migration, &foreign_key.name, &foreign_key.id],
        )
        .await
        .on_target(|| format!("drop the validation of {}", foreign_key.name))?;
    Ok(())
}

/// The tables that are copied.
pub async fn tables(client: &Client, migration: &str) -> Result<HashSet<TableName>> {
    let rows = client
        .query("select distinct schema_name, table_name from pgmig.part where migration = $1", &[&migration])
        .await
        .on_target(|| "list the tables of the migration".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
