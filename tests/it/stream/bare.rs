//! Tables without columns: of their rows nothing is known but how many there are.

use harness::{Outcome, assert_same};

use super::{Life, WAYS, do_all};

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_without_columns_are_counted() -> Outcome {
    for way in WAYS {
        let made = "create table z (); alter table z replica identity full; insert into z select from generate_series(1, 5); \
                    create table beside (id int primary key)";
        let life = Life::begin(way, made).await;
        let run = life.follow().await;
        do_all(
            &life,
            &[
                "insert into z select from generate_series(1, 5)",
                "delete from z where ctid in (select ctid from z limit 2)",
                "begin; insert into z default values; delete from z where ctid = (select ctid from z limit 1); insert into beside values (1); commit",
                "delete from z where ctid = (select ctid from z limit 1)",
                "insert into beside values (2)",
            ],
        )
        .await;
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        assert_eq!(life.on_target("select count(*) from z").await, "7", "{way:?}");
        assert_same(&life.pair).await;
    }
    Ok(())
}
