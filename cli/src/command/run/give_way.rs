//! Watches how the source bears the copy, while somebody wants it to: runs the probe, looks at the standbys,
//! and turns the throttle of all that copy. What the probe takes without the copy is measured before the
//! workers begin, while they rest. It has a thread of its own: what else this process does would be taken
//! for slowness of the source.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::Run;
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::copy::giving_way::{GivingWay, Source};
use crate::copy::probed::Probed;
use crate::copy::shared::Shared;
use crate::copy::throttle::Throttle;
use crate::error::{Error, Exit, Result};
use crate::report::{self, Event, Reporter, units};
use crate::source::load::{LONGEST, Prober, Standby};
use crate::target::limits::{self, Share, Tolerance};
use crate::target::sentinel;

/// How often it is decided.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether anything is to be watched.
const IDLE: Duration = Duration::from_millis(200);
/// Between two probes: ten times what one took, so that they are no load, within these.
const PAUSES: (u32, Duration, Duration) = (10, Duration::from_millis(20), Duration::from_millis(500));
/// After what does not pass by itself.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// What is told at most so often: a copy may give way and come back for hours.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long the target may take to hear of it.
const TELL_WITHIN: Duration = Duration::from_secs(2);

struct Watch {
    /// The copy: when it is over, so is this.
    copy: Weak<Shared>,
    throttle: Throttle,
    report: Reporter,
    source: Conninfo,
    target: Conninfo,
    migration: String,
    workers: usize,
    giving: GivingWay,
    /// Why, as the last look that found the source slow said.
    why: String,
    /// When people were told that the copy gives way, and whether they think that it does.
    told: Option<Instant>,
    thought: bool,
    /// Why the source could not be watched.
    warned: Option<String>,
    /// Whether displays show how the source bears the copy.
    reported: bool,
    client: Option<Client>,
    /// What the target was told; None if that is not known.
    stored: Option<(Option<Share>, Option<String>)>,
}

impl Run {
    /// Watches for as long as there are workers.
    pub(super) fn give_way(&self, copy: &Arc<Shared>) {
        let watch = Watch {
            copy: Arc::downgrade(copy),
            throttle: self.control.throttle.clone(),
            report: self.report.clone(),
            source: self.config.source.clone(),
            target: self.config.target.clone(),
            migration: self.config.name.clone(),
            workers: self.config.table_jobs,
            giving: GivingWay::new(self.config.table_jobs),
            why: String::new(),
            told: None,
            thought: false,
            warned: None,
            reported: false,
            client: None,
            stored: Some((None, None)),
        };
        // Before there is any worker.
        if watch.throttle.tolerance().slowdown.is_some() {
            watch.throttle.give_way(Some(watch.rest()));
        }
        let throttle = watch.throttle.clone();
        let started = std::thread::Builder::new().name("pgmig probe".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(watch.run()),
                Err(_) => watch.throttle.give_way(None),
            }
        });
        if started.is_err() {
            throttle.give_way(None);
        }
    }
}

impl Watch {
    async fn run(mut self) {
        while !self.is_over() {
            let tolerance = self.throttle.tolerance();
            if !tolerance.is_set() {
                self.let_go().await;
                tokio::time::sleep(IDLE).await;
                continue;
            }
            let Err(err) = self.watch(&tolerance).await else { continue };
            let wait = if err.connection_lost() {
                // The copy meets the same and tells of it. A source that is gone is no reason to hurry.
                tracing::debug!(error = %err.chain(), "the source is not watched for a while");
                self.store(self.giving.share()).await;
                REOPEN_AFTER
            } else {
                self.cannot(&err);
                self.let_go().await;
                AGAIN_AFTER
            };
            let until = Instant::now() + wait;
            while Instant::now() < until && !self.is_over() && self.throttle.tolerance() == tolerance {
                tokio::time::sleep(IDLE).await;
            }
        }
        self.let_go().await;
    }

