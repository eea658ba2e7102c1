//! What `pgmig preflight` shows: a table for people, an object for machines. Pure.

use serde::Serialize;

use crate::model::fix::Fixed;
use crate::model::mend::Kind;
use crate::model::{Finding, Place, Verdict};

#[derive(Debug, Serialize)]
pub struct Findings {
    pub format: u32,
    pub passed: usize,
    pub warned: usize,
    pub failed: usize,
    pub findings: Vec<Finding>,
    /// With --fix, what was run in its order, and what is left to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Vec<Fixed>>,
}

impl Findings {
    pub fn new(format: u32, mut findings: Vec<Finding>) -> Findings {
        // As they were found on each side.
        findings.sort_by_key(|found| found.place);
        let count = |verdict| findings.iter().filter(|found| found.verdict == verdict).count();
        let (passed, warned, failed) = (count(Verdict::Pass), count(Verdict::Warn), count(Verdict::Fail));
        Findings { format, passed, warned, failed, findings, fixed: None }
    }
}

const WIDTH: usize = 100;

/// Side by side what was looked at and found; below it what mends it.
pub fn table(all: &Findings) -> String {
    let mut text = String::new();
    let width = all.findings.iter().map(|found| found.check.chars().count()).max().unwrap_or(0);
    let indent = 8 + width + 2;
    for place in [Place::Source, Place::Target, Place::Here] {
        let of: Vec<&Finding> = all.findings.iter().filter(|found| found.place == place).collect();
        if of.is_empty() {
            continue;
        }
        text.push_str(match place {
            Place::Source => "source\n",
            Place::Target => "target\n",
            Place::Here => "here\n",
        });
        for found in of {
            let verdict = match found.verdict {
                Verdict::Pass => "PASS",
                Verdict::Warn => "WARN",
                Verdict::Fail => "FAIL",
            };
            for (at, line) in wrapped(&found.message, WIDTH.saturating_sub(indent)).iter().enumerate() {
                match at {
                    0 => text.push_str(&format!("  {verdict}  {:<width$}  {line}\n", found.check)),
                    _ => text.push_str(&format!("{:indent$}{line}\n", "")),
                }
            }
            let words = found.mend.words.lines().flat_map(|line| wrapped(line, WIDTH - 8));
            // What is to be typed stays in one piece.
            for line in words.chain(found.mend.lines()) {
                text.push_str(&format!("        {line}\n"));
            }
        }
    }
    let (warned, failed) = (all.warned, all.failed);
    let warnings = if warned == 1 { "warning" } else { "warnings" };
    text.push_str(&format!("{} passed, {warned} {warnings}, {failed} failed\n", all.passed));
    text
}

/// The table, and the next step.
pub fn text(all: &Findings) -> String {
    let sql = |found: &Finding| found.mend.steps.iter().any(|step| step.kind == Kind::Sql);
    let next = match (all.failed, all.warned) {
        (0, 0) => "next: `pgmig run`, with the same flags\n",
        (0, _) => "next: read the warnings, then `pgmig run` with the same flags\n",
        _ if all.fixed.is_none() && all.findings.iter().any(sql) => {
            "next: mend what failed, then `pgmig preflight` again; --fix runs what SQL can mend\n"
        }
        _ => "next: mend what failed, then `pgmig preflight` again\n",
    };
    table(all) + next
}

/// Cut at spaces; a longer word stays whole.
pub(super) fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.len() - 1;
        let used = lines[last].chars().count();
        if used > 0 && used + 1 + word.chars().count() > width {
            lines.push(word.to_string());
            continue;
        }
        if used > 0 {
            lines[last].push(' ');
        }
        lines[last].push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mend::SUPERUSER;
    use crate::model::{Mend, Step};

    #[test]
    fn a_table_of_findings_says_what_mends_and_what_comes_next() {
        let found = |place, check, verdict, message: &str, words: &str, statement: &str| {
            let step = (!statement.is_empty()).then(|| Step::sql(place, SUPERUSER, statement));
            Finding { place, check, verdict, message: message.into(), mend: Mend::new(words, step) }
        };
        let long =
            "objects belong to roles that the target does not have: alfa, bravo, charlie, delta, echo and 9 more";
        let findings = vec![
            found(Place::Target, "owners", Verdict::Fail, long, "run with --roles, or:", "create role \"alfa\";"),
            found(Place::Source, "wal_level", Verdict::Pass, "logical", "", ""),
            found(Place::Source, "prepared transactions", Verdict::Warn, "x", "", "rollback prepared 'x';"),
        ];
        let all = Findings::new(1, findings);
        let expected = "\
source
  PASS  wal_level              logical
  WARN  prepared transactions  x
        rollback prepared 'x';
target
  FAIL  owners                 objects belong to roles that the target does not have: alfa, bravo,
                               charlie, delta, echo and 9 more
        run with --roles, or:
        create role \"alfa\";
1 passed, 1 warning, 1 failed
next: mend what failed, then `pgmig preflight` again; --fix runs what SQL can mend
";
        assert_eq!(text(&all), expected);
        assert!(text(&all).lines().all(|line| line.chars().count() <= WIDTH));
    }
}
