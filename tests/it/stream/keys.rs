//! Keys of every type: whatever a type calls equal, the row that the source has changed is changed, and
//! it ends with the source's bytes.

use harness::Outcome;

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way, do_all};

/// A type; a value, and one that is equal to it but looks otherwise if there is one; two others.
type Values = (&'static str, [&'static str; 4]);

const KEYS: &[Values] = &[
    ("citext", ["'A'", "'a'", "'B'", "'c'"]),
    ("ltree", ["'a.b'", "'a.b'", "'a'", "'b'"]),
    ("hstore", ["'a=>1'", "'a=>1'", "'a=>NULL'", "''"]),
    ("text collate nocase", ["'Ä'", "'ä'", "'b'", "''"]),
    ("text", ["'null'", "'null'", "''", r"'\'"]),
    ("char(4)", ["'a'", "'a  '", "''", "' a'"]),
    ("bpchar", ["'a'", "'a  '", "''", "' a'"]),
    ("varchar(3)", ["'a'", "'a'", "'a '", "''"]),
    ("name", ["'N'", "'N'", "'n'", "''"]),
    ("\"char\"", ["'a'", "'a'", "''", "'b'"]),
    ("interval", ["'1 mon'", "'30 days'", "'0'", "'-1 s'"]),
    ("jsonb", ["'{\"a\": 1.0}'", "'{\"a\": 1.00}'", "'null'", "'[]'"]),
    ("numeric[]", ["'{1.0,null}'", "'{1.00,null}'", "'{NaN}'", "'{}'"]),
    ("float8[]", ["'{0}'", "'{-0}'", "'{NaN}'", "'[0:0]={1}'"]),
    ("numrange", ["'[1.0,2)'", "'[1.00,2)'", "'empty'", "'(,)'"]),
    ("pair", ["row(1.0, 'A')", "row(1.00, 'a')", "row(2, null)", "row(null, '')"]),
    ("loose", ["'A'", "'a'", "'B'", "'c'"]),
    ("trail", ["'a.b'", "'a.b'", "'a'", "'b'"]),
    ("mood", ["'sad'", "'sad'", "'glad'", "'it''s'"]),
    ("bytea", [r"'\x00ff'", r"'\x00ff'", r"'\x'", r"'\x00'"]),
    ("varbit", ["b'1'", "b'1'", "b''", "b'10'"]),
    ("timetz", ["'12:00+00'", "'12:00+00'", "'13:00+01'", "'24:00+00'"]),
    ("timestamptz", ["'infinity'", "'infinity'", "'-infinity'", "'0044-03-15 12:00+00 BC'"]),
    ("inet", ["'10.0.0.1'", "'10.0.0.1/32'", "'10.0.0.1/8'", "'::'"]),
    ("int4range", ["'[1,2]'", "'[1,3)'", "'empty'", "'(,)'"]),
    ("uuid", ["md5('a')::uuid", "md5('a')::uuid", "md5('b')::uuid", "md5('c')::uuid"]),
    ("tsvector", ["'a:1 b'", "'a:1 b'", "'a b'", "''"]),
    ("money", ["'1'", "'1'", "'-1'", "'0'"]),
    ("bool", ["true", "true", "false", "null"]),
];

/// wal2json before 2.6 is not let near these.
const NUMBERS: &[Values] = &[
    ("numeric", ["1.0", "1.00", "'NaN'", "'Infinity'"]),
    ("numeric(9,2)", ["1.0", "1.00", "0", "-1"]),
    ("float8", ["0", "'-0'", "'NaN'", "5e-324"]),
    ("float4", ["0", "'-0'", "'NaN'", "1e-45"]),
    ("exact", ["1.0", "1.00", "'NaN'", "0"]),
];

const MADE: &str = "create extension citext; create extension ltree; create extension hstore; \
                    create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
                    create type mood as enum ('sad', 'glad', 'it''s'); create type pair as (n numeric, t citext); \
                    create domain loose as citext; create domain trail as ltree; create domain exact as numeric";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_keys_of_every_type_with_the_extension() -> Outcome {
    keys_of_every_type(EXTENSION).await
}
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_keys_of_every_type_in_plain_sql() -> Outcome {
    keys_of_every_type(PLAIN).await
}
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_keys_of_every_type_through_wal2json_with_the_extension() -> Outcome {
    keys_of_every_type(EXTENSION_WAL2JSON).await
}
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_keys_of_every_type_through_wal2json_in_plain_sql() -> Outcome {
    keys_of_every_type(PLAIN_WAL2JSON).await
}

