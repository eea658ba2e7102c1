//! `pgmig verify`: compares both sides at one position. What it finds goes to stdout, rows by their keys.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::args::VerifyArgs;
use crate::command::conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::history::{Difference, Verification};
use crate::model::{Phase, TableName};
use crate::report::{json, units};
use crate::source;
use crate::target::{checks, history, install, queue, sentinel};
use crate::verify::align::align;
use crate::verify::live::{Compared, How, Progress, compare};

pub async fn verify(args: VerifyArgs, quiet: bool) -> Result<Exit> {
    let (source, target, name) = (conninfo(&args.source.source)?, conninfo(&args.target.target)?, &args.target.name);
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
    let lookout = connect::client(&source, Side::Source, "pgmig verify", &[]).await?;
    if source::checks::abilities(&lookout).await?.identity != found.source_identity {
        return Err(Error::usage(format!("migration `{name}` on the target is of another source"))
            .hint("give the source it was begun with"));
    }
    drop(lookout);
    // Rows of extensions' own tables come with the extension.
    let apart: HashSet<TableName> = checks::not_applied(&client).await?.into_iter().collect();
    let tables = queue::tables(&client, name).await?.into_iter().filter(|table| !apart.contains(table)).collect();
    let aligned = align(&source, &target, name, &found).await?;
    if !quiet {
        match aligned.pause {
            Some(pause) => {
                eprintln!("both sides are compared at {}; apply was held for {:.2} s", aligned.lsn, pause.as_secs_f64())
            }
            None => eprintln!("the migration is done: both sides are compared as they are now"),
        }
    }
    let how = How { jobs: usize::from(args.table_jobs), quick: args.quick, max_rate: args.max_rate };
    let began = Instant::now();
    let compared = compare(&source, &target, &aligned, tables, how, progress(quiet || args.json)).await?;
    let (lsn, pause, took) = (aligned.lsn, aligned.pause, began.elapsed());
    drop(aligned);
    let equal = compared.differences.is_empty();
    let noted = Verification {
        at: jiff::Timestamp::now(),
        lsn: pause.map(|_| lsn),
        quick: args.quick,
        tables: compared.tables as i64,
        rows: compared.rows,
        bytes: compared.bytes as i64,
        seconds: took.as_secs_f64(),
        held_seconds: pause.map(|pause| pause.as_secs_f64()),
        differences: compared
            .differences
            .iter()
            .map(|difference| Difference { table: difference.table.to_string(), what: difference.what.clone() })
            .collect(),
    };
    // The session may have been idle for long: a new one.
    let client = connect::client(&target, Side::Target, "pgmig verify", &[]).await?;
    history::verified(&client, name, &noted).await?;
    if args.json {
        let object = json!({
            "format": json::FORMAT, "equal": equal, "quick": args.quick, "lsn": lsn.to_string(),
            "apply_held_seconds": pause.map(|pause| pause.as_secs_f64()), "seconds": took.as_secs_f64(),
            "tables": compared.tables, "rows": compared.rows, "bytes": compared.bytes,
            "differences": compared.differences,
        });
        println!("{object}");
    } else {
        print!("{}", text(&compared, args.show));
    }
    if !quiet {
        let rate = units::bytes((compared.bytes as f64 / took.as_secs_f64().max(0.001)) as u64);
        eprintln!(
            "{} tables, {} rows in {} ({rate}/s)",
            compared.tables,
            units::count(compared.rows.max(0) as u64),
            units::duration(took)
        );
        let next = match (equal, found.phase) {
            (true, Phase::Done) => "equal; next: pgmig cleanup, once you need no way back",
            (true, _) => "equal; next: pgmig cutover",
            (false, _) => "they differ; next: find out who else writes to the target, and mend those rows",
        };
        eprintln!("{next}");
    }
    Ok(if equal { Exit::Done } else { Exit::No })
}

fn text(compared: &Compared, show: usize) -> String {
    let mut text = String::new();
    for difference in &compared.differences {
        text.push_str(&format!("{}  {}\n", difference.table, difference.what));
        for row in difference.rows.iter().take(show) {
            let key = match row.key.is_empty() {
                true => "a row".to_string(),
                false => {
                    row.key.iter().map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(", ")
                }
            };
            text.push_str(&format!("  {key}  {}\n", row.what));
        }
        if difference.rows.len() > show {
            text.push_str(&format!("  and {} more: --show N, or --json\n", difference.rows.len() - show));
        }
    }
    text
}

/// A line every ten seconds, with the time that is left.
fn progress(quiet: bool) -> Progress {
    const EVERY: Duration = Duration::from_secs(10);
    let (began, last) = (Instant::now(), Mutex::new(Instant::now()));
    Arc::new(move |read, all| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet || last.elapsed() < EVERY {
            return;
        }
        *last = Instant::now();
        let left = began.elapsed().mul_f64((all.saturating_sub(read)) as f64 / read.max(1) as f64);
        eprintln!("compared {} of {}, {} left", units::bytes(read), units::bytes(all), units::duration(left));
    })
}
