//! `pgmig verify`: compares both sides at one position. What it finds goes to stdout, rows by their keys.

mod repair;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::args::VerifyArgs;
use crate::command::conninfo;
use crate::command::run::{default_dir, identity};
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::name::literal;
use crate::model::{Lsn, Phase, TableName};
use crate::plan_db::PlanDb;
use crate::report::{compared, json, units};
use crate::selection::Selection;
use crate::source;
use crate::target::sentinel::Sentinel;
use crate::target::{history, install, sentinel};
use crate::verify::align::{Aligned, align};
use crate::verify::digest;
use crate::verify::live::{self, Compared, How, Progress};
use crate::verify::objects::{self, ComparedObjects, Excused};

pub async fn verify(args: VerifyArgs, quiet: bool) -> Result<Exit> {
    let verify = Verify::open(&args, quiet).await?;
    let aligned = verify.align().await?;
    let began = Instant::now();
    let mut tables = live::tables(&verify.client, &args.target.name).await?;
    if !args.quick && !args.repair {
        tables.extend(live::readable_large_objects(&aligned.source.client, &aligned.target, &args.target.name).await?);
    }
    let compared = verify.rows(&aligned, tables).await?;
    let objects = if args.quick { Some(verify.objects(&aligned).await?) } else { None };
    let (lsn, pause) = (aligned.lsn, aligned.pause);
    drop(aligned);
    let outcome = Outcome { lsn, pause, took: began.elapsed(), compared, objects };
    verify.note(&outcome).await?;
    verify.tell(&outcome);
    if args.repair && !outcome.is_equal() {
        return verify.repair(outcome).await;
    }
    verify.next_step(outcome.is_equal());
    Ok(if outcome.is_equal() { Exit::Done } else { Exit::No })
}

/// How often it says how far it is.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// One comparison and what it came to.
struct Outcome {
    lsn: Lsn,
    pause: Option<Duration>,
    took: Duration,
    compared: Compared,
    objects: Option<ComparedObjects>,
}

impl Outcome {
    fn is_equal(&self) -> bool {
        self.compared.differences.is_empty() && self.objects.as_ref().is_none_or(|found| found.differences.is_empty())
    }
}

struct Verify<'a> {
    args: &'a VerifyArgs,
    quiet: bool,
    source: Conninfo,
    target: Conninfo,
    client: Client,
    found: Sentinel,
    dir: PathBuf,
}

