//! What a failure is to the person who reads it: what was being done, what the server answered,
//! what to do now, and the exit code. It never holds a password or the value of a row.

use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::error::DbError;

/// Public exit codes of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// The answer is no: a check failed, two databases differ.
    No = 1,
    Usage = 2,
    Source = 3,
    Target = 4,
    /// Not possible in the phase the migration is in.
    Phase = 5,
    /// The data on both sides do not fit together.
    Differ = 6,
    /// This machine: the spool or the plan under `--dir` cannot be read or written.
    Dir = 7,
    Bug = 70,
    /// Stopped by the user; the same command goes on.
    Stopped = 130,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
type Cause = Box<dyn StdError + Send + Sync + 'static>;

/// An error with its exit code, cause and hint. `doing` is a lower-case phrase that reads well
/// after "error: ".
pub struct Error(Box<Inner>);

struct Inner {
    exit: Exit,
    doing: String,
    cause: Option<Cause>,
    hint: Option<String>,
    /// Whatever the cause: to try again does not help, or was tried.
    for_good: bool,
}

impl Error {
    pub fn new(exit: Exit, doing: impl Into<String>) -> Error {
        Error(Box::new(Inner { exit, doing: doing.into(), cause: None, hint: None, for_good: false }))
    }
    pub fn usage(doing: impl Into<String>) -> Error {
        Error::new(Exit::Usage, doing)
    }
    /// The user asked for it; nothing is wrong.
    pub fn stopped() -> Error {
        Error::new(Exit::Stopped, "stopped")
    }
    /// For what cannot happen unless pgmig is wrong.
    pub fn bug(doing: impl Into<String>) -> Error {
        Error::new(Exit::Bug, doing)
    }
    pub fn cause(mut self, cause: impl Into<Cause>) -> Error {
        self.0.cause = Some(cause.into());
        self
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }
    /// Says that no further try would help, though the cause looks as if it might pass.
    pub fn for_good(mut self) -> Error {
        self.0.for_good = true;
        self
    }
    pub fn exit(&self) -> Exit {
        self.0.exit
    }
    /// This error and every cause below it, outermost first.
    fn trail(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        std::iter::successors(Some(self as &(dyn StdError + 'static)), |&err| err.source())
    }
    /// The innermost hint that was given.
    pub fn hint_text(&self) -> Option<&str> {
        self.trail().filter_map(|err| err.downcast_ref::<Error>()?.0.hint.as_deref()).last()
    }
    /// The server's SQLSTATE, if a server's answer is among the causes.
    pub fn sqlstate(&self) -> Option<&str> {
        self.trail().find_map(|err| {
            let code = err.downcast_ref::<tokio_postgres::Error>().and_then(|e| e.code());
            let ours = || err.downcast_ref::<ServerError>().map(|server| server.sqlstate.as_str());
            code.map(|code| code.code()).or_else(ours)
        })
    }
    /// The cause of this type, if there is one.
    pub fn find<E: StdError + 'static>(&self) -> Option<&E> {
        self.trail().find_map(|err| err.downcast_ref())
    }
    /// The server's answer, if one is among the causes.
    pub fn answer(&self) -> Option<&DbError> {
        self.trail().find_map(|err| err.downcast_ref::<tokio_postgres::Error>()?.as_db_error())
    }
    /// Schema and table that the server's answer is about, if it names them.
    pub fn table(&self) -> Option<(&str, &str)> {
        let answer = self.answer()?;
        answer.schema().zip(answer.table())
    }
    /// Whether the connection went away, rather than the server said no.
    pub fn connection_lost(&self) -> bool {
        if !matches!(self.0.exit, Exit::Source | Exit::Target) {
            return false;
        }
        for err in self.trail() {
            if err.downcast_ref::<Error>().is_some_and(|ours| ours.0.for_good) {
                return false;
            }
            let closed = err.downcast_ref::<tokio_postgres::Error>().is_some_and(|e| e.is_closed());
            if closed || err.is::<std::io::Error>() || err.is::<Network>() {
                return true;
            }
        }
        // Connection exceptions, and a server that ends the session or shuts down (manual, appendix A).
        // 08P01 is no loss: it says that what was sent is malformed, as `pgmig.apply` does of a Batch.
        let lost =
            |code: &str| code.starts_with("08") && code != "08P01" || ["57P01", "57P02", "57P03"].contains(&code);
        self.sqlstate().is_some_and(lost)
    }
    /// Whether the same may go well in a moment: the connection was lost, a deadlock or a lock was in
    /// the way, or the server had no room for a session or a lock.
    pub fn passing(&self) -> bool {
        if self.0.for_good {
            return false;
        }
        self.connection_lost()
            || self.find::<NotYet>().is_some()
            || self.sqlstate().is_some_and(|code| code.starts_with("40") || ["55P03", "53200", "53300"].contains(&code))
    }
    /// With what to do about it, if a disk is full and nothing says so yet.
    pub fn full_disk(self) -> Error {
        let here = self.find().is_some_and(|err: &std::io::Error| err.kind() == std::io::ErrorKind::StorageFull)
            || self.find().and_then(rusqlite::Error::sqlite_error_code) == Some(rusqlite::ErrorCode::DiskFull);
        let place = match self.exit() {
            Exit::Dir if here => "under --dir",
            Exit::Source if self.sqlstate() == Some("53100") => "on the source's disk",
            Exit::Target if self.sqlstate() == Some("53100") => "on the target's disk",
            _ => return self,
        };
        match self.hint_text() {
            Some(_) => self,
            None => self.hint(format!("make room {place}, then run the same command again")),
        }
    }
    /// Every message from the outermost to the innermost, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(err) = next {
            text.push_str(": ");
            text.push_str(&describe(err));
            next = below(err);
        }
        text
    }
    /// The causes below the first line, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(err) = next {
            let text = describe(err);
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            next = below(err);
        }
        causes
    }
}

