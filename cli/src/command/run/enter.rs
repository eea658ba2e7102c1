//! The way into a migration: opens the run's sessions, takes its lock, and begins it or goes on with it. A
//! session that is lost meanwhile is opened again and all is looked at anew, which finds what was done.

use tokio_postgres::Client;

use super::{Config, Control, Run, Summary, begin, identity, way_back};
use crate::config::filters::Filters;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::Phase;
use crate::patience::{Losses, Patience};
use crate::plan_db::PlanDb;
use crate::report::Reporter;
use crate::selection::select;
use crate::source::catalog::Sizes;
use crate::target::install::{self, Flavour};
use crate::target::{cutover as record, limits, queue, sentinel};
use crate::{preflight, source};

pub(super) enum Entered {
    Run(Box<Run>),
    /// It is done already.
    Over(Summary),
}

struct Sessions {
    source: Client,
    target: Client,
    target_pid: i32,
}

pub(super) async fn enter(config: &Config, report: &Reporter, control: &Control) -> Result<Entered> {
    let patience = Patience::new(config.reconnect_for, report.clone());
    let mut losses = Losses::default();
    let again = async |lost: Error, left: Option<i32>| {
        let mut stopping = control.stopping.clone();
        tokio::select! {
            opened = patience.again(lost, || open(config, left)) => opened,
            Ok(_) = stopping.wait_for(|stopping| *stopping) => Err(Error::stopped()),
        }
    };
    let mut sessions = match open(config, None).await {
        // A server that starts says so. One that does not answer at all may be a wrong address.
        Err(err) if err.connection_lost() && err.sqlstate().is_some() => again(err, None).await?,
        opened => opened?,
    };
    for warning in preflight::lasting_sessions(&config.source, &config.target).await? {
        report.warning(warning);
    }
    loop {
        let left = sessions.target_pid;
        match begin_or_go_on(config, report, control, sessions).await {
            Err(err) if err.connection_lost() => sessions = again(losses.note((), err)?, Some(left)).await?,
            done => return done,
        }
    }
}

/// `left`: a session of the target that was lost, which may hold the lock of the migration.
async fn open(config: &Config, left: Option<i32>) -> Result<Sessions> {
    let target = connect::client(&config.target, Side::Target, "pgmig run", &[]).await?;
    if let Some(left) = left {
        queue::end_session(&target, left).await?;
    }
    let target_pid = queue::session_pid(&target).await?;
    let source = connect::client(&config.source, Side::Source, "pgmig run", &[]).await?;
    Ok(Sessions { source, target, target_pid })
}

async fn begin_or_go_on(
    config: &Config,
    report: &Reporter,
    control: &Control,
    Sessions { source, target, .. }: Sessions,
) -> Result<Entered> {
    preflight::two_databases(&source, &target).await?;
    if !sentinel::lock(&target, &config.name).await? {
        return Err(Error::new(Exit::Phase, format!("another pgmig is running migration `{}`", config.name))
            .hint("see it with `pgmig status`; stop it before you start another"));
    }
    let known = match install::installed(&target).await? {
        Some(flavour) => sentinel::load(&target, &config.name).await?.map(|found| (flavour, found)),
        None => None,
    };
    let (given, told, steered) = (config.clone(), report.clone(), control.clone());
    let run = match known {
        Some((flavour, found)) => {
            check_same(config, &source, flavour, &found).await?;
            if found.phase == Phase::Done {
                let (failed, conflicts, back) = (Vec::new(), 0, config.is_back());
                return Ok(Entered::Over(Summary { endpos: found.endpos, already: true, failed, back, conflicts }));
            }
            let plan = PlanDb::open(&config.dir, &identity(&found.source_identity, &config.name))?;
            if !plan.is_begun()? {
                // Lost with its disk. The catalog says the same again, unless it was changed.
                report.warning(format!("the plan in {} is lost and is made anew", config.dir.display()));
                plan.begin(config.filters.as_ref())?;
                let selected = select(&source, config.filters.as_ref(), found.follow, Sizes::Estimates).await?;
                plan.store_selection(&selected.selection)?;
            }
            let filters = plan.filters()?;
            check_filters(config, filters.as_ref())?;
            if let Some(endpos) = config.endpos.filter(|_| config.endpos != found.endpos) {
                sentinel::set_endpos(&target, &config.name, Some(endpos)).await?;
            }
            report.info(format!("going on with migration `{}` in phase {}", config.name, found.phase));
            // A phase that failed is entered again.
            if found.phase == Phase::Cutover {
                record::go_on(&target, &config.name).await?;
            } else if !found.paused {
                sentinel::set_phase(&target, &config.name, found.phase).await?;
            }
            Run::new(given, told, steered, (source, target), flavour, plan, filters).await?
        }
        None if config.is_back() => return Err(way_back::lost(config)),
        None => begin::begin(given, told, steered, source, target).await?,
    };
    run.note_begun().await?;
    run.retire_the_way_forth().await;
    limits::take_over(&run.target, &config.name, &config.limits).await?;
    control.throttle.limit(&limits::asked(&run.target, &config.name).await?);
    Ok(Entered::Run(Box::new(run)))
}

/// Refuses to go on with a migration otherwise than it was begun.
pub async fn check_same(config: &Config, source: &Client, flavour: Flavour, found: &sentinel::Sentinel) -> Result<()> {
    let can = source::checks::abilities(source).await?;
    let identity = can.identity;
    if can.in_recovery {
        return Err(Error::new(Exit::Source, "the source is a standby now").hint("give the primary"));
    }
    if identity != found.source_identity {
        return Err(Error::usage(format!("migration `{}` on the target is of another source", config.name))
            .hint("give the source it was begun with, or another --name"));
    }
    if config.is_back() != found.is_way_back {
        return Err(Error::new(Exit::Phase, format!("this is the way back of migration `{}`", config.name))
            .hint("pgmig run with source and target as they were keeps it; pgmig cutover --back takes it"));
    }
    if config.follow != found.follow {
        let flag = if found.follow { "--follow" } else { "--no-follow" };
        return Err(Error::usage(format!("migration `{}` was begun with {flag}", config.name))
            .hint("go on with it as it was begun, or clean up first: pgmig cleanup"));
    }
    if let Some(wanted) = config.flavour.filter(|wanted| *wanted != flavour) {
        return Err(Error::usage(format!(
            "migration `{}` was begun with the {flavour} flavour, not {wanted}",
            config.name
        ))
        .hint("leave --flavour out"));
    }
    if found.slot_name != config.slot_name {
        return Err(Error::usage(format!("migration `{}` was begun with another slot name", config.name))
            .hint(format!("go on with --slot-name {}", found.slot_name)));
    }
    Ok(())
}

/// Filters are resolved once, when the migration begins.
fn check_filters(config: &Config, begun_with: Option<&Filters>) -> Result<()> {
    let what = match (&config.filters, begun_with) {
        (None, _) => return Ok(()),
        (Some(given), Some(begun_with)) if given.same(begun_with) => return Ok(()),
        (Some(_), Some(begun_with)) => format!("with other filters ({})", begun_with.file),
        (Some(_), None) => "without --filters".into(),
    };
    Err(Error::usage(format!("migration `{}` was begun {what}", config.name))
        .hint("what is migrated stays as it was resolved then: leave --filters out, or begin again (pgmig cleanup --force, empty the target, pgmig run)"))
}
