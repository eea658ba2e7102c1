//! Compares two databases as a whole, while nobody writes to either: rows of every table,
//! sequences, large objects, schema, and the facts that a schema does not show.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;

use super::catalog::{self, Facts};
use super::rows::{self, Table};
use super::side::Side;
use super::skipped::Skipped;
use super::{Comparison, Difference, Kind, Totals, schema, scratch};
use crate::embedded::BinDir;
use crate::error::Result;
use crate::selection::Selection;

/// Told after each table: its name and how many are left.
pub type Progress = Arc<dyn Fn(&str, usize) + Send + Sync>;

#[derive(Clone)]
pub struct Options {
    /// Tables compared at once, with a connection to each side.
    pub jobs: usize,
    /// Rows of materialized views too; else only whether they hold any.
    pub materialized_rows: bool,
    /// Whether pg_dump is asked for the schemas.
    pub schema: bool,
    pub owners: bool,
    pub privileges: bool,
    /// The folder of pg_dump, at least as new as both servers; without it the newest that is found.
    pub bin_dir: Option<PathBuf>,
    /// The folder of the source's own pg_dump, which knows best what the source may hold; else the same.
    pub source_bin_dir: Option<PathBuf>,
    pub progress: Option<Progress>,
    /// What was migrated, if that was not all: the rest is not compared.
    pub selection: Option<Arc<Selection>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            jobs: 2,
            materialized_rows: false,
            schema: true,
            owners: true,
            privileges: true,
            bin_dir: None,
            source_bin_dir: None,
            progress: None,
            selection: None,
        }
    }
}

/// Compares the databases behind two connection strings.
pub async fn compare(source: &str, target: &str, options: Options) -> Result<Comparison> {
    let (source, target) = (Side::new(source, true)?, Side::new(target, false)?);
    let (of_source, of_target) = tokio::try_join!(source.server(), target.server())?;
    let reprint = of_source.major != of_target.major;
    // Databases in one encoding hold the same bytes, be they text in it or not, as in SQL_ASCII.
    let encoding = if of_source.encoding == of_target.encoding { "SQL_ASCII" } else { "UTF8" };
    let mut found = Found::default();
    let (dumps, catalogs) = tokio::join!(
        compare_schemas(&source, &target, &options, reprint),
        compare_catalogs(&source, &target, &options)
    );
    found.take(catalogs?);
    found.take(dumps?);
    found.take(compare_rows(&source, &target, &options, encoding).await?);
    found.differences.sort();
    Ok(Comparison { differences: found.differences, totals: found.totals })
}

#[derive(Default)]
struct Found {
    differences: Vec<Difference>,
    totals: Totals,
}

impl Found {
    fn take(&mut self, other: Found) {
        self.differences.extend(other.differences);
        self.totals.tables += other.totals.tables;
        self.totals.rows += other.totals.rows;
        self.totals.sequences += other.totals.sequences;
        self.totals.large_objects += other.totals.large_objects;
        self.totals.statements += other.totals.statements;
    }
}

/// `reprint`: the servers are of two versions.
async fn compare_schemas(source: &Side, target: &Side, options: &Options, reprint: bool) -> Result<Found> {
    if !options.schema {
        return Ok(Found::default());
    }
    let bin_dir = BinDir::find(options.bin_dir.as_deref())?;
    // One program for both, as long as nothing is printed twice.
    let source_bin_dir = match options.source_bin_dir.as_deref().filter(|_| reprint) {
        Some(own) => BinDir::open(own)?,
        None => bin_dir.clone(),
    };
    let tool_of = |bin_dir: &BinDir, name: &str| {
        let mut command: Command = bin_dir.tool(name);
        if name != "psql" {
            command
                .args((!options.owners).then_some("--no-owner"))
                .args((!options.privileges).then_some("--no-privileges"));
        }
        command
    };
    let tool = |name: &str| tool_of(&bin_dir, name);
    let of_source = async {
        let own = |name: &str| tool_of(&source_bin_dir, name);
        let script = match &options.selection {
            Some(selection) => schema::selected_script(source, own("pg_dump"), || own("pg_restore"), selection).await?,
            None => schema::script(source, own("pg_dump")).await?,
        };
        if reprint { scratch::reprinted(target, &script, tool).await } else { Ok(script) }
    };
    let (here, there) = tokio::try_join!(of_source, schema::script(target, tool("pg_dump")))?;
    let (here, there) = (schema::statements(&here), schema::statements(&there));
    let totals = Totals { statements: here.len() as u64, ..Totals::default() };
    Ok(Found { differences: schema::differences(here, there), totals })
}

