//! What a change that does not fit the target's rows leads to: with `stop` an error, with `warn` a row in
//! `pgmig.conflict`, and the rest of its transaction goes on. The one place where this is decided, for
//! both flavours.
//!
//! A Batch that meets a conflict is written again in halves, each under a savepoint, down to the single
//! change that does not fit. So what fits stays as fast as it was, and one conflict costs the logarithm
//! of its Batch. A change is passed over whole: an UPDATE or DELETE that finds no row does nothing, an
//! INSERT or UPDATE that would make a second row with a unique key leaves the row that is there.

use tokio_postgres::Client;

use super::batch::Op;
use super::extension::advance_by;
use super::{Advance, Writer};
use crate::error::{Context, Error, Exit, Result};
use crate::model::wire::{Change, Commit, Kind};
use crate::model::{Lsn, TableName};

/// SQLSTATEs of a change that does not fit: no row, a second row with a unique key, an excluded row.
const CONFLICTS: [&str; 3] = [super::NO_ROW, "23505", "23P01"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    Stop,
    Warn,
}

/// Decides what becomes of conflicts.
pub struct Deciding {
    pub policy: OnConflict,
    pub migration: String,
}

impl Deciding {
    /// Writes changes in their order; `work` is what the writer makes of them.
    pub async fn write<W: Writer>(
        &self,
        writer: &mut W,
        client: &Client,
        (ops, work): (&[Op], &W::Work),
        advance: Option<&Advance>,
        open: bool,
    ) -> Result<u64> {
        if self.policy == OnConflict::Stop {
            return writer.write(client, work, advance, open).await;
        }
        if open {
            run(client, "savepoint pgmig_batch").await?;
        }
        let conflict = match writer.write(client, work, advance, open).await {
            Err(err) if err.sqlstate().is_some_and(|code| CONFLICTS.contains(&code)) => err,
            Err(err) => return Err(err),
            Ok(rows) => {
                if open {
                    run(client, "release savepoint pgmig_batch").await?;
                }
                return Ok(rows);
            }
        };
        run(client, if open { "rollback to savepoint pgmig_batch" } else { "begin" }).await?;
        let written = self.write_around(writer, client, ops, advance).await;
        match written {
            Ok((rows, passed_over)) => {
                run(client, if open { "release savepoint pgmig_batch" } else { "commit" }).await?;
                let first = conflict.chain();
                tracing::warn!(passed_over, %first, "changes that do not fit the target were passed over; see pgmig.conflicts");
                Ok(rows)
            }
            Err(err) => {
                if !open {
                    run(client, "rollback").await?;
                }
                Err(err)
            }
        }
    }

    /// Writes what fits, in the open transaction. Rows changed, and changes passed over.
    async fn write_around<W: Writer>(
        &self,
        writer: &mut W,
        client: &Client,
        ops: &[Op],
        advance: Option<&Advance>,
    ) -> Result<(u64, u64)> {
        let (mut rows, mut passed_over) = (0, 0);
        // Stretches still to be written, the next one last.
        let mut rest = Vec::new();
        rest.push(0..ops.len());
        while let Some(stretch) = rest.pop() {
            run(client, "savepoint pgmig_part").await?;
            match writer.write(client, &W::work(ops[stretch.clone()].to_vec()), None, true).await {
                Ok(written) => {
                    rows += written;
                    run(client, "release savepoint pgmig_part").await?;
                }
                Err(err) => {
                    if !err.sqlstate().is_some_and(|code| CONFLICTS.contains(&code)) {
                        return Err(err);
                    }
                    run(client, "rollback to savepoint pgmig_part; release savepoint pgmig_part").await?;
                    match &ops[stretch.clone()] {
                        [Op::Change(change)] => {
                            let lsn = advance.and_then(|advance| advance.end_of(stretch.start));
                            self.record(client, change, &err, lsn).await?;
                            passed_over += 1;
                        }
                        [_] | [] => return Err(err),
                        [..] => {
                            let middle = stretch.start + stretch.len() / 2;
                            rest.push(middle..stretch.end);
                            rest.push(stretch.start..middle);
                        }
                    }
                }
            }
        }
        if let Some(advance) = advance {
            advance_by(client, advance, rows).await?;
        }
        Ok((rows, passed_over))
    }

