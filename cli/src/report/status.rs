//! The table of `pgmig status`, readable from across the room. Pure.

use std::time::Duration;

use super::units;
use crate::model::{Lsn, Progress};

/// Two columns of label and value, then the next step.
pub fn table(p: &Progress) -> String {
    let lsn = |lsn: Option<Lsn>| lsn.map_or("-".to_string(), |lsn| lsn.to_string());
    let seconds = |seconds: f64| units::duration(Duration::from_secs_f64(seconds.max(0.0)));
    let bytes = |bytes: i64| units::bytes(bytes.max(0) as u64);
    let phase = match &p.interrupted_phase {
        Some(at) => format!("{} in {at}", p.phase),
        None => p.phase.clone(),
    };
    let lag = match (p.lag_bytes, p.lag_seconds) {
        (Some(lag), Some(late)) => format!("{}, {}", bytes(lag), seconds(late)),
        (Some(lag), None) => bytes(lag),
        _ => "-".into(),
    };
    let copy = match (p.phase.as_str(), p.copy_bytes_per_second) {
        ("copy", Some(rate)) => format!("{} of {}, {}/s", bytes(p.bytes_done), bytes(p.bytes_total), bytes(rate)),
        _ => format!("{} of {}", bytes(p.bytes_done), bytes(p.bytes_total)),
    };
    let eta = p.eta_seconds.map_or("-".into(), seconds);
    let rows: [[String; 4]; 6] = [
        ["phase".into(), phase, "lag".into(), lag],
        ["tables".into(), format!("{} of {}", p.tables_done, p.tables_total), "copy".into(), copy],
        ["objects".into(), format!("{} of {}", p.steps_done, p.steps_total), "left".into(), eta],
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
    let mut text = format!("migration `{}`\n", p.migration);
    for [a, b, c, d] in rows {
        text.push_str(format!("{a:<8} {b:<width$}   {c:<7} {d}").trim_end());
        text.push('\n');
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
    text.push_str(&format!("next     {}\n", next(p)));
    text
}

fn next(p: &Progress) -> &'static str {
    match p.phase.as_str() {
        "done" => "point the application at the target, then `pgmig cleanup`",
        "failed" => "mend what the error says, then `pgmig run` again",
        "paused" => "`select pgmig.resume()` on the target",
        "follow" if p.endpos.is_some() => "wait: it ends by itself at endpos",
        "follow" => "stop writes on the source, then `pgmig set-endpos --current`",
        "catchup" => "wait: the source's changes are being applied",
        _ => "wait",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            stop: None,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            done_at: None,
        };
        let expected = "\
migration `default`
phase    follow                 lag     1.2 MiB, 0.4 s
tables   38 of 38               copy    214.0 GiB of 214.0 GiB
objects  70 of 71               left    -
write    0/5A3C1D8              source  0/5A3C1D8
replay   0/5A28F10              endpos  open
applied  1,234,567 rows         spool   2.0 KiB
conflict 3 changes were passed over: select * from pgmig.conflicts
next     stop writes on the source, then `pgmig set-endpos --current`
";
        assert_eq!(table(&progress), expected);
    }
}
