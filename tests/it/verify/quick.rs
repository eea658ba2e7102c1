//! `pgmig verify --quick`: a database with one of everything is equal after a migration, within a version and
//! across versions, and each thing that drifts is found, named, and mended by the statement that is shown.

use harness::{Outcome, tell, versions};
use pgmig::embedded::Cluster;

use crate::life::{EXTENSION, Life, PLAIN, Way};

const EVERYTHING: &str = include_str!("../data/everything.sql");

impl Life {
    fn quick(&self, more: &[&str]) -> harness::Pgmig {
        let dir = self.dir.path().display().to_string();
        let mut args = vec!["verify", "--quick", "--dir", &dir];
        args.extend(more);
        self.pgmig(&args)
    }
}

async fn everything_is_equal(mut life: Life) -> Result<Life, Box<dyn std::error::Error + Send + Sync>> {
    life.source.batch_execute(EVERYTHING).await?;
    life.allowed = &[
        "1 large objects are copied",
        "plain.scratch is unlogged",
        "subscription Everything from is made and left disabled",
    ];
    let run = life.follow_with(&["--roles"]).await;
    // What is made only at the end is no difference until then.
    let equal = life.quick(&[]).finish(&[]).await;
    assert_eq!((equal.code(), equal.stdout.as_str()), (0, ""), "while it is followed: {}", equal.stderr);
    assert!(equal.stderr.contains("more are made or set at the end"), "{}", equal.stderr);
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    let equal = life.quick(&[]).finish(&[]).await;
    assert_eq!((equal.code(), equal.stdout.as_str()), (0, ""), "when it is done: {}", equal.stderr);
    assert!(!equal.stderr.contains("more are made"), "{}", equal.stderr);
    Ok(life)
}

