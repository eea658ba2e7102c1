//! Whether the target has the roles that the source's objects belong to and are granted to, and whether
//! the target's role may give objects to them.

use std::collections::HashSet;

use super::Scope;
use super::checks::{Checks, count, some};
use super::plugin::member;
use crate::error::Result;
use crate::model::mend::{OWNER, ROLE_MAKER};
use crate::model::name::identifier;
use crate::model::{Mend, Place, Step};
use crate::{source, target};

pub(super) async fn check(scope: &Scope<'_>, checks: &mut Checks) -> Result<()> {
    let Scope { asked, on_target, .. } = scope;
    if let Some(passwords) = asked.roles {
        if passwords && !source::roles::passwords_readable(scope.source).await? {
            let message = format!("the role {} may not read the passwords of roles", scope.on_source.user);
            checks.fail(Place::Source, "role passwords", message, "give a superuser, or --no-role-passwords");
        }
        if scope.into.may_create_roles {
            checks.pass(Place::Target, "roles", "the role may make roles");
        } else {
            let message = format!("the role {} may not make roles on the target", on_target.user);
            let mend = format!("alter role {} createrole;", identifier(&on_target.user));
            let mend = Step::sql(Place::Target, ROLE_MAKER, mend).caution("it may then make, change and drop roles");
            checks.fail(Place::Target, "roles", message, mend);
        }
    }
    if asked.leave.owner && asked.leave.acl {
        return Ok(());
    }
    let left_out: HashSet<(u32, u32)> = scope.selected.selection.objects.iter().copied().collect();
    let named = source::checks::roles::named(scope.source, &left_out).await?;
    let there = target::checks::roles(scope.target).await?;
    let user = identifier(&on_target.user);
    let create = |words: &str, roles: &[&String]| {
        let create = |role: &&String| format!("create role {};", identifier(role));
        Mend::new(words, roles.iter().map(|role| Step::sql(Place::Target, ROLE_MAKER, create(role))))
    };
    if !asked.leave.owner {
        let missing: Vec<&String> = named.owners.iter().filter(|role| !there.contains(*role)).collect();
        let strangers = target::checks::not_member(scope.target, &named.owners).await?;
        if !missing.is_empty() && asked.roles.is_none() {
            let message = format!("objects belong to roles that the target does not have: {}", some(&missing));
            let mend = create("run with --roles, or with --no-owner, or on the target:", &missing);
            checks.fail(Place::Target, "owners", message, mend);
        } else if !strangers.is_empty() {
            let names: Vec<&String> = strangers.iter().map(|(role, _)| role).collect();
            let message = format!("the role {} may not give objects to {}", on_target.user, some(&names));
            // Nobody is told to make it a superuser.
            let mend = if strangers.iter().any(|(_, superuser)| *superuser) {
                Mend::from("run with --no-owner, or as a superuser")
            } else {
                let grants = names.iter().map(|role| member(Place::Target, role, &user));
                Mend::new("run with --no-owner, or on the target:", grants)
            };
            checks.fail(Place::Target, "owners", message, mend);
        } else {
            checks.pass(
                Place::Target,
                "owners",
                format!("{} of objects can be set", count(named.owners.len(), "owner")),
            );
        }
    }
    if !asked.leave.owner {
        let closed = target::checks::no_create(scope.target, &named.in_schemas).await?;
        if !closed.is_empty() {
            let shown: Vec<String> = closed.iter().map(|(role, schema)| format!("{role} in {schema}")).collect();
            let message = format!("to own objects there, roles lack CREATE on schemas of the target: {}", some(&shown));
            let grant = |(role, schema): &(String, String)| {
                let grant = format!("grant create on schema {} to {};", identifier(schema), identifier(role));
                Step::sql(Place::Target, OWNER, grant)
            };
            let mend = Mend::new("run with --no-owner, or on the target:", closed.iter().map(grant));
            checks.fail(Place::Target, "owners", message, mend);
        }
    }
    if !asked.leave.acl && asked.roles.is_none() {
        let missing: Vec<&String> = named.grantees.iter().filter(|role| !there.contains(*role)).collect();
        if !missing.is_empty() {
            let message = format!("privileges are granted to roles that the target does not have: {}", some(&missing));
            let mend = create("run with --roles, or with --no-acl, or on the target:", &missing);
            checks.warn(Place::Target, "grantees", message, mend);
        }
    }
    Ok(())
}
