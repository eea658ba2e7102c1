//! Names of relations, and SQL quoting.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Schema and name of a relation, unquoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> TableName {
        TableName { schema: schema.into(), table: table.into() }
    }
    /// For a statement: both parts quoted.
    pub fn sql(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }
}

/// For people: quoted only where a part needs it.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |name: &str| {
            name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let show = |name: &str| if plain(name) { name.to_string() } else { identifier(name) };
        write!(f, "{}.{}", show(&self.schema), show(&self.table))
    }
}

/// Quotes an identifier (manual 4.1.1).
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal; with a backslash in it as an escape string, so that the meaning does
/// not depend on `standard_conforming_strings` (manual 4.1.2).
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A list of identifiers, quoted.
pub fn identifiers<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_quoted() {
        let odd = TableName::new("public", "Weird \"Table\", T#1");
        assert_eq!(odd.sql(), r#""public"."Weird ""Table"", T#1""#);
        assert_eq!(odd.to_string(), r#"public."Weird ""Table"", T#1""#);
        assert_eq!(TableName::new("public", "orders").to_string(), "public.orders");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r"E'a\\b'");
    }
}
