//! Databases in other encodings than UTF-8: their names and their rows, copied and followed. In SQL_ASCII
//! bytes are bytes, and what is no text goes through unread or is refused by name.

use std::time::Duration;

use harness::{Outcome, assert_same};
use pgmig::embedded::Cluster;
use pgmig::verify::{self, Kind};

use super::{EXTENSION, Life, PLAIN, Way};

async fn between(way: Way, source: &str, target: &str) -> Life {
    Life::between(way, Cluster::builder().encoding(source), Cluster::builder().encoding(target)).await
}

/// Text of every kind in LATIN1, in names too: all bytes from 0xa0 on, and those that are control
/// characters there and nothing in UTF-8.
const LATIN1: &str = r#"
    create schema "Où";
    create type "Où"."été" as enum ('chaud', 'brûlant');
    create table "Où"."garçon" (
        "clé" text primary key, "naïf" text default 'ô là', "saison" "Où"."été", raw bytea,
        constraint "vérifié" check ("naïf" <> 'é'), "calculé" text generated always as ("naïf" || '¡') stored);
    comment on column "Où"."garçon"."clé" is 'la clé d''été';
    create index "indice_é" on "Où"."garçon" (lower("naïf")) where "naïf" <> 'à';
    create view "Où"."voilà" as select "clé" || 'ß' as "straße" from "Où"."garçon";
    create sequence "numéro";
    create table "sœur_sans_clé" (t text);
"#;

