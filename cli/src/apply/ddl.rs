//! DDL of the source, told in its stream: run on the target where it stood, in the transaction of the changes
//! around it, or stopped at. What is in doubt stops apply with the statement, and `pgmig.ddl_done` says that a
//! person has seen to it; what is about no table of the migration is only written down.

use std::collections::HashMap;
use std::sync::Once;

use tokio_postgres::Client;

use super::gather::Gathered;
use super::tags::Wanted;
use super::told::{ANOTHER_NAME, Ddl, Made, Settings};
use super::{Apply, Writer, Written};
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::literal;
use crate::model::{Lsn, TableName};
use crate::stream::spool::Position;
use crate::target::{columns, keys};

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Apply,
    Stop,
    /// Nothing is told; what is in the stream is passed over.
    Off,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Apply => "apply",
            Mode::Stop => "stop",
            Mode::Off => "off",
        }
    }
    pub fn parse(text: &str) -> Option<Mode> {
        [Mode::Apply, Mode::Stop, Mode::Off].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What apply is told of DDL.
#[derive(Debug)]
pub struct Taken {
    pub mode: Mode,
    /// What the source tells it with.
    pub key: Option<String>,
    /// Tables of the migration by their oid on the source: one that is renamed is known by it.
    pub origins: HashMap<u32, TableName>,
    /// What flags leave out: comments, privileges, owners.
    pub comments: bool,
    pub privileges: bool,
    pub owners: bool,
    /// Partitions that the source makes become part of the migration.
    pub partitions: bool,
    /// What others wrote is told once.
    pub forged: Once,
}

impl Taken {
    pub fn off() -> Taken {
        let (key, origins) = (None, HashMap::new());
        Taken {
            mode: Mode::Off,
            key,
            origins,
            comments: false,
            privileges: false,
            owners: false,
            partitions: false,
            forged: Once::new(),
        }
    }

    /// The DDL of a message; None if it is none of apply's business, or somebody else wrote it.
    fn read(&self, text: &[u8]) -> Result<Option<Ddl>> {
        if self.mode == Mode::Off {
            return Ok(None);
        }
        let ddl = Ddl::read(text, self.key.as_deref())?;
        if ddl.is_none() {
            self.forged.call_once(|| {
                tracing::warn!(
                    "somebody writes messages into the stream that look like pgmig's own; they are passed over"
                );
            });
        }
        Ok(ddl.filter(|ddl| !self.leaves(ddl)))
    }

    fn leaves(&self, ddl: &Ddl) -> bool {
        match ddl.tag.as_str() {
            "COMMENT" => self.comments,
            "GRANT" | "REVOKE" | "ALTER DEFAULT PRIVILEGES" => self.privileges,
            "ALTER TABLE" => self.owners && ddl.changes_owner(),
            _ => false,
        }
    }

    /// The name that the migration knows a table by.
    fn known(&self, table: TableName, oid: Option<u32>) -> TableName {
        oid.and_then(|oid| self.origins.get(&oid).cloned()).unwrap_or(table)
    }
}

impl<W: Writer> Apply<W> {
    /// Runs DDL in the open transaction, or ends with it.
    pub(super) async fn ddl(&mut self, ddl: &Ddl, from: Position) -> Result<Written> {
        if !self.open_pieces(from).await? {
            return Ok(Ok(()));
        }
        let migration = self.deciding.migration.clone();
        if is_done(&self.client, &migration, ddl.at).await? {
            if ddl.drops_tables() {
                forget_tables(&self.client, &migration, &ddl.tables()).await?;
            }
            return Ok(Ok(()));
        }
        let made = self.partition_of_ours(ddl).await?;
        if made.is_none() && !self.gatherer.concerns(ddl) && !self.concerns(ddl).await? {
            if ddl.is_new() {
                leave(&self.client, &migration, ddl).await?;
            }
            return Ok(Ok(()));
        }
        // The target has no such partition, or another one of that name; what becomes of its rows is looked at.
        if self.gatherer.is_of_partition(ddl) {
            leave(&self.client, &migration, ddl).await?;
            return Ok(Ok(()));
        }
        let found = columns::columns(&self.client, &ddl.tables()).await?;
        let columns = |table: &TableName| found.get(self.gatherer.known_as(table)).cloned().unwrap_or_default();
        let mut doubt = ddl.doubt(columns);
        let renamed = self.renamed_at_once(ddl).filter(|_| doubt.as_deref() == Some(ANOTHER_NAME));
        if renamed.is_some() {
            doubt = None;
        }
        if let Some(root) = self.gatherer.root_beside(ddl) {
            doubt = Some(format!("it is about a partition, whose rows are in {root} on the target, and about more"));
        }
        if self.gatherer.ddl.mode == Mode::Stop {
            doubt = Some("--ddl=stop".into());
        }
        let failed = match doubt {
            Some(why) => Error::new(Exit::Differ, format!("DDL on the source is left to you: {why}")),
            None => match self.execute(ddl, made.as_ref()).await {
                Ok(()) => {
                    tell(&self.client, &migration, ddl, "applied").await?;
                    if ddl.drops_tables() {
                        forget_tables(&self.client, &migration, &ddl.tables()).await?;
                    }
                    if let Some(made) = made {
                        self.take_in(made).await?;
                    }
                    if let Some((at, name)) = renamed {
                        self.rename(at, name).await?;
                    }
                    self.forget().await?;
                    self.altered = true;
                    tracing::info!(tag = ddl.tag, at = %ddl.at, "DDL of the source applied");
                    return Ok(Ok(()));
                }
                Err(err) if err.connection_lost() => return Err(err),
                Err(err) => Error::new(Exit::Differ, "DDL of the source fails on the target").cause(err),
            },
        };
        self.rollback().await?;
        tell(&self.client, &migration, ddl, "pending").await?;
        Err(failed.hint(ddl.by_hand()))
    }

    /// Whether an index or statistics object that is dropped is one of a table of the migration.
    async fn concerns(&self, ddl: &Ddl) -> Result<bool> {
        if ddl.dropped.is_empty() {
            return Ok(false);
        }
        let of = |kind: &str| -> (Vec<String>, Vec<String>) {
            let names = ddl.dropped.iter().filter(|dropped| dropped.kind == kind).map(|dropped| dropped.name());
            names.map(|name| (name.schema, name.table)).unzip()
        };
        let ((index_schemas, indexes), (schemas, statistics)) = (of("index"), of("statistics object"));
        let row = self
            .client
            .query_one(
                "with found (relation) as (
                     select i.indrelid
                       from unnest($2::text[], $3::text[]) w (s, n)
                            join pg_catalog.pg_namespace s on s.nspname = w.s
                            join pg_catalog.pg_class c on c.relnamespace = s.oid and c.relname = w.n
                            join pg_catalog.pg_index i on i.indexrelid = c.oid
                     union all
                     select x.stxrelid
                       from unnest($4::text[], $5::text[]) w (s, n)
                            join pg_catalog.pg_namespace s on s.nspname = w.s
                            join pg_catalog.pg_statistic_ext x on x.stxnamespace = s.oid and x.stxname = w.n)
                 select exists (select from found
                                       join pg_catalog.pg_class c on c.oid = found.relation
                                       join pg_catalog.pg_namespace s on s.oid = c.relnamespace
                                 where c.relkind = 'p'
                                    or exists (select from pgmig.part p
                                                where p.migration = $1 and p.schema_name = s.nspname and p.table_name = c.relname))",
                &[&self.deciding.migration, &index_schemas, &indexes, &schemas, &statistics],
            )
            .await
            .on_target(|| "look for what the source has dropped".into())?;
        Ok(row.get(0))
    }

    async fn execute(&self, ddl: &Ddl, made: Option<&Made>) -> Result<()> {
        let doing = || format!("run {} of the source", ddl.tag);
        let Settings { search_path, strings, timezone, datestyle, intervalstyle, lc_monetary } = &ddl.settings;
        let path = search_path.as_deref().filter(|path| !path.is_empty()).unwrap_or("''");
        let set = format!(
            "set local search_path = {path}; set local standard_conforming_strings = {}; set local timezone = {}; set local datestyle = {}; set local intervalstyle = {}; set local lc_monetary = {}",
            literal(strings),
            literal(timezone),
            literal(datestyle),
            literal(intervalstyle),
            literal(lc_monetary)
        );
        self.client.batch_execute(&set).await.on_target(doing)?;
        // As a prepared statement: the server refuses several at once.
        self.client.execute(&ddl.to_run(), &[]).await.on_target(doing)?;
        if let Some(made) = made {
            self.as_told(made).await?;
        }
        let back = "set local search_path = ''; set local standard_conforming_strings = on; set local timezone = 'UTC'; set local datestyle = 'ISO'; \
                    set local intervalstyle = 'postgres'; set local lc_monetary = 'C'";
        self.client.batch_execute(back).await.on_target(doing)
    }

    /// Looks at the target's tables anew.
    pub(super) async fn forget(&mut self) -> Result<()> {
        self.writer.forget();
        self.gatherer.forget();
        self.merger.renew(keys::unique_keys(&self.client).await?);
        Ok(())
    }
}

