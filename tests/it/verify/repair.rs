//! `pgmig verify --repair`, and `pgmig cutover --verify`: what was changed behind pgmig's back is mended under
//! load, and no cutover passes it over.

use harness::Outcome;

use crate::cutover::writer::Clients;
use crate::life::{EXTENSION, Life, PLAIN};

const TABLES: &str = "
create table note (id bigserial primary key, client int not null, number int not null, at timestamptz default now());
create table wide (a int, b text, c numeric, d float8, e bytea, f jsonb, g text[], h int generated always as (a * 2) stored,
                   i int generated always as identity, j varchar(3), k char(4), l xml, m money, n interval, primary key (b, a));
create table keyless (a int, b text);
create table nullable (a int unique, b text);
create table \"no columns\" ();
create table parted (id int primary key, v text) partition by range (id);
create table parted_1 partition of parted for values from (0) to (1000);
create function refuse() returns trigger language plpgsql as $$begin raise exception 'a trigger fired'; end$$;
create trigger refuse before delete on wide for each row execute function refuse();
alter table keyless replica identity full;
alter table nullable replica identity full;
insert into wide (a, b, c, d, e, f, g, j, k, l, m, n)
select n, 'k''\\' || n, n / 3.0, sqrt(n), decode(md5(n::text), 'hex'), jsonb_build_object('n', n), array[n::text, null, ''], 'abc', 'x', '<a>1</a>', n, make_interval(days => n)
  from generate_series(1, 3000) n;
insert into keyless select n % 10, null from generate_series(1, 100) n;
insert into nullable select nullif(n, 5), 'v' || n from generate_series(1, 20) n;
insert into \"no columns\" select from generate_series(1, 5);
insert into parted select n, 'v' || n from generate_series(1, 300) n;";

const DRIFT: &str = "
set session_replication_role = replica;
update wide set e = set_bit(e, 3, 1 - get_bit(e, 3)) where a = 77;
delete from wide where a between 1200 and 1399;
update wide set b = 'moved' where a = 4;
insert into wide (a, b) values (5000, 'extra');
delete from keyless where ctid in ('(0,5)', '(0,15)');
insert into keyless values (3, null), (3, null), (3, null), (7, 'never');
update nullable set b = 'other' where a is null;
delete from nullable where a = 7;
insert into \"no columns\" default values;
delete from parted where id = 150;
reset session_replication_role";

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_repaired_under_load_with_the_extension() -> Outcome {
    what_differs_is_repaired(Life::begin(EXTENSION, TABLES).await).await
}
#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_repaired_under_load_in_plain_sql() -> Outcome {
    what_differs_is_repaired(Life::begin(PLAIN, TABLES).await).await
}

async fn what_differs_is_repaired(mut life: Life) -> Outcome {
    life.allowed = &["public.\"no columns\" has no key"];
    let run = life.follow_with(&["--allow-insert-only"]).await;
    let clients = Clients::start(&life.pair.source_uri(), 3).await;
    clients.have_written(50).await;
    life.target.batch_execute(DRIFT).await?;
    life.on_target("update note set number = -number where id = 7; delete from note where id = 9").await;

    let asked = life.pgmig(&["verify", "--repair"]).finish(&["error: nobody is there to ask"]).await.expect_code(2);
    assert!(asked.stderr.contains("public.wide: 201 to write, 2 to delete, 1 to replace"), "{}", asked.stderr);
    let repaired = life.pgmig(&["verify", "--repair", "--yes", "--show", "0"]).finish(&[]).await.expect_code(0);
    assert!(repaired.stderr.contains("public.keyless: 4 rows deleted, 2 written"), "{}", repaired.stderr);
    assert!(repaired.stderr.contains("equal; next"), "{}", repaired.stderr);
    clients.have_written(50).await;

    life.pgmig(&["verify"]).finish(&[]).await.expect_code(0);
    assert_eq!(clients.stop().await.refused, 0);
    life.end(run).await;
    let done = life.pgmig(&["verify", "--repair", "--yes"]).finish(&["error: migration `default` is done"]).await;
    assert_eq!(done.code(), 5, "{}", done.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_verifies_stops_no_writes_while_both_sides_differ() -> Outcome {
    let mut life = Life::begin(EXTENSION, TABLES).await;
    life.on_source("drop table \"no columns\"").await;
    let run = life.follow().await;
    let dir = life.dir.path().display().to_string();
    let cutover = |life: &Life, more: &[&str]| {
        let mut args = vec!["cutover", "--dir", &dir, "--max-downtime", "60s"];
        args.extend(more);
        life.pgmig(&args)
    };
    let clients = Clients::start(&life.pair.source_uri(), 2).await;
    clients.have_written(20).await;
    life.on_target("delete from keyless where ctid = '(0,5)'").await;
    let failed = "error: the cutover was undone at step verify";
    let cut = cutover(&life, &["--verify"]).finish(&[failed]).await.expect_code(1);
    assert!(cut.stderr.contains("public.keyless (source 100 rows, target 99 rows"), "{}", cut.stderr);
    life.pgmig(&["verify", "--repair", "--yes"]).finish(&[]).await.expect_code(0);
    life.on_target("alter table keyless alter b set default 'x'").await;
    let cut = cutover(&life, &["--verify=quick"]).finish(&[failed]).await.expect_code(1);
    assert!(cut.stderr.contains("table public.keyless (default of column b)"), "{}", cut.stderr);
    life.on_target("alter table keyless alter b drop default").await;
    clients.have_written(20).await;
    cutover(&life, &["--verify", "--dry-run"]).finish(&[]).await.expect_code(0);
    cutover(&life, &["--verify"]).finish(&[]).await.expect_code(0);
    run.finish(&[]).await.expect_code(0);
    clients.stop().await;
    let steps = "select string_agg(step || ' ' || state, ', ' order by position) from pgmig.cutover where step in ('verify', 'proof') \
                 and attempt = (select max(attempt) from pgmig.cutover)";
    assert_eq!(life.on_target(steps).await, "verify done, proof done");
    // For the report: two that differed, a rehearsal and this one, beside that of the repair.
    let noted = "select string_agg((differences = '[]')::text, ' ' order by at) from pgmig.verification";
    assert!(life.on_target(noted).await.ends_with("false true true"), "{}", life.on_target(noted).await);
    life.connect_again().await;
    harness::assert_same(&life.pair).await;
    Ok(())
}