async fn compare_catalogs(source: &Side, target: &Side, options: &Options) -> Result<Found> {
    let (on_source, on_target) = tokio::try_join!(source.connect(), target.connect())?;
    let skipped = Skipped::new(source, &on_source, options.selection.as_deref()).await?;
    let mut found = Found::default();
    let kinds =
        [Kind::Sequence, Kind::MaterializedView, Kind::Constraint, Kind::Index, Kind::Trigger, Kind::ReplicaIdentity];
    for kind in kinds {
        let (mut here, mut there): (Facts, Facts) =
            tokio::try_join!(catalog::facts(source, &on_source, kind), catalog::facts(target, &on_target, kind))?;
        skipped.take_from(kind, &mut here);
        skipped.take_from(kind, &mut there);
        let one_sided = kind == Kind::Sequence || !options.schema;
        found.differences.extend(catalog::differences(kind, &here, &there, one_sided));
        if kind == Kind::Sequence {
            found.totals.sequences = both(&here, &there) as u64;
        }
    }

    let (here, there) =
        tokio::try_join!(rows::large_objects(source, &on_source), rows::large_objects(target, &on_target))?;
    found.totals.large_objects = both(&here, &there) as u64;
    for number in here.keys().chain(there.keys().filter(|n| !here.contains_key(*n))) {
        match (here.get(number), there.get(number)) {
            (Some(a), Some(b)) if a == b => {}
            (Some((a, _)), Some((b, _))) => {
                let what = if a == b {
                    format!("{a} bytes, with other content")
                } else {
                    format!("source {a} bytes; target {b} bytes")
                };
                found.differences.push(Difference::new(Kind::LargeObject, number.to_string(), what));
            }
            (a, _) => found.differences.push(Difference::one_sided(Kind::LargeObject, number.to_string(), a.is_some())),
        }
    }
    Ok(found)
}

fn both<K: Ord, A, B>(here: &BTreeMap<K, A>, there: &BTreeMap<K, B>) -> usize {
    here.keys().filter(|key| there.contains_key(*key)).count()
}

async fn compare_rows(source: &Side, target: &Side, options: &Options, encoding: &str) -> Result<Found> {
    let (on_source, on_target) = tokio::try_join!(source.connect(), target.connect())?;
    let (here, mut there) = tokio::try_join!(
        rows::tables(source, &on_source, options.materialized_rows),
        rows::tables(target, &on_target, options.materialized_rows)
    )?;
    let skipped = Skipped::new(source, &on_source, options.selection.as_deref()).await?;
    drop((on_source, on_target));

    let mut found = Found::default();
    let mut queue: Vec<(String, Table)> = Vec::new();
    for (name, table) in here {
        if skipped.relation(&name) {
            // Made without rows, or not made; the schemas say which.
            there.remove(&name);
            continue;
        }
        match there.remove(&name) {
            Some(other) if other.columns == table.columns => queue.push((name, table)),
            Some(_) => {
                found.differences.push(Difference::new(Kind::Table, name, "has other columns; rows not compared"))
            }
            None => found.differences.push(Difference::one_sided(Kind::Table, name, true)),
        }
    }
    found.differences.extend(there.into_keys().map(|name| Difference::one_sided(Kind::Table, name, false)));
    // The largest first, so that no worker is left alone with it at the end.
    queue.sort_by_key(|(_, table)| std::cmp::Reverse(table.bytes));
    found.totals.tables = queue.len() as u64;

    let queue = Mutex::new(VecDeque::from(queue));
    let workers = (0..options.jobs.max(1)).map(|_| compare_tables(source, target, &queue, options, encoding));
    for part in try_join_all(workers).await? {
        found.take(part);
    }
    Ok(found)
}

/// One worker: takes tables until none is left.
async fn compare_tables(
    source: &Side,
    target: &Side,
    queue: &Mutex<VecDeque<(String, Table)>>,
    options: &Options,
    encoding: &str,
) -> Result<Found> {
    let (on_source, on_target) = tokio::try_join!(source.connect(), target.connect())?;
    let mut found = Found::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((name, table)) = next else { return Ok(found) };
        let (here, there) = tokio::try_join!(
            rows::digest(source, &on_source, &name, &table.columns, encoding),
            rows::digest(target, &on_target, &name, &table.columns, encoding)
        )?;
        found.totals.rows += here.rows;
        if here != there {
            let what = match (here.rows, there.rows) {
                (a, b) if a == b => {
                    format!("{a} rows on both sides, with other values (source {here}; target {there})")
                }
                (a, b) => format!("source {a} rows; target {b} rows"),
            };
            found.differences.push(Difference::new(Kind::Rows, &name, what));
        }
        if let Some(progress) = &options.progress {
            progress(&name, queue.lock().unwrap_or_else(PoisonError::into_inner).len());
        }
    }
}
