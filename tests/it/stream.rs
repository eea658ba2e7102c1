//! Change data capture, held to the letter: what arrives by the stream is what the source committed,
//! whatever its type, key, table or transaction, through both plugins and into both flavours.

mod bare;
mod budget;
mod conflicts;
mod ddl;
mod differential;
mod drift;
mod keys;
mod merge;
mod odd;
mod routed;
mod transactions;
mod types;
mod united;
mod walks;

use crate::life::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way, session, value};

/// Both plugins into both flavours.
const WAYS: [Way; 4] = [EXTENSION, PLAIN, EXTENSION_WAL2JSON, PLAIN_WAL2JSON];

/// Runs statements on the source in one session, each its own transaction unless it says otherwise.
async fn do_all(life: &Life, statements: &[&str]) {
    for statement in statements {
        life.source.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
}
