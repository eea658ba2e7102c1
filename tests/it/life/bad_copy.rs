//! What can go wrong while tables are copied: each is told with table and SQLSTATE within half a minute,
//! or waited for; and the same command, run again, copies nothing twice.

use std::time::{Duration, Instant};

use harness::faults::{self, Proxy};
use harness::{DATABASE, Finished, Outcome, assert_same};

use super::{EXTENSION, Life, PLAIN, session};

/// What pgmig may take to give up, with the time that a busy machine takes for all else.
const GIVES_UP: Duration = Duration::from_secs(60);

impl Life {
    /// Waits for a run that is to fail with this code and these words; no value of a row is among them.
    async fn fails(&self, run: harness::Pgmig, code: i32, words: &[&str]) -> Finished {
        let begun = Instant::now();
        let done = run.wait(GIVES_UP).await;
        assert_eq!(done.code(), code, "{}", done.stderr);
        for word in words {
            assert!(done.stderr.contains(word), "`{word}` is missing:\n{}", done.stderr);
        }
        assert!(!done.stderr.contains("secret value"), "{}", done.stderr);
        println!("gave up after {:.1} s", begun.elapsed().as_secs_f64());
        done
    }
    /// Parts with the transaction that marked them done: of one that is copied again it is another.
    async fn marks(&self) -> String {
        self.on_target("select string_agg(table_name || part_number || ' ' || xmin, ', ' order by part_id) from pgmig.part where state = 'done'").await
    }
}

