//! Which output plugin a run takes: wal2json where it is allowed and carries every value, else pgoutput.
//! Each is tried with a temporary slot. One that was asked for by name and cannot do it is a failure.

use std::time::Duration;

use super::Scope;
use super::checks::{Checks, some};
use super::stream::{by_hand, or};
use crate::error::{Error, Exit, Result};
use crate::model::mend::{OWNER, ROLE_MAKER, SUPERUSER};
use crate::model::name::identifier;
use crate::model::{Mend, Place, Service, Step};
use crate::report::units;
use crate::source::checks::stream::{Surroundings, not_owned};
use crate::source::checks::transactions::oldest_transaction;
use crate::source::checks::values;
use crate::source::{checks as source_checks, slot};

const CHECK: &str = "output plugin";
/// wal2json writes a change as one text of at most 1 GB, and a slot does not get past one that is larger. A
/// byte of bytea is two there, and so is a quote, a backslash or a line's end.
const LARGE: u64 = (1 << 30) / 2;
/// How long large values are looked for.
const LOOK_FOR: Duration = Duration::from_secs(5);

pub(super) async fn choose(
    scope: &Scope<'_>,
    around: &Surroundings,
    may_try: bool,
    checks: &mut Checks,
) -> Result<&'static str> {
    let asked = scope.asked.plugin;
    if asked != Some("pgoutput") {
        match wal2json(scope, may_try, checks).await? {
            Ok(tried) => {
                if tried {
                    checks.pass(Place::Source, CHECK, "wal2json, tried with a temporary slot");
                }
                return Ok("wal2json");
            }
            Err((error, mend)) if asked.is_some() => {
                checks.refuse_mended(Place::Source, CHECK, error, mend);
                return Ok("wal2json");
            }
            Err((error, _)) if may_try => {
                tracing::debug!(error = %error.chain(), "wal2json is not to be had");
                checks.pass(Place::Source, "wal2json", format!("not taken: {}", error.chain()));
            }
            Err(_) => {}
        }
    }
    if may_try && scope.asked.tries.is_some() {
        match slot::try_plugin(scope.source, "pgoutput").await {
            Ok(true) => checks.pass(Place::Source, CHECK, "pgoutput, tried with a temporary slot"),
            Ok(false) => not_tried(scope, checks).await?,
            Err(error) => checks.refuse(Place::Source, CHECK, error),
        }
    }
    publications(scope, around, checks).await?;
    Ok("pgoutput")
}

/// Why a plugin is not taken, and what would change that.
type Refused = (Error, Mend);

/// Whether it was tried; or why it is not taken.
async fn wal2json(scope: &Scope<'_>, may_try: bool, checks: &mut Checks) -> Result<Result<bool, Refused>> {
    let tables = &scope.selected.tables;
    let refuse = |what: String| Ok(Err((Error::new(Exit::Source, what), "use --plugin pgoutput".into())));
    if scope.on_source.encoding != "UTF8" {
        // wal2json prints in the database's encoding, which is not JSON then.
        return refuse(format!("wal2json cannot be used on a database in {}", scope.on_source.encoding));
    }
    if let Some((table, column)) = source_checks::unprintable_type(scope.source).await? {
        return refuse(format!("wal2json prints the name of the type of column {column} of {table} as broken JSON"));
    }
    if let Some(list) = &scope.on_source.plugins
        && !list.split(',').any(|name| name.trim() == "wal2json")
    {
        let list = format!("{list}, wal2json");
        let allow = scope.from.service.set(Place::Source, "output_plugin_libraries", &list, false);
        let allow = or("on the source, as superuser (no quotes round the whole list); or use --plugin pgoutput", allow);
        return Ok(Err((Error::new(Exit::Source, "the source does not allow the output plugin wal2json"), allow)));
    }
    if !may_try || scope.asked.tries.is_none() {
        return Ok(Ok(false));
    }
    let lossy = tables.iter().find_map(|table| Some((&table.name, table.float_column.as_ref()?)));
    let keeps_nan = slot::wal2json_keeps_nan(scope.source).await;
    let tried = !matches!(keeps_nan, Ok(None));
    match (keeps_nan, lossy) {
        (Ok(Some(true)), _) | (Ok(_), None) => {}
        (Ok(None), Some((table, column))) => {
            return refuse(format!(
                "whether the source's wal2json is 2.6 or later, as column {column} of {table} needs it, cannot be found out before the \
                 transactions end that are open on the source"
            ));
        }
        (Ok(Some(false)), Some((table, column))) => {
            return refuse(format!(
                "the source's wal2json is older than 2.6 and turns NaN and infinity in column {column} of {table} into null"
            ));
        }
        (Err(error), _) => return Ok(Err(no_wal2json(error, scope.from.version / 10_000))),
    }
    let oids: Vec<u32> = tables.iter().filter(|table| table.logged).map(|table| table.oid).collect();
    let rows = values::large_rows(scope.source, &oids, LARGE, LOOK_FOR).await?;
    if let Some(row) = rows.found.first() {
        let twice = if row.twice { " (REPLICA IDENTITY FULL sends a row as it was and as it is)" } else { "" };
        return refuse(format!(
            "an update of {} can send {} of values{twice}, and wal2json cannot write a change that is over 1 GB as JSON: the slot would not get past it",
            row.table,
            units::bytes(row.bytes)
        ));
    }
    if !rows.unseen.is_empty() {
        let message = format!(
            "not looked through within {} s: {}; wal2json cannot write a change that is over 1 GB as JSON, and its slot does not get past one",
            LOOK_FOR.as_secs(),
            some(&rows.unseen)
        );
        checks.warn(Place::Source, "large values", message, "if rows there hold 256 MB or more: --plugin pgoutput");
    }
    if !tried {
        not_tried(scope, checks).await?;
    }
    Ok(Ok(tried))
}

