//! Starts and watches the stream: the receiver, and the monitor that carries positions to the sentinel
//! and the sentinel's switches to apply.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::Run;
use super::budget::{Budget, COPY_AGAIN};
use super::rates::{self, Rates};
use super::upstream::{self, Upstream};
use crate::apply::{Applied, Switches};
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::copy::throttle::Throttle;
use crate::error::{Context, Error, Exit, Result};
use crate::model::Lsn;
use crate::model::history::Sample;
use crate::patience::Patience;
use crate::plan_db::history::Recorder;
use crate::report::{self, Event, Reporter};
use crate::source::replication::ReplicationClient;
use crate::source::slot;
use crate::stream::receive::{Link, Received, Receiver};
use crate::stream::spool::{Spool, SpoolWriter};
use crate::target::cutover::State;
use crate::target::install::Flavour;
use crate::target::queue;
use crate::target::sentinel::{self, Sentinel, StreamPositions};
use crate::target::status;

/// How often it is looked what the last comparison came to.
const VERIFIED_EVERY: Duration = Duration::from_secs(10);
/// How often the sentinel is read and written. Setting endpos reaches a waiting run within a second.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often an idle source that has not come past endpos is given something to say.
const NUDGE_EVERY: Duration = Duration::from_secs(2);
/// The same while a cutover waits.
const HURRY: Duration = Duration::from_millis(30);
const NUDGE_IN_A_HURRY: Duration = Duration::from_millis(150);

/// A stream that runs.
pub struct Streaming {
    pub spool: Spool,
    pub received: watch::Receiver<Received>,
    pub switches: watch::Receiver<Switches>,
    pub applied: watch::Sender<Applied>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
    /// One of its tasks has ended, and with it the stream.
    pub dead: bool,
}

impl Streaming {
    /// Waits for the stream to end, which is an error unless it was stopped.
    pub async fn ended(&mut self) -> Error {
        let ended = self.first_end().await;
        self.dead = true;
        ended
    }

    async fn first_end(&mut self) -> Error {
        while let Some(done) = self.tasks.join_next().await {
            match done {
                Ok(Err(err)) => return err,
                // Stopped by another of them, whose error comes last.
                Ok(Ok(())) => {}
                Err(cause) => return Error::bug("the stream ended abnormally").cause(cause),
            }
        }
        Error::bug("the stream has ended by itself")
    }

    /// Stops receiving, with all that was received durable.
    pub async fn stop(&mut self) -> Result<()> {
        self.dead = true;
        self.stop.send_replace(true);
        while let Some(done) = self.tasks.join_next().await {
            done.map_err(|cause| Error::bug("the stream ended abnormally").cause(cause))??;
        }
        Ok(())
    }
}

impl Run {
    /// Starts the stream of a slot that was just made; `client` made it.
    pub(super) async fn start_stream(
        &self,
        client: ReplicationClient,
        found: &Sentinel,
        startpos: Lsn,
    ) -> Result<Streaming> {
        let opened = Spool::open(&self.config.dir.join("spool")).map_err(|err| err.told("open the spool"))?;
        let upstream = self.upstream(found).await?;
        let link = upstream.start(client, startpos).await?;
        self.stream(upstream, link, found, opened.spool, opened.writer, startpos, Applied::default()).await
    }

    /// Goes on with a stream: only if the slot continues where we stopped.
    pub(super) async fn resume_stream(&self, found: &Sentinel) -> Result<Streaming> {
        let mut opened = Spool::open(&self.config.dir.join("spool")).map_err(|err| err.told("open the spool"))?;
        if opened.cut_bytes > 0 {
            tracing::debug!(bytes = opened.cut_bytes, "cut an unfinished tail off the spool");
        }
        let startpos = found.startpos.unwrap_or_default();
        let mut replay_lsn = found.replay_lsn.unwrap_or_default();
        if let Some(lsn) = self.pass_over_what_is_lost(found, opened.base, opened.durable).await? {
            replay_lsn = lsn;
        }
        if opened.base > replay_lsn.max(startpos) {
            return Err(Error::new(
                Exit::Target,
                format!("the target has applied up to {replay_lsn}, and the spool begins behind {}", opened.base),
            )
            .hint(format!("was the target restored from a backup, or failed over? {COPY_AGAIN}")));
        }
        let have = opened.durable.max(replay_lsn).max(startpos);
        let upstream = self.upstream(found).await?;
        let link = upstream.open(&self.source, have).await?;
        if opened.durable < have {
            opened.go_on_at(have).during(Exit::Dir, || "begin the spool anew".into())?;
        }
        let applied = Applied { replay_lsn, level_with: replay_lsn, ..Applied::default() };
        self.stream(upstream, link, found, opened.spool, opened.writer, have, applied).await
    }

