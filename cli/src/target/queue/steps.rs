//! Steps: what is made on the target, each done in the transaction that made it.

use tokio_postgres::Client;

use super::parts::{names, table_name};
use crate::error::{Context, Result};
use crate::model::TableName;

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

impl Step {
    /// Whether its statement changes settings to the end of the transaction: it shares none.
    pub fn has_settings(&self) -> bool {
        self.statement.starts_with("SET LOCAL ")
    }
}

/// How many rows of the queue are written by one statement.
const TOGETHER: usize = 1000;

pub async fn store_steps(client: &Client, migration: &str, steps: &[Step]) -> Result<()> {
    let doing = || "store the steps".to_string();
    let insert = client
        .prepare(
            "insert into pgmig.step (migration, stage, kind, schema_name, table_name, name, statement, blocking)
             select $1, stage, kind, schema_name, table_name, name, statement, blocking
               from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[])
                    with ordinality as s (stage, kind, schema_name, table_name, name, statement, blocking, at)
              order by at",
        )
        .await
        .on_target(doing)?;
    for steps in steps.chunks(TOGETHER) {
        let stages: Vec<&str> = steps.iter().map(|step| step.stage.as_str()).collect();
        let kinds: Vec<&str> = steps.iter().map(|step| step.kind.as_str()).collect();
        let schemas: Vec<Option<&str>> = steps.iter().map(|s| s.table.as_ref().map(|t| t.schema.as_str())).collect();
        let tables: Vec<Option<&str>> = steps.iter().map(|s| s.table.as_ref().map(|t| t.table.as_str())).collect();
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        let statements: Vec<&str> = steps.iter().map(|step| step.statement.as_str()).collect();
        let blocking: Vec<bool> = steps.iter().map(|step| step.blocking).collect();
        client
            .execute(&insert, &[&migration, &stages, &kinds, &schemas, &tables, &names, &statements, &blocking])
            .await
            .on_target(doing)?;
    }
    Ok(())
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

/// Marks what needs all rows of its table as of one moment.
pub async fn mark_one_moment(client: &Client, migration: &str, steps: &[(TableName, String)]) -> Result<()> {
    for (table, name) in steps {
        client
            .execute(
                "update pgmig.step set one_moment = true
                  where migration = $1 and schema_name = $2 and table_name = $3 and name = $2 || '.' || $4
                    and stage in ('index', 'constraint')",
                &[&migration, &table.schema, &table.table, name],
            )
            .await
            .on_target(|| format!("store the steps of {table}"))?;
    }
    Ok(())
}

/// Puts off what needs all rows of a table as of one moment, where Parts came from several snapshots: it
/// comes when replay has passed the newest of them.
pub async fn put_off_one_moment(client: &Client, migration: &str) -> Result<()> {
    client
        .execute(
            "update pgmig.step s set stage = 'unique'
              where s.migration = $1 and s.one_moment and s.state = 'pending' and s.stage in ('index', 'constraint')
                and (select count(distinct p.snapshot) from pgmig.part p
                      where p.migration = s.migration and p.schema_name = s.schema_name and p.table_name = s.table_name) > 1",
            &[&migration],
        )
        .await
        .on_target(|| "put unique indexes off".into())?;
    Ok(())
}

/// Tables that are copied and lack indexes, constraints or statistics, and about how many bytes each
/// holds. With `rowless` also those that have no rows to copy; None stands for steps that belong to no
/// table. While leaves are copied, their root is locked.
pub async fn tables_to_build(client: &Client, migration: &str, rowless: bool) -> Result<Vec<(Option<TableName>, i64)>> {
    let rows = client
        .query(
            "select s.schema_name, s.table_name, coalesce(p.bytes, 0)::bigint
               from (select distinct schema_name, table_name
                       from pgmig.step
                      where migration = $1 and state = 'pending' and stage in ('index', 'constraint', 'analyze')) s
                    left join (select schema_name, table_name, sum(bytes) as bytes, bool_or(state = 'pending') as pending
                                 from pgmig.part
                                where migration = $1
                                group by schema_name, table_name) p using (schema_name, table_name)
              where p.pending is not true and ($2 or p.pending is not null)",
            &[&migration, &rowless],
        )
        .await
        .on_target(|| "look which tables lack indexes".into())?;
    let name = |row: &tokio_postgres::Row| row.get::<_, Option<String>>(0).map(|_| table_name(row));
    Ok(rows.iter().map(|row| (name(row), row.get(2))).collect())
}

