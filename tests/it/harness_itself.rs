//! The harness is trusted by every other test, so it proves itself: the comparison finds each kind
//! of difference and no other, the workload meets no error that it cannot explain, servers come
//! back after a crash and leave nothing behind.

use std::time::{Duration, Instant};

use harness::{Outcome, Pair, Pgmig, assert_same, faults, seed, shared_data, wait_until};
use pgmig::embedded::{Cluster, Stop, Workload, Writer, WriterOptions};
use pgmig::verify::{self, Kind};

async fn first(cluster: &Cluster, sql: &str) -> String {
    cluster.value("app", sql).await.expect(sql).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_dump_is_equal_and_each_change_to_it_is_found() -> Outcome {
    let start = Instant::now();
    let pair = Pair::with_sample(0.3).await?;
    println!("sample loaded after {:?}", start.elapsed());
    pair.dump_and_restore()?;
    println!("restored after {:?}", start.elapsed());
    assert_same(&pair).await;
    println!("compared after {:?}", start.elapsed());

    let scan = first(&pair.source, r#"select content from "Back Office".scans where scan_id = 2"#).await;
    let write = format!("select lo_put({scan}, 70000, '\\xff')");
    let nothing_else = verify::Options { schema: false, ..verify::Options::default() };
    // What is done to the target, the kind and the object of the one difference it makes.
    let rows = [
        ("update shop.products set name = name || ' ' where product_id = 7", Kind::Rows, "shop.products"),
        (
            "delete from shop.order_lines where ctid = (select max(ctid) from shop.order_lines)",
            Kind::Rows,
            "shop.order_lines",
        ),
        ("insert into ops.audit_log select * from ops.audit_log limit 1", Kind::Rows, "ops.audit_log"),
        ("insert into \"Back Office\".nothing default values", Kind::Rows, "\"Back Office\".nothing"),
        (
            "update shop.orders_2026_03_web set note = '' where ctid = (select min(ctid) from shop.orders_2026_03_web where note is null)",
            Kind::Rows,
            "shop.orders_2026_03_web",
        ),
        (
            "update ops.readings set degrees = null where ctid = (select min(ctid) from ops.readings where degrees = 'NaN')",
            Kind::Rows,
            "ops.readings",
        ),
        (
            "update \"Back Office\".\"Weird \"\"Table\"\", T#1\" set \"select\" = null where \"Id #\" = 0",
            Kind::Rows,
            "\"Back Office\".\"Weird \"\"Table\"\", T#1\"",
        ),
        ("select nextval('shop.invoice_number')", Kind::Sequence, "shop.invoice_number"),
        ("select nextval('ops.ticket')", Kind::Sequence, "ops.ticket"),
        ("alter sequence shop.payments_payment_id_seq cache 7", Kind::Sequence, "shop.payments_payment_id_seq"),
        (&write, Kind::LargeObject, &scan),
        ("refresh materialized view shop.sales_by_day with no data", Kind::MaterializedView, "shop.sales_by_day"),
        ("alter table shop.reviews disable trigger all", Kind::Trigger, "shop.reviews"),
    ];
    let mut found = pair.compare(nothing_else.clone()).await?;
    for (number, (change, kind, object)) in rows.iter().enumerate() {
        pair.on_target(change).await?;
        let before = found;
        found = pair.compare(nothing_else.clone()).await?;
        assert!(found.holds(*kind, object), "{change}: {object} is not in\n{found}");
        let new: Vec<_> = found.differences.iter().filter(|d| !before.differences.contains(d)).collect();
        // One statement of the schema may turn off several triggers of one table.
        assert!(new.iter().all(|d| d.kind == *kind), "{change}: found more than that: {new:?}");
        assert!(found.differences.len() > number, "{change}: an earlier difference is gone\n{found}");
    }
    println!("{} changes found after {:?}", rows.len(), start.elapsed());

    let schema = [
        ("drop index ops.settings_folded", Kind::Schema, "settings_folded"),
        (
            "alter table shop.payments drop constraint payments_invoice_fkey; alter table shop.payments add foreign key (invoice) \
          references shop.invoices on delete cascade not valid",
            Kind::Constraint,
            "payments_invoice_fkey",
        ),
        ("alter table ops.readings replica identity nothing", Kind::ReplicaIdentity, "ops.readings"),
        ("create table shop.more (a int)", Kind::Table, "shop.more"),
        ("comment on table shop.tags is 'other'", Kind::Schema, "COMMENT ON TABLE shop.tags"),
        ("alter table shop.coupons alter percent set default 1", Kind::Schema, "CREATE TABLE shop.coupons"),
        (
            "create or replace function shop.touch() returns trigger language plpgsql as 'begin return new; end'",
            Kind::Schema,
            "CREATE FUNCTION shop.touch",
        ),
        (
            "alter table ops.employees drop constraint employees_manager_fkey",
            Kind::Schema,
            "ALTER TABLE ONLY ops.employees",
        ),
    ];
    for (change, _, _) in &schema {
        pair.on_target(change).await?;
    }
    let found = pair.compare(verify::Options::default()).await?;
    for (change, kind, object) in &schema {
        assert!(found.holds(*kind, object), "{change}: {object} is not in\n{found}");
    }
    println!("{found}\nafter {:?}", start.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_of_the_sample_meets_no_error_it_cannot_explain() -> Outcome {
    let pair = Pair::with_sample(0.2).await?;
    let uri = pair.source_uri();
    let sizes = "select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r'";
    let before = first(&pair.source, sizes).await;
    let writer =
        Writer::start(&uri, Workload::Shop, WriterOptions { connections: 6, ..WriterOptions::seed(seed()) }).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let summary = writer.stop().await?;
    println!("{summary}; {before} bytes, then {}", first(&pair.source, sizes).await);
    assert_eq!(summary.unexpected, Vec::<String>::new());
    assert!(summary.transactions > 100, "{summary}");
    // Every kind of change, on most tables: a workload that lost half of its statements would be no proof.
    let changed = "select count(*) filter (where n_tup_ins > 0), count(*) filter (where n_tup_upd > 0), \
                   count(*) filter (where n_tup_del > 0) from pg_stat_user_tables";
    let changed = pair.on_source(changed).await?.remove(0);
    println!("tables with rows inserted, updated, deleted: {changed:?}");
    let counts: Vec<u32> = changed.iter().flatten().flat_map(|count| count.parse().ok()).collect();
    assert!(counts[1] >= 24 && counts[2] >= 15, "{counts:?}");
    // What it wrote survives a dump, a restore and a comparison, NaN and all.
    pair.dump_and_restore()?;
    assert_same(&pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_of_pagila_keeps_to_its_rate() -> Outcome {
    let Some(pagila) = shared_data("pagila.sql") else { return Ok(()) };
    let source = Cluster::builder().start().await?;
    source.create_database("app").await?;
    source.load_file("app", &pagila).await?;
    let options = WriterOptions { tps: Some(100.0), ..WriterOptions::seed(seed()) };
    let writer = Writer::start(&source.uri("app"), Workload::Pagila, options).await?;
    wait_until(Duration::from_secs(20), "100 transactions", async || {
        writer.transactions() >= 100 || writer.has_failed()
    })
    .await;
    let summary = writer.stop().await?;
    println!("{summary}");
    assert_eq!(summary.unexpected, Vec::<String>::new());
    let rate = summary.transactions as f64 / summary.elapsed.as_secs_f64();
    assert!(rate < 120.0, "{rate} transactions a second");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_comes_back_after_every_kind_of_end() -> Outcome {
    let cluster = Cluster::builder().start().await?;
    cluster.create_database("app").await?;
    cluster.sql("app", "create table t (n int)").await?;
    let uri = cluster.uri("app");
    let options = WriterOptions { survives_restarts: true, ..WriterOptions::seed(1) };
    pgmig::embedded::sample::load(&uri, 0.01).await?;
    let writer = Writer::start(&uri, Workload::Shop, options).await?;
    for round in 0..4 {
        let seen = writer.transactions();
        wait_until(Duration::from_secs(20), "the writer to go on", async || writer.transactions() > seen + 5).await;
        cluster.sql("app", &format!("insert into t values ({round})")).await?;
        match round {
            0 => cluster.kill().await?,
            1 => cluster.stop(Stop::Immediate).await?,
            2 => cluster.stop(Stop::Fast).await?,
            _ => {
                cluster.pause();
                assert!(
                    tokio::time::timeout(Duration::from_millis(300), cluster.sql("app", "select 1")).await.is_err()
                );
                cluster.unpause();
            }
        }
        assert_eq!(cluster.is_running(), round == 3);
        cluster.start().await?;
    }
    let summary = writer.stop().await?;
    assert_eq!(summary.unexpected, Vec::<String>::new());
    assert!(summary.errors.keys().any(|code| code == "connection" || code.starts_with("57P")), "{summary}");
    assert_eq!(first(&cluster, "select string_agg(n::text, '' order by n) from t").await, "0123");

    let (folder, port) = (cluster.data_dir(), cluster.port());
    drop(cluster);
    assert!(!folder.exists() && std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_told_apart_and_ask_for_a_password_where_they_should() -> Outcome {
    let pair =
        Pair::start_with(Cluster::builder().with_password().encoding("LATIN1"), Cluster::builder().durable()).await?;
    let identifier = "select system_identifier from pg_control_system()";
    assert_ne!(first(&pair.source, identifier).await, first(&pair.target, identifier).await);
    assert_eq!(first(&pair.source, "show server_encoding").await, "LATIN1");
    assert_eq!(first(&pair.target, "show fsync").await, "on");
    let password = pair.source.password().expect("the source has a password").to_string();
    let without = pair.source_uri().replace(&format!(":{password}"), "");
    let refused = verify::compare(&without, &pair.target_uri(), verify::Options::default()).await;
    assert!(refused.is_err_and(|e| e.exit() == pgmig::error::Exit::Source));
    // With it, pg_dump gets in too. The encodings differ, and the dump says so in a SET only.
    assert_same(&pair).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_can_be_cut_stalled_and_ended() -> Outcome {
    let cluster = Cluster::builder().start().await?;
    let proxy = faults::Proxy::to(&cluster).await?;
    // The server may still hold a session that was cut.
    let connect = async |name: &str| {
        let uri = format!("{}?application_name={name}", proxy.uri(&cluster, "postgres"));
        let (client, connection) =
            tokio_postgres::connect(&uri, tokio_postgres::NoTls).await.expect("the proxy lets through");
        tokio::spawn(connection);
        client
    };
    let client = connect("cut").await;
    client.simple_query("select 1").await?;
    assert!(proxy.bytes() > 0);

    proxy.stall();
    assert!(tokio::time::timeout(Duration::from_millis(200), client.simple_query("select 1")).await.is_err());
    proxy.go_on();
    client.simple_query("select 1").await?;
    proxy.cut();
    assert!(client.simple_query("select 1").await.is_err());

    let client = connect("victim").await;
    assert_eq!(faults::end_sessions(&cluster, "vict%").await?, 1);
    assert!(client.simple_query("select 1").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_child_process_is_heard_signalled_and_held_to_its_log() {
    let shell = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        Pgmig::spawn(command)
    };
    let done = shell("echo data; echo 'WARN: slow disk' >&2; exit 3").finish(&["slow disk"]).await.expect_code(3);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("data\n", "WARN: slow disk\n"));

    let mut sleeper = shell("echo ready; exec sleep 100");
    wait_until(Duration::from_secs(10), "the child to speak", async || sleeper.stdout() == "ready\n").await;
    sleeper.interrupt();
    assert_eq!(sleeper.finish(&[]).await.code(), 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_outlive_a_killed_owner() -> Outcome {
    let mut owner = std::process::Command::new(std::env::current_exe()?);
    owner.args(["--exact", "harness_itself::owner_of_a_server", "--ignored", "--nocapture"]);
    let mut owner = Pgmig::spawn(owner);
    let told =
        |owner: &Pgmig| owner.stdout().lines().find_map(|l| l.split_once("server: ").map(|(_, told)| told.to_string()));
    wait_until(Duration::from_secs(30), "the server to start", async || told(&owner).is_some()).await;
    let told = told(&owner).unwrap_or_default();
    let (port, folder) = told.split_once(' ').expect("port and folder");
    let port: u16 = port.parse()?;
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    owner.kill();
    wait_until(Duration::from_secs(10), "the server to end", async || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    })
    .await;
    // Nobody is left to remove it.
    let pid = std::path::Path::new(folder).join("data/postmaster.pid");
    wait_until(Duration::from_secs(10), "the postmaster to tidy up", async || !pid.exists()).await;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

#[tokio::test]
#[ignore = "run by a_server_does_not_outlive_a_killed_owner, which kills it"]
async fn owner_of_a_server() -> Outcome {
    let cluster = Cluster::builder().start().await?;
    let folder = cluster.data_dir();
    println!("\nserver: {} {}", cluster.port(), folder.parent().unwrap_or(&folder).display());
    // Not for ever, should the killer be gone.
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_decodes_with_each_output_plugin() -> Outcome {
    let start = Instant::now();
    let cluster = Cluster::builder().start().await?;
    println!("started after {:?}", start.elapsed());
    cluster.create_database("app").await?;
    for plugin in ["wal2json", "pgoutput", "test_decoding"] {
        cluster.sql("app", &format!("select pg_create_logical_replication_slot('{plugin}', '{plugin}')")).await?;
    }
    cluster.sql("app", "create table t (n int primary key)").await?;
    cluster.sql("app", "insert into t values (1)").await?;
    let changes = "select count(*) from pg_logical_slot_get_changes('wal2json', null, null, 'format-version', '2') \
                   where data::json ->> 'action' = 'I'";
    assert_eq!(first(&cluster, changes).await, "1");
    Ok(())
}
