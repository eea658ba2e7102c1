//! The table of `pgmig status`, readable from across the room. Pure.

use std::time::Duration;

use super::units;
use crate::model::status::{SourceHealth, Status};
use crate::model::{Lsn, Progress};

/// Two columns of label and value, what is in hand, then the next step.
pub fn table(status: &Status) -> String {
    let p = &status.progress;
    let lsn = |lsn: Option<Lsn>| lsn.map_or("-".to_string(), |lsn| lsn.to_string());
    let seconds = |seconds: f64| units::duration(Duration::from_secs_f64(seconds.max(0.0)));
    let bytes = |bytes: i64| units::bytes(bytes.max(0) as u64);
    let phase = match &p.interrupted_phase {
        Some(at) => format!("{} in {at}", p.phase),
        None if p.running || p.phase == "done" => p.phase.clone(),
        None => format!("{}, not running", p.phase),
    };
    let lag = match (p.lag_bytes, p.lag_seconds) {
        (Some(lag), Some(late)) => format!("{}, {}", bytes(lag), seconds(late)),
        (Some(lag), None) => bytes(lag),
        _ => "-".into(),
    };
    let copy = match (p.phase.as_str(), p.copy_bytes_per_second) {
        ("copy", Some(rate)) => {
            let left = p.eta_seconds.map_or(String::new(), |eta| format!(", {} left", seconds(eta)));
            format!("{} of {}, {}/s{left}", bytes(p.bytes_done), bytes(p.bytes_total), bytes(rate))
        }
        _ => format!("{} of {}", bytes(p.bytes_done), bytes(p.bytes_total)),
    };
    let rows: [[String; 4]; 6] = [
        ["phase".into(), phase, "lag".into(), lag],
        ["tables".into(), format!("{} of {}", p.tables_done, p.tables_total), "copy".into(), copy],
        ["objects".into(), format!("{} of {}", p.steps_done, p.steps_total), "retries".into(), p.retries.to_string()],
        ["write".into(), lsn(p.write_lsn), "source".into(), lsn(p.source_lsn)],
        ["replay".into(), lsn(p.replay_lsn), "endpos".into(), p.endpos.map_or("open".into(), |l| l.to_string())],
        [
            "applied".into(),
            format!("{} rows", units::count(p.applied_rows.max(0) as u64)),
            "spool".into(),
            bytes(p.spool_bytes),
        ],
    ];
    let width = rows.iter().map(|row| row[1].chars().count()).max().unwrap_or(0).max(20);
    let back = if p.is_way_back { ", the way back" } else { "" };
    let mut text = format!("migration `{}`{back}\n", p.migration);
    for [a, b, c, d] in rows {
        text.push_str(format!("{a:<8} {b:<width$}   {c:<7} {d}").trim_end());
        text.push('\n');
    }
    if let (Some(replay), Some(source)) = (p.replay_bytes_per_second, p.source_bytes_per_second) {
        let left = p.catch_up_seconds.map_or(String::new(), |left| format!(", {} to catch up", seconds(left)));
        text.push_str(&format!(
            "stream   {}/s applied, {}/s written on the source{left}\n",
            bytes(replay),
            bytes(source)
        ));
    }
    text.extend(verified(status).map(|verified| format!("verified {verified}\n")));
    if status.caught_up == Some(true) && p.phase == "follow" {
        text.push_str("caught up\n");
    }
    for part in &status.copying {
        let rate = part.bytes_per_second.map_or("-".into(), |rate| format!("{}/s", bytes(rate as i64)));
        let left = part.seconds_left.map_or("-".into(), seconds);
        let which =
            if part.parts > 1 { format!(", part {} of {}", part.part_number, part.parts) } else { String::new() };
        text.push_str(&format!(
            "copying  {}{which}: {} of {}, {rate}, {left} left\n",
            part.table,
            bytes(part.bytes_done),
            bytes(part.bytes)
        ));
    }
    for step in &status.building {
        let done = step.done.map_or(String::new(), |done| format!(", {:.0} %", done * 100.0));
        text.push_str(&format!("building {} {}: {}{done}\n", step.kind, step.name, seconds(step.seconds)));
    }
    if let Some(source) = &status.source {
        for (_, line) in source_lines(source, p) {
            text.push_str(&format!("source   {}\n", line.trim_start_matches("source: ")));
        }
    }
    text.extend(limits(p).map(|limits| format!("limits   {limits}\n")));
    text.extend(p.gives_way.as_ref().map(|why| format!("gives way: {why}\n")));
    if let Some(way_back) = &p.way_back {
        text.push_str(&format!("way back {way_back}; how far it is says `pgmig status --target SOURCE`\n"));
    }
    if p.steps_failed > 0 {
        text.push_str(&format!(
            "failed   {} objects: select * from pgmig.steps where state = 'failed'\n",
            p.steps_failed
        ));
    }
    if p.conflicts > 0 {
        text.push_str(&format!("conflict {} changes were passed over: select * from pgmig.conflicts\n", p.conflicts));
    }
    if let Some(error) = &p.last_error {
        text.push_str(&format!("error    {error}\n"));
    }
    match abandoned(status) {
        None => text.push_str(&format!("next     {}\n", next(p))),
        Some(line) => text.push_str(&format!("warning  {line}\nnext     {GO_ON_OR_GIVE_UP}\n")),
    }
    text
}

