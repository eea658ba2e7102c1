//! DDL of the source, told in its stream: run on the target where it stood, in the transaction of the changes
//! around it, or stopped at. Nothing is parsed. What is not plainly one statement that does the same on the
//! target is in doubt, and stops apply with the statement; `pgmig.ddl_done` says that a person has seen to it.

use serde::Deserialize;
use tokio_postgres::Client;

use super::gather::Gathered;
use super::{Apply, Writer, Written};
use crate::error::{Context, Error, Exit, Result};
use crate::model::column::is_constant;
use crate::model::name::literal;
use crate::model::{Column, Lsn, TableName};
use crate::stream::spool::Position;
use crate::target::{columns, keys};

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Apply,
    Stop,
    /// Nothing is told; what is in the stream is passed over.
    Off,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Apply => "apply",
            Mode::Stop => "stop",
            Mode::Off => "off",
        }
    }
    pub fn parse(text: &str) -> Option<Mode> {
        [Mode::Apply, Mode::Stop, Mode::Off].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// As `sql/source/ddl.sql` tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct Ddl {
    /// Where the source was then: tells it from any other.
    pub at: Lsn,
    tag: String,
    statement: String,
    on: Vec<On>,
    settings: Settings,
}

/// A table that was altered, or an index that was dropped.
#[derive(Debug, Clone, Deserialize)]
struct On {
    schema: String,
    name: String,
    #[serde(default)]
    computed: Vec<Computed>,
}

/// A column that has a default, or, without one, is an identity.
#[derive(Debug, Clone, Deserialize)]
struct Computed {
    column: String,
    default: Option<String>,
}

/// Settings of its session that a statement may depend on.
#[derive(Debug, Clone, Deserialize)]
struct Settings {
    search_path: Option<String>,
    timezone: String,
    datestyle: String,
    intervalstyle: String,
    lc_monetary: String,
}

impl Ddl {
    pub fn read(text: &[u8]) -> Result<Ddl> {
        serde_json::from_slice(text).during(Exit::Source, || "read the DDL in the stream".into())
    }

    /// Tables that it altered; of a dropped index the table is not told.
    pub fn tables(&self) -> Option<Vec<TableName>> {
        (self.tag != "DROP INDEX")
            .then(|| self.on.iter().map(|on| TableName::new(on.schema.as_str(), on.name.as_str())).collect())
    }

    fn indexes(&self) -> Vec<String> {
        self.on.iter().map(|on| TableName::new(on.schema.as_str(), on.name.as_str()).sql()).collect()
    }

    /// The statement without what ends it.
    fn one(&self) -> &str {
        self.statement.trim_end().trim_end_matches(';').trim()
    }

