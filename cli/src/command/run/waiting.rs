//! The wait for a logical slot, which waits for every transaction that was running when it was begun: says for
//! which, and when enough was waited.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Error, Exit, Result};
use crate::report::units;
use crate::source::checks::transactions::oldest_transaction;

/// One wait for a slot.
pub(super) struct Waiting {
    began: Instant,
    /// None waits for as long as it takes.
    limit: Option<Duration>,
    told: Option<String>,
}

impl Waiting {
    pub fn new(limit: Option<Duration>) -> Waiting {
        Waiting { began: Instant::now(), limit, told: None }
    }

    /// What there is to tell that was not told yet.
    ///
    /// # Errors
    /// Exit 3, once enough was waited, with what would end the wait.
    pub async fn look(&mut self, client: &Client) -> Result<Option<String>> {
        let Some(oldest) = oldest_transaction(client).await? else { return Ok(None) };
        let age = units::duration(Duration::try_from_secs_f64(oldest.seconds.max(0.0)).unwrap_or_default());
        if let Some(limit) = self.limit.filter(|limit| self.began.elapsed() >= *limit) {
            let what = format!(
                "the slot was not made within {}: it waits for a transaction that has been open for {age} on the source",
                units::duration(limit)
            );
            return Err(Error::new(Exit::Source, format!("{what}, {}", oldest.who)).hint(format!(
                "let it end, or end it on the source, then run the same command again:\n{}",
                oldest.end
            )));
        }
        if self.told.replace(oldest.end.clone()) == Some(oldest.end) {
            return Ok(None);
        }
        Ok(Some(format!("the slot waits for a transaction that has been open for {age} on the source: {}", oldest.who)))
    }
}