pub const GO_ON_OR_GIVE_UP: &str =
    "`pgmig run` goes on with it; `pgmig cleanup --force` gives it up, and the slot with it";

/// A migration that nobody runs, and what that costs the source.
pub fn abandoned(status: &Status) -> Option<String> {
    let seconds = status.unused_seconds.filter(|_| status.abandoned)?;
    let age = units::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default());
    let kept = match status.source.as_ref().and_then(|source| source.retained_bytes) {
        Some(bytes) => format!("keeps {} of WAL on the source", units::bytes(bytes.max(0) as u64)),
        None => "keeps WAL on the source (how much: --source)".into(),
    };
    Some(format!("nobody has run it for {age}; its slot `{}` {kept}", status.progress.slot_name))
}

/// How well a migration is.
pub enum Health {
    Good,
    Warn,
    Bad,
}

/// Whether it moves, in a word or two.
pub fn state(p: &Progress) -> (Health, &'static str) {
    match (p.phase.as_str(), p.running) {
        ("done", _) => (Health::Good, "done"),
        ("failed", true) => (Health::Warn, "running again"),
        ("failed", false) => (Health::Bad, "failed, not running"),
        ("paused", true) => (Health::Warn, "apply is held back"),
        (_, true) if p.stop.is_some() => (Health::Warn, "stopping"),
        (_, true) => (Health::Good, "running"),
        (_, false) => (Health::Bad, "not running"),
    }
}

/// What the last comparison came to, and how far one is that runs.
pub fn verified(status: &Status) -> Option<String> {
    let found = status.verified.as_ref()?;
    if let Some(percent) = found.running_percent {
        let left = found.seconds_left.and_then(|left| Duration::try_from_secs_f64(left).ok());
        let left = left.map_or(String::new(), |left| format!(", {} left", units::duration(left)));
        return Some(format!("{percent:.0} % compared{left}"));
    }
    let differ = match found.differences? {
        0 => "nothing differs".to_string(),
        1 => "1 difference: `pgmig verify`".to_string(),
        count => format!("{count} differences: `pgmig verify`"),
    };
    let at = found.at?.strftime("%Y-%m-%d %H:%M:%S UTC");
    Some(format!("{:.0} % of the tables are equal, {differ} ({at})", found.percent?))
}

