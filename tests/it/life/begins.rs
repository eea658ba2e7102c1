//! Connections that are lost while a migration begins: in the checks, while the schema pgmig is installed,
//! inside pg_dump. The run opens them again and begins as if nothing had been.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use harness::Outcome;
use pgmig::embedded::Cluster;

use super::lost::TOLD_AND_INSERT_ONLY;
use super::{EXTENSION, Life, PLAIN, session, value, writers};

/// Ends the session that makes something, once for each of two things that a run makes on the target.
const ENDS_SESSIONS: &str = "
    create schema faults; create sequence faults.checks; create sequence faults.install;
    create function faults.end_session() returns event_trigger language plpgsql as $$ begin
      if current_query() ~ 'pgmig_preflight_' and nextval('faults.checks') = 1
         or current_query() ~* 'create (schema pgmig;|extension pgmig_sentinel)'
         and current_query() !~ 'lock_timeout' and nextval('faults.install') = 1 then
        perform pg_terminate_backend(pg_backend_pid());
      end if; end $$;
    create event trigger end_session on ddl_command_end execute function faults.end_session()";

/// Ends the session of pg_dump as soon as it is there.
const ENDS_DUMP: &str = "do $$ begin loop
    perform pg_stat_clear_snapshot();
    perform pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pg_dump';
    exit when found; end loop; end $$";

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_lost_while_a_migration_begins_are_opened_again() -> Outcome {
    for way in [EXTENSION, PLAIN] {
        let mut life = Life::begin(way, writers::SCHEMA).await;
        life.allowed = TOLD_AND_INSERT_ONLY;
        life.target.batch_execute(ENDS_SESSIONS).await?;
        // PostgreSQL's own programs, the first two calls of pg_dump with something in their way.
        let (tools, real) = (tempfile::tempdir()?, life.pair.source.bin_dir().path().display().to_string());
        let count = tools.path().join("count").display().to_string();
        let socket = life.pair.source.socket_uri("postgres");
        let mut dump = format!("#!/bin/sh\ncase \"$*\" in *--version*) exec {real}/pg_dump \"$@\";; esac\n");
        write!(dump, "echo >> {count}\ncase $(wc -l < {count}) in\n1) PGPORT=1 exec {real}/pg_dump \"$@\";;\n")?;
        write!(dump, "2) {real}/psql -Xqd '{socket}' -c \"{}\" & ", ENDS_DUMP.replace('$', "\\$"))?;
        write!(dump, "{real}/pg_dump \"$@\"; code=$?; wait; exit $code;;\n*) exec {real}/pg_dump \"$@\";;\nesac\n")?;
        for (name, script) in [("pg_dump", dump), ("pg_restore", format!("#!/bin/sh\nexec {real}/pg_restore \"$@\"\n"))]
        {
            std::fs::write(tools.path().join(name), script)?;
            std::fs::set_permissions(tools.path().join(name), std::fs::Permissions::from_mode(0o755))?;
        }
        life.tools = Some(tools.path().to_path_buf());
        let run = life.follow_with(&["--allow-insert-only"]).await;
        for ended in ["checks", "install"] {
            assert_eq!(life.on_target(&format!("select last_value > 1 from faults.{ended}")).await, "t", "{ended}");
        }
        assert_eq!(std::fs::read_to_string(&count)?.lines().count(), 3);
        let said = run.stderr();
        assert!(said.contains("lost the connection to the target") && said.contains("the target is back"), "{said}");
        assert!(said.contains("lost the connection to the source") && said.contains("the source is back"), "{said}");
        life.target.batch_execute("drop event trigger end_session; drop schema faults cascade").await?;
        life.end(run).await;
    }
    Ok(())
}

/// A slot waits for whoever was writing when it was begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_waits_says_for_whom_and_is_given_up_in_time() -> Outcome {
    let source = Cluster::builder().setting("max_prepared_transactions", "2");
    let life = Life::between(EXTENSION, source, Cluster::builder()).await;
    life.source.batch_execute("create table t (id int primary key, note text)").await?;
    let writer = session(&life.pair.source_uri()).await;
    let pid = value(&writer, "select pg_backend_pid()").await;
    writer.batch_execute("begin").await?;
    writer.batch_execute("insert into t values (1, 'geheim')").await?;

    // Not tried, and no reason to refuse.
    let preflight = life.pgmig(&["preflight", "--json"]).finish(&[]).await.expect_code(0);
    let expected = format!("not tried: a slot waits until transactions end, now for pid {pid}, ");
    assert!(preflight.stdout.contains(&expected), "{}", preflight.stdout);

    let given_up = life.run_with(&["--slot-wait", "6s"]).finish(&["error: "]).await.expect_code(3);
    for said in [&preflight.stdout, &given_up.stderr] {
        assert!(!said.contains("geheim"), "{said}");
    }
    let who =
        format!("on the source: pid {pid}, user postgres, application \"\", idle in transaction: insert into t values");
    assert!(
        given_up.stderr.contains("the slot waits for a transaction that has been open for "),
        "{}",
        given_up.stderr
    );
    assert!(given_up.stderr.contains(&who), "{}", given_up.stderr);
    assert!(given_up.stderr.contains("error: the slot was not made within 6.0 s"), "{}", given_up.stderr);
    assert!(given_up.stderr.contains(&format!("select pg_terminate_backend({pid});")), "{}", given_up.stderr);
    assert_eq!(life.on_source("select count(*) from pg_replication_slots").await, "0");

    // A prepared one has no session; when it ends, the run goes on by itself.
    writer.batch_execute("prepare transaction 'left over'").await?;
    let mut run = life.run();
    let told = async || run.stderr().contains("prepared transaction 'left over' in database app");
    harness::wait_until(Duration::from_secs(30), "the wait to be told", told).await;
    writer.batch_execute("commit prepared 'left over'").await?;
    life.wait_for(&mut run, "follow", "select phase = 'follow' from pgmig.progress").await;

    life.end(run).await;
    Ok(())
}
