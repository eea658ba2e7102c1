//! Undoes a cutover: what was begun, last first. The source takes writes again, and the migration follows.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::{Cutover, Outcome};
use crate::command::run::Run;
use crate::cutover::hook::Action;
use crate::cutover::pgbouncer::Console;
use crate::cutover::{Freeze, Settings, Step};
use crate::error::{Context, Error, Exit, Result};
use crate::source::freeze::{self, Before};
use crate::target::cutover::{self as record, Record, State};
use crate::target::way_back;

/// How long an undo is tried.
const UNDO_WITHIN: Duration = Duration::from_secs(30);

impl<'a> Cutover<'a> {
    /// Undoes a cutover that died. One that had come past the switch is done now, and it is said what it came to:
    /// writes were stopped until its last step, which may be one of now.
    pub(super) async fn left_over(&mut self) -> Result<Option<Outcome>> {
        let name = self.run.config.name.clone();
        let found = self.run.sentinel().await?;
        if found.cutover != Some(State::Running) {
            return Ok(None);
        }
        let (attempt, steps) = record::steps(&self.target, &name).await?;
        self.attempt = attempt;
        if has_switched(&steps) {
            self.run.report.info("an earlier cutover has switched: going on behind that");
            let is_done = |step: Step| steps.iter().any(|found| found.step == step.name() && found.state == "done");
            (self.turned, self.endpos) = (is_done(Step::Turn), found.endpos);
            if !is_done(Step::Open) {
                self.open_source().await?;
            }
            if !is_done(Step::Resume) {
                self.resume().await?;
            }
            let first = Step::ALL.into_iter().find(|step| step.stops_writes()).map_or(0, |step| step as i32);
            let downtime = record::took(&self.target, &name, attempt, first).await?;
            return self.end(downtime).await.map(Some);
        }
        self.run.report.info("an earlier cutover has not ended: undoing it");
        self.undo().await?;
        Ok(None)
    }

    /// Undoes what a cutover that died has left, and no more. False if there is nothing.
    pub async fn undo_left_over(run: &'a Run, settings: &'a Settings) -> Result<bool> {
        let (_alive, broken) = watch::channel(None);
        let mut cutover = Cutover::open(run, settings, broken).await?;
        if run.sentinel().await?.cutover != Some(State::Running) {
            return Ok(false);
        }
        let (attempt, steps) = record::steps(&cutover.target, &run.config.name).await?;
        if has_switched(&steps) {
            return Err(Error::new(Exit::Phase, "the cutover has switched: clients may have written to the target")
                .hint("end it: pgmig cutover"));
        }
        cutover.attempt = attempt;
        cutover.undo().await?;
        Ok(true)
    }

    /// Undoes what was begun, last first. Goes on whatever fails, and gives the source back in any case.
    pub(super) async fn undo(&mut self) -> Result<()> {
        let name = self.run.config.name.clone();
        let (began, mut told) = (Instant::now(), false);
        loop {
            let tried = self.try_undo(&name).await;
            match tried {
                Err(err) if began.elapsed() < UNDO_WITHIN => {
                    if !std::mem::replace(&mut told, true) {
                        self.run.report.warning(format!("undo is tried again: {}", err.chain()));
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                done => return done,
            }
        }
    }

    async fn try_undo(&mut self, name: &str) -> Result<()> {
        // In the same sessions, if they live: a statement that was given up is through then.
        if self.target.is_closed() {
            self.target = self.run.target_client("pgmig cutover", &[]).await?;
            record::lock(&self.target, name).await?;
        }
        if self.source.is_closed() {
            self.source = self.run.source_client("pgmig cutover").await?;
        }
        let (attempt, steps) = record::steps(&self.target, name).await?;
        let mut first = Ok(());
        for recorded in steps.iter().rev() {
            let Some(step) = Step::of(&recorded.step) else { continue };
            let undone = match self.undo_step(step, &recorded.detail).await {
                Ok(()) => record::finish(&self.target, name, attempt, recorded.position, "undone", "").await,
                Err(err) => Err(err),
            };
            if let (Err(err), Ok(())) = (undone, &first) {
                first = Err(err);
            }
        }
        first?;
        record::reopen(&self.target, name).await
    }

    async fn undo_step(&mut self, step: Step, detail: &Value) -> Result<()> {
        let (name, target) = (&self.run.config.name, &self.target);
        match step {
            Step::Switch => {
                if let Some(command) = &self.settings.switch {
                    self.hook(command, "switch", Action::Undo).await?;
                }
                if self.settings.pgbouncer.is_some() {
                    self.opened().await?.reload().await?;
                }
                Ok(())
            }
            Step::Finish if self.run.config.is_back() => way_back::quiet_again(target, name).await,
            Step::Finish => {
                let before = detail.get("before").and_then(Value::as_array);
                // Nothing was done before that was kept.
                let Some(before) = before else { return Ok(()) };
                let before: Vec<String> = before.iter().filter_map(Value::as_str).map(str::to_string).collect();
                record::undo_finish(target, name, &before).await
            }
            Step::Views | Step::Prepare => record::refresh_again(target, name, None).await,
            Step::Freeze => self.unfreeze(detail).await,
            Step::Pause => self.opened().await?.resume().await,
            Step::Reverse => self.undo_reverse(detail).await,
            Step::Turn => self.undo_turn().await,
            // Endpos is opened when all else is undone.
            Step::Check | Step::Verify | Step::Endpos | Step::Drain | Step::Sequences => Ok(()),
            Step::Proof | Step::Quiet | Step::Open | Step::Resume => Ok(()),
        }
    }

    async fn unfreeze(&self, detail: &Value) -> Result<()> {
        if let Some(before) = detail.get("read_only") {
            let before: Before = serde_json::from_value(before.clone())
                .during(Exit::Target, || "read what the source was set to before".into())?;
            return freeze::make_writable(&self.source, &before, &self.settings.spared).await;
        }
        match (detail.get("hook"), &self.settings.freeze) {
            (None, _) => Ok(()),
            (Some(_), Freeze::Hook(command)) => self.hook(command, "freeze", Action::Undo).await,
            (Some(_), _) => Err(Error::usage("writes on the source were stopped by a hook")
                .hint("give the same: --freeze=hook:CMD, which is called with PGMIG_ACTION=undo")),
        }
    }

    /// The console, opened once more where it was not.
    async fn opened(&mut self) -> Result<&Console> {
        if self.console.is_none() {
            let Some((conninfo, databases)) = &self.settings.pgbouncer else {
                return Err(Error::usage("PgBouncer was paused by an earlier cutover").hint("give --pgbouncer again"));
            };
            self.console = Some(Console::open(conninfo, databases).await?);
        }
        self.console()
    }
}

/// Whether clients may be on the other side already.
fn has_switched(steps: &[Record]) -> bool {
    steps.iter().any(|step| step.step == Step::Switch.name() && step.state == "done" || step.step == Step::Open.name())
}
