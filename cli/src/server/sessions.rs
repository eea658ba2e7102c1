//! The sessions of pgmig on a server: what they wait for, who is in their way, and which vacuums run beside
//! them. Reads only, with functions that take no lock of a table.

use tokio_postgres::{Client, Row};

use crate::connect::Side;
use crate::error::{Context, Result};
use crate::model::stall::{Blocked, Holder, Session, Vacuum, without_values};

/// Every session of pgmig with this database, as it is now.
pub async fn sessions(client: &Client, side: Side) -> Result<Vec<Session>> {
    let doing = || format!("read the sessions of the {side}");
    let rows = client.query(include_str!("../../../sql/server/sessions.sql"), &[]).await.during(side.exit(), doing)?;
    let session = |row: &Row| Session {
        pid: row.get("pid"),
        name: row.get("name"),
        state: row.get("state"),
        wait_type: row.get("wait_event_type"),
        wait: row.get("wait_event"),
        seconds: row.get("seconds"),
    };
    Ok(rows.iter().map(session).collect())
}

/// Those of them that wait for a lock, and who holds it, the one with the oldest transaction first.
pub async fn blocked(client: &Client, side: Side, sessions: &[Session]) -> Result<(Vec<Blocked>, Vec<Holder>)> {
    let waiting: Vec<i32> =
        sessions.iter().filter(|s| s.wait_type.as_deref() == Some("Lock")).map(|session| session.pid).collect();
    if waiting.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let doing = || format!("read who waits for a lock on the {side}");
    let sql = include_str!("../../../sql/server/blocked.sql");
    let rows = client.query(sql, &[&waiting]).await.during(side.exit(), doing)?;
    let blocked = |row: &Row| {
        let pid = row.get("pid");
        let session = sessions.iter().find(|session| session.pid == pid)?;
        let (kind, relation): (String, Option<String>) = (row.get("locktype"), row.get("relation"));
        Some(Blocked {
            pid,
            name: session.name.clone(),
            seconds: session.seconds,
            mode: row.get("mode"),
            on: match (kind.as_str(), relation) {
                ("relation", Some(relation)) => relation,
                ("transactionid" | "virtualxid", _) => "the end of a transaction".into(),
                ("tuple", Some(relation)) => format!("a row of {relation}"),
                (kind, Some(relation)) => format!("{kind} of {relation}"),
                (kind, None) => kind.into(),
            },
            holders: row.get("holders"),
        })
    };
    let blocked: Vec<Blocked> = rows.iter().filter_map(blocked).collect();
    Ok((blocked.clone(), holders(client, side, &blocked).await?))
}

async fn holders(client: &Client, side: Side, blocked: &[Blocked]) -> Result<Vec<Holder>> {
    let doing = || format!("read who holds locks on the {side}");
    let mut pids: Vec<i32> = blocked.iter().flat_map(|blocked| blocked.holders.iter().copied()).collect();
    pids.sort_unstable();
    pids.dedup();
    let sql = include_str!("../../../sql/server/holders.sql");
    let rows = client.query(sql, &[&pids]).await.during(side.exit(), doing)?;
    let holder = |row: &Row| Holder {
        pid: row.get("pid"),
        backend: row.get("backend"),
        role: row.get("role"),
        application: row.get("application"),
        state: row.get("state"),
        transaction_seconds: row.get("transaction_seconds"),
        query_seconds: row.get("query_seconds"),
        statement: without_values(row.get("statement")),
        prepared: None,
    };
    let mut holders: Vec<Holder> = rows.iter().map(holder).collect();
    // A prepared transaction has no session, and 0 for a pid.
    if pids.contains(&0) {
        let waiting: Vec<i32> = blocked.iter().map(|blocked| blocked.pid).collect();
        let sql = include_str!("../../../sql/server/prepared.sql");
        let rows = client.query(sql, &[&waiting]).await.during(side.exit(), doing)?;
        holders.extend(rows.iter().map(|row| Holder {
            pid: 0,
            backend: String::new(),
            role: String::new(),
            application: String::new(),
            state: String::new(),
            transaction_seconds: row.get(1),
            query_seconds: row.get(1),
            statement: String::new(),
            prepared: row.get(0),
        }));
    }
    Ok(holders)
}

pub async fn vacuums(client: &Client, side: Side) -> Result<Vec<Vacuum>> {
    let doing = || format!("read the vacuums of the {side}");
    let rows = client.query(include_str!("../../../sql/server/vacuums.sql"), &[]).await.during(side.exit(), doing)?;
    let vacuum = |row: &Row| Vacuum {
        pid: row.get("pid"),
        relation: row.get("relation"),
        phase: row.get("phase"),
        done: row.get("done"),
        automatic: row.get("automatic"),
        against_wraparound: row.get("against_wraparound"),
        seconds: row.get("seconds"),
    };
    Ok(rows.iter().map(vacuum).collect())
}
