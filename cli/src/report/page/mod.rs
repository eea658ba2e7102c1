//! The page of `pgmig report`: one HTML file that needs nothing else, with no script. Values are escaped by
//! the template; what is drawn is computed here.

mod axis;
mod chart;
mod gantt;
mod series;
mod timeline;

use askama::Template;
use jiff::Timestamp;

use crate::model::history::{CutoverStep, Facts, History, LARGE_OBJECTS, RunStart, Table, Verification};
use crate::model::{LeftOut, What};
use crate::report::units;
use axis::{Unit, span, took};
use chart::Chart;
use gantt::Gantt;

/// Tables that are shown before one has to unfold the rest.
const LARGEST: usize = 20;

/// A figure that is seen first.
struct Tile {
    id: &'static str,
    name: &'static str,
    text: String,
    /// For machines.
    value: String,
    more: String,
    /// good, bad, or empty.
    class: &'static str,
}

struct TableRow {
    name: String,
    rows: String,
    bytes: String,
    copied: String,
    parts: i64,
    took: String,
    rate: String,
    done: bool,
    /// Share of the largest, in percent.
    share: String,
}

struct Moved {
    largest: Vec<TableRow>,
    rest: Vec<TableRow>,
    /// Tables that are not listed.
    unlisted: i64,
}

struct Attempt {
    number: i32,
    outcome: String,
    steps: Vec<StepRow>,
}

struct StepRow {
    step: String,
    state: String,
    took: String,
    message: String,
}

struct VerifyRow {
    at: String,
    how: &'static str,
    equal: bool,
    text: String,
    differences: Vec<(String, String)>,
}

struct Left {
    what: &'static str,
    why: String,
    names: Vec<String>,
    unlisted: usize,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    history: &'a History,
    facts: Option<&'a Facts>,
    made_at: String,
    version: &'static str,
    state: String,
    state_class: &'static str,
    tiles: Vec<Tile>,
    moved: Option<Moved>,
    gantts: Vec<Gantt>,
    rates: Vec<Chart>,
    lag: Vec<Chart>,
    attempts: Vec<Attempt>,
    cutover_gantt: Option<Gantt>,
    verifications: Vec<VerifyRow>,
    left_out: Vec<Left>,
    last_run: Option<&'a RunStart>,
    events: Vec<(String, &'a str, &'a str)>,
    facts_at: String,
}

