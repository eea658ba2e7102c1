//! What following the source's changes needs, and what on the source is in its way.

use super::Scope;
use super::checks::{Checks, age, count, some};
use super::plugin;
use crate::connect::Side;
use crate::error::Result;
use crate::model::mend::{OWNER, RELOAD, SUPERUSER};
use crate::model::name::{identifier, literal};
use crate::model::{Mend, Place, Step, TableName};
use crate::report::units;
use crate::source;
use crate::source::checks::stream::{Surroundings, published_without_identity, surroundings};
use crate::source::identity::{self, Missing};
use crate::source::replication::ReplicationClient;

/// WAL of this size kept for a slot that nobody reads is told, in bytes.
const MUCH: i64 = 1 << 30;

impl Scope<'_> {
    /// Returns the output plugin that a run takes.
    pub(super) async fn stream(&self, checks: &mut Checks) -> Result<&'static str> {
        let around = surroundings(self.source).await?;
        let before = checks.wrong.len();
        self.decoding(&around, checks).await?;
        let may_try = checks.wrong.len() == before;
        self.slot_name(checks).await?;
        let plugin = plugin::choose(self, &around, may_try, checks).await?;
        self.identities(checks).await?;
        self.in_the_way(&around, checks);
        self.not_carried(&around, checks);
        Ok(plugin)
    }

    /// Settings and rights without which there is no slot.
    async fn decoding(&self, around: &Surroundings, checks: &mut Checks) -> Result<()> {
        let (can, service) = (self.on_source, self.from.service);
        let user = &can.user;
        let set = |name: &str| around.pending.iter().any(|pending| pending == name);
        let waiting = |name: &str, message: String| match set(name) {
            true => format!("{message}; {name} is set, and holds once the server is restarted"),
            false => message,
        };
        let unless_set = |name: &str, mend: Mend| if set(name) { service.restart(Place::Source).into() } else { mend };
        if can.wal_level == "logical" {
            checks.pass(Place::Source, "wal_level", "logical");
        } else {
            let message = format!("wal_level of the source is {}: logical decoding is off", can.wal_level);
            checks.fail(
                Place::Source,
                "wal_level",
                waiting("wal_level", message),
                unless_set("wal_level", service.logical_decoding(Place::Source)),
            );
        }
        let more =
            |name: &str, now: i64| unless_set(name, service.set(Place::Source, name, &(now + 4).to_string(), true));
        let has_slot = self.asked.begun.is_some_and(|begun| begun.has_slot);
        if can.slots_free > 0 || has_slot {
            let message = format!("{} of {} are free", can.slots_free, around.max_slots);
            checks.pass(Place::Source, "replication slots", message);
        } else {
            let mend = or("drop a slot that is not needed, or", more("max_replication_slots", around.max_slots));
            let message = waiting("max_replication_slots", "every replication slot of the source is in use".into());
            checks.fail(Place::Source, "replication slots", message, mend);
        }
        if can.senders_free > 0 || has_slot {
            checks.pass(
                Place::Source,
                "WAL senders",
                format!("{} of {} are free", can.senders_free, around.max_senders),
            );
        } else {
            let mend = more("max_wal_senders", around.max_senders);
            let message = waiting("max_wal_senders", "every WAL sender of the source is in use".into());
            checks.fail(Place::Source, "WAL senders", message, mend);
        }
        if !can.may_replicate {
            let message = format!("the role {user} may not replicate");
            checks.fail(Place::Source, "replication", message, service.replication(Place::Source, user));
            return Ok(());
        }
        let Some(tries) = self.asked.tries.as_ref().filter(|_| can.senders_free > 0) else { return Ok(()) };
        match ReplicationClient::connect(&tries.source, Side::Source, "pgmig preflight").await {
            Ok(_) => checks.pass(Place::Source, "replication", "a replication connection was opened"),
            Err(error) => checks.refuse(Place::Source, "replication", error),
        }
        Ok(())
    }

    async fn slot_name(&self, checks: &mut Checks) -> Result<()> {
        let name = &self.asked.slot_name;
        let again = "begin again: pgmig reset-target, pgmig cleanup --force, then pgmig run";
        match (source::slot::find(self.source, name).await?, self.asked.begun) {
            (None, Some(begun)) if begun.has_slot => {
                checks.fail(Place::Source, "slot", format!("slot `{name}` is gone from the source"), again);
            }
            (Some(slot), Some(_)) if slot.wal_status.as_deref() == Some("lost") => {
                let message = format!("the source has thrown away WAL that slot `{name}` needs");
                checks.fail(Place::Source, "slot", message, again);
            }
            (Some(slot), Some(_)) => {
                let kept =
                    slot.kept_bytes.map_or(String::new(), |kept| format!(", {} of WAL is kept", units::bytes(kept)));
                checks.pass(Place::Source, "slot", format!("{name} is the migration's own{kept}"));
            }
            (None, _) => checks.pass(Place::Source, "slot name", format!("{name} is free")),
            (Some(slot), None) => {
                let active = if slot.active_pid.is_some() { ", in use" } else { "" };
                let mend =
                    Mend::new("give another --slot-name, or, if nobody needs it, on the source:", [drop_slot(name)]);
                let message = format!("slot `{name}` is there already ({}{active})", slot.plugin);
                checks.fail(Place::Source, "slot name", message, mend);
            }
        }
        Ok(())
    }

    /// Tables whose updates cannot be told, and tables on which a publication makes them fail.
    async fn identities(&self, checks: &mut Checks) -> Result<()> {
        let missing = identity::missing(self.source, &self.selected.tables).await?;
        let names: Vec<&TableName> = missing.iter().map(|table| &table.name).collect();
        let message = format!("no key says which row an UPDATE or DELETE means in {}", some(&names));
        if missing.is_empty() {
            checks.pass(Place::Source, "replica identity", "every table has one");
        } else if self.asked.allow_insert_only {
            let mend = "they only ever get inserts, says --allow-insert-only";
            checks.warn(Place::Source, "replica identity", message, mend);
        } else {
            checks.fail(Place::Source, "replica identity", message, mends(&missing));
        }
        let broken = published_without_identity(self.source).await?;
        if !broken.is_empty() {
            let shown: Vec<String> = broken.iter().map(|(table, by)| format!("{table} ({by})")).collect();
            let message = format!(
                "an UPDATE or DELETE fails on the source today, since a publication sends it without a key: {}",
                some(&shown)
            );
            let mend = "give them a key or a replica identity, or take them out of the publication";
            checks.warn(Place::Source, "published tables", message, mend);
        }
        Ok(())
    }

    /// What delays or endangers a slot.
    fn in_the_way(&self, around: &Surroundings, checks: &mut Checks) {
        let service = self.from.service;
        if around.prepared.is_empty() {
            checks.pass(Place::Source, "prepared transactions", "none");
        } else {
            let shown: Vec<String> = around
                .prepared
                .iter()
                .map(|(gid, database, old)| format!("{gid} ({database}, {})", age(*old)))
                .collect();
            let message = format!("the slot waits until they end: {}", some(&shown));
            let rollback = |(gid, ..): &(String, String, f64)| {
                let step = Step::sql(Place::Source, OWNER, format!("rollback prepared {};", literal(gid)));
                step.by_hand().caution("what it has written is lost")
            };
            let mend = Mend::new("commit or roll back, each in its database:", around.prepared.iter().map(rollback));
            checks.warn(Place::Source, "prepared transactions", message, mend);
        }
        if around.long.is_empty() {
            checks.pass(Place::Source, "long transactions", "none that writes is older than a minute");
        } else {
            let shown: Vec<String> = around
                .long
                .iter()
                .map(|(pid, user, application, old)| format!("pid {pid} of {user} \"{application}\", {}", age(*old)))
                .collect();
            let mend = Mend::new("let them end, or:", around.long.iter().map(|(pid, ..)| end_session(*pid)));
            checks.warn(
                Place::Source,
                "long transactions",
                format!("the slot waits until they end: {}", some(&shown)),
                mend,
            );
        }
        match around.slot_wal_keep_mb {
            None => checks.pass(
                Place::Source,
                "WAL for slots",
                "kept without bound (max_slot_wal_keep_size = -1); --wal-budget bounds pgmig's own",
            ),
            // A copy reads about as much as the database holds; its changes may well be a tenth.
            Some(keep) if (keep << 20) < (self.from.bytes.unwrap_or(0) / 10).max(MUCH) => {
                let message = format!(
                    "max_slot_wal_keep_size is {}: a slot that is behind by more is lost, and the migration with it",
                    units::bytes((keep as u64) << 20)
                );
                checks.warn(
                    Place::Source,
                    "WAL for slots",
                    message,
                    by_hand(
                        service.set(Place::Source, "max_slot_wal_keep_size", "-1", false),
                        "WAL of a slot that nobody reads then fills the disk",
                    ),
                );
            }
            Some(keep) => checks.pass(
                Place::Source,
                "WAL for slots",
                format!("up to {} is kept (max_slot_wal_keep_size)", units::bytes((keep as u64) << 20)),
            ),
        }
        let idle: Vec<&(String, i64)> = around.idle_slots.iter().filter(|(_, bytes)| *bytes >= MUCH).collect();
        if !idle.is_empty() {
            let shown: Vec<String> =
                idle.iter().map(|(name, bytes)| format!("{name} ({})", units::bytes((*bytes).max(0) as u64))).collect();
            let mend = Mend::new("if nobody needs them:", idle.iter().map(|(name, _)| drop_slot(name)));
            let message = format!("WAL is kept for slots that nobody reads: {}", some(&shown));
            checks.warn(Place::Source, "idle slots", message, mend);
        }
        // Its startup packet set it to 0 for the connection that was tried.
        checks.pass(Place::Source, "timeouts", "every session of pgmig sets its own");
    }

    /// What the copy brings and the stream does not, or not as it is.
    fn not_carried(&self, around: &Surroundings, checks: &mut Checks) {
        let leave = self.asked.leave;
        if !around.all_tables.is_empty() && !leave.publications {
            let message = format!(
                "FOR ALL TABLES: {}; made on the target too, where only a superuser may make them",
                some(&around.all_tables)
            );
            checks.warn(Place::Source, "publications", message, "leave them behind: --skip-publications");
        }
        let unlogged: Vec<&TableName> = self.selected.tables.iter().filter(|t| !t.logged).map(|t| &t.name).collect();
        if !unlogged.is_empty() {
            let message = format!("copied, and their changes are not followed: {}", some(&unlogged));
            let set = |name: &&TableName| {
                let step = Step::sql(Place::Source, OWNER, format!("alter table {name} set logged;"));
                step.by_hand().caution("writes the whole table anew, and locks it meanwhile")
            };
            let words = "set them logged (it writes them anew), or stop their writers before the copy:";
            let mend = Mend::new(words, unlogged.iter().map(set));
            checks.warn(Place::Source, "unlogged tables", message, mend);
        }
        if around.large_objects > 0 && self.asked.large_objects {
            let objects = count(around.large_objects as usize, "large object");
            let message = format!("{objects}: copied, and what changes in them later is not followed");
            checks.warn(
                Place::Source,
                "large objects",
                message,
                "stop their writers before the copy, or --skip-large-objects",
            );
        }
        if around.unreadable_large_objects > 0 && self.asked.large_objects {
            let user = &self.on_source.user;
            let objects = count(around.unreadable_large_objects as usize, "large object");
            let grant = format!(
                "do $$ declare o oid; begin for o in select oid from pg_catalog.pg_largeobject_metadata loop execute pg_catalog.format('grant select on large object %s to {}', o); end loop; end $$;",
                identifier(user)
            );
            let words = "as their owner, or leave them behind with --skip-large-objects:";
            let mend = Mend::new(words, [Step::sql(Place::Source, OWNER, grant)]);
            checks.fail(Place::Source, "large objects", format!("the role {user} may not read {objects}"), mend);
        }
        let foreign = self.selected.selection.left_out.iter().filter(|left| left.kind == "foreign table").count();
        if foreign > 0 {
            let message = format!("rows of {} stay where they are", count(foreign, "foreign table"));
            checks.warn(Place::Source, "foreign tables", message, "see: pgmig plan");
        }
        if !around.event_triggers.is_empty() && !self.into.superuser {
            let message = format!(
                "only a superuser may make them: {}; they are listed at the end with their statements",
                some(&around.event_triggers)
            );
            checks.warn(Place::Target, "event triggers", message, "");
        }
    }
}

