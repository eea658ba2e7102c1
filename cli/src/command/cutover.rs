//! `pgmig cutover`: lets the last change through, with writes stopped, and switches. Changes are applied by
//! the run that is there, or by one that this command starts.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;

use crate::args::{CutoverArgs, RunArgs};
use crate::command::conninfo;
use crate::command::run::{Config, Control, Cutover, Outcome, Run, cutover_settings, migrate, way_back_lost};
use crate::connect::{self, Side};
use crate::cutover::Settings;
use crate::error::{Error, Exit, Result};
use crate::model::Phase;
use crate::report::{self, Style};
use crate::target::cutover::State;
use crate::target::sentinel::WayBack;
use crate::target::{install, sentinel, way_back};

pub async fn cutover(args: CutoverArgs, quiet: bool) -> Result<Exit> {
    let name = args.target.name.clone();
    let target = connect::client(&conninfo(&args.target.target)?, Side::Target, "pgmig cutover", &[]).await?;
    let found = match install::installed(&target).await? {
        Some(_) => sentinel::load(&target, &name).await?,
        None => None,
    };
    let Some(mut found) = found else {
        return Err(Error::new(Exit::Phase, format!("there is no migration `{name}` on the target"))
            .hint("start one: pgmig run"));
    };
    let begun = RunArgs::begun(&args.source.source, &args.target.target, &name, &found.slot_name, args.dir.as_deref())?;
    let mut config = Config::new(begun)?;
    let mut target = target;
    if args.back {
        match found.way_back {
            Some(WayBack::Open) => {}
            Some(WayBack::Taken) => {
                eprintln!("done already; nothing was changed");
                return Ok(Exit::Done);
            }
            None => {
                return Err(Error::new(Exit::Phase, format!("migration `{name}` has no way back"))
                    .hint("one is made by a cutover with --reverse, before it switches"));
            }
        }
        config = config.back();
        let source = connect::client(&config.target, Side::Source, "pgmig cutover", &[]).await?;
        let there = match install::installed(&source).await? {
            Some(_) => sentinel::load(&source, &name).await?,
            None => None,
        };
        found = there.ok_or_else(|| way_back_lost(&config))?;
        if found.phase == Phase::Done {
            // It ended between the two records of that.
            way_back::set(&target, &name, Some("taken")).await?;
        }
        target = source;
    }
    if found.phase == Phase::Done {
        eprintln!("done already; nothing was changed");
        return Ok(Exit::Done);
    }
    if !found.follow {
        return Err(Error::new(Exit::Phase, format!("migration `{name}` does not follow the source"))
            .hint("it ends with its copy: pgmig run --no-follow"));
    }
    // A try that died holds it in the phase behind.
    if found.phase < Phase::Follow || found.paused {
        return Err(Error::new(
            Exit::Phase,
            format!("migration `{name}` is not level: it is in phase {}", found.phase),
        )
        .hint("go on with it: pgmig run; then wait for phase follow: pgmig status --watch"));
    }
    let alone = sentinel::lock(&target, &name).await?;
    if alone {
        sentinel::unlock(&target, &name).await?;
    }
    drop(target);
    let reverse = args.how.reverse;
    let settings = cutover_settings(args.how)?;
    let (report, reporter) = report::start(if quiet { Style::Quiet } else { Style::Lines }, Vec::new());
    let run = Run::join(config, report.clone(), &found).await?;
    let done = if args.undo {
        if !Cutover::undo_left_over(&run, &settings).await? {
            report.info("no cutover has left anything to undo");
        }
        Ok(None)
    } else if alone {
        if found.cutover != Some(State::Running) && !quiet {
            report.info("no run is there to apply changes: starting one");
        }
        with_a_run(&run, &settings, args.dry_run).await.map(Some)
    } else {
        let (_alive, broken) = watch::channel(None);
        go(&run, &settings, broken, args.dry_run).await.map(Some)
    };
    drop((run, report));
    let _ = tokio::time::timeout(Duration::from_secs(2), reporter).await;
    let Some(done) = done? else { return Ok(Exit::Done) };
    if args.dry_run {
        eprintln!(
            "next: pgmig cutover{}",
            if args.back {
                " --back"
            } else if reverse {
                " --reverse"
            } else {
                ""
            }
        );
        return Ok(Exit::Done);
    }
    println!("writes were stopped for {:.2} s", done.downtime.as_secs_f64());
    if args.back {
        eprintln!(
            "done: every change of the target is on the source, which takes writes again\nnext: remove what pgmig made with `pgmig cleanup`"
        );
        return Ok(Exit::Done);
    }
    if reverse {
        eprintln!(
            "done: every change of the source is on the target\nnext: keep `pgmig run` running, which carries the target's changes back; `pgmig cutover --back` goes back, `pgmig cleanup` gives the way back up"
        );
        return Ok(Exit::Done);
    }
    eprintln!(
        "done: every change of the source is on the target\nnext: remove what pgmig made with `pgmig cleanup`, once you need no way back"
    );
    Ok(Exit::Done)
}

async fn go(run: &Run, settings: &Settings, broken: watch::Receiver<Option<String>>, dry_run: bool) -> Result<Outcome> {
    if dry_run {
        return Cutover::rehearse(run, settings, broken).await;
    }
    Cutover::cut_over(run, settings, broken).await
}

/// Applies changes beside the cutover, in this process.
async fn with_a_run(run: &Run, settings: &Settings, dry_run: bool) -> Result<Outcome> {
    let (tell, broken) = watch::channel(None);
    let (quiet, reporter) = report::start(Style::Quiet, Vec::new());
    let mut applying = pin!(migrate(run.config().clone(), quiet, Control::alone()));
    let mut cutting = pin!(go(run, settings, broken, dry_run));
    let mut ended = None;
    let done = loop {
        tokio::select! {
            done = &mut cutting => break done,
            applied = &mut applying, if ended.is_none() => {
                // Another run that has come meanwhile applies the changes as well.
                if let Err(err) = &applied
                    && err.exit() != Exit::Phase
                {
                    tell.send_replace(Some(err.chain()));
                }
                ended = Some(applied);
            }
        }
    };
    if done.is_ok() && !dry_run && ended.is_none() {
        // It says goodbye to the source.
        let _ = tokio::time::timeout(Duration::from_secs(10), applying).await;
    }
    reporter.abort();
    done
}
