//! Steps that are not made from one entry of the dump as it stands: roles, drops, what is set for the
//! database, extensions and user mappings. Pure. No password is ever in a statement here.

use super::step;
use crate::config::requirements::Requirements;
use crate::model::name::{identifier, literal};
use crate::source::dump::Entry;
use crate::source::roles::{Kind, MappingSecret, RoleStatement, is_secret};
use crate::source::script;
use crate::target::queue::Step;

/// Stands in a stored statement where the session gets what is kept from sight.
const HIDDEN: &str = "***";
/// Kinds whose statements are stored without their password.
pub const ROLE_PASSWORD: &str = "ROLE PASSWORD";
pub const MAPPING_PASSWORD: &str = "USER MAPPING PASSWORD";
/// The kind whose statements are stored without the connection string, which may hold a password.
pub const SUBSCRIPTION: &str = "SUBSCRIPTION";
/// The kind of what removes an object that is in the way.
pub const DROP: &str = "DROP";

/// Roles that the target does not have, and a step for the password of each. Who is no superuser is no member
/// of a role that it makes, and gives objects only to roles that it is a member of.
pub fn roles(statements: &[RoleStatement], passwords: bool, by_superuser: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for statement in statements {
        let (kind, blocking) = match statement.kind {
            Kind::Create => ("ROLE", true),
            Kind::Alter => ("ROLE", false),
            Kind::Grant => ("ROLE MEMBERSHIP", false),
        };
        let sql = match statement.kind {
            // Only a superuser grants in another's name.
            Kind::Grant if !by_superuser => {
                cut_at(&statement.sql, " GRANTED ").map_or(statement.sql.as_str(), |(sql, _)| sql)
            }
            _ => &statement.sql,
        };
        steps.push(step("schema", kind, None, &statement.role, sql.to_string(), blocking));
        if statement.kind == Kind::Create && !by_superuser {
            let sql = format!("grant {} to current_user", identifier(&statement.role));
            steps.push(step("schema", "ROLE MEMBERSHIP", None, &statement.role, sql, false));
        }
        if passwords && statement.kind == Kind::Create {
            let sql = role_password(&statement.role, HIDDEN);
            steps.push(step("schema", ROLE_PASSWORD, None, &statement.role, sql, false));
        }
    }
    // Settings and memberships may speak of roles that come later.
    steps.sort_by_key(|step| (step.kind == "ROLE MEMBERSHIP", !step.blocking));
    steps
}

/// What a password's step says, with the password or with `***`.
pub fn role_password(role: &str, password: &str) -> String {
    format!("alter role {} password {}", identifier(role), literal(password))
}

/// What the step of a secret option of a user mapping says, stored and real.
pub fn mapping_password(secret: &MappingSecret) -> (String, String) {
    let real = mapping_option(&secret.user, &secret.server, &secret.option, secret.value.reveal());
    (mapping_option(&secret.user, &secret.server, &secret.option, HIDDEN), real)
}

fn mapping_option(user: &str, server: &str, option: &str, value: &str) -> String {
    let user = if user.eq_ignore_ascii_case("public") { "public".into() } else { identifier(user) };
    let (server, option, value) = (identifier(server), identifier(option), literal(value));
    format!("alter user mapping for {user} server {server} options (add {option} {value})")
}

/// A user mapping without its secrets, then a step for each of them.
pub fn user_mapping(entry: &Entry) -> Vec<Step> {
    let sql = script::statements(&entry.sql).into_iter().next().unwrap_or_default();
    let made = |sql: String| step("schema", &entry.kind, None, &entry.tag, sql, false);
    let (Some((head, options)), Some((user, server))) = (sql.split_once(" OPTIONS (\n"), mapping_of(&sql)) else {
        return vec![made(sql)];
    };
    let options: Vec<&str> = list(options.trim_end().trim_end_matches(')'));
    let name_of = |option: &str| script::name(option).map(|(name, _)| name).unwrap_or_default();
    let (secret, plain): (Vec<&str>, Vec<&str>) = options.into_iter().partition(|option| is_secret(&name_of(option)));
    let shown = if plain.is_empty() { head.into() } else { format!("{head} OPTIONS ({})", plain.join(", ")) };
    let mut steps = vec![made(shown)];
    for option in secret {
        let sql = mapping_option(&user, &server, &name_of(option), HIDDEN);
        steps.push(step("schema", MAPPING_PASSWORD, None, &entry.tag, sql, false));
    }
    steps
}

