//! What each step of a cutover does. What undoes a step is kept before it is done.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Cutover;
use crate::cutover::hook::{self, Action};
use crate::cutover::pgbouncer::Console;
use crate::cutover::{Freeze, Step};
use crate::error::{Context, Error, Exit, Result};
use crate::model::Lsn;
use crate::report::units;
use crate::source::{catalog, freeze, slot, unstreamed};
use crate::target::cutover::{self as record, State};
use crate::target::{progress, queue, sentinel};

/// How often the run is looked at while writes are stopped.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a lag is waited for before writes are stopped.
const LEVEL_WITHIN: Duration = Duration::from_secs(60);

impl Cutover<'_> {
    pub(super) async fn act(&mut self, step: Step) -> Result<String> {
        match step {
            Step::Check => self.check().await,
            Step::Prepare => self.prepare().await,
            Step::Verify => self.verify().await,
            Step::Reverse => self.reverse().await,
            Step::Turn => self.turn().await,
            Step::Pause => {
                self.console()?.pause().await?;
                Ok("PgBouncer holds its clients back".into())
            }
            Step::Freeze => self.freeze().await,
            Step::Endpos => {
                // Behind it everything is written out that was committed with synchronous_commit = off.
                if let Err(err) = slot::nudge(&self.source).await {
                    tracing::debug!(error = %err.chain(), "the source takes no message: its keepalives will do");
                }
                self.set_endpos().await
            }
            Step::Drain => {
                self.wait_held(Lsn::ZERO).await?;
                Ok("every change up to endpos is applied".into())
            }
            Step::Sequences => self.run.sequences().await.map(|count| format!("{count} stand as on the source")),
            Step::Views => self.views().await,
            Step::Finish => {
                let before = record::disturbing(&self.target).await?;
                self.keep(step, json!({ "before": before })).await?;
                let steps = queue::pending_steps(&self.target, &self.run.config.name, "finish").await?.len();
                self.run.stage("finish").await?;
                Ok(format!("{steps} objects that would have fired or forbidden"))
            }
            Step::Proof => self.proof().await,
            Step::Quiet => {
                if let Err(err) = slot::nudge(&self.source).await {
                    tracing::debug!(error = %err.chain(), "the source takes no message: its keepalives will do");
                }
                let lsn = slot::current_lsn(&self.source).await?;
                self.wait_held(lsn).await?;
                self.tell_changed().await?;
                Ok("nothing was committed behind endpos".into())
            }
            Step::Switch => {
                if let Some(command) = &self.settings.switch {
                    self.hook(command, "switch", Action::Do).await?;
                }
                if let Some(console) = &self.console {
                    console.reload().await?;
                }
                Ok("clients are pointed at the target".into())
            }
            Step::Open => self.open_writes().await,
            Step::Resume => Ok(String::new()),
        }
    }

    pub(super) async fn hook(&self, command: &str, hook: &str, action: Action) -> Result<()> {
        hook::run(command, hook, action, &self.run.config.name, self.run.config.is_back()).await
    }

    /// Where the source's WAL ends now. Apply that is ahead of that says that writes go on.
    async fn set_endpos(&mut self) -> Result<String> {
        let mut tries = 0;
        loop {
            let endpos = slot::current_lsn(&self.source).await?;
            match sentinel::set_endpos(&self.target, &self.run.config.name, Some(endpos)).await {
                Ok(()) => {
                    self.endpos = Some(endpos);
                    return Ok(format!("endpos {endpos}"));
                }
                Err(err) if err.exit() == Exit::Usage && tries < 10 => tries += 1,
                Err(err) if err.exit() == Exit::Usage => {
                    return Err(Error::new(Exit::No, "the source is written to, while writes were to be stopped")
                        .cause(err)
                        .hint("find out by whom, and choose another --freeze"));
                }
                Err(err) => return Err(err),
            }
        }
    }

    async fn check(&mut self) -> Result<String> {
        let name = &self.run.config.name;
        if self.run.config.is_back() {
            self.check_open().await?;
        }
        freeze::check(&self.source, self.settings.freeze == Freeze::ReadOnly).await?;
        if let Some((conninfo, databases)) = &self.settings.pgbouncer {
            self.console = Some(Console::open(conninfo, databases).await?);
        }
        let began = Instant::now();
        loop {
            let found = progress::progress(&self.target, Some(name)).await?;
            let lag = found.first().and_then(|found| found.lag_bytes).unwrap_or(i64::MAX).max(0) as u64;
            // What a run that is gone has left says nothing.
            let fresh = record::is_fresh(&self.target, name).await?;
            if fresh && lag <= self.settings.max_lag {
                self.tell_changed().await?;
                self.tell_left().await?;
                return Ok(format!("apply lags {}", units::bytes(lag)));
            }
            if began.elapsed() > LEVEL_WITHIN {
                if !fresh {
                    return Err(Error::new(Exit::Phase, "the run that applies changes does not answer")
                        .hint("stop it; then cut over again, which starts one"));
                }
                return Err(Error::new(Exit::No, format!("apply lags {}, more than --max-lag", units::bytes(lag)))
                    .hint("wait until it is level: pgmig status --watch"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Names what was written to since the copy and is in no stream, once each.
    async fn tell_changed(&mut self) -> Result<()> {
        let run = self.run;
        let selection = run.plan.selection()?.unwrap_or_default();
        let large_objects = !selection.left_out.iter().any(|left| left.kind.starts_with("large objects"));
        let now = unstreamed::written(&self.source).await?;
        let before = run.plan.unstreamed()?;
        let mut changed = unstreamed::changed(before.as_ref(), &now, &selection.tables, large_objects);
        changed.retain(|name| !self.told_changed.contains(name));
        if changed.is_empty() {
            return Ok(());
        }
        let text = format!(
            "{} since the copy, and not carried over: {}",
            if before.is_some() { "written to" } else { "perhaps written to" },
            changed.join(", ")
        );
        sentinel::event(&self.target, &run.config.name, "warn", &text).await?;
        run.report.warning(format!(
            "{text}; the stream holds none of it: copy it by hand while writes are stopped, if it is wanted"
        ));
        self.told_changed.extend(changed);
        Ok(())
    }

    /// Says that there was DDL on the source which is not here.
    async fn tell_left(&self) -> Result<()> {
        let left = record::left_ddl(&self.target, &self.run.config.name).await?;
        if left > 0 {
            self.run.report.warning(format!(
                "DDL of the source that is not carried over, statements ({left}): see select * from pgmig.ddl where state = 'left' on the target, and run what is wanted there"
            ));
        }
        Ok(())
    }

    /// What takes time and may be done while writes go on.
    async fn prepare(&mut self) -> Result<String> {
        let name = &self.run.config.name;
        self.run.foreign_keys(None).await?;
        self.run.sequences_ahead(&mut Default::default()).await?;
        let stale = record::stale_statistics(&self.target, name).await?;
        for table in &stale {
            self.target.batch_execute(&format!("analyze {table}")).await.on_target(|| format!("analyze {table}"))?;
        }
        self.views = catalog::view_states(&self.source).await?;
        let views = queue::pending_steps(&self.target, name, "refresh").await?.len();
        self.run.refresh().await?;
        Ok(format!("{} tables analyzed, {views} materialized views refreshed", stale.len()))
    }

    async fn freeze(&mut self) -> Result<String> {
        let command = match &self.settings.freeze {
            Freeze::None => return Ok(String::new()),
            Freeze::Hook(command) => {
                self.keep(Step::Freeze, json!({ "hook": true })).await?;
                self.hook(command, "freeze", Action::Do).await?;
                return Ok("the hook has stopped writes".into());
            }
            Freeze::ReadOnly => &self.settings.spared,
        };
        let before = freeze::before(&self.source).await?;
        let detail = serde_json::to_value(&before).during(Exit::Bug, || "keep a setting".into())?;
        self.keep(Step::Freeze, json!({ "read_only": detail })).await?;
        let since = freeze::make_read_only(&self.source, &before).await?;
        let (mut ended, kept) = freeze::end_sessions(&self.source, &since, command).await?;
        if !kept.is_empty() {
            return Err(Error::new(Exit::Source, format!("sessions that pgmig may not end: {}", kept.join(", ")))
                .hint("end them, run as a superuser, or name the roles that write nothing: --spare ROLE"));
        }
        // One that was just being opened shows up a moment later.
        while freeze::sessions_left(&self.source, &since, command).await? > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            ended += freeze::end_sessions(&self.source, &since, command).await?.0;
        }
        Ok(format!("the source is read-only, sessions were ended ({ended})"))
    }

    /// Waits until the run holds endpos and has seen that nothing was committed between it and `lsn`.
    async fn wait_held(&self, lsn: Lsn) -> Result<()> {
        loop {
            if record::held_lsn(&self.target, &self.run.config.name).await?.is_some_and(|held| held >= lsn) {
                return Ok(());
            }
            let found = self.run.sentinel().await?;
            if found.cutover != Some(State::Running) {
                return Err(Error::new(Exit::Phase, "the cutover was taken over by somebody else"));
            }
            if let Some(failed) = found.last_error {
                return Err(Error::new(Exit::No, failed));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Refreshes those that were refreshed on the source since ours were.
    async fn views(&mut self) -> Result<String> {
        let now = catalog::view_states(&self.source).await?;
        let moved: Vec<String> =
            now.into_iter().filter(|state| !self.views.contains(state)).map(|(name, _)| name).collect();
        if !moved.is_empty() {
            record::refresh_again(&self.target, &self.run.config.name, Some(&moved)).await?;
            self.run.refresh().await?;
        }
        Ok(format!("{} materialized views had moved", moved.len()))
    }

    pub(super) fn console(&self) -> Result<&Console> {
        self.console.as_ref().ok_or_else(|| Error::bug("PgBouncer is paused and was never reached"))
    }

    pub(super) async fn keep(&self, step: Step, detail: Value) -> Result<()> {
        record::keep(&self.target, &self.run.config.name, self.attempt, step as i32, &detail).await
    }

    /// Lets the clients of PgBouncer go on; they reach the target now.
    pub(super) async fn resume(&mut self) -> Result<()> {
        let Some((conninfo, databases)) = &self.settings.pgbouncer else { return Ok(()) };
        let console = match self.console.take() {
            Some(console) => console,
            None => Console::open(conninfo, databases).await?,
        };
        let (name, position) = (&self.run.config.name, Step::Resume as i32);
        // Clients wait: a record that cannot be made holds nobody back.
        let began = record::start(&self.target, name, self.attempt, position, Step::Resume.name()).await;
        console.resume().await.map_err(|err| {
            Error::new(err.exit(), "clients are switched to the target, and PgBouncer still holds them back")
                .cause(err)
                .hint("on its admin console: RESUME; then end the cutover: pgmig cutover")
        })?;
        let ended =
            record::finish(&self.target, name, self.attempt, position, "done", "PgBouncer lets its clients go on");
        if let Err(err) = began.and(ended.await) {
            tracing::debug!(error = %err.chain(), "step resume could not be recorded");
        }
        Ok(())
    }
}
