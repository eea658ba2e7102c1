//! What a comparison found, as people read it. Pure.

use crate::model::{ObjectDifference, RowDifference, TableDifference};

/// A longer statement is in the JSON only.
const LONG_STATEMENT: usize = 240;

/// Objects that differ, a line each, and below it the statement that mends it.
pub fn objects(differences: &[ObjectDifference]) -> String {
    let mut text = String::new();
    for ObjectDifference { kind, object, property, what, mend } in differences {
        let property = if property.is_empty() { String::new() } else { format!("  {property}:") };
        text.push_str(&format!("{kind} {object}{property}  {what}\n"));
        match mend {
            Some(mend) if mend.len() <= LONG_STATEMENT && !mend.contains('\n') => {
                text.push_str(&format!("    {};\n", mend.trim_end_matches(';')));
            }
            Some(_) => text.push_str("    the statement that mends it is long: --json shows it\n"),
            None => {}
        }
    }
    text
}

/// Tables that differ and at most `show` rows of each.
pub fn tables(differences: &[TableDifference], show: usize) -> String {
    let mut text = String::new();
    for difference in differences {
        text.push_str(&format!("{}  {}\n", difference.table, difference.what));
        for row in difference.rows.iter().take(show) {
            text.push_str(&format!("  {}  {}\n", name(row), row.what));
        }
        if difference.rows.len() > show {
            text.push_str(&format!("  and {} more: --show N, or --json\n", difference.rows.len() - show));
        }
    }
    text
}

fn name(row: &RowDifference) -> String {
    if row.key.is_empty() {
        return "a row".to_string();
    }
    let columns = row.key.iter().map(|(column, value)| format!("{column} = {}", value.as_deref().unwrap_or("null")));
    columns.collect::<Vec<_>>().join(", ")
}
