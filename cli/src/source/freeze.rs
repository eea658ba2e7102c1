//! Stops writes on the source and lets them go on: the database's default becomes read-only, and the
//! sessions that were opened before are ended. Roles that are spared, and what replicates, keep theirs.

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::error::{Context, Error, Exit, Result};
use crate::model::name::{identifier, literal};

const SETTING: &str = "default_transaction_read_only";

/// What the database had before, as ALTER DATABASE SET would say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub database: String,
    pub setting: Option<String>,
}

/// Refuses before anything is stopped: what could not be frozen, or would write through it.
pub async fn check(client: &Client, read_only: bool) -> Result<()> {
    let doing = || "look whether writes on the source can be stopped".to_string();
    let prepared = client
        .query("select gid from pg_catalog.pg_prepared_xacts where database = current_database() order by 1", &[])
        .await
        .on_source(doing)?;
    if let Some(row) = prepared.first() {
        return Err(Error::new(
            Exit::Source,
            format!("a prepared transaction is open on the source: `{}`", row.get::<_, String>(0)),
        )
        .hint("it could be committed after the cutover: end it with COMMIT PREPARED or ROLLBACK PREPARED"));
    }
    if !read_only {
        return Ok(());
    }
    let row = client
        .query_one(
            "select pg_catalog.pg_has_role(d.datdba, 'usage'),
                    pg_catalog.pg_has_role('pg_signal_backend', 'usage'), current_user::text
               from pg_catalog.pg_database d where d.datname = current_database()",
            &[],
        )
        .await
        .on_source(doing)?;
    let user: String = row.get(2);
    for (may, what) in [
        (row.get::<_, bool>(0), "own the database, so that it can be made read-only".to_string()),
        (row.get(1), format!("end sessions of others: grant pg_signal_backend to {}", identifier(&user))),
    ] {
        if !may {
            return Err(Error::new(Exit::Source, format!("role {user} may not freeze the source"))
                .hint(format!("it must {what}; or stop writes by a command of your own: --freeze=hook:CMD")));
        }
    }
    let roles = client
        .query(
            "select distinct r.rolname::text
               from pg_catalog.pg_db_role_setting s
                    join pg_catalog.pg_roles r on r.oid = s.setrole,
                    unnest(s.setconfig) c
              where s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database()))
                and c like 'default_transaction_read_only=%' and lower(split_part(c, '=', 2)) in ('off', 'false', 'no', '0')
              order by 1",
            &[],
        )
        .await
        .on_source(doing)?;
    if let Some(row) = roles.first() {
        let role: String = row.get(0);
        return Err(Error::new(Exit::Source, format!("role {role} is set to write whatever the database says")).hint(
            format!(
                "on the source: alter role {} reset {SETTING}; look for ALTER ROLE … IN DATABASE too",
                identifier(&role)
            ),
        ));
    }
    Ok(())
}

/// What the database has now, to be kept before it is changed.
pub async fn before(client: &Client) -> Result<Before> {
    let row = client
        .query_one(
            "select current_database()::text,
                    (select split_part(c, '=', 2)
                       from pg_catalog.pg_db_role_setting s
                            join pg_catalog.pg_database d on d.oid = s.setdatabase,
                            unnest(s.setconfig) c
                      where d.datname = current_database() and s.setrole = 0
                        and c like 'default_transaction_read_only=%')",
            &[],
        )
        .await
        .on_source(|| "read the settings of the source's database".into())?;
    Ok(Before { database: row.get(0), setting: row.get(1) })
}

/// New sessions can only read from here on. Returns the time after which they began.
pub async fn make_read_only(client: &Client, before: &Before) -> Result<String> {
    let doing = || "make the source read-only".to_string();
    client
        .batch_execute(&format!("alter database {} set {SETTING} = on", identifier(&before.database)))
        .await
        .on_source(doing)?;
    let row = client.query_one("select clock_timestamp()::text", &[]).await.on_source(doing)?;
    Ok(row.get(0))
}

/// Ends the sessions that began before the database was read-only; says how many there were, and who is left.
pub async fn end_sessions(client: &Client, since: &str, spared: &[String]) -> Result<(i64, Vec<String>)> {
    let row = client
        .query_one(
            "with found as materialized (
                 select pid, usename::text as role, coalesce(application_name, '') as application
                   from pg_catalog.pg_stat_activity
                  where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
                    and backend_start <= $1::text::timestamptz
                    and not (application_name like 'pgmig%' and usename = current_user)
                    and usename::text <> all ($2)
             ), ended as materialized (
                 select role, application,
                        case when pg_catalog.pg_has_role(role, 'usage')
                                  or not (select rolsuper from pg_catalog.pg_roles r where r.rolname = role)
                             then pg_catalog.pg_terminate_backend(pid) else false end as ended
                   from found
             )
             select count(*) filter (where ended),
                    coalesce(array_agg(distinct role || ' (' || application || ')') filter (where not ended), '{}')
               from ended",
            &[&since, &spared],
        )
        .await
        .on_source(|| "end the sessions on the source".into())?;
    Ok((row.get(0), row.get(1)))
}

/// Sessions that began before, were not spared, and are still there.
pub async fn sessions_left(client: &Client, since: &str, spared: &[String]) -> Result<i64> {
    let row = client
        .query_one(
            "select count(*) from pg_catalog.pg_stat_activity
              where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
                and backend_start <= $1::text::timestamptz
                and not (application_name like 'pgmig%' and usename = current_user)
                and usename::text <> all ($2)",
            &[&since, &spared],
        )
        .await
        .on_source(|| "look for sessions on the source".into())?;
    Ok(row.get(0))
}

/// Gives the database what it had before, and ends the sessions that can only read, so that their
/// applications come back with ones that write.
pub async fn make_writable(client: &Client, before: &Before, spared: &[String]) -> Result<()> {
    let database = identifier(&before.database);
    let back = match &before.setting {
        Some(setting) => format!("alter database {database} set {SETTING} = {}", literal(setting)),
        None => format!("alter database {database} reset {SETTING}"),
    };
    client.batch_execute(&back).await.on_source(|| "make the source writable again".into())?;
    if before.setting.as_deref() != Some("on") {
        let row = client
            .query_one("select clock_timestamp()::text", &[])
            .await
            .on_source(|| "read the clock of the source".into())?;
        end_sessions(client, &row.get::<_, String>(0), spared).await?;
    }
    Ok(())
}
