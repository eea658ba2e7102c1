//! Whether the target can have the source's extensions.

use tokio_postgres::Client;

use super::Asked;
use crate::error::{Error, Exit, Result};
use crate::model::name::identifier;
use crate::selection::Selection;
use crate::source::inventory::class;
use crate::{source, target};

/// Pushes what stands in the way; returns what does not and should be known.
pub(super) async fn check(
    source: &Client,
    target: &Client,
    asked: &Asked,
    selection: &Selection,
    wrong: &mut Vec<Error>,
) -> Result<Vec<String>> {
    if asked.leave.extensions {
        return Ok(Vec::new());
    }
    let mut here = source::extensions::list(source).await?;
    here.retain(|extension| !selection.objects.contains(&(class::EXTENSION, extension.oid)));
    let pinned = |name: &str| asked.requirements.as_ref().and_then(|list| list.version(name)).map(str::to_string);
    let wanted: Vec<(String, Option<String>)> = here.iter().map(|e| (e.name.clone(), pinned(&e.name))).collect();
    let leave = "or leave them out: --skip-extensions, or [exclude-extension] in --filters";
    let (mut warnings, mut absent, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for there in target::checks::extensions(target, &wanted).await? {
        let version = here.iter().find(|extension| extension.name == there.name).map(|found| found.version.as_str());
        let asked_for = pinned(&there.name);
        match there.installed {
            Some(installed) => {
                let expected = asked_for.as_deref().or(version).unwrap_or_default();
                if installed != expected {
                    warnings.push(format!("extension {} is {installed} on the target, not {expected}", there.name));
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
        wrong.push(
            Error::new(Exit::Target, what).hint(format!("install their packages on the target's machine; {leave}")),
        );
    }
    if !refused.is_empty() {
        let what = format!("the target's role may not create {} extensions", refused.len());
        wrong.push(
            Error::new(Exit::Target, what)
                .hint(format!("as a superuser in the target database, {leave}:\n{}", refused.join("\n"))),
        );
    }
    Ok(warnings)
}
