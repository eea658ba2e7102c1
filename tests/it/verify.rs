//! `pgmig verify`: what was changed behind pgmig's back is found and named, while both sides are written
//! to; and what is equal is never called different.

mod quick;
mod repair;
mod values;

use std::time::Duration;

use harness::{Outcome, wait_until};
use pgmig::target::status;

use crate::cutover::writer::Clients;
use crate::life::{EXTENSION, Life, PLAIN};

const TABLES: &str = "
create table note (id bigserial primary key, client int not null, number int not null, at timestamptz default now());
create table wide (a int, b text, \"The Day\" date, c numeric, d float8, e bytea, f jsonb, g text[], primary key (b, a));
create table keyless (a int, b text);
alter table keyless replica identity full;
insert into wide select n, 'k' || n, date '2020-01-01' + n, n / 3.0, sqrt(n), decode(md5(n::text), 'hex'), jsonb_build_object('n', n), array[n::text, null, ''] from generate_series(1, 3000) n;
insert into keyless select n % 10, null from generate_series(1, 100) n";

#[tokio::test(flavor = "multi_thread")]
async fn a_long_comparison_says_how_far_it_is_and_how_long_it_takes() -> Outcome {
    const TABLES: u64 = 12;
    let life = Life::empty(EXTENSION).await;
    for table in 1..=TABLES {
        let make = "create table pile_N as select n as id, repeat('x', 500) as v from generate_series(1, 1500) n; \
                    alter table pile_N add primary key (id)";
        life.source.batch_execute(&make.replace("_N", &format!("_{table}"))).await?;
    }
    let run = life.follow().await;
    // At this rate it takes 13 seconds, table by table: there is a line after ten.
    let rate = life.on_source("select pg_relation_size('pile_1')").await.parse::<u64>()? * TABLES / 13;
    let equal = life.pgmig(&["verify", "--table-jobs", "1", "--max-rate", &rate.to_string()]);
    // Half way it is half done, for whoever looks from elsewhere.
    let verified =
        async || status::verified(&life.target, "default").await.expect("status is read").unwrap_or_default();
    wait_until(Duration::from_secs(60), "half of it", async || verified().await.running_percent >= Some(50.0)).await;
    let seen = verified().await;
    assert!(seen.percent.is_none() && seen.running_percent < Some(80.0), "{seen:?}");
    assert!(seen.seconds_left.is_some_and(|left| (2.0..9.0).contains(&left)), "{seen:?}");
    let equal = equal.finish(&[]).await.expect_code(0);
    let line = equal.stderr.lines().find(|line| line.starts_with("compared ")).unwrap_or_default();
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let ["compared", read, "MiB", "of", all, "MiB", left, "s", "left"] = words[..] else {
        panic!("no progress: {}", equal.stderr)
    };
    let [read, all, left]: [f64; 3] = [read.parse()?, all.parse()?, left.parse()?];
    assert!(read > all * 0.7 && read <= all && left < 6.0, "{line}");
    let shown = life.pgmig(&["status", "--json"]).finish(&[]).await.expect_code(0).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let told = &shown["migrations"][0]["verified"];
    assert_eq!((&told["percent"], &told["differences"]), (&100.0.into(), &0.into()), "{told}");
    assert!(told["running_percent"].is_null() && told["at"].is_string(), "{told}");
    // One of the twelve differs.
    life.on_target("update pile_7 set v = 'y' where id = 7").await;
    life.pgmig(&["verify"]).finish(&[]).await.expect_code(1);
    let seen = verified().await;
    assert_eq!((seen.percent.map(f64::round), seen.differences), (Some(92.0), Some(1)));
    life.on_target("update pile_7 set v = repeat('x', 500) where id = 7").await;
    life.end(run).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_differences_are_named_under_load_and_equal_sides_are_equal() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        let life = Life::begin(way, TABLES).await;
        let run = life.follow().await;
        let clients = Clients::start(&life.pair.source_uri(), 3).await;
        for _ in 0..5 {
            clients.have_written(20).await;
            let equal = life.pgmig(&["verify"]).finish(&[]).await.expect_code(0);
            assert_eq!(equal.stdout, "", "equal sides have nothing to tell");
            assert!(equal.stderr.contains("apply was held for"), "{}", equal.stderr);
        }
        life.on_target("update wide set e = set_bit(e, 3, 1 - get_bit(e, 3)) where a = 77").await;
        life.on_target("delete from wide where a = 1234; delete from keyless where ctid = '(0,5)'").await;
        life.on_target("insert into wide (a, b) values (5000, 'extra')").await;
        let found = life.pgmig(&["verify", "--table-jobs", "2"]).finish(&[]).await.expect_code(1);
        let expected = "\
public.keyless  source 100 rows, target 99 rows; 1 of them differ
  a row  is missing on the target
public.wide  source 3000 rows, target 3000 rows; 3 of them differ
  b = extra, a = 5000  is on the target only
  b = k1234, a = 1234  is missing on the target
  b = k77, a = 77  has other values on the target
";
        assert_eq!(found.stdout, expected, "{}", found.stderr);
        let quick = life.pgmig(&["verify", "--quick", "--json"]).finish(&[]).await.expect_code(1);
        let quick: serde_json::Value = serde_json::from_str(&quick.stdout)?;
        assert_eq!(quick["equal"], false);
        assert_eq!(quick["differences"][0]["what"], "source 100 rows, target 99 rows");
        assert_eq!(quick["differences"].as_array().map(Vec::len), Some(1), "counts of the other are the same");

        // What cannot be read is no equal table.
        life.on_target("alter table wide rename to aside").await;
        let found = life.pgmig(&["verify"]).finish(&[]).await.expect_code(1);
        assert!(found.stdout.contains("public.wide  is missing on the target"), "{}", found.stdout);
        life.on_target("alter table aside rename to wide").await;

        // The rows are mended, and it goes on as if nothing had been.
        life.on_target(
            "update wide set e = set_bit(e, 3, 1 - get_bit(e, 3)) where a = 77; delete from wide where a = 5000",
        )
        .await;
        life.on_target("insert into wide select n, 'k' || n, date '2020-01-01' + n, n / 3.0, sqrt(n), decode(md5(n::text), 'hex'), jsonb_build_object('n', n), array[n::text, null, ''] from generate_series(1234, 1234) n").await;
        life.on_target("insert into keyless select a, b from keyless group by 1, 2 having count(*) = 9").await;
        let written = clients.stop().await;
        assert_eq!(
            (written.refused, written.longest < Duration::from_secs(60)),
            (0, true),
            "nobody was kept from writing"
        );
        life.end(run).await;
        let done = life.pgmig(&["verify"]).finish(&[]).await.expect_code(0);
        assert!(done.stderr.contains("the migration is done"), "{}", done.stderr);
    }
    Ok(())
}
