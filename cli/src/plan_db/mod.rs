//! The plan of a migration on our side: a SQLite file under `--dir`. It holds what can be read again
//! from the source; losing it costs time, not truth.

pub mod history;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::filters::Filters;
use crate::error::{Context, Error, Exit, Result};
use crate::model::Given;
pub use crate::selection::Selection;

/// Number of the file's layout. A file with a higher one is of a later pgmig and is refused.
const FORMAT: i64 = 1;

pub struct PlanDb {
    connection: Connection,
    pub dir: PathBuf,
}

impl PlanDb {
    /// Opens the file of a migration, making it if it is not there. `identity` says which migration:
    /// another one's folder is refused.
    pub fn open(dir: &Path, identity: &str) -> Result<PlanDb> {
        let doing = || format!("open the plan in {}", dir.display());
        std::fs::create_dir_all(dir).during(Exit::Dir, doing)?;
        let connection = Connection::open(dir.join("plan.db")).during(Exit::Dir, doing)?;
        connection.pragma_update(None, "journal_mode", "wal").during(Exit::Dir, doing)?;
        let format: i64 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).during(Exit::Dir, doing)?;
        if format > FORMAT {
            return Err(Error::new(
                Exit::Dir,
                format!("{} was written by a later pgmig (format {format})", dir.display()),
            )
            .hint("use that pgmig, or another --dir"));
        }
        connection
            .execute_batch(
                "create table if not exists meta (key text primary key, value text not null) strict;
                 create table if not exists timing (at text not null default current_timestamp, what text not null) strict;",
            )
            .during(Exit::Dir, doing)?;
        connection.execute_batch(history::TABLES).during(Exit::Dir, doing)?;
        connection.pragma_update(None, "user_version", FORMAT).during(Exit::Dir, doing)?;
        let plan = PlanDb { connection, dir: dir.to_path_buf() };
        match plan.get("identity")? {
            Some(found) if found != identity => {
                return Err(Error::new(Exit::Usage, format!("{} belongs to another migration", dir.display()))
                    .hint("give each migration a --dir of its own"));
            }
            Some(_) => {}
            None => plan.set("identity", identity)?,
        }
        Ok(plan)
    }

    pub fn selection(&self) -> Result<Option<Selection>> {
        self.get("selection")?
            .map(|text| serde_json::from_str(&text).during(Exit::Dir, || "read the selection in plan.db".into()))
            .transpose()
    }

    pub fn store_selection(&self, selection: &Selection) -> Result<()> {
        let text = serde_json::to_string(selection).during(Exit::Bug, || "write the selection".into())?;
        self.set("selection", &text)
    }

    /// The selection in a folder, whichever migration it belongs to; None if there is none.
    pub fn selection_in(dir: &Path) -> Result<Option<Selection>> {
        let doing = || format!("open the plan in {}", dir.display());
        let connection = Connection::open(dir.join("plan.db")).during(Exit::Dir, doing)?;
        PlanDb { connection, dir: dir.to_path_buf() }.selection()
    }

    /// The filters that the migration was begun with.
    pub fn filters(&self) -> Result<Option<Filters>> {
        let text = self.get("filters")?.filter(|text| !text.is_empty());
        text.map(|text| serde_json::from_str(&text).during(Exit::Dir, || "read the filters in plan.db".into()))
            .transpose()
    }

    /// Whether a migration was begun with this file: else it is new, and an earlier one is lost.
    pub fn is_begun(&self) -> Result<bool> {
        Ok(self.get("filters")?.is_some() || self.get("selection")?.is_some())
    }

    /// Begins anew: keeps the filters and forgets what an earlier migration of this name selected.
    pub fn begin(&self, filters: Option<&Filters>) -> Result<()> {
        let text = filters.map(serde_json::to_string).transpose();
        let text = text.during(Exit::Bug, || "write the filters".into())?.unwrap_or_default();
        self.forget()?;
        self.set("filters", &text)
    }

    /// What becomes of DDL, as the last run was told.
    pub fn ddl(&self) -> Result<Option<String>> {
        self.get("ddl")
    }

    pub fn set_ddl(&self, mode: &str) -> Result<()> {
        self.set("ddl", mode)
    }

    /// By which it is known that DDL in the stream is told by what pgmig has made, and by nobody else.
    pub fn ddl_key(&self) -> Result<Option<String>> {
        self.get("ddl_key")
    }

    pub fn set_ddl_key(&self, key: &str) -> Result<()> {
        self.set("ddl_key", key)
    }

    /// What no stream holds, as it was before the copy; None if that is lost.
    pub fn unstreamed(&self) -> Result<Option<HashMap<String, String>>> {
        let text = self.get("unstreamed")?;
        text.map(|text| serde_json::from_str(&text).during(Exit::Dir, || "read plan.db".into())).transpose()
    }

    pub fn store_unstreamed(&self, written: &HashMap<String, String>) -> Result<()> {
        let text = serde_json::to_string(written).during(Exit::Bug, || "write plan.db".into())?;
        self.set("unstreamed", &text)
    }

    /// The replica identities that were given and not taken back.
    pub fn given(&self) -> Result<Vec<Given>> {
        let text = self.get("given")?.unwrap_or_else(|| "[]".into());
        serde_json::from_str(&text).during(Exit::Dir, || "read the replica identities in plan.db".into())
    }

    /// Records one that is about to be given. What a table had at first stays what it goes back to.
    pub fn give(&self, given: &Given) -> Result<()> {
        let mut all = self.given()?;
        match all.iter_mut().find(|other| other.oid == given.oid) {
            Some(other) => other.made.clone_from(&given.made),
            None => all.push(given.clone()),
        }
        self.store_given(&all)
    }

    pub fn take_back(&self, oid: u32) -> Result<()> {
        let mut all = self.given()?;
        all.retain(|given| given.oid != oid);
        self.store_given(&all)
    }

    fn store_given(&self, all: &[Given]) -> Result<()> {
        let text = serde_json::to_string(all).during(Exit::Bug, || "write the replica identities".into())?;
        self.set("given", &text)
    }

    /// Notes when something happened.
    pub fn timing(&self, what: &str) -> Result<()> {
        self.connection
            .execute("insert into timing (what) values (?1)", params![what])
            .during(Exit::Dir, || "write plan.db".into())?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<String>> {
        self.connection
            .query_row("select value from meta where key = ?1", params![key], |row| row.get(0))
            .optional()
            .during(Exit::Dir, || "read plan.db".into())
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        self.connection
            .execute("insert or replace into meta (key, value) values (?1, ?2)", params![key, value])
            .during(Exit::Dir, || "write plan.db".into())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    #[test]
    fn a_folder_of_another_migration_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let plan = PlanDb::open(dir.path(), "a").unwrap();
        let tables = vec![TableName::new("public", "t")];
        plan.store_selection(&Selection { tables: tables.clone(), ..Selection::default() }).unwrap();
        drop(plan);
        assert_eq!(PlanDb::open(dir.path(), "a").unwrap().selection().unwrap().unwrap().tables, tables);
        assert_eq!(PlanDb::open(dir.path(), "b").err().unwrap().exit(), Exit::Usage);
    }
}