async fn latin1_is_moved(way: Way, target: &str) -> Outcome {
    let life = between(way, "LATIN1", target).await;
    // œ is no letter of LATIN1.
    life.source.batch_execute(&LATIN1.replace('œ', "ö")).await?;
    life.source.batch_execute("alter table \"söur_sans_clé\" replica identity full").await?;
    let fill = |key: &str| {
        format!(
            r#"insert into "Où"."garçon" values ('{key}é', E'\x80\x85\xa0 ÿþ÷', 'brûlant', '\x00ff'),
               ('{key}à', (select string_agg(chr(n), '') from generate_series(160, 255) n), 'chaud', null)"#
        )
    };
    life.on_source(&fill("copié ")).await;
    life.on_source("insert into \"söur_sans_clé\" values ('là'), ('là')").await;
    let run = life.follow().await;
    for change in [
        &fill("suivi "),
        r#"update "Où"."garçon" set "clé" = 'ça', "naïf" = 'ñandú' where "clé" = 'copié é'"#,
        r#"update "Où"."garçon" set "saison" = 'brûlant' where "clé" = 'ça'"#,
        r#"delete from "Où"."garçon" where "clé" = 'copié à'"#,
        r#"update "söur_sans_clé" set t = 'déjà' where ctid = (select min(ctid) from "söur_sans_clé")"#,
        "select nextval('\"numéro\"')",
    ] {
        life.on_source(change).await;
    }
    life.end(run).await;
    let there = life.on_target(r#"select "naïf" from "Où"."garçon" where "clé" = 'ça'"#).await;
    assert_eq!(there, "ñandú");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn latin1_arrives_in_utf8_and_in_latin1() -> Outcome {
    tokio::try_join!(
        latin1_is_moved(EXTENSION, "UTF8"),
        latin1_is_moved(PLAIN, "UTF8"),
        latin1_is_moved(EXTENSION, "LATIN1"),
        latin1_is_moved(PLAIN, "LATIN1"),
    )
    .map(drop)
}

/// The bytes of a row in SQL_ASCII need be no text in any encoding.
async fn bytes_are_moved(way: Way) -> Outcome {
    let life = between(way, "SQL_ASCII", "SQL_ASCII").await;
    life.source
        .batch_execute(
            r"create table t (id int primary key, t text, c char(3), v varchar(9), a text[], j json);
              create table u (t text); alter table u replica identity full; create table k (t text primary key);
              insert into t values (1, E'caf\xe9', E'\xff', E'\xc3\xa9', array[E'\xe9', null], E'{\x22a\x22: \x22\xe9\x22}');
              insert into t values (2, E'caf\xc3\xa9', E'\x80\x81', null, null, null);
              insert into u values (E'\xe9'), (E'\xe9'), (E'\xc3\xa9'); insert into k values (E'\xe9'), (E'\xea');
              create table é (ö int primary key, t text default 'é'); insert into é values (1, 'ï')",
        )
        .await?;
    let run = life.follow().await;
    for change in [
        r"insert into t values (3, E'\xe9\x80', E'\xfe', E'\xe9', array[E'\xe9,\x22'], null)",
        r"update t set t = t || E'\xe8' where id < 3",
        r"update u set t = E'\xe8' where ctid = (select min(ctid) from u)",
        r"delete from u where t = E'\xc3\xa9'",
        r"update k set t = E'\xeb' where t = E'\xe9'",
        r"delete from k where t = E'\xea'",
        r"insert into é values (2, E'\xef')",
    ] {
        life.on_source(change).await;
    }
    life.end(run).await;
    let there = life.on_target("select encode(t::bytea, 'hex') from t where id = 1").await;
    assert_eq!(there, "636166e9e8");
    // Other bytes are a difference.
    life.on_target(r"update t set t = E'caf\xe8\xe8' where id = 1").await;
    assert!(life.pair.compare(verify::Options::default()).await?.holds(Kind::Rows, "public.t"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_sql_ascii_arrive_as_they_are() -> Outcome {
    tokio::try_join!(bytes_are_moved(EXTENSION), bytes_are_moved(PLAIN)).map(drop)
}

/// Text of a source in SQL_ASCII that is UTF-8 arrives in a target in UTF8; what is not is refused, with
/// the place where it is and not with the value.
async fn only_utf8_arrives(way: Way) -> Outcome {
    let life = between(way, "SQL_ASCII", "UTF8").await;
    life.source
        .batch_execute("create table é (id int primary key, t text); insert into é values (1, 'naïve ☃')")
        .await?;
    let mut run = life.follow().await;
    life.on_source("insert into é values (2, '☃')").await;
    life.wait_for(&mut run, "the change", "select count(*) = 2 from é").await;
    assert_same(&life.pair).await;
    life.on_source(r"insert into é values (3, E'caf\xe9 t')").await;
    let done = run.wait(Duration::from_secs(60)).await.expect_code(6);
    for said in ["invalid byte sequence for encoding \"UTF8\" (22021)", "é", "mend the row there"] {
        assert!(done.stderr.contains(said), "{said} is not in\n{}", done.stderr);
    }
    assert!(!done.stderr.contains("0xe9"), "{}", done.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn text_in_sql_ascii_arrives_in_utf8_if_it_is_that() -> Outcome {
    tokio::try_join!(only_utf8_arrives(EXTENSION), only_utf8_arrives(PLAIN)).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_encoding_of_the_target_holds_is_refused_by_name() -> Outcome {
    let life = between(EXTENSION, "SQL_ASCII", "UTF8").await;
    life.source
        .batch_execute(r"create table t (id int primary key, t text); insert into t values (1, E'caf\xe9 t')")
        .await?;
    let done = life.run().wait(Duration::from_secs(60)).await.expect_code(4);
    for said in ["public.t", "invalid byte sequence for encoding \"UTF8\" (22021)", "mend them there"] {
        assert!(done.stderr.contains(said), "{said} is not in\n{}", done.stderr);
    }
    assert!(!done.stderr.contains("0xe9"), "{}", done.stderr);

    for (source, target) in [("UTF8", "LATIN1"), ("LATIN1", "SQL_ASCII")] {
        let life = between(EXTENSION, source, target).await;
        life.source.batch_execute("create table t (id int primary key)").await?;
        let done = life.run().wait(Duration::from_secs(60)).await.expect_code(4);
        let said = format!("the target is in {target}, which does not hold all text of a source in {source}");
        assert!(done.stderr.contains(&said), "{}", done.stderr);
        assert_eq!(life.on_target("select to_regnamespace('pgmig') is null").await, "t");
    }
    // wal2json prints JSON in the database's encoding.
    let life = between(Way { flavour: "plain", plugin: "wal2json" }, "LATIN1", "UTF8").await;
    life.source.batch_execute("create table t (id int primary key)").await?;
    let done = life.run().wait(Duration::from_secs(60)).await.expect_code(3);
    assert!(done.stderr.contains("wal2json cannot be used on a database in LATIN1"), "{}", done.stderr);
    Ok(())
}
