//! The Gantt charts of a migration: its phases, the copy with what was made beside it, and the last cutover.

use jiff::Timestamp;

use super::axis::{Times, took};
use super::gantt::{Gantt, Item, Row, gantt, side_by_side};
use crate::model::history::{CutoverStep, Facts, History, SPANS, Span};
use crate::report::units;

/// Stages of steps, in the order of their rows: name of the row, class, stages.
const GROUPS: [(&str, &str, &[&str]); 4] = [
    ("schema", "schema", &["schema"]),
    ("indexes", "index", &["index", "constraint", "analyze"]),
    ("rest", "schema", &["attach", "rest", "refresh", "finish"]),
    ("foreign keys", "key", &["unique", "foreign_key", "validate"]),
];

pub fn gantts(history: &History, now: Timestamp) -> Vec<Gantt> {
    let phases = phases(history, now);
    let facts = history.facts.as_ref();
    phases.into_iter().chain(facts.and_then(|facts| copy(facts, now))).collect()
}

/// Phase by phase, with the tries to cut over.
fn phases(history: &History, now: Timestamp) -> Option<Gantt> {
    let facts = history.facts.as_ref();
    let mut entered: Vec<(Timestamp, String)> = match facts {
        Some(facts) => {
            let entered = |event: &crate::model::history::Event| {
                let phase = match event.message.as_str() {
                    "migration begun" => "planned",
                    text if text.starts_with("endpos ") && text.ends_with(" reached") => "cutover",
                    text => text.strip_prefix("phase ")?,
                };
                Some((event.at, phase.to_string()))
            };
            facts.events.iter().filter_map(entered).collect()
        }
        None => {
            history.phases.iter().filter_map(|(at, what)| Some((*at, what.strip_prefix("phase ")?.into()))).collect()
        }
    };
    if let Some(facts) = facts
        && entered.first().is_none_or(|(at, _)| *at > facts.progress.started_at)
    {
        entered.insert(0, (facts.progress.started_at, "planned".into()));
    }
    let begin = entered.first()?.0;
    let end = facts.map_or(entered.last()?.0, |facts| facts.progress.done_at.unwrap_or(now));
    let times = Times::new(begin, end);
    let mut rows: Vec<Row> = Vec::new();
    for (at, (from, phase)) in entered.iter().enumerate().filter(|(_, (_, phase))| phase != "done") {
        let to = entered.get(at + 1).map_or(end, |(next, _)| *next);
        let item = Item {
            from: *from,
            to,
            class: class_of(phase),
            label: took(*from, to),
            title: format!("{phase}: {}", took(*from, to)),
        };
        match rows.iter_mut().find(|row| row.label == *phase) {
            Some(row) => row.items.push(item),
            None => rows.push(Row { label: phase.clone(), items: vec![item] }),
        }
    }
    let about = format!("The phases of the migration, {} in all.", took(begin, end));
    Some(gantt("gantt-phases", "Phases", about, times, &rows))
}

fn class_of(phase: &str) -> &'static str {
    match phase {
        "copy" => "copy",
        "indexes" => "index",
        "catchup" | "follow" => "key",
        "cutover" => "stop",
        _ => "schema",
    }
}

/// Who copied what when, and what was made beside it; without what came at the end.
fn copy(facts: &Facts, now: Timestamp) -> Option<Gantt> {
    let last = facts.parts.iter().map(|part| part.finished_at.unwrap_or(now)).max()?;
    // What belongs to the end of the migration may be weeks later.
    let level = facts.events.iter().find(|event| event.message == "phase follow").map_or(now, |event| event.at);
    let steps = || facts.steps.iter().filter(|step| step.started_at <= level.max(last));
    let all = || facts.parts.iter().chain(steps());
    let from = all().map(|span| span.started_at).min()?;
    let to = all().map(|span| span.finished_at.unwrap_or(now)).max()?;
    let mut rows = side_by_side(facts.parts.iter().map(|part| item(part, "copy", now)).collect(), "worker");
    let workers = rows.len();
    for (name, class, stages) in GROUPS {
        let items = steps().filter(|step| stages.contains(&step.stage.as_str())).map(|step| item(step, class, now));
        rows.extend(side_by_side(items.collect(), name));
    }
    let cut = facts.parts.len() >= SPANS || facts.steps.len() >= SPANS;
    let about = format!(
        "Who copied which Part when, {workers} at once, and what was made beside it.{}",
        if cut {
            format!(" Of each kind only the {} longest are drawn.", units::count(SPANS as u64))
        } else {
            String::new()
        }
    );
    let mut drawn = gantt("gantt-copy", "Copy and what was made", about, Times::new(from, to), &rows);
    drawn.legend = vec![
        ("copy", "Parts"),
        ("index", "indexes, constraints, statistics"),
        ("key", "foreign keys"),
        ("schema", "the rest of the schema"),
    ];
    Some(drawn)
}

fn item(span: &Span, class: &'static str, now: Timestamp) -> Item {
    let to = span.finished_at.unwrap_or(now);
    let mut title = format!("{}: {}", span.name, took(span.started_at, to));
    if span.rows > 0 {
        title.push_str(&format!(
            ", {} rows, {}",
            units::count(span.rows as u64),
            units::bytes(span.bytes.max(0) as u64)
        ));
    }
    if span.count > 1 {
        title.push_str(&format!(", with {} more in one transaction", span.count - 1));
    }
    if span.finished_at.is_none() {
        title.push_str(", not done yet");
    }
    let class = if span.finished_at.is_none() { "now" } else { class };
    Item { from: span.started_at, to, class, label: span.name.clone(), title }
}

/// The steps of the last try.
pub fn cutover(steps: &[CutoverStep], now: Timestamp) -> Option<Gantt> {
    let attempt = steps.last()?.attempt;
    let steps: Vec<&CutoverStep> = steps.iter().filter(|step| step.attempt == attempt).collect();
    let end = |step: &CutoverStep| step.finished_at.unwrap_or(now);
    let from = steps.first()?.started_at;
    let to = steps.iter().map(|step| end(step)).max()?;
    let rows: Vec<Row> = steps
        .iter()
        .map(|step| {
            let text = took(step.started_at, end(step));
            let title = format!("{}: {text}, {}", step.step, step.state);
            let class = if step.stops_writes { "stop" } else { "schema" };
            Row {
                label: step.step.clone(),
                items: vec![Item { from: step.started_at, to: end(step), class, label: text, title }],
            }
        })
        .collect();
    let about = format!("The steps of try {attempt}, {} in all.", took(from, to));
    let mut drawn = gantt("gantt-cutover", "Steps of the cutover", about, Times::new(from, to), &rows);
    drawn.legend = vec![("schema", "writes go on"), ("stop", "writes are stopped")];
    Some(drawn)
}
