//! `pgmig run`: looks at the sentinel and goes on from there, phase by phase, to the end.

mod begin;
mod budget;
mod config;
mod control;
mod copy;
mod cutover;
mod ddl;
mod drift;
mod enter;
mod finish;
mod follow;
mod forecast;
mod give_way;
mod hold;
mod join;
mod new_tables;
mod origin;
mod partitions;
mod rates;
mod regain;
mod stages;
mod stream;
mod tables;
mod told;
mod upstream;
mod waiting;
mod watchdog;
mod way_back;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_postgres::Client;

use crate::args::RunArgs;
use crate::command::{conninfo, terminal};
use crate::config::filters::Filters;
use crate::connect::{self, Side};
use crate::crash::{self, Point};
use crate::error::{Context, Error, Exit, Result};
use crate::model::history::RunStart;
use crate::model::{Lsn, Phase};
use crate::patience::Patience;
use crate::plan_db::PlanDb;
use crate::report::{self, Reporter, Style};
use crate::source::slot;
use crate::target::cutover::State;
use crate::target::install::{self, Flavour};
use crate::target::rounds::{self, Failed};
use crate::target::{progress, queue, sentinel};
pub use config::{
    Config, cutover_settings, cutting, default_dir, flavour, large_object_parts, leave, limits, named, slot_back,
};
pub use control::Control;
use control::{again, control, tell_stopped};
pub use cutover::{Cutover, Outcome};
use enter::Entered;
pub use enter::check_same;
use regain::Kept;
use told::Told;
pub use way_back::lost as way_back_lost;

/// What every phase needs: settings, a session with each side, and somebody to tell.
pub struct Run {
    config: Config,
    report: Reporter,
    /// Holds the lock that keeps a second run away.
    target: Client,
    target_pid: i32,
    source: Client,
    flavour: Flavour,
    plan: PlanDb,
    /// What the migration was begun with, whatever this run was given.
    filters: Option<Filters>,
    /// What people ask of it.
    control: Control,
    /// With servers that are lost for a while.
    patience: Patience,
    /// Whether the source tells its DDL in the stream.
    told_ddl: AtomicBool,
}

/// How a run ended well.
pub struct Summary {
    endpos: Option<Lsn>,
    already: bool,
    failed: Vec<Failed>,
    /// Of the way back.
    back: bool,
    /// Changes that did not fit the target and were passed over.
    conflicts: i64,
}

pub async fn run(args: RunArgs, quiet: bool) -> Result<Exit> {
    let style = match (args.json, quiet, terminal()) {
        (true, _, _) => Style::Json,
        (false, true, _) => Style::Quiet,
        (false, false, true) => Style::Bars,
        (false, false, false) => Style::Lines,
    };
    let joins = args.join;
    let (between, name) = (between(&args)?, args.target.name.clone());
    let (told, others) = Told::start(&args.watched, &name, between).await?;
    let config = Config::new(args)?;
    let (report, reporter) = report::start(style, others);
    if joins {
        // What is asked of the run in its sentinel is not asked of this process: signals are.
        let (control, listener) = control(&config, &report);
        let done = tokio::select! {
            done = join::join(config, report.clone(), control) => done,
            stopped = listener.ended() => Err(stopped),
        };
        drop(report);
        let _ = tokio::time::timeout(Duration::from_secs(2), reporter).await;
        done.map_err(|err| match err.exit() {
            Exit::Stopped => err.hint("what is committed stays; the run goes on without this process"),
            _ => err,
        })?;
        if !matches!(style, Style::Json | Style::Quiet) {
            eprintln!("done: no Part is left\nnext: see the run with `pgmig status --watch`");
        }
        return Ok(Exit::Done);
    }
    let done = way_back::there_and_back(config, &report).await;
    if let Err(err) = &done {
        let hint = err.hint_text().map(str::to_string);
        report.send(report::Event::Error { message: err.chain(), hint, exit_code: err.exit() as u8 });
    }
    if done.as_ref().is_ok_and(|summary| !summary.already) {
        report.send(report::Event::Done);
    }
    drop(report);
    // It ends when the last session of the run has; one that hangs is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(2), reporter).await;
    told.end().await;
    let summary = done?;
    if !matches!(style, Style::Json | Style::Quiet) {
        tell(&summary);
    }
    Ok(Exit::Done)
}

/// Migrates until the end, or until somebody wants it to stop.
async fn steered(config: Config, report: &Reporter) -> Result<Summary> {
    let (control, listener) = control(&config, report);
    let done = tokio::select! {
        done = migrate(config.clone(), report.clone(), control) => done,
        stopped = listener.ended() => Err(stopped),
    };
    match done {
        Err(err) if err.exit() == Exit::Stopped => {
            tell_stopped(&config).await;
            Err(Error::stopped().hint(again(&config)))
        }
        done => done,
    }
}

/// From where to where, for people; a conninfo prints no password.
fn between(args: &RunArgs) -> Result<String> {
    Ok(format!("{} → {}", conninfo(&args.source.source)?, conninfo(&args.target.target)?))
}

