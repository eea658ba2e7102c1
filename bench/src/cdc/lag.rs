//! How far behind the target is under a steady load: beats are committed on the source and looked for
//! on the target. The load is a share of the most that the machine can do while a native subscription
//! follows, for source, target and tool share its processors.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::base::Base;
use super::contender::Contender;
use super::workload::Workload;
use crate::meter::{Cost, Meter};
use crate::servers::{Servers, TARGET, run, session};
use crate::table::{Row, Table, Target, percentile};
use crate::{Common, Outcome, why};

const SHARE: f64 = 0.8;
const BEAT_EVERY: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(2);

pub async fn measure(
    contenders: &[Contender],
    servers: &Servers,
    pgmig: &Path,
    common: &Common,
    seconds: u64,
) -> Outcome<Table> {
    let base = Base::make(Workload::Lag, contenders, servers, pgmig, common).await?;
    let most = highest_rate(&base, servers, common, seconds).await?;
    let rate = most * SHARE;
    let mut table = Table {
        title: format!("lag: {rate:.0} pgbench transactions a second ({SHARE} of {most:.0}) for {seconds} s"),
        ..Table::default()
    };
    let mut lags: Vec<Vec<Duration>> = vec![Vec::new(); contenders.len()];
    for contender in contenders {
        table.rows.push(Row { name: contender.name(), runs: Vec::new(), error: None });
    }
    for round in 0..common.rounds {
        for at in (0..contenders.len()).map(|n| (n + round) % contenders.len()) {
            let done = one_run(&contenders[at], &base, servers, common, rate, seconds).await;
            let row = &mut table.rows[at];
            match done {
                Ok((cost, seen)) => {
                    let (half, most) = (percentile(&seen, 0.5), percentile(&seen, 0.99));
                    eprintln!("lag round {}: {}: p50 {half:.0} ms, p99 {most:.0} ms", round + 1, contenders[at].name());
                    row.runs.push(Some(cost));
                    lags[at].extend(seen);
                }
                Err(err) => {
                    eprintln!("lag round {}: {}: failed", round + 1, contenders[at].name());
                    row.runs.push(None);
                    row.error = Some(why(&err));
                }
            }
        }
    }
    base.remove(contenders, servers).await?;
    for (contender, seen) in contenders.iter().zip(&lags).filter(|(_, seen)| !seen.is_empty()) {
        let (half, most, all) = (percentile(seen, 0.5), percentile(seen, 0.99), seen.len());
        table.notes.push(format!("{}: lag p50 {half:.1} ms, p99 {most:.0} ms, of {all} beats", contender.name()));
        if matches!(contender, Contender::Pgmig(..)) {
            table.targets.push(Target::at_most(format!("p50 ms of {}", contender.name()), 50.0, Some(half)));
            table.targets.push(Target::at_most(format!("p99 ms of {}", contender.name()), 500.0, Some(most)));
            let resident = table.highest(&contender.name(), |cost| cost.rss_mb);
            table.targets.push(Target::at_most(format!("resident MB of {}", contender.name()), 150.0, resident));
        }
    }
    table.references = vec![Contender::Native.name()];
    Ok(table)
}

fn pgbench(servers: &Servers, seconds: u64) -> std::process::Command {
    let mut pgbench = servers.source.bin_dir().tool("pgbench");
    pgbench.args(["--no-vacuum", "-c", "4", "-j", "1", "-T", &seconds.to_string()]);
    pgbench
}

async fn highest_rate(base: &Base, servers: &Servers, common: &Common, seconds: u64) -> Outcome<f64> {
    base.restore(&Contender::Native, servers).await?;
    let mut begun = base.begin(&Contender::Native, servers, &crate::meter::Tool::default()).await?;
    begun.follows(servers, common.limit()).await?;
    let said = run(pgbench(servers, (seconds / 3).max(3)).arg(servers.source.uri(base.workload.database())))?;
    begun.end(servers).await?;
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.ok_or_else(|| "pgbench did not say its rate".into())
}

async fn one_run(
    contender: &Contender,
    base: &Base,
    servers: &Servers,
    common: &Common,
    rate: f64,
    seconds: u64,
) -> Outcome<(Cost, Vec<Duration>)> {
    // The slot stands before the load of earlier runs: what they wrote is applied first.
    base.restore(contender, servers).await?;
    servers.settle().await?;
    let meter_limit = common.limit() + Duration::from_secs(seconds);
    let meter = Meter::start(&servers.source, &servers.target, meter_limit)?;
    let mut begun = base.begin(contender, servers, &meter.tool).await?;
    let measured = async {
        begun.follows(servers, common.limit()).await?;
        let (source, target) = (
            session(&servers.source.uri(base.workload.database())).await?,
            session(&servers.target.uri(TARGET)).await?,
        );
        let mut beat: i64 = source.query_one("select beat from heartbeat", &[]).await?.get(0);
        level(&source, &target, &mut beat, common.limit()).await?;
        let mut load = pgbench(servers, seconds);
        load.args(["-R", &format!("{rate:.1}")]).arg(servers.source.uri(base.workload.database()));
        let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let beats = beats(source, target, beat, Duration::from_secs(seconds)).await;
        load.wait()?;
        beats
    };
    let measured = measured.await;
    let cost = meter.finish();
    begun.end(servers).await?;
    Ok((cost?, measured?))
}

/// Waits until a new beat arrives: everything before it has too.
async fn level(
    source: &tokio_postgres::Client,
    target: &tokio_postgres::Client,
    beat: &mut i64,
    limit: Duration,
) -> Outcome<()> {
    *beat += 1;
    source.execute("update heartbeat set beat = $1", &[beat]).await?;
    let start = Instant::now();
    while target.query_one("select beat from heartbeat", &[]).await?.get::<_, i64>(0) < *beat {
        if start.elapsed() > limit {
            return Err("it did not become level with the source".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The time from each beat's commit on the source to its being seen on the target.
async fn beats(
    source: tokio_postgres::Client,
    target: tokio_postgres::Client,
    first: i64,
    length: Duration,
) -> Outcome<Vec<Duration>> {
    let (sent, mut committed) = tokio::sync::mpsc::unbounded_channel();
    let writer = tokio::spawn(async move {
        let (start, mut beat) = (Instant::now(), first);
        while start.elapsed() < length {
            beat += 1;
            source.execute("update heartbeat set beat = $1", &[&beat]).await?;
            if sent.send((beat, Instant::now())).is_err() {
                break;
            }
            tokio::time::sleep(BEAT_EVERY).await;
        }
        Ok::<(), tokio_postgres::Error>(())
    });
    let look = target.prepare("select beat from heartbeat").await?;
    let mut lags = Vec::new();
    let deadline = Instant::now() + length + Duration::from_secs(60);
    while let Some((beat, at)) = committed.recv().await {
        while target.query_one(&look, &[]).await?.get::<_, i64>(0) < beat {
            if Instant::now() > deadline {
                return Err("beats were still missing a minute after the load".into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        lags.push(at.elapsed());
    }
    writer.await??;
    Ok(lags)
}
