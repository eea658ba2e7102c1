//! The whole plan of a migration, drawn up under one snapshot: what is selected, its Parts and steps.
//! `run` stores it, `plan` shows it; since both call this, they cannot say different things. It changes
//! nothing on either side.

use std::path::Path;

use super::parts::{self, Cut, SplitBy, parts};
use super::steps::steps;
use crate::config::Conninfo;
use crate::config::filters::Filters;
use crate::error::{Context, Result};
use crate::selection::{self, Selected};
use crate::source::catalog::{self, Sizes};
use crate::source::dump::{Leave, Section, Tools};
use crate::source::dump_ranges;
use crate::source::large_objects;
use crate::source::snapshot::SnapshotHolder;
use crate::target::queue::{Part, Step};

/// What the plan depends on beside the source.
pub struct Asked<'a> {
    pub source: &'a Conninfo,
    pub filters: Option<&'a Filters>,
    pub follow: bool,
    pub cut: Cutting,
    pub leave: Leave,
    /// In how many Parts large objects are copied; 0 leaves them behind.
    pub large_object_parts: usize,
    /// None where no target is known: it is taken to be of the source's version.
    pub target_version: Option<i32>,
}

/// How large tables are to be cut.
#[derive(Debug, Clone, Copy)]
pub struct Cutting {
    /// Tables larger than this are, in bytes.
    pub larger_than: Option<u64>,
    /// No table into more Parts than this.
    pub parts_max: u64,
    /// None: by ctid where the source reads a range of it without the rest.
    pub by: Option<SplitBy>,
    pub sizes: Sizes,
}

pub struct Draft {
    pub selected: Selected,
    pub parts: Vec<Part>,
    pub steps: Vec<Step>,
    /// How many there are, copied or not.
    pub large_objects: i64,
}

/// Draws up the plan; pg_dump's output goes into `file`.
pub async fn draft(holder: &SnapshotHolder, asked: &Asked<'_>, file: &Path) -> Result<Draft> {
    let client = &holder.client;
    let row = client
        .query_one("select current_setting('server_version_num')::int", &[])
        .await
        .on_source(|| "read the version of the source".into())?;
    let version: i32 = row.get(0);
    let by_version = if version >= 140_000 { SplitBy::Ctid } else { SplitBy::Key };
    let cut = Cut {
        larger_than: asked.cut.larger_than,
        parts_max: asked.cut.parts_max,
        by: asked.cut.by.unwrap_or(by_version),
        binary: asked.target_version.is_none_or(|target| version / 10_000 == target / 10_000),
    };
    let selected = selection::select(client, asked.filters, asked.follow, asked.cut.sizes).await?;
    let mut all: Vec<Part> = Vec::new();
    for table in &selected.tables {
        let keys = match &table.split_key {
            Some(key) if cut.by == SplitBy::Key && cut.count(table) > 1 => {
                catalog::key_bounds(client, table, key, cut.count(table)).await?
            }
            _ => Vec::new(),
        };
        all.extend(parts(table, cut, &keys));
    }
    let (large_objects, bytes) = large_objects::size(client).await?;
    if large_objects > 0 && asked.large_object_parts > 0 {
        // A few are not worth a cut.
        let most = (large_objects as usize).div_ceil(1000);
        let ranges = large_objects::ranges(client, asked.large_object_parts.min(most)).await?;
        all.extend(parts::large_objects(ranges, bytes));
    }
    let mut objects = catalog::objects(client).await?;
    selected.selection.mark_unchecked(&mut objects);
    let tools = Tools::find((version / 10_000) as u32).await?;
    let (mut pre, mut post) = (Vec::new(), Vec::new());
    for patterns in dump_ranges::ranges(client).await? {
        tools.dump(asked.source, &holder.exported, &selected.selection.unreadable, &patterns, file).await?;
        pre.push(tools.entries(file, Section::PreData, asked.leave).await?);
        post.push(tools.entries(file, Section::PostData, asked.leave).await?);
    }
    let needs = if pre.len() > 1 { dump_ranges::relation_needs(client).await? } else { Default::default() };
    let (mut pre, mut post) = (dump_ranges::merge(pre, &needs), dump_ranges::merge(post, &needs));
    let toc = selected.selection.toc();
    pre.retain(|entry| toc.keeps(entry));
    post.retain(|entry| toc.keeps(entry));
    let steps = steps(&pre, &post, &objects, &selected.tables, &selected.selection.materialized_views);
    Ok(Draft { selected, parts: all, steps, large_objects })
}

impl Draft {
    /// What a person should know before it begins, and what odd there is about it.
    pub fn warnings(&self, asked: &Asked<'_>) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.selected.unmatched.iter().map(|entry| format!("{entry} matches nothing")).collect();
        warnings.extend(self.selected.warnings.iter().cloned());
        if !asked.follow {
            return warnings;
        }
        if self.large_objects > 0 {
            let how = match asked.large_object_parts == 0 {
                true => "left behind",
                false => "copied; what changes in them later is not followed",
            };
            warnings.push(format!("{} large objects are {how}", self.large_objects));
        }
        for table in &self.selected.selection.insert_only {
            warnings.push(format!("{table} has no key: an UPDATE or DELETE on the source is not followed"));
        }
        for table in self.selected.tables.iter().filter(|table| !table.logged) {
            warnings.push(format!("{} is unlogged: it is copied, its changes are not followed", table.name));
        }
        warnings
    }
}
