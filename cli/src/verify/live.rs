//! Compares the tables of a migration at one position, while both sides may be written to. A query that
//! fails ends it: nothing counts as equal that was not read.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio_postgres::Client;

use super::align::{self, Aligned};
use super::digest::{self, Form, Reading};
use super::objects::ComparedObjects;
use crate::config::Conninfo;
use crate::connect::Side;
use crate::error::{Context, Exit, Result};
use crate::model::history::{Difference, Verification};
use crate::model::{Lsn, RowDifference, TableDifference, TableName};
use crate::target::layout::rows_of;
use crate::target::{checks, queue};

/// How it is compared.
#[derive(Debug, Clone, Copy)]
pub struct How {
    pub jobs: usize,
    /// Columns and counts in place of rows.
    pub quick: bool,
    /// Chunks of a table that are narrowed to rows.
    pub narrowed: usize,
    /// Bytes a second of each side; 0 is no limit.
    pub max_rate: u64,
}

/// What a comparison came to.
#[derive(Debug, Default, Clone)]
pub struct Compared {
    pub tables: usize,
    /// Rows of the source.
    pub rows: i64,
    pub bytes: u64,
    pub differences: Vec<TableDifference>,
}

impl Compared {
    /// What is kept of it on the target, for `pgmig report`. `lsn` is where both sides stood, if apply was held.
    pub fn noted(
        &self,
        objects: Option<&ComparedObjects>,
        lsn: Option<Lsn>,
        quick: bool,
        took: Duration,
        held: Option<Duration>,
    ) -> Verification {
        let rows = self.differences.iter();
        let rows = rows.map(|found| Difference { table: found.table.to_string(), what: found.what.clone() });
        let objects = objects.into_iter().flat_map(|found| &found.differences);
        let objects = objects.map(|found| Difference {
            table: format!("{} {}", found.kind, found.object),
            what: format!("{} {}", found.property, found.what).trim().to_string(),
        });
        Verification {
            at: jiff::Timestamp::now(),
            lsn,
            quick,
            tables: self.tables as i64,
            rows: self.rows,
            bytes: self.bytes as i64,
            seconds: took.as_secs_f64(),
            held_seconds: held.map(|held| held.as_secs_f64()),
            differences: rows.chain(objects).collect(),
        }
    }
}

/// Told of the bytes that were read on the source, and of all there are.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

struct Job {
    table: TableName,
    here: Form,
    there: Form,
}

/// What the jobs share.
struct Shared {
    queue: Mutex<VecDeque<Job>>,
    read: Mutex<u64>,
    bytes: u64,
    block: u64,
    began: Instant,
    how: How,
    progress: Progress,
}

impl Shared {
    /// Counts what was read, and waits where that was too fast.
    async fn after(&self, side: Side, blocks: i64) {
        if side == Side::Target {
            return;
        }
        let read = {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            *read += blocks as u64 * self.block;
            *read
        };
        (self.progress)(read, self.bytes);
        if self.how.max_rate > 0 {
            let due = Duration::from_secs_f64(read as f64 / self.how.max_rate as f64);
            tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
        }
    }
}

/// The tables whose rows are compared: those of extensions come with the extension, and the stream holds nothing
/// of large objects.
pub async fn tables(target: &Client, migration: &str) -> Result<Vec<TableName>> {
    let mut apart: HashSet<TableName> = checks::not_applied(target).await?.into_iter().collect();
    apart.insert(large_objects());
    Ok(queue::tables(target, migration).await?.into_iter().filter(|table| !apart.contains(table)).collect())
}

fn large_objects() -> TableName {
    TableName::new("pg_catalog", "pg_largeobject")
}

/// Where the rows of large objects are, if they were copied and both roles may read them.
pub async fn readable_large_objects(source: &Client, target: &Client, migration: &str) -> Result<Option<TableName>> {
    let may = async |client: &Client, side: Side| {
        let query = "select pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'select')";
        let row = client.query_one(query, &[]).await;
        Ok::<_, crate::error::Error>(row.during(side.exit(), || format!("ask the {side} what may be read"))?.get(0))
    };
    let (here, there): (bool, bool) = tokio::try_join!(may(source, Side::Source), may(target, Side::Target))?;
    let copied = here && there && queue::tables(target, migration).await?.contains(&large_objects());
    Ok(copied.then(large_objects))
}

/// Whether the databases are in two encodings.
pub async fn recodes(source: &Client, target: &Client) -> Result<bool> {
    let encoding = async |client: &Client, side: Side| {
        let row = client.query_one("select current_setting('server_encoding')", &[]).await;
        Ok::<_, crate::error::Error>(
            row.during(side.exit(), || format!("ask the {side} what it is"))?.get::<_, String>(0),
        )
    };
    let (here, there) = tokio::try_join!(encoding(source, Side::Source), encoding(target, Side::Target))?;
    Ok(here != there)
}

