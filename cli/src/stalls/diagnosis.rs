//! From what was seen to one line and one statement. Pure.

use std::time::Duration;

use crate::model::stall::{Blocked, Cause, Diagnosis, Holder, Mend, Seen, Vacuum, Waits, Watched, Work};
use crate::model::{Place, Progress};
use crate::report::units;

/// Less than this that waits to be applied is not worth a word.
const LITTLE: i64 = 1 << 20;
/// Sessions that are seen to wait for one thing this often are held up by it.
const MOSTLY: f64 = 0.5;

/// What the migration waits for; what stops it altogether comes first.
pub fn diagnosis(watched: &Watched) -> Diagnosis {
    let p = &watched.after;
    not_meant_to_move(p)
        .or_else(|| slot(watched))
        .or_else(|| lock(Place::Target, &watched.target))
        .or_else(|| watched.source.as_ref().and_then(|seen| lock(Place::Source, seen)))
        .or_else(|| limit(watched))
        .or_else(|| slow(watched))
        .unwrap_or_else(|| nothing(watched))
}

fn found(cause: Cause, stalled: bool, text: impl Into<String>, mend: Option<(Place, String)>) -> Diagnosis {
    let mend = mend.map(|(place, statement)| Mend { place, statement });
    Diagnosis { cause, stalled, text: text.into(), mend }
}

fn not_meant_to_move(p: &Progress) -> Option<Diagnosis> {
    let here = |command: &str| Some((Place::Here, command.to_string()));
    match p.phase.as_str() {
        "done" => Some(found(Cause::Nothing, false, "nothing is stalled: the migration is done", None)),
        _ if !p.running => {
            let why = p.last_error.as_ref().map_or(String::new(), |error| format!("; it ended with: {error}"));
            Some(found(Cause::NotRunning, true, format!("no run of it is alive{why}"), here("pgmig run")))
        }
        "paused" => Some(found(Cause::Paused, true, "apply is held back by pgmig pause", here("pgmig resume"))),
        _ if p.stop.is_some() => Some(found(Cause::Nothing, false, "the run was asked to stop, and is ending", None)),
        _ => None,
    }
}

fn slot(watched: &Watched) -> Option<Diagnosis> {
    let (p, health) = (&watched.after, watched.health.as_ref()?);
    if !p.follow || p.phase == "planned" {
        return None;
    }
    let again = Some((Place::Here, "pgmig cleanup --force".to_string()));
    match health.wal_status.as_deref() {
        None => Some(found(Cause::Slot, true, format!("slot `{}` is gone from the source", p.slot_name), again)),
        Some("lost") => Some(found(
            Cause::Slot,
            true,
            format!("the source has thrown away WAL that slot `{}` needs", p.slot_name),
            again,
        )),
        // What was received may still be applied; new changes do not come.
        Some(_) if !health.active && behind_source(p) > LITTLE => Some(found(
            Cause::Slot,
            true,
            format!("nobody reads slot `{}`: the run is connecting again, or its spool is full", p.slot_name),
            Some((Place::Here, "pgmig status --watch".into())),
        )),
        Some(_) => None,
    }
}

/// The first of those who hold what sessions of pgmig wait for.
fn lock(place: Place, seen: &Seen) -> Option<Diagnosis> {
    // A session of ours that waits for another one of ours waits for work.
    let holder = seen.holders.iter().find(|holder| !holder.ours())?;
    let behind: Vec<&Blocked> = seen.blocked.iter().filter(|b| b.holders.contains(&holder.pid)).collect();
    let first = behind.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
    let others = match behind.len() - 1 {
        0 => String::new(),
        1 => " and another session".into(),
        more => format!(" and {more} others"),
    };
    let mut on: Vec<&str> = behind.iter().map(|blocked| blocked.on.as_str()).collect();
    on.sort_unstable();
    on.dedup();
    let text = format!(
        "{}{others} {} for {} on the {}, which {} holds",
        first.name,
        if behind.len() == 1 { "waits" } else { "wait" },
        match on.as_slice() {
            [one] if *one == "the end of a transaction" => one.to_string(),
            [one] => format!("a lock on {one}"),
            several => format!("locks on {}", several.join(", ")),
        },
        if place == Place::Target { "target" } else { "source" },
        who(holder)
    );
    Some(found(Cause::Lock, true, text, Some((place, mend(holder)))))
}

