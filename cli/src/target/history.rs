//! Reads what the schema `pgmig` knows of a migration from its begin to now, for `pgmig report`. Lists are
//! bounded: a migration of 20,000 tables makes a page that a browser still opens.

use jiff::Timestamp;
use tokio_postgres::{Client, Row};

use super::{install, progress};
use crate::cutover::Step;
use crate::error::{Context, Error, Exit, Result};
use crate::model::history::{
    Conflicts, CutoverStep, Event, Facts, Failed, LARGE_OBJECTS, Objects, SPANS, Span, Table, Verification,
};

const TABLES: i64 = 500;
const FAILED: i64 = 200;
const EVENTS: i64 = 1000;
const CUTOVER_STEPS: i64 = 400;
const VERIFICATIONS: i64 = 50;

/// What happened in one transaction of the target began at one moment: that tells them apart.
const PARTS: &str = "\
select 'copy', (array_agg(format('%s.%s', schema_name, table_name)
                          || case when parts > 1 then format(' %s/%s', part_number, parts) else '' end
                          order by bytes desc, part_id))[1],
       count(*), sum(bytes)::int8, coalesce(sum(copied_rows), 0)::int8, started_at, max(finished_at)
  from pgmig.parts
 where migration = $1 and started_at is not null
 group by started_at, state = 'done'
 order by coalesce(max(finished_at), now()) - started_at desc, started_at
 limit $2";
const STEPS: &str = "\
select (array_agg(stage order by step_id))[1],
       (array_agg(lower(kind) || ' ' || name order by stage = 'analyze', step_id))[1],
       count(*), 0::int8, 0::int8, started_at, max(finished_at)
  from pgmig.steps
 where migration = $1 and started_at is not null and state <> 'failed'
 group by started_at, state
 order by coalesce(max(finished_at), now()) - started_at desc, started_at
 limit $2";

/// All of it as it is now; an error if there is no such migration.
pub async fn facts(client: &Client, migration: &str) -> Result<Facts> {
    let flavour = install::installed(client).await?;
    let found = match flavour {
        Some(_) => progress::progress(client, Some(migration)).await?.pop(),
        None => None,
    };
    let (Some(flavour), Some(progress)) = (flavour, found) else {
        return Err(Error::new(Exit::Phase, format!("there is no migration `{migration}` on the target"))
            .hint("see them all: pgmig status"));
    };
    let sums = client
        .query_one(
            "select coalesce(sum(p.copied_rows), 0)::int8, coalesce(sum(p.copied_bytes), 0)::int8,
                    s.copy_started_at, s.copy_finished_at, current_setting('server_version')
               from pgmig.sentinel s left join pgmig.parts p using (migration)
              where s.migration = $1
              group by s.migration",
            &[&migration],
        )
        .await
        .on_target(|| "read what was copied".into())?;
    let asker = Asker { client, migration };
    Ok(Facts {
        read_at: Timestamp::now(),
        progress,
        copied_rows: sums.get(0),
        copied_bytes: sums.get(1),
        copy_started_at: sums.get(2),
        copy_finished_at: sums.get(3),
        target_version: sums.get(4),
        flavour: flavour.to_string(),
        tables: asker.tables().await?,
        objects: asker.objects().await?,
        parts: asker.spans(PARTS).await?,
        steps: asker.spans(STEPS).await?,
        failed: asker.failed().await?,
        conflicts: asker.conflicts().await?,
        cutover: asker.cutover().await?,
        verifications: asker.verifications().await?,
        events: asker.events().await?,
    })
}

struct Asker<'a> {
    client: &'a Client,
    migration: &'a str,
}

