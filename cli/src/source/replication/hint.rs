//! What to do when the server refuses a slot: from its SQLSTATE and message to one hint, with the
//! statement that mends it where there is one.

use super::channel::Broken;
use crate::connect::Side;
use crate::error::ServerError;

/// A hint for what CREATE, START or DROP of slot `name` met. `plugin` where it is known.
pub(super) fn of_slot(
    broken: &Broken,
    name: &str,
    plugin: Option<&str>,
    user: &str,
    major: u32,
    side: Side,
) -> Option<String> {
    let Broken::Server(err) = broken else { return None };
    let message = err.message.as_str();
    Some(match err.sqlstate.as_str() {
        "42501" if message.contains("output plugin") => {
            let plugin = plugin.or_else(|| quoted(message)).unwrap_or("wal2json");
            format!(
                "on the {side}, as superuser, add {plugin} to the list it has now (no quotes round the list), then reload:\n\
                 alter system set output_plugin_libraries = pgoutput, test_decoding, {plugin};\n\
                 select pg_reload_conf();"
            )
        }
        "42501" => format!("on the {side}, as superuser: alter role {} replication;", role(user)),
        "58P01" | "42704" | "42883" if plugin.is_some() || err.sqlstate == "58P01" => {
            let plugin = plugin.or_else(|| quoted(message)).unwrap_or("wal2json");
            match plugin {
                "wal2json" => format!(
                    "install wal2json on the {side}'s machine (Debian: postgresql-{major}-wal2json), or use --plugin pgoutput"
                ),
                plugin => {
                    format!("`{plugin}` is not an output plugin of the {side}; use --plugin pgoutput or wal2json")
                }
            }
        }
        "42704" => format!(
            "slot `{name}` is gone from the {side}: what it would have sent is lost, so the copy must start over"
        ),
        "42710" => format!(
            "another run left it or uses it: choose another with --slot-name, or, if nobody reads it,\n\
             select pg_drop_replication_slot({});",
            super::literal(name)
        ),
        "53400" => format!(
            "raise max_replication_slots on the {side} and restart it, or drop a slot that nobody reads:\nselect slot_name, active, restart_lsn from pg_replication_slots;"
        ),
        "55000" if message.contains("wal_level") => {
            format!("on the {side}, as superuser, then restart it:\nalter system set wal_level = logical;")
        }
        "55000" if message.contains("can no longer") || message.contains("invalidated") => {
            format!(
                "the {side} has thrown away WAL that the slot needs (max_slot_wal_keep_size), so the copy must start over"
            )
        }
        "55006" => format!(
            "another session reads it; if that one is dead, end it:\n\
             select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = {};",
            super::literal(name)
        ),
        _ => return err.hint.clone(),
    })
}

/// What a stream or a query met: the server's own, and that of what no server can send (MaxAllocSize in memutils.h).
pub(super) fn of_answer(err: &ServerError) -> Option<String> {
    if err.sqlstate == "XX000" && err.message.starts_with("invalid memory alloc request size") {
        return Some(
            "a change is over 1 GB in text, where bytea takes twice its bytes, and no stream gets past it. In binary it is half of that: \
             begin again with the extension and a target of the source's major version"
                .into(),
        );
    }
    err.hint.clone()
}

/// The first word in double quotes.
fn quoted(message: &str) -> Option<&str> {
    message.split('"').nth(1).filter(|word| !word.is_empty())
}

fn role(user: &str) -> String {
    let plain = user.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain { user.to_string() } else { super::identifier(user) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(sqlstate: &str, message: &str, plugin: Option<&str>) -> Option<String> {
        let err = ServerError { sqlstate: sqlstate.into(), message: message.into(), hint: Some("theirs".into()) };
        of_slot(&Broken::Server(err), "s", plugin, "Odd user", 15, Side::Source)
    }

    #[test]
    fn each_known_refusal_has_the_statement_that_mends_it() {
        let cases = [
            (
                "42501",
                "library \"wal2json\" may not be used as an output plugin",
                None,
                "pgoutput, test_decoding, wal2json;",
            ),
            ("42501", "must be superuser or replication role", None, "alter role \"Odd user\" replication;"),
            ("58P01", "could not access file \"wal2json\": No such file", Some("wal2json"), "postgresql-15-wal2json"),
            ("58P01", "could not access file \"nope\": No such file", None, "`nope` is not an output plugin"),
            ("42704", "replication slot \"s\" does not exist", None, "must start over"),
            ("42710", "replication slot \"s\" already exists", Some("wal2json"), "pg_drop_replication_slot('s')"),
            ("53400", "all replication slots are in use", Some("wal2json"), "max_replication_slots"),
            ("55000", "logical decoding requires wal_level >= logical", Some("wal2json"), "wal_level = logical"),
            ("55006", "replication slot \"s\" is active for PID 7", None, "pg_terminate_backend"),
        ];
        for (sqlstate, message, plugin, expected) in cases {
            let hint = hint(sqlstate, message, plugin).unwrap();
            assert!(hint.contains(expected), "{sqlstate} {message}: {hint}");
        }
        assert_eq!(hint("XX000", "else", None).as_deref(), Some("theirs"));
        let answer = |message: &str| {
            of_answer(&ServerError { sqlstate: "XX000".into(), message: message.into(), hint: Some("theirs".into()) })
        };
        assert!(answer("invalid memory alloc request size 1872000003").unwrap().contains("with the extension"));
        assert_eq!(answer("else").as_deref(), Some("theirs"));
    }
}
