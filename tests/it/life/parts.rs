//! How tables are cut into Parts: by blocks and by keys of every kind, large objects by their oids; and
//! what a value of a hundred megabytes costs.

use std::time::Duration;

use harness::{Outcome, assert_same, versions};
use pgmig::embedded::Cluster;
use pgmig::model::KeyValue;
use pgmig::source::catalog::{self, Sizes};

use super::{EXTENSION, Life, PLAIN, session};

const KEYS: &str = r#"
    create table negative (id int primary key, v text);
    insert into negative select n, md5(n::text) from generate_series(-9999, 9999, 3) n;
    create table extremes (id bigint primary key, v text);
    insert into extremes
    select case n % 3 when 0 then -9223372036854775808 + n when 1 then n else 9223372036854775807 - n end, md5(n::text)
      from generate_series(0, 6000) n;
    create table by_uuid (id uuid primary key, v text);
    insert into by_uuid select md5(n::text)::uuid, n from generate_series(1, 6000) n;
    create table by_text (v int, "Key ""of"" it" text, n int, primary key ("Key ""of"" it", n));
    insert into by_text
    select n, (array['', 'a''b', 'a\b', 'é', '☃', 'Z', 'z', '%$1'])[n % 8 + 1] || n / 50, n from generate_series(1, 6000) n;
    create table by_time (at timestamptz not null unique, v text);
    insert into by_time select timestamptz '4713-01-01 BC' + n * interval '1 year', md5(n::text) from generate_series(1, 6000) n;
    insert into by_time values ('infinity', 'last'), ('-infinity', 'first');
    alter table by_time replica identity using index by_time_at_key;
    create table by_number (n numeric(20, 3) primary key, v text);
    insert into by_number select n / 7.0, md5(n::text) from generate_series(-3000, 3000) n;
    insert into by_number values ('NaN', 'not a number');
    create table one_value (k int not null, id int, v text, primary key (k, id));
    insert into one_value select 7, n, md5(n::text) from generate_series(1, 6000) n;
    create table without_key (v text);
    insert into without_key select md5(n::text) from generate_series(1, 6000) n;
    alter table without_key replica identity full;
"#;

#[tokio::test(flavor = "multi_thread")]
async fn tables_cut_by_keys_of_every_kind_arrive_whole() -> Outcome {
    let mut life = Life::begin(EXTENSION, KEYS).await;
    life.allowed = &[
        "public.by_text is copied again as a whole if the copy is interrupted: its key \"Key \"\"of\"\" it\" is text",
        "public.without_key is copied again as a whole if the copy is interrupted: no key",
    ];
    let args = ["--skip-split-by-ctid", "--split-tables-larger-than", "96kB", "--split-max-parts", "5"];
    let run = life.follow_with(&args).await;
    assert!(life.allowed.iter().all(|told| run.stderr().contains(told)), "{}", run.stderr());
    for table in ["negative", "extremes", "by_uuid", "by_text", "by_time", "by_number"] {
        let parts = format!("select count(*) between 3 and 5 from pgmig.part where table_name = '{table}'");
        assert_eq!(life.on_target(&parts).await, "t", "{table}");
    }
    let whole =
        "select count(*) from pgmig.part where table_name in ('one_value', 'without_key') and predicate is null";
    assert_eq!(life.on_target(whole).await, "2");
    // The order that a change is held against is the server's own.
    for (table, column, of) in [
        ("extremes", "id", "bigint"),
        ("by_uuid", "id", "uuid"),
        ("by_time", "at", "timestamp with time zone"),
        ("by_time", "at::date", "date"),
        ("by_number", "n", "numeric(20,3)"),
        ("by_text", "replace(\"Key \"\"of\"\" it\", ',', '') collate \"C\"", "text"),
    ] {
        let ordered = format!("select string_agg(v::text, ',' order by v) from (select {column} as v from {table}) t");
        let ordered = life.on_source(&ordered).await;
        let parsed: Vec<_> = ordered.split(',').map(|text| KeyValue::parse(of, text.as_bytes())).collect();
        assert!(parsed.len() > 3000 && parsed.iter().all(Option::is_some) && parsed.is_sorted(), "{table}.{column}");
    }
    // Keys that no range was made for, and one that moves from the first range to the last.
    life.on_source(
        "insert into negative values (-2147483648, 'least'), (2147483647, 'most');
         update by_text set \"Key \"\"of\"\" it\" = 'zzz', n = -1 where n = 9;
         update by_uuid set id = 'ffffffff-ffff-ffff-ffff-ffffffffffff' where v = '1'",
    )
    .await;
    life.end(run).await;
    Ok(())
}

/// `by_default` has the collation of its database.
const COLLATED: &str = r#"
    create table by_default (k text primary key);
    create table c (k text collate "C" primary key);
    create table posix (k varchar(9) collate "POSIX" primary key);
    create table icu (k text collate "en-x-icu" primary key);
    create table padded (k char(9) collate "C" primary key);
