//! DDL on the source while changes are followed: noticed, named, and taken in once the target has it.
//!
//! Apply stops by itself at the first row of another form. What the stream says nothing of is looked
//! for here: a table that no publication holds, a column's type, a key that is gone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::Run;
use super::partitions::Gone;
use super::tables::Tables;
use crate::connect;
use crate::error::{Error, Exit, Result};
use crate::model::column::{alterations, computed_there};
use crate::model::name::identifier;
use crate::model::{Lsn, TableName};
use crate::source::slot;
use crate::target::queue;
use crate::{source, target};

/// How often the catalogs are looked at; less often where that takes long.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A look may take this part of the time between two.
const SHARE: u32 = 20;
/// However long one took: it may have stood still for what else the run did.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// What looks at the catalogs have seen and told so far.
#[derive(Default)]
pub(super) struct Seen {
    told: HashSet<TableName>,
    pub gone: Gone,
    /// Where the source was when a table was first seen that the migration does not know.
    sighted: HashMap<TableName, Lsn>,
    /// The same of one that has the name of another.
    replaced: HashMap<(TableName, u32), Lsn>,
    /// How far apply was when the look began.
    passed: Lsn,
    /// Sessions with both sides, for the next look.
    sessions: Option<(Client, Client)>,
}

impl Seen {
    /// Whether apply was behind all that made this table when the look began. `now` is where the source is.
    pub fn has_passed(&mut self, table: &TableName, oid: u32, now: Lsn) -> bool {
        *self.replaced.entry((table.clone(), oid)).or_insert(now) <= self.passed
    }
}

/// The sessions that a look at the catalogs asks by.
#[derive(Clone, Copy)]
pub(super) struct Eyes<'a> {
    pub source: &'a Client,
    pub target: &'a Client,
}

impl<'a> Eyes<'a> {
    pub fn of((source, target): &'a (Client, Client)) -> Eyes<'a> {
        Eyes { source, target }
    }
}

impl Run {
    /// Looks at the catalogs of both sides now and then, at once to begin with. Ends only with an error.
    pub(super) async fn watch_catalogs(&self, plugin: &str, tables: &Tables, seen: &Mutex<Seen>) -> Error {
        let work = async {
            loop {
                let began = Instant::now();
                let look = async {
                    let mut seen = seen.lock().await;
                    // A look that fails, or is broken off, leaves none behind.
                    let sessions = match seen.sessions.take() {
                        Some(kept) if !kept.0.is_closed() && !kept.1.is_closed() => kept,
                        _ => self.sessions_to_look_by().await?,
                    };
                    let eyes = Eyes::of(&sessions);
                    seen.passed = tables.applied.borrow().level_with;
                    let new = self.look_for_drift(eyes, plugin, Some(&mut seen)).await?;
                    self.refuse_new(&new).await?;
                    self.look_at_partitions(eyes, plugin, tables, Some(&mut seen.gone)).await?;
                    seen.sessions = Some(sessions);
                    Ok::<_, Error>(())
                };
                match look.await {
                    // The stream and apply say so, and wait for it.
                    Err(err) if err.connection_lost() || connect::unreachable(&err) || err.passing() => {}
                    looked => looked?,
                }
                tokio::time::sleep((began.elapsed() * SHARE).clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY)).await;
            }
        };
        match work.await {
            Err(err) => err,
            Ok(never) => never,
        }
    }

    /// Sessions of their own with both sides.
    pub(super) async fn sessions_to_look_by(&self) -> Result<(Client, Client)> {
        tokio::try_join!(self.source_client("pgmig watch"), self.target_client("pgmig watch", &[]))
    }

