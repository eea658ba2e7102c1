//! `pgmig plan`: draws up the same plan as `run`, shows it and forgets it. Both sides are only read.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use crate::args::PlanArgs;
use crate::command::conninfo;
use crate::command::run::{cutting, large_object_parts, leave, named};
use crate::config::filters::Filters;
use crate::config::requirements::Requirements;
use crate::connect::{self, Side};
use crate::copy::draft::{self, Draft, Roles};
use crate::copy::parts::LARGE_OBJECTS;
use crate::error::{Context, Error, Exit, Result};
use crate::model::TableName;
use crate::preflight;
use crate::report::plan::{Counts, Plan, Refusal, Table};
use crate::report::{json, plan};
use crate::source::snapshot::SnapshotHolder;
use crate::target;

pub async fn plan(args: PlanArgs) -> Result<Exit> {
    let filters = args.what.filters.as_deref().map(Filters::read).transpose()?;
    let source = conninfo(&args.source.source)?;
    let client = connect::client(&source, Side::Source, "pgmig plan", &[]).await?;
    let requirements = args.what.requirements.as_deref().map(Requirements::read).transpose()?;
    let (mut target_version, mut refused) = (None, None);
    let (mut there, mut by_superuser, mut warnings) = (HashSet::new(), true, Vec::new());
    if let Some(target) = &args.target {
        let target = connect::client(&conninfo(target)?, Side::Target, "pgmig plan", &[]).await?;
        preflight::two_databases(&client, &target).await?;
        let asked = preflight::Asked {
            follow: !args.no_follow,
            slot_name: args.slot_name.clone().unwrap_or_else(|| format!("pgmig_{}", args.name)),
            plugin: named(args.plugin),
            flavour: None,
            allow_insert_only: args.what.allow_insert_only,
            filters: filters.clone(),
            endpos: None,
            leave: leave(&args.what),
            requirements: requirements.clone(),
            drop_if_exists: args.what.drop_if_exists,
            roles: args.what.roles.then_some(!args.what.no_role_passwords),
            large_objects: !args.what.skip_large_objects,
            sessions: 5,
            // It only reads.
            tries: None,
            begun: None,
        };
        let mut checks = preflight::Checks::default();
        let facts = preflight::check(&client, &target, &asked, &mut checks).await?;
        target_version = Some(facts.target_version);
        there = target::checks::roles(&target).await?;
        by_superuser = target::checks::is_superuser(&target).await?;
        warnings = checks.warnings;
        refused = Some(checks.wrong);
    }
    let holder = SnapshotHolder::new(client, None).await?;
    let asked = draft::Asked {
        source: &source,
        filters: filters.as_ref(),
        follow: !args.no_follow,
        cut: cutting(&args.split),
        leave: leave(&args.what),
        large_object_parts: large_object_parts(&args.split, &args.what),
        requirements: requirements.as_ref(),
        drop_if_exists: args.what.drop_if_exists,
        roles: args.what.roles.then_some(Roles { passwords: !args.what.no_role_passwords, there, by_superuser }),
        target_version,
        target_database: None,
    };
    let folder = tempfile::tempdir().during(Exit::Dir, || "make a temporary folder".into())?;
    let draft = draft::draft(&holder, &asked, &folder.path().join("schema.dump")).await?;
    let mut shown = shown(&draft, &asked, refused);
    shown.warnings.append(&mut warnings);
    let text = if args.json {
        let object = serde_json::to_string(&shown).during(Exit::Bug, || "write the plan".into())?;
        format!("{object}\n")
    } else {
        plan::text(&shown)
    };
    // A reader that went away is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let stands = shown.refused.as_ref().is_some_and(|refused| !refused.is_empty());
    Ok(if stands { Exit::No } else { Exit::Done })
}

fn shown(draft: &Draft, asked: &draft::Asked<'_>, refused: Option<Vec<Error>>) -> Plan {
    // As workers take them.
    let mut parts: Vec<_> = draft.parts.iter().enumerate().collect();
    parts.sort_by_key(|(at, part)| (std::cmp::Reverse(part.bytes), *at));
    let mut tables: Vec<Table> = Vec::new();
    let mut known: HashMap<&TableName, usize> = HashMap::new();
    for (_, part) in parts {
        if (part.table.schema.as_str(), part.table.table.as_str()) == LARGE_OBJECTS {
            continue;
        }
        let at = *known.entry(&part.table).or_insert_with(|| {
            tables.push(Table {
                name: part.table.clone(),
                bytes: 0,
                parts: 0,
                format: if part.binary { "binary" } else { "text" },
                ranges: Vec::new(),
            });
            tables.len() - 1
        });
        tables[at].bytes += part.bytes as u64;
        tables[at].parts += 1;
        tables[at].ranges.extend(part.predicate.clone());
    }
    let steps = |stage: &str| draft.steps.iter().filter(|step| step.stage == stage).count() as u64;
    let selection = &draft.selected.selection;
    Plan {
        format: json::FORMAT,
        tables,
        counts: Counts {
            parts: draft.parts.len() as u64,
            indexes: steps("index"),
            constraints: steps("constraint"),
            foreign_keys: steps("foreign_key"),
            sequences: selection.sequences.len() as u64,
            materialized_views: steps("refresh"),
            roles: draft.steps.iter().filter(|step| step.kind == "ROLE" && step.blocking).count() as u64,
            extensions: draft.steps.iter().filter(|step| step.kind == "EXTENSION").count() as u64,
            large_objects: if asked.large_object_parts == 0 { 0 } else { draft.large_objects as u64 },
        },
        left_out: selection.left_out.clone(),
        unmatched: draft.selected.unmatched.clone(),
        warnings: draft.warnings(asked),
        refused: refused.map(|wrong| {
            wrong.iter().map(|e| Refusal { message: e.chain(), hint: e.hint_text().map(str::to_string) }).collect()
        }),
    }
}
