//! A schema as another version prints it. Two majors print one schema in different words, in views,
//! defaults and constraints above all, so the source's is made once more in a database of its own on
//! the target's server and dumped from there: what differs then is a difference of the schemas, not of
//! the printers. Writes nowhere else, and leaves no database behind.

use std::process::Command;

use super::schema;
use super::side::Side;
use crate::error::{Context, Result};
use crate::model::name::identifier;

/// What pg_dump prints of a schema that `script` makes on the server of `target`.
pub async fn reprinted(target: &Side, script: &str, tool: impl Fn(&str) -> Command) -> Result<String> {
    let name = format!("pgmig_verify_{:08x}", fastrand::u32(..));
    let doing = || format!("make the database {name} on the server of the target");
    let client = target.connect().await?;
    client.batch_execute("set default_transaction_read_only = off").await.during(target.exit(), doing)?;
    // The locale is no part of what is printed.
    let create = format!(
        "create database {} template template0 encoding 'UTF8' locale_provider libc locale 'C'",
        identifier(&name)
    );
    client.batch_execute(&create).await.during(target.exit(), doing)?;
    let scratch = target.with_database(&name);
    let printed = async {
        schema::run(&scratch, tool("psql"), script).await?;
        schema::script(&scratch, tool("pg_dump")).await
    };
    let printed = printed.await;
    let dropped = client.batch_execute(&format!("drop database {} (force)", identifier(&name))).await;
    let printed = printed?;
    dropped.during(target.exit(), || format!("drop the database {name} on the server of the target"))?;
    Ok(printed)
}