/// A holder as people tell sessions apart.
fn who(holder: &Holder) -> String {
    let seconds = |seconds: f64| units::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default());
    if let Some(gid) = &holder.prepared {
        return format!("the prepared transaction '{gid}', {} old,", seconds(holder.transaction_seconds));
    }
    let name = match (holder.backend.as_str(), holder.application.as_str()) {
        ("client backend" | "", "") => holder.role.clone(),
        ("client backend" | "", application) => format!("{application}, {}", holder.role),
        (backend, _) => backend.to_string(),
    };
    let doing = match holder.state.as_str() {
        "" => String::new(),
        "active" => format!(", active for {}", seconds(holder.query_seconds)),
        state => format!(", {state} for {}", seconds(holder.transaction_seconds)),
    };
    format!("pid {} ({name}{doing})", holder.pid)
}

fn mend(holder: &Holder) -> String {
    match (&holder.prepared, holder.state.as_str()) {
        (Some(gid), _) => format!("rollback prepared '{}';", gid.replace('\'', "''")),
        (None, "active") => format!("select pg_cancel_backend({});", holder.pid),
        (None, _) => format!("select pg_terminate_backend({});", holder.pid),
    }
}

/// The copy goes as fast as it may.
fn limit(watched: &Watched) -> Option<Diagnosis> {
    let p = &watched.after;
    if let Some(why) = p.gives_way.as_ref().filter(|_| p.phase == "copy") {
        let lift = Some((Place::Here, "pgmig throttle --max-slowdown 0 --max-standby-lag 0".to_string()));
        return Some(found(Cause::Limit, false, format!("the copy gives way: {why}"), lift));
    }
    let limit = p.max_rate?;
    let lift = Some((Place::Here, "pgmig throttle --max-rate 0".to_string()));
    let waits = watched.target.of(Work::Copy)?;
    (p.phase == "copy" && waits.share(&["Client: ClientRead", "idle"]) > MOSTLY).then(|| {
        let text = format!("the copy keeps to --max-rate, {}/s", units::bytes(limit.max(0) as u64));
        found(Cause::Limit, false, text, lift)
    })
}

/// WAL of the source that has not come in.
fn behind_source(p: &Progress) -> i64 {
    p.source_lsn.zip(p.write_lsn).map_or(0, |(source, write)| source.bytes_since(write) as i64)
}

/// Nothing is in the way: then one of the servers, or the line between them, does all it can.
fn slow(watched: &Watched) -> Option<Diagnosis> {
    let p = &watched.after;
    match p.phase.as_str() {
        "copy" => watched.target.of(Work::Copy).map(|waits| copy(watched, waits)),
        "catchup" | "follow" | "cutover" if p.spool_bytes > LITTLE => {
            watched.target.of(Work::Apply).map(|waits| apply(watched, waits))
        }
        "catchup" | "follow" | "cutover" if behind_source(p) > LITTLE => stream(watched),
        _ => None,
    }
    .or_else(|| build(watched))
}

/// Many small objects are made one after the other: most of that time nobody waits for a server.
fn build(watched: &Watched) -> Option<Diagnosis> {
    let waits = watched.target.of(Work::Build)?;
    (waits.share(&["Client: ClientRead", "idle"]) < MOSTLY).then(|| on_target(watched, "objects are being made", waits))
}

fn copy(watched: &Watched, waits: &Waits) -> Diagnosis {
    let rate = units::bytes(rate(watched.before.bytes_done, watched.after.bytes_done, watched.seconds));
    let stalled = watched.after.bytes_done == watched.before.bytes_done;
    let moves = match (stalled, watched.still.as_slice()) {
        (true, _) => "the copy does not move".to_string(),
        (false, []) => format!("the copy moves at {rate}/s"),
        (false, still) => format!("the copy moves at {rate}/s, but not {}", still.join(", ")),
    };
    if waits.share(&["Client: ClientRead", "idle"]) < MOSTLY {
        return Diagnosis { stalled, ..on_target(watched, &moves, waits) };
    }
    let Some(source) = watched.source.as_ref().and_then(|seen| seen.of(Work::Copy)) else {
        let text =
            format!("{moves}: the target waits for rows; give --source to see whether the source or the line is slow");
        return found(Cause::Source, stalled, text, None);
    };
    if source.share(&["Client: ClientWrite"]) >= MOSTLY {
        return found(
            Cause::Line,
            stalled,
            format!("{moves}: both servers wait for what is between them, the network or this machine"),
            None,
        );
    }
    found(Cause::Source, stalled, format!("{moves}: the target waits for rows, {}", busy("source", source)), None)
}