/// Warns that a slot would wait now. The server has taken the plugin all the same.
async fn not_tried(scope: &Scope<'_>, checks: &mut Checks) -> Result<()> {
    let message = "not tried: a slot waits until transactions end";
    match oldest_transaction(scope.source).await? {
        Some(oldest) => {
            let message = format!("{message}, now for {}", oldest.who);
            let end = Step::sql(Place::Source, SUPERUSER, oldest.end).by_hand().caution("what it was doing is lost");
            checks.warn(Place::Source, CHECK, message, Mend::new("let it end, or:", [end]));
        }
        None => checks.warn(Place::Source, CHECK, message, "a run waits, and says for whom"),
    }
    Ok(())
}

/// Why wal2json could not be tried, and what to do about it.
fn no_wal2json(err: Error, major: i32) -> Refused {
    let mend = match err.sqlstate() {
        Some("58P01" | "42704") => format!(
            "install wal2json on the source's machine (Debian: postgresql-{major}-wal2json), or use --plugin pgoutput"
        )
        .into(),
        // The role may not read the list, so nobody here knows what else is in it.
        Some("42501") => by_hand(
            Mend::new(
                "on the source, as superuser (no quotes round the whole list), then reload; or use --plugin pgoutput:",
                Service::SelfManaged
                    .set(Place::Source, "output_plugin_libraries", "pgoutput, test_decoding, wal2json", false)
                    .steps,
            ),
            "replaces the list: add to what the server has now",
        ),
        _ => "use --plugin pgoutput, which every server has".into(),
    };
    (Error::new(Exit::Source, "the source cannot decode with wal2json").cause(err), mend)
}

/// pgoutput sends what a publication names, and only an owner may name a table there.
async fn publications(scope: &Scope<'_>, around: &Surroundings, checks: &mut Checks) -> Result<()> {
    let user = identifier(&scope.on_source.user);
    let mut mend = Vec::new();
    let mut lacks = Vec::new();
    if !around.may_publish {
        lacks.push("CREATE on the database".to_string());
        let grant = format!("grant create on database {} to {user};", identifier(&scope.from.database));
        mend.push(Step::sql(Place::Source, OWNER, grant));
    }
    let oids: Vec<u32> = scope.selected.tables.iter().filter(|table| table.logged).map(|table| table.oid).collect();
    let foreign = not_owned(scope.source, &oids).await?;
    if !foreign.is_empty() {
        let names: Vec<_> = foreign.iter().map(|(table, _)| table).collect();
        lacks.push(format!("ownership of {}", some(&names)));
        let mut owners: Vec<&(String, bool)> = foreign.iter().map(|(_, owner)| owner).collect();
        owners.sort();
        owners.dedup();
        mend.extend(owners.iter().map(|(owner, superuser)| match member(Place::Source, owner, &user) {
            // Nobody makes it a superuser without a thought.
            step if *superuser => step.by_hand(),
            step => step,
        }));
    }
    if lacks.is_empty() {
        checks.pass(Place::Source, "publications", "the role may make them");
    } else {
        let message =
            format!("to publish for pgoutput the role {} lacks {}", scope.on_source.user, lacks.join(" and "));
        checks.fail(Place::Source, "publications", message, Mend::new("on the source, or let it use wal2json:", mend));
    }
    Ok(())
}

/// Makes a role, named as in SQL, a member of an owner.
pub(super) fn member(side: Place, owner: &str, role: &str) -> Step {
    let caution = format!("it may then do all that {owner} may");
    Step::sql(side, ROLE_MAKER, format!("grant {} to {role};", identifier(owner))).caution(caution)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerError;

    #[test]
    fn a_source_without_wal2json_is_told_apart_from_one_that_does_not_allow_it() {
        let cases = [
            ("58P01", "could not access file \"wal2json\": No such file or directory", "postgresql-15-wal2json"),
            ("42501", "library \"wal2json\" may not be used as an output plugin", "output_plugin_libraries"),
            ("57014", "canceling statement due to statement timeout", "--plugin pgoutput"),
        ];
        for (sqlstate, message, expected) in cases {
            let answer = ServerError { sqlstate: sqlstate.into(), message: message.into(), hint: None };
            let tried = Error::new(Exit::Source, "try wal2json with a temporary slot").cause(answer);
            let (error, mend) = no_wal2json(tried, 15);
            assert_eq!(error.exit(), Exit::Source);
            assert!(mend.to_string().contains(expected), "{error:?}");
            assert!(error.chain().contains(message), "{error:?}");
        }
    }
}