    /// Where every table is to be copied again, changes that neither spool nor target hold are not missed:
    /// the position up to which they are passed over, if there are any.
    async fn pass_over_what_is_lost(&self, found: &Sentinel, base: Lsn, durable: Lsn) -> Result<Option<Lsn>> {
        let name = &self.config.name;
        let held = found.replay_lsn.max(found.startpos).unwrap_or_default();
        let slot = slot::find(&self.source, &found.slot_name).await?;
        let confirmed =
            slot.and_then(|slot| slot.confirmed_flush_lsn).filter(|confirmed| *confirmed > durable.max(held));
        let Some(lsn) = confirmed.max(Some(base)).filter(|lsn| *lsn > held) else { return Ok(None) };
        let is_past_end = found.endpos.is_some_and(|endpos| endpos < lsn);
        if is_past_end || !queue::all_tables_pending(&self.target, name).await? {
            return Ok(None);
        }
        // A transaction may be in the WAL for a while before a snapshot shows it.
        self.wait_for_writers().await?;
        sentinel::pass_over(&self.target, name, lsn).await?;
        self.report.info(format!("changes up to {lsn} are passed over: every table is copied again"));
        Ok(Some(lsn))
    }

    async fn upstream(&self, found: &Sentinel) -> Result<Upstream> {
        let binary = if found.plugin == "pgoutput" { self.binary_types().await? } else { None };
        let upstream = Upstream::new(&self.config.source, &self.config.name, found, binary, &self.patience);
        Ok(Upstream { messages: self.tells_ddl(), ..upstream })
    }

    #[expect(clippy::too_many_arguments, reason = "two callers, which have them all")]
    async fn stream(
        &self,
        upstream: Upstream,
        link: Link,
        found: &Sentinel,
        spool: Spool,
        writer: SpoolWriter,
        start: Lsn,
        applied: Applied,
    ) -> Result<Streaming> {
        let (received_tx, received) = watch::channel(Received { write_lsn: start, flush_lsn: start });
        let (switches_tx, switches) = watch::channel(Switches { endpos: found.endpos, apply: found.apply });
        let (applied, applied_rx) = watch::channel(applied);
        let (stop, stopped) = watch::channel(false);
        let (replay_tx, replay_lsn) = watch::channel(Lsn::ZERO);
        let (held, let_go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let receiver = Receiver {
            writer,
            spool: spool.clone(),
            spool_limit: self.config.spool_limit,
            held: held.clone(),
            let_go: let_go.clone(),
            received: received_tx,
            replay_lsn,
        };
        let monitor = Monitor {
            source: self.source_client("pgmig monitor").await?,
            target: self.target_client("pgmig monitor", &[]).await?,
            ways: (self.config.source.clone(), self.config.target.clone()),
            source_identity: found.source_identity.clone(),
            patience: self.patience.clone(),
            migration: self.config.name.clone(),
            spool: spool.clone(),
            received: received.clone(),
            applied: applied_rx,
            switches: switches_tx,
            replay: replay_tx,
            report: self.report.clone(),
            rates: Rates::default(),
            recorder: self.plan.recorder()?,
            throttle: self.control.throttle.clone(),
            verified_at: None,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(upstream.receive(receiver, link, stopped.clone()));
        tasks.spawn(monitor.run(stopped.clone()));
        let budget = Budget {
            source: self.source_client("pgmig budget").await?,
            way: self.config.source.clone(),
            source_identity: found.source_identity.clone(),
            patience: self.patience.clone(),
            slot_name: found.slot_name.clone(),
            plugin: found.plugin.clone(),
            bytes: self.config.wal_budget,
            policy: self.config.wal_budget_policy,
            held,
            let_go,
            throttle: self.control.throttle.clone(),
            report: self.report.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(budget.run(stopped));
        Ok(Streaming { spool, received, switches, applied, stop, tasks, dead: false })
    }

    /// Types whose values may come in binary; None if all come as text. Only the extension reads binary,
    /// and only between servers of one major version is it sure to mean the same.
    async fn binary_types(&self) -> Result<Option<HashSet<u32>>> {
        if !self.config.binary_stream || self.flavour != Flavour::Extension {
            return Ok(None);
        }
        slot::binary_types(&self.source, &self.config.name, self.target_version().await?).await
    }
}

/// Carries positions and switches between the run and the sentinel.
struct Monitor {
    source: Client,
    target: Client,
    /// To source and target.
    ways: (Conninfo, Conninfo),
    source_identity: String,
    patience: Patience,
    migration: String,
    spool: Spool,
    received: watch::Receiver<Received>,
    applied: watch::Receiver<Applied>,
    switches: watch::Sender<Switches>,
    replay: watch::Sender<Lsn>,
    report: Reporter,
    rates: Rates,
    recorder: Recorder,
    throttle: Throttle,
    verified_at: Option<Instant>,
}

impl Monitor {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut nudged = Instant::now() - NUDGE_EVERY;
        let mut may_nudge = true;
        let mut hurried = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopping(&mut stop) => return self.look().await.map(drop).or_else(unless_lost),
            }
            let (source_lsn, switches, hurry) = match self.look().await {
                Ok(seen) => seen,
                Err(err) if err.connection_lost() => {
                    tokio::select! {
                        again = self.connect_again(err) => again?,
                        () = stopping(&mut stop) => return Ok(()),
                    }
                    continue;
                }
                Err(err) => return Err(err),
            };
            if hurry != hurried {
                hurried = hurry;
                ticks = tokio::time::interval(if hurry { HURRY } else { LOOK_EVERY });
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            }
            let received = self.received.borrow().write_lsn;
            let waits = switches.endpos.is_some_and(|endpos| endpos <= source_lsn && received < endpos);
            if waits && may_nudge && nudged.elapsed() >= if hurry { NUDGE_IN_A_HURRY } else { NUDGE_EVERY } {
                nudged = Instant::now();
                if let Err(err) = slot::nudge(&self.source).await {
                    may_nudge = false;
                    tracing::debug!(error = %err.chain(), "the source takes no message: its keepalives will do");
                }
            }
        }
    }