/// Compares these tables under both snapshots.
pub async fn compare(
    source: &Conninfo,
    target: &Conninfo,
    aligned: &Aligned,
    tables: Vec<TableName>,
    how: How,
    progress: Progress,
) -> Result<Compared> {
    let (here, there) = (&aligned.source.client, &aligned.target);
    let recode = recodes(here, there).await?;
    let block = here.query_one("select current_setting('block_size')::int8", &[]).await;
    let block = block.on_source(|| "ask the source what it is".into())?.get::<_, i64>(0) as u64;
    let mut compared = Compared { tables: tables.len(), ..Compared::default() };
    let mut queue = Vec::new();
    let whole =
        |table: TableName, what: &str| TableDifference { table, what: what.into(), rows: Vec::new(), complete: false };
    for table in tables {
        let forms =
            tokio::try_join!(digest::form(here, Side::Source, &table), digest::form(there, Side::Target, &table))?;
        match forms {
            (Some(here), Some(there)) if here.columns == there.columns => queue.push(Job { table, here, there }),
            (Some(_), Some(_)) => {
                compared.differences.push(whole(table, "has other columns: its rows are not compared"))
            }
            (Some(_), None) => compared.differences.push(whole(table, RowDifference::MISSING)),
            (None, Some(_)) => compared.differences.push(whole(table, RowDifference::EXTRA)),
            (None, None) => compared.differences.push(whole(table, "is on neither side any more")),
        }
    }
    // The largest first, so that no job is left alone with it at the end.
    queue.sort_by_key(|job| std::cmp::Reverse(job.here.blocks));
    let bytes = queue.iter().map(|job| job.here.blocks as u64 * block).sum();
    let jobs = how.jobs.min(queue.len()).max(1);
    let (queue, read, began) = (Mutex::new(queue.into()), Mutex::new(0), Instant::now());
    let shared = Shared { queue, read, bytes, block, began, how, progress };
    for part in try_join_all((0..jobs).map(|_| worker(source, target, aligned, &shared, recode))).await? {
        compared.rows += part.rows;
        compared.differences.extend(part.differences);
    }
    compared.bytes = bytes;
    compared.differences.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(compared)
}

/// Takes tables until none is left.
async fn worker(
    source: &Conninfo,
    target: &Conninfo,
    aligned: &Aligned,
    shared: &Shared,
    recode: bool,
) -> Result<Compared> {
    let (here, there) = tokio::try_join!(
        align::session(source, Side::Source, &aligned.source.exported),
        align::session(target, Side::Target, &aligned.target_exported)
    )?;
    let mut compared = Compared::default();
    loop {
        let next = shared.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(Job { table, here: form, there: other }) = next else { return Ok(compared) };
        if shared.how.quick {
            let (on_source, on_target) =
                tokio::try_join!(count(&here, Side::Source, &table), count(&there, Side::Target, &table))?;
            shared.after(Side::Source, form.blocks).await;
            compared.rows += on_source;
            if on_source != on_target {
                let what = format!("source {on_source} rows, target {on_target} rows");
                compared.differences.push(TableDifference { table, what, rows: Vec::new(), complete: false });
            }
            continue;
        }
        let reading = Reading::new(&table, &form, &other, recode);
        let (of_source, of_target) = tokio::try_join!(
            digest::digest(&here, Side::Source, &reading, form.blocks, async |blocks| shared
                .after(Side::Source, blocks)
                .await),
            digest::digest(&there, Side::Target, &reading, other.blocks, async |blocks| shared
                .after(Side::Target, blocks)
                .await)
        )?;
        compared.rows += of_source.rows();
        let chunks = of_source.differing(&of_target);
        if !chunks.is_empty() {
            let (rows, complete) = digest::narrow(&here, &there, &reading, &chunks, shared.how.narrowed).await?;
            let what = format!(
                "source {} rows, target {} rows; {} of them differ{}",
                of_source.rows(),
                of_target.rows(),
                rows.len(),
                if complete { "" } else { " in the part that was looked at, and there are more" }
            );
            compared.differences.push(TableDifference { table, what, rows, complete });
        }
    }
}

async fn count(client: &Client, side: Side, table: &TableName) -> Result<i64> {
    let rows = rows_of(client, side, table).await?;
    let count = client.query_one(&format!("select count(*) from {rows}"), &[]).await;
    let exit: Exit = side.exit();
    Ok(count.during(exit, || format!("count the rows of {table} on the {side}"))?.get(0))
}
