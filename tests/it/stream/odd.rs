//! What a source may do between two rows: its own cascades and triggers, identities that change hands, keys
//! that are checked late, tables emptied and filled again, rows that move, columns that lie elsewhere.

use harness::{Outcome, assert_same};
use pgmig::embedded::Cluster;

use super::{Life, WAYS, Way, do_all};

const MADE: &[&str] = &[
    "create table parent (id int primary key, v int)",
    "create table child (id int primary key, p int references parent on delete cascade on update cascade, n int default 0)",
    "create table other_child (id int primary key, p int default 1 references parent on delete set default on update cascade)",
    "create table audit (id bigserial primary key, what text)",
    "create function note() returns trigger language plpgsql as $$ begin insert into audit (what) values (tg_op || coalesce(new.id, old.id)); \
     if tg_op = 'INSERT' then update child set n = n + 1 where id = new.id; end if; return null; end $$",
    "create trigger note after insert or delete on child for each row execute function note()",
    "create rule loud as on delete to parent do also insert into audit (what) values ('rule')",
    "create table late (id int, v text, primary key (id) deferrable initially deferred); alter table late replica identity full",
    "create table bare (a int, b float8[]); alter table bare replica identity full",
    "create table ident (id int primary key, a int not null, b text, body text); alter table ident alter body set storage external; \
     create unique index ident_a on ident (a)",
    "create table booked (id int primary key, during int4range, exclude using gist (during with &&))",
    "create table lies (a int, b text, id int primary key, gone int, c text, twice int generated always as (a * 2) stored); alter table lies drop gone",
    "create table base (id int primary key, v text); create table derived (extra int, primary key (id)) inherits (base)",
    "create table moved (id int, part int, body text, primary key (id, part)) partition by list (part)",
    "create table moved_1 partition of moved for values in (1)",
    "create table moved_2 (body text, gone int, part int not null, id int not null); alter table moved_2 drop gone; \
     alter table moved attach partition moved_2 for values in (2)",
    "create table moved_3 partition of moved default partition by range (id)",
    "create table moved_3a partition of moved_3 for values from (0) to (50); create table moved_3b partition of moved_3 default",
    "insert into parent select n, n from generate_series(1, 9) n; insert into child select n, n % 9 + 1 from generate_series(1, 30) n; \
     insert into other_child select n, n % 9 + 1 from generate_series(1, 30) n",
    "insert into late select n, 'v' || n % 2 from generate_series(1, 6) n; insert into bare values (1, '{NaN,-0}'), (1, '{NaN,0}'), (null, null), (null, null)",
    "insert into ident select n, n, 'b' || n % 2, repeat(md5(n::text), 200) from generate_series(1, 20) n",
    "insert into booked select n, int4range(n * 10, n * 10 + 10) from generate_series(1, 9) n",
    "insert into lies select n, 'b' || n, n, 'c' || n from generate_series(1, 9) n",
    "insert into base select n, 'base' from generate_series(1, 5) n; insert into derived select n, 'derived', n from generate_series(3, 9) n",
    "insert into moved select n, n % 4, repeat(md5(n::text), 200) from generate_series(1, 60) n; alter table moved_1 alter body set storage external",
];