    /// Why it is not sure to do the same on the target, if it is not. `columns` are those of a table there.
    fn doubt(&self, columns: impl Fn(&TableName) -> Vec<Column>) -> Option<String> {
        let text = self.one();
        let words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let has = |word: &str| words.iter().any(|found| found == word);
        let mut begins: Vec<&String> = words.iter().take(3).collect();
        begins.retain(|word| *word != "unique");
        let tag: Vec<String> = self.tag.split(' ').map(str::to_lowercase).collect();
        if !text.starts_with(char::is_alphabetic) || begins.len() < 2 || *begins[0] != tag[0] || *begins[1] != tag[1] {
            return Some("it was run by another statement: a function, DO, or one with a comment before it".into());
        }
        if text.contains(';') {
            return Some("it may be one of several statements that were sent together".into());
        }
        if has("concurrently") {
            return Some("CONCURRENTLY cannot be run in a transaction".into());
        }
        if self.tag != "ALTER TABLE" {
            return None;
        }
        let told = ["attach", "detach", "inherit", "security", "trigger", "rule", "logged", "unlogged", "tablespace"];
        if let Some(word) = told.into_iter().find(|word| has(word)) {
            return Some(format!("it may disturb apply, or change which rows are followed ({})", word.to_uppercase()));
        }
        if words.windows(2).any(|two| two == ["rename", "to"] || two == ["set", "schema"]) {
            return Some("the table gets another name".into());
        }
        let moment = [
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
        if let Some((_, using)) = text.to_lowercase().split_once("using") {
            let volatile = |word: &str| moment.contains(&word);
            if using.contains('(') || using.split(|c: char| !c.is_alphanumeric() && c != '_').any(volatile) {
                return Some("USING may compute other values on the target".into());
            }
        }
        if has("rename") || !has("add") {
            return None;
        }
        self.on.iter().find_map(|on| {
            let there = columns(&TableName::new(on.schema.as_str(), on.name.as_str()));
            let new = on.computed.iter().filter(|new| !there.iter().any(|column| column.name == new.column));
            let computed = new.into_iter().find(|new| !new.default.as_deref().is_some_and(is_constant));
            computed.map(|new| {
                format!("the values that the source has computed for column {} are not in the stream", new.column)
            })
        })
    }

    /// What a person runs on the target.
    fn by_hand(&self) -> String {
        let path = self.settings.search_path.as_deref().filter(|path| !path.is_empty());
        let path = path.map_or(String::new(), |path| format!("set search_path = {path};\n"));
        format!("{path}{};\nreset search_path;\nselect pgmig.ddl_done();", self.one())
    }
}

impl<W: Writer> Apply<W> {
    /// Runs DDL in the open transaction, or ends with it.
    pub(super) async fn ddl(&mut self, ddl: &Ddl, from: Position) -> Result<Written> {
        if !self.open_pieces(from).await? {
            return Ok(Ok(()));
        }
        let migration = self.deciding.migration.clone();
        if is_done(&self.client, &migration, ddl.at).await? || !self.concerns(ddl).await? {
            return Ok(Ok(()));
        }
        let mut doubt = match ddl.tables() {
            Some(tables) => {
                let found = columns::columns(&self.client, &tables).await?;
                ddl.doubt(|table| found.get(table).cloned().unwrap_or_default())
            }
            None => ddl.doubt(|_| Vec::new()),
        };
        if self.gatherer.ddl == Mode::Stop {
            doubt = Some("--ddl=stop".into());
        }
        let failed = match doubt {
            Some(why) => Error::new(Exit::Differ, format!("DDL on the source is left to you: {why}")),
            None => match self.execute(ddl).await {
                Ok(()) => {
                    tell(&self.client, &migration, ddl, "applied").await?;
                    self.forget().await?;
                    self.altered = true;
                    tracing::info!(tag = ddl.tag, at = %ddl.at, "DDL of the source applied");
                    return Ok(Ok(()));
                }
                Err(err) if err.connection_lost() => return Err(err),
                Err(err) => Error::new(Exit::Differ, "DDL of the source fails on the target").cause(err),
            },
        };
        self.rollback().await?;
        tell(&self.client, &migration, ddl, "pending").await?;
        Err(failed
            .hint(format!("see to it on the target, then run again, and apply goes on behind it:\n{}", ddl.by_hand())))
    }

    /// Whether an index that is dropped is one of a table of the migration.
    async fn concerns(&self, ddl: &Ddl) -> Result<bool> {
        if ddl.tables().is_some() {
            return Ok(true);
        }
        let row = self
            .client
            .query_one(
                "select exists (select from unnest($1::text[]) n
                                       join pg_catalog.pg_index i on i.indexrelid = pg_catalog.to_regclass(n)
                                       join pg_catalog.pg_class c on c.oid = i.indrelid
                                       join pg_catalog.pg_namespace s on s.oid = c.relnamespace
                                 where exists (select from pgmig.part p
                                                where p.migration = $2 and p.schema_name = s.nspname and p.table_name = c.relname)
                                    or c.relkind = 'p')",
                &[&ddl.indexes(), &self.deciding.migration],
            )
            .await
            .on_target(|| "look for an index that the source has dropped".into())?;
        Ok(row.get(0))
    }

