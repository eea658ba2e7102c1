//! Whether both servers are spoken to themselves. A snapshot, a stream and the locks that keep a second run
//! away live as long as their session, which a pooler may end or lend to others.

use super::checks::Checks;
use crate::config::Conninfo;
use crate::connect::Side;
use crate::model::Place;
use crate::source::replication::pooled::{Between, between};

const CHECK: &str = "pooler";
const MEND: &str = "give the server's own address and port, as [databases] of pgbouncer.ini names it; for a service the direct connection";

/// What cannot be reached is told elsewhere.
pub async fn check(source: &Conninfo, target: &Conninfo, checks: &mut Checks) {
    for (conninfo, side, place) in [(source, Side::Source, Place::Source), (target, Side::Target, Place::Target)] {
        match between(conninfo, side).await {
            Ok(Between::Nothing) => checks.pass(place, CHECK, "none in between"),
            Ok(Between::TransactionPooler) => {
                let message = format!(
                    "the {side} is behind a pooler that lends sessions for a transaction: neither snapshot, stream nor lock would last"
                );
                checks.fail(place, CHECK, message, MEND);
            }
            Ok(Between::Pooler) => {
                let message =
                    format!("the {side} is behind a pooler: what it ends or lends to others is lost to the run");
                checks.warn_aloud(place, CHECK, message, MEND);
            }
            Err(error) => tracing::debug!(error = %error.chain(), "cannot look for a pooler"),
        }
    }
}
