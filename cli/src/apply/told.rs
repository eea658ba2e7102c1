//! DDL as the source tells it (`sql/source/ddl.sql`), and whether it is sure to do the same on the target.
//! Nothing is parsed: what is not plainly one statement that does the same there is in doubt.

use serde::Deserialize;

use crate::error::{Context, Exit, Result};
use crate::model::column::is_constant;
use crate::model::{Column, Lsn, TableName};

#[derive(Debug, Clone, Deserialize)]
pub struct Ddl {
    /// Where the source was then: tells it from any other.
    pub at: Lsn,
    pub tag: String,
    statement: String,
    /// Whose rights it was run with on the source.
    pub role: String,
    /// Whether that role owned the tables.
    #[serde(default)]
    owned: Option<bool>,
    /// CREATE INDEX in full, as the server prints it.
    #[serde(default)]
    definition: Option<String>,
    /// Tables that it is about, with all their partitions.
    on: Vec<On>,
    #[serde(default)]
    pub dropped: Vec<Dropped>,
    /// What it is about, if that is no table.
    #[serde(default)]
    others: Vec<String>,
    pub settings: Settings,
}

#[derive(Debug, Clone, Deserialize)]
struct On {
    schema: String,
    name: String,
    /// None: it is dropped.
    #[serde(default)]
    oid: Option<u32>,
    /// `r`, or `p` if it is partitioned itself.
    #[serde(default)]
    kind: Option<String>,
    /// The table that it is a partition of.
    #[serde(default)]
    under: Option<Under>,
    /// Its rows, as the server prints it.
    #[serde(default)]
    bound: Option<String>,
    #[serde(default)]
    owner: Option<String>,
    /// What its owner does not have by itself.
    #[serde(default)]
    grants: Vec<Grant>,
    /// What else was done to it by then, by other event triggers.
    #[serde(default)]
    more: Vec<String>,
    /// All that is done to it from there on is in the stream.
    #[serde(default)]
    followed: bool,
    #[serde(default)]
    computed: Vec<Computed>,
}

#[derive(Debug, Clone, Deserialize)]
struct Under {
    schema: String,
    name: String,
}

/// A privilege that default privileges gave.
#[derive(Debug, Clone, Deserialize)]
pub struct Grant {
    /// None: PUBLIC.
    pub role: Option<String>,
    /// As GRANT has it.
    pub privilege: String,
    pub grantable: bool,
}

/// A partition that is made.
pub struct Made {
    pub table: TableName,
    /// On the source.
    pub oid: u32,
    pub under: TableName,
    pub bound: String,
    pub owner: Option<String>,
    pub grants: Vec<Grant>,
    /// What it has on the source and its statement does not give it.
    pub more: Vec<String>,
    /// It has partitions and no rows of its own.
    pub has_partitions: bool,
}

impl On {
    fn table(&self) -> TableName {
        TableName::new(self.schema.as_str(), self.name.as_str())
    }
}

/// An index or statistics object: of which table the source cannot say any more.
#[derive(Debug, Clone, Deserialize)]
pub struct Dropped {
    pub kind: String,
    schema: String,
    name: String,
}

impl Dropped {
    pub fn name(&self) -> TableName {
        TableName::new(self.schema.as_str(), self.name.as_str())
    }
}

/// A column that has a default, or, without one, is an identity.
#[derive(Debug, Clone, Deserialize)]
struct Computed {
    column: String,
    default: Option<String>,
}

/// Settings of its session that a statement may depend on.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    pub search_path: Option<String>,
    /// standard_conforming_strings.
    pub strings: String,
    pub timezone: String,
    pub datestyle: String,
    pub intervalstyle: String,
    pub lc_monetary: String,
}

/// Drops of one object that a table has. Others reach tables by CASCADE.
const DROPS: [&str; 6] = ["DROP TABLE", "DROP INDEX", "DROP TRIGGER", "DROP RULE", "DROP POLICY", "DROP STATISTICS"];
/// Words that stand between those of a tag.
const BETWEEN: [&str; 4] = ["unique", "or", "replace", "constraint"];
/// Of ALTER TABLE: what may disturb apply, or change which rows are followed.
const DISTURBS: [&str; 9] =
    ["attach", "detach", "inherit", "security", "trigger", "rule", "logged", "unlogged", "tablespace"];
/// Why a table that is renamed is left to a person.
pub const ANOTHER_NAME: &str = "the table gets another name";
/// What gives another value at another time.
const MOMENT: [&str; 13] = [
    "now",
    "random",
    "nextval",
    "current_user",
    "session_user",
    "user",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "clock_timestamp",
    "gen_random_uuid",
];

