//! This machine and what was typed: PostgreSQL's programs, room under `--dir`, endpos, filters.

use std::path::Path;

use super::Scope;
use super::checks::{Checks, count, some};
use crate::error::Result;
use crate::model::Place;
use crate::report::units;
use crate::source;
use crate::source::dump::Tools;

/// Less than this under `--dir` is told, in bytes.
const LITTLE: u64 = 10 << 30;

pub(super) async fn check(scope: &Scope<'_>, checks: &mut Checks) -> Result<()> {
    let major = (scope.from.version / 10_000) as u32;
    match Tools::find(major).await {
        Ok(tools) => checks.pass(Place::Here, "pg_dump", format!("of PostgreSQL {}", tools.major)),
        Err(error) => checks.refuse(Place::Here, "pg_dump", error),
    }
    if let Some(endpos) = scope.asked.endpos {
        if endpos < source::slot::current_lsn(scope.source).await? {
            let message =
                format!("endpos {endpos} lies behind the source's position: the copy would hold what came after it");
            let mend = "give a position that is still to come, or set it later: pgmig set-endpos";
            checks.fail(Place::Here, "endpos", message, mend);
        } else {
            checks.pass(Place::Here, "endpos", format!("{endpos} is still to come"));
        }
    }
    if scope.asked.filters.is_some() {
        let unmatched = &scope.selected.unmatched;
        if unmatched.is_empty() {
            let tables = count(scope.selected.tables.len(), "table");
            checks.pass(Place::Here, "filters", format!("every entry matches; they leave {tables}"));
        } else {
            checks.warn(Place::Here, "filters", format!("match nothing: {}", some(unmatched)), "see: pgmig plan");
        }
    }
    if let Some(tries) = scope.asked.tries.as_ref().filter(|_| scope.asked.follow)
        && let Some(free) = free(&tries.dir)
    {
        let shown = format!("{} free for changes that wait", units::bytes(free));
        if free < LITTLE {
            let message = format!("{shown}: a full disk stops the run");
            checks.warn(Place::Here, "--dir", message, "give a --dir with more room, or a smaller --spool-limit");
        } else {
            checks.pass(Place::Here, "--dir", shown);
        }
    }
    Ok(())
}

/// Bytes that are free where the folder is or will be.
fn free(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists()).filter(|dir| !dir.as_os_str().is_empty());
    let found = nix::sys::statvfs::statvfs(there.unwrap_or(Path::new("."))).ok()?;
    Some(found.blocks_available() as u64 * found.fragment_size() as u64)
}