/// The whole page.
///
/// # Errors
/// The template cannot be written, which is a bug.
pub fn html(history: &History, now: Timestamp) -> Result<String, askama::Error> {
    let facts = history.facts.as_ref();
    let (state, state_class) = facts.map_or(("unknown".into(), ""), state);
    let now = facts.map_or(now, |facts| facts.read_at);
    let attempts = facts.map(|facts| attempts(&facts.cutover)).unwrap_or_default();
    Page {
        history,
        facts,
        made_at: moment(Timestamp::now()),
        version: env!("CARGO_PKG_VERSION"),
        state,
        state_class,
        tiles: facts.map(|facts| tiles(facts, history, now)).unwrap_or_default(),
        moved: facts.map(moved),
        gantts: timeline::gantts(history, now),
        rates: rates(history, now),
        lag: lag(history),
        cutover_gantt: facts.and_then(|facts| timeline::cutover(&facts.cutover, now)),
        attempts,
        verifications: facts.map(|facts| facts.verifications.iter().rev().map(verified).collect()).unwrap_or_default(),
        left_out: left_out(&history.left_out),
        last_run: history.runs.last(),
        events: facts
            .map(|facts| facts.events.iter().map(|e| (moment(e.at), e.level.as_str(), e.message.as_str())).collect())
            .unwrap_or_default(),
        facts_at: facts.map(|facts| moment(facts.read_at)).unwrap_or_default(),
    }
    .render()
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn state(facts: &Facts) -> (String, &'static str) {
    let progress = &facts.progress;
    match (progress.phase.as_str(), &progress.interrupted_phase) {
        ("done", _) => ("done".into(), "good"),
        ("failed", Some(phase)) => (format!("failed in phase {phase}"), "bad"),
        ("paused", Some(phase)) => (format!("paused in phase {phase}"), ""),
        (phase, _) if !progress.running => (format!("in phase {phase}, and no run is alive"), "bad"),
        (phase, _) => (format!("in phase {phase}"), ""),
    }
}

fn positive(count: i64) -> u64 {
    count.max(0) as u64
}

fn tiles(facts: &Facts, history: &History, now: Timestamp) -> Vec<Tile> {
    let progress = &facts.progress;
    let figure = |id, name, count: i64, more: String| Tile {
        id,
        name,
        text: units::count(positive(count)),
        value: count.to_string(),
        more,
        class: "",
    };
    let mut tiles = vec![
        figure(
            "tables",
            "tables",
            progress.tables_done,
            format!("of {}", units::count(positive(progress.tables_total))),
        ),
        figure("rows", "rows copied", facts.copied_rows, copied_more(facts)),
        Tile {
            text: units::bytes(positive(progress.bytes_done)),
            ..figure(
                "bytes",
                "of tables",
                progress.bytes_done,
                format!("of {}", units::bytes(positive(progress.bytes_total))),
            )
        },
        figure(
            "objects",
            "objects made",
            progress.steps_done - progress.steps_failed,
            format!("of {}", units::count(positive(progress.steps_total))),
        ),
    ];
    if progress.follow {
        let lag = progress
            .lag_bytes
            .map_or("lag is not known yet".into(), |lag| format!("lag {}", units::bytes(positive(lag))));
        tiles.push(figure(
            "applied",
            "rows applied",
            progress.applied_rows,
            format!("in {} transactions; {lag}", units::count(positive(progress.applied_transactions))),
        ));
    }
    let end = progress.done_at.unwrap_or(now);
    let seconds = axis::seconds(progress.started_at, end);
    tiles.push(Tile {
        id: "duration",
        name: if progress.done_at.is_some() { "from begin to end" } else { "since the begin" },
        text: took(progress.started_at, end),
        value: format!("{seconds:.3}"),
        more: format!("begun {}", moment(progress.started_at)),
        class: "",
    });
    if let Some((seconds, attempt)) = downtime(&facts.cutover).filter(|_| progress.phase == "done") {
        let more = match attempt - 1 {
            0 => "in the cutover".into(),
            1 => "an earlier try was undone".into(),
            undone => format!("{undone} earlier tries were undone"),
        };
        tiles.push(Tile {
            id: "downtime",
            name: "writes were stopped",
            text: span(seconds),
            value: format!("{seconds:.3}"),
            more,
            class: "",
        });
    }
    tiles.push(verify_tile(facts.verifications.last()));
    let trouble = progress.steps_failed + progress.conflicts;
    let errors = facts.events.iter().filter(|event| event.level == "error").count();
    tiles.push(Tile {
        class: if trouble > 0 || progress.last_error.is_some() { "bad" } else { "good" },
        ..figure(
            "trouble",
            "failed or passed over",
            trouble,
            match errors {
                0 => "no error on the way".into(),
                1 => "1 error on the way".into(),
                errors => format!("{errors} errors on the way"),
            },
        )
    });
    if !history.left_out.is_empty() {
        tiles.push(figure("left", "left out", history.left_out.len() as i64, "see what and why".into()));
    }
    tiles
}

fn copied_more(facts: &Facts) -> String {
    match (facts.copy_started_at, facts.copy_finished_at) {
        (Some(from), Some(to)) => format!("in {}", took(from, to)),
        (Some(_), None) => "the copy runs".into(),
        _ => "the copy has not begun".into(),
    }
}

fn verify_tile(last: Option<&Verification>) -> Tile {
    let (text, value, more, class) = match last {
        None => ("not compared".into(), "none", "pgmig verify does it".into(), ""),
        Some(found) if found.differences.is_empty() => {
            let how = if found.quick { "by number, and the catalogs" } else { "every row" };
            (format!("{} rows equal", units::count(positive(found.rows))), "equal", how.to_string(), "good")
        }
        Some(found) => {
            let count = found.differences.len();
            let text = if count == 1 { "1 difference".into() } else { format!("{count} differences") };
            (text, "differ", "see verification".into(), "bad")
        }
    };
    Tile { id: "verified", name: "compared", text, value: value.into(), more, class }
}

/// How long writes were stopped in the try that was not undone, and its number.
fn downtime(steps: &[CutoverStep]) -> Option<(f64, i32)> {
    let attempt = steps.last()?.attempt;
    let stopped = steps.iter().filter(|step| step.attempt == attempt && step.stops_writes);
    let from = stopped.clone().map(|step| step.started_at).min()?;
    let to = stopped.filter_map(|step| step.finished_at).max()?;
    Some((axis::seconds(from, to), attempt))
}

fn moved(facts: &Facts) -> Moved {
    let largest = facts.tables.iter().map(|table| table.bytes).max().unwrap_or(0).max(1);
    let row = |table: &Table| TableRow {
        name: table.name.clone(),
        rows: units::count(positive(table.rows)),
        bytes: units::bytes(positive(table.bytes)),
        copied: units::bytes(positive(table.copied_bytes)),
        parts: table.parts,
        took: table.seconds.map(span).unwrap_or_default(),
        rate: match table.seconds {
            Some(seconds) if seconds > 0.0 => Unit::BytesPerSecond.text(table.copied_bytes as f64 / seconds),
            _ => String::new(),
        },
        done: table.done,
        share: axis::place(table.bytes as f64 * 100.0 / largest as f64),
    };
    let mut rows: Vec<TableRow> = facts.tables.iter().map(row).collect();
    let rest = rows.split_off(rows.len().min(LARGEST));
    let listed = facts.tables.iter().filter(|table| table.name != LARGE_OBJECTS).count() as i64;
    Moved { largest: rows, rest, unlisted: (facts.progress.tables_total - listed).max(0) }
}

fn rates(history: &History, now: Timestamp) -> Vec<Chart> {
    let copy = history.facts.as_ref().and_then(|facts| {
        let line = series::copy_rate(&facts.parts, now);
        let about = format!(
            "Bytes of tables that were copied a second; at most {}.",
            Unit::BytesPerSecond.text(line.highest())
        );
        chart::chart("rate-copy", "Copy", about, Unit::BytesPerSecond, &[line])
    });
    let wal = series::wal_rates(&history.samples);
    let about = format!(
        "WAL of the source a second; at most {} written and {} applied. Where no run was alive there is a gap.",
        Unit::BytesPerSecond.text(wal[0].highest()),
        Unit::BytesPerSecond.text(wal[1].highest())
    );
    copy.into_iter().chain(chart::chart("rate-wal", "Changes", about, Unit::BytesPerSecond, &wal)).collect()
}

fn lag(history: &History) -> Vec<Chart> {
    let (bytes, seconds) = (series::lag_bytes(&history.samples), series::lag_seconds(&history.samples));
    let in_bytes = format!(
        "WAL of the source that was not applied, at most {}; and what of it lay in the spool, compressed, at most {}.",
        Unit::Bytes.text(bytes[0].highest()),
        Unit::Bytes.text(bytes[1].highest())
    );
    let in_time = format!("How long ago the source stood where the target was; at most {}.", span(seconds.highest()));
    chart::chart("lag-bytes", "Lag in bytes", in_bytes, Unit::Bytes, &bytes)
        .into_iter()
        .chain(chart::chart("lag-time", "Lag in time", in_time, Unit::Seconds, &[seconds]))
        .collect()
}

/// The newest first.
fn attempts(steps: &[CutoverStep]) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = steps
        .chunk_by(|one, other| one.attempt == other.attempt)
        .map(|steps| Attempt {
            number: steps[0].attempt,
            outcome: match (steps.iter().find(|step| step.state != "done"), downtime(steps)) {
                (Some(step), _) if step.state == "running" => format!("at step {}", step.step),
                (Some(_), Some((seconds, _))) => format!("undone; writes were stopped for about {}", span(seconds)),
                (Some(_), None) => "undone before writes were stopped".into(),
                (None, Some((seconds, _))) => format!("writes were stopped for {}", span(seconds)),
                (None, None) => String::new(),
            },
            steps: steps
                .iter()
                .map(|step| StepRow {
                    step: step.step.clone(),
                    state: step.state.clone(),
                    took: step.finished_at.map(|to| took(step.started_at, to)).unwrap_or_default(),
                    message: step.message.clone(),
                })
                .collect(),
        })
        .collect();
    attempts.reverse();
    attempts
}

