//! The whole plan of a migration, drawn up under one snapshot: what is selected, its Parts and steps.
//! `run` stores it, `plan` shows it; since both call this, they cannot say different things. It changes
//! nothing on either side.

use std::collections::HashSet;
use std::path::Path;

use super::extension_data;
use super::kept::Kept;
use super::parts::{self, Cut, SplitBy, parts};
use super::steps::special::{self, SUBSCRIPTION};
use super::steps::{self, Schema, ours};
use super::united;
use crate::config::Conninfo;
use crate::config::filters::Filters;
use crate::config::requirements::Requirements;
use crate::error::{Context, Error, Exit, Result};
use crate::model::name::identifier;
use crate::model::{Leave, LeftOut, TableName, What};
use crate::selection::{self, Selected};
use crate::source::catalog::{self, Sizes, Table};
use crate::source::dump::{Entry, Tools};
use crate::source::dump_ranges::{Dumped, Dumps};
use crate::source::inventory::class;
use crate::source::snapshot::SnapshotHolder;
use crate::source::{extensions, large_objects, partitions, roles, sample, subscriptions};
use crate::target::layout::There;
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
    pub requirements: Option<&'a Requirements>,
    pub drop_if_exists: bool,
    /// What the target has already, of which tables are kept; None keeps none.
    pub there: Option<&'a There>,
    pub roles: Option<Roles>,
    /// None where no target is known: it is taken to be of the source's version.
    pub target_version: Option<i32>,
    /// Name of the target database; None where it is not known.
    pub target_database: Option<String>,
}

/// Whether roles are made, and by whom.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    pub passwords: bool,
    /// Those that the target has.
    pub there: HashSet<String>,
    /// Whether the target's role is a superuser.
    pub by_superuser: bool,
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
    /// Larger ones by a key where it can be, so that an interrupted copy keeps their Parts, in bytes.
    pub keep_parts_of: Option<u64>,
    /// Every Part is read under a snapshot of its own.
    pub snapshot_per_part: bool,
    pub sizes: Sizes,
}

impl Cutting {
    /// How this table is cut, where tables in general are cut so.
    fn of(&self, table: &Table, general: Cut) -> Cut {
        let tells_part = table.split_key.as_ref().is_some_and(|key| key.tells_part);
        let is_large = self.keep_parts_of.is_some_and(|size| table.bytes > size);
        match tells_part {
            true if self.snapshot_per_part || (self.by.is_none() && is_large) => Cut { by: SplitBy::Key, ..general },
            // Its Parts would be of several moments, and nothing could tell them apart.
            false if self.snapshot_per_part => Cut { larger_than: None, ..general },
            _ => general,
        }
    }

    /// Why an interrupted copy keeps no Part of this table, where it was asked to keep them.
    fn keeps_none(&self, table: &Table, general: Cut) -> Option<String> {
        let is_large = self.keep_parts_of.is_some_and(|size| table.bytes > size);
        let asked = self.snapshot_per_part || self.by == Some(SplitBy::Key) || (self.by.is_none() && is_large);
        if !asked || general.count(table) < 2 {
            return None;
        }
        match &table.split_key {
            Some(key) if key.tells_part => None,
            Some(key) if key.is_text() => Some(format!(
                "its key {} is text in an order that is not the same everywhere: only that of the collation C is",
                identifier(&key.column)
            )),
            _ => Some("no key of it says in every change which Part its row is in".into()),
        }
    }
}

pub struct Draft {
    pub selected: Selected,
    pub parts: Vec<Part>,
    pub steps: Vec<Step>,
    /// Names of steps that need all rows of their table as of one moment.
    pub one_moment: Vec<(TableName, String)>,
    /// Tables that are copied again as a whole if the copy is interrupted, although Parts were to be kept, and why.
    pub kept_whole: Vec<(TableName, String)>,
    /// How many there are, copied or not.
    pub large_objects: i64,
    /// Tables that the target keeps as it has them.
    pub kept: Vec<TableName>,
}

