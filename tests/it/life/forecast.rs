//! How long the copy still takes, as it is said from 10 % to 90 % of it, held against when it was over; and what
//! is told of each table meanwhile.

use std::io::Write;
use std::time::{Duration, Instant};

use harness::{Outcome, Pgmig};
use pgmig::model::forecast::Pending;
use pgmig::target::forecast;
use serde_json::{Value, json};

use super::steered::busy;
use super::{EXTENSION, Life};

/// One large table with indexes, one whose values are compressed to a fraction of what COPY sends of them, one whose
/// values are not, and many small ones. Some were analysed, some never.
const TABLES: &str = "create table big (id int primary key, at timestamptz, note text, amount numeric); \
                      insert into big select n, now(), md5(n::text), n from generate_series(1, 90000) n; \
                      create index on big (note); create index on big (at); \
                      create table wide (id int primary key, body text); \
                      insert into wide select n, (select string_agg(md5((n * 100 + g / 8)::text), '') from generate_series(1, 320) g) \
                          from generate_series(1, 1500) n; \
                      create table stored (id int primary key, body text); \
                      alter table stored alter body set storage external; \
                      insert into stored select n, repeat(md5(n::text), 100) from generate_series(1, 1500) n; \
                      analyze wide; \
                      do $$ begin for n in 1 .. 120 loop \
                          execute format('create table small_%s (id int primary key, note text)', n); \
                          execute format('insert into small_%s select g, md5(g::text) from generate_series(1, 300) g', n); \
                      end loop; end $$";
/// What is said may be off by so much of what is left, or by this many seconds.
const OFF: (f64, f64) = (0.2, 1.0);

/// For the test of the forecast itself: the tables worth a line, at each look.
async fn record(life: &Life, at: f64) -> Outcome {
    let Ok(path) = std::env::var("PGMIG_TEST_RECORD") else { return Ok(()) };
    let mut left = forecast::left(&life.target, "default").await?;
    let small: Vec<_> =
        left.tables.extract_if(.., |table| table.bytes < 1 << 20 && table.in_flight.is_empty()).collect();
    let bytes = small.iter().map(|table| table.planned_copy_bytes.unwrap_or(table.bytes)).sum::<i64>();
    left.others = Pending { parts: left.others.parts + small.len() as i64, bytes: left.others.bytes + bytes };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", json!({"at": at, "copied": left.copied, "left": left}))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_is_left_is_what_it_takes() -> Outcome {
    let life = Life::begin(EXTENSION, TABLES).await;
    let port = crate::told::free_port();
    let address = format!("127.0.0.1:{port}");
    let how = ["--max-rate", "2MB", "--table-jobs", "3", "--split-tables-larger-than", "4MB"];
    let mut run = life.run_with(&[&how[..], &["--metrics-listen", &address]].concat());
    life.wait_for(&mut run, "the copy", "select phase = 'copy' from pgmig.progress").await;
    let began = Instant::now();
    let look = "select concat_ws(' ', phase <> 'copy', coalesce(extract(epoch from eta), -1), \
                       bytes_done::float8 / bytes_total) from pgmig.progress";
    let (mut looks, mut tables) = (Vec::new(), None);
    let end = loop {
        let seen = life.on_target(look).await;
        let at = began.elapsed().as_secs_f64();
        let seen: Vec<&str> = seen.split(' ').collect();
        if seen[0] == "t" {
            break at;
        }
        let (left, done): (f64, f64) = (seen[1].parse()?, seen[2].parse()?);
        looks.push((at, left, done));
        record(&life, at).await?;
        if done > 0.3 && tables.is_none() {
            tables = Some((status(&life).await, crate::told::get(port, "/metrics").await.unwrap_or_default()));
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    };
    let (mut held, mut good) = (0, 0);
    for (at, left, done) in looks {
        let takes = end - at;
        println!("{at:5.1} s, {:3.0} %: {left:5.1} s are said to be left, {takes:5.1} s are", done * 100.0);
        // Of the time too: what rows say is far may be little to copy.
        if (0.1..0.9).contains(&done) && (0.1..0.9).contains(&(at / end)) {
            held += 1;
            good += i32::from((left - takes).abs() <= (takes * OFF.0).max(OFF.1));
        }
    }
    assert!(held >= 8, "{held} looks in {end:.1} s");
    assert!(good * 10 >= held * if busy() { 6 } else { 9 }, "{good} of {held} were right");

    let (status, scrape) = tables.expect("a look in the middle");
    told_of_tables(&status, &scrape);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    let whole = "select count(*) from pgmig.tables where state = 'done' and bytes_done = bytes and parts_done = parts";
    assert_eq!(life.on_target(whole).await, "123");
    life.end(run).await;
    Ok(())
}

async fn status(life: &Life) -> Value {
    let args = ["status", "--json", "--source", &life.pair.source_uri()];
    let shown: Pgmig = life.pgmig(&args);
    let shown = shown.finish(&[]).await.expect_code(0).stdout;
    serde_json::from_str::<Value>(&shown).expect("JSON")["migrations"][0].clone()
}

/// Bytes, rows, rate and the time that is left, of the whole, of tables and of Parts.
fn told_of_tables(status: &Value, scrape: &str) {
    for figure in ["eta_seconds", "copy_bytes_per_second", "retries", "spool_bytes", "lag_bytes"] {
        assert!(status[figure].is_number(), "{figure}: {status}");
    }
    for figure in ["retained_bytes", "oldest_xmin_age"] {
        assert!(status["source"][figure].is_number(), "{figure}: {status}");
    }
    for list in ["tables", "copying"] {
        let first = &status[list][0];
        for figure in ["bytes", "bytes_done", "rows", "bytes_per_second", "seconds_left"] {
            assert!(first[figure].as_f64().is_some_and(|figure| figure > 0.0), "{list} {figure}: {status}");
        }
    }
    // No table takes longer than all of them.
    let all = status["eta_seconds"].as_f64().unwrap_or_default();
    let longest = status["tables"].as_array().into_iter().flatten().filter_map(|table| table["seconds_left"].as_f64());
    assert!(longest.fold(0.0, f64::max) < all + 3.0, "{status}");
    let table = status["tables"][0]["table"].as_str().unwrap_or_default();
    for name in ["bytes", "done_bytes", "rows", "parts_left", "rate_bytes", "left_seconds"] {
        let line = scrape.lines().find(|line| line.starts_with(&format!("pgmig_table_{name}{{")));
        assert!(line.is_some_and(|line| line.contains("table=\"public.")), "{name}: {scrape}");
    }
    assert!(table.starts_with("public."), "{status}");
    for name in ["pgmig_copy_left_seconds", "pgmig_copy_rate_bytes", "pgmig_source_oldest_xmin_age", "pgmig_retries"] {
        let line = scrape.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_default();
        let figure = line.rsplit(' ').next().and_then(|figure| figure.parse::<f64>().ok());
        assert!(figure.is_some_and(f64::is_finite), "{name}: {scrape}");
    }
}
