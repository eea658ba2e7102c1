//! The writer for the plain flavour: runs of changes of one table, kind and column set become one
//! statement over arrays. Every row is counted: a change that finds no row is an error. Statements are sent
//! before those in front of them are answered, so that the target never waits for us. A Batch that
//! fails on a constraint is rolled back and written again, one change a statement, in the source's
//! order, before that is called an error.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use futures_util::future::{FutureExt, MaybeDone, maybe_done};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};

use super::batch::Op;
use super::extension::advance_by;
use super::statements::{Lookup, Target};
use super::{Advance, Writer};
use crate::error::{Context, Error, Exit, Result, ServerError};
use crate::model::TableName;
use crate::model::wire::{Change, Kind, Value};

/// Rows of one statement at most.
const RUN: usize = 1000;
/// Statements that are sent and not answered, at most.
const IN_FLIGHT: usize = 4;

#[derive(Default)]
pub struct PlainWriter {
    targets: HashMap<TableName, Arc<Target>>,
    statements: HashMap<String, Statement>,
}

impl Writer for PlainWriter {
    type Work = Vec<Op>;
    fn forget(&mut self) {
        self.targets.clear();
        self.statements.clear();
    }
    fn work(ops: Vec<Op>) -> Vec<Op> {
        ops
    }

    async fn write(&mut self, client: &Client, ops: &Vec<Op>, advance: Option<&Advance>, open: bool) -> Result<u64> {
        let (begin, again, end) = if open {
            ("savepoint pgmig", "rollback to savepoint pgmig", "release savepoint pgmig")
        } else {
            ("begin", "rollback; begin", "commit")
        };
        client.batch_execute(begin).await.on_target(|| "begin a batch".into())?;
        let mut written = self.write_all(client, ops, RUN).await;
        if let Err(err) = &written
            && matches!(err.sqlstate(), Some("23505" | "23P01" | "P0002"))
        {
            client.batch_execute(again).await.on_target(|| "roll back a batch".into())?;
            written = self.write_all(client, ops, 1).await;
        }
        let written = match written {
            Ok(rows) => match advance {
                Some(advance) => advance_by(client, advance, rows).await.map(|()| rows),
                None => Ok(rows),
            },
            Err(err) => Err(err),
        };
        match written {
            Ok(rows) => client.batch_execute(end).await.on_target(|| "commit a batch".into()).map(|()| rows),
            Err(err) => {
                if !open {
                    client.batch_execute("rollback").await.on_target(|| "roll back a batch".into())?;
                }
                Err(err)
            }
        }
    }
}

impl PlainWriter {
    async fn write_all(&mut self, client: &Client, ops: &[Op], run_max: usize) -> Result<u64> {
        let mut rows = 0;
        let mut sent = InFlight::default();
        for stretch in ops.chunk_by(|a, b| matches!((a, b), (Op::Change(_), Op::Change(_)))) {
            if let [Op::Truncate(shapes)] = stretch {
                let mut tables = Vec::new();
                for shape in shapes {
                    tables.push(self.target(client, &shape.table, &mut sent).await?.rows.clone());
                }
                let (sql, table) = (format!("truncate {}", tables.join(", ")), &shapes[0].table);
                sent.send(async move { client.batch_execute(&sql).await.on_target(|| format!("truncate {table}")) })
                    .await?;
            }
            let changes: Vec<&Change> = stretch.iter().filter_map(Op::change).collect();
            let mut rest = &changes[..];
            while let Some(first) = rest.first() {
                let target = self.target(client, &first.shape.table, &mut sent).await?;
                let lookup = target.lookup(first);
                let run = run(rest, &lookup, run_max);
                if let Err(err) = self.send_run(client, &target, &lookup, run, &mut sent).await {
                    // What was sent before it may have failed before it.
                    sent.all().await?;
                    return Err(err);
                }
                rows += run.len() as u64;
                rest = &rest[run.len()..];
            }
        }
        sent.all().await?;
        Ok(rows)
    }

    async fn send_run<'a>(
        &mut self,
        client: &'a Client,
        target: &Target,
        lookup: &Lookup,
        run: &[&'a Change],
        sent: &mut InFlight<'a>,
    ) -> Result<()> {
        let (first, count) = (run[0], run.len() as u64);
        let (shape, kind) = (&first.shape, first.kind);
        let columns = sent_columns(first);
        let goes: Vec<bool> =
            (0..shape.columns.len()).map(|at| columns.contains(&at) && !target.is_computed(shape, at)).collect();
        let sql = match kind {
            Kind::Insert => target.insert_sql(shape, &columns)?,
            Kind::Update => target.update_sql(shape, &columns, lookup)?,
            Kind::Delete => target.delete_sql(shape, lookup)?,
        };
        // One array a column: the key's first, then the new row's.
        let mut arrays: Vec<Vec<Option<Text<'a>>>> = Vec::new();
        for &change in run {
            let row = change.row().zip(&goes).filter(|(_, goes)| **goes).map(|(value, _)| value);
            for (column, value) in change.key().chain(row).enumerate() {
                if arrays.len() <= column {
                    arrays.push(Vec::with_capacity(run.len()));
                }
                arrays[column].push(text_of(value)?);
            }
        }
        // A table without columns: nothing but the number of its rows.
        let (times, rows_each) = if arrays.is_empty() { (count, 1) } else { (1, count) };
        let statement = self.prepare(client, sql, sent).await?;
        for _ in 0..times {
            let (statement, arrays) = (statement.clone(), std::mem::take(&mut arrays));
            sent.send(async move {
                let changed = client.execute_raw(&statement, arrays).await;
                let changed = changed.on_target(|| format!("{} {}", verb(kind), first.shape.table))?;
                if changed == rows_each { Ok(()) } else { Err(no_row(first)) }
            })
            .await?;
        }
        Ok(())
    }

