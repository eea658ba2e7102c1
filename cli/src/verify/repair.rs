//! Makes rows of the target those of the source, while apply is held at the position of the source's snapshot.
//! One transaction a table: what differs is deleted by key and written as the source has it, and both sides are
//! compared there before it is committed. Rows without a key are found by their hash, as many as differ.
//!
//! This is the one part of verify that writes, and only to the target.

use std::collections::{BTreeSet, HashMap};

use bytes::BytesMut;
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::digest::{self, Reading};
use crate::apply::statements::{Column, Target};
use crate::connect::Side;
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::{identifier, identifiers};
use crate::model::{RowDifference, TableDifference, TableName};
use crate::target::layout::rows_of;

/// Rows that are read and written by one statement.
const TOGETHER: usize = 100;

/// What is to be repaired in one table.
#[derive(Debug)]
pub struct Work {
    pub table: TableName,
    pub missing: usize,
    pub extra: usize,
    pub other: usize,
    rows: Rows,
}

/// How its rows are found.
#[derive(Debug)]
enum Rows {
    /// Columns of the key, and the values of each row.
    Keys(Vec<String>, Vec<Vec<String>>),
    Hashes(Vec<i64>),
}

/// What of the differences can be repaired, and of the others why not.
pub fn work(differences: &[TableDifference]) -> (Vec<Work>, Vec<(TableName, &'static str)>) {
    let (mut all, mut not) = (Vec::new(), Vec::new());
    for difference in differences {
        if difference.rows.is_empty() {
            not.push((difference.table.clone(), "it is not the same table on both sides: mend that first"));
        } else if !difference.complete {
            not.push((
                difference.table.clone(),
                "it differs in too many places: copy it again, with pgmig table resync",
            ));
        } else {
            all.push(Work::new(difference));
        }
    }
    (all, not)
}

impl Work {
    fn new(difference: &TableDifference) -> Work {
        let count = |what| difference.rows.iter().filter(|row| row.what == what).count();
        let values = |row: &RowDifference| row.key.iter().map(|(_, value)| value.clone()).collect::<Option<Vec<_>>>();
        let columns: Vec<String> = difference.rows[0].key.iter().map(|(column, _)| column.clone()).collect();
        let keys: Option<BTreeSet<Vec<String>>> = difference.rows.iter().map(values).collect();
        // Null is no key: it is found by nothing.
        let rows = match keys.filter(|_| !columns.is_empty()) {
            Some(keys) => Rows::Keys(columns, keys.into_iter().collect()),
            None => {
                let hashes: BTreeSet<i64> = difference.rows.iter().flat_map(|row| &row.hashes).copied().collect();
                Rows::Hashes(hashes.into_iter().collect())
            }
        };
        Work {
            table: difference.table.clone(),
            missing: count(RowDifference::MISSING),
            extra: count(RowDifference::EXTRA),
            other: count(RowDifference::OTHER),
            rows,
        }
    }
}

/// Rows that were deleted and written.
#[derive(Debug, Default, Clone, Copy)]
pub struct Repaired {
    pub deleted: u64,
    pub written: u64,
}

/// Repairs one table in a transaction of the target. `source` reads under the snapshot at which apply is held.
pub async fn repair(source: &Client, target: &Client, work: &Work, recode: bool) -> Result<Repaired> {
    let table = &work.table;
    let doing = || format!("repair {table} on the target");
    target.batch_execute("begin").await.on_target(doing)?;
    let done = async {
        // No trigger, rule or foreign key acts, and nobody else writes to it meanwhile.
        let begin = format!(
            "set local session_replication_role = replica; set local lock_timeout = '10s';
             lock table {} in share row exclusive mode",
            rows_of(target, Side::Target, table).await?
        );
        target.batch_execute(&begin).await.on_target(doing)?;
        let form = digest::form(source, Side::Source, table).await?;
        let (Some(form), Some(other)) = (form, digest::form(target, Side::Target, table).await?) else {
            return Err(Error::new(Exit::No, format!("{table} is gone")).hint("compare again: pgmig verify"));
        };
        if form.columns != other.columns {
            return Err(
                Error::new(Exit::No, format!("{table} has other columns now")).hint("compare again: pgmig verify")
            );
        }
        let sides = Sides {
            source,
            target,
            reading: Reading::new(table, &form, &other, recode),
            form: Target::load(target, table).await?,
        };
        match &work.rows {
            Rows::Keys(columns, keys) => sides.by_key(columns, keys).await,
            Rows::Hashes(hashes) => sides.by_hash(hashes).await,
        }
    };
    match done.await {
        Ok(done) => target.batch_execute("commit").await.on_target(doing).map(|()| done),
        Err(err) => {
            target.batch_execute("rollback").await.on_target(doing)?;
            Err(err)
        }
    }
}

struct Sides<'a> {
    source: &'a Client,
    target: &'a Client,
    reading: Reading,
    form: Target,
}

