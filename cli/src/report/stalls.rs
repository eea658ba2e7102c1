//! What `pgmig stalls` shows: the verdict first, then what it was drawn from. Pure.

use std::time::Duration;

use super::status::source_lines;
use super::units;
use crate::model::stall::{Diagnosis, Seen, Waits, Watched, Work};

/// How many sessions of each kind are shown.
const MOST: usize = 12;

pub fn text(watched: &Watched, found: &Diagnosis) -> String {
    let p = &watched.after;
    let seconds = |seconds: f64| units::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default());
    let mut text = format!("migration `{}` in phase {}\n", p.migration, p.phase);
    text.push_str(&format!("verdict  {}\n", found.text));
    if let Some(mend) = &found.mend {
        text.push_str(&format!("mend     {}\n", mend.in_words()));
    }
    for (side, seen) in [("target", Some(&watched.target)), ("source", watched.source.as_ref())] {
        let Some(seen) = seen else { continue };
        text.push_str(&locks(side, seen));
        for vacuum in &seen.vacuums {
            let done = vacuum.done.map_or(String::new(), |done| format!(", {:.0} % read", done * 100.0));
            text.push_str(&format!(
                "vacuum   {side}: {} of {}, {}{done}, for {} (pid {}){}\n",
                if vacuum.automatic { "autovacuum" } else { "vacuum" },
                vacuum.relation,
                vacuum.phase,
                seconds(vacuum.seconds),
                vacuum.pid,
                if vacuum.against_wraparound { ", to prevent wraparound" } else { "" }
            ));
        }
    }
    for (side, seen) in [("target", Some(&watched.target)), ("source", watched.source.as_ref())] {
        // Builders and copy workers that wait for work are no news.
        let busy = |waits: &&Waits| waits.share(&["idle"]) < 1.0 || matches!(waits.work, Work::Apply | Work::Stream);
        for waits in seen.iter().flat_map(|seen| &seen.waits).filter(busy) {
            let events: Vec<String> =
                waits.events.iter().take(4).map(|(event, share)| format!("{:.0} % {event}", share * 100.0)).collect();
            let sessions = if waits.sessions == 1 { "session" } else { "sessions" };
            text.push_str(&format!(
                "waits    {side} {:<6} {:>2} {sessions}: {}\n",
                waits.work.as_str(),
                waits.sessions,
                events.join(", ")
            ));
        }
    }
    if !watched.still.is_empty() {
        text.push_str(&format!("still    no byte in {} of {}\n", seconds(watched.seconds), watched.still.join(", ")));
    }
    for (_, line) in watched.health.iter().flat_map(|health| source_lines(health, p)) {
        text.push_str(&format!("source   {}\n", line.trim_start_matches("source: ")));
    }
    if watched.source.is_none() {
        text.push_str("source   not asked, or it does not answer: give --source\n");
    }
    text.push_str(&format!("next     {}\n", next(found)));
    text
}

fn locks(side: &str, seen: &Seen) -> String {
    let seconds = |seconds: f64| units::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default());
    let mut text = String::new();
    for blocked in seen.blocked.iter().take(MOST) {
        let holders: Vec<String> = blocked
            .holders
            .iter()
            .map(|pid| if *pid == 0 { "a prepared transaction".into() } else { format!("pid {pid}") })
            .collect();
        text.push_str(&format!(
            "blocked  {side}: {} (pid {}) for {}: {} on {}, behind {}\n",
            blocked.name,
            blocked.pid,
            seconds(blocked.seconds),
            blocked.mode,
            blocked.on,
            if holders.is_empty() { "others that wait".into() } else { holders.join(", ") }
        ));
    }
    if seen.blocked.len() > MOST {
        text.push_str(&format!("blocked  {side}: and {} more\n", seen.blocked.len() - MOST));
    }
    for holder in seen.holders.iter().take(MOST) {
        let shown = |what: &str| if what.is_empty() { "?".to_string() } else { what.to_string() };
        match &holder.prepared {
            Some(gid) => text.push_str(&format!(
                "holder   {side}: prepared transaction '{gid}' for {}\n",
                seconds(holder.transaction_seconds)
            )),
            None => text.push_str(&format!(
                "holder   {side}: pid {} ({}, {}) {}, transaction {}, statement {}: {}\n",
                holder.pid,
                if holder.application.is_empty() { &holder.backend } else { &holder.application },
                shown(&holder.role),
                shown(&holder.state),
                seconds(holder.transaction_seconds),
                seconds(holder.query_seconds),
                shown(&holder.statement)
            )),
        }
    }
    text
}

fn next(found: &Diagnosis) -> &'static str {
    match (&found.mend, found.stalled) {
        (Some(_), _) => "run what mends it if you may, then `pgmig stalls` again",
        (None, true) => "`pgmig status --watch`, and the logs of both servers",
        (None, false) => "`pgmig status --watch`",
    }
}
