//! `pgmig preflight --fix`: shows what mends the findings, asks, runs it statement by statement and checks again,
//! until nothing is left that a statement mends. What fails is told, and the rest goes on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::check;
use crate::args::FixArgs;
use crate::command::agreed;
use crate::command::run::{Config, identity};
use crate::config::{Conninfo, Environment};
use crate::connect::{self, Side};
use crate::error::{Context, Error, Result};
use crate::model::fix::{Fix, Fixed, Fixes, Outcome, fixes};
use crate::model::mend::RELOAD;
use crate::model::{Finding, Place, Step};
use crate::plan_db::PlanDb;
use crate::report::fixes::{self as shown, Runner};
use crate::server;
use crate::source::checks;

/// How long a reload may take to show.
const RELOADED_WITHIN: Duration = Duration::from_secs(5);

/// What was done, and what the checks find after it.
pub(super) async fn fix(
    config: &Config,
    args: &FixArgs,
    mut findings: Vec<Finding>,
) -> Result<(Vec<Fixed>, Vec<Finding>)> {
    let (mut fixed, mut tried) = (Vec::new(), HashSet::new());
    loop {
        let Fixes { run, left } = fixes(&findings, &tried);
        let record = |fix: &Fix, outcome| Fixed { fix: fix.clone(), outcome, error: None };
        if run.is_empty() {
            eprint!("{}", shown::left(&left));
            fixed.extend(left.iter().map(|fix| record(fix, Outcome::Left)));
            summary(&fixed);
            return Ok((fixed, findings));
        }
        let sessions = Sessions::open(config, args, &run).await?;
        eprint!("{}", shown::preview(&run, |place| sessions.of(place).map(|session| session.runner.clone())));
        if tried.is_empty() {
            eprint!("{}", shown::left(&left));
        }
        let statements = if run.len() == 1 { "1 statement".into() } else { format!("{} statements", run.len()) };
        if !agreed(args.yes, &format!("run {statements}?")) {
            fixed.extend(run.iter().map(|fix| record(fix, Outcome::NotRun)));
            fixed.extend(left.iter().map(|fix| record(fix, Outcome::Left)));
            let more = if tried.is_empty() { "nothing was changed" } else { "nothing more was changed" };
            eprintln!("{more}\nnext: `pgmig preflight --fix --yes`, or run the statements yourself");
            return Ok((fixed, findings));
        }
        for fix in run {
            tried.insert(fix.step.place_and_text());
            let place = shown::side(fix.step.side);
            let (outcome, error) = match sessions.run(config, &fix).await {
                Ok(()) => (Outcome::Done, None),
                Err(error) => (Outcome::Failed, Some(error)),
            };
            match &error {
                None => eprintln!("done on the {place}: {}", fix.step.statement),
                Some(error) => {
                    eprintln!("failed on the {place}: {}\n    {}", fix.step.statement, error.causes().join(": "));
                    if let Some(hint) = error.hint_text() {
                        eprintln!("    {hint}");
                    }
                }
            }
            fixed.push(Fixed { fix, outcome, error: error.map(|error| error.causes().join(": ")) });
        }
        eprintln!("checking again");
        findings = check(config).await?;
        without_effect(&mut fixed, &findings);
    }
}

/// A GRANT by a role that may not grant it succeeds and grants nothing: what is asked for again was not done.
fn without_effect(fixed: &mut [Fixed], findings: &[Finding]) {
    let asked: HashSet<_> = findings.iter().flat_map(|found| &found.mend.steps).map(Step::place_and_text).collect();
    for done in fixed.iter_mut().filter(|fixed| fixed.outcome == Outcome::Done) {
        let step = &done.fix.step;
        if step.statement != RELOAD && asked.contains(&step.place_and_text()) {
            let error = format!("it changed nothing: this takes {}", step.by);
            eprintln!("failed on the {}: {}\n    {error}", shown::side(step.side), step.statement);
            (done.outcome, done.error) = (Outcome::Failed, Some(error));
        }
    }
}