impl super::Gatherer {
    /// The DDL of a message, unless it is none of apply's business, or the copies of all its tables show it.
    /// Err: a copy of one is under way.
    pub(super) fn wanted_ddl(&self, text: &[u8]) -> Result<std::result::Result<Option<Ddl>, Gathered>> {
        let Some(ddl) = self.ddl.read(text)? else { return Ok(Ok(None)) };
        if self.wanted_for(&ddl).any(|wanted| matches!(wanted, Wanted::Later)) {
            return Ok(Err(Gathered::Later));
        }
        let is_wanted = self.concerns(&ddl) || !ddl.dropped.is_empty() || self.is_new(&ddl);
        Ok(Ok(is_wanted.then_some(ddl)))
    }

    /// Whether it is about a table of the migration whose copy does not show it.
    fn concerns(&self, ddl: &Ddl) -> bool {
        self.wanted_for(ddl).any(|wanted| matches!(wanted, Wanted::All | Wanted::ByKey)) || self.is_of_childless(ddl)
    }

    /// Whether it is about a partitioned table that has no partition yet, such as apply makes: nothing of it is
    /// copied, and the target has it as the source had it.
    fn is_of_childless(&self, ddl: &Ddl) -> bool {
        let known = |(table, oid)| self.ddl.known(table, oid);
        self.ddl.partitions
            && ddl.by_oid().map(known).any(|table| self.parents.contains(&table))
            && !ddl.tables().iter().any(|table| self.tags.contains(self.known_as(table)))
    }