fn verified(found: &Verification) -> VerifyRow {
    let rate = found.bytes as f64 / found.seconds.max(0.001);
    let place = found.lsn.map_or("after the end".to_string(), |lsn| format!("at {lsn}"));
    let held = found.held_seconds.map_or(String::new(), |held| format!("; apply was held for {}", span(held)));
    VerifyRow {
        at: moment(found.at),
        how: if found.quick { "catalogs and counts" } else { "every row" },
        equal: found.differences.is_empty(),
        text: format!(
            "{} tables, {} rows, {} {place} in {} ({}){held}",
            units::count(positive(found.tables)),
            units::count(positive(found.rows)),
            units::bytes(positive(found.bytes)),
            span(found.seconds),
            Unit::BytesPerSecond.text(rate)
        ),
        differences: found.differences.iter().map(|d| (d.table.clone(), d.what.clone())).collect(),
    }
}

/// By what and why, as `pgmig plan` shows it.
fn left_out(all: &[LeftOut]) -> Vec<Left> {
    const NAMES: usize = 200;
    let mut groups: Vec<Left> = Vec::new();
    for left in all {
        let what = match left.what {
            What::Object => "not there",
            What::Rows => "there without rows",
            What::Changes => "without changes after the copy",
            What::UpdatesAndDeletes => "without updates and deletes after the copy",
            What::Validation => "foreign keys that are not validated",
        };
        let at = match groups.iter().position(|group| group.what == what && group.why == left.why) {
            Some(at) => at,
            None => {
                groups.push(Left { what, why: left.why.clone(), names: Vec::new(), unlisted: 0 });
                groups.len() - 1
            }
        };
        if groups[at].names.len() < NAMES {
            groups[at].names.push(format!("{} {}", left.kind, left.name));
        } else {
            groups[at].unlisted += 1;
        }
    }
    groups
}

#[cfg(test)]
mod tests;
