//! The cutover, step by step: does each, keeps what undoes it, and undoes all of them when one fails or
//! writes have been stopped for too long. What it says to the run that applies changes goes through the
//! target: this may be another process.

mod reverse;
mod steps;
mod undo;
mod verify;

use std::collections::HashSet;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::Client;

use super::Run;
use crate::command::interrupted;
use crate::crash::{self, Point};
use crate::cutover::pgbouncer::Console;
use crate::cutover::{Freeze, Settings, Step};
use crate::error::{Error, Exit, Result};
use crate::model::{Lsn, TableName};
use crate::report::units;
use crate::source::{catalog, slot};
use crate::target::cutover::{self as record, State};
use crate::target::{queue, sentinel};
use steps::LOOK_EVERY;

/// What ends a cutover from outside, in words: the run that applies has failed.
pub type Broken = watch::Receiver<Option<String>>;

/// What a cutover came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub endpos: Option<Lsn>,
    /// How long writes were stopped.
    pub downtime: Duration,
}

pub struct Cutover<'a> {
    run: &'a Run,
    settings: &'a Settings,
    /// Holds the lock that keeps a second cutover away.
    target: Client,
    source: Client,
    attempt: i32,
    broken: Broken,
    console: Option<Console>,
    /// When writes were stopped.
    stopped: Option<Instant>,
    endpos: Option<Lsn>,
    /// The tables of the migration when the way back was made.
    moved: HashSet<TableName>,
    /// The way back has its beginning.
    turned: bool,
    /// What the source's materialized views stood at before ours were refreshed.
    views: Vec<(String, String)>,
    /// What no stream holds, written to since the copy, and named already.
    told_changed: Vec<String>,
    /// Listens from the beginning: a signal between two steps counts.
    interrupt: Pin<Box<dyn Future<Output = Error> + Send>>,
}

impl<'a> Cutover<'a> {
    /// Takes the lock, and undoes what a cutover that died has left; one that had come past the switch is brought
    /// to its end instead. Otherwise all of it.
    pub async fn cut_over(run: &'a Run, settings: &'a Settings, broken: Broken) -> Result<Outcome> {
        let mut cutover = Cutover::open(run, settings, broken).await?;
        if let Some(done) = cutover.left_over().await? {
            return Ok(done);
        }
        cutover.attempt = record::begin(&cutover.target, &run.config.name).await?;
        cutover.go().await
    }