/// Somebody else's slot.
fn drop_slot(name: &str) -> Step {
    let step = Step::sql(Place::Source, SUPERUSER, format!("select pg_drop_replication_slot({});", literal(name)));
    step.by_hand().caution("whoever reads it loses what it has not read")
}

/// Somebody else's session.
pub(super) fn end_session(pid: i32) -> Step {
    let step = Step::sql(Place::Source, SUPERUSER, format!("select pg_terminate_backend({pid});"));
    step.by_hand().caution("what it was doing is rolled back")
}

/// Left to people, who know whether it is worth it.
pub(super) fn by_hand(mend: Mend, caution: &'static str) -> Mend {
    let steps = mend
        .steps
        .into_iter()
        .map(|step| if step.statement == RELOAD { step.by_hand() } else { step.by_hand().caution(caution) });
    Mend { steps: steps.collect(), ..mend }
}

/// The other way first.
pub(super) fn or(words: &str, mend: Mend) -> Mend {
    let words = if mend.words.is_empty() { format!("{words}:") } else { format!("{words}, and {}:", mend.words) };
    Mend { words, ..mend }
}

/// Statement by statement, the best for each table.
fn mends(missing: &[Missing]) -> Mend {
    let mut words = vec!["on the source, all of them at once: pgmig replica-identity; or, if they only ever get inserts: --allow-insert-only".to_string()];
    let keyless: Vec<&TableName> =
        missing.iter().filter(|table| table.mend == identity::Mend::None).map(|t| &t.name).collect();
    if !keyless.is_empty() {
        words.push(format!("only a primary key does (a virtual generated column): {}", some(&keyless)));
    }
    Mend::new(words.join("\n"), missing.iter().filter_map(Missing::step))
}
