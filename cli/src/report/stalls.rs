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
    for (side, growth) in [("target", watched.growth), ("source", watched.source_growth)] {
        let Some(growth) = growth else { continue };
        let rate = |rate: f64| format!("{}/s", units::bytes(rate.abs() as u64));
        let wal = growth.wal_bytes_per_second.map_or("?".into(), rate);
        let change = growth.database_bytes_per_second.map_or("?".into(), |by| {
            let sign = if by < 0.0 { '-' } else { '+' };
            format!("{sign}{}", rate(by))
        });
        let size = units::bytes(growth.database_bytes.max(0) as u64);
        text.push_str(&format!("writes   {side}: {wal} of WAL; the database has {size}, {change}\n"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stall::{Blocked, Cause, Growth, Holder, Mend, Vacuum};
    use crate::model::status::SourceHealth;
    use crate::model::{Place, Progress};

    #[test]
    fn the_verdict_comes_first_and_then_what_it_was_drawn_from() {
        let holder = |pid, prepared: Option<&str>| Holder {
            pid,
            backend: "client backend".into(),
            role: "app".into(),
            application: "psql".into(),
            state: "idle in transaction".into(),
            transaction_seconds: 75.0,
            query_seconds: 60.0,
            statement: "lock table t".into(),
            prepared: prepared.map(str::to_string),
        };
        let blocked = Blocked {
            pid: 7,
            name: "pgmig part 3".into(),
            seconds: 4.2,
            mode: "AccessExclusiveLock".into(),
            on: "public.t".into(),
            holders: vec![42, 0],
        };
        let waits = |work, event: &str| Waits {
            work,
            sessions: 2,
            events: vec![(event.into(), 0.75), ("running".into(), 0.25)],
        };
        let vacuum = Vacuum {
            pid: 9,
            relation: "public.big".into(),
            phase: "scanning heap".into(),
            done: Some(0.5),
            automatic: true,
            against_wraparound: true,
            seconds: 3700.0,
        };
        let target = Seen {
            waits: vec![waits(Work::Copy, "Lock: relation")],
            blocked: vec![blocked],
            holders: vec![holder(42, None), holder(0, Some("left over"))],
            vacuums: vec![vacuum],
        };
        let source = Seen { waits: vec![waits(Work::Stream, "Activity: WalSenderMain")], ..Seen::default() };
        let health = SourceHealth {
            wal_status: Some("reserved".into()),
            active: true,
            retained_bytes: Some(1 << 30),
            safe_bytes: None,
            oldest_snapshot: None,
            oldest_xmin_age: None,
        };
        let growth = |by: f64| Growth {
            seconds: 2.0,
            wal_bytes_per_second: Some(3.0 * 1_048_576.0),
            database_bytes: 5 << 30,
            database_bytes_per_second: Some(by),
        };
        let watched = Watched {
            growth: Some(growth(2.5 * 1_048_576.0)),
            source_growth: Some(growth(-8192.0)),
            before: Progress::sample("copy"),
            after: Progress::sample("copy"),
            seconds: 2.0,
            target,
            source: Some(source),
            health: Some(health),
            copying: vec!["public.t".into()],
            still: vec!["public.t".into(), "public.big 3/7".into()],
        };
        let mend = Mend { place: Place::Target, statement: "select pg_terminate_backend(42);".into() };
        let found =
            Diagnosis { cause: Cause::Lock, stalled: true, text: "pgmig part 3 waits".into(), mend: Some(mend) };
        let expected = "\
migration `default` in phase copy
verdict  pgmig part 3 waits
mend     on the target: select pg_terminate_backend(42);
blocked  target: pgmig part 3 (pid 7) for 4.2 s: AccessExclusiveLock on public.t, behind pid 42, a prepared transaction
holder   target: pid 42 (psql, app) idle in transaction, transaction 1 min 15 s, statement 1 min 00 s: lock table t
holder   target: prepared transaction 'left over' for 1 min 15 s
vacuum   target: autovacuum of public.big, scanning heap, 50 % read, for 1 h 01 min (pid 9), to prevent wraparound
waits    target copy    2 sessions: 75 % Lock: relation, 25 % running
waits    source stream  2 sessions: 75 % Activity: WalSenderMain, 25 % running
writes   target: 3.0 MiB/s of WAL; the database has 5.0 GiB, +2.5 MiB/s
writes   source: 3.0 MiB/s of WAL; the database has 5.0 GiB, -8.0 KiB/s
still    no byte in 2.0 s of public.t, public.big 3/7
source   slot reserved, keeps 1.0 GiB of WAL, no limit
next     run what mends it if you may, then `pgmig stalls` again
";
        assert_eq!(text(&watched, &found), expected);
    }
}