async fn keys_of_every_type(way: Way) -> Outcome {
    let life = Life::begin(way, MADE).await;
    let numbers = if way.plugin == "wal2json" { &[] } else { NUMBERS };
    let types: Vec<&Values> = KEYS.iter().chain(numbers).collect();
    let (mut made, mut changes) = (String::new(), Vec::new());
    for (n, (of, [a, like_a, b, c])) in types.iter().enumerate() {
        let plain = of.split(" collate").next().unwrap_or(of);
        let [a, like_a, b, c] = [a, like_a, b, c].map(|value| format!("({value})::{plain}"));
        // Alone, as the second column of an index, and among all columns of rows that may be equal.
        made += &format!(
            "create table p{n} (v int, k {of} primary key); insert into p{n} values (0, {a}), (0, {b}); \
             create table i{n} (k {of} not null, part int not null, v int); create unique index i{n}_key on i{n} (part, k); \
             alter table i{n} replica identity using index i{n}_key; insert into i{n} values ({a}, 1, 0), ({b}, 1, 0), ({a}, 2, 0); \
             create table f{n} (v int, k {of}); alter table f{n} replica identity full; \
             insert into f{n} values (0, {a}), (0, {like_a}), (0, {b}), (0, {b}), (0, null), (0, null); "
        );
        for (table, part) in [(format!("p{n}"), ""), (format!("i{n}"), "part = 1 and ")] {
            let columns = if part.is_empty() { "k" } else { "part, k" };
            let one = if part.is_empty() { "" } else { "1, " };
            let write = |sql: &str| sql.replace("T ", &format!("{table} ")).replace("WHERE ", &format!("where {part}"));
            changes.extend(
                [
                    format!("update T set v = v + 1 WHERE k = {a}"),
                    format!("update T set k = {like_a} WHERE k = {a}"),
                    format!("update T set v = v + 1 WHERE k = {a}"),
                    format!("begin; delete from T WHERE k = {a}; insert into T ({columns}) values ({one}{a}); update T set v = 7 WHERE k = {a}; commit"),
                    format!("delete from T WHERE k = {a}; insert into T ({columns}, v) values ({one}{like_a}, 8); delete from T WHERE k = {a}; insert into T ({columns}, v) values ({one}{a}, 9)"),
                    format!("update T set k = {like_a} WHERE k = {a}; update T set v = v + 10 WHERE k = {like_a}"),
                ]
                .map(|sql| write(&sql)),
            );
            if c != format!("(null)::{plain}") {
                changes.push(write(&format!(
                    "begin; update T set k = {c} WHERE k = {a}; update T set k = {a} WHERE k = {b}; update T set k = {b} WHERE k = {c}; commit"
                )));
            }
            changes.push(write(&format!("delete from T WHERE k = {a}")));
        }
        changes.extend([
            format!("update f{n} set v = 1 where ctid = '(0,2)'"),
            format!("update f{n} set v = 2 where ctid = '(0,3)'; update f{n} set k = {c} where ctid = '(0,4)'"),
            format!("delete from f{n} where ctid = '(0,5)'; update f{n} set v = 3 where ctid = '(0,6)'"),
            format!("update f{n} set k = {like_a} where ctid = '(0,1)'; delete from f{n} where v = 1"),
            format!("begin; insert into f{n} values (1, {a}), (1, {like_a}); delete from f{n} where v = 2; commit"),
        ]);
    }
    do_all(&life, &[&made]).await;
    let mut run = life.follow().await;
    life.on_target("select pgmig.pause()").await;
    let (first, last) = changes.split_at(changes.len() / 2);
    do_all(&life, &first.iter().map(String::as_str).collect::<Vec<_>>()).await;
    life.on_target("select pgmig.resume()").await;
    // Half of it in one Batch, the other as it comes.
    let applied = format!("select replay_lsn >= '{}' from pgmig.progress", life.lsn().await);
    do_all(&life, &last.iter().map(String::as_str).collect::<Vec<_>>()).await;
    life.wait_for(&mut run, "the first half", &applied).await;
    life.end(run).await;
    Ok(())
}
