//! What to do about a copy that failed. Knows the servers' answers, and nothing of the copy.

use crate::error::{Error, Exit};
use crate::model::TableName;
use crate::source::snapshot;
use crate::target::objects::BY_SEARCH_PATH;

/// Whether the source has no such table any more.
pub(super) fn table_is_gone(err: &Error) -> bool {
    err.exit() == Exit::Source && matches!(err.sqlstate(), Some("42P01" | "3F000"))
}

/// Whether a table of the source has lost a column that it was planned with.
pub(super) fn column_is_gone(err: &Error) -> bool {
    err.exit() == Exit::Source && err.sqlstate() == Some("42703")
}

/// The failure with what to do about it, where the server's answer does not say.
pub fn explained(err: Error) -> Error {
    let hint = match (err.exit(), err.sqlstate()) {
        _ if snapshot::is_gone(&err) => {
            "the snapshot ended with the session that held it: run the same command again, which goes on under another"
        }
        (Exit::Target, Some("23505")) if err.chain().contains("pg_largeobject") => {
            "the target holds large objects under the same numbers: run with --drop-if-exists if nobody needs them"
        }
        (Exit::Target, Some("53100")) => "make room on the target's disk, then run the same command again",
        (Exit::Target, Some("22021" | "22P05")) => {
            "the source holds bytes that are no text in the target's encoding: mend them there, or leave the table out"
        }
        (Exit::Target, Some("42883" | "42P01" | "42704")) => BY_SEARCH_PATH,
        _ if column_is_gone(&err) => {
            "the table was altered since it was planned: begin again (pgmig cleanup --force, empty the target, pgmig run)"
        }
        _ if err.passing() => "run the same command again: what is copied stays",
        _ => return err,
    };
    let exit = err.exit();
    Error::new(exit, "the copy stopped").cause(err).hint(hint)
}

/// What was read under a snapshot that is the copy's no more is not stored.
#[derive(Debug, thiserror::Error)]
#[error("another run has begun it")]
pub struct OtherSnapshot;

/// A table that has other columns by now than it was planned with.
#[derive(Debug, thiserror::Error)]
#[error("its columns are others than on the target")]
pub struct Altered {
    pub table: TableName,
    #[source]
    cause: Option<Error>,
}

pub(super) fn altered(table: &TableName, cause: Option<Error>) -> Error {
    let what = format!("{table} was altered on the source before it was copied");
    Error::new(Exit::Differ, what).cause(Altered { table: table.clone(), cause })
}

/// A table of a bundle was replaced: the bundle is copied again, one by one.
#[derive(Debug, thiserror::Error)]
#[error("its file is another one than under the snapshot")]
pub(super) struct Replaced;
