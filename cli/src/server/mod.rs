//! What is asked of either server in the same words: who runs it, how its database sorts, how much room
//! it has, how it is set. Reads only, and knows of no migration.

pub mod growth;
mod parameters;
pub mod sessions;
pub mod settings;

use tokio_postgres::Client;

use crate::connect::Side;
use crate::error::{Context, Result};
use crate::model::Service;

/// A server and its database, as preflight needs to know them.
#[derive(Debug, Clone)]
pub struct Server {
    pub version: i32,
    /// As the server prints it.
    pub version_text: String,
    pub service: Service,
    pub database: String,
    pub user: String,
    pub superuser: bool,
    pub may_create_roles: bool,
    pub locale: Locale,
    pub room: Room,
    pub oldest: Oldest,
    /// Of the whole database, in bytes; None if the role may not ask.
    pub bytes: Option<i64>,
}

/// The database of the server that is nearest to running out of transaction numbers.
#[derive(Debug, Clone)]
pub struct Oldest {
    pub database: String,
    /// How many transactions, or multixacts, ago its oldest row was written that is not frozen.
    pub transactions: i64,
    /// `autovacuum_freeze_max_age`: from there on autovacuum freezes, whatever else is set.
    pub freeze_max_age: i64,
}

/// What text is sorted and compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locale {
    pub provider: String,
    pub collate: String,
    pub ctype: String,
    pub version: Option<String>,
}

/// How many sessions there may be, and are.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub max_connections: i64,
    /// Kept for superusers.
    pub reserved: i64,
    pub used: i64,
    /// Of the role or the database, whichever leaves less.
    pub own_limit: Option<i64>,
}

impl Room {
    /// The most that a role without privileges may open on an idle server.
    pub fn most(&self) -> i64 {
        let most = self.max_connections - self.reserved;
        self.own_limit.map_or(most, |limit| limit.min(most))
    }
}

pub async fn server(client: &Client, side: Side) -> Result<Server> {
    let doing = || format!("ask what the {side} is");
    let row = client.query_one(include_str!("../../../sql/server/server.sql"), &[]).await.during(side.exit(), doing)?;
    let room = Room {
        max_connections: row.get("max_connections"),
        reserved: row.get("reserved"),
        used: row.get("used"),
        own_limit: row.get("own_limit"),
    };
    let locale = Locale {
        provider: row.get("provider"),
        collate: row.get("collate"),
        ctype: row.get("ctype"),
        version: row.get("collation_version"),
    };
    let oldest = Oldest {
        database: row.get("oldest_database"),
        transactions: row.get("transactions"),
        freeze_max_age: row.get("freeze_max_age"),
    };
    Ok(Server {
        oldest,
        version: row.get("version"),
        version_text: row.get("version_text"),
        service: service(client, side).await?,
        database: row.get("database"),
        user: row.get("user"),
        superuser: row.get("superuser"),
        may_create_roles: row.get("may_create_roles"),
        locale,
        room,
        bytes: row.get("bytes"),
    })
}

/// Whether two sessions are in one database, whatever names and addresses they were given by: one sees the
/// advisory lock that the other one takes.
pub async fn one_database((one, side): (&Client, Side), (other, its): (&Client, Side)) -> Result<bool> {
    let doing = || "compare two databases".to_string();
    let key = fastrand::i64(1..i64::MAX);
    one.query("select pg_catalog.pg_advisory_lock($1)", &[&key]).await.during(side.exit(), doing)?;
    let sees = other
        .query_one(
            "select exists (select from pg_catalog.pg_locks
                             where locktype = 'advisory' and objsubid = 1
                               and database = (select oid from pg_catalog.pg_database where datname = current_database())
                               and (classid::bigint << 32 | objid::bigint) = $1)",
            &[&key],
        )
        .await;
    one.query("select pg_catalog.pg_advisory_unlock($1)", &[&key]).await.during(side.exit(), doing)?;
    Ok(sees.during(its.exit(), doing)?.get(0))
}

/// Settings that are hidden from `pg_settings`, one for each service: whoever may not read one is told
/// that it is there all the same.
const HIDDEN: [&str; 8] = [
    "aurora_compute_plan_id",
    "apg_plan_mgmt.use_plan_baselines",
    "rds.extensions",
    "alloydb.logical_decoding",
    "cloudsql.logical_decoding",
    "azure.extensions",
    "supautils.privileged_role",
    "planetscale.extensions",
];

async fn service(client: &Client, side: Side) -> Result<Service> {
    let doing = || format!("ask who runs the {side}");
    let rows = client.query(include_str!("../../../sql/server/service.sql"), &[]).await.during(side.exit(), doing)?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let found = Service::of(&names);
    if found != Service::SelfManaged {
        return Ok(found);
    }
    for name in HIDDEN {
        match client.query_one("select pg_catalog.current_setting($1, true) is not null", &[&name]).await {
            Ok(row) if !row.get::<_, bool>(0) => {}
            Ok(_) => return Ok(Service::of(&[name])),
            Err(err) if err.code().is_some_and(|code| code.code() == "42501") => return Ok(Service::of(&[name])),
            Err(err) => return Err(err).during(side.exit(), doing),
        }
    }
    Ok(Service::SelfManaged)
}
