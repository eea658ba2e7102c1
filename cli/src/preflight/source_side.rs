//! The servers beside each other, and whether the source's role may read all that is moved.

use std::collections::{BTreeSet, HashSet};

use super::checks::{Checks, count, some};
use super::stream::{by_hand, or};
use super::{Scope, encodings, introduced};
use crate::error::Exit;
use crate::model::mend::{OWNER, SUPERUSER};
use crate::model::name::{identifier, identifiers};
use crate::model::{Mend, Place, Step, TableName};
use crate::server::{Locale, Oldest, Room, Server};

impl Scope<'_> {
    /// Versions, primaries, encodings, sorting and room for sessions.
    pub(super) fn servers(&self, checks: &mut Checks) {
        let (from, into) = (self.from.version / 10_000, self.into.version / 10_000);
        checks.pass(Place::Source, "connection", introduced(self.from));
        if self.on_source.version < 130_000 {
            let message = format!("the source is PostgreSQL {from}: 13 is the oldest that is supported");
            checks.fail(Place::Source, "version", message, "upgrade the source to 13 or later first");
        }
        if self.on_source.in_recovery {
            let message = "the source is a standby, which this version does not read from";
            checks.fail(Place::Source, "primary", message, "give the primary");
        }
        checks.pass(Place::Target, "connection", introduced(self.into));
        if self.on_target.version < 150_000 {
            let message = format!("the target is PostgreSQL {into}: 15 is the oldest that is supported");
            checks.fail(Place::Target, "version", message, "make a newer target");
        } else if from > into {
            let message = format!("the target is PostgreSQL {into}, older than the source's {from}");
            checks.fail(Place::Target, "version", message, format!("make a target of {from} or later"));
        }
        if self.on_target.in_recovery {
            let message = "the target is a standby: it cannot be written";
            checks.fail(Place::Target, "primary", message, "give the primary");
        }
        match encodings(&self.on_source.encoding, &self.on_target.encoding) {
            None => {
                let same = self.on_source.encoding == self.on_target.encoding;
                let into = if same { String::new() } else { format!(" into {}", self.on_target.encoding) };
                checks.pass(Place::Target, "encoding", format!("{}{into}", self.on_source.encoding));
            }
            Some(error) if error.exit() == Exit::Source => checks.refuse(Place::Source, "encoding", error),
            Some(error) => checks.refuse(Place::Target, "encoding", error),
        }
        wraparound(checks, Place::Source, self.from);
        wraparound(checks, Place::Target, self.into);
        self.sorting(checks);
        room(checks, Place::Source, self.from, self.asked.sessions);
        room(checks, Place::Target, self.into, self.asked.sessions);
    }

    fn sorting(&self, checks: &mut Checks) {
        let (here, there) = (&self.from.locale, &self.into.locale);
        let shown = |locale: &Locale| match locale.ctype == locale.collate {
            true => format!("{} {}", locale.provider, locale.collate),
            false => format!("{} {} (ctype {})", locale.provider, locale.collate, locale.ctype),
        };
        if (&here.provider, &here.collate, &here.ctype) != (&there.provider, &there.collate, &there.ctype) {
            let message = format!(
                "text sorts by {} on the source, by {} on the target: order by, ranges and indexes on text follow",
                shown(here),
                shown(there)
            );
            let mend = format!(
                "if the order matters to the application: create database … template template0 locale_provider {} lc_collate '{}' lc_ctype '{}'",
                here.provider, here.collate, here.ctype
            );
            checks.warn(Place::Target, "collation", message, mend);
        } else if here.version != there.version {
            let version = |locale: &Locale| locale.version.clone().unwrap_or_else(|| "unknown".into());
            let message = format!(
                "{} is of version {} on the source, {} on the target: some texts may sort otherwise",
                shown(here),
                version(here),
                version(there)
            );
            checks.warn(Place::Target, "collation", message, "");
        } else {
            checks.pass(Place::Target, "collation", shown(here));
        }
    }

    /// Rights to read what is moved, and rows that would be hidden.
    pub(super) fn readable(&self, checks: &mut Checks) {
        let (can, selection) = (self.on_source, &self.selected.selection);
        let user = &can.user;
        let role = identifier(user);
        let moved: HashSet<&TableName> = selection.tables.iter().chain(&selection.sequences).collect();
        let schemas: BTreeSet<&str> = moved.iter().map(|name| name.schema.as_str()).collect();
        let closed: Vec<&String> = can.closed.iter().filter(|schema| schemas.contains(schema.as_str())).collect();
        if closed.is_empty() {
            checks.pass(Place::Source, "schemas", format!("{} can be used", count(schemas.len(), "schema")));
        } else {
            let message = format!("the role {user} may not use the schema {}", some(&closed));
            let mend = format!("grant usage on schema {} to {role};", identifiers(&closed));
            checks.fail(Place::Source, "schemas", message, Step::sql(Place::Source, OWNER, mend));
        }
        let ignored: HashSet<&TableName> = selection.ignored.iter().collect();
        let mut unreadable: Vec<&TableName> = can.unreadable.iter().filter(|name| moved.contains(name)).collect();
        unreadable.extend(can.unreadable_roots.iter().filter(|name| !ignored.contains(name)));
        if unreadable.is_empty() {
            let tables = count(selection.tables.len(), "table");
            let sequences = count(selection.sequences.len(), "sequence");
            checks.pass(Place::Source, "select", format!("{tables} and {sequences} can be read"));
        } else {
            let message = format!("the role {user} may not read {}", some(&unreadable));
            checks.fail(Place::Source, "select", message, grants(&unreadable, &role));
        }
        let hidden: Vec<&TableName> = can.hidden.iter().filter(|name| moved.contains(name)).collect();
        if hidden.is_empty() {
            checks.pass(Place::Source, "row security", "hides no row");
        } else {
            let message = format!("row security hides rows of {} from the role {user}", some(&hidden));
            checks.fail(
                Place::Source,
                "row security",
                message,
                self.from.service.bypass_row_security(Place::Source, user),
            );
        }
        let hashed: Vec<&TableName> = can.hashed_by_enum.iter().filter(|name| moved.contains(name)).collect();
        if !hashed.is_empty() {
            let message = format!(
                "the hash of an enum, which is another one on each server, decides which rows belong to {}",
                some(&hashed)
            );
            let mend =
                "leave the table out ([exclude-table] in --filters), and move it by pg_dump --load-via-partition-root";
            checks.fail(Place::Source, "partitions", message, mend);
        }
    }
}

