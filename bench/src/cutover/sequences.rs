//! How long many sequences take in the cutover: 10,000 of them, all moved since they were put ahead.

use std::time::{Duration, Instant};

use super::DATABASE;
use crate::meter::{Cost, Meter};
use crate::servers::{Servers, run, session};
use crate::table::{Row, Table, Target};
use crate::{Common, Outcome, why};

pub async fn measure(common: &Common, servers: &Servers, pgmig: &std::path::Path) -> Outcome<Table> {
    let count = common.scaled(10_000.0);
    let mut row = Row { name: "step sequences".into(), runs: Vec::new(), error: None };
    for round in 0..common.rounds {
        match one(common, servers, pgmig, count).await {
            Ok(cost) => {
                eprintln!("sequences round {}: {:.2} s", round + 1, cost.wall);
                row.runs.push(Some(cost));
            }
            Err(err) => {
                eprintln!("sequences round {}: failed: {err}", round + 1);
                row.runs.push(None);
                row.error = Some(why(&err));
            }
        }
    }
    let mut table =
        Table { title: format!("sequences: {count} exact in a cutover"), rows: vec![row], ..Table::default() };
    let found = table.highest("step sequences", |cost| cost.wall);
    table.targets.push(Target::at_most("s that the step takes", 2.0, found));
    Ok(table)
}

async fn one(common: &Common, servers: &Servers, pgmig: &std::path::Path, count: u64) -> Outcome<Cost> {
    super::two_databases(servers).await?;
    let source = session(&servers.source.uri(DATABASE)).await?;
    // There is nothing to follow in a database without tables.
    source.batch_execute("create table one (id int primary key)").await?;
    // A transaction for each thousand: every new sequence is locked until its end.
    for from in (0..count).step_by(1000) {
        let make = format!(
            "do $$ begin for n in {from}..{} loop execute format('create sequence seq_%s', n); end loop; end $$",
            (from + 1000).min(count) - 1
        );
        source.batch_execute(&make).await?;
    }
    let dir = servers.folder("cutover")?;
    let command = |verb: &str| super::pgmig_to(verb, pgmig, servers, &dir);
    let meter = Meter::start(&servers.source, &servers.target, common.limit())?;
    let mut migration = super::spawn(command("run"), servers, &meter)?;
    let cut = async {
        super::follows(servers, common.limit(), &mut migration).await?;
        source.batch_execute(&each(count, "perform nextval('seq_' || n)")).await?;
        let mut cutover = command("cutover");
        cutover.args(["--max-downtime", "60s", "--freeze", "none"]);
        tokio::task::spawn_blocking(move || run(&mut cutover)).await??;
        Ok::<_, crate::Failure>(())
    };
    let cut = cut.await;
    if cut.is_err() {
        let _ = migration.kill();
    }
    migration.wait()?;
    let cost = meter.finish()?;
    cut?;
    let target = session(&servers.target.uri(DATABASE)).await?;
    let state = "select seconds::float8 from pgmig.cutover where step = 'sequences' and state = 'done'";
    let seconds: f64 = target.query_one(state, &[]).await?.get(0);
    let check = "execute format('select last_value from seq_%s', n) into stands; \
                 if stands <> 1 then raise exception 'sequence seq_% stands at %', n, stands; end if";
    target.batch_execute(&each(count, check)).await?;
    run(command("cleanup").stdin(std::process::Stdio::null()))?;
    let start = Instant::now();
    while source.query_one("select count(*) from pg_replication_slots", &[]).await?.get::<_, i64>(0) > 0 {
        if start.elapsed() > Duration::from_secs(10) {
            return Err("the slot is still there".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(Cost { wall: seconds, ..cost })
}

/// Does something for each sequence `n`, in transactions that do not lock too many of them.
fn each(count: u64, what: &str) -> String {
    format!(
        "do $$ declare stands int8; begin for n in 0..{} loop {what}; if n % 500 = 0 then commit; end if; end loop; end $$",
        count - 1
    )
}
