//! Random work on a random schema: sessions whose transactions interleave, with savepoints, rollbacks,
//! keys that change, rows that move between partitions, hot rows, truncates and large transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use harness::wait_until;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::schema::{Key, Schema, Table};
use crate::life::session;

pub struct Work {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    /// How many may be, so that nobody is outrun.
    allowed: Arc<AtomicU64>,
    truncates: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<()>>,
}

impl Work {
    pub async fn start(uri: &str, schema: &Schema, sessions: usize, mut rng: Rng) -> Work {
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (allowed, truncates) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut running = Vec::new();
        for _ in 0..sessions {
            let client = session(uri).await;
            running.push(tokio::spawn(write(
                client,
                schema.clone(),
                rng.fork(),
                stop.clone(),
                committed.clone(),
                allowed.clone(),
                truncates.clone(),
            )));
        }
        Work { stop, committed, allowed, truncates, sessions: running }
    }

    /// From here on tables are truncated too: one that is copied in Parts ends the run by it.
    pub fn may_truncate(&self) {
        self.truncates.store(true, Ordering::Relaxed);
    }

    /// Lets so many more transactions be written, without waiting for them.
    pub fn allow(&self, count: u64) {
        self.allowed.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until so many more transactions are committed.
    pub async fn more(&self, count: u64) {
        self.allow(count);
        let until = self.allowed.load(Ordering::Relaxed);
        wait_until(Duration::from_secs(180), "the writers to write", async || {
            self.sessions.iter().any(JoinHandle::is_finished) || self.committed.load(Ordering::Relaxed) >= until
        })
        .await;
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for session in self.sessions {
            session.await.expect("a writer met no error that its habits do not explain");
        }
    }
}

async fn write(
    client: Client,
    schema: Schema,
    mut rng: Rng,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    allowed: Arc<AtomicU64>,
    truncates: Arc<AtomicBool>,
) {
    client.batch_execute("set lock_timeout = '2s'").await.expect("a setting is set");
    while !stop.load(Ordering::Relaxed) {
        if committed.load(Ordering::Relaxed) >= allowed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let mut statements = vec!["begin".to_string()];
        for number in 0..rng.usize(1..7) {
            let savepoint = rng.u8(..5) == 0;
            if savepoint {
                statements.push(format!("savepoint s{number}"));
            }
            let table = &schema.tables[rng.usize(..schema.tables.len())];
            let may_truncate = truncates.load(Ordering::Relaxed);
            statements.push(match rng.u8(..160) {
                0 if may_truncate => format!("truncate {}", table.name),
                1 if may_truncate && table.key == Key::Primary => {
                    format!("alter table {} replica identity {}", table.name, ["full", "default"][rng.usize(..2)])
                }
                _ => statement(table, &mut rng),
            });
            if savepoint && rng.bool() {
                statements.push(format!("rollback to s{number}"));
            }
        }
        let commits = rng.u8(..8) > 0;
        statements.push(if commits { "commit" } else { "rollback" }.into());
        let mut failed = false;
        for statement in &statements {
            if let Err(err) = client.batch_execute(statement).await {
                // Deadlock, a wait that is over, and a key that is taken.
                let code = err.code().map_or("", |code| code.code());
                assert!(matches!(code, "40P01" | "55P03" | "23505"), "{statement}: {err:?}");
                client.batch_execute("rollback").await.expect("a rollback never fails");
                failed = true;
                break;
            }
            if rng.u8(..12) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.u64(1..6))).await;
            }
        }
        if commits && !failed {
            committed.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(2..20))).await;
    }
}

fn statement(table: &Table, rng: &mut Rng) -> String {
    let name = &table.name;
    let (k, part) = (rng.i32(0..60), rng.i32(0..4));
    let some = ["k % 7 = 3", "part = 1", "k between 10 and 20", "long is null"][rng.usize(..4)];
    let one = format!(
        "ctid = (select ctid from {name} where k = {k} limit 1) and tableoid = (select tableoid from {name} where k = {k} limit 1)"
    );
    match rng.u8(..20) {
        0..=6 => insert(table, rng, 1),
        7 => {
            // Every row of replica identity FULL is looked for among all: keep them few.
            let rows = rng.usize(1..if table.key == Key::Full { 4 } else { 60 });
            insert(table, rng, rows)
        }
        8 if table.key != Key::Full && rng.u8(..25) == 0 => {
            let rows = rng.usize(500..2000);
            insert(table, rng, rows)
        }
        _ if table.key == Key::None => insert(table, rng, 2),
        8 | 10 | 11 => format!("update {name} set {} where k = {k}", set(table, rng)),
        12 => format!("update {name} set {} where {some}", set(table, rng)),
        // A hot row.
        13 => format!("update {name} set part = part where k = 1; update {name} set {} where k = 1", set(table, rng)),
        14 => format!("update {name} set k = k + 1000 where k = {k} and part = {part}"),
        // Into another partition, where there are some.
        15 => format!("update {name} set part = {} where k = {k} and part = {part}", rng.i32(0..4)),
        // One of several equal rows, where the key allows them.
        16 => format!("update {name} set {} where {one}", set(table, rng)),
        17 => format!("delete from {name} where {one}"),
        18 => format!("delete from {name} where k = {k}"),
        _ => format!("delete from {name} where {some} and k > 30"),
    }
}

