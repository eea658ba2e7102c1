//! DDL on the source between the plan of a copy and the copy: what the target lacks is named, and no value of
//! a new column is left behind, whichever snapshot its table is read under.

use std::time::{Duration, Instant};

use harness::faults::Proxy;
use harness::{DATABASE, Outcome};

use super::{EXTENSION, Life, PLAIN};

const TABLES: &str = "
    create table large (id int primary key, v text);
    insert into large select n, repeat('x', 400) from generate_series(1, 30000) n;
    create table filled (id int primary key, v text);
    create table rewritten (id int primary key, v text);
    create table narrowed (id int primary key, gone text, v text);
    create table retyped (id int primary key, v numeric(9, 1));
    insert into filled select n, 'v' from generate_series(1, 200) n;
    insert into rewritten select n, 'v' from generate_series(1, 150) n;
    insert into narrowed select n, 'gone', 'v' from generate_series(1, 100) n;
    insert into retyped select n, n from generate_series(1, 50) n";

/// Values of new columns that are in no change behind the snapshot that they are copied under.
const ALTERATIONS: &str = "
    alter table filled add column token int;
    update filled set token = id * 7;
    alter table rewritten add column token text default md5(random()::text);
    alter table narrowed drop column gone;
    alter table retyped alter column v type numeric(9, 4);
    update retyped set v = id / 7.0";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_altered_before_its_copy_brings_the_values_of_its_new_columns() -> Outcome {
    for (way, killed) in [(EXTENSION, false), (PLAIN, true)] {
        let life = Life::begin(way, TABLES).await;
        let proxy = Proxy::to(&life.pair.source).await?;
        let uri = proxy.uri(&life.pair.source, DATABASE);
        let mut run = life.run_from(&uri, &["--table-jobs", "1"]);
        let copying = "select count(*) > 0 from pgmig.parts where state = 'copying' and table_name = 'large'";
        life.wait_for(&mut run, "the large table", copying).await;
        proxy.stall();
        life.source.batch_execute(ALTERATIONS).await?;
        let mut ran = Vec::new();
        if killed {
            // All that is left is copied under a newer snapshot.
            life.kill(run).await;
            proxy.go_on();
            run = life.run_with(&["--table-jobs", "1"]);
        } else {
            proxy.go_on();
        }
        // Each time it ends, a person runs what it names.
        for _ in 0..8 {
            let follows = life.follows(&mut run).await;
            if follows {
                break;
            }
            let stopped = run.finish(&["error:", "was altered on the source"]).await.expect_code(6);
            assert!(stopped.stderr.contains("run on the target, then run again:"), "{}", stopped.stderr);
            let hint = stopped.stderr.split("hint: ").nth(1).unwrap_or_default();
            let ddl: String = hint.lines().skip(1).map(|line| format!("{}\n", line.trim())).collect();
            life.target.batch_execute(&ddl).await?;
            ran.push(ddl);
            run = life.run_with(&["--table-jobs", "1"]);
        }
        println!("{way:?}: {ran:#?}");
        if killed {
            assert_eq!(ran.len(), 1, "all of it is named at once: {ran:?}");
        }
        life.end(run).await;
    }
    Ok(())
}

impl Life {
    /// Waits until a run follows; false if it ends before.
    async fn follows(&self, run: &mut harness::Pgmig) -> bool {
        let begun = Instant::now();
        while run.is_running() {
            if self.try_value("select phase = 'follow' from pgmig.progress").await.as_deref() == Some("t") {
                return true;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "neither follows nor ends:\n{}", run.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}