/// Why one Part moves no byte; `target` and `source` are what was seen of its own two sessions.
pub fn of_part(target: &Seen, source: Option<&Seen>) -> Diagnosis {
    let locked = || lock(Place::Target, target).or_else(|| lock(Place::Source, source?));
    if let Some(locked) = locked() {
        return locked;
    }
    let still = |cause: Cause, text: String| found(cause, true, text, None);
    let Some(waits) = target.of(Work::Copy) else {
        return still(Cause::Line, "its session on the target is gone; its worker does not know yet".into());
    };
    if waits.share(&["Client: ClientRead", "idle"]) < MOSTLY {
        return still(Cause::Target, busy("target", waits));
    }
    let waits_for_rows = |of: String| format!("the target waits for rows, {of}");
    let Some(source) = source else {
        return still(Cause::Source, waits_for_rows("and the source does not answer".into()));
    };
    match source.of(Work::Copy) {
        None => still(Cause::Line, waits_for_rows("and its session on the source is gone".into())),
        // It has sent, or would send, what does not come out of the other end.
        Some(waits) if waits.share(&["Client: ", "idle"]) >= MOSTLY => {
            still(Cause::Line, "both servers wait for what is between them, the network or this machine".into())
        }
        Some(waits) => still(Cause::Source, waits_for_rows(busy("source", waits))),
    }
}

fn apply(watched: &Watched, waits: &Waits) -> Diagnosis {
    let p = &watched.after;
    let stalled = p.replay_lsn == watched.before.replay_lsn && p.applied_rows == watched.before.applied_rows;
    let moves = format!("{} wait to be applied", units::bytes(p.spool_bytes.max(0) as u64));
    if waits.share(&["Client: ClientRead", "idle"]) < MOSTLY {
        return Diagnosis { stalled: false, ..on_target(watched, &moves, waits) };
    }
    found(
        Cause::Line,
        stalled,
        format!("{moves}, and the target waits for them: the network or this machine is slow"),
        None,
    )
}

fn stream(watched: &Watched) -> Option<Diagnosis> {
    let behind = format!("{} of the source's WAL are not received", units::bytes(behind_source(&watched.after) as u64));
    let Some(waits) = watched.source.as_ref().and_then(|seen| seen.of(Work::Stream)) else {
        let text = format!("{behind}; give --source to see what its walsender does");
        return Some(found(Cause::Source, false, text, None));
    };
    if waits.share(&["Client: WalSenderWriteData", "Client: ClientWrite"]) >= MOSTLY {
        let text =
            format!("{behind}: the walsender waits for the network, or for this machine to take more (--spool-limit)");
        return Some(found(Cause::Line, false, text, None));
    }
    // It has decoded all there is, and waits for the next.
    if waits.share(&["Activity: ", "Client: WalSenderWaitForWAL", "Client: WalSenderWaitForWal"]) >= MOSTLY {
        return None;
    }
    Some(found(Cause::Source, false, format!("{behind}: {}", busy("source", waits)), None))
}

/// The target is what takes the time; a vacuum of what is written takes its part.
fn on_target(watched: &Watched, moves: &str, waits: &Waits) -> Diagnosis {
    let disk = waits.share(&["IO: ", "LWLock: "]) > waits.share(&["running"]);
    let of_ours = |vacuum: &&Vacuum| watched.copying.contains(&vacuum.relation) || watched.copying.is_empty();
    if let Some(vacuum) = watched.target.vacuums.iter().find(of_ours).filter(|_| disk) {
        let text = format!("{moves}, beside a vacuum of {} on the target (pid {})", vacuum.relation, vacuum.pid);
        let statement = match (vacuum.automatic, vacuum.against_wraparound) {
            (true, false) => format!("alter table {} set (autovacuum_enabled = off);", vacuum.relation),
            // It comes again, and is needed.
            (true, true) => "alter system set autovacuum_vacuum_cost_delay = '20ms'; select pg_reload_conf();".into(),
            (false, _) => format!("select pg_cancel_backend({});", vacuum.pid),
        };
        return found(Cause::Vacuum, false, text, Some((Place::Target, statement)));
    }
    let top = waits.events.first().map_or("", |(event, _)| event.as_str());
    let statement = match top {
        "IO: WALSync" | "IO: WALWrite" | "LWLock: WALWrite" | "IO: WalSync" | "IO: WalWrite" => {
            Some("alter system set max_wal_size = '16GB'; select pg_reload_conf();")
        }
        _ => None,
    };
    let mend = statement.map(|statement| (Place::Target, statement.to_string()));
    found(Cause::Target, false, format!("{moves}: {}", busy("target", waits)), mend)
}

