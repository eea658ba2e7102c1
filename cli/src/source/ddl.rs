//! Has the source tell its DDL in the stream, by event triggers in the schema `pgmig`. Only a superuser, or a
//! role that a managed service lets do it, can make one.

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::name::identifier;

/// The last one is for partitions that are made.
fn triggers(migration: &str) -> [String; 3] {
    ["ddl", "drop", "add"].map(|what| format!("pgmig_{what}_{migration}"))
}

/// Makes the event triggers of a migration, unless they are there; with `partitions` those that are made join the
/// publication. False if the role may not.
pub async fn capture(client: &Client, migration: &str, partitions: bool) -> Result<bool> {
    let doing = || "make event triggers that tell DDL on the source".to_string();
    let all = triggers(migration);
    let wanted = if partitions { &all[..] } else { &all[..2] };
    let there = client
        .query_one(
            "select array(select evtname::text from pg_catalog.pg_event_trigger where evtname::text = any ($1))",
            &[&all.to_vec()],
        )
        .await
        .on_source(doing)?;
    let there: Vec<String> = there.get(0);
    if there.len() == wanted.len() && wanted.iter().all(|name| there.contains(name)) {
        return Ok(true);
    }
    // In one transaction: no DDL is untold in between.
    client.batch_execute("begin").await.on_source(doing)?;
    let made = async {
        release(client, migration).await?;
        let mut script = include_str!("../../../sql/source/ddl.sql").replace("migration_name", migration);
        if partitions {
            script += &include_str!("../../../sql/source/ddl_partitions.sql").replace("migration_name", migration);
        }
        client.batch_execute(&format!("{script}\ncommit")).await.on_source(doing)
    };
    match made.await {
        Ok(()) => Ok(true),
        Err(err) => {
            let _ = client.batch_execute("rollback").await;
            if err.sqlstate() == Some("42501") { Ok(false) } else { Err(err) }
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
        let drop = format!(
            "drop function pgmig.tell_ddl_{migration}(); drop function if exists pgmig.\"tell_ddl_:{migration}\"()"
        );
        client.batch_execute(&drop).await.on_source(doing)?;
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
