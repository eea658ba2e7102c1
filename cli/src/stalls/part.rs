//! Why one Part does not move, asked of the two sessions that copy it.

use std::time::Duration;

use tokio_postgres::Client;

use super::{EVERY, diagnosis};
use crate::connect::Side;
use crate::error::Result;
use crate::model::stall::{Diagnosis, Seen, Waits};
use crate::server::sessions;

/// How long they are watched.
const DURING: Duration = Duration::from_secs(1);

/// `source` is None where it does not answer.
pub async fn part(target: (&Client, i32), source: Option<(&Client, i32)>) -> Result<Diagnosis> {
    let there = async {
        match source {
            Some((client, pid)) => one(client, Side::Source, pid).await.map(Some),
            None => Ok(None),
        }
    };
    let (here, there) = tokio::try_join!(one(target.0, Side::Target, target.1), there)?;
    Ok(diagnosis::of_part(&here, there.as_ref()))
}

/// What is seen of one session.
async fn one(client: &Client, side: Side, pid: i32) -> Result<Seen> {
    let mut looks = Vec::new();
    for _ in 0..DURING.as_millis() / EVERY.as_millis() {
        let mut look = sessions::sessions(client, side).await?;
        look.retain(|session| session.pid == pid);
        looks.push(look);
        tokio::time::sleep(EVERY).await;
    }
    let last = looks.last().map(Vec::as_slice).unwrap_or_default();
    let (blocked, holders) = sessions::blocked(client, side, last).await?;
    Ok(Seen { waits: Waits::of(&looks), blocked, holders, vacuums: Vec::new() })
}