    async fn connect_again(&mut self, lost: Error) -> Result<()> {
        let (source, target) = &self.ways;
        if lost.exit() == Exit::Source {
            let open = || upstream::client(source, &self.source_identity, "pgmig monitor");
            self.source = self.patience.again(lost, open).await?;
        } else {
            let open = || connect::client(target, Side::Target, "pgmig monitor", &[]);
            self.target = self.patience.again(lost, open).await?;
        }
        Ok(())
    }

    /// Reads the switches, writes the positions. Whether a cutover waits comes last.
    async fn look(&mut self) -> Result<(Lsn, Switches, bool)> {
        let source_lsn = slot::current_lsn(&self.source).await?;
        let found = sentinel::load(&self.target, &self.migration).await?.ok_or_else(|| {
            Error::new(Exit::Phase, format!("migration `{}` was removed while it ran", self.migration))
        })?;
        let switches = Switches { endpos: found.endpos, apply: found.apply };
        self.switches.send_if_modified(|known| std::mem::replace(known, switches) != switches);
        let (received, applied) = (*self.received.borrow(), *self.applied.borrow());
        let spool_bytes = self.spool.bytes_after(applied.position);
        let reached = if spool_bytes == 0 { received.write_lsn } else { applied.level_with };
        let (replay_rate, source_rate) = self.rates.add(Instant::now(), reached, source_lsn).unzip();
        let positions = StreamPositions {
            write_lsn: received.write_lsn,
            flush_lsn: received.flush_lsn,
            source_lsn,
            spool_bytes,
            replay_bytes_per_second: replay_rate,
            source_bytes_per_second: source_rate,
            wal_max_rate: self.throttle.for_wal(),
            retries: self.patience.retries(),
        };
        let lag_seconds = sentinel::set_stream(&self.target, &self.migration, &positions).await?;
        // That commit waited for the disk, and so for all that was applied before.
        self.replay.send_replace(applied.replay_lsn);
        let lag_bytes = source_lsn.bytes_since(reached);
        let at = jiff::Timestamp::now();
        self.recorder.take(Sample { at, source_lsn, reached_lsn: reached, lag_bytes, spool_bytes, first: false });
        self.report.send(Event::Stream(report::Stream {
            write_lsn: received.write_lsn,
            flush_lsn: received.flush_lsn,
            replay_lsn: applied.replay_lsn,
            source_lsn,
            lag_bytes,
            lag_seconds,
            spool_bytes,
            transactions: applied.transactions,
            rows: applied.rows,
            endpos: switches.endpos,
            replay_bytes_per_second: replay_rate,
            source_bytes_per_second: source_rate,
            catch_up_seconds: rates::catch_up(lag_bytes, replay_rate, source_rate),
        }));
        if self.verified_at.is_none_or(|at| at.elapsed() >= VERIFIED_EVERY) {
            self.verified_at = Some(Instant::now());
            let verified = status::verified(&self.target, &self.migration).await?;
            if let Some(percent) = verified.and_then(|verified| verified.percent) {
                self.report.send(Event::Verified { percent });
            }
        }
        Ok((source_lsn, switches, found.cutover.is_some_and(State::holds)))
    }
}

/// What others find out too.
fn unless_lost(err: Error) -> Result<()> {
    if err.connection_lost() { Ok(()) } else { Err(err) }
}

async fn stopping(stop: &mut watch::Receiver<bool>) {
    // Without a sender there is no run any more, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}