/// A change to the target, and the words that name it.
const DRIFTS: &[(&str, &str)] = &[
    ("drop index plain.parent_brin", "index plain.parent_brin  is missing"),
    (
        "alter table plain.fires disable trigger ordinary",
        "trigger ordinary on plain.fires  enabled:  source yes; target no",
    ),
    ("alter policy own on plain.secret using (owner <> current_user)", "policy own on plain.secret  using:"),
    ("revoke insert on plain.parent from everything_reader", "table plain.parent  privileges of everything_reader:"),
    ("grant select on plain.audit to public", "table plain.audit  privileges of public:  source none; target select"),
    ("alter type plain.mood add value 'new' before 'happy'", "type plain.mood  labels:"),
    (
        "create or replace function plain.series(n int) returns table (a int, b text) language sql rows 7 as $$ select a, a::text from generate_series(2, n) a $$",
        "function plain.series(integer)  body:",
    ),
    ("select setval('plain.lonely', 1)", "sequence plain.lonely  position:"),
    (
        "alter table plain.child drop constraint child_again_id_fkey, add constraint child_again_id_fkey foreign key (again_id) references plain.parent(id) on update restrict on delete set default deferrable not valid",
        "table constraint child_again_id_fkey on plain.child  validated:  source yes; target no",
    ),
    ("alter table plain.computed alter note set default 'other'", "table plain.computed  default of column note:"),
    ("alter table plain.dropped alter b drop not null", "table plain.dropped  not null of column b:"),
    ("alter table plain.dropped alter b type varchar(77)", "table plain.dropped  column b:"),
    (
        "create or replace view plain.happy with (security_barrier) as select id, code from plain.parent where mood = 'sad' with cascaded check option",
        "view plain.happy  definition:",
    ),
    ("alter table plain.ring_b owner to everything_owner", "table plain.ring_b  owner:"),
    ("comment on table plain.parted is 'other'", "table plain.parted  comment:"),
    ("alter publication everything_some set (publish = 'insert')", "publication everything_some  publishes:"),
    ("alter table plain.by_default disable rule always", "rule always on plain.by_default  enabled:"),
    ("alter domain plain.positive drop constraint small", "domain constraint small on plain.positive  is missing"),
    ("alter table plain.secret no force row level security", "table plain.secret  row security of the owner:"),
    (
        "refresh materialized view plain.a_top with no data",
        "materialized view plain.a_top  populated:  source yes; target no",
    ),
    ("create table plain.extra (a int primary key, b int default 1)", "table plain.extra  is on the target only"),
    (
        "update pg_index set indisvalid = false where indexrelid = 'plain.parent_doc'::regclass",
        "index plain.parent_doc  valid:",
    ),
    ("drop statistics plain.parent_expressions", "statistics object plain.parent_expressions  is missing"),
    ("delete from plain.fires where id = 10", "plain.fires  source 2 rows, target 1 rows"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_drifts_on_the_target_is_named_and_nothing_else_is() -> Outcome {
    let life = everything_is_equal(Life::empty(EXTENSION).await).await?;
    for (change, _) in DRIFTS {
        life.target.batch_execute(change).await.map_err(|e| format!("{change}: {e:?}"))?;
    }
    let found = life.quick(&[]).finish(&[]).await.expect_code(1);
    let named: Vec<&str> = found.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    for (change, words) in DRIFTS {
        assert!(named.iter().any(|line| line.starts_with(words)), "{change}: no `{words}` in\n{}", found.stdout);
    }
    let stray: Vec<&&str> =
        named.iter().filter(|line| !DRIFTS.iter().any(|(_, words)| line.starts_with(words))).collect();
    assert_eq!(stray, [] as [&&str; 0]);

    // What the statements mend is equal then, and what machines are told is the same.
    let told = life.quick(&["--json"]).finish(&[]).await.expect_code(1);
    let told: serde_json::Value = serde_json::from_str(&told.stdout)?;
    assert_eq!((&told["format"], &told["equal"]), (&1.into(), &false.into()));
    let differences = told["object_differences"].as_array().expect("a list");
    let mut left = Vec::new();
    for difference in differences {
        match difference["mend"].as_str() {
            Some(mend) => life.target.batch_execute(mend).await.map_err(|e| format!("{mend}: {e:?}"))?,
            None => left.push(difference["object"].as_str().expect("a name").to_string()),
        }
    }
    left.sort();
    assert_eq!(left, ["plain.dropped", "plain.extra", "plain.mood"]);
    let told = life.quick(&["--json"]).finish(&[]).await.expect_code(1);
    let told: serde_json::Value = serde_json::from_str(&told.stdout)?;
    let mut still: Vec<&str> =
        told["object_differences"].as_array().expect("a list").iter().filter_map(|d| d["object"].as_str()).collect();
    still.sort_unstable();
    assert_eq!(still, left);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_print_in_other_words_are_equal() -> Outcome {
    everything_is_equal(Life::empty(PLAIN).await).await?;
    let found = versions();
    for target in found.iter().skip(1) {
        let server = |bin: &pgmig::embedded::BinDir| Cluster::builder().bin_dir(bin.path());
        let way = Way { flavour: "plain", plugin: "pgoutput" };
        everything_is_equal(Life::between(way, server(&found[0]), server(target)).await).await?;
        tell(&format!("catalogs were compared: PostgreSQL {} to {}", found[0].version(), target.version()));
    }
    Ok(())
}

/// What filters and flags leave out is no difference, as long as the plan of the migration is there to say so.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_migration_leaves_out_is_not_compared() -> Outcome {
    const TABLES: &str = "
        create role somebody;
        create schema aside;
        create table aside.gone (id int primary key);
        create table kept (id int primary key, v text);
        create table plain (id int primary key);
        create index kept_v on kept (v);
        create view needs as select * from plain;
        comment on table kept is 'kept';
        grant select on kept to somebody;
        alter table plain owner to somebody";
    let life = Life::begin(PLAIN, TABLES).await;
    let filters = life.dir.path().join("filters.ini");
    std::fs::write(
        &filters,
        "[exclude-schema]\naside\n[exclude-index]\npublic.kept_v\n[exclude-table]\npublic.plain\n",
    )?;
    let filters = filters.display().to_string();
    let run = life.follow_with(&["--filters", &filters, "--no-owner", "--no-acl", "--no-comments"]).await;
    let equal = life.quick(&[]).finish(&[]).await;
    assert_eq!((equal.code(), equal.stdout.as_str()), (0, ""), "{}", equal.stderr);
    let elsewhere = tempfile::tempdir()?;
    let elsewhere = elsewhere.path().display().to_string();
    let found = life.pgmig(&["verify", "--quick", "--dir", &elsewhere, "--no-acl"]).finish(&[]).await.expect_code(1);
    assert!(found.stderr.contains("holds no plan of this migration"), "{}", found.stderr);
    let expected = "\
index public.kept_v  is missing on the target
    CREATE INDEX kept_v ON public.kept USING btree (v);
schema aside  is missing on the target
table public.kept  comment:  source kept; target none
    comment on table public.kept is 'kept';
table public.plain  is missing on the target
table aside.gone  is missing on the target
view public.needs  is missing on the target
";
    let mut lines: Vec<&str> = found.stdout.lines().collect();
    let mut wanted: Vec<&str> = expected.lines().collect();
    lines.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
    life.set_endpos(life.lsn().await).await;
    life.finish(run).await;
    Ok(())
}
