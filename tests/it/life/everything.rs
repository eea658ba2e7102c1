//! One of everything that pg_dump knows, as `tests/it/data/everything.sql` makes it: moved in both
//! flavours while it is followed, and once without following, and compared whole.

use std::os::unix::fs::PermissionsExt;

use harness::{Outcome, assert_same_with};
use pgmig::verify;

use super::{EXTENSION, Life, PLAIN, Way};

const EVERYTHING: &str = include_str!("../data/everything.sql");

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_one_of_everything_arrives_whole_with_the_extension() -> Outcome {
    everything_arrives(EXTENSION, true).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_one_of_everything_arrives_whole_in_plain_sql() -> Outcome {
    everything_arrives(PLAIN, true).await
}
#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_one_of_everything_arrives_whole_without_following() -> Outcome {
    everything_arrives(EXTENSION, false).await
}

async fn everything_arrives(way: Way, follow: bool) -> Outcome {
    let mut life = Life::begin(way, EVERYTHING).await;
    life.allowed = &[
        "1 large objects are copied",
        "plain.scratch is unlogged",
        "subscription Everything from is made and left disabled",
    ];
    let done = if follow {
        let run = life.follow_with(&["--roles"]).await;
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await
    } else {
        let run = life.run_with(&["--roles", "--no-follow"]);
        life.finish(run).await
    };
    let failed =
        "select string_agg(concat_ws(' ', state, stage, name, sqlstate), '; ') from pgmig.steps where state <> 'done'";
    assert_eq!(life.on_target(failed).await, "");
    assert_same_with(&life.pair, verify::Options { materialized_rows: true, ..verify::Options::default() }).await;
    // What pg_dump does not show of a schema.
    life.on_source("set search_path = ''").await;
    life.on_target("set search_path = ''").await;
    for query in BESIDE_THE_SCHEMA {
        let there = life.on_source(query).await;
        assert!(!there.is_empty(), "{query}");
        assert_eq!(life.on_target(query).await, there, "{query}");
    }
    let statistics = "select count(*) from pg_stats where schemaname = 'plain' and (tablename, inherited) in (('parted', true), ('z_base', false), ('child', false), ('ancestor', true), ('hashed', true), ('parted_a', false)) and attname in ('id', 'mood')";
    assert_eq!(life.on_target(statistics).await, "6");
    // No password in what people may read.
    let hidden = "select count(*) from pgmig.step where statement ilike '%hush%' or statement ilike '%scram%' or message ilike '%hush%'";
    assert_eq!(life.on_target(hidden).await, "0");
    let dump = std::fs::metadata(life.dir.path().join("schema.dump"))?;
    assert_eq!(dump.permissions().mode() & 0o077, 0, "others may read the dump");
    assert!(!done.stderr.contains("hush") && !done.stderr.contains("SCRAM"), "{}", done.stderr);
    Ok(())
}

/// Each gives one value that is the same on both sides.
const BESIDE_THE_SCHEMA: &[&str] = &[
    "select string_agg(concat_ws(' ', coalesce(r.rolname, '-'), s.setdatabase > 0, s.setconfig), '; ' order by r.rolname, s.setdatabase) \
       from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole",
    "select string_agg(concat_ws(' ', rolname, rolcanlogin, rolconnlimit, rolvaliduntil, rolpassword, shobj_description(oid, 'pg_authid')), '; ' order by rolname) \
       from pg_authid where rolname like 'everything%' or rolname like 'Odd%'",
    "select string_agg(concat_ws(' ', roleid::regrole, member::regrole, admin_option), '; ') from pg_auth_members where roleid::regrole::text like 'everything%'",
    "select concat_ws(' ', (select string_agg(a::text, ' ' order by a::text) from unnest(datacl) a), shobj_description(oid, 'pg_database')) from pg_database where datname = current_database()",
    "select string_agg(concat_ws(' ', srvname, usename, umoptions), '; ' order by usename) from pg_user_mappings",
    "select concat_ws(' ', subname, subconninfo, subenabled, subslotname, subpublications) from pg_subscription",
    "select string_agg(concat_ws(' ', indexrelid::regclass, indisclustered, indisreplident), '; ' order by indexrelid::regclass::text) \
       from pg_index where indisvalid and indrelid in (select oid from pg_class where relnamespace = 'plain'::regnamespace)",
    "select string_agg(concat_ws(' ', attrelid::regclass, attname, attstattarget, attstorage, attcompression), '; ' order by attrelid::regclass::text, attname) \
       from pg_attribute where attstattarget > 0 or attcompression <> ''",
];