impl Verify<'_> {
    async fn open(args: &VerifyArgs, quiet: bool) -> Result<Verify<'_>> {
        let (source, target) = (conninfo(&args.source.source)?, conninfo(&args.target.target)?);
        let name = &args.target.name;
        let client = connect::client(&target, Side::Target, "pgmig verify", &[]).await?;
        let found = match install::installed(&client).await? {
            Some(_) => sentinel::load(&client, name).await?,
            None => None,
        };
        let Some(found) = found else {
            return Err(Error::new(Exit::Phase, format!("there is no migration `{name}` on the target"))
                .hint("start one: pgmig run"));
        };
        if !matches!(found.phase, Phase::Follow | Phase::Done) || found.paused {
            return Err(Error::new(Exit::Phase, format!("migration `{name}` is in phase {}", found.phase))
                .hint("it can be compared in phase follow, and when it is done; see pgmig status"));
        }
        if args.repair && found.phase == Phase::Done {
            return Err(Error::new(
                Exit::Phase,
                format!("migration `{name}` is done: rows of the target may be newer than those of the source"),
            )
            .hint("compare without --repair, and look at what differs"));
        }
        let lookout = connect::client(&source, Side::Source, "pgmig verify", &[]).await?;
        if source::checks::abilities(&lookout).await?.identity != found.source_identity {
            return Err(Error::usage(format!("migration `{name}` on the target is of another source"))
                .hint("give the source it was begun with"));
        }
        let dir = args.dir.clone().unwrap_or_else(|| default_dir(&target, name));
        Ok(Verify { args, quiet, source, target, client, found, dir })
    }

    async fn align(&self) -> Result<Aligned> {
        let aligned = align(&self.source, &self.target, &self.args.target.name, &self.found).await?;
        match aligned.pause {
            Some(pause) => self.say(&format!(
                "both sides are compared at {}; apply was held for {:.2} s",
                aligned.lsn,
                pause.as_secs_f64()
            )),
            None => self.say("the migration is done: both sides are compared as they are now"),
        }
        Ok(aligned)
    }

    async fn rows(&self, aligned: &Aligned, tables: Vec<TableName>) -> Result<Compared> {
        let how = How {
            jobs: usize::from(self.args.table_jobs),
            quick: self.args.quick,
            narrowed: if self.args.repair { digest::REPAIRED } else { digest::SHOWN },
            max_rate: self.args.max_rate,
        };
        let told = watch::Sender::new((0, 0));
        let comparing = live::compare(
            &self.source,
            &self.target,
            aligned,
            tables,
            how,
            progress(self.quiet || self.args.json, &told),
        );
        tokio::select! {
            compared = comparing => compared,
            () = self.show(told.subscribe()) => Err(Error::bug("the progress is shown no more")),
        }
    }

    /// How far it is, in the name of a session, where `pgmig status` finds it: nothing is written.
    async fn show(&self, read: watch::Receiver<(u64, u64)>) {
        let began = Instant::now();
        loop {
            tokio::time::sleep(SHOW_EVERY).await;
            let (read, all) = *read.borrow();
            if read == 0 {
                continue;
            }
            let (percent, left) = (read * 100 / all.max(1), left(began, read, all).as_secs().min(99_999));
            let name: String = self.args.target.name.chars().take(30).collect();
            let name = format!("pgmig verify {}% {left}s {name}", percent.min(100));
            if let Err(error) = self.client.batch_execute(&format!("set application_name = {}", literal(&name))).await {
                tracing::debug!(%error, "it cannot be shown how far the comparison is");
                return std::future::pending().await;
            }
        }
    }

    /// Leaves on the target what came of it, for `pgmig report`.
    async fn note(&self, outcome: &Outcome) -> Result<()> {
        let (objects, took) = (outcome.objects.as_ref(), outcome.took);
        let lsn = outcome.pause.map(|_| outcome.lsn);
        let noted = outcome.compared.noted(objects, lsn, self.args.quick, took, outcome.pause);
        // The session may have been idle for long: a new one.
        let client = connect::client(&self.target, Side::Target, "pgmig verify", &[]).await?;
        history::verified(&client, &self.args.target.name, &noted).await
    }

    async fn objects(&self, aligned: &Aligned) -> Result<ComparedObjects> {
        let selection = selection(&self.dir, &self.found, &self.args.target.name)?;
        if selection.is_none() {
            self.say(&format!(
                "{} holds no plan of this migration: what its filters and flags leave out is told as missing; give its --dir",
                self.dir.display()
            ));
        }
        let mut excused = Excused::of(selection.as_ref());
        excused.owners |= self.args.no_owner;
        excused.privileges |= self.args.no_acl;
        excused.comments |= self.args.no_comments;
        excused.laid_out_otherwise(&aligned.source.client, &self.client, &self.args.target.name).await?;
        if self.found.phase != Phase::Done {
            excused.until_the_end(&self.client, &self.args.target.name).await?;
        }
        objects::compare(&aligned.source.client, &aligned.target, &self.target, &excused).await
    }

    /// What was found: on stdout what differs, on stderr how much was compared.
    fn tell(&self, outcome: &Outcome) {
        let Outcome { lsn, pause, took, compared, objects } = outcome;
        if self.args.json {
            let object = json!({
                "format": json::FORMAT, "equal": outcome.is_equal(), "quick": self.args.quick, "lsn": lsn.to_string(),
                "apply_held_seconds": pause.map(|pause| pause.as_secs_f64()), "seconds": took.as_secs_f64(),
                "tables": compared.tables, "rows": compared.rows, "bytes": compared.bytes,
                "differences": compared.differences,
                "objects": objects.as_ref().map(|found| found.objects),
                "at_the_end": objects.as_ref().map(|found| found.at_the_end),
                "object_differences": objects.as_ref().map(|found| &found.differences),
            });
            println!("{object}");
        } else {
            print!("{}", compared::tables(&compared.differences, self.args.show));
            print!("{}", objects.as_ref().map_or_else(String::new, |found| compared::objects(&found.differences)));
        }
        let rate = units::bytes((compared.bytes as f64 / took.as_secs_f64().max(0.001)) as u64);
        let rate = if self.args.quick { String::new() } else { format!(" ({rate}/s)") };
        let rows = units::count(compared.rows.max(0) as u64);
        let of_objects = objects
            .as_ref()
            .map_or_else(String::new, |found| format!("{} objects, ", units::count(found.objects as u64)));
        self.say(&format!("{of_objects}{} tables, {rows} rows in {}{rate}", compared.tables, units::duration(*took)));
        if let Some(found) = objects.as_ref().filter(|found| found.at_the_end > 0) {
            self.say(&format!("{} more are made or set at the end of the migration", found.at_the_end));
        }
    }

    fn next_step(&self, equal: bool) {
        self.say(match (equal, self.found.phase, self.args.quick) {
            (true, Phase::Done, _) => "equal; next: pgmig cleanup, once you need no way back",
            (true, _, true) => "equal; next: compare the rows too: pgmig verify",
            (true, _, false) => "equal; next: pgmig cutover",
            (false, _, true) => "they differ; next: find out who else changes the target, and mend what is named",
            (false, Phase::Done, _) => "they differ; next: find out who else writes to the target",
            (false, _, false) => {
                "they differ; next: find out who else writes to the target; then mend the rows: pgmig verify --repair"
            }
        });
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// What the migration was begun with, if its plan is on this machine.
fn selection(dir: &Path, found: &Sentinel, name: &str) -> Result<Option<Selection>> {
    if !dir.join("plan.db").exists() {
        return Ok(None);
    }
    PlanDb::open(dir, &identity(&found.source_identity, name))?.selection()
}

/// What it still takes at its rate.
fn left(began: Instant, read: u64, all: u64) -> Duration {
    began.elapsed().mul_f64(all.saturating_sub(read) as f64 / read.max(1) as f64)
}

/// A line every ten seconds, with the time that is left.
fn progress(quiet: bool, told: &watch::Sender<(u64, u64)>) -> Progress {
    const EVERY: Duration = Duration::from_secs(10);
    let told = told.clone();
    let (began, last) = (Instant::now(), Mutex::new(Instant::now()));
    Arc::new(move |read, all| {
        told.send_replace((read, all));
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet || last.elapsed() < EVERY {
            return;
        }
        *last = Instant::now();
        let left = units::duration(left(began, read, all));
        eprintln!("compared {} of {}, {left} left", units::bytes(read), units::bytes(all));
    })
}
