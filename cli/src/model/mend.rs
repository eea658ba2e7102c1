//! What mends a finding, as data: words where it takes a decision, and the steps, each with the server it is
//! for, who may take it and what else it does. Nothing reads a step out of words.

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::{Place, TableName};

pub const SUPERUSER: &str = "a superuser";
pub const OWNER: &str = "the owner or a superuser";
pub const ROLE_MAKER: &str = "a role that may make roles";
pub const OPERATOR: &str = "whoever runs the server";
/// Makes what ALTER SYSTEM has written hold, as far as that takes no restart.
pub const RELOAD: &str = "select pg_reload_conf();";

/// How many statements are shown where many do the same.
const SHOWN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A statement that `preflight --fix` runs.
    Sql,
    /// A statement that takes a decision of people first: it ends what somebody does, or costs what only they
    /// can weigh.
    ByHand,
    /// The server begins anew.
    Restart,
    /// Something that no SQL does.
    Outside,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub side: Place,
    pub kind: Kind,
    /// As it is typed.
    pub statement: String,
    /// Who may.
    pub by: Cow<'static, str>,
    /// What it does beside mending; null where it is harmless.
    pub caution: Option<Cow<'static, str>>,
    /// For one that gives a table a replica identity: what takes it back.
    #[serde(skip)]
    pub gives: Option<Given>,
}

impl Step {
    pub fn sql(side: Place, by: impl Into<Cow<'static, str>>, statement: impl Into<String>) -> Step {
        Step { side, kind: Kind::Sql, statement: statement.into(), by: by.into(), caution: None, gives: None }
    }
    pub fn restart(side: Place, command: impl Into<String>) -> Step {
        Step { kind: Kind::Restart, ..Step::sql(side, OPERATOR, command) }.caution("ends every session")
    }
    pub fn outside(side: Place, command: impl Into<String>) -> Step {
        Step { kind: Kind::Outside, ..Step::sql(side, OPERATOR, command) }
    }
    pub fn caution(mut self, caution: impl Into<Cow<'static, str>>) -> Step {
        self.caution = Some(caution.into());
        self
    }
    /// What makes two steps the same.
    pub fn place_and_text(&self) -> (Place, String) {
        (self.side, self.statement.clone())
    }
    /// Shown, and never run by pgmig.
    pub fn by_hand(mut self) -> Step {
        if self.kind == Kind::Sql {
            self.kind = Kind::ByHand;
        }
        self
    }
}

/// Words and steps; both empty where nothing can be done, or need be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mend {
    pub words: String,
    pub steps: Vec<Step>,
}

impl Mend {
    pub fn new(words: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Mend {
        Mend { words: words.into(), steps: steps.into_iter().collect() }
    }
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.steps.is_empty()
    }
    /// The steps as people read them, a line each: the first few where they are many.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.steps.iter().take(SHOWN).map(|step| step.statement.clone()).collect();
        if self.steps.len() > SHOWN {
            lines.push(format!("-- and {} more: pgmig preflight --json shows them", self.steps.len() - SHOWN));
        }
        lines
    }
}

impl From<&str> for Mend {
    fn from(words: &str) -> Mend {
        Mend::new(words, [])
    }
}
impl From<String> for Mend {
    fn from(words: String) -> Mend {
        Mend::new(words, [])
    }
}
impl From<Step> for Mend {
    fn from(step: Step) -> Mend {
        Mend::new("", [step])
    }
}
impl From<Vec<Step>> for Mend {
    fn from(steps: Vec<Step>) -> Mend {
        Mend::new("", steps)
    }
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        let lines = self.lines().join("\n");
        let between = if self.words.is_empty() || lines.is_empty() { "" } else { "\n" };
        write!(f, "{between}{lines}")
    }
}

/// `mend`, all of it as a text or null, and `steps`.
impl Serialize for Mend {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("mend", &(!self.is_empty()).then(|| self.to_string()))?;
        map.serialize_entry("steps", &self.steps)?;
        map.end()
    }
}

/// A replica identity that pgmig gave a table of the source, and what puts back the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub table: TableName,
    pub oid: u32,
    /// As in ALTER TABLE.
    pub made: String,
    pub revert: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mend_is_a_text_for_people_and_steps_for_machines() {
        let step = |n: usize| Step::sql(Place::Source, OWNER, format!("select {n};"));
        let mend = Mend::new("or wait:", (0..10).map(step));
        let text = mend.to_string();
        assert!(text.starts_with("or wait:\nselect 0;\n") && text.contains("select 7;\n-- and 2 more"), "{text}");
        let shown = serde_json::to_value(&mend).unwrap();
        assert_eq!(shown["mend"], text.as_str());
        assert_eq!(shown["steps"].as_array().map(Vec::len), Some(10));
        assert_eq!(shown["steps"][9]["kind"], "sql");
        assert_eq!(serde_json::to_value(Mend::default()).unwrap()["mend"], serde_json::Value::Null);
        assert_eq!(Mend::from(step(1)).to_string(), "select 1;");
    }
}