/// One statement where relations are few; where they are many, one for each schema.
fn grants(unreadable: &[&TableName], role: &str) -> Vec<Step> {
    const FEW: usize = 8;
    let grant = |what: String| Step::sql(Place::Source, OWNER, format!("grant select on {what} to {role};"));
    if unreadable.len() <= FEW {
        let names: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        return vec![grant(names.join(", "))];
    }
    let schemas: BTreeSet<String> = unreadable.iter().map(|name| identifier(&name.schema)).collect();
    let kinds = |schema: &String| ["tables", "sequences"].map(|kind| grant(format!("all {kind} in schema {schema}")));
    schemas.iter().flat_map(kinds).collect()
}

/// Where the numbers of transactions run out a server takes no more writes; a long copy keeps its source from
/// freezing meanwhile.
fn wraparound(checks: &mut Checks, place: Place, server: &Server) {
    const ALL: i64 = 1 << 31;
    let Oldest { database, transactions, freeze_max_age } = &server.oldest;
    let millions = |transactions: i64| format!("{} million", transactions / 1_000_000);
    let vacuum = Step::sql(place, SUPERUSER, "vacuum (freeze, verbose);").by_hand();
    let words = format!("in database {}, until it is through:", identifier(database));
    let mend = Mend::new(words, [vacuum.caution("reads all of the database and writes much of it anew")]);
    let left = ALL - transactions;
    let old =
        format!("database {database} has rows that are {} transactions old and not frozen", millions(*transactions));
    if *transactions >= ALL / 16 * 15 {
        let message = format!("{old}: the server takes no more writes after {} more", millions(left.max(0)));
        checks.fail(place, "wraparound", message, mend);
    } else if *transactions >= ALL * 7 / 16 {
        let message = format!(
            "{old}: after {} more the server takes no writes, and a long copy holds vacuum back",
            millions(left)
        );
        checks.warn(place, "wraparound", message, mend);
    } else if *transactions > 2 * freeze_max_age {
        let message = format!(
            "{old}, though autovacuum_freeze_max_age is {}: autovacuum does not keep up",
            millions(*freeze_max_age)
        );
        checks.warn(place, "wraparound", message, mend);
    } else {
        checks.pass(place, "wraparound", "far from it");
    }
}

fn room(checks: &mut Checks, place: Place, server: &Server, needed: i64) {
    let Room { used, own_limit, .. } = server.room;
    let most = server.room.most();
    let free = most - if own_limit.is_some() { 0 } else { used };
    let fewer = "run with fewer --table-jobs, --index-jobs and --large-objects-jobs";
    if most < needed {
        let limit = if own_limit.is_some_and(|limit| limit == most) {
            "the limit of role or database"
        } else {
            "max_connections"
        };
        let message = format!("{limit} allows {most} sessions; pgmig opens up to {needed}");
        let raise = server.service.set(place, "max_connections", &(needed + used + 10).to_string(), true);
        let costs = "every session that may be takes memory of the server";
        let mend =
            if limit == "max_connections" { by_hand(or(&format!("{fewer}, or"), raise), costs) } else { fewer.into() };
        checks.fail(place, "connections", message, mend);
    } else if free < needed {
        let message = format!("{free} of {most} sessions are free now; pgmig opens up to {needed}");
        checks.warn(place, "connections", message, fewer);
    } else {
        checks.pass(place, "connections", format!("{free} of {most} sessions are free; pgmig opens up to {needed}"));
    }
}