"#;

#[tokio::test(flavor = "multi_thread")]
async fn text_says_which_part_its_row_is_in_only_where_its_order_is_that_of_its_bytes() -> Outcome {
    for bin in versions() {
        let cluster = Cluster::builder().bin_dir(bin.path()).start().await?;
        let mut databases = vec![
            ("c", "lc_collate 'C' lc_ctype 'C'", "by_default c posix"),
            ("libc", "lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8'", "c posix"),
            ("icu", "locale_provider icu icu_locale 'en' lc_collate 'C' lc_ctype 'C'", "c posix"),
            ("latin", "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'", ""),
        ];
        if cluster.major() >= 17 {
            databases.push(("builtin", "locale_provider builtin builtin_locale 'C.UTF-8'", "by_default c posix"));
        }
        for (name, made, expected) in databases {
            cluster.sql("postgres", &format!("create database {name} template template0 {made}")).await?;
            cluster.sql(name, COLLATED).await?;
            let mut tables = catalog::tables(&session(&cluster.uri(name)).await, Sizes::Files).await?;
            tables.retain(|table| table.split_key.as_ref().is_some_and(|key| key.tells_part));
            let mut telling: Vec<&str> = tables.iter().map(|table| table.name.table.as_str()).collect();
            telling.sort_unstable();
            assert_eq!(telling.join(" "), expected, "PostgreSQL {}, database {name}", bin.version());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_grows_after_it_was_cut_loses_nothing() -> Outcome {
    let life = Life::begin(
        PLAIN,
        "create table grows (id int primary key, v text); insert into grows select n, md5(n::text) from generate_series(1, 9000) n",
    )
    .await;
    let mut run = life.run_with(&["--split-tables-larger-than", "100kB"]);
    life.wait_for(&mut run, "the slot", "select startpos is not null from pgmig.progress").await;
    // Behind the snapshot: new blocks, and rows that move to them.
    life.on_source("insert into grows select n, md5(n::text) from generate_series(9001, 20000) n; update grows set v = v || '.' where id % 3 = 0").await;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;
    assert_eq!(life.on_target("select count(*) > 4 from pgmig.part where predicate ~ 'ctid'").await, "t");
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_arrive_with_owners_privileges_and_comments() -> Outcome {
    let mut life = Life::begin(
        EXTENSION,
        "create table t (id int primary key); create role reader; create role owner_of_some;
         select lo_from_bytea(n, convert_to(repeat(n::text, n % 40), 'UTF8')) from generate_series(100000, 103999) n;
         select lo_from_bytea(5, decode(repeat('00ff5c27', 700000), 'hex')), lo_from_bytea(6, ''),
                lo_from_bytea(7, decode(repeat('ab', 8192), 'hex')), lo_from_bytea(4294967295, 'last');
         comment on large object 5 is 'it''s large';
         grant select on large object 5 to reader; grant select, update on large object 6 to public;
         alter large object 7 owner to owner_of_some; grant select on large object 7 to reader with grant option;
         revoke update on large object 7 from owner_of_some",
    )
    .await;
    life.allowed = &["4004 large objects are copied"];
    life.on_target("create role reader; create role owner_of_some").await;
    let run = life.follow().await;
    assert_eq!(life.on_target("select count(*) from pgmig.part where schema_name = 'pg_catalog'").await, "5");
    life.end(run).await;
    let described = "select string_agg(concat_ws(' ', oid, lomowner::regrole, lomacl, obj_description(oid, 'pg_largeobject')), '; ' order by oid) \
                     from pg_largeobject_metadata where oid < 100";
    assert_eq!(life.on_target(described).await, life.on_source(described).await);
    Ok(())
}

/// Whole values pass through, a piece at a time.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_hundred_megabytes_are_copied_in_little_memory() -> Outcome {
    let life = Life::begin(
        PLAIN,
        "create table huge (id int primary key, b bytea, t text);
         alter table huge alter b set storage external;
         insert into huge values (1, decode(repeat('00ff5c0a', 25000000), 'hex'), null),
                                 (2, null, repeat(E'tab\\t, line\\n, \\\\ ☃ ', 5000000)), (3, '', '')",
    )
    .await;
    let dir = life.dir.path().display().to_string();
    let mut run = life.pgmig(&["run", "--flavour", "plain", "--no-follow", "--dir", &dir]);
    let mut peak_kb = 0;
    while run.is_running() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap_or_default();
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak_kb = peak.unwrap_or(peak_kb);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.finish(&[]).await.expect_code(0);
    assert_same(&life.pair).await;
    assert!((1000..100_000).contains(&peak_kb), "{peak_kb} kB at the peak");
    println!("{peak_kb} kB at the peak");
    Ok(())
}
