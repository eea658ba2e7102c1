//! Has the source tell its DDL in the stream, by event triggers in the schema `pgmig`. Only a superuser, or a
//! role that a managed service lets do it, can make one.

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::name::{identifier, literal};

/// The last one is for partitions that are made.
fn triggers(migration: &str) -> [String; 3] {
    ["ddl", "drop", "add"].map(|what| format!("pgmig_{what}_{migration}"))
}

/// Makes the event triggers of a migration, unless they are there; with `partitions` those that are made join the
/// publication. What they tell has the `key`. Err: why that cannot be.
pub async fn capture(
    client: &Client,
    migration: &str,
    partitions: bool,
    key: &str,
) -> Result<std::result::Result<(), String>> {
    if is_captured(client, migration, partitions, key).await? {
        return Ok(Ok(()));
    }
    if let Some(owner) = foreign_schema(client).await? {
        return Ok(Err(format!("the schema pgmig there belongs to {owner}, who could change what tells it")));
    }
    let doing = || "make event triggers that tell DDL on the source".to_string();
    // In one transaction: no DDL is untold in between.
    client.batch_execute("begin").await.on_source(doing)?;
    let made = async {
        release(client, migration).await?;
        let mut script = include_str!("../../../sql/source/ddl.sql").replace("migration_name", migration);
        script = script.replace("'ddl_key'", &literal(key));
        if partitions {
            script += &include_str!("../../../sql/source/ddl_partitions.sql").replace("migration_name", migration);
        }
        client.batch_execute(&format!("{script}\ncommit")).await.on_source(doing)
    };
    match made.await {
        Ok(()) => Ok(Ok(())),
        Err(err) => {
            let _ = client.batch_execute("rollback").await;
            match err.sqlstate() {
                Some("42501") => Ok(Err("its role may make no event trigger".into())),
                _ => Err(err),
            }
        }
    }
}

/// Whether all of them are there, and no more, and tell with this key.
pub async fn is_captured(client: &Client, migration: &str, partitions: bool, key: &str) -> Result<bool> {
    let all = triggers(migration);
    let wanted = if partitions { &all[..] } else { &all[..2] };
    let row = client
        .query_one(
            "select array(select evtname::text from pg_catalog.pg_event_trigger
                           where evtname::text = any ($1) and evtenabled <> 'D')",
            &[&all.to_vec()],
        )
        .await
        .on_source(|| "look for the event triggers that tell DDL".into())?;
    let there: Vec<String> = row.get(0);
    if there.len() != wanted.len() || !wanted.iter().all(|name| there.contains(name)) {
        return Ok(false);
    }
    match kept_key(client, migration).await {
        Ok(kept) => Ok(kept.as_deref() == Some(key)),
        // Another role has made them, which alone may read it.
        Err(err) if err.sqlstate() == Some("42501") => Ok(true),
        Err(err) => Err(err),
    }
}

/// What the event triggers that are there tell with, if nobody else could have put it there.
pub async fn kept_key(client: &Client, migration: &str) -> Result<Option<String>> {
    let doing = || "read what DDL is told with".to_string();
    let ours = client
        .query_one(
            "select exists (select from pg_catalog.pg_class c
                                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                                   join pg_catalog.pg_roles o on o.oid = c.relowner
                                   join pg_catalog.pg_roles s on s.oid = n.nspowner
                             where n.nspname = 'pgmig' and c.relname = $1 and c.relkind = 'r'
                               and (o.rolsuper or o.rolname = current_user) and (s.rolsuper or s.rolname = current_user))",
            &[&format!("tell_ddl_key:{migration}")],
        )
        .await
        .on_source(doing)?;
    if !ours.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_opt(&format!("select key from {}", key_table(migration)), &[]).await.on_source(doing)?;
    Ok(row.map(|row| row.get(0)))
}

/// Whoever owns the schema may put other things in the place of what runs there with pgmig's rights.
async fn foreign_schema(client: &Client) -> Result<Option<String>> {
    let row = client
        .query_opt(
            "select r.rolname::text
               from pg_catalog.pg_namespace n join pg_catalog.pg_roles r on r.oid = n.nspowner
              where n.nspname = 'pgmig' and not r.rolsuper and r.rolname <> current_user",
            &[],
        )
        .await
        .on_source(|| "look for the schema pgmig".into())?;
    Ok(row.map(|row| row.get(0)))
}

/// Whether DDL is told: with partitions that are made, or without them.
pub async fn telling(client: &Client, migration: &str) -> Result<Option<bool>> {
    let [ddl, _, add] = triggers(migration);
    let row = client
        .query_one(
            "select bool_or(evtname::text = $1), bool_or(evtname::text = $2) from pg_catalog.pg_event_trigger",
            &[&ddl, &add],
        )
        .await
        .on_source(|| "look for the event triggers that tell DDL".into())?;
    let (ddl, add): (Option<bool>, Option<bool>) = (row.get(0), row.get(1));
    Ok((ddl == Some(true)).then_some(add == Some(true)))
}

fn key_table(migration: &str) -> String {
    format!("pgmig.\"tell_ddl_key:{migration}\"")
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
            "drop function pgmig.tell_ddl_{migration}(); drop function if exists pgmig.\"tell_ddl_:{migration}\"(); \
             drop table if exists {}",
            key_table(migration)
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
