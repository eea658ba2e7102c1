//! Sorts the entries of the dump into steps: what is made when. Pure.

pub mod special;

use std::collections::{HashMap, HashSet};

use crate::config::requirements::Requirements;
use crate::model::name::identifier;
use crate::model::{TableName, name};
use crate::source::catalog::{ObjectFacts, Objects, Table};
use crate::source::dump::{Entry, Section};
use crate::source::script::first_statement;
use crate::target::objects::refresh_statement;
use crate::target::queue::Step;

/// What a failure of these does not stop: the data are right without them. They are listed at the end.
const NOT_BLOCKING: [&str; 11] = [
    "COMMENT",
    "ACL",
    "DEFAULT ACL",
    "SECURITY LABEL",
    "EVENT TRIGGER",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "PROCEDURAL LANGUAGE",
    "STATISTICS",
    "SUBSCRIPTION",
];

/// What the steps of the schema are made from.
#[derive(Default)]
pub struct Schema<'a> {
    pub pre: &'a [Entry],
    pub post: &'a [Entry],
    pub objects: Option<&'a Objects>,
    pub tables: &'a [Table],
    /// Tables with partitions or heirs: their statistics are of all of them.
    pub parents: &'a [TableName],
    /// Materialized views that hold rows.
    pub populated: &'a [TableName],
    pub requirements: Option<&'a Requirements>,
    /// Name of the target database.
    pub database: &'a str,
    /// Whether statistics are made.
    pub analyze: bool,
}

fn step(stage: &str, kind: &str, table: Option<TableName>, name: &str, statement: String, blocking: bool) -> Step {
    let (stage, kind, name) = (stage.into(), kind.into(), name.into());
    Step { id: 0, stage, kind, table, name, statement, blocking }
}

fn analyze(stage: &str, table: &TableName) -> Step {
    step(stage, "ANALYZE", Some(table.clone()), &table.to_string(), format!("analyze {}", table.sql()), false)
}

fn is_view(entry: &&Entry) -> bool {
    matches!(entry.kind.as_str(), "VIEW" | "MATERIALIZED VIEW")
}

fn relation(entry: &Entry) -> TableName {
    TableName::new(entry.schema.clone().unwrap_or_default(), entry.tag.clone())
}

/// A name as the dump's table of contents has it: without line breaks.
fn printed(name: &TableName) -> TableName {
    let print = |part: &str| part.replace(['\n', '\r'], " ");
    TableName::new(print(&name.schema), print(&name.table))
}

