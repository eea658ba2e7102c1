//! What is written to the source: once as a backlog, and a digest that says whether all of it came.

use std::time::{Duration, Instant};

use pgmig::embedded::Cluster;
use tokio_postgres::Client;

use crate::data::pgbench_init;
use crate::servers::{Servers, TARGET, run, session};
use crate::{Common, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Bulk,
    Hot,
    /// Its load is written while it is measured.
    Lag,
}

impl Workload {
    /// Of the source; also the name of the part in the report.
    pub fn database(self) -> &'static str {
        match self {
            Workload::Bulk => "bulk",
            Workload::Hot => "hot",
            Workload::Lag => "lag",
        }
    }

    /// Makes the database as it is before the backlog.
    pub async fn load(self, servers: &Servers, common: &Common) -> Outcome<()> {
        let name = self.database();
        servers.drop_database(&servers.source, name).await?;
        servers.source.create_database(name).await?;
        pgbench_init(servers, name, if self == Workload::Hot { 1 } else { common.scaled(100.0) })?;
        servers.source.sql(name, include_str!("../../sql/cdc_tables.sql")).await?;
        Ok(())
    }

    /// Writes the backlog, the row that ends it last; says what it was.
    pub async fn write(self, servers: &Servers, common: &Common) -> Outcome<String> {
        let start = Instant::now();
        let name = self.database();
        let before = servers.source.value(name, "select pg_current_wal_insert_lsn()").await?.unwrap_or_default();
        // Hot rows take a fraction of the time: twice as many, or what is measured is how a contender starts.
        let each = common.scaled(if self == Workload::Hot { 50_000.0 } else { 25_000.0 });
        let mut pgbench = servers.source.bin_dir().tool("pgbench");
        pgbench.args(["--no-vacuum", "-c", "4", "-j", "2", "--random-seed=1", "-t", &each.to_string()]);
        if self == Workload::Bulk {
            pgbench.arg("--skip-some-updates");
        }
        run(pgbench.arg(servers.source.uri(name)))?;
        let mut told = format!("{} pgbench transactions", 4 * each);
        if self == Workload::Bulk {
            let rows = common.scaled(1_000_000.0);
            for phase in include_str!("../../sql/cdc_bulk.sql").split("-- next\n") {
                let text = phase.replace("{rows}", &rows.to_string()).replace("{half}", &(rows / 2).to_string());
                servers.source.sql(name, &text).await?;
            }
            told += &format!(", {rows} rows inserted, {0} updated, {0} deleted", rows / 2);
        }
        servers.source.sql(name, "insert into last_row values (1)").await?;
        let size = format!("select pg_size_pretty(pg_current_wal_insert_lsn() - '{before}')");
        let size = servers.source.value(name, &size).await?.unwrap_or_default();
        eprintln!("{name}: backlog of {size} written in {:.1} s", start.elapsed().as_secs_f64());
        Ok(format!("{told}, {size} of WAL"))
    }

    /// Rows and their contents, as a text to compare.
    pub async fn digest(self, cluster: &Cluster, database: &str) -> Outcome<String> {
        let tables = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history", "cdc_wide"];
        let each = tables.map(|table| {
            format!(
                "(select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from {table} t)"
            )
        });
        // float8 in full, whatever the server's settings are.
        let text = format!("set extra_float_digits = 3; select {}", each.join(" || ', ' || "));
        Ok(cluster.value(database, &text).await?.unwrap_or_default())
    }
}

/// Sees the backlog's last row arrive. A session of its own, which costs the target next to nothing.
pub struct LastRow(Option<Client>);

impl LastRow {
    pub async fn watch(servers: &Servers, applies: bool) -> Outcome<LastRow> {
        Ok(LastRow(if applies { Some(session(&servers.target.uri(TARGET)).await?) } else { None }))
    }

    /// Waits until it is there, or until the contender has ended; `ended` says so.
    pub async fn arrives(self, limit: Duration, mut ended: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
        let start = Instant::now();
        loop {
            if let Some(client) = &self.0
                && client.query_opt("select from last_row", &[]).await?.is_some()
            {
                return Ok(());
            }
            if ended()? {
                return if self.0.is_none() { Ok(()) } else { Err("it ended before the last row came".into()) };
            }
            if start.elapsed() > limit {
                return Err(format!("the last row had not come after {limit:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