const CHANGES: &[&str] = &[
    // What the source's own keys, triggers and rules did is in the stream, and not done again.
    "update parent set id = 100 where id = 2; delete from parent where id in (3, 100)",
    "insert into child values (50, 4), (51, 5); delete from child where id = 50",
    "begin; set local session_replication_role = replica; delete from parent where id = 5; insert into child values (60, 777); commit",
    "begin; delete from parent where id = 6; rollback; begin; savepoint a; delete from parent where id = 7; rollback to a; update parent set v = -1 where id = 7; commit",
    // Keys that are checked at the end only.
    "begin; update late set id = 2 where id = 1; update late set id = 1 where id = 2 and v = 'v0'; commit",
    "update late set id = id + 1; update late set id = 8 - id",
    "begin; insert into late values (3, 'twice'); delete from late where id = 3 and v <> 'twice'; commit",
    // Rows that are equal but for what calls itself equal.
    "update bare set a = 2 where b::text = '{NaN,-0}'; update bare set b = '{0}' where b::text = '{NaN,0}'",
    "update bare set a = 5 where ctid = '(0,3)'; delete from bare where ctid = '(0,4)'; insert into bare values (null, null), (5, null)",
    // What says which row it is changes, between transactions and within one.
    "update ident set b = 'by key' where id = 1; alter table ident replica identity full; update ident set b = 'by all', a = 101 where id = 1; \
     update ident set id = 201 where id = 2; delete from ident where id = 3",
    "alter table ident replica identity using index ident_a; update ident set id = 301 where id = 201; update ident set a = 102 where id = 301; delete from ident where a = 4",
    "begin; update ident set b = 'index' where id = 5; alter table ident replica identity default; update ident set a = 105, b = 'key' where id = 5; \
     update ident set id = 505 where id = 5; alter table ident replica identity full; update ident set body = 'short', id = 5 where id = 505; \
     savepoint s; alter table ident replica identity using index ident_a; update ident set a = -1 where id = 8; rollback to s; \
     update ident set b = 'all' where id = 6; delete from ident where id = 7; insert into ident values (7, 7, 'again', repeat('z', 9000)); commit",
    "alter table ident replica identity default; update ident set b = 'default again' where id in (5, 6, 7)",
    "begin; update ident set a = a + 1000; update ident set a = a - 999 where id > 8; commit",
    // Emptied and filled, with the same keys, in one transaction and over several.
    "begin; insert into booked values (90, '[900,901)'); truncate booked; insert into booked values (1, '[1,2)'), (90, '[3,4)'); update booked set during = '[5,6)' where id = 1; commit",
    "truncate booked, late restart identity; insert into booked values (1, '[1,2)'); insert into late values (1, 'after')",
    "begin; truncate late; insert into late values (1, 'gone'); rollback; begin; savepoint t; truncate late; rollback to t; update late set v = 'kept'; commit",
    "insert into booked select n, int4range(n * 10, n * 10 + 10) from generate_series(2, 9) n",
    "update booked set during = '[500,510)' where id = 2; update booked set during = '[20,30)' where id = 3; update booked set during = '[30,40)' where id = 2",
    "begin; delete from booked where id = 4; insert into booked values (44, '[35,50)') on conflict do nothing; insert into booked values (45, '[40,50)'); commit",
    // Columns that lie elsewhere on the target.
    "insert into lies values (10, 'b10', 10, 'c10'); update lies set a = -a, c = b where id < 4; update lies set id = 40 where id = 4; delete from lies where id = 5",
    "copy lies (id, a) from program 'seq -f ''%.0f\t7'' 100 400'",
    // Parents and children, partitions and what is below them.
    "update base set v = v || '!' where id < 7; delete from only base where id = 4; update base set id = 70 where id = 9; delete from base where id = 5",
    "update moved set part = part + 1 where id % 3 = 0; update moved set id = id + 400 where part > 2; update moved set part = 1, body = 'short' where id % 7 = 0",
    "begin; update moved set part = 2 where part = 1; update moved set part = 1 where part = 2 and id < 20; truncate moved_3b; insert into moved values (99, 9, 'back'); commit",
    "begin; truncate moved; insert into moved values (1, 1, 'x'), (2, 2, 'y'), (3, 3, 'z'), (60, 3, 'w'); update moved set part = 2 where part = 3; commit",
    "truncate base; insert into derived values (1, 'new', 1)",
    "truncate parent cascade; insert into parent values (1, 1); insert into child values (1, 1)",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_may_do_between_two_rows_arrives() -> Outcome {
    for way in WAYS {
        odd_changes(way).await;
    }
    Ok(())
}

async fn odd_changes(way: Way) {
    let life = Life::between(way, Cluster::builder(), Cluster::builder()).await;
    do_all(&life, MADE).await;
    let mut run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    let elsewhere = "create table there (twice int generated always as (a * 2) stored, c text, gone int, id int primary key, b text, a int); \
                     alter table there drop gone; insert into there (a, b, id, c) select a, b, id, c from lies; \
                     drop table lies; alter table there rename to lies";
    life.target.batch_execute(elsewhere).await.expect("the target is ours");
    // Most of it in one Batch, the rest as it comes.
    let (first, last) = CHANGES.split_at(CHANGES.len() - 3);
    do_all(&life, first).await;
    let applied = format!("select replay_lsn >= '{}' from pgmig.progress", life.lsn().await);
    life.on_target("select pgmig.resume()").await;
    do_all(&life, &["insert into audit (what) values ('behind it')"]).await;
    life.wait_for(&mut run, "the first of it", &applied).await;
    do_all(&life, last).await;
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    for side in [&life.source, &life.target] {
        let by_name = "create table by_name as select a, b, c, id, twice from lies order by id; drop table lies";
        side.batch_execute(by_name).await.expect("the same columns are on both sides");
    }
    assert_same(&life.pair).await;
}
