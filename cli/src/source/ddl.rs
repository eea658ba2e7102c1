//! Has the source tell its DDL in the stream, by event triggers in the schema `pgmig`. Only a superuser, or a
//! role that a managed service lets do it, can make one.

use tokio_postgres::Client;

use crate::error::{Context, Error, Exit, Result};
use crate::model::name::identifier;

fn triggers(migration: &str) -> [String; 2] {
    [format!("pgmig_ddl_{migration}"), format!("pgmig_drop_{migration}")]
}

/// Makes the event triggers of a migration, unless they are there. False if the role may not.
pub async fn capture(client: &Client, migration: &str) -> Result<bool> {
    let doing = || "make event triggers that tell DDL on the source".to_string();
    let there = client
        .query_one(
            "select count(*) from pg_catalog.pg_event_trigger where evtname::text = any ($1)",
            &[&triggers(migration).to_vec()],
        )
        .await
        .on_source(doing)?;
    if there.get::<_, i64>(0) == 2 {
        return Ok(true);
    }
    release(client, migration).await?;
    let script = include_str!("../../../sql/source/ddl.sql").replace("migration_name", migration);
    match client.batch_execute(&format!("begin;\n{script}\ncommit")).await {
        Ok(()) => Ok(true),
        Err(err) => {
            let refused = err.code().is_some_and(|code| code.code() == "42501");
            let _ = client.batch_execute("rollback").await;
            if refused { Ok(false) } else { Err(Error::new(Exit::Source, doing()).cause(err)) }
        }
    }
}

/// Removes what is there of them, and the schema with the last of it. True if there was something.
pub async fn release(client: &Client, migration: &str) -> Result<bool> {
    let doing = || "remove the event triggers that tell DDL".to_string();
    let rows = client
        .query(
            "select evtname::text from pg_catalog.pg_event_trigger where evtname::text = any ($1)",
            &[&triggers(migration).to_vec()],
        )
        .await
        .on_source(doing)?;
    for row in &rows {
        let drop = format!("drop event trigger if exists {}", identifier(row.get(0)));
        client.batch_execute(&drop).await.on_source(doing)?;
    }
    let function = client
        .query_one("select to_regprocedure($1) is not null", &[&format!("pgmig.tell_ddl_{migration}()")])
        .await
        .on_source(doing)?;
    if function.get(0) {
        client.batch_execute(&format!("drop function pgmig.tell_ddl_{migration}()")).await.on_source(doing)?;
        let empty = client
            .query_one(
                "select not exists (select from pg_catalog.pg_proc p where p.pronamespace = n.oid)
                    and not exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid)
                   from pg_catalog.pg_namespace n where n.nspname = 'pgmig'",
                &[],
            )
            .await
            .on_source(doing)?;
        if empty.get(0) {
            client.batch_execute("drop schema pgmig").await.on_source(doing)?;
        }
    }
    Ok(!rows.is_empty())
}