/// Rows with keys that may be taken: then none of them is inserted.
fn insert(table: &Table, rng: &mut Rng, rows: usize) -> String {
    let mut names = vec!["k".to_string(), "part".into()];
    // Many rows need keys of their own.
    let k = if rows > 1 { format!("{} + n", rng.i32(2000..100_000_000)) } else { rng.i32(0..60).to_string() };
    let mut values = vec![k, rng.i32(0..4).to_string()];
    for column in &table.columns {
        if rng.u8(..5) > 0 {
            names.push(column.name.clone());
            values.push(value(column.type_name, rng));
        }
    }
    if table.unique && rng.bool() {
        names.push("u".into());
        values.push(format!("{} + n", rng.i32(0..1_000_000_000)));
    }
    let conflict = if table.key == Key::None && !table.unique { "" } else { " on conflict do nothing" };
    format!(
        "insert into {} ({}) select {} from generate_series(1, {rows}) n{conflict}",
        table.name,
        names.join(", "),
        values.join(", ")
    )
}

fn set(table: &Table, rng: &mut Rng) -> String {
    let column = &table.columns[rng.usize(..table.columns.len())];
    format!("{} = {}", column.name, value(column.type_name, rng))
}

/// A random expression of a type, null now and then.
fn value(of: &str, rng: &mut Rng) -> String {
    if rng.u8(..8) == 0 {
        return "null".into();
    }
    let n = rng.i32(-1000..1000);
    let odd = ["''", "'null'", r"E'\\N'", r#"'{"a,b"}'"#, "'it''s'", r"E'tab\tline\n'", "'☃ 𝄞'", "'\\x'"];
    let pick = |from: &[&str], rng: &mut Rng| from[rng.usize(..from.len())].to_string();
    match of {
        "text" if rng.u8(..4) == 0 => {
            format!("(select string_agg(md5('{n}.' || m), '') from generate_series(1, {}) m)", rng.u16(1..120))
        }
        "text" => pick(&odd, rng),
        "char(4)" => pick(&["'a'", "''", "' é'", "'null'"], rng),
        "bytea" => format!("decode(md5('{n}') || '00', 'hex')"),
        "int8" => format!("9007199254740993 + {n}"),
        "int2" => n.to_string(),
        "bool" => rng.bool().to_string(),
        "timestamptz" => {
            pick(&["'infinity'", "'0044-03-15 12:00:00.000001+00 BC'", "'2026-01-01 00:00:00+05:30'"], rng)
        }
        "date" => pick(&["'-infinity'", "'2024-02-29'", "'4713-01-01 BC'"], rng),
        "interval" => format!("'{n} months {n} days {n}.000001 seconds'"),
        "uuid" => format!("md5('{n}')::uuid"),
        "jsonb" => pick(&[r#"'{"b": [1, 2.50, null], "a": "☃"}'"#, "'null'", "'1.10'", "'[]'"], rng),
        "json" => pick(&[r#"'{"b": 1,  "b": 2}'"#, "'null'", r#"'"\u0041"'"#], rng),
        "text[]" => pick(&[r#"array['', null, 'NULL', 'a,b', '"', '\']"#, "'{}'", "'[3:4]={x,y}'"], rng),
        "int4[]" => pick(&["'{{1,2},{3,null}}'", "'{}'", "'[-1:0]={5,6}'"], rng),
        "bit(5)" => format!("({n})::bit(5)"),
        "inet" => pick(&["'10.1.2.3/8'", "'::1'"], rng),
        "int4range" => pick(&["'empty'", "'[1,9)'", "'(,)'"], rng),
        "mood" => pick(&["'sad'", r#"'it''s "happy", really'"#], rng),
        "pair" => pick(&[r#"row(1, 'a,"b"\')::pair"#, "row(null, '')::pair", "row(null, null)::pair"], rng),
        // Neither has an operator that says equal.
        "point" => pick(&["'(0,-0)'", "'(-0,0)'", "'(NaN,1e300)'"], rng),
        "xml" => pick(&["'<a/>'", "'<a></a>'", "''"], rng),
        "numeric[]" => pick(&["'{1.0,null}'", "'{1.00,null}'", "'{NaN}'"], rng),
        "numrange" => pick(&["'[1.0,2)'", "'[1.00,2)'", "'(,)'"], rng),
        "timetz" => pick(&["'12:00+00'", "'13:00+01'", "'24:00-15:59'"], rng),
        "money" => pick(&["'-1.50'", "0"], rng),
        "tsvector" => pick(&["'a:1A b'", "''"], rng),
        "bpchar(3)[]" => pick(&["'{a,null}'", "'{}'"], rng),
        "float8" => pick(&["'NaN'", "'-Infinity'", "0.1", "5e-324", "'-0'"], rng),
        "float4" => pick(&["'NaN'", "1e-40", "16777217"], rng),
        "numeric" => pick(&["'NaN'", "1.10", "10::numeric ^ 40 + 0.1", "'Infinity'"], rng),
        "numeric(12,3)" => format!("{n}.125"),
        other => panic!("no value of {other} is known"),
    }
}