fn tell(summary: &Summary) {
    if summary.back {
        eprintln!(
            "done: the way back is taken, and every change of the target is on the source\nnext: remove what pgmig made with `pgmig cleanup`"
        );
        return;
    }
    if summary.already {
        eprintln!("done already; nothing was changed");
    } else if let Some(lsn) = summary.endpos {
        eprintln!("done: every change of the source up to endpos {lsn} is on the target");
    } else {
        eprintln!("done: the target holds the source as it was when the copy began");
    }
    if !summary.failed.is_empty() {
        eprintln!(
            "could not be made: {}; see: select * from pgmig.steps where state = 'failed'",
            match summary.failed.len() {
                1 => "1 object".to_string(),
                count => format!("{count} objects"),
            }
        );
        for Failed { kind, name, sqlstate, message, statement } in &summary.failed {
            eprintln!("  {} {name}: {message} ({sqlstate})\n    {statement}", kind.to_lowercase());
        }
    }
    if summary.conflicts > 0 {
        eprintln!(
            "{} changes did not fit the target and were passed over; see: select * from pgmig.conflicts",
            summary.conflicts
        );
    }
    eprintln!("next: point the application at the target, then remove what pgmig made with `pgmig cleanup`");
}

/// Finds out where the migration is, begins it if it is nowhere, and goes on.
pub async fn migrate(config: Config, report: Reporter, control: Control) -> Result<Summary> {
    go_through(config, report, control).await.map_err(Error::full_disk)
}

async fn go_through(config: Config, report: Reporter, control: Control) -> Result<Summary> {
    let mut run = match enter::enter(&config, &report, &control).await? {
        Entered::Run(run) => run,
        Entered::Over(summary) => return Ok(summary),
    };
    run.control.listen();
    let mut done = run.go_on().await;
    if let Err(err) = done {
        done = Err(run.explain_slot(err).await);
    }
    if let Err(err) = &done
        && err.exit() != Exit::Stopped
    {
        run.record_failure(err).await;
    }
    done
}

/// Which migration a folder belongs to.
pub fn identity(source_identity: &str, name: &str) -> String {
    format!("{source_identity} {name}")
}

impl Run {
    async fn new(
        config: Config,
        report: Reporter,
        control: Control,
        (source, target): (Client, Client),
        flavour: Flavour,
        plan: PlanDb,
        filters: Option<Filters>,
    ) -> Result<Run> {
        let patience = Patience::new(config.reconnect_for, report.clone());
        let target_pid = queue::session_pid(&target).await?;
        let told_ddl = AtomicBool::new(false);
        Ok(Run { config, report, target, target_pid, source, flavour, plan, filters, control, patience, told_ddl })
    }

