//! Whether the target can have the source's extensions.

use std::collections::BTreeSet;

use super::Scope;
use super::checks::{Checks, count};
use crate::error::Result;
use crate::model::mend::{OWNER, SUPERUSER};
use crate::model::name::{identifier, literal};
use crate::model::{Mend, Place, Step};
use crate::source::extensions::Extension;
use crate::source::inventory::class;
use crate::{source, target};

const CHECK: &str = "extensions";

pub(super) async fn check(scope: &Scope<'_>, checks: &mut Checks) -> Result<()> {
    let Scope { source, target, asked, .. } = scope;
    let selection = &scope.selected.selection;
    if asked.leave.extensions {
        return Ok(());
    }
    let before = checks.findings.len();
    let mut here = source::extensions::list(source).await?;
    here.retain(|extension| !selection.objects.contains(&(class::EXTENSION, extension.oid)));
    let pinned = |name: &str| asked.requirements.as_ref().and_then(|list| list.version(name)).map(str::to_string);
    let wanted: Vec<(String, Option<String>)> = here.iter().map(|e| (e.name.clone(), pinned(&e.name))).collect();
    let leave = "or leave them out: --skip-extensions, or [exclude-extension] in --filters";
    let (mut absent, mut refused) = (Vec::new(), Vec::new());
    for there in target::checks::extensions(target, &wanted).await? {
        let version = here.iter().find(|extension| extension.name == there.name).map(|found| found.version.as_str());
        let asked_for = pinned(&there.name);
        match there.installed {
            Some(installed) => {
                let expected = asked_for.as_deref().or(version).unwrap_or_default();
                if installed != expected {
                    let message = format!("extension {} is {installed} on the target, not {expected}", there.name);
                    let update = format!("alter extension {} update to '{expected}';", identifier(&there.name));
                    let update = Step::sql(Place::Target, OWNER, update)
                        .by_hand()
                        .caution("changes what the extension's objects do");
                    checks.warn_aloud(
                        Place::Target,
                        CHECK,
                        message,
                        Mend::new("if the difference matters, on the target:", [update]),
                    );
                }
            }
            None if !there.available => {
                absent.push(asked_for.map_or(there.name.clone(), |version| format!("{} {version}", there.name)));
            }
            None if !there.allowed => {
                let extension = here.iter().find(|extension| extension.name == there.name);
                refused.extend(extension.map(|extension| (extension, asked_for)));
            }
            None => {}
        }
    }
    if !absent.is_empty() {
        let what = format!("the target has no extension {} to install", absent.join(", "));
        let mend = format!("install their packages on the target's machine; {leave}");
        checks.fail(Place::Target, CHECK, what, mend);
    }
    if !refused.is_empty() {
        let what = format!("the target's role may not create {}", count(refused.len(), "extension"));
        let create = |(extension, version): &(&Extension, Option<String>)| {
            let (name, schema) = (identifier(&extension.name), identifier(&extension.schema));
            let version = version.as_ref().map_or(String::new(), |version| format!(" version {}", literal(version)));
            format!("create extension {name} with schema {schema}{version} cascade;")
        };
        // A role that may make no extension owns the schema that it makes for it all the same.
        let schemas: BTreeSet<&str> = refused.iter().map(|(extension, _)| extension.schema.as_str()).collect();
        let schemas: Vec<String> = schemas.into_iter().map(str::to_string).collect();
        let owner = identifier(&scope.on_target.user);
        let schemas = target::checks::missing_schemas(target, &schemas).await?.into_iter();
        let schemas = schemas.map(|name| format!("create schema {} authorization {owner};", identifier(&name)));
        let statements = schemas.chain(refused.iter().map(create));
        let mend = Mend::new(
            format!("as a superuser in the target database, {leave}:"),
            statements.map(|statement| Step::sql(Place::Target, SUPERUSER, statement)),
        );
        checks.fail(Place::Target, CHECK, what, mend);
    }
    if checks.findings.len() == before {
        checks.pass(Place::Target, CHECK, format!("{} of the source can be had", count(here.len(), "extension")));
    }
    Ok(())
}
