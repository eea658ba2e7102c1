//! `pgmig preflight`: every check of `run`, shown whether it passes or not. What it tries it undoes; only with
//! `--fix` does it change anything.

mod fix;

use std::io::Write;

use tokio_postgres::Client;

use crate::args::PreflightArgs;
use crate::command::run::{Config, check_same};
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Exit, Result};
use crate::model::fix::Outcome;
use crate::model::{Finding, Place};
use crate::preflight::{self, Begun, Checks};
use crate::report::findings::{self, Findings};
use crate::report::json;
use crate::target::{install, sentinel};

pub async fn preflight(args: PreflightArgs) -> Result<Exit> {
    let (fix, as_json) = (args.fix, args.run.json);
    let config = Config::new(args.run)?;
    let found = check(&config).await?;
    let mut all = Findings::new(json::FORMAT, found.clone());
    let mut changed = true;
    if fix.fix {
        if !as_json {
            show(&findings::table(&all));
        }
        let (fixed, now) = fix::fix(&config, &fix, found).await?;
        changed = fixed.iter().any(|fixed| matches!(fixed.outcome, Outcome::Done | Outcome::Failed));
        all = Findings::new(json::FORMAT, now);
        all.fixed = Some(fixed);
    }
    if as_json {
        let object = serde_json::to_string(&all).during(Exit::Bug, || "write the findings".into())?;
        show(&format!("{object}\n"));
    } else if changed {
        show(&findings::text(&all));
    }
    Ok(if all.failed > 0 { Exit::No } else { Exit::Done })
}

fn show(text: &str) {
    // A reader that went away is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// All that can be found out now, in new sessions.
async fn check(config: &Config) -> Result<Vec<Finding>> {
    let mut checks = Checks::default();
    let source = connected(&config.source, Side::Source, &mut checks).await;
    let target = connected(&config.target, Side::Target, &mut checks).await;
    preflight::poolers(&config.source, &config.target, &mut checks).await;
    match (&source, &target) {
        (Some(source), Some(target)) => {
            preflight::two_databases(source, target).await?;
            // What ends the checks half-way is a finding like the others, below them.
            if let Err(error) = all(config, source, target, &mut checks).await {
                let place = match error.exit() {
                    Exit::Source => Place::Source,
                    Exit::Target => Place::Target,
                    _ => Place::Here,
                };
                checks.refuse(place, "checks", error);
            }
        }
        (Some(source), None) => preflight::check_alone(source, Side::Source, &mut checks).await?,
        (None, Some(target)) => preflight::check_alone(target, Side::Target, &mut checks).await?,
        (None, None) => {}
    }
    Ok(checks.findings)
}

/// What a run would check; of one that goes on, what it would go on with.
async fn all(config: &Config, source: &Client, target: &Client, checks: &mut Checks) -> Result<()> {
    let mut asked = config.asked();
    // A schema that the role may not read is a finding of the checks.
    if let Ok(Some(flavour)) = install::installed(target).await
        && let Ok(Some(found)) = sentinel::load(target, &config.name).await
    {
        if let Err(error) = check_same(config, source, flavour, &found).await {
            checks.refuse(Place::Target, "migration", error);
            return Ok(());
        }
        asked.begun = Some(Begun { phase: found.phase, has_slot: found.follow && found.startpos.is_some() });
        asked.plugin = config.follow.then_some(if found.plugin == "wal2json" { "wal2json" } else { "pgoutput" });
    }
    preflight::check(source, target, &asked, checks).await?;
    Ok(())
}

async fn connected(conninfo: &Conninfo, side: Side, checks: &mut Checks) -> Option<Client> {
    match connect::client(conninfo, side, "pgmig preflight", &[]).await {
        Ok(client) => Some(client),
        Err(error) => {
            let place = match side {
                Side::Source => Place::Source,
                Side::Target => Place::Target,
            };
            checks.refuse(place, "connection", error);
            None
        }
    }
}