    async fn execute(&self, ddl: &Ddl) -> Result<()> {
        let doing = || format!("run {} of the source", ddl.tag);
        let Settings { search_path, timezone, datestyle, intervalstyle, lc_monetary } = &ddl.settings;
        let path = search_path.as_deref().filter(|path| !path.is_empty()).unwrap_or("''");
        let set = format!(
            "set local search_path = {path}; set local timezone = {}; set local datestyle = {}; set local intervalstyle = {}; set local lc_monetary = {}",
            literal(timezone),
            literal(datestyle),
            literal(intervalstyle),
            literal(lc_monetary)
        );
        self.client.batch_execute(&set).await.on_target(doing)?;
        self.client.batch_execute(ddl.one()).await.on_target(doing)?;
        let back = "set local search_path = ''; set local timezone = 'UTC'; set local datestyle = 'ISO'; \
                    set local intervalstyle = 'postgres'; set local lc_monetary = 'C'";
        self.client.batch_execute(back).await.on_target(doing)
    }

    /// Looks at the target's tables anew.
    pub(super) async fn forget(&mut self) -> Result<()> {
        self.writer.forget();
        self.gatherer.forget();
        self.merger.renew(keys::unique_keys(&self.client).await?);
        Ok(())
    }
}

impl super::Gatherer {
    /// The DDL of a message, if it is about a table of the migration whose copy does not show it. Err: a copy
    /// of one is under way.
    pub(super) fn wanted_ddl(&self, text: &[u8]) -> Result<std::result::Result<Option<Ddl>, Gathered>> {
        if self.ddl == Mode::Off {
            return Ok(Ok(None));
        }
        let ddl = Ddl::read(text)?;
        let wanted: Vec<_> = match ddl.tables() {
            Some(tables) => tables.iter().filter_map(|table| self.wanted_now(table)).collect(),
            None => return Ok(Ok(Some(ddl))),
        };
        use super::tags::Wanted;
        if wanted.iter().any(|wanted| matches!(wanted, Wanted::Later)) {
            return Ok(Err(Gathered::Later));
        }
        let is_wanted = wanted.iter().any(|wanted| matches!(wanted, Wanted::All | Wanted::ByKey));
        Ok(Ok(is_wanted.then_some(ddl)))
    }
}

async fn is_done(client: &Client, migration: &str, at: Lsn) -> Result<bool> {
    let row = client
        .query_opt("select from pgmig.ddl where migration = $1 and at = $2 and state = 'done'", &[&migration, &at])
        .await
        .on_target(|| "look what became of DDL".into())?;
    Ok(row.is_some())
}

/// Records it; what is pending waits for a person.
async fn tell(client: &Client, migration: &str, ddl: &Ddl, state: &str) -> Result<()> {
    client
        .execute(
            "insert into pgmig.ddl (migration, at, tag, statement, state) values ($1, $2, $3, $4, $5)
             on conflict (migration, at) do update set state = excluded.state",
            &[&migration, &ddl.at, &ddl.tag, &ddl.one(), &state],
        )
        .await
        .on_target(|| "record DDL of the source".into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ddl(tag: &str, statement: &str) -> Ddl {
        let on = On {
            schema: "s".into(),
            name: "t".into(),
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
            timezone: "UTC".into(),
            datestyle: "ISO".into(),
            intervalstyle: "postgres".into(),
            lc_monetary: "C".into(),
        };
        Ddl { at: Lsn(1), tag: tag.into(), statement: statement.into(), on: vec![on], settings }
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
        for statement in [
            "alter table t add column c text default 'it''s';",
            "ALTER TABLE s.t ADD n int DEFAULT -1",
            "alter table t alter column old type text",
            "alter table t alter column old type date using old::date",
            "alter table t alter column old set default now()",
            "alter table t drop column old cascade",
            "alter table t rename column old to new",
        ] {
            assert_eq!(doubt("ALTER TABLE", statement), None, "{statement}");
        }
        assert_eq!(doubt("CREATE INDEX", "create unique index i on t (lower(old))"), None);
        assert_eq!(doubt("DROP INDEX", "drop index i"), None);
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
        ] {
            assert!(doubt(tag, statement).is_some(), "{statement}");
        }
    }
}
