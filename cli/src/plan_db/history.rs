//! What `plan.db` remembers of a migration for `pgmig report`: samples of the stream, bounded in number,
//! the runs that were begun, and what the target said last. Nothing decides by it.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::PlanDb;
use crate::error::{Context, Exit, Result};
use crate::model::history::{Facts, RunStart, Sample, halved};
use crate::model::{LeftOut, Lsn};

/// When there are so many samples, two become one, and the next ones lie twice as far apart.
const SAMPLES: usize = 2000;
const AT_FIRST_EVERY: SignedDuration = SignedDuration::from_secs(1);
/// How many runs are remembered.
const RUNS: i64 = 50;

pub(super) const TABLES: &str = "\
create table if not exists sample (at integer primary key, source_lsn text not null, reached_lsn text not null,
                                   lag_bytes integer not null, spool_bytes integer not null, first integer not null) strict;
create table if not exists run (at text primary key, start text not null) strict;";

/// Takes samples and stores one from time to time.
pub struct Recorder {
    connection: Connection,
    every: SignedDuration,
    stored: usize,
    /// Since the last one that was stored.
    pending: Option<Sample>,
    due: Timestamp,
}

impl Recorder {
    /// Takes where the stream is. A sample that cannot be stored is lost, and nothing else.
    pub fn take(&mut self, sample: Sample) {
        let sample =
            self.pending.take().map_or(Sample { first: self.due == Timestamp::MIN, ..sample }, |p| p.and(sample));
        if sample.at < self.due {
            self.pending = Some(sample);
            return;
        }
        self.due = sample.at.saturating_add(self.every).unwrap_or(Timestamp::MAX);
        if let Err(err) = self.store(&sample).and_then(|()| self.thin()) {
            tracing::debug!(error = %err, "a sample of the stream is lost");
        }
    }

    fn store(&mut self, sample: &Sample) -> rusqlite::Result<()> {
        insert(&self.connection, sample)?;
        self.stored += 1;
        Ok(())
    }

    fn thin(&mut self) -> rusqlite::Result<()> {
        if self.stored < SAMPLES {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        let thin = halved(&samples(&transaction)?);
        transaction.execute("delete from sample", [])?;
        for sample in &thin {
            insert(&transaction, sample)?;
        }
        self.every *= 2;
        let every = self.every.as_secs().to_string();
        transaction.execute("insert or replace into meta (key, value) values ('sample_every', ?1)", [every])?;
        transaction.commit()?;
        self.stored = thin.len();
        Ok(())
    }
}

fn insert(connection: &Connection, sample: &Sample) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("insert or replace into sample values (?1, ?2, ?3, ?4, ?5, ?6)")?;
    insert.execute(params![
        sample.at.as_millisecond(),
        sample.source_lsn.to_string(),
        sample.reached_lsn.to_string(),
        sample.lag_bytes.min(i64::MAX as u64) as i64,
        sample.spool_bytes.min(i64::MAX as u64) as i64,
        sample.first,
    ])?;
    Ok(())
}