/// What a server that is not waited for by anybody spends its time with.
fn busy(server: &str, waits: &Waits) -> String {
    let Some((event, share)) = waits.events.first() else { return format!("the {server} is at work") };
    let share = share * 100.0;
    match event.as_str() {
        "running" => format!("the CPUs of the {server} are what limits it ({share:.0} % running)"),
        "IPC: SyncRep" => format!("the {server} waits for its synchronous standby ({share:.0} % {event})"),
        event if event.starts_with("IO: ") => {
            format!("the disks of the {server} are what limits it ({share:.0} % {event})")
        }
        event => format!("the {server} is what limits it ({share:.0} % {event})"),
    }
}

fn nothing(watched: &Watched) -> Diagnosis {
    let p = &watched.after;
    let text = match p.phase.as_str() {
        "follow" | "catchup" | "cutover" => match p.lag_bytes {
            Some(lag) if lag <= LITTLE => "nothing is stalled: every change that came is applied".to_string(),
            Some(lag) => format!("nothing is stalled: {} behind the source", units::bytes(lag.max(0) as u64)),
            None => "nothing is stalled".into(),
        },
        phase => format!("nothing is stalled in phase {phase}"),
    };
    found(Cause::Nothing, false, text, None)
}

fn rate(before: i64, after: i64, seconds: f64) -> u64 {
    ((after - before).max(0) as f64 / seconds.max(0.001)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(work: Work, events: &[(&str, f64)]) -> Waits {
        Waits { work, sessions: 4, events: events.iter().map(|(event, share)| (event.to_string(), *share)).collect() }
    }

    fn seen(waits: Waits) -> Seen {
        Seen { waits: vec![waits], ..Seen::default() }
    }

    fn watched(phase: &str, spool_bytes: i64, target: Seen, source: Option<Seen>) -> Watched {
        let mut after = Progress { spool_bytes, ..Progress::sample(phase) };
        let before = after.clone();
        after.bytes_done += 20 << 20;
        after.applied_rows += 1;
        let (growth, source_growth, health) = (None, None, None);
        let (copying, still) = (Vec::new(), Vec::new());
        Watched { growth, source_growth, before, after, seconds: 2.0, target, source, health, copying, still }
    }

    fn says(watched: &Watched) -> (Cause, bool, String, String) {
        let Diagnosis { cause, stalled, text, mend } = diagnosis(watched);
        (cause, stalled, text, mend.map_or(String::new(), |mend| mend.in_words()))
    }

    #[test]
    fn a_copy_says_which_side_takes_the_time() {
        let idle = || seen(waits(Work::Copy, &[("Client: ClientRead", 0.9), ("running", 0.1)]));
        let source = |event: &str| Some(seen(waits(Work::Copy, &[(event, 0.8), ("Client: ClientWrite", 0.2)])));
        let text = |source| says(&watched("copy", 0, idle(), source)).2;
        assert_eq!(
            text(source("IO: DataFileRead")),
            "the copy moves at 10.0 MiB/s: the target waits for rows, the disks of the source are what limits it (80 % IO: DataFileRead)"
        );
        assert_eq!(
            text(source("Client: ClientWrite")),
            "the copy moves at 10.0 MiB/s: both servers wait for what is between them, the network or this machine"
        );
        let busy = seen(waits(Work::Copy, &[("running", 0.95)]));
        let mut one_stands = watched("copy", 0, busy, None);
        one_stands.still = vec!["public.big 3/7".into()];
        let (cause, stalled, text, _) = says(&one_stands);
        assert_eq!((cause, stalled), (Cause::Target, false));
        assert_eq!(
            text,
            "the copy moves at 10.0 MiB/s, but not public.big 3/7: the CPUs of the target are what limits it (95 % running)"
        );
    }

    #[test]
    fn a_vacuum_is_blamed_only_where_the_disks_are_what_is_waited_for() {
        let vacuum = |automatic, against_wraparound| Vacuum {
            pid: 7,
            relation: "public.big".into(),
            phase: "scanning heap".into(),
            done: Some(0.5),
            automatic,
            against_wraparound,
            seconds: 60.0,
        };
        let with = |event: &str, vacuum: Vacuum| {
            let mut target = seen(waits(Work::Copy, &[(event, 0.9), ("running", 0.1)]));
            target.vacuums = vec![vacuum];
            says(&watched("copy", 0, target, None))
        };
        let (cause, stalled, text, mend) = with("IO: DataFileWrite", vacuum(true, false));
        assert_eq!((cause, stalled), (Cause::Vacuum, false));
        assert_eq!(text, "the copy moves at 10.0 MiB/s, beside a vacuum of public.big on the target (pid 7)");
        assert_eq!(mend, "on the target: alter table public.big set (autovacuum_enabled = off);");
        let (_, _, _, mend) = with("IO: DataFileWrite", vacuum(true, true));
        assert!(mend.contains("autovacuum_vacuum_cost_delay"), "{mend}");
        let (_, _, _, mend) = with("IO: DataFileWrite", vacuum(false, false));
        assert_eq!(mend, "on the target: select pg_cancel_backend(7);");
        assert_eq!(with("IPC: SyncRep", vacuum(true, false)).0, Cause::Target);
    }

    #[test]
    fn changes_that_wait_say_what_they_wait_for_until_the_end_of_a_cutover() {
        for phase in ["catchup", "follow", "cutover"] {
            let slow = seen(waits(Work::Apply, &[("running", 0.9)]));
            let (cause, _, text, _) = says(&watched(phase, 64 << 20, slow, None));
            assert_eq!(cause, Cause::Target);
            assert_eq!(text, "64.0 MiB wait to be applied: the CPUs of the target are what limits it (90 % running)");
            let starved = seen(waits(Work::Apply, &[("Client: ClientRead", 0.9)]));
            assert_eq!(says(&watched(phase, 64 << 20, starved, None)).0, Cause::Line);
            // Not received yet: what the walsender does.
            let walsender = |event| Some(seen(waits(Work::Stream, &[(event, 1.0)])));
            let behind = |source| {
                let mut watched = watched(phase, 0, Seen::default(), source);
                watched.after.write_lsn = "0/1".parse().ok();
                says(&watched)
            };
            assert_eq!(behind(walsender("IO: WALRead")).0, Cause::Source);
            assert_eq!(behind(walsender("Client: WalSenderWriteData")).0, Cause::Line);
            assert!(behind(None).2.contains("give --source"));
            assert_eq!(behind(walsender("Activity: WalSenderMain")).0, Cause::Nothing);
        }
    }

    #[test]
    fn one_part_says_which_of_its_two_sessions_waits() {
        let part = |target: Option<&str>, source: Option<Option<&str>>| {
            let one =
                |event: Option<&str>| event.map_or(Seen::default(), |event| seen(waits(Work::Copy, &[(event, 1.0)])));
            let found = of_part(&one(target), source.map(one).as_ref());
            assert!(found.stalled && found.mend.is_none());
            (found.cause, found.text)
        };
        let rows = "Client: ClientRead";
        let cases = [
            (part(None, None), Cause::Line, "its session on the target is gone; its worker does not know yet"),
            (
                part(Some("IO: DataFileExtend"), None),
                Cause::Target,
                "the disks of the target are what limits it (100 % IO: DataFileExtend)",
            ),
            (part(Some(rows), None), Cause::Source, "the target waits for rows, and the source does not answer"),
            (
                part(Some(rows), Some(None)),
                Cause::Line,
                "the target waits for rows, and its session on the source is gone",
            ),
            (
                part(Some(rows), Some(Some("Client: ClientWrite"))),
                Cause::Line,
                "both servers wait for what is between them, the network or this machine",
            ),
            (
                part(Some(rows), Some(Some("IO: DataFileRead"))),
                Cause::Source,
                "the target waits for rows, the disks of the source are what limits it (100 % IO: DataFileRead)",
            ),
        ];
        for ((cause, text), expected, words) in cases {
            assert_eq!((cause, text.as_str()), (expected, words));
        }
    }
}
