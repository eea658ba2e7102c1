//! `pgmig params`: the settings of both servers side by side. Reads only.

use std::collections::BTreeSet;
use std::io::Write;

use crate::args::ParamsArgs;
use crate::command::conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Exit, Result};
use crate::model::Place;
use crate::report::json;
use crate::report::params::{self, ForRole, Param, Params};
use crate::server::{self, settings};

pub async fn params(args: ParamsArgs) -> Result<Exit> {
    let (source, target) = (conninfo(&args.source.source)?, conninfo(&args.target)?);
    let source = connect::client(&source, Side::Source, "pgmig params", &[]).await?;
    let target = connect::client(&target, Side::Target, "pgmig params", &[]).await?;
    let (from, into) = (server::server(&source, Side::Source).await?, server::server(&target, Side::Target).await?);
    let here = settings::settings(&source, Side::Source).await?;
    let there = settings::settings(&target, Side::Target).await?;
    let for_roles = for_roles(
        &settings::for_roles(&source, Side::Source).await?,
        &settings::for_roles(&target, Side::Target).await?,
    );
    let mut parameters = Vec::new();
    for parameter in settings::parameters() {
        let (one, other) = (here.get(parameter.name), there.get(parameter.name));
        let same = match (one, other) {
            (Some(one), Some(other)) => one.same(other),
            (None, None) => continue,
            _ => false,
        };
        let restart = other.or(one).is_some_and(|setting| setting.restart);
        // What is set for the database or a role is listed as that, and comes with the migration.
        let set_there = for_roles.iter().any(|set| set.name.eq_ignore_ascii_case(parameter.name));
        let statement = one.filter(|_| !same && other.is_some() && !set_there).map(|one| {
            // What makes all of them hold comes once, at the end.
            let set = into.service.set(Place::Target, parameter.name, &one.shown, restart);
            set.lines().first().cloned().unwrap_or_default()
        });
        parameters.push(Param {
            group: parameter.group,
            name: parameter.name,
            source: one.map(|setting| setting.shown.clone()),
            target: other.map(|setting| setting.shown.clone()),
            same,
            change: if restart { "restart" } else { "reload" },
            effect: parameter.effect,
            statement,
        });
    }
    let introduced = |server: &server::Server| format!("PostgreSQL {}, {}", server.version_text, server.service);
    let all =
        Params { format: json::FORMAT, source: introduced(&from), target: introduced(&into), parameters, for_roles };
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string(&all).during(Exit::Bug, || "write the settings".into())?),
        false => params::text(&all, args.all),
    };
    // A reader that went away is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(Exit::Done)
}

type Set = (String, String, String);

/// What is not alike. People keep secrets in settings of their own, whose names have a dot.
fn for_roles(here: &[Set], there: &[Set]) -> Vec<ForRole> {
    let keys: BTreeSet<(&String, &String)> = here.iter().chain(there).map(|(of, name, _)| (of, name)).collect();
    let value = |set: &[Set], of: &String, name: &String| {
        set.iter().find(|(o, n, _)| (o, n) == (of, name)).map(|(_, _, value)| value.clone())
    };
    let shown = |value: Option<String>, name: &str| match name.contains('.') {
        true => value.map(|_| "(set)".to_string()),
        false => value,
    };
    keys.into_iter()
        .map(|(of, name)| (of, name, value(here, of, name), value(there, of, name)))
        .filter(|(_, _, one, other)| one != other)
        .map(|(of, name, one, other)| ForRole {
            of: of.clone(),
            name: name.clone(),
            source: shown(one, name),
            target: shown(other, name),
        })
        .collect()
}
