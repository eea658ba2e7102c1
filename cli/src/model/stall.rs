//! Why a migration is slow now: what is seen of both servers while they are watched for a moment, and what
//! that comes to. Times are in seconds.

use serde::Serialize;

use super::status::SourceHealth;
use super::{Place, Progress};

/// What a session of pgmig is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    Dump,
    Copy,
    Build,
    /// The walsender that decodes.
    Stream,
    Apply,
    /// What watches and steers.
    Other,
}

impl Work {
    /// By the name that the session gave itself.
    pub fn of(application: &str) -> Work {
        match application.strip_prefix("pgmig ").unwrap_or(application) {
            "pg_dump" => Work::Dump,
            "copy" => Work::Copy,
            "index" | "schema" => Work::Build,
            "receive" => Work::Stream,
            "apply" => Work::Apply,
            name if name.starts_with("part ") => Work::Copy,
            name if name.starts_with("step ") => Work::Build,
            _ => Work::Other,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Work::Dump => "dump",
            Work::Copy => "copy",
            Work::Build => "build",
            Work::Stream => "stream",
            Work::Apply => "apply",
            Work::Other => "other",
        }
    }
}

/// A session as it was at one look.
#[derive(Debug, Clone)]
pub struct Session {
    pub pid: i32,
    pub name: String,
    pub state: String,
    pub wait_type: Option<String>,
    pub wait: Option<String>,
    /// Since its statement was begun.
    pub seconds: f64,
}

impl Session {
    /// As `type: event`; `running` without one, `idle` if it has nothing to do.
    pub fn waits_for(&self) -> String {
        match (&self.wait_type, &self.wait) {
            _ if self.state == "idle" => "idle".into(),
            (Some(kind), Some(event)) => format!("{kind}: {event}"),
            _ => "running".into(),
        }
    }
}

/// What the sessions of one work were seen to wait for: how often, of all looks at them.
#[derive(Debug, Clone, Serialize)]
pub struct Waits {
    pub work: Work,
    /// The most at one look.
    pub sessions: usize,
    /// Largest first; shares of 1.
    pub events: Vec<(String, f64)>,
}

impl Waits {
    /// Of several looks at one server.
    pub fn of(looks: &[Vec<Session>]) -> Vec<Waits> {
        let mut works: Vec<Work> = looks.iter().flatten().map(|session| Work::of(&session.name)).collect();
        works.sort();
        works.dedup();
        works.into_iter().filter(|work| *work != Work::Other).map(|work| Waits::of_work(looks, work)).collect()
    }

    fn of_work(looks: &[Vec<Session>], work: Work) -> Waits {
        let of = |look: &Vec<Session>| -> Vec<String> {
            look.iter().filter(|session| Work::of(&session.name) == work).map(Session::waits_for).collect()
        };
        let sessions = looks.iter().map(|look| of(look).len()).max().unwrap_or(0);
        let seen: Vec<String> = looks.iter().flat_map(of).collect();
        let mut events: Vec<(String, f64)> = Vec::new();
        for event in &seen {
            match events.iter_mut().find(|(known, _)| known == event) {
                Some((_, share)) => *share += 1.0 / seen.len() as f64,
                None => events.push((event.clone(), 1.0 / seen.len() as f64)),
            }
        }
        events.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Waits { work, sessions, events }
    }

    /// How much of the time they were in one of these: `running`, `idle`, `Client: ClientRead`, or a whole
    /// type as `IO: `.
    pub fn share(&self, of: &[&str]) -> f64 {
        let counts = |event: &str| of.iter().any(|of| event == *of || of.ends_with(": ") && event.starts_with(of));
        self.events.iter().filter(|(event, _)| counts(event)).map(|(_, share)| share).sum()
    }
}

/// A session of pgmig that waits for a lock.
#[derive(Debug, Clone, Serialize)]
pub struct Blocked {
    pub pid: i32,
    pub name: String,
    pub seconds: f64,
    pub mode: String,
    /// A relation, or what else is locked.
    pub on: String,
    /// The first ones in the line before it.
    pub holders: Vec<i32>,
}

/// Who holds what a session of pgmig waits for.
#[derive(Debug, Clone, Serialize)]
pub struct Holder {
    /// 0 for a prepared transaction.
    pub pid: i32,
    /// Its `backend_type`, such as `client backend`.
    pub backend: String,
    pub role: String,
    pub application: String,
    pub state: String,
    pub transaction_seconds: f64,
    pub query_seconds: f64,
    /// Without values.
    pub statement: String,
    /// Name of a prepared transaction.
    pub prepared: Option<String>,
}

impl Holder {
    /// Whether it is one of pgmig's own.
    pub fn ours(&self) -> bool {
        self.application.starts_with("pgmig ")
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Vacuum {
    pub pid: i32,
    pub relation: String,
    pub phase: String,
    /// How much of the table is read, from 0 to 1.
    pub done: Option<f64>,
    pub automatic: bool,
    pub against_wraparound: bool,
    pub seconds: f64,
}

/// What was seen of one server.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Seen {
    pub waits: Vec<Waits>,
    pub blocked: Vec<Blocked>,
    pub holders: Vec<Holder>,
    pub vacuums: Vec<Vacuum>,
}

impl Seen {
    pub fn of(&self, work: Work) -> Option<&Waits> {
        self.waits.iter().find(|waits| waits.work == work)
    }
}

/// All that was seen.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What the target wrote meanwhile.
    pub growth: Option<Growth>,
    /// And the source.
    pub source_growth: Option<Growth>,
    pub before: Progress,
    pub after: Progress,
    pub seconds: f64,
    pub target: Seen,
    /// None without `--source`, or where it does not answer.
    pub source: Option<Seen>,
    pub health: Option<SourceHealth>,
    /// Tables of which a Part is in hand, as the server writes their names.
    pub copying: Vec<String>,
    /// Parts in hand of which no byte moved while they were watched.
    pub still: Vec<String>,
}