    fn is_over(&self) -> bool {
        self.copy.strong_count() == 0
    }

    /// Until the copy is over, or something else is tolerated.
    async fn watch(&mut self, tolerance: &Tolerance) -> Result<()> {
        let mut prober = Prober::connect(&self.source, tolerance.probe.as_deref()).await?;
        let mut standby_lag = tolerance.standby_lag;
        if standby_lag.is_some()
            && let Err(err) = prober.may_see_standbys().await
        {
            self.cannot(&err);
            standby_lag = None;
        }
        let mut probed = None;
        if let Some(percent) = tolerance.slowdown {
            // One that cannot run is no reason to rest.
            prober.ask().await?;
            probed = Some(Probed::new(percent, Instant::now()));
        }
        if probed.is_none() && standby_lag.is_none() {
            return Err(Error::new(Exit::Source, self.warned.clone().unwrap_or_default()));
        }
        let mut last = (Instant::now(), self.throttle.passed_of_all());
        while !self.is_over() && self.throttle.tolerance() == *tolerance {
            let mut pause = LOOK_EVERY;
            if let Some(probed) = &mut probed {
                let took = prober.ask().await?;
                pause = (took * PAUSES.0).clamp(PAUSES.1, PAUSES.2);
                probed.add(Instant::now(), took);
                self.measure(probed).await?;
            }
            let since = last.0.elapsed();
            if since >= LOOK_EVERY && probed.as_ref().is_none_or(|probed| !probed.is_resting()) {
                let passed = self.throttle.passed_of_all();
                let rate = passed.saturating_sub(last.1) as f64 / since.as_secs_f64();
                last = (Instant::now(), passed);
                let standby = match standby_lag {
                    Some(most) => prober.standby().await?.map(|standby| (standby, most)),
                    None => None,
                };
                self.look(probed.as_mut(), standby, rate).await;
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// While the copy rests, waits for what the probe takes without it.
    async fn measure(&mut self, probed: &mut Probed) -> Result<()> {
        if !probed.is_resting() {
            return Ok(());
        }
        let before = probed.baseline();
        let Some(measured) = probed.measured(Instant::now()) else {
            self.store(Some(self.rest())).await;
            return Ok(());
        };
        if measured >= LONGEST / 2 {
            let took = units::milliseconds(measured);
            return Err(Error::new(Exit::Source, format!("the probe takes {took} (p95) without the copy"))
                .hint("give one that answers in milliseconds: --probe"));
        }
        self.warned = None;
        self.giving.begin_anew();
        if before.abs_diff(measured) > before / 5 {
            self.tell(format!(
                "the source answers in {} (p95) without the copy, which gives way above {}",
                units::milliseconds(measured),
                units::milliseconds(probed.slow())
            ))
            .await;
        }
        self.store(self.giving.share()).await;
        Ok(())
    }

    async fn look(&mut self, probed: Option<&mut Probed>, standby: Option<(Standby, Duration)>, rate: f64) {
        let mut source = probed.as_ref().map_or(Source::AtEase, |probed| probed.look(Instant::now()));
        let by_probe = source == Source::Slow;
        let p95 = probed.as_ref().and_then(|probed| probed.p95());
        if let (Some(probed), Some(p95), true) = (&probed, p95, by_probe) {
            let (now, without) = (units::milliseconds(p95), units::milliseconds(probed.baseline()));
            self.why = format!("the source answers in {now} (p95), {without} without the copy");
        }
        if let Some((Standby { name, behind, behind_bytes }, most)) = &standby {
            if behind > most {
                let (time, bytes) = (units::duration(*behind), units::bytes(*behind_bytes));
                self.why = format!("standby `{name}` is {time} ({bytes}) behind the source");
                source = Source::Slow;
            } else if *behind * 2 > *most && source == Source::AtEase {
                source = Source::Between;
            }
        }
        let less = self.giving.look(source, rate) && source == Source::Slow;
        let share = self.giving.share();
        self.store(share).await;
        self.reported = true;
        self.report.send(Event::Load(report::Load {
            probe_p95_ms: p95.map(ms),
            probe_baseline_ms: probed.as_ref().map(|probed| ms(probed.baseline())),
            standby_lag_seconds: standby.map(|(standby, _)| standby.behind.as_secs_f64()),
            max_rate: share.map(|share| share.max_rate),
            workers: share.map(|share| share.workers),
            gives_way: share.map(|share| self.in_words(share)),
        }));
        self.tell_of(share).await;
        let Some(probed) = probed else { return };
        if less {
            // What was answered before says nothing of what is now.
            probed.clear(Instant::now());
        }
        let in_vain = self.giving.is_in_vain() && by_probe;
        if in_vain || probed.is_old(Instant::now()) {
            probed.rest(Instant::now());
        }
    }

    /// A rate at which nothing moves, for the moment that measuring takes.
    fn rest(&self) -> Share {
        Share { max_rate: 1, workers: self.giving.share().map_or(self.workers, |share| share.workers) }
    }

    fn in_words(&self, share: Share) -> String {
        if share == self.rest() {
            return "it rests while the source's own speed is measured".into();
        }
        format!(
            "{}: at most {}/s, {} of {} workers",
            self.why,
            units::bytes(share.max_rate),
            share.workers,
            self.workers
        )
    }

    async fn let_go(&mut self) {
        self.giving = GivingWay::new(self.workers);
        self.store(None).await;
        self.tell_of(None).await;
        if std::mem::take(&mut self.reported) {
            self.report.send(Event::Load(report::Load::default()));
        }
    }

    /// Turns the throttle, and has the target say so to the other processes and to people.
    async fn store(&mut self, share: Option<Share>) {
        self.throttle.give_way(share);
        let words = share.map(|share| self.in_words(share));
        if self.stored.as_ref() == Some(&(share, words.clone())) {
            return;
        }
        let stored = self
            .with_target(async |client, migration| limits::give_way(client, migration, share, words.as_deref()).await);
        self.stored = stored.await.then_some((share, words));
    }

    async fn tell_of(&mut self, share: Option<Share>) {
        match share {
            Some(share) if !self.thought && self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) => {
                (self.told, self.thought) = (Some(Instant::now()), true);
                self.tell(format!("throttled: {}", self.in_words(share))).await;
            }
            None if self.thought => {
                self.thought = false;
                self.tell("the copy does not give way any more".into()).await;
            }
            _ => {}
        }
    }

    async fn tell(&mut self, message: String) {
        self.report.info(message.clone());
        self.with_target(async |client, migration| sentinel::event(client, migration, "info", &message).await).await;
    }

    /// Warns once that the source cannot be watched.
    fn cannot(&mut self, err: &Error) {
        let why = err.chain();
        if self.warned.as_ref() != Some(&why) {
            let hint = err.hint_text().map_or(String::new(), |hint| format!("; {hint}"));
            self.report.warning(format!("the copy cannot give way, and keeps to its fixed limits: {why}{hint}"));
            self.warned = Some(why);
        }
    }

    /// False if the target does not hear of it; the copy does not need it.
    async fn with_target(&mut self, work: impl AsyncFnOnce(&Client, &str) -> Result<()>) -> bool {
        let tell = async {
            if self.client.as_ref().is_none_or(Client::is_closed) {
                self.client = Some(connect::client(&self.target, Side::Target, "pgmig probe", &[]).await?);
            }
            match &self.client {
                Some(client) => work(client, &self.migration).await,
                None => Ok(()),
            }
        };
        match tokio::time::timeout(TELL_WITHIN, tell).await {
            Ok(Ok(())) => true,
            Ok(Err(err)) => {
                tracing::debug!(error = %err.chain(), "the target does not hear how the copy gives way");
                self.client = None;
                false
            }
            Err(_) => {
                self.client = None;
                false
            }
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
