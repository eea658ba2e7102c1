//! A session with one of the two databases, set so that equal values print equally on both.

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::error::{Context, Error, Exit, Result};

/// One of the two databases that are compared.
#[derive(Debug, Clone)]
pub struct Side {
    pub is_source: bool,
    config: Config,
}

/// What a comparison must know of a side's server and database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub major: i32,
    pub encoding: String,
}

impl Side {
    pub fn new(uri: &str, is_source: bool) -> Result<Side> {
        let name = if is_source { "source" } else { "target" };
        // The text may hold a password: neither it nor the parser's words about it go on.
        let config = uri.parse().map_err(|_| Error::usage(format!("read the connection string of the {name}")))?;
        Ok(Side { is_source, config })
    }
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// Another database of the same server.
    pub fn with_database(&self, name: &str) -> Side {
        let mut side = self.clone();
        side.config.dbname(name);
        side
    }
    pub fn exit(&self) -> Exit {
        if self.is_source { Exit::Source } else { Exit::Target }
    }
    pub fn name(&self) -> &'static str {
        if self.is_source { "source" } else { "target" }
    }

    pub async fn server(&self) -> Result<Server> {
        let query = "select current_setting('server_version_num')::int / 10000, current_setting('server_encoding')";
        let row = self.connect().await?.query_one(query, &[]).await;
        let row = row.during(self.exit(), || format!("ask the {} what it is", self.name()))?;
        Ok(Server { major: row.get(0), encoding: row.get(1) })
    }

    /// The one place where verify connects.
    pub async fn connect(&self) -> Result<Client> {
        let doing = || format!("connect to the {} to compare it", self.name());
        let mut config = self.config.clone();
        config.application_name("pgmig verify").connect_timeout(Duration::from_secs(30));
        let (client, connection) = config.connect(NoTls).await.during(self.exit(), doing)?;
        // Ends with the client; whoever uses the client sees the failure.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client.batch_execute(SETTINGS).await.during(self.exit(), doing)?;
        Ok(client)
    }
}

/// The path is empty so that names in values of type regclass are whole. With row security off, a
/// policy that hides rows is an error and not a difference.
const SETTINGS: &str = "
set datestyle = 'ISO, YMD';
set intervalstyle = 'postgres';
set timezone = 'UTC';
set extra_float_digits = 3;
set bytea_output = 'hex';
set xmloption = 'content';
set lc_monetary = 'C';
set client_encoding = 'UTF8';
set search_path = '';
set row_security = off;
set statement_timeout = 0;
set lock_timeout = 0;
set idle_in_transaction_session_timeout = 0;
set synchronize_seqscans = off;
set default_transaction_isolation = 'repeatable read';
set default_transaction_read_only = on;
";