/// The steps that tables still need: indexes, then constraints, then statistics, table by table.
pub async fn table_steps(client: &Client, migration: &str, tables: &[TableName]) -> Result<Vec<Step>> {
    let (schemas, names) = names(tables);
    let rows = client
        .query(
            &format!(
                "select {STEP_COLUMNS}
                   from unnest($2::text[], $3::text[]) with ordinality as t (schema_name, table_name, at)
                        join pgmig.step s using (schema_name, table_name)
                  where s.migration = $1 and s.state = 'pending' and s.stage in ('index', 'constraint', 'analyze')
                  order by t.at, array_position(array['index', 'constraint', 'analyze'], s.stage), s.step_id"
            ),
            &[&migration, &schemas, &names],
        )
        .await
        .on_target(|| "read the steps of a table".into())?;
    Ok(rows.iter().map(step).collect())
}

/// Steps of indexes, constraints and statistics that belong to no table.
pub async fn loose_steps(client: &Client, migration: &str) -> Result<Vec<Step>> {
    let rows = client
        .query(
            &format!(
                "select {STEP_COLUMNS} from pgmig.step s
                  where s.migration = $1 and s.state = 'pending' and s.stage in ('index', 'constraint', 'analyze')
                    and s.schema_name is null
                  order by s.step_id"
            ),
            &[&migration],
        )
        .await
        .on_target(|| "read the steps of no table".into())?;
    Ok(rows.iter().map(step).collect())
}

/// Takes steps by their row locks, inside a transaction; false if one is done or somebody else's.
pub async fn take_steps(client: &Client, steps: &[Step]) -> Result<bool> {
    let ids: Vec<i64> = steps.iter().map(|step| step.id).collect();
    let rows = client
        .query("select from pgmig.step where step_id = any ($1) and state = 'pending' for update skip locked", &[&ids])
        .await
        .on_target(|| "take a step".into())?;
    Ok(rows.len() == steps.len())
}

/// Takes a step, and waits for whoever has it: the backend of a run that was killed goes on building.
/// False if it is done.
pub async fn take_step(client: &Client, step: &Step) -> Result<bool> {
    let row = client
        .query_opt("select from pgmig.step where step_id = $1 and state = 'pending' for update", &[&step.id])
        .await
        .on_target(|| format!("take {} {}", step.kind, step.name))?;
    Ok(row.is_some())
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

/// Gives up what is left at the end of a migration: it is told with what failed.
pub async fn give_up_rest(client: &Client, migration: &str) -> Result<()> {
    client
        .execute("update pgmig.step set state = 'failed' where migration = $1 and state = 'pending'", &[&migration])
        .await
        .on_target(|| "record what was not made".into())?;
    Ok(())
}

/// The statement that marks steps done, for the transaction that did them.
pub fn finish_steps_sql(steps: &[Step]) -> String {
    let ids: Vec<String> = steps.iter().map(|step| step.id.to_string()).collect();
    format!(
        "update pgmig.step set state = 'done', sqlstate = null, message = null,
                started_at = now(), finished_at = clock_timestamp() where step_id in ({})",
        ids.join(", ")
    )
}

/// Gives up a step that was tried often enough; it keeps what its last failure said.
pub async fn give_up_step(client: &Client, step: &Step) -> Result<()> {
    client
        .execute("update pgmig.step set state = 'failed' where step_id = $1 and state = 'pending'", &[&step.id])
        .await
        .on_target(|| format!("give up {} {}", step.kind, step.name))?;
    Ok(())
}

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

/// Whether a failure is one of the moment: a deadlock, a lack of resources, a lock, a cancel.
pub fn passes(sqlstate: &str) -> bool {
    ["40", "53", "57"].iter().any(|class| sqlstate.starts_with(class)) || sqlstate == "55P03"
}

/// Records that a step failed. It stays pending, so that it is tried again, if it is blocking or the
/// failure was one of the moment: a deadlock, a lack of resources, a lock, a cancel.
pub async fn fail_step(client: &Client, step: &Step, sqlstate: &str, message: &str) -> Result<()> {
    let passing = passes(sqlstate);
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