fn mapping_of(sql: &str) -> Option<(String, String)> {
    let (user, rest) = script::name(sql.strip_prefix("CREATE USER MAPPING FOR ")?)?;
    let (server, _) = script::name(rest.strip_prefix(" SERVER ")?)?;
    Some((user, server))
}

/// What stands between the commas that are not inside quotes.
fn list(text: &str) -> Vec<&str> {
    let (mut quoted, mut from, mut found) = (None, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match (quoted, byte) {
            (None, b',') => {
                found.push(text[from..at].trim());
                from = at + 1;
            }
            (None, b'"' | b'\'') => quoted = Some(byte),
            (Some(open), _) if open == byte => quoted = None,
            _ => {}
        }
    }
    found.push(text[from..].trim());
    found
}

/// A subscription as the dump leaves it: disabled, its publisher not asked.
pub fn subscription(entry: &Entry) -> Step {
    let sql = subscription_to(&entry.sql, HIDDEN).unwrap_or_default();
    step("rest", SUBSCRIPTION, None, &entry.tag, sql, false)
}

/// The statement that makes a subscription, with another connection string. None if it is no such statement.
pub fn subscription_to(sql: &str, conninfo: &str) -> Option<String> {
    let (before, after) = cut_at(sql, " CONNECTION ")?;
    let quoted = after.trim_start().trim_start_matches('E').strip_prefix('\'')?;
    let bytes = quoted.as_bytes();
    let mut end = 0;
    while bytes.get(end..end + 2) == Some(b"''") || *bytes.get(end)? != b'\'' {
        end += if bytes[end] == b'\'' { 2 } else { 1 };
    }
    Some(format!("{before} CONNECTION {}{}", literal(conninfo), &quoted[end + 1..]))
}

/// An extension with what it needs, in the version that is asked for.
pub fn extension(entry: &Entry, requirements: Option<&Requirements>) -> String {
    let (first, rest) = script::first_statement(&entry.sql);
    let first = first.trim_end().trim_end_matches(';');
    let version = requirements.and_then(|requirements| requirements.version(&entry.tag));
    let version = version.map_or(String::new(), |version| format!(" VERSION {}", identifier(version)));
    format!("{first}{version} CASCADE;\n{}", rest.trim()).trim_end().into()
}

/// What is set for, granted on and said of the source's database, for a database of another name.
pub fn database(entry: &Entry, database: &str) -> Vec<Step> {
    let statements = script::statements(&entry.sql).into_iter();
    let of_database =
        |sql: &String| entry.kind != "DATABASE PROPERTIES" || sql.starts_with("ALTER ROLE ") || sql.contains(" SET ");
    let renamed = statements.filter(of_database).filter_map(|sql| rename(&sql, database));
    renamed.map(|sql| step("finish", &entry.kind, None, &entry.tag, sql, false)).collect()
}

/// Puts another name behind the first DATABASE that is not inside quotes.
fn rename(sql: &str, database: &str) -> Option<String> {
    let (before, after) = cut_at(sql, " DATABASE ")?;
    let (_, rest) = script::name(after)?;
    Some(format!("{before} DATABASE {}{rest}", identifier(database)))
}

/// What is before and behind the first such words that are not inside double quotes.
fn cut_at<'a>(sql: &'a str, words: &str) -> Option<(&'a str, &'a str)> {
    let mut quoted = false;
    for (at, byte) in sql.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' if !quoted && sql[at..].starts_with(words) => return Some((&sql[..at], &sql[at + words.len()..])),
            _ => {}
        }
    }
    None
}

