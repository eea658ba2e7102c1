//! What `preflight --fix` runs of what the checks found, and what it leaves to people. Pure.

use std::collections::HashSet;

use serde::Serialize;

use super::mend::{Kind, OPERATOR, RELOAD, SUPERUSER};
use super::{Finding, Place, Step, Verdict};

/// A step and the check that asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    pub check: &'static str,
    #[serde(flatten)]
    pub step: Step,
}

/// What became of one.
#[derive(Debug, Serialize)]
pub struct Fixed {
    #[serde(flatten)]
    pub fix: Fix,
    pub outcome: Outcome,
    /// Why it failed, in the server's words.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed,
    /// Nobody said yes.
    NotRun,
    /// For people to do.
    Left,
}

#[derive(Debug, Default)]
pub struct Fixes {
    /// Statements in the order in which they are run, each once.
    pub run: Vec<Fix>,
    /// What people have to do.
    pub left: Vec<Fix>,
}

/// `tried` are statements that were run before, which do not help then.
pub fn fixes(findings: &[Finding], tried: &HashSet<(Place, String)>) -> Fixes {
    let mut fixes = Fixes::default();
    let mut seen = tried.clone();
    for found in findings.iter().filter(|found| found.verdict != Verdict::Pass) {
        for step in &found.mend.steps {
            let run = step.kind == Kind::Sql;
            if step.statement == RELOAD && run || !seen.insert(step.place_and_text()) {
                continue;
            }
            let list = if run { &mut fixes.run } else { &mut fixes.left };
            list.push(Fix { check: found.check, step: step.clone() });
        }
        if found.verdict == Verdict::Fail && found.mend.steps.is_empty() {
            let step = Step { kind: Kind::Outside, ..Step::sql(found.place, OPERATOR, &found.mend.words) };
            fixes.left.push(Fix { check: found.check, step });
        }
    }
    // Once, behind all that it makes hold; what waits for a restart is known as such from then on.
    for side in [Place::Source, Place::Target] {
        let configures = |fix: &&Fix| fix.step.side == side && fix.step.statement.starts_with("alter system ");
        if let Some(fix) = fixes.run.iter().find(configures) {
            let reload = Fix { check: fix.check, step: Step::sql(side, SUPERUSER, RELOAD) };
            fixes.run.push(reload);
        }
    }
    fixes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mend, Service};

    fn found(check: &'static str, verdict: Verdict, mend: impl Into<Mend>) -> Finding {
        Finding { place: Place::Source, check, verdict, message: String::new(), mend: mend.into() }
    }

    #[test]
    fn only_sql_that_takes_no_decision_is_run_and_each_statement_once() {
        let set = |name: &str, restart| Service::SelfManaged.set(Place::Source, name, "1", restart);
        let grant = || Step::sql(Place::Source, SUPERUSER, "grant select on t to m;");
        let findings = [
            found("a", Verdict::Pass, ""),
            found("wal_level", Verdict::Fail, set("x", true)),
            found("plugin", Verdict::Fail, set("y", false)),
            found("select", Verdict::Fail, grant()),
            found("again", Verdict::Warn, grant()),
            found("slot", Verdict::Fail, Step::sql(Place::Source, SUPERUSER, "select drop();").by_hand()),
            found("version", Verdict::Fail, "upgrade"),
            found("words", Verdict::Warn, "think"),
        ];
        let statements = |list: &[Fix]| -> Vec<String> {
            list.iter().map(|fix| format!("{}: {}", fix.check, fix.step.statement)).collect()
        };
        let all = fixes(&findings, &HashSet::new());
        let run = [
            "wal_level: alter system set x = 1;",
            "plugin: alter system set y = 1;",
            "select: grant select on t to m;",
            "wal_level: select pg_reload_conf();",
        ];
        assert_eq!(statements(&all.run), run);
        let left = ["wal_level: -- then restart the server", "slot: select drop();", "version: upgrade"];
        assert_eq!(statements(&all.left), left);
        // What was run and did not help is not run for ever.
        let tried: HashSet<_> = all.run.into_iter().map(|fix| fix.step.place_and_text()).collect();
        assert!(fixes(&findings, &tried).run.is_empty());
    }
}
