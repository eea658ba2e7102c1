//! Tables of which the stream does not say which row an UPDATE or DELETE means, and the least that gives
//! each a replica identity. Changing one is the only thing pgmig ever does to a table of the source, and
//! only when it is told to.

use tokio_postgres::Client;

use super::catalog::Table;
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::identifier;
use crate::model::{Given, Place, Step, TableName};

/// The best mend of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// It has a primary key, and another identity than that.
    Default,
    /// A unique index without nulls: as good as a key.
    Index(String),
    /// Every UPDATE and DELETE writes the whole old row to the WAL.
    Full,
    /// Only a key would do.
    None,
}

/// A table without a usable identity.
#[derive(Debug, Clone)]
pub struct Missing {
    pub name: TableName,
    pub oid: u32,
    /// What its replica identity is now, as in ALTER TABLE.
    pub now: String,
    pub mend: Mend,
    /// Whether the role may change it.
    pub owned: bool,
    pub owner: String,
}

impl Missing {
    /// The statement that mends it; None where only a key does.
    pub fn statement(&self) -> Option<String> {
        let made = self.made();
        (!made.is_empty()).then(|| format!("alter table {} replica identity {made};", self.name))
    }
    /// What becomes of it when that is run.
    pub fn given(&self) -> Given {
        Given { table: self.name.clone(), oid: self.oid, made: self.made(), revert: self.revert() }
    }
    /// The same as a step, which says what it costs.
    pub fn step(&self) -> Option<Step> {
        let by = format!("{}, its owner, or a superuser", self.owner);
        let step = Step { gives: Some(self.given()), ..Step::sql(Place::Source, by, self.statement()?) };
        Some(match self.mend {
            Mend::Full => step.caution("every UPDATE and DELETE writes the whole old row to the WAL from then on"),
            _ => step,
        })
    }
    /// What its replica identity will be, as in ALTER TABLE.
    pub fn made(&self) -> String {
        match &self.mend {
            Mend::Default => "default".into(),
            Mend::Index(index) => format!("using index {}", identifier(index)),
            Mend::Full => "full".into(),
            Mend::None => String::new(),
        }
    }
    /// The statement that puts back what was.
    pub fn revert(&self) -> String {
        format!("alter table {} replica identity {};", self.name, self.now)
    }
}

/// Of these tables those without a usable identity, with their mend.
pub async fn missing(client: &Client, tables: &[Table]) -> Result<Vec<Missing>> {
    let oids: Vec<u32> = tables.iter().filter(|t| t.logged && !t.identified).map(|t| t.oid).collect();
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client
        .query(include_str!("../../../sql/source/identity.sql"), &[&oids])
        .await
        .on_source(|| "look for what would identify rows".into())?;
    let missing = |row: &tokio_postgres::Row| {
        let index: Option<String> = row.get("index_name");
        let mend = match index {
            Some(_) if row.get("is_primary") => Mend::Default,
            Some(index) => Mend::Index(index),
            None if row.get("full_does") => Mend::Full,
            None => Mend::None,
        };
        let now = spelled(row.get("now"), row.get("now_index"));
        Missing {
            name: TableName::new(row.get::<_, String>("schema_name"), row.get::<_, String>("table_name")),
            oid: row.get("oid"),
            now,
            mend,
            owned: row.get("owned"),
            owner: row.get("owner"),
        }
    };
    Ok(rows.iter().map(missing).collect())
}

/// As in ALTER TABLE.
fn spelled(identity: &str, index: Option<&str>) -> String {
    match (identity, index) {
        ("n", _) => "nothing".into(),
        ("f", _) => "full".into(),
        ("i", Some(index)) => format!("using index {}", identifier(index)),
        _ => "default".into(),
    }
}

/// The replica identity of a table; None if it is gone.
pub async fn now(client: &Client, oid: u32) -> Result<Option<String>> {
    let row = client
        .query_opt(include_str!("../../../sql/source/identity.sql"), &[&vec![oid]])
        .await
        .on_source(|| "read a replica identity".into())?;
    Ok(row.map(|row| spelled(row.get("now"), row.get("now_index"))))
}

/// Runs one ALTER TABLE. Its lock shuts everybody out for a moment, and waiting for it would shut them
/// out for longer: it gives up after five seconds.
pub async fn alter(client: &Client, table: &TableName, statement: &str) -> Result<()> {
    let doing = || format!("cannot change the replica identity of {table}");
    client.batch_execute("set lock_timeout = '5s'").await.on_source(doing)?;
    let done = client.batch_execute(statement).await;
    client.batch_execute("set lock_timeout = 0").await.on_source(doing)?;
    done.map_err(|err| {
        let hint = match err.code().map(|code| code.code()) {
            Some("55P03") => "a session holds the table: run the same command again",
            Some("42501") => "the role must own the table",
            _ => "what was changed before is recorded: run the same command again, or --revert",
        };
        Error::new(Exit::Source, doing()).cause(err).hint(hint)
    })
}
