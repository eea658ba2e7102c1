//! Whether the target can have the source's extensions.

use super::Scope;
use super::checks::{Checks, count};
use crate::error::Result;
use crate::model::Place;
use crate::model::name::identifier;
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
                    checks.warn_aloud(
                        Place::Target,
                        CHECK,
                        message,
                        format!("if the difference matters, on the target:\n{update}"),
                    );
                }
            }
            None if !there.available => {
                absent.push(asked_for.map_or(there.name.clone(), |version| format!("{} {version}", there.name)));
            }
            None if !there.allowed => refused.push(format!("create extension {} cascade;", identifier(&there.name))),
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
        let mend = format!("as a superuser in the target database, {leave}:\n{}", refused.join("\n"));
        checks.fail(Place::Target, CHECK, what, mend);
    }
    if checks.findings.len() == before {
        checks.pass(Place::Target, CHECK, format!("{} of the source can be had", count(here.len(), "extension")));
    }
    Ok(())
}