/// The next cause. A server's answer is the last one: below it tokio-postgres repeats it with DETAIL,
/// which holds row values.
fn below<'a>(err: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let answered = err.downcast_ref::<tokio_postgres::Error>().is_some_and(|e| e.as_db_error().is_some());
    if answered { None } else { err.source() }
}

/// A server's answer in one line: message and SQLSTATE. DETAIL is left out, it holds row values.
fn describe(err: &(dyn StdError + 'static)) -> String {
    match err.downcast_ref::<tokio_postgres::Error>().and_then(|e| e.as_db_error()) {
        Some(db) => ServerError::line(db.message(), db.code().code()),
        None => err.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.doing)
    }
}
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (exit {})", self.chain(), self.0.exit as u8)
    }
}
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_ref().map(|cause| &**cause as &(dyn StdError + 'static))
    }
}

/// What a server that fails over or starts is not yet, and soon will be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotYet(pub String);

/// The network's answer, without the number that `std::io::Error` appends.
#[derive(Debug, thiserror::Error)]
#[error("{}", without_number(.0))]
pub(crate) struct Network(pub std::io::Error);

fn without_number(err: &std::io::Error) -> String {
    let text = err.to_string();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

/// An ErrorResponse of the replication protocol (manual 55.8), as tokio-postgres gives it for SQL.
#[derive(Debug, thiserror::Error)]
#[error("{}", ServerError::line(message, sqlstate))]
pub struct ServerError {
    pub sqlstate: String,
    pub message: String,
    pub hint: Option<String>,
}

impl ServerError {
    /// Message and SQLSTATE, without what it shows of a row: the bytes of text in a wrong encoding, and
    /// of any other value that does not fit (class 22) all that is quoted.
    fn line(message: &str, sqlstate: &str) -> String {
        if matches!(sqlstate, "22021" | "22P05") {
            let words: Vec<&str> = message.split(' ').filter(|word| !word.starts_with("0x")).collect();
            return format!("{} ({sqlstate})", words.join(" ").trim_end_matches(':'));
        }
        if sqlstate.starts_with("22") {
            return format!("{} ({sqlstate})", unquoted(message));
        }
        format!("{message} ({sqlstate})")
    }
}

/// A message without what its quotes hold, in the server's language. A value may itself hold quotes: all
/// from the first to the last goes.
fn unquoted(message: &str) -> String {
    let quotes = ['"', '«', '»', '„', '“', '”', '「', '」'];
    match (message.find(quotes), message.rfind(quotes)) {
        (Some(first), Some(last)) if first < last => format!("{}\"…\"{}", &message[..first], {
            let mut rest = message[last..].chars();
            rest.next();
            rest.as_str()
        }),
        _ => message.to_string(),
    }
}

/// Says what was being done when a call failed, and on which side.
pub trait Context<T> {
    fn on_source(self, doing: impl FnOnce() -> String) -> Result<T>;
    fn on_target(self, doing: impl FnOnce() -> String) -> Result<T>;
    fn during(self, exit: Exit, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn on_source(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.during(Exit::Source, doing)
    }
    fn on_target(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.during(Exit::Target, doing)
    }
    fn during(self, exit: Exit, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::new(exit, doing()).cause(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_row_are_not_shown() {
        let answer = |sqlstate: &str, message: &str| {
            ServerError { sqlstate: sqlstate.into(), message: message.into(), hint: None }.to_string()
        };
        assert_eq!(
            answer("22021", "invalid byte sequence for encoding \"UTF8\": 0xe9 0x74"),
            "invalid byte sequence for encoding \"UTF8\" (22021)"
        );
        assert_eq!(
            answer(
                "22P05",
                "character with byte sequence 0xe2 0x82 in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\""
            ),
            "character with byte sequence in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\" (22P05)"
        );
        assert_eq!(
            answer("22P02", "invalid input syntax for type integer: \"12 \"secret\" x\""),
            "invalid input syntax for type integer: \"…\" (22P02)"
        );
        assert_eq!(
            answer("22P02", "ungültige Eingabesyntax für Typ integer: »12 geheim«"),
            "ungültige Eingabesyntax für Typ integer: \"…\" (22P02)"
        );
        assert_eq!(
            answer("22003", "value \"4000000000\" is out of range for type integer"),
            "value \"…\" is out of range for type integer (22003)"
        );
        assert_eq!(
            answer("22001", "value too long for type character varying(8)"),
            "value too long for type character varying(8) (22001)"
        );
        assert_eq!(answer("42704", "type \"0x1\" is not 0x1"), "type \"0x1\" is not 0x1 (42704)");
    }

    #[test]
    fn the_innermost_hint_and_every_cause_are_kept() {
        let inner = Error::new(Exit::Source, "reset").hint("mend it");
        let outer = Error::new(Exit::Source, "read from source").cause(inner);
        let top = Error::new(Exit::Target, "copy part 3").cause(outer);
        assert_eq!(top.chain(), "copy part 3: read from source: reset");
        assert_eq!(top.hint_text(), Some("mend it"));
        assert_eq!(top.exit(), Exit::Target);
    }
}
