//! Tables cut by ranges of keys whose Parts come from several snapshots: after kills in the copy finished
//! Parts stay, and the stream reconciles each with the rest by the key of a change. Rows move from Part to
//! Part meanwhile, take each other's unique values, and vanish by TRUNCATE.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use harness::faults::Proxy;
use harness::{DATABASE, Outcome, Pgmig, seed, wait_until};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way, session};

const SCHEMA: &str = r#"
    create table ranged (id bigint primary key, email text unique, n int not null default 0, body text,
                         exclude using hash (body with =) where (n < -1));
    alter table ranged alter body set storage external;
    create index on ranged (n);
    insert into ranged
    select n * 10, 'mail ' || n, n, case when n % 20 = 0 then repeat(md5(n::text), 100) else repeat(md5(n::text), 4) end
      from generate_series(1, 24000) n;
    create table by_uuid (id uuid primary key, n int not null, v text);
    insert into by_uuid select md5(n::text)::uuid, n, repeat('v', 150) from generate_series(1, 15000) n;
    create table pairs (a int not null, b int not null, body text, primary key (a, b));
    alter table pairs replica identity full;
    alter table pairs alter body set storage external;
    insert into pairs select n / 10, n % 10, repeat(md5(n::text), 1 + 80 * (n % 30 / 29)) from generate_series(1, 12000) n;
    create table by_time (at timestamptz not null, device int not null, v text, primary key (at, device));
    insert into by_time select timestamptz '1999-12-20' + n * interval '0.123457 hours', n % 3, repeat('v', 150)
      from generate_series(1, 12000) n;
    create table by_name (name text collate "C" primary key, n int not null, v text);
    insert into by_name
    select (array['Zoé', 'ann', 'Émile', '_x''', 'Bob'])[n % 5 + 1] || n, n, repeat('v', 150) from generate_series(1, 9000) n;
    create table small (id int primary key, email text references ranged (email) on update cascade on delete cascade);
    insert into small select n, 'mail ' || n from generate_series(1, 500) n;
"#;

/// Sessions that write until they are stopped.
struct Movers {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    sessions: Vec<JoinHandle<()>>,
}

impl Movers {
    async fn start(uri: &str, seed: u64) -> Movers {
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut sessions = Vec::new();
        for number in 0..3 {
            let (client, rng) = (session(uri).await, Rng::with_seed(seed * 7 + number));
            sessions.push(tokio::spawn(work(client, rng, stop.clone(), committed.clone())));
        }
        Movers { stop, committed, sessions }
    }
    async fn write_more(&self, count: u64) {
        let until = self.committed.load(Ordering::Relaxed) + count;
        wait_until(Duration::from_secs(60), "the movers to write", async || {
            self.sessions.iter().any(JoinHandle::is_finished) || self.committed.load(Ordering::Relaxed) >= until
        })
        .await;
    }
    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for session in self.sessions {
            session.await.expect("a mover met no error that its habits do not explain");
        }
        println!("{} transactions written", self.committed.load(Ordering::Relaxed));
    }
}

async fn work(client: Client, mut rng: Rng, stop: Arc<AtomicBool>, committed: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let statements: Vec<String> = (0..rng.usize(1..4)).map(|_| statement(&mut rng)).collect();
        match client.batch_execute(&format!("begin; {}; commit", statements.join("; "))).await {
            Ok(()) => {
                committed.fetch_add(1, Ordering::Relaxed);
            }
            Err(err) => {
                let code = err.code().map_or("", |code| code.code());
                assert!(matches!(code, "40P01" | "23505" | "23503"), "{statements:?}: {err:?}");
                client.batch_execute("rollback").await.expect("a rollback never fails");
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(5..25))).await;
    }
}

