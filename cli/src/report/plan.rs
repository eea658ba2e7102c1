//! What `pgmig plan` shows: a table for people, an object for machines. Pure.

use serde::Serialize;

use super::units;
use crate::model::{LeftOut, TableName, What};

/// How many names of one reason are shown.
const SHOWN: usize = 8;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub format: u32,
    /// In the order in which their first Part is taken.
    pub tables: Vec<Table>,
    pub counts: Counts,
    pub left_out: Vec<LeftOut>,
    /// Entries of the filters that match nothing.
    pub unmatched: Vec<String>,
    pub warnings: Vec<String>,
    /// What stands in the way of a run; null without a target.
    pub refused: Option<Vec<Refusal>>,
}

#[derive(Debug, Serialize)]
pub struct Table {
    #[serde(flatten)]
    pub name: TableName,
    pub bytes: u64,
    pub parts: u64,
    /// Of the COPY stream.
    pub format: &'static str,
    /// Of each Part, as SQL, where there are several.
    pub ranges: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// Of all tables; the large objects are one.
    pub parts: u64,
    pub indexes: u64,
    /// Indexes of primary keys and unique constraints are among the indexes, too.
    pub constraints: u64,
    pub foreign_keys: u64,
    pub sequences: u64,
    pub materialized_views: u64,
    pub large_objects: u64,
    /// Those that the target does not have.
    pub roles: u64,
    pub extensions: u64,
}

#[derive(Debug, Serialize)]
pub struct Refusal {
    pub message: String,
    pub hint: Option<String>,
}

/// The table, from what moves first to what stands in the way; ends with the next step.
pub fn text(plan: &Plan) -> String {
    let bytes = plan.tables.iter().map(|table| table.bytes).sum();
    let mut text =
        format!("copied, in this order: {}, {}\n", plural(plan.tables.len() as u64, "table"), units::bytes(bytes));
    let width = plan.tables.iter().map(|table| table.name.to_string().chars().count()).max().unwrap_or(0).max(5);
    if !plan.tables.is_empty() {
        text.push_str(&format!("  {:<width$}  {:>10}  {:>5}  format\n", "table", "size", "Parts"));
    }
    for table in &plan.tables {
        let (name, size) = (table.name.to_string(), units::bytes(table.bytes));
        text.push_str(&format!("  {name:<width$}  {size:>10}  {:>5}  {}\n", table.parts, table.format));
    }
    let counts = &plan.counts;
    let then = [
        (counts.roles, "role"),
        (counts.extensions, "extension"),
        (counts.large_objects, "large object"),
        (counts.indexes, "index"),
        (counts.constraints, "constraint"),
        (counts.foreign_keys, "foreign key"),
        (counts.sequences, "sequence"),
        (counts.materialized_views, "materialized view"),
    ];
    let then: Vec<String> =
        then.iter().filter(|(count, _)| *count > 0).map(|(count, what)| plural(*count, what)).collect();
    if !then.is_empty() {
        text.push_str(&format!("with them: {}\n", then.join(", ")));
    }
    left_out(plan, &mut text);
    section(&mut text, "match nothing:", &plan.unmatched);
    let unmatched = |warning: &&String| plan.unmatched.iter().any(|entry| warning.starts_with(entry.as_str()));
    let warnings: Vec<String> = plan.warnings.iter().filter(|warning| !unmatched(warning)).cloned().collect();
    section(&mut text, "to know before:", &warnings);
    match &plan.refused {
        None => text.push_str("next: give --target too, to see whether anything stands in the way; or `pgmig run`\n"),
        Some(refused) if refused.is_empty() => text.push_str("nothing stands in the way\nnext: `pgmig run`\n"),
        Some(refused) => {
            text.push_str("stands in the way:\n");
            for Refusal { message, hint } in refused {
                text.push_str(&format!("  {message}\n"));
                for line in hint.iter().flat_map(|hint| hint.lines()) {
                    text.push_str(&format!("    {line}\n"));
                }
            }
            text.push_str("next: mend that, then `pgmig plan` again\n");
        }
    }
    text
}

/// What is left out, by reason; the long lists shortened.
fn left_out(plan: &Plan, text: &mut String) {
    if plan.left_out.is_empty() {
        return;
    }
    text.push_str("left out:\n");
    let mut reasons: Vec<(What, &str)> = Vec::new();
    for left in &plan.left_out {
        if !reasons.contains(&(left.what, &left.why)) {
            reasons.push((left.what, &left.why));
        }
    }
    // In the order of the file; what follows from it comes after.
    let line = |why: &str| why.split_once(" [")?.0.rsplit_once(':')?.1.parse::<usize>().ok();
    reasons.sort_by_key(|(_, why)| line(why).unwrap_or(usize::MAX));
    for (what, why) in reasons {
        let these: Vec<&LeftOut> = plan.left_out.iter().filter(|left| left.what == what && left.why == why).collect();
        let means = match what {
            What::Object => "",
            What::Rows => "rows of ",
            What::Changes => "changes of ",
            What::UpdatesAndDeletes => "updates and deletes of ",
            What::Validation => "validation of ",
        };
        text.push_str(&format!("  {why}\n"));
        for left in these.iter().take(SHOWN) {
            text.push_str(&format!("    {means}{} {}\n", left.kind, left.name));
        }
        if these.len() > SHOWN {
            text.push_str(&format!("    and {} more (all of them: --json)\n", these.len() - SHOWN));
        }
    }
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        text.push_str(&format!("{title}\n"));
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
}

fn plural(count: u64, what: &str) -> String {
    let many = match (count, what) {
        (1, _) => what.to_string(),
        (_, "index") => "indexes".into(),
        _ => format!("{what}s"),
    };
    format!("{} {many}", units::count(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_from_what_moves_to_the_next_step() {
        let left =
            |what, name: &str, why: &str| LeftOut { what, kind: "table".into(), name: name.into(), why: why.into() };
        let plan = Plan {
            format: 1,
            tables: vec![
                Table {
                    name: TableName::new("public", "orders"),
                    bytes: 3 << 30,
                    parts: 3,
                    format: "binary",
                    ranges: Vec::new(),
                },
                Table {
                    name: TableName::new("public", "T 1"),
                    bytes: 8192,
                    parts: 1,
                    format: "text",
                    ranges: Vec::new(),
                },
            ],
            counts: Counts { parts: 4, indexes: 2, sequences: 1, ..Counts::default() },
            left_out: vec![
                left(What::Object, "public.log", "f.ini:2 [exclude-table]"),
                left(What::Rows, "public.cache", "f.ini:5 [exclude-table-data]"),
            ],
            unmatched: vec!["f.ini:3 [exclude-table] public.nope".into()],
            warnings: vec!["f.ini:3 [exclude-table] public.nope matches nothing".into()],
            refused: Some(vec![Refusal { message: "wal_level is replica".into(), hint: Some("a\nb".into()) }]),
        };
        let expected = "\
copied, in this order: 2 tables, 3.0 GiB
  table                size  Parts  format
  public.orders     3.0 GiB      3  binary
  public.\"T 1\"      8.0 KiB      1  text
with them: 2 indexes, 1 sequence
left out:
  f.ini:2 [exclude-table]
    table public.log
  f.ini:5 [exclude-table-data]
    rows of table public.cache
match nothing:
  f.ini:3 [exclude-table] public.nope
stands in the way:
  wal_level is replica
    a
    b
next: mend that, then `pgmig plan` again
";
        assert_eq!(text(&plan), expected);
    }
}
