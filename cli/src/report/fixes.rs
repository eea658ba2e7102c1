//! What `pgmig preflight --fix` says: what it would run and as whom, what it leaves to people, and what became
//! of it. Pure.

use crate::model::Place;
use crate::model::fix::Fix;
use crate::model::mend::SUPERUSER;

/// Who runs the statements of a side.
#[derive(Debug, Clone)]
pub struct Runner {
    pub role: String,
    pub superuser: bool,
}

pub fn side(place: Place) -> &'static str {
    match place {
        Place::Source => "source",
        Place::Target => "target",
        Place::Here => "here",
    }
}

/// Every statement, below it what else it does and, where the runner may lack the right, who has it.
pub fn preview(run: &[Fix], runner: impl Fn(Place) -> Option<Runner>) -> String {
    let mut text = String::new();
    for place in [Place::Source, Place::Target] {
        let of: Vec<&Fix> = run.iter().filter(|fix| fix.step.side == place).collect();
        let (false, Some(Runner { role, superuser })) = (of.is_empty(), runner(place)) else { continue };
        let who = if superuser { format!("{role}, {SUPERUSER}") } else { role };
        text.push_str(&format!("to be run on the {}, as {who}:\n", side(place)));
        for fix in of {
            text.push_str(&format!("  {}\n", fix.step.statement));
            cautioned(&mut text, fix);
            if !superuser {
                text.push_str(&format!("      may be run by: {}\n", fix.step.by));
            }
        }
    }
    text
}

/// What no statement mends, or none that is run unasked.
pub fn left(left: &[Fix]) -> String {
    let mut text = String::new();
    for fix in left {
        if text.is_empty() {
            text.push_str("left to you:\n");
        }
        let mut lines = fix.step.statement.lines();
        let place = side(fix.step.side);
        text.push_str(&format!("  {place}, {}: {}\n", fix.check, lines.next().unwrap_or_default()));
        lines.for_each(|line| text.push_str(&format!("      {line}\n")));
        cautioned(&mut text, fix);
    }
    text
}

fn cautioned(text: &mut String, fix: &Fix) {
    if let Some(caution) = &fix.step.caution {
        text.push_str(&format!("      caution: {caution}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, Mend, Service, Step, Verdict};
    use std::collections::HashSet;

    #[test]
    fn a_preview_shows_each_statement_with_side_role_and_caution() {
        let of = Service::SelfManaged;
        let found =
            |place, check, mend: Mend| Finding { place, check, verdict: Verdict::Fail, message: String::new(), mend };
        let findings = [
            found(Place::Source, "wal_level", of.logical_decoding(Place::Source)),
            found(Place::Source, "version", "upgrade the source\nfirst".into()),
            found(Place::Target, "create", Step::sql(Place::Target, "the owner", "grant create;").into()),
        ];
        let fixes = crate::model::fix::fixes(&findings, &HashSet::new());
        let runner = |place| Some(Runner { role: "mover".into(), superuser: place == Place::Source });
        let expected = "\
to be run on the source, as mover, a superuser:
  alter system set wal_level = logical;
      caution: changes a setting of the whole server
  select pg_reload_conf();
to be run on the target, as mover:
  grant create;
      may be run by: the owner
left to you:
  source, wal_level: -- then restart the server
      caution: ends every session
  source, version: upgrade the source
      first
";
        assert_eq!(preview(&fixes.run, runner) + &left(&fixes.left), expected);
    }
}
