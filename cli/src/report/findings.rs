//! What `pgmig preflight` shows: a table for people, an object for machines. Pure.

use serde::Serialize;

use crate::model::{Finding, Place, Verdict};

#[derive(Debug, Serialize)]
pub struct Findings {
    pub format: u32,
    pub passed: usize,
    pub warned: usize,
    pub failed: usize,
    pub findings: Vec<Finding>,
}

impl Findings {
    pub fn new(format: u32, mut findings: Vec<Finding>) -> Findings {
        // As they were found on each side.
        findings.sort_by_key(|found| found.place);
        let count = |verdict| findings.iter().filter(|found| found.verdict == verdict).count();
        let (passed, warned, failed) = (count(Verdict::Pass), count(Verdict::Warn), count(Verdict::Fail));
        Findings { format, passed, warned, failed, findings }
    }
}

const WIDTH: usize = 100;

/// Side by side what was looked at and found; below it what mends it. Ends with the next step.
pub fn text(all: &Findings) -> String {
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
            for line in found.mend.iter().flat_map(|mend| mend.lines()) {
                // A line that is to be typed stays in one piece, at the edge.
                match typed(line) {
                    true => text.push_str(&format!("        {line}\n")),
                    false => {
                        wrapped(line, WIDTH - 8).iter().for_each(|line| text.push_str(&format!("        {line}\n")))
                    }
                }
            }
        }
    }
    let (warned, failed) = (all.warned, all.failed);
    text.push_str(&format!(
        "{} passed, {warned} {}, {failed} failed\n",
        all.passed,
        if warned == 1 { "warning" } else { "warnings" }
    ));
    text.push_str(match (failed, warned) {
        (0, 0) => "next: `pgmig run`, with the same flags\n",
        (0, _) => "next: read the warnings, then `pgmig run` with the same flags\n",
        _ => "next: mend what failed, then `pgmig preflight` again\n",
    });
    text
}

/// Whether it is a statement or a command, and not words about one.
fn typed(line: &str) -> bool {
    line.ends_with(';') || ["aws ", "gcloud ", "az ", "npx "].iter().any(|command| line.starts_with(command))
}

/// Cut at spaces; a longer word stays whole.
fn wrapped(line: &str, width: usize) -> Vec<String> {
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

    #[test]
    fn a_table_of_findings_says_what_mends_and_what_comes_next() {
        let found = |place, check, verdict, message: &str, mend: Option<&str>| Finding {
            place,
            check,
            verdict,
            message: message.into(),
            mend: mend.map(str::to_string),
        };
        let long =
            "objects belong to roles that the target does not have: alfa, bravo, charlie, delta, echo and 9 more";
        let findings = vec![
            found(Place::Target, "owners", Verdict::Fail, long, Some("run with --roles, or:\ncreate role \"alfa\";")),
            found(Place::Source, "wal_level", Verdict::Pass, "logical", None),
            found(Place::Source, "prepared transactions", Verdict::Warn, "x", Some("rollback prepared 'x';")),
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
next: mend what failed, then `pgmig preflight` again
";
        assert_eq!(text(&all), expected);
        assert!(text(&all).lines().all(|line| line.chars().count() <= WIDTH));
    }
}