    async fn open(run: &'a Run, settings: &'a Settings, broken: Broken) -> Result<Cutover<'a>> {
        let target = run.target_client("pgmig cutover", &[]).await?;
        let source = run.source_client("pgmig cutover").await?;
        if !record::lock(&target, &run.config.name).await? {
            return Err(Error::new(Exit::Phase, format!("migration `{}` is being cut over already", run.config.name))
                .hint("see: select * from pgmig.cutover on the target"));
        }
        let (console, stopped, endpos, turned, views) = (None, None, None, false, Vec::new());
        let interrupt = Box::pin(interrupted(""));
        let (moved, told_changed) = (HashSet::new(), Vec::new());
        Ok(Cutover {
            run,
            settings,
            target,
            source,
            attempt: 0,
            broken,
            console,
            stopped,
            endpos,
            moved,
            turned,
            views,
            told_changed,
            interrupt,
        })
    }

    /// Every step in its order. On a failure all is undone.
    async fn go(mut self) -> Result<Outcome> {
        let mut failed = None;
        let steps: Vec<Step> = Step::ALL.into_iter().filter(|step| *step < Step::Open && self.has(*step)).collect();
        for step in steps {
            if step.stops_writes() && self.stopped.is_none() {
                self.stopped = Some(Instant::now());
            }
            if let Err(err) = self.step(step).await {
                failed = Some((step, err));
                break;
            }
        }
        if let Some((step, err)) = failed {
            let undone = self.undo().await;
            let stopped = self.stopped.map_or_else(String::new, |at| {
                format!("; writes were stopped for {:.2} s", at.elapsed().as_secs_f64())
            });
            let state = "all is as it was before, the source takes writes, and the migration follows";
            return Err(match undone {
                Ok(()) => Error::new(err.exit(), format!("the cutover was undone at step {step}{stopped}"))
                    .hint(err.hint_text().map_or_else(|| state.to_string(), |hint| format!("{hint}\n{state}")))
                    .cause(Error::new(err.exit(), err.chain())),
                Err(undo) => Error::new(
                    undo.exit(),
                    format!("the cutover failed at step {step} and could not be undone"),
                )
                .cause(Error::new(undo.exit(), format!("{}; undoing: {}", err.chain(), undo.chain())))
                .hint(
                    "the source may take no writes: run `pgmig cutover --undo` with the same flags until it succeeds",
                ),
            });
        }
        // From here on clients may have written to the target: there is no way but forward.
        self.open_source().await?;
        self.resume().await?;
        let downtime = self.stopped.map_or(Duration::ZERO, |at| at.elapsed());
        self.end(downtime).await
    }

    /// The last of it, when clients are on the other side.
    async fn end(&mut self, downtime: Duration) -> Result<Outcome> {
        let text = format!("writes were stopped for {:.2} s", downtime.as_secs_f64());
        sentinel::event(&self.target, &self.run.config.name, "info", &text).await?;
        self.close().await?;
        Ok(Outcome { endpos: self.endpos, downtime })
    }

    /// Has the old source take writes again, where the way back is taken.
    async fn open_source(&mut self) -> Result<()> {
        if !self.has(Step::Open) {
            return Ok(());
        }
        self.step(Step::Open).await.map_err(|err| {
            let hint = err.hint_text().unwrap_or("see what it answers").to_string();
            Error::new(err.exit(), "clients are switched back, and the old source may take no writes yet")
                .cause(Error::new(err.exit(), err.chain()))
                .hint(format!("{hint}; then end it: pgmig cutover --back"))
        })
    }

    /// All but stopping writes and switching, and how long writes would have been stopped.
    pub async fn rehearse(run: &'a Run, settings: &'a Settings, broken: Broken) -> Result<Outcome> {
        let mut cutover = Cutover::open(run, settings, broken).await?;
        let name = &run.config.name;
        if run.sentinel().await?.cutover == Some(State::Running) {
            return Err(Error::new(Exit::Phase, "an earlier cutover has not ended")
                .hint("undo it: pgmig cutover --undo; or cut over"));
        }
        let told = |step: Step, began: Instant, message: &str| {
            let seconds = began.elapsed().as_secs_f64();
            run.report.info(format!("  {step:<10} {seconds:>7.3} s  {message}"));
        };
        for step in
            [Step::Check, Step::Prepare, Step::Verify].into_iter().filter(|step| cutover.has(*step)).collect::<Vec<_>>()
        {
            let began = Instant::now();
            let message = cutover.act(step).await?;
            told(step, began, &message);
        }
        if cutover.has(Step::Reverse) {
            let began = Instant::now();
            cutover.check_way_back().await?;
            told(Step::Reverse, began, "not made: the way back, which can be");
        }
        record::refresh_again(&cutover.target, name, None).await?;
        let all = Instant::now();
        let began = Instant::now();
        if let Err(err) = slot::nudge(&cutover.source).await {
            tracing::debug!(error = %err.chain(), "the source takes no message: its keepalives will do");
        }
        let lsn = slot::current_lsn(&cutover.source).await?;
        while !record::is_level(&cutover.target, name, lsn).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        told(Step::Drain, began, "apply came level with the source");
        let began = Instant::now();
        run.sequences_ahead(&mut Default::default()).await?;
        told(Step::Sequences, began, "read there and set here");
        let began = Instant::now();
        catalog::view_states(&cutover.source).await?;
        let finish = queue::pending_steps(&cutover.target, name, "finish").await?.len();
        told(Step::Finish, began, &format!("not done: {finish} objects that would fire or forbid"));
        let downtime = all.elapsed();
        run.report.info(format!(
            "writes would be stopped for about {:.1} s, and for as long as --switch takes",
            downtime.as_secs_f64()
        ));
        Ok(Outcome { endpos: None, downtime })
    }

    /// Whether there is anything to do at a step.
    fn has(&self, step: Step) -> bool {
        match step {
            Step::Pause | Step::Resume => self.settings.pgbouncer.is_some(),
            Step::Verify | Step::Proof => self.settings.verify.is_some(),
            Step::Reverse | Step::Turn => self.settings.reverse && !self.run.config.is_back(),
            Step::Open => self.run.config.is_back(),
            Step::Freeze => self.settings.freeze != Freeze::None,
            Step::Switch => self.settings.switch.is_some() || self.settings.pgbouncer.is_some(),
            _ => true,
        }
    }

    async fn step(&mut self, step: Step) -> Result<()> {
        let (name, position) = (self.run.config.name.clone(), step as i32);
        let began = Instant::now();
        record::start(&self.target, &name, self.attempt, position, step.name()).await?;
        // What is switched is not undone, however long it takes.
        let stopped = self.stopped.filter(|_| step < Step::Open);
        let limit = stopped.map(|at| self.settings.max_downtime.saturating_sub(at.elapsed()));
        crash::before(Point(step.name()));
        let mut broken = self.broken.clone();
        let mut interrupt = std::mem::replace(&mut self.interrupt, Box::pin(std::future::pending()));
        let max = self.settings.max_downtime;
        let done = tokio::select! {
            done = self.act(step) => done,
            () = sleep(limit) => Err(Error::new(Exit::No, format!("writes were stopped for longer than --max-downtime {}", units::duration(max)))
                .hint("see where the time went: select * from pgmig.cutover; then try again, at a quieter time or with more of it")),
            stopped = &mut interrupt => Err(Error::new(stopped.exit(), "stopped by hand")),
            what = broken_off(&mut broken) => Err(Error::new(Exit::Target, format!("the run that applies changes has ended: {what}"))),
        };
        if !matches!(&done, Err(err) if err.exit() == Exit::Stopped) {
            self.interrupt = interrupt;
        }
        let (state, message) = match &done {
            Ok(message) => ("done", message.clone()),
            Err(err) => ("failed", err.chain()),
        };
        // What could not be recorded of a failure is undone all the same.
        let recorded = record::finish(&self.target, &name, self.attempt, position, state, &message).await;
        if done.is_ok() {
            recorded?;
            crash::after(Point(step.name()));
            let seconds = began.elapsed().as_secs_f64();
            self.run.report.info(format!("  {step:<10} {seconds:>7.3} s  {message}").trim_end().to_string());
        }
        done.map(drop)
    }
}

async fn sleep(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

async fn broken_off(broken: &mut Broken) -> String {
    match broken.wait_for(Option::is_some).await {
        Ok(what) => what.clone().unwrap_or_default(),
        // Nobody can tell any more: the run is another process.
        Err(_) => std::future::pending().await,
    }
}