    /// An error for what cannot be followed any further. A column that was added or dropped is none as
    /// long as apply goes on, since it stops at the right row by itself: `told` then remembers of which
    /// tables that was said. At the end, without it, such a column is an error too.
    /// Gives the tables that the migration does not know, which are an error too.
    pub(super) async fn look_for_drift(
        &self,
        eyes: Eyes<'_>,
        plugin: &str,
        mut seen: Option<&mut Seen>,
    ) -> Result<Vec<TableName>> {
        let there = source::columns::forms(eyes.source).await?;
        let here = target::columns::forms(eyes.target).await?;
        let planned = queue::tables(eyes.target, &self.config.name).await?;
        let all_gone = self.look_for_others(eyes, plugin, &there, seen.as_deref_mut()).await?;
        let mut told = seen.as_deref_mut().map(|seen| &mut seen.told);
        for gone in all_gone {
            // Where DDL is told, apply says what becomes of it.
            if !self.tells_ddl() && told.as_mut().is_some_and(|told| told.insert(gone.clone())) {
                self.report.warning(format!(
                    "{gone} was dropped on the source; on the target it stays, with the rows that it had"
                ));
            }
        }
        let selection = self.plan.selection()?.unwrap_or_default();
        let insert_only: HashSet<&TableName> = selection.insert_only.iter().collect();
        let (mut altered, mut same) = (Vec::new(), HashMap::new());
        for table in &planned {
            let (Some(on_source), Some(on_target)) = (there.get(table), here.get(table)) else { continue };
            // Of a partitioned table its partitions are looked at.
            let followed = on_source.logged && !on_source.partitioned;
            if followed && !on_source.identified && !insert_only.contains(table) {
                return Err(self.without_key(plugin, table).await?);
            }
            if on_source.columns != on_target.columns {
                altered.push(table.clone());
            } else {
                same.insert(table, on_source);
            }
        }
        self.remember_origins(&same)?;
        // What the stream tells comes in its place; at the end all of it was there.
        if told.is_none() || !self.tells_ddl() {
            self.altered(altered, told).await?;
        }
        let seen = seen.filter(|_| self.tells_ddl());
        // wal2json tells every table at its first change; a partition that was detached may see none.
        let is_looked_for = |table: &TableName| plugin == "pgoutput" || selection.former_names.contains(table);
        if (plugin == "pgoutput" || !selection.former_names.is_empty()) && !self.config.leave_new_tables {
            let ignored = self.ignored().await?;
            let united = queue::united(eyes.target, &self.config.name).await?;
            let leaves: HashSet<&TableName> = united.values().flatten().map(|leaf| &leaf.name).collect();
            let unknown = |table: &TableName| {
                is_looked_for(table) && !planned.contains(table) && !ignored.contains(table) && !leaves.contains(table)
            };
            let is_unknown = there.iter().any(|(table, form)| form.logged && !form.partitioned && unknown(table));
            if !is_unknown && let Some(seen) = seen {
                seen.sighted.clear();
            } else if is_unknown {
                let mut new = self.selected_tables(eyes).await?;
                new.retain(|table| table.logged && unknown(&table.name));
                // Where DDL is told, apply comes upon it, and may make it.
                if let Some(seen) = seen {
                    seen.sighted.retain(|name, _| new.iter().any(|table| table.name == *name));
                    let now = slot::current_lsn(eyes.source).await?;
                    let passed = seen.passed;
                    new.retain(|table| *seen.sighted.entry(table.name.clone()).or_insert(now) <= passed);
                }
                return Ok(new.into_iter().map(|table| table.name).collect());
            }
        }
        Ok(Vec::new())
    }

    pub(super) async fn altered(
        &self,
        altered: Vec<TableName>,
        mut told: Option<&mut HashSet<TableName>>,
    ) -> Result<()> {
        let (mut names, mut missing) = (Vec::new(), Vec::new());
        for table in altered {
            let (statements, computed) = self.alterations(&table).await?;
            match &mut told {
                _ if statements.is_empty() => {}
                Some(told) if !retypes(&statements) => {
                    if told.insert(table.clone()) {
                        self.report.info(format!(
                            "{table} was altered on the source: apply stops at its first row of the new form, and says what to do"
                        ));
                    }
                }
                _ => {
                    missing.extend(self.missing(&table, statements, &computed).await?);
                    names.push(table.to_string());
                }
            }
        }
        match names.as_slice() {
            [] => Ok(()),
            [table] => Err(format!("{table} was altered on the source")),
            [table, others @ ..] => Err(format!("{table} and {} more tables were altered on the source", others.len())),
        }
        .map_err(|what| Error::new(Exit::Differ, what).hint(run_on_target(&missing)))
    }