fn statement(rng: &mut Rng) -> String {
    let id = rng.u32(1..24_000) * 10;
    let to = rng.u32(1..240_000);
    let salt = rng.u32(..);
    match rng.u8(..20) {
        0 => format!("insert into ranged values ({to}, 'new {salt}', 0, repeat('{salt}', 500))"),
        1 | 2 => format!("update ranged set n = n + 1 where id between {id} and {id} + 200"),
        // To another Part: with all of the row in the stream, since what is in TOAST is changed too.
        3 => format!("update ranged set id = {to} where id = {id} and length(body) < 1000"),
        4 => format!("update ranged set id = {to}, body = repeat('{salt}', 300) where id = {id}"),
        // Two rows of two Parts take each other's unique value.
        5 | 6 => format!(
            "create temp table if not exists swap (id bigint, email text); truncate swap; \
             insert into swap select id, email from ranged where id in ({id}, {to} / 10 * 10) and email not in (select email from small) order by id for update; \
             update ranged set email = null where id in (select id from swap); \
             update ranged r set email = other.email from swap me, swap other \
              where r.id = me.id and (other.id <> me.id or (select count(*) from swap) = 1)"
        ),
        7 => format!("delete from ranged where id = {id}"),
        8 => format!("update by_uuid set id = md5('{salt}')::uuid where id = md5('{}')::uuid", id / 16),
        9 => format!("update by_uuid set n = n + 1 where n % 500 = {}", salt % 500),
        10 => format!("insert into by_uuid values (md5('{salt}')::uuid, 1, 'new')"),
        // With a value that stays in TOAST: the old row is in the stream.
        11 => {
            format!("update pairs set a = {} where a = {} and b = {}", rng.u32(..1300), rng.u32(..1200), rng.u8(..10))
        }
        12 => format!(
            "update pairs set b = b + 10 where a = {} and b < 5; delete from pairs where a = {}",
            id / 200,
            id / 230
        ),
        13 => format!(
            "update by_time set at = at + interval '{} hours' where at between '1999-12-20'::timestamptz + interval '{} hours' and '1999-12-20'::timestamptz + interval '{} hours' and device = 1",
            rng.i32(-900..900),
            id / 200,
            id / 200 + 1
        ),
        14 => format!(
            "update by_time set v = '{salt}' where device = 2 and at > '1999-12-20'::timestamptz + interval '{} hours'",
            rng.u32(1400..1480)
        ),
        15 => format!(
            "insert into by_time values ('1999-12-20'::timestamptz + interval '{salt} seconds' / 1000, 7, 'new'); delete from by_time where at < '1999-12-20'::timestamptz + interval '{} minutes'",
            rng.u32(..600)
        ),
        16 => format!(
            "update by_name set name = '{}{salt}' where n = {}",
            rng.choice(["ann", "Zoé", "a\\b", "é"]).unwrap_or_default(),
            id / 30
        ),
        17 => format!("update by_name set v = '{salt}' where n % 300 = {}", salt % 300),
        18 => format!("delete from by_name where n = {}; insert into by_name values ('Y{salt}', 1, 'new')", id / 29),
        _ => format!("update small set id = -id where id = {}", rng.u32(1..500)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_several_snapshots_are_reconciled_by_the_keys_of_changes_with_the_extension() -> Outcome {
    killed_between_parts(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_several_snapshots_are_reconciled_by_the_keys_of_changes_in_plain_sql() -> Outcome {
    killed_between_parts(PLAIN).await
}
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_several_snapshots_are_reconciled_by_the_keys_of_changes_through_wal2json() -> Outcome {
    killed_between_parts(EXTENSION_WAL2JSON).await
}
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_several_snapshots_are_reconciled_by_the_keys_of_changes_through_wal2json_in_plain_sql() -> Outcome {
    killed_between_parts(PLAIN_WAL2JSON).await
}

async fn killed_between_parts(way: Way) -> Outcome {
    let life = Life::begin(way, SCHEMA).await;
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let movers = Movers::start(&life.pair.source_uri(), seed).await;
    let args = ["--split-by", "key", "--split-tables-larger-than", "600kB", "--table-jobs", "2"];
    let (mut done, mut kept_until, mut kept_parts) = (0, String::new(), 0u32);
    for round in 0..3 {
        // Behind the proxy the copy stands still for as long as we look at it.
        let proxy = Proxy::to(&life.pair.source).await?;
        let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &args);
        done += rng.u32(2..7);
        let some = format!(
            "select phase in ('copy', 'indexes') and (select count(*) from pgmig.part where state = 'done') >= {done} from pgmig.progress"
        );
        life.wait_for(&mut run, "some Parts", &some).await;
        proxy.stall();
        let kept = life.on_target("select count(*) from pgmig.part where state = 'done'").await;
        let now = life.on_target("select clock_timestamp()").await;
        println!("round {round}: killed with {kept} Parts done");
        if round == 1 {
            // Some Parts show it, the others do not.
            life.on_source("truncate by_uuid, by_name; insert into by_name select md5(n::text), -n, 'again' from generate_series(1, 5000) n; insert into by_uuid select md5(n::text)::uuid, -n, 'again' from generate_series(1, 9000, 2) n").await;
        }
        movers.write_more(30).await;
        life.kill(run).await;
        (kept_until, kept_parts) = (now, kept.parse()?);
        movers.write_more(30).await;
        done = kept_parts;
    }
    let mut run = life.run_with(&args);
    life.wait_for(&mut run, "catchup", "select phase in ('catchup', 'follow') from pgmig.progress").await;
    movers.write_more(30).await;
    movers.stop().await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    let ended = life.end(run).await;
    assert!(!ended.stderr.contains("copied anew"), "{}", ended.stderr);
    let kept = format!("select count(*) >= {kept_parts} from pgmig.part where finished_at <= '{kept_until}'");
    assert_eq!(life.on_target(&kept).await, "t");
    // Else the test has not tested what it says.
    let several = "select string_agg(format('%s %s', table_name, snapshots), ', ' order by table_name) from \
                   (select table_name, count(distinct snapshot) as snapshots from pgmig.part group by table_name) t where snapshots > 1";
    let several = life.on_target(several).await;
    println!("snapshots: {several}");
    assert!(several.contains("ranged"), "{several}");
    let put_off = "select count(*) from pgmig.step where stage = 'unique' and state = 'done' and table_name = 'ranged'";
    assert_eq!(life.on_target(put_off).await, "3");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_outlives_its_part_where_each_has_its_own() -> Outcome {
    let life = Life::begin(EXTENSION, SCHEMA).await;
    let movers = Movers::start(&life.pair.source_uri(), seed()).await;
    let proxy = Proxy::to(&life.pair.source).await?;
    let args = ["--snapshot-per-part", "--split-tables-larger-than", "600kB", "--table-jobs", "2"];
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &args);
    life.wait_for(&mut run, "the copy", "select phase = 'copy' from pgmig.progress").await;
    let began = life.on_source("select pg_snapshot_xmax(pg_current_snapshot())").await;
    movers.write_more(20).await;
    let some = "select count(*) >= 4 from pgmig.part where state = 'done'";
    life.wait_for(&mut run, "some Parts", some).await;
    proxy.stall();
    movers.write_more(20).await;
    let held = format!(
        "select coalesce(min(backend_xmin::text::bigint), {began}) || ' ' || count(*) from pg_stat_activity \
          where application_name in ('pgmig copy', 'pgmig snapshot') and backend_xmin is not null"
    );
    let held = life.on_source(&held).await;
    let (oldest, sessions) = held.split_once(' ').expect("two numbers");
    println!("copy began before xid {began}; oldest snapshot {oldest} of {sessions} sessions");
    assert!(oldest.parse::<u64>()? >= began.parse()? && sessions.parse::<u32>()? <= 2, "{held}, {began}");
    assert_eq!(life.on_target("select phase from pgmig.progress").await, "copy");
    proxy.go_on();
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    // Nothing of ours keeps vacuum from its work.
    let holds =
        "select count(*) from pg_stat_activity where application_name like 'pgmig%' and backend_xmin is not null";
    wait_until(Duration::from_secs(20), "no snapshot to be held", async || life.on_source(holds).await == "0").await;
    movers.stop().await;
    life.end(run).await;
    assert_eq!(
        life.on_target("select count(distinct snapshot) > 3 from pgmig.part where table_name = 'ranged'").await,
        "t"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_copied_anew_where_a_moved_row_left_values_in_toast() -> Outcome {
    let life = Life::begin(EXTENSION, SCHEMA).await;
    let args = ["--split-by", "key", "--split-tables-larger-than", "600kB", "--table-jobs", "1"];
    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &args);
    let some = "select count(*) >= 2 from pgmig.part where state = 'done' and table_name = 'ranged'";
    life.wait_for(&mut run, "some Parts", some).await;
    proxy.stall();
    life.kill(run).await;
    let range = |state: &str| {
        format!(
            "select coalesce(key_lower, '10') || ' ' || coalesce(key_upper, '240000') from pgmig.part \
                  where table_name = 'ranged' and state = '{state}' order by part_number limit 1"
        )
    };
    let (kept, later) = (life.on_target(&range("done")).await, life.on_target(&range("pending")).await);
    let (into, _) = kept.split_once(' ').expect("two keys");
    let (from, to) = later.split_once(' ').expect("two keys");
    // The Part that is copied later shows the move, the one that was kept does not, and the body is in neither.
    let moved = format!(
        "with moved as (update ranged set id = {into} + id % 1000 + 1 \
                         where id = (select min(id) from ranged where id >= {from} and id < {to} and length(body) > 2000) returning 1) \
         select count(*) from moved"
    );
    assert_eq!(life.on_source(&moved).await, "1");
    let mut run = life.run_with(&args);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    let ended = life.end(run).await;
    assert!(ended.stderr.contains("a row of public.ranged moved to a Part"), "{}", ended.stderr);
    Ok(())
}

/// The same rows twice: of the first table Parts stay, of the second nobody can tell which ones a change is of.
const NAMES: &str = r#"
    create table by_name (name text collate "C" primary key, v text);
    insert into by_name
    select (array['Zoé', 'ann', 'Émile', '_x''', 'Bob'])[n % 5 + 1] || n, repeat('v', 250) from generate_series(1, 8000) n;
    create table by_word (word text collate "en-x-icu" primary key, v text);
    insert into by_word select name, v from by_name where name < 'b';
"#;

#[tokio::test(flavor = "multi_thread")]
async fn parts_cut_by_text_stay_where_its_order_is_that_of_its_bytes_with_the_extension() -> Outcome {
    cut_by_text(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn parts_cut_by_text_stay_where_its_order_is_that_of_its_bytes_in_plain_sql() -> Outcome {
    cut_by_text(PLAIN_WAL2JSON).await
}

async fn cut_by_text(way: Way) -> Outcome {
    let mut life = Life::begin(way, NAMES).await;
    life.allowed = &["public.by_word is copied again as a whole if the copy is interrupted: its key \"word\" is text"];
    let args =
        |rate| ["--split-by", "key", "--split-tables-larger-than", "300kB", "--table-jobs", "1", "--max-rate", rate];
    let anew = |table: &str| format!("public.{table} was copied in part and is copied anew");
    for some in ["by_word", "by_name"] {
        let mut run = life.run_with(&args("1MB"));
        let done = format!("select count(*) >= 2 from pgmig.part where state = 'done' and table_name = '{some}'");
        life.wait_for(&mut run, "some Parts", &done).await;
        assert_eq!(run.stderr().contains(&anew("by_word")), some == "by_name", "{}", run.stderr());
        life.kill(run).await;
        let left = format!("select count(*) > 0 from pgmig.part where state = 'pending' and table_name = '{some}'");
        assert_eq!(life.on_target(&left).await, "t", "{some}");
        // From every range to every other one, by keys that other collations have in another order.
        life.on_source(
            "update by_name set name = translate(name, 'ZaÉ_B', 'aÉB_Z') || '+' where length(name) % 3 = 0;
             delete from by_name where right(name, 2) = '11'; update by_name set v = 'new' where right(name, 2) = '13';
             insert into by_name select 'B' || md5(n::text), n from generate_series(1, 50) n on conflict do nothing;
             update by_word set word = 'B' || word where length(word) % 3 = 0",
        )
        .await;
    }
    let mut run = life.run_with(&args("0"));
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    let ended = life.end(run).await;
    assert!(!ended.stderr.contains(&anew("by_name")), "{}", ended.stderr);
    let several = "select count(distinct snapshot) from pgmig.part where table_name = ";
    assert_eq!(life.on_target(&format!("{several}'by_name'")).await, "2");
    assert_eq!(life.on_target(&format!("{several}'by_word'")).await, "1");
    Ok(())
}

const ONE_BY_ONE: [&str; 4] = ["--split-tables-larger-than", "600kB", "--table-jobs", "1"];
const JOIN: [&str; 4] = ["run", "--join", "--table-jobs", "1"];

/// A run that has stored a Part and stands still with another in its hands; it holds the snapshot all the same.
async fn stalled_run(life: &Life) -> std::io::Result<(Pgmig, Proxy)> {
    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &ONE_BY_ONE);
    life.wait_for(&mut run, "a Part", "select count(*) >= 1 from pgmig.part where state = 'done'").await;
    stand_still(life, &proxy, 1).await;
    Ok((run, proxy))
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_copy_from_one_queue_and_one_of_them_is_killed() -> Outcome {
    let life = Life::begin(EXTENSION, SCHEMA).await;
    let movers = Movers::start(&life.pair.source_uri(), seed()).await;
    let (mut run, proxy) = stalled_run(&life).await?;
    let other = Proxy::to(&life.pair.source).await?;
    let mut killed = life.pgmig_from(&other.uri(&life.pair.source, DATABASE), &JOIN);
    let before: u32 = life.on_target("select count(*) from pgmig.part where state = 'done'").await.parse()?;
    let more = format!("select count(*) > {before} from pgmig.part where state = 'done'");
    life.wait_for(&mut run, "its Parts", &more).await;
    stand_still(&life, &other, 2).await;
    let joined = life.pgmig(&JOIN);
    movers.write_more(20).await;
    killed.kill();
    killed.finish(&[]).await;
    // All but what the run itself has in hand.
    let rest = "select count(*) = 1 from pgmig.part where state = 'pending'";
    life.wait_for(&mut run, "the others to copy the rest", rest).await;
    assert_eq!(life.on_target("select count(distinct snapshot) from pgmig.part where state = 'done'").await, "1");
    proxy.go_on();
    joined.finish(&[]).await.expect_code(0);
    life.wait_for(&mut run, "catchup", "select phase in ('catchup', 'follow') from pgmig.progress").await;
    movers.stop().await;
    life.end(run).await;
    // There is nothing to join any more.
    let late = life.pgmig(&JOIN).finish(&[]).await.expect_code(0);
    assert!(late.stderr.contains("nothing left to copy"), "{}", late.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_that_died_was_helped_with_is_not_stored_beside_the_next_copy() -> Outcome {
    let life = Life::begin(EXTENSION, SCHEMA).await;
    let movers = Movers::start(&life.pair.source_uri(), seed()).await;
    let (run, proxy) = stalled_run(&life).await?;
    let other = Proxy::to(&life.pair.source).await?;
    let joined = life.pgmig_from(&other.uri(&life.pair.source, DATABASE), &JOIN);
    stand_still(&life, &other, 2).await;
    life.kill(run).await;
    drop(proxy);
    movers.write_more(20).await;
    let mut run = life.run_with(&ONE_BY_ONE);
    // It waits for the lock on the table whose rows the helper has in hand.
    let begun = "select exists (select from pg_stat_activity where application_name = 'pgmig run' and wait_event_type = 'Lock')";
    life.wait_for(&mut run, "the next copy to begin", begun).await;
    other.go_on();
    // What it had in hand is not stored, and it joins the next run.
    joined.finish(&[]).await.expect_code(0);
    life.wait_for(&mut run, "catchup", "select phase in ('catchup', 'follow') from pgmig.progress").await;
    movers.stop().await;
    life.end(run).await;
    assert_eq!(
        life.on_target("select count(distinct snapshot) from pgmig.part where table_name = 'ranged'").await,
        "1"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_joined_keeps_to_the_limits_and_waits_for_the_next_run_when_one_dies() -> Outcome {
    let life = Life::begin(EXTENSION, SCHEMA).await;
    let movers = Movers::start(&life.pair.source_uri(), seed()).await;
    let proxy = Proxy::to(&life.pair.source).await?;
    let jobs = ["--split-tables-larger-than", "600kB", "--table-jobs", "1"];
    let done = "select count(*) from pgmig.part where state = 'done'";
    let more = |than: &str| format!("select count(*) > {than} from pgmig.part where state = 'done'");
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &jobs);
    life.wait_for(&mut run, "a Part", &more("0")).await;
    stand_still(&life, &proxy, 1).await;
    // At a byte a second it takes a Part and does not end it; the other one may not even have a session.
    life.on_target("select pgmig.throttle(max_rate => 1, max_source_connections => 1)").await;
    let before = life.on_target(done).await;
    let mut joined = life.pgmig(&["run", "--join", "--table-jobs", "2"]);
    let in_hand = "select count(*) = 2 from pg_stat_activity where application_name like 'pgmig part%'";
    life.wait_for(&mut joined, "a Part in its hands", in_hand).await;
    movers.write_more(30).await;
    assert_eq!(life.on_target(done).await, before);
    let reading = "select count(*) from pg_stat_activity where application_name = 'pgmig copy'";
    assert_eq!(life.on_source(reading).await, "2", "a session of the run and one of the process that joined");
    // So it is with a rate that the run sets while the source keeps too much WAL; this run stands still.
    life.on_target("update pgmig.sentinel set wal_max_rate = 1").await;
    life.on_target("select pgmig.throttle(max_rate => 0)").await;
    movers.write_more(30).await;
    assert_eq!(life.on_target(done).await, before);
    // And with what it sets while the copy gives way.
    life.on_target("update pgmig.sentinel set wal_max_rate = null, load_max_rate = 1, load_max_workers = 1").await;
    movers.write_more(30).await;
    assert_eq!(life.on_target(done).await, before);
    // Asked to end, it finishes what it has in hand.
    joined.interrupt();
    let asked = async || joined.stderr().contains("once more stops at once");
    wait_until(Duration::from_secs(10), "it to hear", asked).await;
    life.on_target("update pgmig.sentinel set load_max_rate = null").await;
    let stopped = joined.finish(&["error: stopped"]).await.expect_code(130);
    assert!(stopped.stderr.contains("the run goes on without this process"), "{}", stopped.stderr);
    let after = life.on_target(done).await;
    assert_ne!(after, before, "the Part that it had in hand");
    let mut joined = life.pgmig(&["run", "--join", "--table-jobs", "2"]);
    life.wait_for(&mut joined, "its Parts", &more(&after)).await;
    life.kill(run).await;
    drop(proxy);
    let waits = async || joined.stderr().contains("waiting for the next one");
    wait_until(Duration::from_secs(30), "it to wait for the next run", waits).await;
    movers.write_more(20).await;
    // So slow that there is something left to join.
    life.on_target("select pgmig.throttle(max_rate => 1)").await;
    let mut run = life.run_with(&jobs);
    let again = async || joined.stderr().matches("copying for migration").count() == 2;
    wait_until(Duration::from_secs(30), "it to join the next run", again).await;
    life.on_target("select pgmig.throttle(max_rate => 0)").await;
    joined.finish(&[]).await.expect_code(0);
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    movers.stop().await;
    life.end(run).await;
    Ok(())
}

/// Stalls the proxy at a moment when so many Parts are in the hands of workers: none of them can end then.
pub async fn stand_still(life: &Life, proxy: &Proxy, parts: u32) {
    let in_hand = "select count(*) from pg_stat_activity where application_name like 'pgmig part%'";
    wait_until(Duration::from_secs(20), "Parts in hand", async || {
        proxy.stall();
        let mut is_so = life.on_target(in_hand).await == parts.to_string();
        if is_so {
            // What had passed the proxy before may be all that a Part needs to end.
            tokio::time::sleep(Duration::from_millis(300)).await;
            is_so = life.on_target(in_hand).await == parts.to_string();
        }
        if !is_so {
            proxy.go_on();
        }
        is_so
    })
    .await;
}
