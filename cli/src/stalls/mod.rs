//! Why a migration is slow now: looks at both servers for a moment, a few times a second, and says what it
//! comes to. Reads only, and takes no lock of a table: whatever is stuck does not hold it up.

mod diagnosis;
mod part;

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row};

use crate::connect::Side;
use crate::error::{Context, Error, Exit, Result};
use crate::model::Progress;
use crate::model::stall::{Seen, Session, Waits, Watched};
use crate::server::growth::{Size, size};
use crate::server::sessions;
use crate::source::health;
use crate::target::progress;
pub use diagnosis::diagnosis;
pub use part::part;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(200);
/// How long the source may take to answer: what the target says does not wait for it any longer.
const SOURCE_WITHIN: Duration = Duration::from_secs(5);

/// Watches one migration for a while.
pub async fn watch(target: &Client, source: Option<&Client>, name: &str, during: Duration) -> Result<Watched> {
    let began = Instant::now();
    let before = now(target, name).await?;
    let parts = in_hand(target, name).await?;
    let sizes = (in_time(target, Side::Target).await, asked(source).await);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let mut answers = source;
    loop {
        here.push(sessions::sessions(target, Side::Target).await?);
        if let Some(client) = answers {
            match tokio::time::timeout(SOURCE_WITHIN, sessions::sessions(client, Side::Source)).await {
                Ok(look) => there.push(look?),
                Err(_) => answers = None,
            }
        }
        if began.elapsed() >= during {
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = now(target, name).await?;
    let grown = |now: Option<Size>, before: Option<Size>| Some(now?.since(&before?));
    let growth = grown(in_time(target, Side::Target).await, sizes.0);
    let source_growth = grown(asked(answers).await, sizes.1);
    let (seen_there, health) = match answers {
        Some(client) => {
            let asked = async {
                Ok::<_, Error>((
                    seen(client, Side::Source, &there).await?,
                    health::health(client, &after.slot_name).await?,
                ))
            };
            match tokio::time::timeout(SOURCE_WITHIN, asked).await {
                Ok(answered) => answered.map(|(seen, health)| (Some(seen), Some(health)))?,
                Err(_) => (None, None),
            }
        }
        None => (None, None),
    };
    let still_in_hand = in_hand(target, name).await?;
    let still = still_in_hand.iter().filter(|part| parts.contains(part)).map(|part| part.name.clone()).collect();
    Ok(Watched {
        growth,
        source_growth,
        copying: still_in_hand.into_iter().map(|part| part.relation).collect(),
        still,
        target: seen(target, Side::Target, &here).await?,
        source: seen_there,
        health,
        before,
        after,
        seconds,
    })
}

/// A server with very many files may take long to add them up, and one that hangs says nothing.
async fn in_time(client: &Client, side: Side) -> Option<Size> {
    match tokio::time::timeout(SOURCE_WITHIN, size(client, side)).await {
        Ok(Ok(size)) => Some(size),
        Ok(Err(error)) => {
            tracing::debug!(error = %error.chain(), "it cannot be seen how much the {side} writes");
            None
        }
        Err(_) => None,
    }
}

async fn asked(source: Option<&Client>) -> Option<Size> {
    in_time(source?, Side::Source).await
}

async fn now(target: &Client, name: &str) -> Result<Progress> {
    progress::progress(target, Some(name)).await?.into_iter().next().ok_or_else(|| {
        Error::new(Exit::Phase, format!("there is no migration `{name}` on the target"))
            .hint("see them all: pgmig status; start one: pgmig run")
    })
}

/// What the looks at a server come to, and who is in the way at the last one.
async fn seen(client: &Client, side: Side, looks: &[Vec<Session>]) -> Result<Seen> {
    let last = looks.last().map(Vec::as_slice).unwrap_or_default();
    let (blocked, holders) = sessions::blocked(client, side, last).await?;
    Ok(Seen { waits: Waits::of(looks), blocked, holders, vacuums: sessions::vacuums(client, side).await? })
}

/// A Part of the copy that a worker has in hand.
#[derive(PartialEq)]
struct InHand {
    id: i64,
    name: String,
    relation: String,
    bytes: i64,
}

async fn in_hand(target: &Client, name: &str) -> Result<Vec<InHand>> {
    // What is moved of large objects no view shows.
    let sql = "select part_id, format('%s.%s', schema_name, table_name)
                      || case when parts > 1 then format(' %s/%s', part_number, parts) else '' end,
                      format('%I.%I', schema_name, table_name), coalesce(copied_bytes, 0)::int8
                 from pgmig.parts
                where migration = $1 and state = 'copying' and schema_name <> 'pg_catalog' order by 1";
    let rows = target.query(sql, &[&name]).await.on_target(|| "read the Parts in flight".into())?;
    let part = |row: &Row| InHand { id: row.get(0), name: row.get(1), relation: row.get(2), bytes: row.get(3) };
    Ok(rows.iter().map(part).collect())
}
