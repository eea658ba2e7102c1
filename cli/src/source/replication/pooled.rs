//! Whether a connection pooler stands between us and a server: it lends a session for a transaction or for as
//! long as a client stays, and no stream, no lock and no setting of ours outlives that.

use super::{ReplicationClient, startup};
use crate::config::Conninfo;
use crate::connect::{Side, dial};
use crate::error::{Context, Result};

/// What stands in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    Nothing,
    /// Something that answers in the server's place; each client seems to have a session of its own.
    Pooler,
    /// One that lends a session for a transaction at most: two clients were seen in the same one.
    TransactionPooler,
}

/// A pooler tells a client of a process of its own making, and not of the server's; clients that share a
/// session see one and the same.
///
/// # Errors
/// Exit 3 or 4 by `side`: not reached, or refused.
pub async fn between(conninfo: &Conninfo, side: Side) -> Result<Between> {
    let mut first = session(conninfo, side).await?;
    let serves_first = process(&mut first, side).await?;
    if serves_first == first.backend_pid {
        return Ok(Between::Nothing);
    }
    // The first one stays, and holds no transaction: a session of its own would stay with it.
    let mut second = session(conninfo, side).await?;
    let shared = process(&mut second, side).await? == serves_first;
    Ok(if shared { Between::TransactionPooler } else { Between::Pooler })
}

async fn session(conninfo: &Conninfo, side: Side) -> Result<ReplicationClient> {
    let startup =
        startup::Startup { conninfo, side, application_name: "pgmig preflight", replication: false, bare: true };
    dial::connect(conninfo, side, &startup).await
}

/// The process that does what this session asks for.
async fn process(client: &mut ReplicationClient, side: Side) -> Result<i32> {
    let doing = format!("ask the {side} which process serves us");
    let rows = match client.query("select pg_catalog.pg_backend_pid() as pid").await {
        Ok(rows) => rows,
        Err(broken) => return Err(client.error(&doing, broken)),
    };
    rows.first("pid").unwrap_or_default().parse().during(side.exit(), || doing)
}
