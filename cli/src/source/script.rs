//! Cuts a script of SQL that pg_dump or one of its kin printed. Pure. It knows quotes and comments, and no
//! bodies in dollars or BEGIN ATOMIC: scripts that hold those are cut by their table of contents.

/// Cuts behind the first `;` that is not inside quotes.
pub fn first_statement(sql: &str) -> (&str, &str) {
    let (mut quote, bytes) = (None, sql.as_bytes());
    for (at, &byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (None, b';') => return sql.split_at(at + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    (sql, "")
}

/// The statements of a script, without comments and psql's own lines, each without its `;`.
pub fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = script.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("--") || rest.starts_with('\\') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
            continue;
        }
        let (first, next) = first_statement(rest);
        found.push(first.trim_end().trim_end_matches(';').trim_end().to_string());
        rest = next.trim_start();
    }
    found
}

/// The name that a text begins with, without its quotes, and what follows it.
pub fn name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_string(), &text[end..]));
    };
    let mut at = 0;
    loop {
        at += quoted[at..].find('"')?;
        if quoted[at + 1..].starts_with('"') {
            at += 2;
        } else {
            return Some((quoted[..at].replace("\"\"", "\""), &quoted[at + 1..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_falls_into_its_statements() {
        let script = "--\n-- Roles; all\n--\n\\restrict x\nCREATE ROLE \"a;b\";\nCOMMENT ON ROLE x IS 'it''s; -- here\nand there';\n\n\\unrestrict x\n";
        assert_eq!(statements(script), ["CREATE ROLE \"a;b\"", "COMMENT ON ROLE x IS 'it''s; -- here\nand there'"]);
    }

    #[test]
    fn a_name_ends_where_its_quotes_do() {
        assert_eq!(name("plain WITH x"), Some(("plain".into(), " WITH x")));
        assert_eq!(name(r#""Odd ""Role""" WITH"#), Some((r#"Odd "Role""#.into(), " WITH")));
        assert_eq!(name("\"open"), None);
    }
}