    /// Beside the run that applies changes: for what is done on both servers meanwhile. It takes no lock.
    pub async fn join(config: Config, report: Reporter, found: &sentinel::Sentinel) -> Result<Run> {
        let target = connect::client(&config.target, Side::Target, "pgmig cutover", &[]).await?;
        let source = connect::client(&config.source, Side::Source, "pgmig cutover", &[]).await?;
        let flavour = install::installed(&target).await?;
        let flavour = flavour.ok_or_else(|| Error::bug("the schema pgmig went away"))?;
        check_same(&config, &source, flavour, found).await?;
        let plan = PlanDb::open(&config.dir, &identity(&found.source_identity, &config.name))?;
        let filters = plan.filters()?;
        Run::new(config, report, Control::alone(), (source, target), flavour, plan, filters).await
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All phases from where the sentinel is; `kept` is what an earlier try of this run has left.
    async fn go(&self, kept: &mut Kept) -> Result<Summary> {
        let found = self.sentinel().await?;
        let mut phase = found.phase;
        let follows = phase < Phase::Cutover || found.cutover.is_some_and(State::holds);
        let Kept { streaming, holder } = kept;
        if phase == Phase::Planned {
            // The slot is made anew, which the old stream would be in the way of.
            (*streaming, *holder) = (None, None);
            let (began, held) = self.unless_stopping(self.plan(&found)).await?;
            (*streaming, *holder) = (began, Some(held));
            phase = Phase::Schema;
        } else if found.follow && follows {
            self.was_ddl_told().await?;
            self.check_origins(&found).await?;
            self.take_in_new_tables(&found).await?;
            if streaming.is_none() {
                self.capture_ddl(&found.plugin).await?;
                if phase >= Phase::Catchup {
                    self.take_up_resyncs().await?;
                }
                *streaming = Some(self.resume_stream(&found).await?);
            }
            self.planned_event().await?;
        }
        // A table that has become part of the migration since then is copied late.
        if phase <= Phase::Indexes
            || streaming.is_some()
                && (queue::parts_left(&self.target, &self.config.name).await? > 0
                    || queue::table_steps_left(&self.target, &self.config.name).await? > 0)
        {
            let copying = self.copy(phase, holder, found.follow);
            let copied = match streaming.as_mut() {
                Some(streaming) => tokio::select! {
                    copied = copying => copied,
                    ended = streaming.ended() => Err(ended),
                },
                None => copying.await,
            };
            if let Err(err) = &copied
                && err.exit() == Exit::Stopped
                && let Some(mut streaming) = streaming.take()
            {
                streaming.stop().await?;
            }
            copied?;
        }
        if let Some(streaming) = streaming.as_mut().filter(|_| follows) {
            self.follow(streaming, phase).await?;
        }
        // All that was received is applied; what still comes is not wanted.
        *streaming = None;
        // A cutover does what belongs to the end by itself.
        if self.sentinel().await?.phase != Phase::Done {
            self.unless_stopping(self.finish()).await?;
        }
        let found = self.sentinel().await?;
        Ok(Summary {
            endpos: found.endpos.filter(|_| found.follow),
            already: false,
            back: self.config.is_back(),
            failed: rounds::failed(&self.target, &self.config.name).await?,
            conflicts: progress::progress(&self.target, Some(&self.config.name))
                .await?
                .iter()
                .map(|p| p.conflicts)
                .sum(),
        })
    }

    /// A stream that breaks may have lost its slot: then that is what has happened.
    async fn explain_slot(&self, err: Error) -> Error {
        if err.exit() != Exit::Source {
            return err;
        }
        let look = async {
            let found = self.sentinel().await?;
            let source = self.source_client("pgmig run").await?;
            Ok::<_, Error>((found.follow && found.startpos.is_some(), slot::find(&source, &found.slot_name).await?))
        };
        match tokio::time::timeout(Duration::from_secs(5), look).await {
            Ok(Ok((true, Some(slot)))) if slot.wal_status.as_deref() == Some("lost") => {
                budget::lost(&self.config.slot_name).cause(err)
            }
            _ => err,
        }
    }

    /// Remembers that this run has begun, and how it was told to work.
    async fn note_begun(&self) -> Result<()> {
        let asked = "select pg_catalog.current_setting('server_version')";
        let source = self.source.query_one(asked, &[]).await.on_source(|| "read the version of the source".into())?;
        let mut settings = self.config.settings();
        settings.insert(0, ("PostgreSQL of the source".into(), source.get(0)));
        let version = env!("CARGO_PKG_VERSION").to_string();
        self.plan.run_begun(&RunStart { at: jiff::Timestamp::now(), version, settings })
    }

    async fn sentinel(&self) -> Result<sentinel::Sentinel> {
        let found = sentinel::load(&self.target, &self.config.name).await?;
        found.ok_or_else(|| {
            Error::new(Exit::Phase, format!("migration `{}` was removed while it ran", self.config.name))
        })
    }

    async fn enter(&self, phase: Phase) -> Result<()> {
        crash::before(Point(phase.as_str()));
        sentinel::set_phase(&self.target, &self.config.name, phase).await?;
        crash::after(Point(phase.as_str()));
        self.plan.timing(&format!("phase {phase}"))?;
        self.report.phase(phase);
        Ok(())
    }

    /// A further session with the source.
    async fn source_client(&self, purpose: &str) -> Result<Client> {
        connect::client(&self.config.source, Side::Source, purpose, &[]).await
    }

    /// A further session with the target.
    async fn target_client(&self, purpose: &str, settings: &[(&str, &str)]) -> Result<Client> {
        connect::client(&self.config.target, Side::Target, purpose, settings).await
    }

    /// Leaves the error where `status` finds it. Best effort: the target may be what failed.
    async fn record_failure(&self, err: &Error) {
        let record = async {
            let client = self.target_client("pgmig run", &[]).await?;
            sentinel::fail(&client, &self.config.name, &err.chain()).await
        };
        match tokio::time::timeout(Duration::from_secs(5), record).await {
            Ok(Ok(())) => {}
            Ok(Err(unrecorded)) => tracing::debug!(%unrecorded, "the error could not be recorded on the target"),
            Err(_) => tracing::debug!("the target did not answer in time to record the error"),
        }
    }

    /// Tells the display what there is to copy and what is done of it.
    async fn planned_event(&self) -> Result<()> {
        let row = self
            .target
            .query_one(
                "select count(distinct (schema_name, table_name)) filter (where schema_name <> 'pg_catalog'), count(*),
                        count(*) filter (where state = 'done'), coalesce(sum(bytes), 0)::int8,
                        coalesce(sum(bytes) filter (where state = 'done'), 0)::int8,
                        (select count(*) from pgmig.step s where s.migration = $1 and s.state = 'pending'
                            and s.stage in ('index', 'constraint', 'analyze'))
                   from pgmig.part where migration = $1",
                &[&self.config.name],
            )
            .await
            .on_target(|| "read what is planned".into())?;
        let number = |at: usize| row.get::<_, i64>(at) as u64;
        self.report.send(report::Event::Planned {
            tables: number(0),
            parts: number(1),
            parts_done: number(2),
            bytes: number(3),
            bytes_done: number(4),
            steps: number(5),
        });
        Ok(())
    }
}