/// What people allow the copy to ask of the source, if that is less than all.
pub fn limits(p: &Progress) -> Option<String> {
    let rate = p.max_rate.map(|rate| format!("at most {}/s", units::bytes(rate.max(0) as u64)));
    let sessions = p.max_source_connections.map(|most| format!("at most {most} sessions with the source"));
    let slower = p.max_slowdown.map(|percent| format!("at most {percent} % slower"));
    let lag = p.max_standby_lag_seconds.and_then(|lag| Duration::try_from_secs_f64(lag).ok());
    let standbys = lag.map(|lag| format!("standbys at most {} behind", units::duration(lag)));
    let limits: Vec<String> = [rate, sessions, slower, standbys].into_iter().flatten().collect();
    (!limits.is_empty()).then(|| limits.join(", "))
}

/// What the source says, and whether it needs somebody.
pub fn source_lines(source: &SourceHealth, p: &Progress) -> Vec<(bool, String)> {
    let bytes = |bytes: i64| units::bytes(bytes.max(0) as u64);
    let mut lines = Vec::new();
    if p.follow {
        lines.push(match source.wal_status.as_deref() {
            None if p.phase == "planned" || p.phase == "done" => (false, "source: no slot".into()),
            None => (true, format!("source: slot `{}` is gone", p.slot_name)),
            Some(status) => (
                matches!(status, "unreserved" | "lost"),
                format!(
                    "source: slot {status}{}, keeps {} of WAL, {}",
                    if source.active { "" } else { ", not read" },
                    source.retained_bytes.map_or("?".into(), bytes),
                    source.safe_bytes.map_or("no limit".into(), |safe| format!("{} more are safe", bytes(safe)))
                ),
            ),
        });
    }
    if let Some(oldest) = &source.oldest_snapshot {
        let age = units::duration(Duration::try_from_secs_f64(oldest.seconds.max(0.0)).unwrap_or_default());
        let who = if oldest.application.is_empty() { String::new() } else { format!(", {}", oldest.application) };
        let behind = source
            .oldest_xmin_age
            .map_or(String::new(), |age| format!(", {} transactions back", units::count(age.max(0) as u64)));
        lines.push((false, format!("source: oldest snapshot {age}{behind} (pid {}{who})", oldest.pid)));
    }
    lines
}

