//! DDL that is told for roles with few rights.

use std::time::Duration;

use harness::{Outcome, wait_until};

use crate::life::{EXTENSION, Life, PLAIN_WAL2JSON, session};

/// Anybody may write a message into the stream. What it says is run on the target with pgmig's rights only if
/// pgmig's event triggers have told it.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_event_triggers_tell_is_run() -> Outcome {
    for way in [EXTENSION, PLAIN_WAL2JSON] {
        let life = Life::begin(way, "create table t (id int primary key); create role shop login").await;
        life.on_target("create role shop login").await;
        life.on_source("create schema shop authorization shop").await;
        life.on_source("create table shop.own (id int primary key); alter table shop.own owner to shop").await;
        life.on_source("grant select on t to shop").await;
        life.on_source("create schema hidden create table own (id int primary key)").await;
        // Whoever owned the schema could have pgmig's rights there.
        life.on_source("create schema pgmig authorization shop").await;
        let mut run = life.follow_with(&["--ddl", "apply"]).await;
        run.interrupt();
        let warned = "warning: the source cannot tell its DDL: the schema pgmig there belongs to shop";
        run.finish(&["error: stopped", warned]).await.expect_code(130);
        life.on_source("drop schema pgmig").await;
        let mut run = life.run();
        wait_until(Duration::from_secs(20), "DDL is told", async || {
            life.on_source("select count(*) from pg_event_trigger").await == "3"
        })
        .await;
        let (_, host) =
            life.pair.source_uri().split_once('@').map(|(a, b)| (a.to_string(), b.to_string())).expect("a host");
        let shop = session(&format!("postgresql://shop@{host}")).await;

        let oid = life.on_source("select 't'::regclass::oid").await;
        for key in ["", r#""key": "00000000-0000-4000-8000-000000000000","#] {
            let forged = format!(
                r#"{{{key} "at": "0/1", "tag": "COMMENT", "statement": "comment on table public.t is 'forged'",
                    "on": [{{"schema": "public", "name": "t", "oid": {oid}}}],
                    "settings": {{"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres", "lc_monetary": "C"}}}}"#
            );
            shop.execute("select pg_logical_emit_message(true, 'pgmig ddl default', $1)", &[&forged]).await?;
        }
        shop.execute("select pg_logical_emit_message(true, 'pgmig ddl default', 'nonsense')", &[]).await?;
        let refused =
            shop.query_one("select key from pgmig.\"tell_ddl_key:default\"", &[]).await.expect_err("it is a secret");
        assert_eq!(refused.code().map(|code| code.code()), Some("42501"));

        // Its own, with names as they are to it: of a schema that it cannot use it sees nothing.
        shop.batch_execute("set search_path = hidden, \"$user\", public").await?;
        shop.batch_execute("alter table own add v text default 'none'").await?;
        shop.batch_execute("insert into own values (1, 'one')").await?;
        assert_eq!(crate::life::value(&shop, "show search_path").await, "hidden, \"$user\", public");
        // An operator of its own in front of the server's is not what pgmig's rights are used with.
        shop.batch_execute(
            "create function shop.same(text, text) returns boolean language plpgsql as
                 $$begin raise exception 'hijacked by %', current_user; end$$;
             create operator shop.= (leftarg = text, rightarg = text, function = shop.same);
             create operator shop.~~ (leftarg = text, rightarg = text, function = shop.same);",
        )
        .await?;
        shop.batch_execute("set search_path = shop, pg_catalog").await?;
        shop.batch_execute("comment on table own is 'mine'").await?;
        shop.batch_execute("grant select on shop.own to public").await?;
        shop.batch_execute("select set_config('search_path', '$user, public', false)").await?;
        shop.batch_execute("set standard_conforming_strings = off").await?;
        shop.batch_execute("comment on column own.v is 'one \\\\ backslash'").await?;
        shop.batch_execute("set standard_conforming_strings = on").await?;
        life.wait_for(&mut run, "its row", "select exists (select from shop.own where v = 'one')").await;
        life.wait_for(
            &mut run,
            "its last comment",
            "select col_description('shop.own'::regclass, 2) = 'one \\ backslash'",
        )
        .await;
        life.wait_for(&mut run, "its comment", "select obj_description('shop.own'::regclass) = 'mine'").await;
        assert_eq!(life.on_target("select coalesce(obj_description('t'::regclass), 'none')").await, "none");
        shop.batch_execute("set search_path = public; drop operator shop.=(text, text); drop operator shop.~~(text, text); drop function shop.same(text, text)")
            .await?;
        // It may not grant that: a warning there, and what pgmig would run is more.
        shop.batch_execute("grant all on public.t to shop").await?;
        let forged = "WARN somebody writes messages into the stream";
        let stopped = run.finish(&["error: ", forged]).await.expect_code(6);
        assert!(
            stopped.stderr.contains("does not own the table, and may have got a warning only"),
            "{}",
            stopped.stderr
        );
        life.on_target("select pgmig.ddl_done()").await;
        run = life.run();
        // What is told while the machine with the plan is lost has the key that lies on the source.
        let at = life.lsn().await;
        life.wait_for(
            &mut run,
            "all of it",
            &format!("select replay_lsn >= '{at}' or spool_bytes = 0 and write_lsn >= '{at}' from pgmig.progress"),
        )
        .await;
        run.interrupt();
        run.finish(&["error: stopped", forged]).await.expect_code(130);
        std::fs::remove_file(life.dir.path().join("plan.db"))?;
        life.on_source("create index on t (id)").await;
        run = life.run_with(&["--ddl", "apply"]);
        life.wait_for(&mut run, "the index", "select count(*) = 2 from pg_index where indrelid = 't'::regclass").await;
        let at = life.lsn().await;
        life.set_endpos(&at).await;
        run.finish(&["the plan in"]).await.expect_code(0);
        harness::assert_same(&life.pair).await;
    }
    Ok(())
}
