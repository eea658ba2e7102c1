//! Watches that what the copy's workers have in hand moves. A Part that stands still is told, with what its
//! sessions wait for: a copy that hangs does not look like one that is slow.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_postgres::Client;

use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::copy::in_hand::Held;
use crate::copy::shared::Shared;
use crate::error::{Error, Exit, Result};
use crate::model::stall::{Cause, Diagnosis, Mend};
use crate::report::{Event, units};
use crate::stalls;
use crate::target::sentinel;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What finding out why may take, of each server.
const WITHIN: Duration = Duration::from_secs(5);
/// The name of the sessions that ask.
const NAME: &str = "pgmig watch";

/// Looks for as long as there are workers. What stands is told when it has stood for `after`, and whenever
/// it has for twice as long as when it was told last.
pub(super) async fn watch(shared: Weak<Shared>, after: Duration) {
    let mut told: BTreeMap<i64, Duration> = BTreeMap::new();
    if after.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Only for a moment: the last worker to end is the end of this.
        let Some((standing, source, target, migration)) = shared.upgrade().map(|shared| {
            let standing = shared.in_hand.standing(after);
            (standing, shared.source.clone(), shared.target.clone(), shared.migration.clone())
        }) else {
            return;
        };
        told.retain(|id, _| standing.iter().any(|held| held.id == *id));
        for held in standing {
            let seconds = held.still_for();
            if told.get(&held.id).is_some_and(|last| seconds < *last * 2) {
                continue;
            }
            told.insert(held.id, seconds);
            let (why, client) = why(&source, &target, &held).await;
            // Finding out takes a while.
            let stands = |shared: &Arc<Shared>| shared.in_hand.standing(seconds).iter().any(|one| one.id == held.id);
            if !shared.upgrade().is_some_and(|shared| stands(&shared)) {
                continue;
            }
            let mend = why.mend.as_ref().map(Mend::in_words);
            let message = format!("{} has moved no byte for {}: {}", held.name, units::duration(seconds), why.text);
            if let Some(client) = client {
                let record = sentinel::event(&client, &migration, "warn", &message);
                let _ = tokio::time::timeout(WITHIN, record).await;
            }
            let (id, seconds) = (held.id, seconds.as_secs_f64());
            let Some(shared) = shared.upgrade() else { return };
            shared.report.send(Event::PartStands { id, name: held.name, seconds, cause: why.cause, message, mend });
        }
    }
}

/// What it comes to, and a session with the target if it answers.
async fn why(source: &Conninfo, target: &Conninfo, held: &Held) -> (Diagnosis, Option<Client>) {
    let (here, there) = tokio::join!(answers(target, Side::Target), answers(source, Side::Source));
    let here = match here {
        Ok(client) => client,
        Err(error) => {
            let text = format!("the target does not let us look why: {}", error.chain());
            return (Diagnosis { cause: Cause::Target, stalled: true, text, mend: None }, None);
        }
    };
    let from = there.as_ref().ok().map(|client| (client, held.source_pid));
    let looked = tokio::time::timeout(WITHIN, stalls::part((&here, held.target_pid), from)).await;
    let found = looked.unwrap_or_else(|_| Err(Error::new(Exit::Source, "the servers do not answer in time")));
    let found = found.unwrap_or_else(|error| {
        let text = format!("it could not be seen why: {}", error.chain());
        Diagnosis { cause: Cause::Line, stalled: true, text, mend: None }
    });
    (found, Some(here))
}

async fn answers(conninfo: &Conninfo, side: Side) -> Result<Client> {
    let connecting = connect::client(conninfo, side, NAME, &[]);
    let late = || Err(Error::new(side.exit(), format!("the {side} does not answer")));
    tokio::time::timeout(WITHIN, connecting).await.unwrap_or_else(|_| late())
}
