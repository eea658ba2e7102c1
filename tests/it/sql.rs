//! The schema pgmig, in both flavours: they look alike to the last column and comment, belong to
//! their owner alone, and the functions that people call refuse what they must.

use std::path::PathBuf;

use harness::{Outcome, Pgmig};
use pgmig::embedded::Cluster;
use pgmig::target::install::{self, Flavour};
use tokio_postgres::{Client, NoTls};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The two databases of a cluster, each with its flavour.
const FLAVOURS: [(&str, Flavour); 2] = [("extension", Flavour::Extension), ("plain", Flavour::Plain)];

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

async fn session(cluster: &Cluster, database: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&cluster.uri(database), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A cluster with a database of each flavour, and sessions with both.
async fn both() -> Result<(Cluster, [(Flavour, Client); 2]), Box<dyn std::error::Error + Send + Sync>> {
    let cluster = Cluster::builder().start().await?;
    let mut sessions = Vec::new();
    for (database, flavour) in FLAVOURS {
        cluster.create_database(database).await?;
        let client = session(&cluster, database).await?;
        assert_eq!(install::installed(&client).await?, None);
        assert_eq!(install::install(&client, Some(flavour)).await?, flavour);
        assert_eq!(install::installed(&client).await?, Some(flavour));
        sessions.push((flavour, client));
    }
    let sessions = sessions.try_into().map_err(|_| "two flavours")?;
    Ok((cluster, sessions))
}

async fn lines(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// SQLSTATE, message and hint of a statement that must fail.
async fn refusal(client: &Client, sql: &str) -> (String, String, String) {
    let err = client.batch_execute(sql).await.expect_err(sql);
    let db = err.as_db_error().expect("the server's answer");
    (db.code().code().into(), db.message().into(), db.hint().unwrap_or_default().into())
}

async fn refused(client: &Client, sql: &str, sqlstate: &str, message: &str, hint: &str) {
    let (code, said, hinted) = refusal(client, sql).await;
    assert_eq!((code.as_str(), said.as_str()), (sqlstate, message), "{sql}");
    assert!(hinted.contains(hint) && hint.is_empty() == hinted.is_empty(), "{sql}: hint {hinted:?}");
}

const RELATIONS: &str = "
    select concat_ws(' ', c.relkind, c.relname, c.relacl, obj_description(c.oid, 'pg_class'))
      from pg_class c where c.relnamespace = 'pgmig'::regnamespace and c.relkind <> 'i' order by 1";
const COLUMNS: &str = "
    select concat_ws(' ', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                     pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
           left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
     where c.relnamespace = 'pgmig'::regnamespace and c.relkind in ('r', 'v') order by 1";
const FUNCTIONS: &str = "
    select concat_ws(' ', p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.prokind, p.prosecdef, p.proacl)
      from pg_proc p where p.pronamespace = 'pgmig'::regnamespace order by 1";
const DEFINITIONS: &str = "
    select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid
     where c.relnamespace = 'pgmig'::regnamespace
    union all
    select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint
     where connamespace = 'pgmig'::regnamespace
    union all
    select relname || pg_get_viewdef(oid) from pg_class where relnamespace = 'pgmig'::regnamespace and relkind = 'v'
     order by 1";

#[tokio::test(flavor = "multi_thread")]
async fn both_flavours_look_alike() -> Outcome {
    let (_cluster, [(_, extension), (_, plain)]) = both().await?;
    for (what, sql) in
        [("relations", RELATIONS), ("columns", COLUMNS), ("functions", FUNCTIONS), ("definitions", DEFINITIONS)]
    {
        let (in_extension, in_plain) = (lines(&extension, sql).await, lines(&plain, sql).await);
        assert!(in_extension.len() >= 8, "{what}: only {in_extension:?}");
        assert_eq!(in_extension, in_plain, "{what}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_has_a_comment_a_version_and_no_rights_for_everybody() -> Outcome {
    let (_cluster, sessions) = both().await?;
    let control = std::fs::read_to_string(root().join("pg_ext/pgmig_sentinel.control"))?;
    assert!(control.contains(&format!("default_version = '{VERSION}'")), "{control}");
    assert!(std::fs::read_to_string(root().join("Makefile"))?.contains(&format!("EXT_VERSION := {VERSION}")));
    for (flavour, client) in &sessions {
        let bare = "
            select c.relname::text from pg_class c
             where c.relnamespace = 'pgmig'::regnamespace and c.relkind in ('r', 'v') and obj_description(c.oid, 'pg_class') is null
            union all
            select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
             where c.relnamespace = 'pgmig'::regnamespace and c.relkind in ('r', 'v') and col_description(c.oid, a.attnum) is null
            union all
            select p.oid::regprocedure::text from pg_proc p
             where p.pronamespace = 'pgmig'::regnamespace and obj_description(p.oid, 'pg_proc') is null
            union all
            select 'schema' where obj_description('pgmig'::regnamespace, 'pg_namespace') is null";
        assert_eq!(lines(client, bare).await, Vec::<String>::new(), "{flavour}: without a comment");
        assert_eq!(lines(client, "select pgmig.version()").await, [VERSION]);
        assert_eq!(lines(client, "select pgmig.flavour()").await, [flavour.to_string()]);

        client.batch_execute("drop role if exists stranger; create role stranger").await?;
        let usable = "
            select c.relname::text from pg_class c
             where c.relnamespace = 'pgmig'::regnamespace and c.relkind in ('r', 'v')
               and has_any_column_privilege('stranger', c.oid, 'select, insert, update, references')
            union all
            select c.relname::text from pg_class c
             where c.relnamespace = 'pgmig'::regnamespace and c.relkind in ('r', 'v')
               and has_table_privilege('stranger', c.oid, 'delete, truncate, trigger')
            union all
            select c.relname::text from pg_class c
             where c.relnamespace = 'pgmig'::regnamespace
               and case c.relkind when 'S' then has_sequence_privilege('stranger', c.oid, 'usage, select, update') end
            union all
            select p.oid::regprocedure::text from pg_proc p
             where p.pronamespace = 'pgmig'::regnamespace and has_function_privilege('stranger', p.oid, 'execute')
            union all
            select 'schema' where has_schema_privilege('stranger', 'pgmig', 'usage, create')";
        assert_eq!(lines(client, usable).await, Vec::<String>::new(), "{flavour}: anybody may use");
    }
    let offered = "select default_version::text from pg_available_extensions where name = 'pgmig_sentinel'";
    assert_eq!(lines(&sessions[0].1, offered).await, [VERSION]);
    Ok(())
}

/// A migration in phase follow, from 0/1000 to wherever it is.
fn begin(name: &str) -> String {
    format!(
        "insert into pgmig.sentinel (migration, phase, plugin, slot_name, source_identity, startpos)
         values ('{name}', 'follow', 'pgoutput', 'pgmig_{name}', 'x', '0/1000')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_functions_that_people_call_refuse_what_cannot_be() -> Outcome {
    let (_cluster, sessions) = both().await?;
    for (_, client) in &sessions {
        let no = "no migration in this database";
        for call in ["set_endpos('0/2000')", "pause()", "resume()", "stop()", "throttle(1)"] {
            refused(client, &format!("select pgmig.{call}"), "P0002", no, "pgmig run").await;
        }
        client.batch_execute(&begin("a")).await?;
        assert_eq!(lines(client, "select pgmig.set_endpos('0/3000')::text").await, ["0/3000"]);
        assert_eq!(lines(client, "select pgmig.set_endpos('0/2000')::text").await, ["0/2000"]);
        let behind = "endpos 0/FFF is behind startpos 0/1000";
        refused(client, "select pgmig.set_endpos('0/FFF')", "22023", behind, "the copy already holds").await;
        client.batch_execute("select pgmig.set_endpos('0/1000'); select pgmig.set_endpos(null)").await?;
        assert_eq!(lines(client, "select coalesce(endpos::text, 'open') from pgmig.sentinel").await, ["open"]);
        client.batch_execute("update pgmig.sentinel set replay_lsn = '0/1800'").await?;
        let behind = "endpos 0/17FF is behind replay_lsn 0/1800";
        refused(client, "select pgmig.set_endpos('0/17FF')", "22023", behind, "cannot be taken back").await;
        client.batch_execute("select pgmig.set_endpos('0/1800'); select pgmig.set_endpos(null)").await?;

        refused(client, "select pgmig.stop()", "55000", "migration 'a' is not running", "nothing to stop").await;
        refused(client, "select pgmig.throttle(-1)", "22023", "a limit cannot be negative", "0 lifts").await;
        let limits = "select concat_ws(' ', max_rate, max_source_connections) from pgmig.progress";
        client.batch_execute("select pgmig.throttle(1000, 8); select pgmig.throttle(max_rate => 0)").await?;
        assert_eq!(lines(client, limits).await, ["8"]);
        let negative = "select pgmig.throttle(max_standby_lag => '-1s')";
        refused(client, negative, "22023", "a limit cannot be negative", "0 lifts").await;
        let tolerated = "select concat_ws(' ', max_slowdown, max_standby_lag, probe) from pgmig.sentinel";
        for (call, then) in [
            ("max_slowdown => 20, max_standby_lag => '5s', probe => 'select 1'", "20 00:00:05 select 1"),
            ("max_slowdown => 0, probe => ''", "00:00:05"),
            ("max_standby_lag => '0'", ""),
        ] {
            client.batch_execute(&format!("select pgmig.throttle({call})")).await?;
            assert_eq!(lines(client, tolerated).await, [then], "{call}");
        }

        let switch = "select concat_ws(' ', phase, interrupted_phase, apply) from pgmig.sentinel";
        client.batch_execute("select pgmig.pause(); select pgmig.pause()").await?;
        assert_eq!(lines(client, switch).await, ["paused follow f"]);
        client.batch_execute("select pgmig.resume(); select pgmig.resume()").await?;
        assert_eq!(lines(client, switch).await, ["follow t"]);
        client.batch_execute("update pgmig.sentinel set phase = 'copy'; select pgmig.pause()").await?;
        assert_eq!(lines(client, switch).await, ["copy f"], "the copy goes on");
        client.batch_execute("select pgmig.resume(); update pgmig.sentinel set phase = 'follow'").await?;
        let events = "select message from pgmig.events order by event_id desc limit 2";
        assert_eq!(lines(client, events).await, ["apply resumed", "apply paused"]);

        client.batch_execute(&begin("b")).await?;
        let two = "more than one migration in this database: a, b";
        for call in ["set_endpos('0/2000')", "pause()", "resume()"] {
            refused(client, &format!("select pgmig.{call}"), "42P08", two, "name it").await;
        }
        client
            .batch_execute("select pgmig.set_endpos('0/2000', 'b'); select pgmig.pause('b'); select pgmig.resume('b')")
            .await?;
        let nobody = "no migration named 'nobody'";
        for call in ["set_endpos('0/2000', 'nobody')", "pause('nobody')", "resume('nobody')"] {
            refused(client, &format!("select pgmig.{call}"), "P0002", nobody, "pgmig.progress").await;
        }
        let endpos = "select migration || ' ' || coalesce(endpos::text, '-') from pgmig.progress order by 1";
        assert_eq!(lines(client, endpos).await, ["a -", "b 0/2000"]);

        client.batch_execute("update pgmig.sentinel set phase = 'cutover' where migration = 'b'").await?;
        client.batch_execute("select pgmig.set_endpos('0/2000', 'b')").await?;
        let reached = "endpos 0/2000 is reached and the migration is being finished";
        refused(client, "select pgmig.set_endpos('0/2001', 'b')", "55000", reached, "").await;
        client.batch_execute("update pgmig.sentinel set phase = 'done' where migration = 'b'").await?;
        refused(client, "select pgmig.set_endpos('0/2000', 'b')", "55000", "migration 'b' is done", "").await;
        client.batch_execute("update pgmig.sentinel set follow = false, phase = 'copy' where migration = 'b'").await?;
        let still = "migration 'b' does not follow the source";
        refused(client, "select pgmig.set_endpos('0/2000', 'b')", "55000", still, "").await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_lsn_only_ever_moves_forward_to_endpos_while_apply_is_on() -> Outcome {
    let (_cluster, sessions) = both().await?;
    for (_, client) in &sessions {
        client.batch_execute(&begin("a")).await?;
        let advance = |lsn: &str| format!("select pgmig.advance('a', '{lsn}', now(), 2, 30)");
        let may_not = |lsn: &str| format!("replay_lsn of migration 'a' may not move to {lsn}");
        let hint = "apply is paused, endpos was moved";
        client.batch_execute(&advance("0/2000")).await?;
        client.batch_execute(&advance("0/2001")).await?;
        for lsn in ["0/2001", "0/1FFF"] {
            refused(client, &advance(lsn), "PGM01", &may_not(lsn), hint).await;
        }
        client.batch_execute("select pgmig.set_endpos('0/3000')").await?;
        refused(client, &advance("0/3001"), "PGM01", &may_not("0/3001"), hint).await;
        client.batch_execute("select pgmig.pause()").await?;
        refused(client, &advance("0/2500"), "PGM01", &may_not("0/2500"), hint).await;
        client.batch_execute("select pgmig.resume()").await?;
        client.batch_execute(&advance("0/3000")).await?;
        let other = "replay_lsn of migration 'other' may not move to 0/2500";
        refused(client, "select pgmig.advance('other', '0/2500', now(), 1, 1)", "PGM01", other, hint).await;
        let sums = "select concat_ws(' ', replay_lsn, applied_transactions, applied_rows) from pgmig.progress";
        assert_eq!(lines(client, sums).await, ["0/3000 6 90"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_adds_up() -> Outcome {
    let (_cluster, sessions) = both().await?;
    for (_, client) in &sessions {
        let part = |schema: &str, table: &str, number: u8, parts: u8, bytes: u32, state: &str| {
            format!(
                "insert into pgmig.part (migration, schema_name, table_name, part_number, parts, columns, bytes, state, copied_rows)
                 values ('a', '{schema}', '{table}', {number}, {parts}, '{{}}', {bytes}, '{state}', case '{state}' when 'done' then 7 end);"
            )
        };
        let rows = [
            begin("a"),
            ";update pgmig.sentinel set phase = 'copy', copy_started_at = now() - interval '100 s', copy_finished_at = now(),
               copy_left = '150.4 s', copy_seen_at = now(); select pg_advisory_lock(hashtextextended('pgmig a', 0));".into(),
            part("s", "two parts", 1, 2, 100, "done"),
            part("s", "two parts", 2, 2, 100, "pending"),
            part("s", "whole", 1, 1, 300, "done"),
            part("t", "whole", 1, 1, 500, "pending"),
            // The large objects: bytes, and no table.
            part("pg_catalog", "pg_largeobject", 1, 1, 0, "done"),
            "insert into pgmig.step (migration, stage, kind, name, statement, state)
             values ('a', 'index', 'INDEX', 'i', '', 'done'), ('a', 'index', 'INDEX', 'j', '', 'failed'), ('a', 'rest', 'RULE', 'r', '', 'pending')"
                .into(),
        ];
        client.batch_execute(&rows.concat()).await?;
        let copy = "select concat_ws(' ', tables_done, tables_total, bytes_done, bytes_total, copied_rows,
                                     copy_bytes_per_second, extract(epoch from eta)::int, steps_done, steps_total, steps_failed)
                      from pgmig.progress";
        assert_eq!(lines(client, copy).await, ["1 3 400 1000 21 4 150 2 3 1"]);
        client
            .batch_execute("update pgmig.part set state = 'done'; update pgmig.sentinel set phase = 'indexes'")
            .await?;
        let done = "select concat_ws(' ', tables_done, bytes_done, copy_bytes_per_second, coalesce(eta::text, '-')) from pgmig.progress";
        assert_eq!(lines(client, done).await, ["3 1000 10 -"]);

        let lag = "select concat_ws(' ', coalesce(lag_bytes::text, '-'), coalesce(lag_seconds::text, '-')) from pgmig.progress";
        let moments = [
            // Before the first Batch the copy is what the target holds, up to startpos.
            (
                "source_lsn = '0/1800', write_lsn = '0/1800', spool_bytes = 9, stream_at = copy_started_at + interval '3 s'",
                "2048 3.000",
            ),
            ("replay_lsn = '0/1400', replay_commit_at = stream_at - interval '1.5 s'", "1024 1.500"),
            // Nothing waits: what was received holds no change that is not applied.
            ("spool_bytes = 0", "0 0"),
            ("source_lsn = '0/1900'", "256 0"),
            // What is known of the source is older than what was applied.
            ("replay_lsn = '0/2000'", "0 0"),
            ("follow = false", "- -"),
        ];
        for (change, expected) in moments {
            client.batch_execute(&format!("update pgmig.sentinel set {change}")).await?;
            assert_eq!(lines(client, lag).await, [expected], "{change}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extension_leaves_nothing_behind() -> Outcome {
    let cluster = Cluster::builder().start().await?;
    cluster.create_database("app").await?;
    let client = session(&cluster, "app").await?;
    let everything = "select 'class ' || oid from pg_class union all select 'proc ' || oid from pg_proc
                      union all select 'type ' || oid from pg_type union all select 'schema ' || nspname from pg_namespace
                      union all select 'comment ' || objoid from pg_description union all select 'acl ' || objoid from pg_init_privs
                      union all select 'extension ' || extname from pg_extension order by 1";
    let before = lines(&client, everything).await;
    client.batch_execute("create extension pgmig_sentinel").await?;
    client.batch_execute(&begin("a")).await?;
    assert_ne!(lines(&client, everything).await, before);
    client.batch_execute("drop extension pgmig_sentinel").await?;
    assert_eq!(lines(&client, everything).await, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_of_sql_runs_alone_in_psql() -> Outcome {
    let cluster = Cluster::builder().start().await?;
    let folder = tempfile::tempdir()?;
    for flavour in ["plain", "extension"] {
        cluster.create_database(flavour).await?;
        let mut files: Vec<PathBuf> = ["schema", flavour]
            .iter()
            .flat_map(|part| std::fs::read_dir(root().join("sql").join(part)).into_iter().flatten().flatten())
            .map(|file| file.path())
            .collect();
        files.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
        assert!(files.len() >= 5, "{files:?}");
        for file in files {
            // CREATE EXTENSION puts the library's name there.
            let text = std::fs::read_to_string(&file)?.replace("MODULE_PATHNAME", "$libdir/pgmig_sentinel");
            let copy = folder.path().join("file.sql");
            std::fs::write(&copy, text)?;
            cluster.load_file(flavour, &copy).await.map_err(|err| format!("{}: {err:?}", file.display()))?;
        }
        assert_eq!(cluster.value(flavour, "select pgmig.flavour()").await?.as_deref(), Some(flavour));
    }
    for file in std::fs::read_dir(root().join("sql/source"))?.flatten() {
        let text = std::fs::read_to_string(file.path())?;
        let copy = folder.path().join("file.sql");
        // Prepared, since some take parameters; but for those that make something.
        let script = match file.file_name().to_string_lossy().starts_with("ddl") {
            true => format!("begin;\n{text}\nrollback;"),
            false => format!("prepare file as\n{};\ndeallocate file;", text.trim_end().trim_end_matches(';')),
        };
        std::fs::write(&copy, script)?;
        cluster.load_file("plain", &copy).await.map_err(|err| format!("{}: {err:?}", file.path().display()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_a_user_made_is_the_one_that_a_run_uses() -> Outcome {
    let pair = harness::Pair::start().await?;
    pair.on_source("create table t (id int primary key); insert into t select generate_series(1, 9)").await?;
    let typed = tempfile::NamedTempFile::new()?;
    std::fs::write(typed.path(), "create extension pgmig_sentinel;")?;
    pair.target.load_file("app", typed.path()).await?;
    let made = "select oid::text from pg_extension where extname = 'pgmig_sentinel'";
    let before = pair.on_target(made).await?;
    let dir = tempfile::tempdir()?;
    let (source, target) = (pair.source_uri(), pair.target_uri());
    let dir = dir.path().display().to_string();
    let args = ["run", "--source", &source, "--target", &target, "--dir", &dir, "--no-follow"];
    let ran = Pgmig::start(&args, &[]).finish(&[]).await.expect_code(0);
    assert!(ran.stderr.contains("extension flavour"), "{}", ran.stderr);
    assert_eq!(pair.on_target(made).await?, before);
    assert_eq!(pair.on_target("select count(*) from t").await?, [[Some("9".to_string())]]);
    let cleanup = ["cleanup", "--source", &source, "--target", &target];
    Pgmig::start(&cleanup, &[]).finish(&[]).await.expect_code(0);
    assert_eq!(pair.on_target(made).await?, Vec::<Vec<_>>::new());
    harness::assert_same(&pair).await;
    Ok(())
}