/// Takes back default privileges that the source sets at the end: what is made before must not have them.
pub fn default_privileges(entry: &Entry) -> Vec<Step> {
    let reverse = |sql: String| {
        let (scope, granted) = cut_at(&sql, " GRANT ").or_else(|| cut_at(&sql, " REVOKE "))?;
        let (privileges, role, back) = match cut_at(granted, " TO ") {
            Some((privileges, role)) => (privileges, role.trim_end_matches(" WITH GRANT OPTION"), ["REVOKE", "FROM"]),
            None => cut_at(granted, " FROM ").map(|(privileges, role)| (privileges, role, ["GRANT", "TO"]))?,
        };
        let sql = format!("{scope} {} {} {} {role}", back[0], privileges.trim_end(), back[1]);
        // There is nothing to take back where role or schema are missing.
        let sql = format!(
            "do $pgmig$ begin execute {}; exception when undefined_object or invalid_schema_name then null; end $pgmig$",
            literal(&sql)
        );
        Some(step("schema", DROP, None, &entry.tag, sql, true))
    };
    script::statements(&entry.sql).into_iter().rev().filter_map(reverse).collect()
}

/// Drops what is in the way. Schemas and extensions may hold what is not ours: they stay.
pub fn drops(statements: Vec<String>) -> Vec<Step> {
    let in_the_way = |sql: &String| match sql.strip_prefix("DROP ") {
        Some(what) => !["SCHEMA", "EXTENSION", "DATABASE"].iter().any(|kind| what.starts_with(&format!("{kind} "))),
        None => sql.starts_with("ALTER TABLE IF EXISTS ") && sql.contains(" DROP CONSTRAINT IF EXISTS "),
    };
    let made = |sql: String| {
        let name = sql.split_once(" IF EXISTS ").map_or(sql.as_str(), |(_, name)| name).to_string();
        step("schema", DROP, None, &name, drop_subscription(&sql).unwrap_or(sql), true)
    };
    statements.into_iter().filter(in_the_way).map(made).collect()
}

/// Drops a subscription and not its slot on the publisher, which may be that of the source's. One that is
/// enabled is refused.
fn drop_subscription(sql: &str) -> Option<String> {
    let (subscription, _) = script::name(sql.strip_prefix("DROP SUBSCRIPTION IF EXISTS ")?)?;
    let (name, text) = (identifier(&subscription), literal(&subscription));
    Some(format!(
        "do $pgmig$ begin if exists (select from pg_catalog.pg_subscription where subname = {text} and subdbid = \
         (select oid from pg_catalog.pg_database where datname = current_database())) then \
         alter subscription {name} set (slot_name = none); drop subscription {name}; end if; end $pgmig$"
    ))
}