const TWO_TABLES: &str = "
    create function allowed(v text) returns boolean language sql immutable as 'select true';
    create table large (id int primary key, v text);
    insert into large select n, repeat('x', 400) from generate_series(1, 6000) n;
    create table refused (id int primary key, v text, check (allowed(v)));
    insert into refused select n, 'secret value ' || n from generate_series(1, 50) n;
    create table fine (id int primary key, v text);
    insert into fine select n, 'fine' from generate_series(1, 50) n;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_target_refuses_is_told_and_the_rest_is_not_copied_again() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        let life = Life::begin(way, TWO_TABLES).await;
        // Rows that were let in before the rule became stricter.
        life.on_source("create or replace function allowed(v text) returns boolean language sql immutable as $$ select v !~ '49' $$").await;
        let words = ["public.refused", "(23514)", "refused_v_check"];
        let done = life.fails(life.run_with(&["--table-jobs", "1"]), 4, &words).await;
        assert!(done.stderr.contains("line 49"), "{}", done.stderr);
        let before = life.marks().await;
        assert!(before.contains("large1"), "{before}");
        assert_eq!(life.on_target("select count(*) from refused").await, "0");
        for client in [&life.source, &life.target] {
            client.batch_execute("create or replace function allowed(v text) returns boolean language sql immutable as 'select true'").await?;
        }
        let run = life.follow().await;
        assert!(life.marks().await.starts_with(&before), "{before} is not how {} begins", life.marks().await);
        life.end(run).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_before_its_copy_stays_empty_and_is_told() -> Outcome {
    let mut life = Life::begin(EXTENSION, TWO_TABLES).await;
    life.allowed = &["public.fine was dropped", "public.large was dropped"];
    life.on_source("insert into large select n, repeat('y', 400) from generate_series(6001, 60000) n").await;
    let proxy = Proxy::to(&life.pair.source).await?;
    let uri = proxy.uri(&life.pair.source, DATABASE);
    let mut run = life.run_from(&uri, &["--split-tables-larger-than", "5MB", "--table-jobs", "1"]);
    life.wait_for(&mut run, "the tables", "select to_regclass('public.large') is not null").await;
    proxy.stall();
    // It is changed, then dropped: the changes are in the stream, the rows in no snapshot.
    life.on_source("insert into fine values (1000, 'x'); update large set v = 'y' where id = 7; drop table fine").await;
    let writer = session(&life.pair.source_uri()).await;
    let dropped = tokio::spawn(async move { writer.batch_execute("drop table large").await });
    proxy.go_on();
    dropped.await??;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    assert_eq!(life.on_target("select (select count(*) from fine) + (select count(*) from large)").await, "0");
    life.on_target("drop table fine; drop table large").await;
    assert_same(&life.pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_a_target_table_is_waited_for_then_told() -> Outcome {
    let mut life = Life::begin(PLAIN, TWO_TABLES).await;
    let proxy = Proxy::to(&life.pair.source).await?;
    let mut run = life.run_from(&proxy.uri(&life.pair.source, DATABASE), &["--table-jobs", "1"]);
    life.wait_for(&mut run, "the table", "select to_regclass('public.large') is not null").await;
    let locker = session(&life.pair.target_uri()).await;
    locker
        .batch_execute("set application_name = 'nightly report'; begin; lock table fine in access share mode")
        .await?;
    life.fails(run, 4, &["public.fine", "(55P03)", "nightly report"]).await;
    assert!(life.marks().await.contains("large1"));
    // It passes while it is waited for.
    life.allowed = &["tried again in"];
    let mut run = life.run_with(&["--table-jobs", "1"]);
    let waits = "select count(*) > 0 from pg_locks where not granted and relation = 'fine'::regclass";
    life.wait_for(&mut run, "the copy to wait", waits).await;
    locker.batch_execute("commit").await?;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_loses_a_connection_tries_its_part_again() -> Outcome {
    for (way, on_target) in [(EXTENSION, true), (PLAIN, false)] {
        let mut life = Life::begin(way, TWO_TABLES).await;
        life.allowed = super::lost::TOLD;
        let proxy = Proxy::to(&life.pair.source).await?;
        let uri = proxy.uri(&life.pair.source, DATABASE);
        // One session at the time reads, and stands still half-way.
        life.on_source("insert into large select n, repeat('y', 400) from generate_series(6001, 60000) n").await;
        let mut run = life.run_from(&uri, &["--table-jobs", "1"]);
        life.wait_for(
            &mut run,
            "a Part",
            "select count(*) > 0 from pgmig.parts where state = 'copying' and table_name = 'large'",
        )
        .await;
        proxy.stall();
        let ended = match on_target {
            true => faults::end_sessions(&life.pair.target, "pgmig part %").await?,
            false => faults::end_sessions(&life.pair.source, "pgmig copy").await?,
        };
        proxy.go_on();
        life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
        println!("{ended} sessions ended");
        assert!(ended > 0);
        life.end(run).await;
    }
    Ok(())
}

/// As pg_restore, pgmig has an empty search_path, and a function that relies on one fails where a row or an index
/// calls it.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_relies_on_search_path_is_told_and_mended() -> Outcome {
    let life = Life::begin(
        PLAIN,
        "create function folded(text) returns text language sql immutable as 'select lower($1)';
         create function of_check(v text) returns text language plpgsql immutable as $$ begin return folded(v); end $$;
         create function of_index(v text) returns text language plpgsql immutable as $$ begin return folded(v); end $$;
         create table checked (id int primary key, v text check (of_check(v) <> 'secret value'));
         create table indexed (id int primary key, v text);
         insert into checked select n, 'V' || n from generate_series(1, 50) n;
         insert into indexed select * from checked;
         create index indexed_v on indexed (of_index(v))",
    )
    .await;
    let mend = async |function: &str| {
        let alter = format!("alter function {function}(text) set search_path = public");
        life.on_source(&alter).await;
        life.on_target(&alter).await;
    };
    life.fails(life.run(), 4, &["public.checked", "(42883)", "set search_path"]).await;
    mend("of_check").await;
    life.fails(life.run(), 4, &["public.indexed_v", "(42883)", "set search_path"]).await;
    let before = life.marks().await;
    mend("of_index").await;
    let run = life.follow().await;
    // What had been copied was not copied again. The failure may have come before all of it was.
    let after = life.marks().await;
    let stays = |mark: &str| after.split(", ").any(|found| found == mark);
    assert!(before.contains("indexed1 ") && before.split(", ").all(stays), "{before} -> {after}");
    life.end(run).await;
    Ok(())
}

/// The table behind a name is another one than under the snapshot, whose rows COPY would not see.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_swapped_by_renaming_before_its_copy_arrives_as_it_is_now() -> Outcome {
    let mut life = Life::begin(PLAIN, TWO_TABLES).await;
    life.on_source("insert into large select n, repeat('y', 400) from generate_series(6001, 60000) n").await;
    let proxy = Proxy::to(&life.pair.source).await?;
    let uri = proxy.uri(&life.pair.source, DATABASE);
    life.allowed = &["tried again in"];
    let mut run = life.run_from(&uri, &["--table-jobs", "1"]);
    life.wait_for(&mut run, "the tables", "select to_regclass('public.large') is not null").await;
    proxy.stall();
    life.on_source(
        "begin; create table fine_new (like fine including all); insert into fine_new select id, 'new' from fine where id < 40; \
         drop table fine; alter table fine_new rename to fine; commit",
    )
    .await;
    proxy.go_on();
    life.wait_for(
        &mut run,
        "the copy of fine",
        "select count(*) > 0 from pgmig.part where table_name = 'fine' and state = 'done'",
    )
    .await;
    assert_eq!(life.on_target("select count(*) || ' ' || min(v) from fine").await, "39 new");
    life.kill(run).await;
    Ok(())
}

/// A backend goes on building for a pgmig that is gone, and holds its step meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_a_killed_run_was_building_is_there_in_the_end() -> Outcome {
    let life = Life::begin(
        EXTENSION,
        "create function slowly(n int) returns int language plpgsql immutable as $$ begin perform pg_sleep(0.0005); return n; end $$;
         create table slow (id int primary key, n int); insert into slow select n, n from generate_series(1, 9000) n;
         create index slow_n on slow (slowly(n))",
    )
    .await;
    let mut run = life.run();
    let building = "select count(*) > 0 from pg_stat_activity where application_name ~ '^pgmig' and state = 'active' and query ~ 'slow_n'";
    life.wait_for(&mut run, "the index", building).await;
    life.kill(run).await;
    assert_eq!(life.on_target(building).await, "t", "the backend has ended already: nothing is shown");
    let mut run = life.run();
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    life.end(run).await;
    Ok(())
}