    // What is asked meanwhile is refused too where a statement in flight fails, and is not the cause.
    async fn prepare(&mut self, client: &Client, sql: String, sent: &mut InFlight<'_>) -> Result<Statement> {
        if let Some(statement) = self.statements.get(&sql) {
            return Ok(statement.clone());
        }
        sent.all().await?;
        let statement = client.prepare(&sql).await.on_target(|| "prepare a statement of apply".into())?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    async fn target(&mut self, client: &Client, table: &TableName, sent: &mut InFlight<'_>) -> Result<Arc<Target>> {
        if let Some(target) = self.targets.get(table) {
            return Ok(Arc::clone(target));
        }
        sent.all().await?;
        let target = Arc::new(Target::load(client, table).await?);
        self.targets.insert(table.clone(), Arc::clone(&target));
        Ok(target)
    }
}

/// Statements of one transaction in the order in which the server takes them. It refuses all behind one that
/// fails, so the first error is the cause of the others.
#[derive(Default)]
struct InFlight<'a>(VecDeque<MaybeDone<Answer<'a>>>);

type Answer<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

impl<'a> InFlight<'a> {
    /// Sends a statement, and waits for the oldest answer where too many are missing.
    async fn send(&mut self, statement: impl Future<Output = Result<()>> + 'a) -> Result<()> {
        let mut answer: MaybeDone<Answer<'a>> = maybe_done(Box::pin(statement));
        // The first look at it hands it to what writes to the server.
        poll_fn(|context| {
            let _ = answer.poll_unpin(context);
            Poll::Ready(())
        })
        .await;
        self.0.push_back(answer);
        if self.0.len() > IN_FLIGHT { self.oldest().await } else { Ok(()) }
    }

    async fn oldest(&mut self) -> Result<()> {
        let Some(mut answer) = self.0.pop_front() else { return Ok(()) };
        (&mut answer).await;
        let answer = Pin::new(&mut answer).take_output().unwrap_or(Ok(()));
        if answer.is_err() {
            self.0.clear();
        }
        answer
    }

    /// Waits for all answers.
    async fn all(&mut self) -> Result<()> {
        while !self.0.is_empty() {
            self.oldest().await?;
        }
        Ok(())
    }
}

fn no_row(change: &Change) -> Error {
    let (verb, shape) = (verb(change.kind), &change.shape);
    let key = shape.key_columns().collect::<Vec<_>>().join(", ");
    let cause = ServerError {
        sqlstate: "P0002".into(),
        message: format!("{verb} of {} finds no row with key ({key})", shape.table),
        hint: None,
    };
    Error::new(Exit::Differ, format!("{verb} {}", shape.table)).cause(cause)
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Insert => "insert",
        Kind::Update => "update",
        Kind::Delete => "delete",
    }
}

/// The text of a value as it came: whether it is text in the target's encoding, the target says.
#[derive(Debug)]
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }
    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TEXT
    }
    to_sql_checked!();
}

fn text_of(value: Value<'_>) -> Result<Option<Text<'_>>> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(Text(text))),
        Value::Unchanged => Err(Error::bug("an unchanged value is not sent")),
        Value::Binary(_) => Err(Error::bug("a value in binary, which only the extension reads")),
    }
}

/// Columns whose new value is in the change.
fn sent_columns(change: &Change) -> Vec<usize> {
    change.row().enumerate().filter(|(_, value)| *value != Value::Unchanged).map(|(at, _)| at).collect()
}

/// The longest run at the front that one statement may write: one kind and column set, no row twice,
/// no key that changes.
fn run<'a, 'b>(changes: &'b [&'a Change], lookup: &Lookup, run_max: usize) -> &'b [&'a Change] {
    let first = changes[0];
    if first.kind != Kind::Insert && (!lookup.by_index || lookup.moves_key(first)) {
        return &changes[..1];
    }
    let mut keys: HashSet<Vec<Value<'a>>> = HashSet::new();
    keys.insert(lookup.key_of(first));
    let unsent = |change: &'a Change| change.row().map(|value| value == Value::Unchanged);
    let breaks = |next: &'a Change| {
        next.kind != first.kind
            || next.shape != first.shape
            || !unsent(next).eq(unsent(first))
            || (first.kind != Kind::Insert
                && (lookup.moves_key(next)
                    || lookup.key_of(next).contains(&Value::Null)
                    || !keys.insert(lookup.key_of(next))))
    };
    let length = changes[1..].iter().take(run_max - 1).copied().position(breaks);
    &changes[..length.map_or(changes.len().min(run_max), |at| at + 1)]
}
