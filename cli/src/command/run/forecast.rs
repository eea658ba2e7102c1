//! Looks every second how fast the copy is and how long it still takes, and tells it to displays and to the
//! sentinel. Nothing hangs on it: a look that fails is left out.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::copy::throttle::Throttle;
use crate::error::Result;
use crate::model::forecast::Meter;
use crate::model::status;
use crate::patience::Patience;
use crate::report::{Event, Reporter};
use crate::target::{forecast, limits};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look at very many Parts takes a while: it has so many times as long before the next.
const REST: u32 = 20;

pub(super) struct Forecaster {
    pub target: Conninfo,
    pub migration: String,
    pub report: Reporter,
    pub patience: Patience,
    pub throttle: Throttle,
}

impl Forecaster {
    /// Looks until every Part is done.
    pub async fn watch(self) {
        let (mut client, mut meter) = (None, Meter::default());
        loop {
            let began = Instant::now();
            match self.look(client.take(), &mut meter).await {
                Ok(None) => return,
                Ok(open) => client = open,
                // The work meets the same, and it is the work's to tell.
                Err(err) => tracing::debug!(error = %err.chain(), "it cannot be seen how fast the copy is"),
            }
            tokio::time::sleep(LOOK_EVERY.max(began.elapsed() * REST)).await;
        }
    }

    /// Gives the session back, unless there is nothing left to copy.
    async fn look(&self, client: Option<Client>, meter: &mut Meter) -> Result<Option<Client>> {
        let client = match client {
            Some(client) => client,
            None => connect::client(&self.target, Side::Target, "pgmig forecast", &[]).await?,
        };
        let left = forecast::left(&client, &self.migration).await?;
        if left.is_nothing() {
            return Ok(None);
        }
        let asked = limits::asked(&client, &self.migration).await?;
        let limit = asked.max_rate.into_iter().chain(asked.wal_max_rate).min();
        // What others copy the target knows, but small Parts only once they are committed.
        let copied = if asked.joined > 0 { left.copied.max(0) as u64 } else { self.throttle.passed() };
        let pace = meter.add(Instant::now(), copied, (asked.max_rate, asked.joined), limit);
        let ahead = pace.map(|pace| left.forecast(pace));
        let (rate, seconds) = (pace.map(|pace| pace.rate), ahead.as_ref().map(|ahead| ahead.all));
        forecast::store(&client, &self.migration, rate, seconds, self.patience.retries()).await?;
        let (mut tables, parts) = status::copying(&left, ahead.as_ref());
        tables.retain(|table| parts.iter().any(|part| part.table == table.table));
        self.report.send(Event::Copying {
            bytes_done: left.bytes_done().max(0) as u64,
            bytes_per_second: rate,
            seconds_left: seconds,
            tables,
            parts,
        });
        Ok(Some(client))
    }
}
