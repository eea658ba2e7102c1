//! Pages of migrations that are made up: a very large one, and one of which hardly anything is known.

use jiff::{SignedDuration, Timestamp};

use super::html;
use crate::model::history::{CutoverStep, Event, Facts, History, Objects, RunStart, SPANS, Sample, Span, Table};
use crate::model::{LeftOut, Lsn, Progress, What};

fn at(second: f64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs_f64(second)
}

fn progress() -> Progress {
    Progress {
        migration: "large".into(),
        phase: "follow".into(),
        interrupted_phase: None,
        tables_done: 20_000,
        tables_total: 20_000,
        bytes_done: 9 << 40,
        bytes_total: 9 << 40,
        copy_bytes_per_second: None,
        steps_done: 80_000,
        steps_total: 80_010,
        steps_failed: 1,
        startpos: Some(Lsn(1)),
        write_lsn: None,
        flush_lsn: None,
        replay_lsn: None,
        source_lsn: None,
        lag_bytes: Some(1234),
        lag_seconds: Some(0.5),
        spool_bytes: 0,
        applied_transactions: 5_000_000,
        applied_rows: 70_000_000,
        endpos: None,
        apply: true,
        eta_seconds: None,
        last_error: None,
        plugin: "pgoutput".into(),
        slot_name: "pgmig_large".into(),
        conflicts: 0,
        follow: true,
        running: true,
        replay_bytes_per_second: None,
        source_bytes_per_second: None,
        catch_up_seconds: None,
        max_rate: None,
        max_source_connections: None,
        max_slowdown: None,
        max_standby_lag_seconds: None,
        gives_way: None,
        stop: None,
        started_at: at(0.0),
        done_at: None,
        retries: 0,
        is_way_back: false,
        way_back: None,
    }
}

/// A copy of two days by sixteen workers, then a month of following.
fn large() -> History {
    let span = |stage: &str, name: String, from: f64, took: f64| Span {
        stage: stage.into(),
        name,
        count: 1,
        bytes: (took * 5e7) as i64,
        rows: (took * 4e5) as i64,
        started_at: at(from),
        finished_at: Some(at(from + took)),
    };
    let took = |n: usize| 172_000.0 * 16.0 / 2500.0 * (0.3 + 1.4 * ((n * 7919) % 1000) as f64 / 1000.0);
    let mut free = [60.0f64; 16];
    let parts = (0..SPANS).map(|n| {
        let worker = (0..16).min_by(|a, b| free[*a].total_cmp(&free[*b])).unwrap();
        free[worker] += took(n);
        span("copy", format!("app.measurement_of_a_long_name_{}", n % 300), free[worker] - took(n), took(n))
    });
    let parts: Vec<Span> = parts.collect();
    let steps = (0..SPANS).map(|n| {
        let stage = ["schema", "index", "constraint", "foreign_key"][n % 4];
        let from = match stage {
            "schema" => n as f64 / 50.0,
            "foreign_key" => 180_000.0 + n as f64,
            _ => 60.0 + (n / 4) as f64 * 270.0,
        };
        span(
            stage,
            format!("index app.i_{n}"),
            from,
            if stage == "schema" { 0.02 } else { 200.0 + (n % 9) as f64 * 90.0 },
        )
    });
    let event = |second: f64, message: &str| Event { at: at(second), level: "info".into(), message: message.into() };
    let table = |n: i64| Table {
        name: format!("app.table_{n}"),
        parts: 1,
        done: true,
        bytes: (9 << 40) / (n + 1),
        copied_bytes: (8 << 40) / (n + 1),
        rows: 1_000_000_000 / (n + 1),
        seconds: Some(90_000.0 / (n + 1) as f64),
    };
    let step = |attempt, step: &str, from: f64, took: f64, state: &str| CutoverStep {
        attempt,
        step: step.into(),
        stops_writes: !matches!(step, "check" | "prepare"),
        state: state.into(),
        message: "apply lags 1.2 KiB".into(),
        started_at: at(2_000_000.0 + from),
        finished_at: Some(at(2_000_000.0 + from + took)),
    };
    let facts = Facts {
        read_at: at(2_700_000.0),
        progress: progress(),
        copied_rows: 123_456_789_012,
        copied_bytes: 8 << 40,
        copy_started_at: Some(at(60.0)),
        copy_finished_at: Some(at(172_800.0)),
        target_version: "18.1".into(),
        flavour: "extension".into(),
        tables: (0..500).map(table).collect(),
        objects: ["table", "index", "constraint", "fk constraint"]
            .map(|kind| Objects { kind: kind.into(), total: 20_000, done: 20_000, failed: 0 })
            .into(),
        parts,
        steps: steps.collect(),
        failed: Vec::new(),
        conflicts: Vec::new(),
        cutover: vec![
            step(1, "check", 0.0, 0.2, "undone"),
            step(1, "prepare", 0.2, 3.0, "undone"),
            step(1, "freeze", 3.2, 5.0, "undone"),
        ],
        verifications: Vec::new(),
        events: vec![
            event(0.0, "migration begun"),
            event(2.0, "phase schema"),
            event(60.0, "phase copy"),
            event(172_800.0, "phase indexes"),
            event(190_000.0, "phase catchup"),
            event(250_000.0, "phase follow"),
        ],
    };
    let sample = |n: u64| {
        let waits = if n < 300 { n * 40 } else { 12_000u64.saturating_sub((n - 300) * 100) } * (1 << 24);
        Sample {
            at: at(60.0 + n as f64 * 1350.0),
            source_lsn: Lsn(n * (40 << 24) + (1 << 36)),
            reached_lsn: Lsn((n * (40 << 24) + (1 << 36)).saturating_sub(waits)),
            lag_bytes: waits,
            spool_bytes: waits / 5,
            first: n == 0 || n == 900,
        }
    };
    History {
        migration: "large".into(),
        facts: Some(facts),
        runs: vec![RunStart {
            at: at(0.0),
            version: "0.1.0".into(),
            settings: vec![("source".into(), "mover@old:5432/app".into())],
        }],
        samples: (0..2000).map(sample).collect(),
        left_out: (0..3000)
            .map(|n| LeftOut {
                what: if n % 2 == 0 { What::Object } else { What::Rows },
                kind: "table".into(),
                name: format!("log.t_{n}"),
                why: "app.ini:12 [exclude-schema] log".into(),
            })
            .collect(),
        ..History::default()
    }
}

#[test]
fn the_page_of_a_very_large_migration_stays_small() {
    let page = html(&large(), at(2_700_000.0)).unwrap();
    if let Some(path) = std::env::var_os("PGMIG_TEST_PAGE") {
        std::fs::write(path, &page).unwrap();
    }
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert!(page.contains("19500 smaller tables are not listed") && page.contains("and 1300 more"));
    assert!(page.matches("<rect").count() > 1000, "what can be told apart is drawn");
}

#[test]
fn of_a_migration_that_nobody_remembers_the_page_says_so() {
    let history = History {
        migration: "<lost>".into(),
        missing: vec!["Only what this machine remembers (a & b).".into()],
        phases: vec![(at(0.0), "phase schema".into()), (at(5.0), "phase copy".into())],
        ..History::default()
    };
    let page = html(&history, at(10.0)).unwrap();
    assert!(page.contains("id=\"gantt-phases\"") && page.contains("Only what this machine remembers"), "{page}");
    assert!(page.contains("lost") && !page.contains("<lost>") && !page.contains("(a & b)"));
}