fn samples(connection: &Connection) -> rusqlite::Result<Vec<Sample>> {
    let mut select = connection
        .prepare("select at, source_lsn, reached_lsn, lag_bytes, spool_bytes, first from sample order by at")?;
    let lsn = |text: String| text.parse::<Lsn>().unwrap_or_default();
    let rows = select.query_map([], |row| {
        Ok(Sample {
            at: Timestamp::from_millisecond(row.get(0)?).unwrap_or_default(),
            source_lsn: lsn(row.get(1)?),
            reached_lsn: lsn(row.get(2)?),
            lag_bytes: row.get::<_, i64>(3)? as u64,
            spool_bytes: row.get::<_, i64>(4)? as u64,
            first: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// What a folder remembers.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Which migration it belongs to.
    pub migration: String,
    pub samples: Vec<Sample>,
    pub runs: Vec<RunStart>,
    pub left_out: Vec<LeftOut>,
    pub phases: Vec<(Timestamp, String)>,
    pub facts: Option<Facts>,
}

impl PlanDb {
    /// Samples go through a connection of their own: whoever takes them is another task.
    pub fn recorder(&self) -> Result<Recorder> {
        let doing = || "open plan.db for samples".to_string();
        let connection = Connection::open(self.dir.join("plan.db")).during(Exit::Dir, doing)?;
        // One that is lost with the machine is no loss; a commit waits for no disk.
        connection.pragma_update(None, "synchronous", "off").during(Exit::Dir, doing)?;
        connection.busy_timeout(Duration::from_millis(200)).during(Exit::Dir, doing)?;
        let every = self.get("sample_every")?.and_then(|every| every.parse().ok()).map(SignedDuration::from_secs);
        let stored: i64 =
            connection.query_row("select count(*) from sample", [], |row| row.get(0)).during(Exit::Dir, doing)?;
        let every = every.unwrap_or(AT_FIRST_EVERY);
        Ok(Recorder { connection, every, stored: stored as usize, pending: None, due: Timestamp::MIN })
    }

    /// Notes that a run has begun.
    pub fn run_begun(&self, start: &RunStart) -> Result<()> {
        let doing = || "note in plan.db that a run has begun".to_string();
        let text = serde_json::to_string(start).during(Exit::Bug, doing)?;
        self.connection
            .execute("insert or replace into run (at, start) values (?1, ?2)", params![start.at.to_string(), text])
            .during(Exit::Dir, doing)?;
        self.connection
            .execute("delete from run where at not in (select at from run order by at desc limit ?1)", [RUNS])
            .during(Exit::Dir, doing)?;
        Ok(())
    }

    /// Forgets an earlier migration in this folder.
    pub(super) fn forget(&self) -> Result<()> {
        self.connection
            .execute_batch("delete from sample; delete from run; delete from timing; delete from meta where key in ('selection', 'unstreamed', 'facts', 'sample_every')")
            .during(Exit::Dir, || "write plan.db".into())
    }
}

/// Keeps what the target says, for when it says nothing any more. A folder without a plan stays without.
pub fn keep(dir: &Path, identity: &str, facts: &Facts) -> Result<()> {
    if !dir.join("plan.db").exists() {
        return Ok(());
    }
    let text = serde_json::to_string(facts).during(Exit::Bug, || "write what the target says".into())?;
    PlanDb::open(dir, identity)?.set("facts", &text)
}

/// Reads a folder, whichever migration it belongs to; None if there is none.
pub fn remembered(dir: &Path) -> Result<Option<Remembered>> {
    let doing = || format!("read the plan in {}", dir.display());
    let path = dir.join("plan.db");
    if !path.exists() {
        return Ok(None);
    }
    let connection = Connection::open(path).during(Exit::Dir, doing)?;
    connection.execute_batch(TABLES).during(Exit::Dir, doing)?;
    let meta = |key: &str| -> Result<Option<String>> {
        connection
            .query_row("select value from meta where key = ?1", [key], |row| row.get(0))
            .optional()
            .during(Exit::Dir, doing)
    };
    let all = |sql: &str| -> rusqlite::Result<Vec<(String, String)>> {
        let mut select = connection.prepare(sql)?;
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let facts = meta("facts")?;
    let facts = facts.map(|text| serde_json::from_str(&text)).transpose().during(Exit::Dir, doing)?;
    let runs = all("select at, start from run order by at").during(Exit::Dir, doing)?;
    let phases =
        all("select strftime('%Y-%m-%dT%H:%M:%SZ', at), what from timing order by rowid").during(Exit::Dir, doing)?;
    let left_out = match meta("selection")? {
        Some(text) => serde_json::from_str::<super::Selection>(&text).during(Exit::Dir, doing)?.left_out,
        None => Vec::new(),
    };
    let identity = meta("identity")?.unwrap_or_default();
    Ok(Some(Remembered {
        migration: identity.rsplit(' ').next().unwrap_or_default().to_string(),
        samples: samples(&connection).during(Exit::Dir, doing)?,
        runs: runs.iter().filter_map(|(_, start)| serde_json::from_str(start).ok()).collect(),
        phases: phases.into_iter().filter_map(|(at, what)| Some((at.parse().ok()?, what))).collect(),
        left_out,
        facts,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_of_months_keeps_a_bounded_number_of_samples() {
        let dir = tempfile::tempdir().unwrap();
        let plan = PlanDb::open(dir.path(), "a").unwrap();
        let mut at = Timestamp::from_second(1_800_000_000).unwrap();
        let mut taken = 0;
        for run in 0..3 {
            let mut recorder = plan.recorder().unwrap();
            for second in 0..4000 {
                at = at.saturating_add(SignedDuration::from_secs(1)).unwrap();
                taken += 1;
                let lag_bytes = if run == 1 && second == 777 { 1 << 40 } else { 5 };
                let (source_lsn, reached_lsn) = (Lsn(taken * 1000), Lsn(taken * 1000 - 5));
                recorder.take(Sample { at, source_lsn, reached_lsn, lag_bytes, spool_bytes: 1, first: false });
            }
        }
        let found = remembered(dir.path()).unwrap().unwrap();
        assert!((SAMPLES / 2..SAMPLES).contains(&found.samples.len()), "{}", found.samples.len());
        assert_eq!(found.samples.iter().filter(|sample| sample.lag_bytes == 1 << 40).count(), 1, "the peak is there");
        assert_eq!(found.samples.iter().filter(|sample| sample.first).count(), 3, "one for each run");
        assert!(found.samples.windows(2).all(|two| two[0].at < two[1].at));
    }
}
