//! Every type at its extremes: the same values go once through the copy and once through the stream,
//! as rows that are inserted, that are updated beside them, and that are their own key. What arrives
//! is compared with the source byte for byte, as each type's send function gives it.

use std::time::Duration;

use harness::{Outcome, assert_same, wait_until};
use pgmig::embedded::Cluster;
use pgmig::source::catalog::NEVER_BINARY;

use super::{EXTENSION, EXTENSION_WAL2JSON, Life, PLAIN, PLAIN_WAL2JSON, Way, do_all, value};

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_byte_for_byte_with_the_extension() -> Outcome {
    every_type_arrives(EXTENSION, false).await
}
#[tokio::test(flavor = "multi_thread")]
async fn types_that_travel_in_binary_arrive_byte_for_byte() -> Outcome {
    every_type_arrives(EXTENSION, true).await
}
#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_byte_for_byte_in_plain_sql() -> Outcome {
    every_type_arrives(PLAIN, false).await
}
#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_byte_for_byte_through_wal2json_with_the_extension() -> Outcome {
    every_type_arrives(EXTENSION_WAL2JSON, false).await
}
#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_byte_for_byte_through_wal2json_in_plain_sql() -> Outcome {
    every_type_arrives(PLAIN_WAL2JSON, false).await
}

/// wal2json before 2.6 cannot carry them: preflight refuses it there.
const NUMBERS: &[(&str, &[&str])] = &[
    (
        "float8",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'-0'",
            "5e-324",
            "1.7976931348623157e308",
            "0.1",
            "948.6848791880262",
            "1e-307",
            "0.30000000000000004",
            "9007199254740993",
        ],
    ),
    ("float4", &["'NaN'", "'Infinity'", "'-Infinity'", "1e-45", "3.4028235e38", "1e-40", "0.1", "16777217"]),
    (
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0.000",
            "1.10",
            "-0.00000000000000000000000000000000000000000001",
            "1234567890123456789012345678901234567890.1",
            "10::numeric ^ 1000",
            "1 / (10::numeric ^ 300)",
        ],
    ),
    ("numeric(20,4)", &["12345678901234.5678", "'NaN'", "0", "-1.1"]),
    ("numeric(3,-2)", &["12345", "-99900"]),
];

