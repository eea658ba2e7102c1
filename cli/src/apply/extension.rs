//! The writer for the extension: a Batch goes to `pgmig.apply` in one call, many relations and many
//! transactions together, and is written by the server's executor.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use super::batch::Op;
use super::{Advance, Writer};
use crate::error::{Context, Error, Exit, Result};
use crate::model::wire::{BATCH_VERSION, Encoder, Shape};
use crate::model::{Lsn, TableName};

#[derive(Default)]
pub struct ExtensionWriter {
    statement: Option<Statement>,
}

impl Writer for ExtensionWriter {
    type Work = Vec<u8>;
    fn work(ops: Vec<Op>) -> Vec<u8> {
        encode(&ops)
    }

    async fn write(&mut self, client: &Client, work: &Vec<u8>, advance: Option<&Advance>, _open: bool) -> Result<u64> {
        let statement = match &self.statement {
            Some(statement) => statement.clone(),
            None => {
                let prepared = client
                    .prepare("select pgmig.apply($1, $2, $3, $4, $5)")
                    .await
                    .on_target(|| "prepare pgmig.apply".into())?;
                self.statement.insert(prepared).clone()
            }
        };
        let migration = advance.map_or("", |advance| advance.migration.as_str());
        let replay_lsn: Option<Lsn> = advance.map(|advance| advance.commit.end_lsn);
        let commit_at = advance.map(|advance| timestamp(advance.commit.commit_at));
        let transactions = advance.map_or(0, |advance| advance.transactions as i64);
        // The server would count the rows of this call only.
        let advance_after = advance.filter(|advance| advance.rows_before > 0);
        let replay_lsn = replay_lsn.filter(|_| advance_after.is_none());
        let row = client
            .query_one(&statement, &[&migration, work, &replay_lsn, &commit_at, &transactions])
            .await
            .map_err(refused)?;
        let rows = row.get::<_, i64>(0) as u64;
        if let Some(advance) = advance_after {
            advance_by(client, advance, rows).await?;
        }
        Ok(rows)
    }
}

/// Moves replay_lsn in the open transaction.
pub async fn advance_by(client: &Client, advance: &Advance, rows: u64) -> Result<()> {
    client
        .execute_typed(
            "select pgmig.advance($1, $2, $3, $4, $5)",
            &[
                (&advance.migration, Type::TEXT),
                (&advance.commit.end_lsn, Type::PG_LSN),
                (&timestamp(advance.commit.commit_at), Type::TIMESTAMPTZ),
                (&(advance.transactions as i64), Type::INT8),
                (&((rows + advance.rows_before) as i64), Type::INT8),
            ],
        )
        .await
        .on_target(|| "move replay_lsn".into())?;
    Ok(())
}

/// A message alone does not say which table it is of; the server tells that beside it, or `pgmig.apply` in
/// its context: `pgmig.apply, change 7: update of public.t, column note`.
fn refused(cause: tokio_postgres::Error) -> Error {
    let answer = cause.as_db_error();
    let table = answer.and_then(|db| Some(TableName::new(db.schema()?, db.table()?)));
    let at = answer.and_then(|db| db.where_()?.lines().find_map(|line| line.strip_prefix("pgmig.apply, change ")));
    let doing = match (table, at.and_then(|at| at.split_once(": "))) {
        (Some(table), _) => format!("apply a change of {table}"),
        (None, Some((_, what))) => format!("apply a change: {what}"),
        (None, None) => "apply a batch on the target".into(),
    };
    Error::new(Exit::Target, doing).cause(cause)
}

/// Microseconds since 1970 as the driver sends a timestamptz.
pub fn timestamp(micros: i64) -> std::time::SystemTime {
    let since = std::time::Duration::from_micros(micros.unsigned_abs());
    if micros >= 0 { std::time::UNIX_EPOCH + since } else { std::time::UNIX_EPOCH - since }
}

fn encode(ops: &[Op]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.buffer.push(BATCH_VERSION);
    let mut ids: HashMap<Arc<Shape>, u16> = HashMap::new();
    let mut last: Option<(*const Shape, u16)> = None;
    let mut id_of = |shape: &Arc<Shape>, encoder: &mut Encoder| {
        if let Some((known, id)) = last
            && known == Arc::as_ptr(shape)
        {
            return id;
        }
        let next = ids.len() as u16;
        let id = *ids.entry(Arc::clone(shape)).or_insert_with(|| {
            encoder.relation(next, shape);
            next
        });
        last = Some((Arc::as_ptr(shape), id));
        id
    };
    for op in ops {
        match op {
            Op::Change(change) => {
                let id = id_of(&change.shape, &mut encoder);
                encoder.copy(change, id);
            }
            Op::Truncate(shapes) => {
                let shapes: Vec<u16> = shapes.iter().map(|shape| id_of(shape, &mut encoder)).collect();
                encoder.truncate(&shapes);
            }
        }
    }
    encoder.buffer
}