/// Whether it speaks of the database itself.
fn of_database(entry: &Entry) -> bool {
    entry.kind.starts_with("DATABASE")
        || (matches!(entry.kind.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL") && entry.tag.starts_with("DATABASE "))
}

/// The steps of a migration in their order.
pub fn steps(schema: &Schema<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    add(schema, &mut steps);
    steps
}

/// Adds them behind others.
pub fn add(schema: &Schema<'_>, steps: &mut Vec<Step>) {
    let from = steps.len();
    // Views that need a primary key are made after it, and their indexes after them.
    let late: HashSet<TableName> = schema.post.iter().filter(is_view).map(relation).collect();
    let pre = schema.pre.iter().map(|entry| (Section::PreData, entry));
    for (section, entry) in pre.chain(schema.post.iter().map(|entry| (Section::PostData, entry))) {
        match entry.kind.as_str() {
            _ if of_database(entry) => {}
            "EXTENSION" => {
                let statement = special::extension(entry, schema.requirements);
                steps.push(step("schema", "EXTENSION", None, &entry.tag, statement, true));
            }
            "USER MAPPING" => steps.extend(special::user_mapping(entry)),
            "SUBSCRIPTION" => steps.push(special::subscription(entry)),
            _ => {
                let facts = schema.objects.and_then(|objects| objects.get(&(entry.catalog, entry.oid)));
                let before = steps.len();
                entry_steps(section, entry, facts, steps);
                for step in &mut steps[before..] {
                    if step.table.as_ref().is_some_and(|table| late.contains(&printed(table))) {
                        step.stage = "rest".into();
                    }
                }
            }
        }
    }
    grant_schemas_first(steps, from);
    if schema.analyze {
        let parents: HashSet<&TableName> = schema.parents.iter().collect();
        let others = schema.tables.iter().map(|table| &table.name).filter(|name| !parents.contains(name));
        steps.extend(others.map(|table| analyze("analyze", table)));
        // With those below them, once all of them are filled.
        steps.extend(schema.parents.iter().map(|table| analyze("rest", table)));
    }
    // In the order of the dump a view comes after those it reads.
    let populated: HashMap<TableName, &TableName> = schema.populated.iter().map(|view| (printed(view), view)).collect();
    for entry in schema.pre.iter().chain(schema.post).filter(|entry| entry.kind == "MATERIALIZED VIEW") {
        if let Some(view) = populated.get(&relation(entry)) {
            let mut statement = refresh_statement(view);
            if schema.analyze {
                statement.push_str(&format!(";\nanalyze {}", view.sql()));
            }
            steps.push(step("refresh", "MATERIALIZED VIEW DATA", None, &view.to_string(), statement, false));
        }
    }
    // Last, so that nothing that is set here is in force before.
    for entry in schema.pre.iter().filter(|entry| of_database(entry) && entry.kind != "DATABASE") {
        steps.extend(special::database(entry, schema.database));
    }
}

/// Who is given an object needs CREATE on its schema, where no superuser gives it. What takes privileges away
/// waits until all is made. Of the steps behind the first `from`.
fn grant_schemas_first(steps: &mut Vec<Step>, from: usize) {
    let grants =
        |step: &mut Step| step.kind == "ACL" && step.name.starts_with("SCHEMA ") && !step.statement.contains("REVOKE ");
    let first: Vec<Step> = steps.extract_if(from.., grants).collect();
    let at = steps[from..].iter().rposition(|step| step.kind == "SCHEMA").map_or(from, |at| from + at + 1);
    steps.splice(at..at, first);
}

/// SQL may not update a GENERATED ALWAYS identity column, and the plain flavour writes with SQL: such
/// columns are BY DEFAULT until the last change is there.
pub fn relax_identity(columns: &[(TableName, String)]) -> Vec<Step> {
    let step = |stage: &str, table: &TableName, column: &str, generated: &str| Step {
        id: 0,
        stage: stage.into(),
        kind: "IDENTITY".into(),
        table: None,
        name: format!("{table} {}", identifier(column)),
        statement: format!("alter table {} alter column {} set generated {generated}", table.sql(), identifier(column)),
        blocking: true,
    };
    let relax = columns.iter().map(|(table, column)| step("rest", table, column, "by default"));
    relax.chain(columns.iter().map(|(table, column)| step("finish", table, column, "always"))).collect()
}

/// Entries that are pgmig's own, or that say nothing.
pub fn ours(entry: &Entry) -> bool {
    (entry.kind == "EVENT TRIGGER" && entry.tag.starts_with("pgmig_"))
        || (entry.kind.starts_with("PUBLICATION") && entry.tag.starts_with("pgmig_"))
        || (entry.tag.starts_with("PUBLICATION pgmig_") && entry.kind == "COMMENT")
        || (matches!(entry.kind.as_str(), "EXTENSION" | "COMMENT") && entry.tag.ends_with("pgmig_sentinel"))
        || entry.sql.is_empty()
}

fn entry_steps(section: Section, entry: &Entry, facts: Option<&ObjectFacts>, steps: &mut Vec<Step>) {
    let table = facts.and_then(|facts| facts.table.clone());
    let fact = facts.map_or("", |facts| facts.kind.as_str());
    let name = match &entry.schema {
        Some(schema) => format!("{schema}.{}", entry.tag),
        None => entry.tag.clone(),
    };
    let mut step = |stage: &str, kind: &str, table: Option<TableName>, statement: String, blocking: bool| {
        let (stage, kind) = (stage.to_string(), kind.to_string());
        let statement = format!("{}{}", entry.settings, statement.trim_start());
        steps.push(Step { id: 0, stage, kind, table, name: name.clone(), statement, blocking });
    };
    let kind = entry.kind.as_str();
    let sql = entry.sql.clone();
    let blocking = !NOT_BLOCKING.contains(&kind);
    if kind == "SCHEMA" {
        // The target may have it; that of `public` says only whose it is.
        let sql = sql.replacen("CREATE SCHEMA ", "CREATE SCHEMA IF NOT EXISTS ", 1);
        return step("schema", kind, None, sql, entry.tag != "public");
    }
    if section == Section::PreData {
        return step("schema", kind, None, sql, blocking);
    }
    match (kind, fact) {
        ("INDEX", _) => step("index", kind, table, sql, true),
        ("INDEX ATTACH", _) => step("attach", kind, None, sql, true),
        ("CONSTRAINT", "p" | "u") => {
            let definition = facts.and_then(|facts| Some((facts.index_definition.clone()?, facts.index_name.clone()?)));
            match (definition, &table) {
                // Built as an index, several of a table at once, then attached in no time.
                (Some((definition, index)), Some(of)) if definition.contains(" USING btree ") => {
                    let (first, rest) = first_statement(&sql);
                    let attach = attach_constraint(of, &index, fact == "p", first);
                    step("index", "INDEX", table.clone(), definition, true);
                    step("constraint", kind, table, format!("{attach}\n{rest}"), true);
                }
                _ => step("constraint", kind, table, sql, true),
            }
        }
        // Of a domain, not valid on the source: rows that break it change there all the same, and apply reads
        // their values anew.
        ("CHECK CONSTRAINT", _) if facts.is_none() => step("finish", kind, None, sql, true),
        ("CONSTRAINT" | "CHECK CONSTRAINT" | "STATISTICS", _) => step("constraint", kind, table, sql, blocking),
        ("FK CONSTRAINT", "not valid" | "partitioned") => step("foreign_key", kind, table, sql, false),
        ("FK CONSTRAINT", _) => {
            let (first, rest) = first_statement(&sql);
            let first = first.trim_end().trim_end_matches(';');
            // The tag is "table constraint"; the table's name is known, the rest is the constraint.
            let constraint = table.as_ref().and_then(|table| entry.tag.strip_prefix(&format!("{} ", table.table)));
            // Not so where it has a line break.
            let named = |name: &&str| {
                [*name, &identifier(name)].iter().any(|name| first.contains(&format!(" ADD CONSTRAINT {name} ")))
            };
            let constraint = constraint.filter(named);
            match (&table, constraint) {
                // Rows that it refers to are left out.
                _ if fact == "unchecked" => {
                    step("foreign_key", kind, table, format!("{first} NOT VALID;\n{rest}"), false)
                }
                (Some(of), Some(constraint)) => {
                    let validate = format!("alter table {} validate constraint {}", of.sql(), identifier(constraint));
                    step("foreign_key", kind, table.clone(), format!("{first} NOT VALID;\n{rest}"), false);
                    step("validate", kind, table, validate, false);
                }
                _ => step("foreign_key", kind, table, sql, false),
            }
        }
        // It would fire for what is made after it.
        ("EVENT TRIGGER", _) => step("finish", kind, None, sql, blocking),
        ("TRIGGER" | "RULE", "fires") => step("finish", kind, None, sql, blocking),
        // Apply may not write past row security or publications of the target's own.
        ("ROW SECURITY", _) => step("finish", kind, None, sql, true),
        ("PUBLICATION" | "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA", _) => {
            step("finish", kind, None, sql, false);
        }
        ("COMMENT" | "SECURITY LABEL", _)
            if ["EVENT TRIGGER ", "PUBLICATION ", "TRIGGER ", "RULE "].iter().any(|of| entry.tag.starts_with(of)) =>
        {
            step("finish", kind, None, sql, false);
        }
        // A foreign key is made later than its comment comes in the dump.
        ("COMMENT", _) if entry.tag.starts_with("CONSTRAINT ") => step("finish", kind, None, sql, false),
        _ => step("rest", kind, None, sql, blocking),
    }
}

/// `alter table … add constraint … using index …`, with what pg_dump says of deferring it.
fn attach_constraint(table: &TableName, index: &str, primary: bool, first: &str) -> String {
    let kind = if primary { "primary key" } else { "unique" };
    let first = first.trim_end().trim_end_matches(';');
    let deferred = if first.ends_with(" DEFERRABLE INITIALLY DEFERRED") {
        " deferrable initially deferred"
    } else if first.ends_with(" DEFERRABLE") {
        " deferrable"
    } else {
        ""
    };
    let index = identifier(index);
    format!(
        "alter table only {} add constraint {index} {kind} using index {index}{deferred};",
        name::TableName::sql(table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, tag: &str, sql: &str) -> Entry {
        let schema = Some("public".to_string());
        Entry {
            id: 1,
            catalog: 1,
            oid: 2,
            kind: kind.into(),
            schema,
            tag: tag.into(),
            needs: Vec::new(),
            sql: sql.into(),
            settings: String::new(),
        }
    }
    fn facts(kind: &str) -> Objects {
        let facts = ObjectFacts {
            table: Some(TableName::new("public", "t")),
            kind: kind.into(),
            index_definition: Some("CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id)".into()),
            index_name: Some("t_pkey".into()),
        };
        [((1, 2), facts)].into()
    }
    fn stages(entry: Entry, kind: &str) -> Vec<(String, String)> {
        let (facts, post) = (facts(kind), [entry]);
        let steps = steps(&Schema { post: &post, objects: Some(&facts), analyze: true, ..Schema::default() });
        steps.into_iter().map(|step| (step.stage, step.statement)).collect()
    }

    #[test]
    fn a_primary_key_is_an_index_first_and_keeps_what_follows_it() {
        let sql = "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id) DEFERRABLE;\n\nALTER TABLE public.t CLUSTER ON t_pkey;";
        let made = stages(entry("CONSTRAINT", "t t_pkey", sql), "p");
        assert_eq!(made[0], ("index".into(), "CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id)".into()));
        assert_eq!(made[1].0, "constraint");
        assert!(
            made[1].1.starts_with(
                r#"alter table only "public"."t" add constraint "t_pkey" primary key using index "t_pkey" deferrable;"#
            ),
            "{}",
            made[1].1
        );
        assert!(made[1].1.ends_with("CLUSTER ON t_pkey;"));
    }

    #[test]
    fn a_foreign_key_is_added_not_valid_and_validated_later() {
        let sql = "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"odd;name\" FOREIGN KEY (a) REFERENCES public.u(id);";
        let made = stages(entry("FK CONSTRAINT", "t odd;name", sql), "x");
        assert_eq!(made[0].0, "foreign_key");
        assert!(made[0].1.contains("REFERENCES public.u(id) NOT VALID;"), "{}", made[0].1);
        assert_eq!(made[1], ("validate".into(), r#"alter table "public"."t" validate constraint "odd;name""#.into()));
    }

    #[test]
    fn what_would_fire_while_changes_are_applied_waits_for_the_end() {
        assert_eq!(stages(entry("TRIGGER", "t x", "create trigger"), "fires")[0].0, "finish");
        assert_eq!(stages(entry("TRIGGER", "t x", "create trigger"), "quiet")[0].0, "rest");
        assert!(ours(&entry("PUBLICATION", "pgmig_default", "create publication")));
    }
}