const OTHERS: &[(&str, &[&str])] = &[
    ("int2", &["-32768", "32767", "0"]),
    ("int4", &["-2147483648", "2147483647"]),
    ("int8", &["-9223372036854775808", "9223372036854775807", "9007199254740993", "35506143"]),
    ("bool", &["true", "false"]),
    ("money", &["'-92233720368547758.08'", "'92233720368547758.07'", "'$1,234.50'"]),
    (
        "text",
        &[
            "''",
            "'null'",
            "'NULL'",
            r"'\N'",
            r"E'\\'",
            r#"'"'"#,
            "''''",
            r"E'\x01\x02\x1f\x7f'",
            r"E'a\tb\nc\rd\be\ff'",
            "'☃ é 𝄞 🙂'",
            r"E'\u2028\u2029\uFEFF'",
            r#"'\u0041 \x41 {"a"}'"#,
            "' lead and trail '",
            "repeat('long ☃', 3000)",
            "E'\\U0010FFFF'",
            "'$1 %s ?'",
        ],
    ),
    ("varchar(12)", &["''", "'  x  '", "'ééééééééé'"]),
    ("char(5)", &["''", "'a'", "'é☃'", "'  b'"]),
    (r#""char""#, &["'a'", "''", r"'\'", "'\"'"]),
    ("name", &["'Weird \"Name\\'", "repeat('x', 63)", "''"]),
    (
        "bytea",
        &[
            r"'\x'",
            r"'\x00'",
            r"'\x00ff005c27220a'",
            "decode(repeat('00ff', 3000), 'hex')",
            r"'\x5c78'",
            "'null'",
            r"'\x6e756c6c'",
        ],
    ),
    ("bit(9)", &["B'000000000'", "B'111111111'", "B'100000001'"]),
    ("varbit", &["B''", "B'1'", "B'0000000000000000000000000000000001'"]),
    ("date", &["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'0044-03-15 BC'", "'2024-02-29'"]),
    ("time", &["'00:00'", "'24:00:00'", "'23:59:59.999999'"]),
    ("time(3)", &["'12:34:56.789'"]),
    ("timetz", &["'00:00:00+15:59:59'", "'24:00:00-15:59:59'", "'12:00:00.000001+05:30'"]),
    (
        "timestamp",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'2000-01-01 00:00:00.000001'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-02 00:00:00+00 BC'",
            "'294276-12-31 23:59:59.999999+00'",
            "'1883-11-18 12:03:58-00'",
        ],
    ),
    (
        "interval",
        &[
            "'-178000000 years'",
            "'178000000 years'",
            "'1 year -1 month 1 day -1 hour 0.000001 s'",
            "'-1 day +24:00'",
            "'0'",
            "'1 mon -30 days'",
            "'-00:00:00.000001'",
        ],
    ),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"]),
    (
        "json",
        &[
            r#"'{"b": 1, "a": 2, "b": 3}'"#,
            "'null'",
            r#"'"null"'"#,
            r#"' { "x" : 1.0e5, "☃":"\u0041\ud834\udd1e" } '"#,
            "'123456789012345678901234567890.10'",
            "'[]'",
            r#"'"\\ \" \/ \b"'"#,
            r#"'{"n":1E400}'"#,
            r#"'"\u0000"'"#,
        ],
    ),
    (
        "jsonb",
        &[
            r#"'{"b": 1, "a": 2, "b": 3}'"#,
            "'null'",
            "'1.10'",
            "'1E400'",
            r#"'[null, true, "☃", {"": {}}]'"#,
            "'9007199254740993'",
        ],
    ),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'", r#"'strict $."a b"'"#]),
    ("xml", &["'<a>&lt; ☃</a>'", "'<a/><b/>'", "'text'", r#"'<?xml version="1.0"?><r/>'"#]),
    ("inet", &["'0.0.0.0/0'", "'255.255.255.255'", "'::1/64'", "'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'"]),
    ("cidr", &["'10.0.0.0/8'", "'::/0'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("point", &["'(NaN,Infinity)'", "'(1e-307,-1.7976931348623157e308)'", "'(0.1,0.30000000000000004)'"]),
    ("line", &["'{1,-1,0}'"]),
    ("lseg", &["'[(0,0),(1e-7,1)]'"]),
    ("box", &["'(1,1),(0,0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1),(2,0.1))'"]),
    ("polygon", &["'((0,0),(1,1),(2,0))'"]),
    ("circle", &["'<(0.1,0.2),0.3>'"]),
    ("tsvector", &[r"'''it''''s'':1A fat:2B \\ cat'", "''"]),
    ("tsquery", &["'fat & (rat | !cat:AB*)'"]),
    ("pg_lsn", &["'0/0'", "'FFFFFFFF/FFFFFFFF'"]),
    ("oid", &["4294967295::oid", "0::oid"]),
    ("xid8", &["'18446744073709551615'"]),
    ("tid", &["'(4294967295,65535)'", "'(0,0)'"]),
    ("pg_snapshot", &["'10:20:10,14,15'"]),
    ("int2vector", &["'1 2 -3'", "''"]),
    ("oidvector", &["'1 4294967295'"]),
    ("regtype", &["'integer'", "'double precision'", "'timestamp with time zone[]'"]),
    ("regclass", &["'pg_class'"]),
    ("int4range", &["'empty'", "'[1,5)'", "'(,)'", "'(,7]'"]),
    ("numrange", &["'[1.10,2.2]'", "'(0.000000000000000001,)'"]),
    ("tsrange", &["'[-infinity,infinity]'", "'[2024-01-01 00:00:00,)'"]),
    ("daterange", &["'[4713-01-01 BC,5874897-12-31)'"]),
    ("int8multirange", &["'{}'", "'{[1,3),[9007199254740993,)}'"]),
    ("tstzmultirange", &["'{[2024-01-01 00:00+00,2024-02-01 00:00+00)}'"]),
    ("int4[]", &["'{}'", "'[-2:0]={1,NULL,3}'", "'[5:6][0:1]={{1,2},{3,4}}'"]),
    (
        "text[]",
        &[
            r#"array['', null, 'NULL', 'a,b', '"', '\', '{}', ' ', '☃']"#,
            "array[array['a', 'b'], array[null, 'd']]",
            "'{}'",
        ],
    ),
    ("bytea[]", &[r"array['\x00'::bytea, null, '\x5c22']"]),
    ("float8[]", &["'{NaN,Infinity,-Infinity,5e-324,-0,0.1}'"]),
    ("numeric[]", &["'{NaN,1.10,1e-40}'"]),
    ("jsonb[]", &[r#"array['{"a": "\"b\""}'::jsonb, 'null', null]"#]),
    ("int4range[]", &["array['[1,2)'::int4range, 'empty']"]),
    ("mood", &["'sad'", r#"'it''s "happy", really'"#, "'☃'"]),
    ("mood[]", &[r#"array['it''s "happy", really', null, 'sad']::mood[]"#, "'[0:0]={sad}'"]),
    ("short", &["''", "'null'"]),
    ("short[]", &["array['a', null, '']::short[]"]),
    ("exact", &["'NaN'", "1.10", "123456789012345678901234567890.123456789"]),
    ("raw", &[r"'\x00ff'", r"'\x'"]),
    ("pair", &[r#"row(1, 'a"b\c,(d)')"#, "row(null, null)", "row(-1, '')", "row(2, '☃')"]),
    ("pair[]", &[r#"array[row(1, '"x"')::pair, null, row(null, '')::pair]"#]),
    ("nested", &[r#"row(row(1, '(,")')::pair, array[row(2, null)::pair])"#]),
    ("span", &["'[0.1,0.3)'", "'empty'"]),
    ("hstore", &[r#"'a=>1, "b c"=>NULL, "q\"u"=>"\\", ""=>""'"#, "''"]),
    ("citext", &["'MiXed ☃'", "''"]),
    ("citext[]", &["array['A,b', null]::citext[]"]),
    ("ltree", &["'a.b.c'", "''"]),
];

const MADE: &str = r#"
    create extension hstore; create extension citext; create extension ltree;
    create type mood as enum ('sad', 'it''s "happy", really', '☃');
    create domain short as text check (length(value) < 40);
    create domain exact as numeric;
    create domain raw as bytea;
    create type pair as (a int, b text);
    create type nested as (p pair, list pair[]);
    create type span as range (subtype = float8);
"#;

/// A table of these types: row n holds value n of each, or null.
fn table(name: &str, key: &str, types: &[(&str, &[&str])]) -> Vec<String> {
    let columns: Vec<String> = types.iter().enumerate().map(|(n, (of, _))| format!("c{n} {of}")).collect();
    let mut made =
        vec![format!("create table {name} (id int {key}, touched int not null default 0, {})", columns.join(", "))];
    if key.is_empty() {
        made.push(format!("alter table {name} replica identity full"));
    }
    made.extend(rows(name, types, 0));
    made
}

fn rows(name: &str, types: &[(&str, &[&str])], base: usize) -> Vec<String> {
    let count = types.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let row = |n: usize| {
        let values = types.iter().map(|(of, values)| values.get(n).map_or("null".into(), |v| format!("({v})::{of}")));
        format!("insert into {name} values ({}, 0, {})", base + n, values.collect::<Vec<_>>().join(", "))
    };
    (0..=count).map(row).collect()
}

/// Of all types, or of those only that let the stream be in binary.
async fn every_type_arrives(way: Way, binary: bool) -> Outcome {
    let life = Life::begin(way, MADE).await;
    let wal2json = way.plugin == "wal2json";
    let (mut others, mut numbers) = (OTHERS.to_vec(), NUMBERS.to_vec());
    if binary {
        let of_major = life.on_source("select current_setting('server_version_num')::int / 10000").await;
        let safe = include_str!("../../../sql/source/binary_types.sql")
            .replace("$1", "'{}'")
            .replace("$2", &of_major)
            .replace("$3", &format!("'{NEVER_BINARY}'"));
        let all = others.iter().chain(&numbers).map(|(of, _)| *of);
        let mut kept = Vec::new();
        for of in all {
            if life.on_source(&format!("select '{of}'::regtype::oid = any (array(select unnest(({safe}))))")).await
                == "t"
            {
                kept.push(of);
            }
        }
        others.retain(|(of, _)| kept.contains(of));
        numbers.retain(|(of, _)| kept.contains(of));
        assert!(others.len() > 20 && numbers.len() > 3, "{kept:?}");
    }
    let (others, numbers) = (others.as_slice(), numbers.as_slice());
    let mut tables = vec![("others", "primary key", others), ("others_full", "", others)];
    if !wal2json {
        tables.extend([("numbers", "primary key", numbers), ("numbers_full", "", numbers)]);
    }
    for (name, key, types) in &tables {
        for statement in table(name, key, types) {
            do_all(&life, &[&statement]).await;
        }
    }
    let run = life.follow().await;
    let asked = "select query like '%binary%' from pg_stat_activity where backend_type = 'walsender'";
    let expected = if binary { "t" } else { "f" };
    wait_until(Duration::from_secs(30), "the stream", async || life.on_source(asked).await == expected).await;
    for (name, _, types) in &tables {
        for statement in rows(name, types, 1000) {
            do_all(&life, &[&statement]).await;
        }
        let columns: Vec<String> = (0..types.len()).map(|n| format!("c{n}")).collect();
        let columns = columns.join(", ");
        do_all(
            &life,
            &[
                // Beside the values, of copied rows and of streamed ones.
                &format!("update {name} set touched = touched + 1 where id % 1000 < 4"),
                // Every value moves by a row, in one transaction.
                &format!("insert into {name} select id + 1000, 7, {columns} from {name} where id >= 1000"),
                &format!("update {name} t set ({columns}) = (select {columns} from {name} s where s.id = t.id - 999) where id >= 2000 and exists (select from {name} s where s.id = t.id - 999)"),
                // A key that changes, and rows that go.
                &format!("update {name} set id = id + 5000 where id % 1000 = 5"),
                &format!("delete from {name} where id % 1000 = 6"),
            ],
        )
        .await;
    }
    life.end(run).await;
    for (name, _, types) in &tables {
        for (n, (of, _)) in types.iter().enumerate() {
            let bytes = bytes_of(&life, &format!("c{n}"), of).await;
            let all = format!("select string_agg(coalesce({bytes}, 'null'), ' ' order by id) from {name}");
            assert_eq!(life.on_source(&all).await, life.on_target(&all).await, "{name}.c{n} {of}");
            let copied = |base: usize| {
                format!(
                    "select string_agg(coalesce({bytes}, 'null'), ' ' order by id) from {name} where id between {base} and {base} + 999 and id % 1000 not in (5, 6)"
                )
            };
            assert_eq!(
                life.on_target(&copied(0)).await,
                life.on_target(&copied(1000)).await,
                "{name}.c{n} {of}: copied and streamed"
            );
        }
    }
    assert_eq!(life.on_target("select plugin from pgmig.progress").await, way.plugin);
    Ok(())
}

/// The bytes of a value as its send function gives them. What holds oids, which are a database's own,
/// is compared as text.
async fn bytes_of(life: &Life, column: &str, of: &str) -> String {
    let send = life
        .on_source(&format!(
            "select case when t.typcategory <> 'A' or e.oid < 10000 then t.typsend::oid::regproc::text end
               from pg_type t left join pg_type e on e.oid = t.typelem
              where t.oid = '{of}'::regtype and t.typname !~ 'reg' and t.typsend <> 0 and t.typtype <> 'c'"
        ))
        .await;
    if send.is_empty() { format!("{column}::text") } else { format!("encode({send}({column}), 'hex')") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_in_another_encoding_arrives_as_what_it_says() -> Outcome {
    for (flavour, encoding) in [("extension", "LATIN1"), ("plain", "LATIN1"), ("extension", "SQL_ASCII")] {
        let way = Way { flavour, plugin: "auto" };
        let life = Life::between(way, Cluster::builder().encoding(encoding), Cluster::builder()).await;
        // In SQL_ASCII the bytes are what the client sent, and this one speaks UTF-8.
        let made = "create table \"é\" (id int primary key, \"ü\" text, v varchar(10)); \
                    insert into \"é\" values (1, 'ÄÖÜ é', 'ñ'), (2, '', null); \
                    create table full_é (a text, b text); alter table full_é replica identity full; \
                    insert into full_é values ('é', 'x'), ('é', 'x')";
        do_all(&life, &[made]).await;
        let run = life.follow().await;
        do_all(
            &life,
            &[
                "insert into \"é\" values (3, repeat('é', 9000), 'ééééé'), (4, 'ß', 'x')",
                "update \"é\" set v = 'é' where id in (1, 3)",
                "update full_é set b = 'ü' where ctid = (select min(ctid) from full_é)",
                "delete from \"é\" where id = 2",
            ],
        )
        .await;
        let checksum = "select count(*) || ' ' || string_agg(md5(convert_to(coalesce(\"ü\", '') || coalesce(v, ''), 'UTF8')), '' order by id) from \"é\"";
        life.set_endpos(life.lsn().await).await;
        life.finish(run).await;
        if encoding == "LATIN1" {
            assert_same(&life.pair).await;
            assert_eq!(value(&life.source, checksum).await, value(&life.target, checksum).await);
        }
        let rows = "select string_agg(id || \"ü\" || coalesce(v, '-'), ' ' order by id) from \"é\" where id <> 3";
        assert_eq!(life.on_target(rows).await, "1ÄÖÜ éé 4ßx", "{encoding}");
        assert_eq!(
            life.on_target("select string_agg(a || b, ' ' order by b) from full_é").await,
            "éx éü",
            "{encoding}"
        );
        assert_eq!(life.on_target("select length(\"ü\") from \"é\" where id = 3").await, "9000");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_wal2json_cannot_name_goes_through_pgoutput() -> Outcome {
    let made = "create schema \"My Shop\"; create type \"My Shop\".\"Mood\" as enum ('sad', 'ok'); \
                create table t (id int primary key, mood \"My Shop\".\"Mood\")";
    let mut life = Life::begin(Way { flavour: "plain", plugin: "wal2json" }, made).await;
    let refused = life.run().finish(&["error: "]).await.expect_code(3);
    assert!(refused.stderr.contains("column mood of public.t"), "{}", refused.stderr);
    life.way.plugin = "auto";
    let run = life.follow().await;
    do_all(&life, &["insert into t values (1, 'sad'); update t set mood = 'ok'"]).await;
    life.end(run).await;
    Ok(())
}
