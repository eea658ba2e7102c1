//! Roles as pg_dumpall prints them, statement by statement. Passwords are read apart from them and go
//! to the target's session only: a statement here may be shown to anybody.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::script::{name, statements};
use crate::config::Secret;
use crate::error::{Context, Result};

/// One statement about a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleStatement {
    /// The role that it changes.
    pub role: String,
    pub kind: Kind,
    pub sql: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Create,
    /// Attributes, settings, comments.
    Alter,
    /// A membership; the role is the member.
    Grant,
}

/// The statements of pg_dumpall's script about roles that the target does not have.
pub fn new_roles(script: &str, there: &HashSet<String>) -> Vec<RoleStatement> {
    let mut found: Vec<RoleStatement> = statements(script).iter().filter_map(|sql| statement(sql)).collect();
    found.retain(|statement| !there.contains(&statement.role) && !statement.role.starts_with("pg_"));
    found
}

fn statement(sql: &str) -> Option<RoleStatement> {
    let of = |rest: &str, kind: Kind, sql: String| name(rest).map(|(role, _)| RoleStatement { role, kind, sql });
    if let Some(rest) = sql.strip_prefix("CREATE ROLE ") {
        return of(rest, Kind::Create, sql.into());
    }
    if let Some(rest) = sql.strip_prefix("ALTER ROLE ") {
        return of(rest, Kind::Alter, without_defaults(sql));
    }
    if let Some(rest) = sql.strip_prefix("COMMENT ON ROLE ") {
        return of(rest, Kind::Alter, sql.into());
    }
    let (_, rest) = name(sql.strip_prefix("GRANT ")?)?;
    of(rest.strip_prefix(" TO ")?, Kind::Grant, sql.into())
}

/// Only who has them may say these of another role, even where a new role lacks them anyway.
fn without_defaults(sql: &str) -> String {
    match sql.split_once(" WITH ") {
        Some((role, attributes)) if !attributes.contains(['\'', '"']) || attributes.contains(" VALID UNTIL ") => {
            let (words, until) =
                attributes.split_once(" VALID UNTIL ").map_or((attributes, None), |(w, u)| (w, Some(u)));
            let default = |word: &&str| {
                !matches!(*word, "NOSUPERUSER" | "NOREPLICATION" | "NOBYPASSRLS" | "NOCREATEROLE" | "NOCREATEDB")
            };
            let words: Vec<&str> = words.split(' ').filter(default).collect();
            let until = until.map_or(String::new(), |until| format!(" VALID UNTIL {until}"));
            format!("{role} WITH {}{until}", words.join(" "))
        }
        _ => sql.into(),
    }
}

/// Whether the role may read passwords.
pub async fn passwords_readable(client: &Client) -> Result<bool> {
    let query = "select pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'select')";
    let row = client.query_one(query, &[]).await.on_source(|| "ask whether passwords can be read".into())?;
    Ok(row.get(0))
}

/// Passwords of these roles, hashed as the server keeps them.
pub async fn passwords(client: &Client, roles: &[String]) -> Result<Vec<(String, Secret)>> {
    let query = "select rolname::text, rolpassword from pg_catalog.pg_authid
                  where rolpassword is not null and rolname = any ($1) order by 1";
    let rows = client.query(query, &[&roles]).await.on_source(|| "read the passwords of the roles".into())?;
    Ok(rows.iter().map(|row| (row.get(0), Secret::new(row.get::<_, String>(1)))).collect())
}

/// An option of a user mapping that is kept from sight.
pub struct MappingSecret {
    /// `public` for the mapping of everybody.
    pub user: String,
    pub server: String,
    pub option: String,
    pub value: Secret,
}

/// Which options of user mappings hold secrets.
pub fn is_secret(option: &str) -> bool {
    ["pass", "secret", "token", "key", "credential"].iter().any(|part| option.to_lowercase().contains(part))
}

/// Secret options of user mappings that the role may see.
pub async fn mapping_secrets(client: &Client) -> Result<Vec<MappingSecret>> {
    let query = "select case m.umuser when 0 then 'public' else m.usename::text end, m.srvname::text,
                        o.option_name::text, o.option_value::text
                   from pg_catalog.pg_user_mappings m, pg_catalog.pg_options_to_table(m.umoptions) o
                  order by m.srvname, m.umuser, o.option_name";
    let rows = client.query(query, &[]).await.on_source(|| "read the user mappings".into())?;
    let secret = |row: &tokio_postgres::Row| MappingSecret {
        user: row.get(0),
        server: row.get(1),
        option: row.get(2),
        value: Secret::new(row.get::<_, Option<String>>(3).unwrap_or_default()),
    };
    Ok(rows.iter().map(secret).filter(|mapping| is_secret(&mapping.option)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_that_are_there_are_left_alone() {
        let script = "CREATE ROLE app;\nALTER ROLE app WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 7 VALID UNTIL '2100-01-01 00:00:00+00';\n\
                      CREATE ROLE \"Odd \"\"R\"\"\";\nCREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\nCOMMENT ON ROLE app IS 'x WITH NOSUPERUSER';\n\
                      ALTER ROLE app SET a TO 'b; WITH';\nGRANT app TO \"Odd \"\"R\"\"\" WITH ADMIN OPTION GRANTED BY postgres;\nGRANT app TO postgres;\nSET x = 1;\n";
        let there = ["postgres".to_string()].into();
        let found: Vec<_> = new_roles(script, &there).into_iter().map(|s| (s.role, s.kind, s.sql)).collect();
        let expected = [
            ("app", Kind::Create, "CREATE ROLE app"),
            (
                "app",
                Kind::Alter,
                "ALTER ROLE app WITH INHERIT LOGIN CONNECTION LIMIT 7 VALID UNTIL '2100-01-01 00:00:00+00'",
            ),
            ("Odd \"R\"", Kind::Create, "CREATE ROLE \"Odd \"\"R\"\"\""),
            ("app", Kind::Alter, "COMMENT ON ROLE app IS 'x WITH NOSUPERUSER'"),
            ("app", Kind::Alter, "ALTER ROLE app SET a TO 'b; WITH'"),
            ("Odd \"R\"", Kind::Grant, "GRANT app TO \"Odd \"\"R\"\"\" WITH ADMIN OPTION GRANTED BY postgres"),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(r, k, s)| (r.to_string(), k, s.to_string())).collect();
        assert_eq!(found, expected);
    }
}
