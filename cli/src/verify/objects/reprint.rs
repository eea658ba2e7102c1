//! What two servers print in different words may mean the same. The target reads both texts, makes something
//! temporary of each, and prints it: what it prints alike is alike. All of it is rolled back.

use tokio_postgres::Client;

use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Result};

/// The texts of what a probe has made.
const PRINT: &str = "
with made as (
    select c.oid, c.relkind from pg_catalog.pg_class c
     where c.relname = 'pgmig_verify' and c.relnamespace = pg_catalog.pg_my_temp_schema())
select pg_catalog.string_agg(text, e'\\n')
  from (select pg_catalog.pg_get_viewdef(oid) from made where relkind = 'v'
        union all
        select pg_catalog.pg_get_triggerdef(t.oid) from pg_catalog.pg_trigger t where t.tgrelid in (select oid from made)
        union all
        select pg_catalog.pg_get_ruledef(r.oid) from pg_catalog.pg_rewrite r
         where r.ev_class in (select oid from made) and r.rulename <> '_RETURN'
        union all
        select pg_catalog.pg_get_function_sqlbody(p.oid) from pg_catalog.pg_proc p
         where p.proname = 'pgmig_verify' and p.pronamespace = pg_catalog.pg_my_temp_schema()) t (text)";

pub struct Reprint<'a> {
    conninfo: &'a Conninfo,
    client: Option<Client>,
}

impl<'a> Reprint<'a> {
    /// Connects only when it is needed.
    pub fn new(conninfo: &'a Conninfo) -> Reprint<'a> {
        Reprint { conninfo, client: None }
    }

    /// Whether both probes make what the target prints alike; why that could not be told.
    pub async fn alike(&mut self, here: &str, there: &str) -> Result<std::result::Result<bool, String>> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.open().await?,
        };
        let printed = (print(&client, here).await?, print(&client, there).await?);
        self.client = Some(client);
        Ok(match printed {
            (Ok(here), Ok(there)) => Ok(here == there),
            (Err(why), _) | (_, Err(why)) => Err(why),
        })
    }

    async fn open(&self) -> Result<Client> {
        let doing = || "read definitions again on the target".to_string();
        let client = connect::client(self.conninfo, Side::Target, "pgmig verify", &[]).await?;
        client.batch_execute("begin; savepoint pgmig").await.on_target(doing)?;
        // Event triggers have no business with it; a role that may not say so lets them fire.
        if client.batch_execute("set local session_replication_role = replica").await.is_err() {
            client.batch_execute("rollback to savepoint pgmig").await.on_target(doing)?;
        }
        Ok(client)
    }
}

async fn print(client: &Client, probe: &str) -> Result<std::result::Result<Option<String>, String>> {
    let doing = || "read a definition again on the target".to_string();
    client.batch_execute("savepoint pgmig_probe").await.on_target(doing)?;
    let made = client.batch_execute(probe).await;
    let printed = match made {
        Ok(()) => Ok(client.query_one(PRINT, &[]).await.on_target(doing)?.get(0)),
        Err(err) if err.as_db_error().is_some() => {
            Err(err.as_db_error().map_or_else(String::new, |e| e.message().into()))
        }
        Err(err) => return Err(err).on_target(doing),
    };
    client.batch_execute("rollback to savepoint pgmig_probe").await.on_target(doing)?;
    Ok(printed)
}