/// Draws up the plan; pg_dump's output goes into `file`.
pub async fn draft(holder: &SnapshotHolder, asked: &Asked<'_>, file: &Path) -> Result<Draft> {
    let client = &holder.client;
    let row = client
        .query_one("select current_setting('server_version_num')::int, current_database()::text", &[])
        .await
        .on_source(|| "read the version of the source".into())?;
    let (version, database): (i32, String) = (row.get(0), row.get(1));
    let by_version = if version >= 140_000 { SplitBy::Ctid } else { SplitBy::Key };
    let cut = Cut {
        larger_than: asked.cut.larger_than,
        parts_max: asked.cut.parts_max,
        by: asked.cut.by.unwrap_or(by_version),
        binary: asked.target_version.is_none_or(|target| version / 10_000 == target / 10_000),
    };
    let mut selected = selection::select(client, asked.filters, asked.follow, asked.cut.sizes).await?;
    sample::measure(client, &mut selected.tables).await;
    let mut united = united::unite(client, asked.there, asked.follow, &mut selected.tables).await?;
    if let (true, Some(united)) = (asked.cut.snapshot_per_part, united.first()) {
        return Err(Error::usage(format!(
            "--snapshot-per-part: {} is copied from several partitions, which must be of one moment",
            united.root
        ))
        .hint("leave --snapshot-per-part out"));
    }
    for united in &mut united {
        partitions::read_conditions(client, &mut united.partitions).await?;
        let is_one = |name: &TableName| united.partitions.iter().any(|partition| partition.name == *name);
        selected.selection.insert_only.retain(|name| !is_one(name));
    }
    if !united.is_empty() {
        selected.selection.tables = selected.tables.iter().map(|table| table.name.clone()).collect();
    }
    let kept = Kept::new(asked.there, &selected.tables, &united);
    let mut all: Vec<Part> = Vec::new();
    let (mut one_moment, mut kept_whole) = (Vec::new(), Vec::new());
    for table in &selected.tables {
        if let Some(united) = united.iter().find(|united| united.root == table.name) {
            all.extend(united::parts_of(&united.root, &united.tables, &united.partitions, cut));
            continue;
        }
        kept_whole.extend(asked.cut.keeps_none(table, cut).map(|why| (table.name.clone(), why)));
        let cut = asked.cut.of(table, cut);
        let keys = match &table.split_key {
            Some(key) if cut.by == SplitBy::Key && cut.count(table) > 1 => {
                catalog::key_bounds(client, table, key, cut.count(table)).await?
            }
            _ => Vec::new(),
        };
        let cut = parts(table, cut, &keys);
        if let Some(range) =
            cut.first().and_then(|part| part.range.as_ref()).filter(|_| !kept.tables.contains(&table.name))
        {
            let names = catalog::of_one_moment(client, table, &range.column).await?;
            one_moment.extend(names.into_iter().map(|name| (table.name.clone(), name)));
        }
        all.extend(cut);
    }
    all.extend(extension_data::plan(client, asked, &mut selected.selection).await?);
    let (large_objects, bytes) = large_objects::size(client).await?;
    let with_large_objects = large_objects > 0 && asked.large_object_parts > 0;
    if with_large_objects {
        // A few are not worth a cut.
        let most = (large_objects as usize).div_ceil(1000);
        let ranges = large_objects::ranges(client, most).await?;
        all.extend(parts::large_objects(ranges, bytes));
    }
    let mut objects = catalog::objects(client).await?;
    selected.selection.mark_unchecked(&mut objects);
    let tools = Tools::find((version / 10_000) as u32).await?;
    let what = Dumped { source: asked.source, without: &selected.selection.unreadable, leave: asked.leave };
    let (dumps, mut pre, mut post) = Dumps::make(&tools, holder, what, file).await?;
    let toc = selected.selection.toc();
    pre.retain(|entry| toc.keeps(entry) && !ours(entry));
    post.retain(|entry| toc.keeps(entry) && !ours(entry));
    let mut left_out: Vec<LeftOut> = kept.leave_out(&mut objects, [&mut pre, &mut post]);
    if let Some(there) = asked.there {
        selected.always_identity.retain(|(table, _)| !kept.tables.contains(table));
        let always = there.always_identity.iter().filter(|(table, _)| kept.tables.contains(table));
        selected.always_identity.extend(always.cloned());
    }
    let gone = selected.selection.objects.iter().filter(|object| object.0 == class::RELATION);
    let gone: HashSet<u32> = gone.map(|object| object.1).collect();
    let mut parents = catalog::parents(client).await?;
    parents.retain(|(oid, name)| !gone.contains(oid) && !united.iter().any(|united| united.root == *name));
    let parents: Vec<TableName> = parents.into_iter().map(|(_, name)| name).collect();
    left_out.extend(leave_out(&mut pre, asked.leave));
    left_out.extend(leave_out(&mut post, asked.leave));
    left_out.extend(asked.leave.of_all().into_iter().map(|(flag, what)| {
        let (kind, name) = (what.to_string(), "of all objects".to_string());
        LeftOut { what: What::Object, kind, name, why: flag.into() }
    }));
    for name in subscriptions::names(client).await? {
        if !post.iter().any(|entry| entry.kind == SUBSCRIPTION && entry.tag == name) {
            let why = "only a superuser of the source can dump it".to_string();
            left_out.push(LeftOut { what: What::Object, kind: "subscription".into(), name, why });
        }
    }
    if large_objects > 0 && !with_large_objects {
        let name = format!("{large_objects} of them");
        let why = "--skip-large-objects".to_string();
        left_out.push(LeftOut { what: What::Object, kind: "large objects,".into(), name, why });
    }
    let mut steps = Vec::new();
    if asked.drop_if_exists {
        steps.extend(special::drops(dumps.drops(&tools, pre.iter().chain(&post)).await?));
        let defaults = pre.iter().chain(&post).filter(|entry| entry.kind == "DEFAULT ACL");
        steps.extend(defaults.flat_map(special::default_privileges));
        if with_large_objects {
            steps.extend(special::unlink(&large_objects::numbers(client).await?));
        }
    }
    if let Some(roles) = &asked.roles {
        if roles.passwords && !roles::passwords_readable(client).await? {
            return Err(Error::new(Exit::Source, "the role may not read the passwords of roles on the source")
                .hint("give a superuser, or --no-role-passwords"));
        }
        let statements = roles::new_roles(&tools.roles(asked.source).await?, &roles.there);
        steps.extend(special::roles(&statements, roles.passwords, roles.by_superuser));
    }
    let schema = Schema {
        pre: &pre,
        post: &post,
        objects: Some(&objects),
        tables: &selected.tables,
        parents: &parents,
        populated: &selected.selection.materialized_views,
        requirements: asked.requirements,
        database: asked.target_database.as_deref().unwrap_or(&database),
        analyze: !asked.leave.analyze,
    };
    steps::add(&schema, &mut steps);
    let selection = &mut selected.selection;
    selection.left_out.extend(left_out);
    selection.left_out.sort();
    if let Some(requirements) = asked.requirements {
        let there = extensions::list(client).await?;
        let unknown = requirements.names().filter(|name| !there.iter().any(|extension| extension.name == **name));
        let warnings = unknown.map(|name| format!("--requirements names {name}, which the source does not have"));
        selected.warnings.extend(warnings);
    }
    let mut kept: Vec<TableName> = kept.tables.into_iter().collect();
    kept.sort();
    Ok(Draft { selected, parts: all, steps, one_moment, kept_whole, large_objects, kept })
}

/// Takes out what flags leave behind; says what it was.
pub fn leave_out(entries: &mut Vec<Entry>, leave: Leave) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    entries.retain(|entry| {
        let Some(flag) = leave.flag(&entry.kind, &entry.tag) else { return true };
        let name = match &entry.schema {
            Some(schema) => format!("{schema}.{}", entry.tag),
            None => entry.tag.clone(),
        };
        left_out.push(LeftOut { what: What::Object, kind: entry.kind.to_lowercase(), name, why: flag.into() });
        false
    });
    left_out
}

impl Draft {
    /// What a person should know before it begins, and what odd there is about it.
    pub fn warnings(&self, asked: &Asked<'_>) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.selected.unmatched.iter().map(|entry| format!("{entry} matches nothing")).collect();
        warnings.extend(self.selected.warnings.iter().cloned());
        for step in self.steps.iter().filter(|step| step.kind == SUBSCRIPTION) {
            warnings.push(format!("subscription {} is made and left disabled", step.name));
        }
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
        for (table, why) in &self.kept_whole {
            warnings.push(format!("{table} is copied again as a whole if the copy is interrupted: {why}"));
        }
        warnings
    }
}