impl Asker<'_> {
    async fn rows<T>(&self, what: &str, sql: &str, most: i64, of: impl Fn(&Row) -> T) -> Result<Vec<T>> {
        let rows = self.client.query(sql, &[&self.migration, &most]).await.on_target(|| format!("read {what}"))?;
        Ok(rows.iter().map(of).collect())
    }

    async fn tables(&self) -> Result<Vec<Table>> {
        let sql = "select case when schema_name <> 'pg_catalog' then format('%s.%s', schema_name, table_name) end,
                          count(*), bool_and(state = 'done'), sum(bytes)::int8, coalesce(sum(copied_bytes), 0)::int8,
                          coalesce(sum(copied_rows), 0)::int8,
                          extract(epoch from max(finished_at) - min(started_at))::float8
                     from pgmig.parts
                    where migration = $1
                    group by schema_name, table_name
                    order by sum(bytes) desc, schema_name, table_name
                    limit $2";
        let table = |row: &Row| Table {
            name: row.get::<_, Option<String>>(0).unwrap_or_else(|| LARGE_OBJECTS.into()),
            parts: row.get(1),
            done: row.get(2),
            bytes: row.get(3),
            copied_bytes: row.get(4),
            rows: row.get(5),
            seconds: row.get(6),
        };
        self.rows("the tables", sql, TABLES, table).await
    }

    async fn objects(&self) -> Result<Vec<Objects>> {
        let sql = "select lower(kind), count(*), count(*) filter (where state = 'done'),
                          count(*) filter (where state = 'failed')
                     from pgmig.step
                    where migration = $1 and stage not in ('analyze', 'validate')
                    group by 1
                    order by 2 desc, 1
                    limit $2";
        let objects = |row: &Row| Objects { kind: row.get(0), total: row.get(1), done: row.get(2), failed: row.get(3) };
        self.rows("the objects", sql, FAILED, objects).await
    }

    async fn spans(&self, sql: &str) -> Result<Vec<Span>> {
        let span = |row: &Row| Span {
            stage: row.get(0),
            name: row.get(1),
            count: row.get(2),
            bytes: row.get(3),
            rows: row.get(4),
            started_at: row.get(5),
            finished_at: row.get(6),
        };
        self.rows("how long Parts and steps took", sql, SPANS as i64, span).await
    }

    async fn failed(&self) -> Result<Vec<Failed>> {
        let sql = "select lower(kind), name, coalesce(sqlstate, ''), coalesce(message, ''), statement
                     from pgmig.step where migration = $1 and state = 'failed' order by step_id limit $2";
        let failed = |row: &Row| Failed {
            kind: row.get(0),
            name: row.get(1),
            sqlstate: row.get(2),
            message: row.get(3),
            statement: row.get(4),
        };
        self.rows("what could not be made", sql, FAILED, failed).await
    }

    async fn conflicts(&self) -> Result<Vec<Conflicts>> {
        let sql = "select format('%s.%s', schema_name, table_name), kind, key_columns, changes, last_at
                     from pgmig.conflicts where migration = $1 order by changes desc, 1, 2 limit $2";
        let conflicts = |row: &Row| Conflicts {
            table: row.get(0),
            kind: row.get(1),
            key_columns: row.get(2),
            changes: row.get(3),
            last_at: row.get(4),
        };
        self.rows("the conflicts", sql, FAILED, conflicts).await
    }

    async fn cutover(&self) -> Result<Vec<CutoverStep>> {
        let sql = "select attempt, step, state, coalesce(message, ''), started_at, finished_at
                     from (select * from pgmig.cutover where migration = $1
                            order by attempt desc, position desc limit $2) newest
                    order by attempt, position";
        let step = |row: &Row| CutoverStep {
            attempt: row.get(0),
            step: row.get(1),
            stops_writes: Step::of(row.get(1)).is_some_and(Step::stops_writes),
            state: row.get(2),
            message: row.get(3),
            started_at: row.get(4),
            finished_at: row.get(5),
        };
        self.rows("the steps of the cutover", sql, CUTOVER_STEPS, step).await
    }

    async fn verifications(&self) -> Result<Vec<Verification>> {
        let sql = "select at, lsn, quick, tables, rows, bytes, seconds, held_seconds, differences
                     from (select * from pgmig.verification where migration = $1
                            order by verification_id desc limit $2) newest
                    order by verification_id";
        let rows = self.rows("the comparisons", sql, VERIFICATIONS, |row| {
            let differences = serde_json::from_value(row.get(8))?;
            Ok(Verification {
                at: row.get(0),
                lsn: row.get(1),
                quick: row.get(2),
                tables: row.get(3),
                rows: row.get(4),
                bytes: row.get(5),
                seconds: row.get(6),
                held_seconds: row.get(7),
                differences,
            })
        });
        let rows = rows.await?.into_iter().collect::<std::result::Result<_, serde_json::Error>>();
        rows.during(Exit::Target, || "read what differed in a comparison".into())
    }

    async fn events(&self) -> Result<Vec<Event>> {
        let sql = "select at, level, message
                     from (select * from pgmig.event where migration = $1 order by event_id desc limit $2) newest
                    order by event_id";
        let event = |row: &Row| Event { at: row.get(0), level: row.get(1), message: row.get(2) };
        self.rows("the events", sql, EVENTS, event).await
    }
}

/// Notes what a comparison came to.
pub async fn verified(client: &Client, migration: &str, found: &Verification) -> Result<()> {
    let doing = || "note what the comparison came to".to_string();
    let differences = serde_json::to_value(&found.differences).during(Exit::Bug, doing)?;
    client
        .execute(
            "insert into pgmig.verification (migration, at, lsn, quick, tables, rows, bytes, seconds, held_seconds, differences)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                &migration,
                &found.at,
                &found.lsn,
                &found.quick,
                &found.tables,
                &found.rows,
                &found.bytes,
                &found.seconds,
                &found.held_seconds,
                &differences,
            ],
        )
        .await
        .on_target(doing)?;
    Ok(())
}