impl Ddl {
    /// None if it does not have the key.
    pub fn read(text: &[u8], key: Option<&str>) -> Result<Option<Ddl>> {
        #[derive(Deserialize)]
        struct Keyed {
            key: String,
        }
        match serde_json::from_slice::<Keyed>(text) {
            Ok(keyed) if Some(keyed.key.as_str()) == key => {}
            _ => return Ok(None),
        }
        serde_json::from_slice(text).during(Exit::Source, || "read the DDL in the stream".into()).map(Some)
    }

    /// Tables that it is about, by their names after it.
    pub fn tables(&self) -> Vec<TableName> {
        self.on.iter().map(On::table).collect()
    }

    /// Each of them with its oid, unless it is dropped.
    pub fn by_oid(&self) -> impl Iterator<Item = (TableName, Option<u32>)> {
        self.on.iter().map(|on| (on.table(), on.oid))
    }

    /// Whether it makes something that the migration cannot hold yet, or is about no table at all.
    pub fn is_new(&self) -> bool {
        !self.others.is_empty() || self.makes_tables()
    }

    pub fn makes_tables(&self) -> bool {
        ["CREATE TABLE", "CREATE TABLE AS", "SELECT INTO"].contains(&self.tag.as_str())
    }

    /// The partition that CREATE TABLE makes, if the stream has all of its rows.
    pub fn makes_partition(&self) -> Option<Made> {
        let [on] = &self.on[..] else { return None };
        let (oid, under, bound) = (on.oid?, on.under.as_ref()?, on.bound.clone()?);
        let has_partitions = on.kind.as_deref() == Some("p");
        (self.tag == "CREATE TABLE" && (on.followed || has_partitions)).then(|| Made {
            table: on.table(),
            oid,
            under: TableName::new(under.schema.as_str(), under.name.as_str()),
            bound,
            owner: on.owner.clone(),
            grants: on.grants.clone(),
            more: on.more.clone(),
            has_partitions,
        })
    }

    pub fn drops_tables(&self) -> bool {
        self.tag == "DROP TABLE"
    }

    /// What it is about, for people.
    pub fn about(&self) -> String {
        let tables: Vec<String> = self.on.iter().map(|on| on.table().to_string()).collect();
        if tables.is_empty() { self.others.join(", ") } else { tables.join(", ") }
    }

    /// The statement without what ends it.
    pub fn one(&self) -> &str {
        self.statement.trim_end().trim_end_matches(';').trim()
    }

    fn words(&self) -> Vec<String> {
        let words = self.one().split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    }

    /// Whether a table gets another name.
    pub fn renames(&self) -> bool {
        self.tag == "ALTER TABLE"
            && self.words().windows(2).any(|two| two == ["rename", "to"] || two == ["set", "schema"])
    }

    /// Whether a table gets a partition, or lets go of one.
    pub fn attaches(&self) -> bool {
        self.tag == "ALTER TABLE"
            && self.words().windows(2).any(|two| two == ["attach", "partition"] || two == ["detach", "partition"])
    }

    /// Why it may mean something else, or more, where pgmig runs it.
    fn role_matters(&self) -> Option<String> {
        let words = self.words();
        let own = |word: &&String| ["current_user", "session_user", "current_role"].contains(&word.as_str());
        let lists = ["to", "from", "by"].map(|to| {
            let list = words.iter().skip_while(move |word| *word != to).skip(1);
            // Of a policy its conditions come then.
            list.take_while(|word| !["using", "with"].contains(&word.as_str())).any(|word| own(&word))
        });
        let tags = ["GRANT", "REVOKE", "ALTER TABLE", "CREATE POLICY", "ALTER POLICY"];
        if lists.contains(&true) && tags.contains(&self.tag.as_str()) {
            return Some(format!("it names the role that ran it, which was {}", self.role));
        }
        if ["GRANT", "REVOKE"].contains(&self.tag.as_str()) && self.owned != Some(true) {
            return Some(format!("{}, who ran it, does not own the table, and may have got a warning only", self.role));
        }
        None
    }

    pub fn changes_owner(&self) -> bool {
        self.words().windows(2).any(|two| two == ["owner", "to"])
    }

    /// What is run on the target: an index is built and dropped there in the transaction of the changes, since
    /// CONCURRENTLY cannot be in one.
    pub fn to_run(&self) -> String {
        match (&self.definition, self.tag.as_str(), &self.dropped[..]) {
            _ if !self.words().iter().any(|word| word == "concurrently") => self.one().to_string(),
            (Some(definition), "CREATE INDEX", _) => definition.clone(),
            (_, "DROP INDEX", [index]) => format!("drop index {}", index.name().sql()),
            _ => self.one().to_string(),
        }
    }