    pub(super) fn tables_made(&self, text: &[u8]) -> Result<Vec<TableName>> {
        let made = self.ddl.read(text)?.filter(Ddl::makes_tables);
        Ok(made.map(|ddl| ddl.tables()).unwrap_or_default())
    }

    /// Whether it would be run on the target, or is asked about.
    pub(super) fn is_ours(&self, text: &[u8]) -> Result<bool> {
        let Some(ddl) = self.ddl.read(text)? else { return Ok(false) };
        let moved = |(table, oid)| self.tags.contains(self.known_as(&self.ddl.known(table, oid)));
        let makes =
            || self.ddl.partitions && ddl.makes_partition().is_some_and(|made| self.parents.contains(&made.under));
        Ok(ddl.by_oid().any(moved) || self.is_of_childless(&ddl) || makes())
    }

    fn is_new(&self, ddl: &Ddl) -> bool {
        ddl.is_new() && ddl.tables().iter().all(|table| self.wanted_now(table).is_none())
    }

    /// The table that the rows of a partition go into.
    pub(super) fn known_as<'a>(&'a self, table: &'a TableName) -> &'a TableName {
        self.tags.leaf(table).map_or(table, |leaf| &leaf.root)
    }

    /// The table of the target that the rows of a partition go into, where the DDL is about the partition without
    /// that table.
    fn root_beside(&self, ddl: &Ddl) -> Option<TableName> {
        let tables = ddl.tables();
        let roots = tables.iter().filter_map(|table| Some(&self.tags.leaf(table)?.root));
        roots.into_iter().find(|root| !tables.contains(root)).cloned()
    }

    /// Whether all that it is about are partitions whose rows go into another table, or what lies between; or
    /// how such a table is made of them.
    fn is_of_partition(&self, ddl: &Ddl) -> bool {
        let tables = ddl.tables();
        let below = |table: &TableName| self.tags.leaf(table).is_some() || self.parents.contains(table);
        let only_below = self.root_beside(ddl).is_some() && tables.iter().all(below);
        only_below || (ddl.attaches() && tables.iter().any(|table| self.tags.is_united(table)))
    }

    fn wanted_for(&self, ddl: &Ddl) -> impl Iterator<Item = Wanted> {
        // One that is renamed back is what it was.
        let tables = ddl.by_oid().map(|(table, oid)| (self.ddl.known(table.clone(), oid), table));
        let renames = ddl.renames();
        tables.filter(move |(known, now)| !(renames && known == now)).filter_map(|(known, _)| self.wanted_now(&known))
    }
}

async fn is_done(client: &Client, migration: &str, at: Lsn) -> Result<bool> {
    let row = client
        .query_opt("select from pgmig.ddl where migration = $1 and at = $2 and state = 'done'", &[&migration, &at])
        .await
        .on_target(|| "look what became of DDL".into())?;
    Ok(row.is_some())
}

/// Records it; what is pending waits for a person.
async fn tell(client: &Client, migration: &str, ddl: &Ddl, state: &str) -> Result<()> {
    client
        .execute(
            "insert into pgmig.ddl (migration, at, tag, statement, state) values ($1, $2, $3, $4, $5)
             on conflict (migration, at) do update set state = excluded.state",
            &[&migration, &ddl.at, &ddl.tag, &ddl.one(), &state],
        )
        .await
        .on_target(|| "record DDL of the source".into())?;
    Ok(())
}

/// Writes down what is not carried over.
async fn leave(client: &Client, migration: &str, ddl: &Ddl) -> Result<()> {
    tell(client, migration, ddl, "left").await?;
    let text = format!("{} on the source is not carried over: {}", ddl.tag, ddl.about());
    crate::target::sentinel::event(client, migration, "warn", &text).await
}

/// Tables that are dropped are no part of the migration any more.
async fn forget_tables(client: &Client, migration: &str, tables: &[TableName]) -> Result<()> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
    client
        .execute(
            "delete from pgmig.part p using unnest($2::text[], $3::text[]) w (s, n)
              where p.migration = $1 and p.schema_name = w.s and p.table_name = w.n
                and pg_catalog.to_regclass(format('%I.%I', w.s, w.n)) is null",
            &[&migration, &schemas, &names],
        )
        .await
        .on_target(|| "let go of tables that were dropped".into())?;
    Ok(())
}