impl Sides<'_> {
    async fn by_key(&self, columns: &[String], keys: &[Vec<String>]) -> Result<Repaired> {
        let table = &self.reading.table;
        let doing = || format!("repair {table} on the target");
        let compared: Vec<&str> =
            columns.iter().map(|column| self.column(column).map(|c| c.compared.as_str())).collect::<Result<_>>()?;
        let numbers = 1..=columns.len();
        let named = |each: &dyn Fn(usize) -> String| numbers.clone().map(each).collect::<Vec<_>>().join(", ");
        // By value, whatever two texts it may have.
        let is_one = format!(
            "({}) in (select {} from unnest({}) as v ({}))",
            identifiers(columns),
            named(&|n| format!("v{n}::{}", compared[n - 1])),
            named(&|n| format!("${n}::text[]")),
            named(&|n| format!("v{n}")),
        );
        let mut repaired = Repaired::default();
        for keys in keys.chunks(TOGETHER) {
            let arrays: Vec<Vec<&str>> =
                (0..columns.len()).map(|at| keys.iter().map(|key| key[at].as_str()).collect()).collect();
            let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
            let read = format!("select {} from {} where {is_one}", self.texts(), self.reading.from(Side::Source));
            let rows = self.source.query(&read, &params).await.on_source(|| format!("read {table} on the source"))?;
            let delete = format!("delete from {} where {is_one}", self.reading.from(Side::Target));
            repaired.deleted += self.target.execute(&delete, &params).await.on_target(doing)?;
            let rows: Vec<Vec<Option<Raw>>> = rows.iter().map(values).collect();
            repaired.written += self.write(&rows).await?;
            let sum = |side| {
                let (hash, from) = (&self.reading.hash, self.reading.from(side));
                format!("select count(*), coalesce(sum({hash}), 0)::text from {from} where {is_one}")
            };
            let sums = |row: tokio_postgres::Row| (row.get::<_, i64>(0), row.get::<_, String>(1));
            let here = self
                .source
                .query_one(&sum(Side::Source), &params)
                .await
                .on_source(|| format!("read {table} on the source"))?;
            let there = self.target.query_one(&sum(Side::Target), &params).await.on_target(doing)?;
            self.must_be_same(sums(here) == sums(there))?;
        }
        Ok(repaired)
    }

    async fn by_hash(&self, hashes: &[i64]) -> Result<Repaired> {
        let Reading { table, hash, .. } = &self.reading;
        let (from, doing) = (self.reading.from(Side::Target), || format!("repair {table} on the target"));
        let (here, there) = (self.counts(Side::Source, hashes).await?, self.counts(Side::Target, hashes).await?);
        let more = |hash: &i64| here.get(hash).copied().unwrap_or(0) - there.get(hash).copied().unwrap_or(0);
        let (extra, counts): (Vec<i64>, Vec<i64>) =
            hashes.iter().map(|hash| (*hash, -more(hash))).filter(|(_, count)| *count > 0).unzip();
        let delete = format!(
            "delete from {from} where (tableoid, ctid) in (
                 select r.row_of, r.row_at
                   from (select t.row_of, t.row_at, t.h, row_number() over (partition by t.h) as number
                           from (select tableoid as row_of, ctid as row_at, {hash} as h from {from} offset 0) t
                          where t.h = any ($1)) r
                        join unnest($1::int8[], $2::int8[]) w (h, most) on w.h = r.h and r.number <= w.most)"
        );
        let mut repaired =
            Repaired { deleted: self.target.execute(&delete, &[&extra, &counts]).await.on_target(doing)?, written: 0 };
        let missing: Vec<i64> = hashes.iter().filter(|hash| more(hash) > 0).copied().collect();
        // One of each, and then as often as it is missing.
        let read = format!(
            "select distinct on (pgmig_hash) {} from (select *, {hash} as pgmig_hash from {} offset 0) t
              where pgmig_hash = any ($1) order by pgmig_hash",
            std::iter::once("pgmig_hash::text".to_string())
                .chain(self.columns().map(text_of))
                .collect::<Vec<_>>()
                .join(", "),
            self.reading.from(Side::Source)
        );
        for missing in missing.chunks(TOGETHER) {
            let rows =
                self.source.query(&read, &[&missing]).await.on_source(|| format!("read {table} on the source"))?;
            for row in rows {
                let hash: i64 = row.get::<_, &str>(0).parse().during(Exit::Bug, || "read a hash".into())?;
                let row: Vec<Option<Raw>> = values(&row).split_off(1);
                let copies: Vec<Vec<Option<Raw>>> = (0..more(&hash)).map(|_| row.clone()).collect();
                for copies in copies.chunks(TOGETHER) {
                    repaired.written += self.write(copies).await?;
                }
            }
        }
        self.must_be_same(here == self.counts(Side::Target, hashes).await?)?;
        Ok(repaired)
    }

    /// How often rows with these hashes are there.
    async fn counts(&self, side: Side, hashes: &[i64]) -> Result<HashMap<i64, i64>> {
        let Reading { table, hash, .. } = &self.reading;
        let client = if side == Side::Source { self.source } else { self.target };
        let sql = format!(
            "select h, count(*) from (select {hash} as h from {} offset 0) t where h = any ($1) group by 1",
            self.reading.from(side)
        );
        let rows =
            client.query(&sql, &[&hashes]).await.during(side.exit(), || format!("read {table} on the {side}"))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn write(&self, rows: &[Vec<Option<Raw>>]) -> Result<u64> {
        let table = &self.reading.table;
        let doing = || format!("write to {table} on the target");
        let columns: Vec<&Column> = self.columns().collect();
        if columns.is_empty() {
            for _ in rows {
                let insert = format!("insert into {} default values", table.sql());
                self.target.batch_execute(&insert).await.on_target(doing)?;
            }
            return Ok(rows.len() as u64);
        }
        let numbered = |each: &dyn Fn(usize) -> String| (1..=columns.len()).map(each).collect::<Vec<_>>().join(", ");
        let insert = format!(
            "insert into {} ({}) overriding system value select {} from unnest({}) as v ({})",
            table.sql(),
            identifiers(columns.iter().map(|column| &column.name)),
            numbered(&|n| format!("v{n}::{}", columns[n - 1].assigned)),
            numbered(&|n| format!("${n}::text[]")),
            numbered(&|n| format!("v{n}")),
        );
        let arrays: Vec<Vec<Option<&Raw>>> =
            (0..columns.len()).map(|at| rows.iter().map(|row| row[at].as_ref()).collect()).collect();
        let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
        self.target.execute(&insert, &params).await.on_target(doing)
    }

    /// What is written: the server computes the others.
    fn columns(&self) -> impl Iterator<Item = &Column> {
        self.form.columns.iter().filter(|column| !column.computed)
    }
    fn texts(&self) -> String {
        self.columns().map(text_of).collect::<Vec<_>>().join(", ")
    }
    fn column(&self, name: &str) -> Result<&Column> {
        let found = self.form.columns.iter().find(|column| column.name == name);
        found.ok_or_else(|| Error::bug("a key has a column that the table has not"))
    }
    fn must_be_same(&self, is: bool) -> Result<()> {
        let table = &self.reading.table;
        if is {
            return Ok(());
        }
        Err(Error::new(Exit::No, format!("{table} cannot be made the same: what was written is not what the source has"))
            .hint("look for triggers that fire in replica sessions, rules, and types that change what they take; nothing of it was committed"))
    }
}

fn text_of(column: &Column) -> String {
    format!("{}::text", identifier(&column.name))
}

/// The text of a value as the source gave it, be it text in the target's encoding or not.
#[derive(Debug, Clone)]
struct Raw(Vec<u8>);

fn values(row: &tokio_postgres::Row) -> Vec<Option<Raw>> {
    (0..row.len()).map(|at| row.get(at)).collect()
}

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }
    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TEXT
    }
}

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TEXT
    }
    to_sql_checked!();
}