fn summary(fixed: &[Fixed]) {
    let count = |outcome| fixed.iter().filter(|fixed| fixed.outcome == outcome).count();
    let (done, failed) = (count(Outcome::Done), count(Outcome::Failed));
    match (done, failed) {
        (0, 0) => eprintln!("nothing was changed: no statement that --fix runs mends what was found"),
        (_, 0) => eprintln!("{done} done"),
        _ => eprintln!("{done} done, {failed} failed"),
    }
}

/// One session a side, for the sides that have something to run.
struct Sessions {
    source: Option<Session>,
    target: Option<Session>,
}

struct Session {
    client: Client,
    side: Side,
    runner: Runner,
    /// Whether it is the administrator's, and not that of the migration's role.
    admin: bool,
}

impl Sessions {
    /// Fails before anything is changed: a server that does not answer, another database than the migration's.
    async fn open(config: &Config, args: &FixArgs, run: &[Fix]) -> Result<Sessions> {
        let needed = |place| run.iter().any(|fix| fix.step.side == place);
        let mut sessions = Sessions { source: None, target: None };
        if needed(Place::Source) {
            let session = Session::open(&config.source, args.admin_source.as_deref(), Side::Source).await?;
            sessions.source = Some(session);
        }
        if needed(Place::Target) {
            let session = Session::open(&config.target, args.admin_target.as_deref(), Side::Target).await?;
            sessions.target = Some(session);
        }
        Ok(sessions)
    }

    fn of(&self, place: Place) -> Option<&Session> {
        match place {
            Place::Source => self.source.as_ref(),
            Place::Target => self.target.as_ref(),
            Place::Here => None,
        }
    }

    async fn run(&self, config: &Config, fix: &Fix) -> Result<()> {
        let step = &fix.step;
        let session = self.of(step.side).ok_or_else(|| Error::bug("a statement for neither server"))?;
        let Session { client, side, .. } = session;
        if let Some(given) = &step.gives {
            // First the record: what is recorded and was not changed is put back to what it is.
            let (source, _) = checks::identity(client).await?;
            PlanDb::open(&config.dir, &identity(&source, &config.name))?.give(given)?;
        }
        let doing = || format!("cannot run a statement on the {side}");
        let before = if step.statement == RELOAD { Some(loaded(client, *side).await?) } else { None };
        client.batch_execute(&step.statement).await.during(side.exit(), doing).map_err(|error| {
            match error.sqlstate() {
                Some("42501") if !session.admin => {
                    error.hint(format!("give a role that may: --admin-{side} (this takes {})", step.by))
                }
                Some("55P03") => error.hint("a session holds it: run the same command again"),
                _ => error,
            }
        })?;
        if let Some(before) = before {
            let until = Instant::now() + RELOADED_WITHIN;
            while loaded(client, *side).await? == before && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

impl Session {
    async fn open(own: &Conninfo, admin: Option<&str>, side: Side) -> Result<Session> {
        // Whoever waits for a lock keeps others waiting behind it.
        let settings = [("lock_timeout", "5s")];
        let name = "pgmig preflight --fix";
        let client = match admin {
            None => connect::client(own, side, name, &settings).await?,
            Some(text) => {
                let admin = Conninfo::parse_for(text, Some(&own.dbname), &Environment::of_process())?;
                let client = connect::client(&admin, side, name, &settings).await?;
                let known = connect::client(own, side, name, &[]).await?;
                if !server::one_database((&known, side), (&client, side)).await? {
                    return Err(Error::usage(format!("--admin-{side} is another server than --{side}"))
                        .hint(format!("give the server of --{side}; the database is taken from there")));
                }
                client
            }
        };
        let doing = || format!("ask who runs statements on the {side}");
        let query = "select rolname::text, rolsuper from pg_catalog.pg_roles where rolname = current_user";
        let row = client.query_one(query, &[]).await.during(side.exit(), doing)?;
        let runner = Runner { role: row.get(0), superuser: row.get(1) };
        Ok(Session { client, side, runner, admin: admin.is_some() })
    }
}

/// When the server last read its settings.
async fn loaded(client: &Client, side: Side) -> Result<String> {
    let row = client
        .query_one("select pg_catalog.pg_conf_load_time()::text", &[])
        .await
        .during(side.exit(), || format!("ask the {side} when it read its settings"))?;
    Ok(row.get(0))
}
