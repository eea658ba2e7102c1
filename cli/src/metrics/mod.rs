//! What a run tells Prometheus: figures of the tally under names that docs/metrics.md lists. A name is
//! part of the interface: it stays, or a new one comes beside it.

mod listen;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::model::Phase;
use crate::model::status::TableLeft;
use crate::report::tally::Tally;
use crate::report::{Display, Event};
pub use listen::Listener;

type Number = Gauge<f64, AtomicU64>;
type Labelled = Family<[(&'static str, String); 1], Number>;
/// Of a table that is being copied.
type OfTable = (&'static str, &'static str, fn(&TableLeft) -> f64);
/// NaN while it is not known.
type Read = fn(&Tally) -> f64;
/// Name, what it says, and how it is read.
type Figure = (&'static str, &'static str, Read);

const STATUSES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

const FIGURES: &[Figure] = &[
    ("tables", "Tables that are copied", |t| t.tables as f64),
    ("parts", "Parts that the tables are copied in", |t| t.parts as f64),
    ("parts_done", "Parts whose rows are committed", |t| t.parts_done as f64),
    ("copy_bytes", "Size on the source of what is copied, when planned", |t| t.bytes as f64),
    ("copy_done_bytes", "How much of pgmig_copy_bytes is copied, Parts in flight included", |t| t.bytes_now() as f64),
    ("copy_rows", "Rows stored by this run of the copy", |t| t.rows as f64),
    ("copy_rate_bytes", "Bytes of COPY that were stored a second, over the last minute", |t| known(t.rate)),
    ("copy_left_seconds", "Time until every row is copied", |t| known(t.left().map(|left| left.as_secs_f64()))),
    ("copy_parts_in_flight", "Parts that are being copied", |t| t.in_flight.len() as f64),
    ("copy_parts_standing", "Parts of which no byte has moved for longer than --stalled-after", |t| {
        t.standing() as f64
    }),
    ("objects", "Indexes, constraints and statistics that are made beside the copy", |t| t.steps as f64),
    ("objects_done", "Objects made or failed", |t| t.steps_done as f64),
    ("objects_failed", "Objects that could not be made", |t| t.steps_failed as f64),
    ("lag_bytes", "WAL of the source that is not applied", |t| t.stream.lag_bytes as f64),
    ("lag_seconds", "Age of the last applied source transaction while more wait", |t| known(t.stream.lag_seconds)),
    ("spool_bytes", "Changes received and not yet applied, as they lie on this machine", |t| {
        t.stream.spool_bytes as f64
    }),
    ("applied_transactions", "Source transactions applied by this run", |t| t.stream.transactions as f64),
    ("applied_rows", "Rows written by this run's apply", |t| t.stream.rows as f64),
    ("source_lsn_bytes", "Write position of the source's WAL", |t| t.stream.source_lsn.0 as f64),
    ("write_lsn_bytes", "Position up to which WAL is received", |t| t.stream.write_lsn.0 as f64),
    ("flush_lsn_bytes", "Position up to which WAL is durable on our side", |t| t.stream.flush_lsn.0 as f64),
    ("replay_lsn_bytes", "End of the last source transaction that is applied", |t| t.stream.replay_lsn.0 as f64),
    ("probe_p95_seconds", "95th percentile of what the probe of --max-slowdown takes on the source", |t| {
        seconds(t.load.probe_p95_ms)
    }),
    ("probe_baseline_seconds", "The same without the copy", |t| seconds(t.load.probe_baseline_ms)),
    (
        "standby_lag_seconds",
        "How far the source's physical standby that is furthest behind is, with --max-standby-lag",
        |t| known(t.load.standby_lag_seconds),
    ),
    ("gives_way", "1 while the copy gives way to the work of the source", |t| {
        f64::from(u8::from(t.load.gives_way.is_some()))
    }),
    ("gives_way_rate_bytes", "Bytes a second that the copy keeps to while it gives way", |t| {
        known_bytes(t.load.max_rate)
    }),
    ("slot_active", "1 while somebody reads the slot", |t| {
        known(t.slot.as_ref().map(|slot| f64::from(u8::from(slot.active))))
    }),
    ("slot_retained_bytes", "WAL that the source keeps for the slot", |t| {
        known_bytes(t.slot.as_ref().and_then(|slot| slot.retained_bytes))
    }),
    ("slot_safe_bytes", "WAL that can still be written before the slot is lost", |t| {
        known_bytes(t.slot.as_ref().and_then(|slot| slot.safe_bytes))
    }),
    ("slot_in_danger", "1 where half of --wal-budget, or three quarters of what the source allows, is kept", |t| {
        known(t.slot.as_ref().map(|slot| f64::from(u8::from(slot.in_danger()))))
    }),
    ("source_oldest_xmin_age", "Transactions since the oldest that vacuum of the source has to reckon with", |t| {
        known(t.slot.as_ref().and_then(|slot| slot.oldest_xmin_age).map(|age| age as f64))
    }),
    ("retries", "Sessions opened again, and what was tried again, by this run", |t| t.retries as f64),
    ("verified_percent", "Tables that the last comparison of rows found equal, of all, in percent", |t| {
        known(t.verified)
    }),
    ("catch_up_seconds", "Time until nothing waits to be applied, at the rates of the last minute", |t| {
        known(t.stream.catch_up_seconds)
    }),
    ("replay_rate_bytes", "WAL of the source that is applied a second, over the last minute", |t| {
        known_bytes(t.stream.replay_bytes_per_second)
    }),
    ("source_rate_bytes", "WAL that the source writes a second, over the last minute", |t| {
        known_bytes(t.stream.source_bytes_per_second)
    }),
];

const OF_TABLES: [OfTable; 6] = [
    ("table_bytes", "Size on the source of a table that is being copied, when planned", |t| t.bytes as f64),
    ("table_done_bytes", "How much of pgmig_table_bytes is copied", |t| t.bytes_done as f64),
    ("table_rows", "Rows of a table that is being copied, so far", |t| t.rows as f64),
    ("table_parts_left", "Parts of a table that is being copied which are not committed", |t| {
        (t.parts - t.parts_done) as f64
    }),
    ("table_rate_bytes", "Bytes of COPY of a table that are stored a second", |t| known(t.bytes_per_second)),
    ("table_left_seconds", "Time until a table that is being copied is whole", |t| known(t.seconds_left)),
];

fn known(figure: Option<f64>) -> f64 {
    figure.unwrap_or(f64::NAN)
}

fn seconds(ms: Option<f64>) -> f64 {
    known(ms.map(|ms| ms / 1e3))
}

fn known_bytes(figure: Option<u64>) -> f64 {
    known(figure.map(|bytes| bytes as f64))
}

/// Follows the tally and keeps the figures for whoever asks.
pub struct Metrics {
    figures: Vec<(Number, Read)>,
    phase: Labelled,
    slot_status: Labelled,
    tables: Vec<Labelled>,
    warnings: Counter,
    errors: Counter,
}

impl Metrics {
    pub fn new(migration: &str) -> (Metrics, Arc<Registry>) {
        let labels = [(Cow::from("migration"), Cow::from(migration.to_string()))];
        let mut registry = Registry::with_prefix_and_labels("pgmig", labels.into_iter());
        let mut figures = Vec::new();
        for (name, help, read) in FIGURES {
            let gauge = Number::default();
            gauge.set(f64::NAN);
            registry.register(*name, *help, gauge.clone());
            figures.push((gauge, *read));
        }
        let metrics = Metrics {
            figures,
            phase: Labelled::default(),
            slot_status: Labelled::default(),
            tables: OF_TABLES.iter().map(|_| Labelled::default()).collect(),
            warnings: Counter::default(),
            errors: Counter::default(),
        };
        registry.register("phase", "1 for the phase the migration is in, 0 for the others", metrics.phase.clone());
        registry.register("slot_status", "1 for the slot's wal_status, 0 for the others", metrics.slot_status.clone());
        for ((name, help, _), family) in OF_TABLES.iter().zip(&metrics.tables) {
            registry.register(*name, *help, family.clone());
        }
        registry.register("warnings", "Warnings of this run", metrics.warnings.clone());
        registry.register("errors", "Errors that ended this run", metrics.errors.clone());
        let started = Number::default();
        started.set(jiff::Timestamp::now().as_second() as f64);
        registry.register("start_time_seconds", "When this run was started, seconds since 1970", started);
        let build = Labelled::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION").to_string())]).set(1.0);
        registry.register("build", "1, with the version of pgmig", build);
        (metrics, Arc::new(registry))
    }

    fn set(&self, tally: &Tally) {
        for (gauge, read) in &self.figures {
            gauge.set(read(tally));
        }
        for ((_, _, read), family) in OF_TABLES.iter().zip(&self.tables) {
            family.clear();
            for table in &tally.tables_left {
                family.get_or_create(&[("table", table.table.clone())]).set(read(table));
            }
        }
        for phase in Phase::ALL {
            let is = tally.phase == Some(phase);
            self.phase.get_or_create(&[("phase", phase.to_string())]).set(f64::from(u8::from(is)));
        }
        let status = tally.slot.as_ref().and_then(|slot| slot.wal_status.as_deref());
        for one in STATUSES {
            let is = status == Some(one);
            self.slot_status.get_or_create(&[("status", one.to_string())]).set(f64::from(u8::from(is)));
        }
    }
}

impl Display for Metrics {
    fn event(&mut self, event: &Event, tally: &Tally) {
        match event {
            Event::Warning { .. } | Event::StepFailed { .. } | Event::PartStands { .. } => _ = self.warnings.inc(),
            Event::Error { .. } => _ = self.errors.inc(),
            _ => {}
        }
        self.set(tally);
    }
    fn tick(&mut self, tally: &Tally) {
        self.set(tally);
    }
    fn end(&mut self, tally: &Tally) {
        self.set(tally);
    }
}