    /// Why it is not sure to do the same on the target, if it is not. `columns` are those of a table there.
    pub fn doubt(&self, columns: impl Fn(&TableName) -> Vec<Column>) -> Option<String> {
        let (text, words) = (self.to_run(), self.words());
        let has = |word: &str| words.iter().any(|found| found == word);
        let tag: Vec<String> = self.tag.split(' ').map(str::to_lowercase).collect();
        let begins: Vec<&String> =
            words.iter().filter(|word| !BETWEEN.contains(&word.as_str())).take(tag.len()).collect();
        if !self.one().starts_with(char::is_alphabetic) || !begins.into_iter().eq(&tag) {
            return Some("it was run by another statement: a function, DO, or one with a comment before it".into());
        }
        // Where it may stand in a literal or a body, the server says whether it is one statement.
        if text.contains(';') && !text.contains(['\'', '"', '$']) {
            return Some("it may be one of several statements that were sent together".into());
        }
        if let Some(why) = self.role_matters() {
            return Some(why);
        }
        if self.tag.starts_with("DROP ") && !DROPS.contains(&self.tag.as_str()) {
            return Some(format!("it reaches {} by CASCADE", self.about()));
        }
        if self.tag == "ALTER TYPE" || self.tag == "ALTER DOMAIN" {
            return Some(format!("columns of {} are of that type", self.about()));
        }
        if self.tag == "CREATE INDEX" || self.tag == "DROP INDEX" {
            let left = text.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("concurrently"));
            return left.then(|| "CONCURRENTLY cannot be run in a transaction".into());
        }
        if self.tag != "ALTER TABLE" {
            return None;
        }
        if let Some(word) = DISTURBS.into_iter().find(|word| has(word)) {
            return Some(format!("it may disturb apply, or change which rows are followed ({})", word.to_uppercase()));
        }
        if self.renames() {
            return Some(ANOTHER_NAME.into());
        }
        if let Some((_, using)) = text.to_lowercase().split_once("using") {
            let volatile = |word: &str| MOMENT.contains(&word);
            if using.contains('(') || using.split(|c: char| !c.is_alphanumeric() && c != '_').any(volatile) {
                return Some("USING may compute other values on the target".into());
            }
        }
        if has("rename") || !has("add") {
            return None;
        }
        self.on.iter().find_map(|on| {
            let there = columns(&on.table());
            let new = on.computed.iter().filter(|new| !there.iter().any(|column| column.name == new.column));
            let computed = new.into_iter().find(|new| !new.default.as_deref().is_some_and(is_constant));
            computed.map(|new| {
                format!("the values that the source has computed for column {} are not in the stream", new.column)
            })
        })
    }

    /// What a person does.
    pub fn by_hand(&self) -> String {
        if self.renames() {
            return format!(
                "a migration knows its tables by their names. On the source, take it back: {}; then on the target:\nselect pgmig.ddl_done();\nthen run again",
                self.one()
            );
        }
        if self.statement.is_empty() {
            return format!(
                "a background worker of the source ran {} on {}: see to the same on the target; then there:\nselect pgmig.ddl_done();\nthen run again",
                self.tag,
                self.about()
            );
        }
        let path = self.settings.search_path.as_deref().filter(|path| !path.is_empty());
        let path = path.map_or(String::new(), |path| format!("set search_path = {path};\n"));
        format!(
            "see to it on the target, then run again, and apply goes on behind it:\n{path}{};\nreset search_path;\nselect pgmig.ddl_done();",
            self.to_run()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ddl(tag: &str, statement: &str) -> Ddl {
        let on = On {
            schema: "s".into(),
            name: "t".into(),
            oid: Some(1),
            kind: Some("r".into()),
            under: None,
            bound: None,
            owner: None,
            grants: Vec::new(),
            more: Vec::new(),
            followed: true,
            computed: [
                ("old", "now()"),
                ("c", "'it''s'::character varying(9)"),
                ("n", "'-1'::integer"),
                ("u", "gen_random_uuid()"),
            ]
            .into_iter()
            .filter(|(column, _)| *column == "old" || statement.contains(&format!(" {column} ")))
            .map(|(column, default)| Computed { column: column.into(), default: Some(default.into()) })
            .collect(),
        };
        let settings = Settings {
            search_path: None,
            strings: "on".into(),
            timezone: "UTC".into(),
            datestyle: "ISO".into(),
            intervalstyle: "postgres".into(),
            lc_monetary: "C".into(),
        };
        Ddl {
            at: Lsn(1),
            tag: tag.into(),
            statement: statement.into(),
            role: "postgres".into(),
            owned: Some(true),
            definition: None,
            on: vec![on],
            dropped: Vec::new(),
            others: Vec::new(),
            settings,
        }
    }
    fn doubt(tag: &str, statement: &str) -> Option<String> {
        let old = Column {
            name: "old".into(),
            type_name: "timestamptz".into(),
            not_null: false,
            generated: false,
            identity: String::new(),
            default: None,
        };
        ddl(tag, statement).doubt(|_| vec![old.clone()])
    }

    #[test]
    fn one_statement_that_does_the_same_everywhere_is_applied() {
        for (tag, statement) in [
            ("ALTER TABLE", "alter table t add column c text default 'it''s';"),
            ("ALTER TABLE", "ALTER TABLE s.t ADD n int DEFAULT -1"),
            ("ALTER TABLE", "alter table t alter column old type text"),
            ("ALTER TABLE", "alter table t alter column old type date using old::date"),
            ("ALTER TABLE", "alter table t alter column old set default now()"),
            ("ALTER TABLE", "alter table t drop column old cascade"),
            ("ALTER TABLE", "alter table t rename column old to new"),
            ("ALTER TABLE", "alter table t add constraint c check (old > '2020-01-01')"),
            ("CREATE INDEX", "create unique index i on t (lower(old))"),
            ("DROP INDEX", "drop index i"),
            ("DROP TABLE", "drop table if exists t"),
            ("COMMENT", "comment on table t is 'one; two'"),
            ("GRANT", "grant select, insert (old) on t to somebody with grant option"),
            ("REVOKE", "revoke all on all tables in schema s from somebody"),
            ("CREATE TRIGGER", "create or replace trigger a before insert on t for each row execute function f()"),
            ("CREATE TRIGGER", "create constraint trigger a after insert on t for each row execute function f()"),
            ("CREATE RULE", "create or replace rule r as on insert to t do also notify x"),
            ("CREATE POLICY", "create policy p on t using (true)"),
            ("CREATE POLICY", "create policy p on t to somebody using (old = current_user)"),
            ("COMMENT", "comment on table t is 'made by its current_user'"),
        ] {
            assert_eq!(doubt(tag, statement), None, "{statement}");
        }
    }

    #[test]
    fn what_may_do_something_else_is_left_to_people() {
        for (tag, statement) in [
            ("ALTER TABLE", "select alters()"),
            ("ALTER TABLE", "do $$ begin alter table t add x int; end $$"),
            ("ALTER TABLE", "alter table t add x int; insert into t values (1)"),
            ("ALTER TABLE", "/* x */ alter table t add x int"),
            ("ALTER TABLE", "alter table t add column u uuid default gen_random_uuid()"),
            ("ALTER TABLE", "alter table t alter old type text using f(old)"),
            ("ALTER TABLE", "alter table t alter old type timestamptz using current_timestamp"),
            ("ALTER TABLE", "alter table t rename to u"),
            ("ALTER TABLE", "alter table t attach partition p default"),
            ("ALTER TABLE", "alter table t enable row level security"),
            ("CREATE INDEX", "create index concurrently i on t (old)"),
            ("CREATE INDEX", "alter table t add primary key (old)"),
            ("ALTER TYPE", "alter type mood add value 'new'"),
            ("DROP OWNED", "drop owned by somebody"),
            ("DROP TYPE", "drop type mood cascade"),
            ("GRANT", "alter table t add x int; grant select on t to somebody"),
            ("GRANT", "grant select on t to somebody, current_user"),
            ("REVOKE", "revoke select on t from session_user"),
            ("GRANT", "grant select on t to somebody with grant option granted by current_role"),
            ("ALTER TABLE", "alter table t owner to current_user"),
            ("CREATE POLICY", "create policy p on t to somebody, current_user using (true)"),
        ] {
            assert!(doubt(tag, statement).is_some(), "{statement}");
        }
    }

    #[test]
    fn an_index_that_is_built_beside_writes_is_built_between_them_on_the_target() {
        let mut told = ddl("CREATE INDEX", "create index concurrently \"I\" on t (old)");
        told.definition = Some("CREATE INDEX \"I\" ON s.t USING btree (old)".into());
        assert_eq!((told.to_run(), told.doubt(|_| Vec::new())), (told.definition.clone().unwrap_or_default(), None));
        let mut told = ddl("DROP INDEX", "drop index concurrently if exists \"I\"");
        told.dropped = vec![Dropped { kind: "index".into(), schema: "s".into(), name: "I".into() }];
        assert_eq!((told.to_run().as_str(), told.doubt(|_| Vec::new())), ("drop index \"s\".\"I\"", None));
    }
}
