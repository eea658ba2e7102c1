//! Partitions that the source makes while it is followed: made on the target in their place, and followed from
//! their first row.

use std::sync::Arc;

use super::tags::Copy;
use super::told::{Ddl, Made};
use super::{Apply, Writer};
use crate::error::{Context, Error, Exit, Result};
use crate::model::TableName;
use crate::model::name::identifier;
use crate::target::queue;

/// Partitions have become part of the migration, which is to know them, each with its oid on the source, before
/// apply goes on.
#[derive(Debug, thiserror::Error)]
#[error("partitions were made on the source: {}", .0.iter().map(|(table, _)| table.to_string()).collect::<Vec<_>>().join(", "))]
pub struct Born(pub Vec<(TableName, u32)>);

/// What a partition is on the target.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotAsTold(String);

impl<W: Writer> Apply<W> {
    /// The partition that it makes, if the target has its table as the source has it, and it is sure to be made there.
    pub(super) async fn partition_of_ours(&self, ddl: &Ddl) -> Result<Option<Made>> {
        let made =
            ddl.makes_partition().filter(|_| self.gatherer.ddl.partitions && ddl.doubt(|_| Vec::new()).is_none());
        let Some(made) = made else { return Ok(None) };
        let doing = || format!("look for {} on the target", made.under);
        let root = self
            .client
            .query_opt(
                "select s.nspname::text, r.relname::text
                   from pg_catalog.pg_class c
                        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        join pg_catalog.pg_class r on r.oid = coalesce(pg_catalog.pg_partition_root(c.oid), c.oid)
                        join pg_catalog.pg_namespace s on s.oid = r.relnamespace
                  where n.nspname = $1 and c.relname = $2 and c.relkind = 'p'",
                &[&made.under.schema, &made.under.table],
            )
            .await
            .on_target(doing)?;
        let root = root.map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)));
        Ok(root.filter(|root| !self.gatherer.tags.is_united(root) && !self.gatherer.tags.contains(root)).map(|_| made))
    }

    /// Knows a partition from its first row on, in the transaction that makes it.
    pub(super) async fn take_in(&mut self, made: Made) -> Result<()> {
        let Made { table, oid, .. } = made;
        // One that gets another name later is known by it.
        self.gatherer.ddl.origins.insert(oid, table.clone());
        if made.has_partitions {
            self.gatherer.parents.insert(table);
            return Ok(());
        }
        queue::born(&self.client, &self.deciding.migration, &table).await?;
        Arc::make_mut(&mut self.gatherer.tags).insert(table.clone(), Copy::of_nothing());
        self.born.push((table, oid));
        Ok(())
    }

    /// Which of those that the open transaction has made it gives another name, and that name.
    pub(super) fn renamed_at_once(&self, ddl: &Ddl) -> Option<(usize, TableName)> {
        let mut tables = ddl.by_oid().filter(|_| ddl.renames());
        let (Some((name, oid)), None) = (tables.next(), tables.next()) else { return None };
        let at = self.born.iter().position(|(_, born)| Some(*born) == oid)?;
        Some((at, name))
    }

    /// Nobody but apply knows its first name yet.
    pub(super) async fn rename(&mut self, at: usize, name: TableName) -> Result<()> {
        let oid = self.born[at].1;
        let first = std::mem::replace(&mut self.born[at].0, name.clone());
        queue::rename(&self.client, &self.deciding.migration, &first, &name).await?;
        let tags = Arc::make_mut(&mut self.gatherer.tags);
        tags.remove(&first);
        tags.insert(name.clone(), Copy::of_nothing());
        self.gatherer.ddl.origins.insert(oid, name);
        Ok(())
    }

    /// Those that the last transaction has made.
    pub(super) fn were_born(&mut self) -> Result<()> {
        match std::mem::take(&mut self.born) {
            born if born.is_empty() || self.pieces.is_some() => {
                self.born = born;
                Ok(())
            }
            born => Err(Error::new(Exit::Differ, "cannot go on").cause(Born(born)).hint("run the same command again")),
        }
    }

    /// The transaction that has made some is rolled back.
    pub(super) fn unborn(&mut self) {
        if !self.born.is_empty() {
            self.born.clear();
            self.gatherer.tags = Arc::clone(&self.watched.tags.borrow());
        }
    }

    /// Makes the partition, which is there, what it is on the source in all that its statement does not say. An
    /// error if it is another one, has rows, or has on the source what was made by neither.
    pub(super) async fn as_told(&self, made: &Made) -> Result<()> {
        let doing = || format!("make {}", made.table);
        let row = self
            .client
            .query_opt(
                "select pg_catalog.pg_get_expr(c.relpartbound, c.oid), u.nspname::text, p.relname::text,
                        array(select rolname::text from pg_catalog.pg_roles)
                   from pg_catalog.pg_class c
                        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        join pg_catalog.pg_inherits i on i.inhrelid = c.oid and c.relispartition
                        join pg_catalog.pg_class p on p.oid = i.inhparent
                        join pg_catalog.pg_namespace u on u.oid = p.relnamespace
                  where n.nspname = $1 and c.relname = $2",
                &[&made.table.schema, &made.table.table],
            )
            .await
            .on_target(doing)?;
        let other = |what: String| Err(Error::new(Exit::Differ, doing()).cause(NotAsTold(what)));
        let Some(row) = row else { return other("it is no partition on the target".into()) };
        let (bound, under) =
            (row.get::<_, String>(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)));
        if bound != made.bound || under != made.under {
            return other(format!("on the source it is {} of {}, here {bound} of {under}", made.bound, made.under));
        }
        if !made.more.is_empty() {
            return other(format!("on the source it has {}, which its statement does not say", made.more.join(", ")));
        }
        let rows = format!("select exists (select from {})", made.table.sql());
        if self.client.query_one(&rows, &[]).await.on_target(doing)?.get(0) {
            return other("it holds rows on the target".into());
        }
        // Roles that the target lacks were told before anything was made.
        let roles: Vec<String> = row.get(3);
        let mut also = String::new();
        if let Some(owner) = made.owner.as_ref().filter(|owner| roles.contains(owner) && !self.gatherer.ddl.owners) {
            also += &format!("alter table {} owner to {};", made.table.sql(), identifier(owner));
        }
        for grant in made.grants.iter().filter(|_| !self.gatherer.ddl.privileges) {
            let to = match &grant.role {
                None => "public".to_string(),
                Some(role) if roles.contains(role) => identifier(role),
                Some(_) => continue,
            };
            let further = if grant.grantable { " with grant option" } else { "" };
            also += &format!("grant {} on {} to {to}{further};", grant.privilege, made.table.sql());
        }
        self.client.batch_execute(&also).await.on_target(doing)
    }
}
