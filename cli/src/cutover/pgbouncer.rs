//! PgBouncer's admin console: holds clients back between two transactions, and lets them go on.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Error, Exit, Result};

pub struct Console {
    client: Client,
    databases: Vec<String>,
}

impl Console {
    /// `databases`: those to pause; none is all.
    pub async fn open(conninfo: &Conninfo, databases: &[String]) -> Result<Console> {
        let client = connect::console(conninfo, Side::Source).await.map_err(|cause| {
            Error::new(Exit::Source, "cannot reach the admin console of PgBouncer")
                .cause(cause)
                .hint("give the database `pgbouncer` and a user of admin_users: --pgbouncer postgresql://admin@host:6432/pgbouncer")
        })?;
        let console = Console { client, databases: databases.to_vec() };
        let known = console.rows("show databases").await?;
        if let Some(missing) = databases.iter().find(|name| !known.contains(name)) {
            return Err(Error::usage(format!("PgBouncer has no database `{missing}`"))
                .hint(format!("it has: {}", known.join(", "))));
        }
        Ok(console)
    }

    /// Waits until every transaction has ended and the connections to the server are closed; what clients
    /// send from then on waits.
    pub async fn pause(&self) -> Result<()> {
        self.each("pause").await
    }

    /// Lets clients go on. That it was not paused is no error.
    pub async fn resume(&self) -> Result<()> {
        self.each("resume").await
    }

    /// Reads its configuration again.
    pub async fn reload(&self) -> Result<()> {
        self.rows("reload").await.map(drop)
    }

    async fn each(&self, verb: &str) -> Result<()> {
        if self.databases.is_empty() {
            return self.tell(verb).await;
        }
        for database in &self.databases {
            self.tell(&format!("{verb} {}", crate::model::name::identifier(database))).await?;
        }
        Ok(())
    }

    async fn tell(&self, command: &str) -> Result<()> {
        match self.rows(command).await {
            Err(err) if err.chain().contains("not paused") || err.chain().contains("already suspended/paused") => {
                Ok(())
            }
            told => told.map(drop),
        }
    }

    /// The first column of the answer.
    async fn rows(&self, command: &str) -> Result<Vec<String>> {
        let answer = self.client.simple_query(command).await;
        let answer = answer.during(Exit::Source, || format!("tell PgBouncer to {command}"))?;
        let first = |message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
            _ => None,
        };
        Ok(answer.into_iter().filter_map(first).collect())
    }
}