/// How much a server wrote while it was watched: of WAL in the whole server, and by how much the database grew.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Growth {
    pub seconds: f64,
    pub wal_bytes_per_second: Option<f64>,
    pub database_bytes: i64,
    /// Less than nothing where it shrank.
    pub database_bytes_per_second: Option<f64>,
}

/// What a migration waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Nothing,
    NotRunning,
    Paused,
    Lock,
    Slot,
    Limit,
    Vacuum,
    Source,
    Line,
    Target,
}

/// What it comes to, in one line, and what mends it.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    pub cause: Cause,
    /// Whether nothing moves before somebody does something.
    pub stalled: bool,
    pub text: String,
    pub mend: Option<Mend>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Mend {
    /// Where it is to be typed.
    pub place: Place,
    pub statement: String,
}

impl Mend {
    pub fn in_words(&self) -> String {
        let place = match self.place {
            Place::Source => "on the source: ",
            Place::Target => "on the target: ",
            Place::Here => "",
        };
        format!("{place}{}", self.statement)
    }
}

/// A statement without the values in it: strings and numbers become `?`, and where a value could hide (a
/// comment, a dollar quote, a backslash) or at 120 characters it ends.
pub fn without_values(statement: &str) -> String {
    const MOST: usize = 120;
    let mut text = String::new();
    let mut rest = statement.chars().peekable();
    // Whether what comes is part of a name that was begun.
    let mut in_name = false;
    while let Some(c) = rest.next() {
        let next = rest.peek().copied();
        if text.chars().count() >= MOST
            || c == '$' && !next.is_some_and(|c| c.is_ascii_digit())
            || c == '\\'
            || c == '-' && next == Some('-')
            || c == '/' && next == Some('*')
        {
            return text.trim_end().to_string() + "…";
        }
        match c {
            '\'' => {
                loop {
                    match rest.next() {
                        Some('\'') if rest.peek() == Some(&'\'') => {
                            rest.next();
                        }
                        Some('\'') => break,
                        // It may end elsewhere than it seems.
                        Some('\\') | None => return text + "?…",
                        Some(_) => {}
                    }
                }
                text.push('?');
                in_name = false;
            }
            '"' => {
                text.push('"');
                loop {
                    match rest.next() {
                        Some('"') => break text.push('"'),
                        Some(c) => text.push(c),
                        None => return text + "…",
                    }
                }
                in_name = false;
            }
            c if c.is_ascii_digit() && !in_name => {
                while rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '.').is_some() {}
                text.push('?');
            }
            c if c.is_whitespace() => {
                if !text.is_empty() && !text.ends_with(' ') {
                    text.push(' ');
                }
                in_name = false;
            }
            c => {
                in_name = c.is_alphanumeric() || c == '_' || c == '$' || c == '.' && in_name;
                text.push(c);
            }
        }
    }
    text.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_shown_without_its_values() {
        let cases = [
            ("lock table public.t2 in share mode", "lock table public.t2 in share mode"),
            ("update t set a='o''brien',\n  b = 17.5 where id=$1", "update t set a=?, b = ? where id=$1"),
            ("select * from \"T 1\" where x = E'a\\'b' and y", "select * from \"T 1\" where x = E?…"),
            ("select 'a\\', 'secret'", "select ?…"),
            ("do $x$ secret $x$", "do…"),
            ("insert into t values (1, 'cut off here", "insert into t values (?, ?…"),
            ("select 1 -- secret", "select ?…"),
            ("select /* secret */ 1", "select…"),
            ("select x'1F', 1e10, 0x1F, -5", "select x?, ?, ?, -?"),
        ];
        for (statement, expected) in cases {
            assert_eq!(without_values(statement), expected, "{statement}");
        }
    }

    #[test]
    fn waits_are_counted_by_work() {
        let session = |name: &str, state: &str, wait: Option<&str>| Session {
            pid: 1,
            name: name.into(),
            state: state.into(),
            wait_type: wait.map(|_| "Client".into()),
            wait: wait.map(str::to_string),
            seconds: 0.0,
        };
        let looks = [
            vec![session("pgmig part 7", "active", Some("ClientRead")), session("pgmig run", "idle", None)],
            vec![session("pgmig part 8", "active", None), session("pgmig copy", "active", Some("ClientRead"))],
        ];
        let waits = Waits::of(&looks);
        assert_eq!(waits.len(), 1);
        assert_eq!((waits[0].work, waits[0].sessions), (Work::Copy, 2));
        assert_eq!(waits[0].events[0].0, "Client: ClientRead");
        assert!((waits[0].share(&["Client: "]) - 2.0 / 3.0).abs() < 1e-9);
        assert!((waits[0].share(&["running"]) - 1.0 / 3.0).abs() < 1e-9);
    }
}