    /// A key was taken away. pgoutput makes the source refuse UPDATE and DELETE then; wal2json leaves
    /// them out of the stream, so the table must be copied again.
    pub(super) async fn without_key(&self, plugin: &str, table: &TableName) -> Result<Error> {
        let lost = if plugin == "wal2json" {
            self.copy_again(table).await?;
            "UPDATE and DELETE of it are not in the stream since then: the table is copied anew when you run again"
        } else {
            "the source refuses UPDATE and DELETE of it since then"
        };
        Ok(Error::new(Exit::Differ, format!("{table} has lost the key that says which row changes ({lost})")).hint(
            format!(
                "on the source, give the primary key back, or\nalter table {} replica identity full;\nthen run again",
                table.sql()
            ),
        ))
    }

    /// Adds to an error of apply which DDL the target lacks, if that is what it is about.
    pub(super) async fn explain_drift(&self, err: Error, drifted: Option<&TableName>) -> Error {
        let hint = async {
            let Some(table) = drifted else {
                // A value that does not fit its column may be one of a type that was changed.
                let retyped = err.sqlstate().is_some_and(|code| code.starts_with("22"));
                if retyped {
                    let sessions = self.sessions_to_look_by().await?;
                    let new = self.look_for_drift(Eyes::of(&sessions), "wal2json", None).await?;
                    self.refuse_new(&new).await?;
                }
                return Ok(None);
            };
            if !queue::tables(&self.target, &self.config.name).await?.contains(table) {
                return self.make_table(table).await.map(Some);
            }
            let (statements, computed) = self.alterations(table).await?;
            Ok::<_, Error>(Some(if statements.is_empty() {
                format!(
                    "the target has been altered before its time: take the column of {table} away there, run again, and add it when you are told to; \
                     where one transaction of the source holds rows of both forms: pgmig table resync {table}, and run again with the column"
                )
            } else {
                run_on_target(&self.missing(table, statements, &computed).await?)
            }))
        };
        match hint.await {
            Ok(Some(hint)) => err.hint(hint),
            Ok(None) if err.hint_text().is_none() && err.sqlstate().is_some_and(|code| code.starts_with("22")) => {
                Error::new(Exit::Differ, "the target does not take a value of the source").cause(err).hint(
                    "was a type altered on the source, such as an enum that got another label? \
                     Run the same on the target, then run again",
                )
            }
            Ok(None) => err,
            Err(found) if found.exit() == Exit::Differ => {
                let hint = found.hint_text().unwrap_or_default().to_string();
                Error::new(Exit::Differ, found.to_string()).cause(err).hint(hint)
            }
            Err(unexplained) => {
                tracing::debug!(error = %unexplained.chain(), "the drift could not be explained");
                err.hint("run the DDL that the source has seen on the target too, then run again")
            }
        }
    }

    /// The statements that make a table of the target what it is on the source, and the new columns whose
    /// values only the source has.
    pub(super) async fn alterations(&self, table: &TableName) -> Result<(Vec<String>, Vec<String>)> {
        let name = std::slice::from_ref(table);
        let (source, target) = self.sessions_to_look_by().await?;
        let mut there = source::columns::columns(&source, name).await?;
        let mut here = target::columns::columns(&target, name).await?;
        let (there, here) = (there.remove(table).unwrap_or_default(), here.remove(table).unwrap_or_default());
        if there.is_empty() {
            return Ok(Default::default());
        }
        let computed = computed_there(&there, &here).into_iter().map(identifier).collect();
        Ok((alterations(table, &there, &here), computed))
    }

    /// The lines that say what the target lacks. What the source has computed for rows that were there is in no
    /// change of them: then the table is to be copied again.
    async fn missing(&self, table: &TableName, statements: Vec<String>, computed: &[String]) -> Result<Vec<String>> {
        let retyped = retypes(&statements);
        let mut lines = statements;
        if !computed.is_empty() {
            self.copy_again(table).await?;
            let values = computed.join(", ");
            lines.push(format!(
                "-- what {values} holds in older rows only the source knows: the table is copied anew when you run again"
            ));
        } else if retyped {
            lines.push(format!(
                "-- if the source has changed the values with the type (USING): pgmig table resync {table}, before you run again"
            ));
        }
        Ok(lines)
    }
}

/// Whether some of them change the type of a column.
fn retypes(statements: &[String]) -> bool {
    statements.iter().any(|statement| statement.contains(" alter column "))
}

pub(super) fn run_on_target(lines: &[String]) -> String {
    format!("run on the target, then run again:\n{}", lines.join("\n"))
}
