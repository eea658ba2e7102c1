//! How the source bears its load: how long a probe takes, and how far its physical standbys are behind. It
//! reads, for moments, in a session of its own; what follows from it is for others.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, Statement};

use super::slot;
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Error, Exit, Result};
use crate::model::Lsn;
use crate::model::name::identifier;

const STANDBYS: &str = include_str!("../../../sql/source/standbys.sql");
/// About a millisecond of work, whatever the database holds. It needs a processor and the network, as every
/// query does; what it reads is in memory.
const OWN_PROBE: &str = "select count(*) from (select from pg_catalog.pg_attribute limit 2000) read";
/// A probe that takes longer is ended, and counts as one that took so long.
pub const LONGEST: Duration = Duration::from_secs(2);
/// Positions of the source that are remembered, one a second.
const REMEMBERED: usize = 3600;

/// A session that probes.
pub struct Prober {
    client: Client,
    sql: String,
    statement: Option<Statement>,
    seen: Positions,
}

/// A standby that has not replayed all.
#[derive(Debug, Clone, PartialEq)]
pub struct Standby {
    pub name: String,
    pub behind: Duration,
    pub behind_bytes: u64,
}

impl Prober {
    /// `probe`: None for pgmig's own.
    pub async fn connect(source: &Conninfo, probe: Option<&str>) -> Result<Prober> {
        let longest = LONGEST.as_millis().to_string();
        let settings = [("statement_timeout", longest.as_str()), ("default_transaction_read_only", "on")];
        let client = connect::client(source, Side::Source, "pgmig probe", &settings).await?;
        // A probe of the application's sees what the application's sessions see.
        let as_theirs = "reset search_path; reset row_security";
        client.batch_execute(as_theirs).await.on_source(|| "prepare a session for the probe".into())?;
        let sql = probe.unwrap_or(OWN_PROBE).to_string();
        Ok(Prober { client, sql, statement: None, seen: Positions::default() })
    }

    /// Runs the probe once, in a read-only transaction, and says how long it took to the last row.
    pub async fn ask(&mut self) -> Result<Duration> {
        let doing = || "run the probe on the source".to_string();
        let statement = match &self.statement {
            Some(statement) => statement.clone(),
            None => self.client.prepare(&self.sql).await.on_source(doing)?,
        };
        if statement.columns().is_empty() {
            return Err(Error::new(Exit::Source, "the probe is no query that returns rows"));
        }
        self.client.batch_execute("begin read only").await.on_source(doing)?;
        let began = Instant::now();
        let asked = self.drain(&statement).await;
        let took = began.elapsed();
        self.client.batch_execute("rollback").await.on_source(doing)?;
        self.statement = asked.is_ok().then_some(statement);
        match asked.on_source(doing) {
            Ok(()) => Ok(took),
            Err(err) if err.sqlstate() == Some(QUERY_CANCELED) => Ok(took.max(LONGEST)),
            Err(err) => Err(err),
        }
    }

    /// Nothing of what comes is looked at or kept.
    async fn drain(&self, statement: &Statement) -> Result<(), tokio_postgres::Error> {
        let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
        let mut rows = pin!(self.client.query_raw(statement, none).await?);
        while rows.try_next().await?.is_some() {}
        Ok(())
    }

    /// The standby that is furthest behind.
    pub async fn standby(&mut self) -> Result<Option<Standby>> {
        let doing = || "read how far the standbys of the source are".to_string();
        // Asked first: what is written from here on is not held against a standby.
        let now = slot::current_lsn(&self.client).await?;
        self.seen.add(Instant::now(), now);
        let rows = self.client.query(STANDBYS, &[]).await.on_source(doing)?;
        let standbys = rows.iter().filter_map(|row| {
            let (name, replay_lsn, lag): (String, Lsn, Option<f64>) = (row.get(0), row.get(1), row.get(2));
            let lag = lag.and_then(|lag| Duration::try_from_secs_f64(lag).ok()).unwrap_or_default();
            let behind = self.seen.age(Instant::now(), replay_lsn)?.max(lag);
            Some(Standby { name, behind, behind_bytes: now.bytes_since(replay_lsn) })
        });
        Ok(standbys.max_by_key(|standby| standby.behind))
    }

    /// # Errors
    /// The role may not see them.
    pub async fn may_see_standbys(&self) -> Result<()> {
        let sql = "select pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage'), current_user::text";
        let row = self.client.query_one(sql, &[]).await.on_source(|| "ask who we are".into())?;
        if row.get(0) {
            return Ok(());
        }
        let user = identifier(row.get(1));
        Err(Error::new(Exit::Source, "how far the standbys of the source are cannot be seen")
            .hint(format!("on the source: grant pg_monitor to {user};")))
    }
}

const QUERY_CANCELED: &str = "57014";

/// Where the source was at what time: how long ago it was where a standby is.
#[derive(Debug, Default)]
struct Positions(VecDeque<(Instant, Lsn)>);

impl Positions {
    fn add(&mut self, at: Instant, lsn: Lsn) {
        self.0.push_back((at, lsn));
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// How long ago the source was seen beyond `lsn` first; None if it is not beyond it.
    fn age(&self, now: Instant, lsn: Lsn) -> Option<Duration> {
        self.0.iter().find(|(_, seen)| *seen > lsn).map(|(at, _)| now - *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_as_far_behind_as_the_source_is_beyond_it() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut positions = Positions::default();
        for (seconds, lsn) in [(0, 100), (1, 100), (2, 200), (3, 300), (4, 300)] {
            positions.add(at(seconds), Lsn(lsn));
        }
        assert_eq!(positions.age(at(4), Lsn(300)), None);
        assert_eq!(positions.age(at(4), Lsn(250)), Some(Duration::from_secs(1)));
        assert_eq!(positions.age(at(9), Lsn(100)), Some(Duration::from_secs(7)));
        assert_eq!(positions.age(at(9), Lsn(1)), Some(Duration::from_secs(9)));
        for seconds in 0..2 * REMEMBERED as u64 {
            positions.add(at(seconds), Lsn(seconds));
        }
        assert_eq!(positions.0.len(), REMEMBERED);
    }
}