/// A table space of a few megabytes stands for a disk: as root, where one can be mounted.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_copy_goes_on_once_there_is_room() -> Outcome {
    let disk = tempfile::tempdir()?;
    let mount = |more: &[&str]| {
        let done = std::process::Command::new("mount").args(more).arg(disk.path()).output();
        done.is_ok_and(|done| done.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"]) {
        println!("no disk can be mounted here: not shown");
        return Ok(());
    }
    let _unmount = Unmount(disk.path().to_path_buf());
    let place = disk.path().join("space");
    std::fs::create_dir(&place)?;
    let mut life = Life::begin(PLAIN, TWO_TABLES).await;
    life.on_source("insert into large select n, repeat('z', 400) from generate_series(6001, 40000) n").await;
    // The server's user owns its data folder, and must own this.
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(life.pair.target.data_dir())?);
    std::os::unix::fs::chown(&place, Some(owner), None)?;
    life.on_target(&format!("create tablespace small_disk location '{}'", place.display())).await;
    life.on_target(&format!("alter database {DATABASE} set default_tablespace = small_disk")).await;
    life.fails(life.run(), 4, &["public.large", "(53100)", "make room on the target's disk"]).await;
    assert!(mount(&["-o", "remount,size=200m"]));
    life.allowed = &["is set on the target"];
    let run = life.follow().await;
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    life.on_target(&format!("alter database {DATABASE} reset default_tablespace")).await;
    let rows = "select count(*) || ' ' || sum(hashtext(l::text)) from large l";
    assert_eq!(life.on_target(rows).await, life.on_source(rows).await);
    drop(life);
    Ok(())
}

struct Unmount(std::path::PathBuf);
impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
