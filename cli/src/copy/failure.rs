//! What to do about a copy that failed. Knows the servers' answers, and nothing of the copy.

use crate::error::{Error, Exit};
use crate::source::snapshot;

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
        (Exit::Source, Some("42703")) => {
            "the table was altered since it was planned: begin again (pgmig cleanup --force, empty the target, pgmig run)"
        }
        _ if err.passing() => "run the same command again: what is copied stays",
        _ => return err,
    };
    let exit = err.exit();
    Error::new(exit, "the copy stopped").cause(err).hint(hint)
}
