//! The state of a way back: it lies in the old source, which is its target. Nothing is copied: every table
//! counts as copied, under a snapshot that shows nothing of what comes after the switch.

use tokio_postgres::Client;

use crate::error::{Context, Result};
use crate::model::{Lsn, TableName};
use crate::target::cutover::make_again;

/// What fires in a replica session, or forbids what apply does.
struct Loud {
    kind: String,
    name: String,
    quiet: String,
    restore: String,
}

/// Stores that these tables are those of the way back, and that they hold what `tag` shows.
pub async fn begin(client: &Client, migration: &str, tables: &[TableName], tag: &str, lsn: Lsn) -> Result<()> {
    let doing = || "store the tables of the way back".to_string();
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
    client
        .execute("update pgmig.sentinel set is_way_back = true where migration = $1", &[&migration])
        .await
        .on_target(doing)?;
    client
        .execute(
            "insert into pgmig.part (migration, schema_name, table_name, part_number, parts, columns, bytes, state,
                                     copied_rows, copied_bytes, snapshot, snapshot_lsn, started_at, finished_at)
             select $1, t.s, t.t, 1, 1,
                    array(select a.attname::text from pg_catalog.pg_attribute a
                           where a.attrelid = format('%I.%I', t.s, t.t)::regclass and a.attnum > 0
                             and not a.attisdropped and a.attgenerated = ''
                           order by a.attnum),
                    0, 'done', 0, 0, $4, $5, now(), now()
               from unnest($2::text[], $3::text[]) as t (s, t)",
            &[&migration, &schemas, &names, &tag, &lsn],
        )
        .await
        .on_target(doing)?;
    Ok(())
}

/// Views that are to be refreshed on the old source as they were on the new one.
pub async fn store_views(client: &Client, migration: &str, views: &[(String, String)]) -> Result<()> {
    for (name, statement) in views {
        client
            .execute(
                "insert into pgmig.step (migration, stage, kind, name, statement, blocking, state)
                 values ($1, 'refresh', 'MATERIALIZED VIEW DATA', $2, $3, false, 'done')",
                &[&migration, name, statement],
            )
            .await
            .on_target(|| "store the views of the way back".into())?;
    }
    Ok(())
}

/// The materialized views of a migration, each with what refreshes it.
pub async fn views(client: &Client, migration: &str) -> Result<Vec<(String, String)>> {
    let rows = client
        .query(
            "select name, statement from pgmig.step where migration = $1 and stage = 'refresh' order by step_id",
            &[&migration],
        )
        .await
        .on_target(|| "read which views are refreshed".into())?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The way back begins at this position: what would disturb it on the old source, which takes no writes by
/// now, is quiet from here on, and comes back at its end.
pub async fn turn(client: &Client, migration: &str, startpos: Lsn, plain: bool) -> Result<usize> {
    let doing = || "begin the way back".to_string();
    client.batch_execute("begin").await.on_target(doing)?;
    let turned = async {
        let loud = loud(client, migration, plain).await?;
        for Loud { kind, name, quiet, restore } in &loud {
            client
                .execute(
                    "insert into pgmig.step (migration, stage, kind, name, statement) values ($1, 'finish', $2, $3, $4)",
                    &[&migration, kind, name, restore],
                )
                .await
                .on_target(doing)?;
            client.batch_execute(quiet).await.on_target(|| format!("quiet {name}"))?;
        }
        client
            .execute(
                "update pgmig.sentinel
                    set startpos = $2, phase = 'follow', copy_started_at = now(), copy_finished_at = now()
                  where migration = $1",
                &[&migration, &startpos],
            )
            .await
            .on_target(doing)?;
        client.batch_execute("commit").await.on_target(doing)?;
        Ok(loud.len())
    };
    let turned = turned.await;
    if turned.is_err() {
        // The error that led here says more.
        let _ = client.batch_execute("rollback").await;
    }
    turned
}

/// Gives back what was quieted, all at once.
pub async fn restore(client: &Client, migration: &str) -> Result<usize> {
    let doing = || "give back what was quiet for the way back".to_string();
    let rows = client
        .query(
            "select statement from pgmig.step
              where migration = $1 and stage = 'finish' and state <> 'done' order by step_id",
            &[&migration],
        )
        .await
        .on_target(doing)?;
    let statements: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if !statements.is_empty() {
        let all = format!("begin;\n{};\ncommit", statements.join(";\n"));
        if let Err(err) = client.batch_execute(&all).await {
            let _ = client.batch_execute("rollback").await;
            return Err(err).on_target(doing);
        }
    }
    Ok(statements.len())
}

/// Takes back what the end of a way back has given: it is quiet again, and to be given again.
pub async fn quiet_again(client: &Client, migration: &str) -> Result<()> {
    let doing = || "take back what was made at the end".to_string();
    let rows = client
        .query("select statement from pgmig.step where migration = $1 and stage = 'finish'", &[&migration])
        .await
        .on_target(doing)?;
    let ours: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    client.batch_execute("begin").await.on_target(doing)?;
    let quieted = async {
        for loud in loud(client, migration, true).await?.iter().filter(|loud| ours.contains(&loud.restore)) {
            client.batch_execute(&loud.quiet).await.on_target(doing)?;
        }
        make_again(client, migration).await.on_target(doing)?;
        client.batch_execute("commit").await.on_target(doing)
    };
    let quieted = quieted.await;
    if quieted.is_err() {
        let _ = client.batch_execute("rollback").await;
    }
    quieted
}

async fn loud(client: &Client, migration: &str, identity: bool) -> Result<Vec<Loud>> {
    let rows = client
        .query(include_str!("../../../sql/target/loud.sql"), &[&migration, &identity])
        .await
        .on_target(|| "look for what would disturb apply".into())?;
    let loud = |row: &tokio_postgres::Row| Loud {
        kind: row.get("kind"),
        name: row.get("name"),
        quiet: row.get("quiet"),
        restore: row.get("restore"),
    };
    Ok(rows.iter().map(loud).collect())
}

/// Marks what became of the way back of a migration.
pub async fn set(client: &Client, migration: &str, way_back: Option<&str>) -> Result<()> {
    client
        .execute("update pgmig.sentinel set way_back = $2 where migration = $1", &[&migration, &way_back])
        .await
        .on_target(|| "record what became of the way back".into())?;
    Ok(())
}

/// Tables in which the role may not write what comes back.
pub async fn unwritable(client: &Client, tables: &[TableName]) -> Result<Vec<TableName>> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
    let rows = client
        .query(
            "select t.s, t.t
               from unnest($1::text[], $2::text[]) as t (s, t)
                    left join pg_catalog.pg_namespace n on n.nspname = t.s
                    left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.t
              where c.oid is null
                 or not (pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_table_privilege(c.oid, 'insert')
                         and pg_catalog.has_table_privilege(c.oid, 'update') and pg_catalog.has_table_privilege(c.oid, 'delete')
                         and pg_catalog.has_table_privilege(c.oid, 'truncate') and pg_catalog.pg_has_role(c.relowner, 'usage'))
                 or pg_catalog.row_security_active(c.oid)
              order by 1, 2",
            &[&schemas, &names],
        )
        .await
        .on_target(|| "ask which tables can be written to".into())?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