/// Drops large objects by the numbers that are to come.
pub fn unlink(numbers: &[u32]) -> Vec<Step> {
    let made = |numbers: &[u32]| {
        let list = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let sql = format!(
            "select pg_catalog.lo_unlink(oid) from pg_catalog.pg_largeobject_metadata where oid = any ('{{{list}}}')"
        );
        step("schema", DROP, None, "large objects", sql, true)
    };
    numbers.chunks(1000).map(made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, tag: &str, sql: &str) -> Entry {
        let (kind, tag, sql) = (kind.into(), tag.into(), sql.into());
        Entry { id: 1, catalog: 1, oid: 2, kind, schema: None, tag, needs: Vec::new(), sql, settings: String::new() }
    }

    #[test]
    fn the_password_of_a_user_mapping_is_in_no_statement() {
        let sql =
            "CREATE USER MAPPING FOR \"O r\" SERVER s OPTIONS (\n    password 'a, \"''b',\n    \"user\" 'me'\n);\n\n";
        let made: Vec<String> =
            user_mapping(&entry("USER MAPPING", "x", sql)).into_iter().map(|step| step.statement).collect();
        assert_eq!(
            made,
            [
                "CREATE USER MAPPING FOR \"O r\" SERVER s OPTIONS (\"user\" 'me')",
                "alter user mapping for \"O r\" server \"s\" options (add \"password\" '***')"
            ]
        );
        let bare = user_mapping(&entry("USER MAPPING", "x", "CREATE USER MAPPING FOR PUBLIC SERVER s;\n"));
        assert_eq!(bare[0].statement, "CREATE USER MAPPING FOR PUBLIC SERVER s");
    }

    #[test]
    fn a_subscription_is_stored_without_its_connection() {
        let sql = "CREATE SUBSCRIPTION \"a CONNECTION b\" CONNECTION 'host=a password=''x; y' PUBLICATION p WITH (connect = false, slot_name = 's');\n\n\nALTER SUBSCRIPTION x OWNER TO \"o CONNECTION 'p\";";
        let made = subscription(&entry("SUBSCRIPTION", "a CONNECTION b", sql)).statement;
        let start = "CREATE SUBSCRIPTION \"a CONNECTION b\" CONNECTION '***' PUBLICATION p WITH (connect = false, slot_name = 's');";
        assert!(made.starts_with(start) && made.ends_with("\"o CONNECTION 'p\";"), "{made}");
        assert_eq!(subscription_to(&made, "host=a password='x; y").as_deref(), Some(sql));
        let escaped = subscription_to("CREATE SUBSCRIPTION s CONNECTION  E'a\\\\b' PUBLICATION p", "c");
        assert_eq!(escaped.as_deref(), Some("CREATE SUBSCRIPTION s CONNECTION 'c' PUBLICATION p"));
        assert_eq!(subscription_to("CREATE SUBSCRIPTION s CONNECTION 'open", "c"), None);
    }

    #[test]
    fn settings_of_the_database_get_the_name_of_the_targets() {
        let sql = "ALTER DATABASE \"my db\" SET search_path TO 'a', 'DATABASE x';\nALTER DATABASE app CONNECTION LIMIT = 3;\n\
                   ALTER ROLE \"A DATABASE b\" IN DATABASE app SET x TO 'y;';\n\n\\unrestrict x\n\\connect app\n\nSET statement_timeout = 0;\n";
        let made: Vec<String> = database(&entry("DATABASE PROPERTIES", "app", sql), "new one")
            .into_iter()
            .map(|step| step.statement)
            .collect();
        assert_eq!(
            made,
            [
                "ALTER DATABASE \"new one\" SET search_path TO 'a', 'DATABASE x'",
                "ALTER ROLE \"A DATABASE b\" IN DATABASE \"new one\" SET x TO 'y;'"
            ]
        );
        let acl = database(&entry("ACL", "DATABASE app", "GRANT CREATE ON DATABASE app TO x;\n"), "b");
        assert_eq!(acl[0].statement, "GRANT CREATE ON DATABASE \"b\" TO x");
    }

    #[test]
    fn an_extension_comes_with_what_it_needs() {
        let sql = "CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;\n";
        assert_eq!(
            extension(&entry("EXTENSION", "hstore", sql), None),
            "CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public CASCADE;"
        );
    }

    #[test]
    fn default_privileges_are_taken_back_in_reverse() {
        let sql = "ALTER DEFAULT PRIVILEGES FOR ROLE \"a GRANT b\" IN SCHEMA s REVOKE ALL ON TABLES  FROM PUBLIC;\n\
                   ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES  TO \"it's\" WITH GRANT OPTION;\n";
        let taken: Vec<String> = default_privileges(&entry("DEFAULT ACL", "DEFAULT PRIVILEGES FOR TABLES", sql))
            .into_iter()
            .map(|step| step.statement)
            .collect();
        assert!(
            taken[0].contains("execute 'ALTER DEFAULT PRIVILEGES FOR ROLE a REVOKE SELECT ON TABLES FROM \"it''s\"';"),
            "{}",
            taken[0]
        );
        assert!(
            taken[1].contains("FOR ROLE \"a GRANT b\" IN SCHEMA s GRANT ALL ON TABLES TO PUBLIC';"),
            "{}",
            taken[1]
        );
    }

    #[test]
    fn schemas_and_extensions_are_not_dropped() {
        let given = [
            "DROP TABLE IF EXISTS a.b",
            "DROP SUBSCRIPTION IF EXISTS \"S u\"",
            "DROP SCHEMA IF EXISTS a",
            "DROP EXTENSION IF EXISTS x",
            "ALTER TABLE IF EXISTS ONLY a.b DROP CONSTRAINT IF EXISTS c",
            "ALTER TABLE a ALTER COLUMN b DROP DEFAULT",
            "CREATE OR REPLACE VIEW v AS SELECT 1",
        ];
        let made = drops(given.map(String::from).into());
        let names: Vec<&str> = made.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["a.b", "\"S u\"", "ONLY a.b DROP CONSTRAINT IF EXISTS c"]);
        let of_subscription = &made[1].statement;
        assert!(
            of_subscription.contains("alter subscription \"S u\" set (slot_name = none); drop subscription \"S u\";"),
            "{of_subscription}"
        );
    }
}