/// What a person does next.
pub fn next(p: &Progress) -> &'static str {
    match (p.way_back.as_deref(), p.is_way_back) {
        (Some("open"), _) => {
            return "`pgmig run` keeps the way back; `pgmig cutover --back` takes it, `pgmig cleanup` gives it up";
        }
        (Some(_), _) => return "the application is back on the source: `pgmig cleanup`",
        (None, true) if p.running && p.phase == "follow" => {
            return "`pgmig cutover --back`, with source and target as they were, goes back";
        }
        _ => {}
    }
    match p.phase.as_str() {
        "failed" | "done" => {}
        _ if !p.running => return "`pgmig run` goes on with it",
        _ => {}
    }
    match p.phase.as_str() {
        "done" => "point the application at the target, then `pgmig cleanup`",
        "failed" => "mend what the error says, then `pgmig run` again",
        "paused" => "`pgmig resume`",
        "follow" if p.endpos.is_some() => "wait: it ends by itself at endpos",
        "follow" => "stop writes on the source, then `pgmig set-endpos --current`",
        "catchup" => "wait: the source's changes are being applied",
        _ => "wait",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::{OldestSnapshot, Verified};

    #[test]
    fn a_following_migration_says_where_it_is_and_what_comes_next() {
        let progress = Progress {
            migration: "default".into(),
            phase: "follow".into(),
            interrupted_phase: None,
            tables_done: 38,
            tables_total: 38,
            bytes_done: 214 << 30,
            bytes_total: 214 << 30,
            copy_bytes_per_second: Some(1 << 20),
            steps_done: 70,
            steps_total: 71,
            steps_failed: 0,
            startpos: Some(Lsn(1)),
            write_lsn: Some(Lsn(0x5A3C1D8)),
            flush_lsn: Some(Lsn(0x5A3C1D8)),
            replay_lsn: Some(Lsn(0x5A28F10)),
            source_lsn: Some(Lsn(0x5A3C1D8)),
            lag_bytes: Some(1258291),
            lag_seconds: Some(0.4),
            spool_bytes: 2048,
            applied_transactions: 10,
            applied_rows: 1234567,
            endpos: None,
            apply: true,
            eta_seconds: None,
            last_error: None,
            plugin: "wal2json".into(),
            slot_name: "pgmig_default".into(),
            conflicts: 3,
            follow: true,
            running: true,
            replay_bytes_per_second: Some(2 << 20),
            source_bytes_per_second: Some(1 << 20),
            catch_up_seconds: Some(1.2),
            max_rate: None,
            max_source_connections: None,
            max_slowdown: None,
            max_standby_lag_seconds: None,
            gives_way: None,
            stop: None,
            way_back: None,
            is_way_back: false,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            done_at: None,
            retries: 2,
        };
        let expected = "\
migration `default`
phase    follow                 lag     1.2 MiB, 0.4 s
tables   38 of 38               copy    214.0 GiB of 214.0 GiB
objects  70 of 71               retries 2
write    0/5A3C1D8              source  0/5A3C1D8
replay   0/5A28F10              endpos  open
applied  1,234,567 rows         spool   2.0 KiB
stream   2.0 MiB/s applied, 1.0 MiB/s written on the source, 1.2 s to catch up
verified 97 % of the tables are equal, 1 difference: `pgmig verify` (1970-01-01 00:00:00 UTC)
caught up
source   slot extended, keeps 3.0 GiB of WAL, 1.0 GiB more are safe
source   oldest snapshot 3 min 05 s, 12,345 transactions back (pid 7, psql)
conflict 3 changes were passed over: select * from pgmig.conflicts
next     stop writes on the source, then `pgmig set-endpos --current`
";
        let status = Status {
            progress,
            caught_up: Some(true),
            tables: Vec::new(),
            copying: Vec::new(),
            building: Vec::new(),
            stages: Vec::new(),
            failed: Vec::new(),
            activity: Vec::new(),
            verified: Some(Verified {
                at: Some(jiff::Timestamp::UNIX_EPOCH),
                percent: Some(97.3),
                differences: Some(1),
                ..Verified::default()
            }),
            source: Some(SourceHealth {
                wal_status: Some("extended".into()),
                active: true,
                retained_bytes: Some(3 << 30),
                safe_bytes: Some(1 << 30),
                oldest_snapshot: Some(OldestSnapshot { pid: 7, application: "psql".into(), seconds: 185.0 }),
                oldest_xmin_age: Some(12345),
            }),
            unused_seconds: None,
            abandoned: false,
        };
        assert_eq!(table(&status), expected);

        let mut status = status;
        status.progress.phase = "copy".into();
        status.progress.eta_seconds = Some(185.0);
        status.verified =
            Some(Verified { running_percent: Some(43.0), seconds_left: Some(12.0), ..Verified::default() });
        let text = table(&status);
        assert!(text.contains("copy    214.0 GiB of 214.0 GiB, 1.0 MiB/s, 3 min 05 s left\n"), "{text}");
        assert!(text.contains("verified 43 % compared, 12 s left\n"), "{text}");

        let mut left = Status { unused_seconds: Some(90_000.0), ..status };
        assert!(!left.is_abandoned(60.0), "somebody reads the slot");
        left.source.as_mut().unwrap().active = false;
        assert!(!left.is_abandoned(90_001.0));
        left.abandoned = left.is_abandoned(90_000.0);
        let warned = "warning  nobody has run it for 1 d 01 h; its slot `pgmig_default` keeps 3.0 GiB of WAL on the source\n\
                      next     `pgmig run` goes on with it; `pgmig cleanup --force` gives it up, and the slot with it\n";
        assert!(table(&left).ends_with(warned), "{}", table(&left));
    }
}
