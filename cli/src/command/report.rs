//! `pgmig report`: writes the history of a migration as one page, from what the target says and what the
//! folder remembers, whichever is there. It changes nothing on the target.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::args::ReportArgs;
use crate::command::conninfo;
use crate::command::run::default_dir;
use crate::config::Conninfo;
use crate::connect::{self, Side};
use crate::error::{Context, Error, Exit, Result};
use crate::model::history::{Facts, History};
use crate::plan_db::history::{Remembered, remembered};
use crate::report::page;
use crate::target::history;

pub async fn report(args: ReportArgs) -> Result<Exit> {
    let target = args.target.as_deref().map(conninfo).transpose()?;
    let facts = match &target {
        Some(target) => facts(target, &args.name).await,
        None => Err(Error::usage("the target was not asked: give --target")),
    };
    let dir = args.dir.clone().or_else(|| target.as_ref().map(|target| default_dir(target, &args.name)));
    let here = dir.as_deref().map(remembered).transpose()?.flatten();
    let history = whole(&args.name, facts, here, dir.as_deref())?;
    let html = page::html(&history, Timestamp::now()).during(Exit::Bug, || "write the page".into())?;
    let output = args.output.unwrap_or_else(|| PathBuf::from(format!("pgmig-{}.html", args.name)));
    if output == Path::new("-") {
        // A reader that went away is no error.
        let _ = std::io::stdout().write_all(html.as_bytes());
        return Ok(Exit::Done);
    }
    std::fs::write(&output, html).during(Exit::Dir, || format!("write {}", output.display()))?;
    for missing in &history.missing {
        eprintln!("{missing}");
    }
    eprintln!("wrote {}\nnext: open it in a browser", output.display());
    Ok(Exit::Done)
}

async fn facts(target: &Conninfo, name: &str) -> Result<Facts> {
    let client = connect::client(target, Side::Target, "pgmig report", &[]).await?;
    history::facts(&client, name).await
}

/// Both together; what one side lacks is said on the page.
fn whole(name: &str, facts: Result<Facts>, here: Option<Remembered>, dir: Option<&Path>) -> Result<History> {
    let mut missing = Vec::new();
    let here = match (here, dir) {
        (Some(here), Some(dir)) if here.migration != name => {
            return Err(Error::usage(format!("{} is of migration `{}`", dir.display(), here.migration))
                .hint(format!("give --name {}, or the folder of migration `{name}`", here.migration)));
        }
        (Some(here), _) => here,
        (None, dir) => {
            let dir = dir.map_or(String::new(), |dir| format!(" ({})", dir.display()));
            missing.push(format!(
                "Without the folder of the run{dir}: what was left out, settings, rates and lag are not known. Give --dir on the machine of pgmig run."
            ));
            Remembered::default()
        }
    };
    let facts = match (facts, here.facts) {
        (Ok(facts), _) => Some(facts),
        (Err(err), Some(kept)) => {
            missing.push(format!("The target did not say it ({}): this is what it said at the end.", err.chain()));
            Some(kept)
        }
        (Err(err), None) if here.runs.is_empty() => return Err(err),
        (Err(err), None) => {
            missing.push(format!("Only what this machine remembers ({}).", err.chain()));
            None
        }
    };
    Ok(History {
        migration: name.into(),
        facts,
        runs: here.runs,
        samples: here.samples,
        left_out: here.left_out,
        phases: here.phases,
        missing,
    })
}