    /// Pieces of a large transaction do not know where it ends; this is for its end.
    pub async fn complete(&self, client: &Client, commit: Commit) -> Result<()> {
        if self.policy == OnConflict::Warn {
            client
                .execute(
                    "update pgmig.conflict set lsn = $2 where migration = $1 and lsn is null",
                    &[&self.migration, &commit.end_lsn],
                )
                .await
                .on_target(|| "record a conflict".into())?;
        }
        Ok(())
    }

    async fn record(&self, client: &Client, change: &Change, err: &Error, lsn: Option<Lsn>) -> Result<()> {
        let missing = err.sqlstate() == Some(super::NO_ROW);
        let kind = match (change.kind, missing) {
            (Kind::Insert, _) => "insert_exists",
            (Kind::Update, true) => "update_missing",
            (Kind::Update, false) => "update_exists",
            (Kind::Delete, _) => "delete_missing",
        };
        let shape = &change.shape;
        let key: Vec<&str> = shape.key_columns().collect();
        // Of a row that is there: the columns of the index that it is in.
        let index = if missing { None } else { err.answer().and_then(|answer| answer.constraint()) };
        client
            .execute(
                "insert into pgmig.conflict (migration, lsn, schema_name, table_name, kind, key_columns)
                 select $1::text, $2::pg_lsn, $3::text, $4::text, $5::text,
                        coalesce((select array_agg(a.attname::text order by k.at)
                                    from pg_catalog.pg_index i
                                         join pg_catalog.pg_class c on c.oid = i.indexrelid and c.relname::text = $7::text
                                         join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname::text = $3::text
                                         cross join unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality k (attnum, at)
                                         join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum),
                                 $6::text[])",
                &[&self.migration, &lsn, &shape.table.schema, &shape.table.table, &kind, &key, &index],
            )
            .await
            .on_target(|| "record a conflict".into())?;
        Ok(())
    }
}

async fn run(client: &Client, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.on_target(|| "pass over a conflict".into())
}

/// Whether no partition of the target takes the row. The message is in the server's language, the place is not.
fn is_unrouted(err: &Error) -> bool {
    err.answer().and_then(|answer| answer.routine()) == Some("ExecFindPartition")
}

/// Says what a change that does not fit the target means and how to go on.
pub(super) fn explain(err: Error) -> Error {
    let table = err.table().map_or("SCHEMA.TABLE".into(), |(schema, table)| TableName::new(schema, table).to_string());
    let resync = format!("have the table copied again: pgmig table resync {table}, then run again");
    let hint = match err.sqlstate() {
        Some(super::NO_ROW) => format!(
            "the target's row was changed or deleted by something else than pgmig; put it back as it is on the source, then run again, or {resync}"
        ),
        Some("23505" | "23P01") => {
            format!("the target holds a row that pgmig did not write; remove it, then run again, or {resync}")
        }
        Some("42P01" | "42703") => {
            "the table was altered on the target: make it what it is on the source, then run again".into()
        }
        Some("23514") if is_unrouted(&err) => {
            format!("{table} has no partition for a row of the source: create one on the target, or a default partition, then run again")
        }
        Some("23502" | "23514") => {
            "the target has a constraint that the source's row breaks: if it was dropped on the source, drop it there too, then run again".into()
        }
        Some("22021" | "22P05") => "\
             the source holds bytes that are no text in the target's encoding, and what is in the stream cannot be mended: \
             mend the row there, then begin again (pgmig cleanup --force, empty the target, pgmig run)"
            .into(),
        _ => return Error::new(err.exit(), "cannot apply a batch").cause(err),
    };
    Error::new(Exit::Differ, "cannot apply a batch").cause(err).hint(hint)
}
