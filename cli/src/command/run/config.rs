//! The arguments of `run` as ready values.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::budget::Policy;
use crate::apply::conflict::OnConflict;
use crate::apply::ddl::Mode;
use crate::args::{
    CutoverHow, DdlArg, FlavourArg, LimitArgs, OnConflictArg, PluginArg, RunArgs, SplitArgs, SplitByArg,
    StreamFormatArg, WalBudgetPolicyArg, WhatArgs,
};
use crate::command::conninfo;
use crate::config::Conninfo;
use crate::config::filters::Filters;
use crate::config::requirements::Requirements;
use crate::copy::draft::Cutting;
use crate::copy::parts::SplitBy;
use crate::cutover;
use crate::error::Result;
use crate::model::{Leave, Lsn};
use crate::preflight::{Asked, Tries};
use crate::report::units;
use crate::source::catalog::Sizes;
use crate::target::install::Flavour;
use crate::target::limits::Limits;

#[derive(Debug, Clone)]
pub struct Config {
    pub source: Conninfo,
    pub target: Conninfo,
    pub name: String,
    pub dir: PathBuf,
    pub slot_name: String,
    pub follow: bool,
    pub endpos: Option<Lsn>,
    pub plugin: PluginArg,
    pub flavour: Option<Flavour>,
    pub table_jobs: usize,
    pub index_jobs: usize,
    pub restore_jobs: usize,
    pub fail_fast: bool,
    /// Bytes for each index build.
    pub maintenance_work_mem: u64,
    pub cut: Cutting,
    /// 0 leaves large objects behind.
    pub large_object_parts: usize,
    pub spool_limit: u64,
    pub leave: Leave,
    pub requirements: Option<Requirements>,
    pub drop_if_exists: bool,
    /// Whether roles are made, and with their passwords.
    pub roles: Option<bool>,
    pub allow_insert_only: bool,
    pub filters: Option<Filters>,
    pub leave_new_tables: bool,
    pub on_conflict: OnConflict,
    /// Limits of what is asked of the source, where they are given; 0 lifts one.
    pub limits: Limits,
    /// Whether values may come in binary.
    pub binary_stream: bool,
    pub wal_budget: Option<u64>,
    pub wal_budget_policy: Policy,
    /// How long a lost server is waited for.
    pub reconnect_for: Duration,
    /// How long the slot may wait for transactions of the source; None for as long as they take.
    pub slot_wait: Option<Duration>,
    /// How long a Part may move no byte before that is told.
    pub stalled_after: Duration,
    /// How to cut over when that is asked for in SQL.
    pub cutover: cutover::Settings,
    /// What becomes of DDL, if it is said.
    pub ddl: Option<Mode>,
    /// For a way back, which goes from the target of a migration to its source: the slot of that migration.
    pub back_of: Option<String>,
    /// True while this process cuts over.
    pub cutting: watch::Sender<bool>,
}

impl Config {
    pub fn new(args: RunArgs) -> Result<Config> {
        let target = conninfo(&args.target.target)?;
        let name = args.target.name;
        Ok(Config {
            source: conninfo(&args.source.source)?,
            dir: args.dir.unwrap_or_else(|| default_dir(&target, &name)),
            target,
            slot_name: args.slot_name.unwrap_or_else(|| format!("pgmig_{name}")),
            name,
            follow: !args.no_follow,
            endpos: args.endpos,
            plugin: args.plugin,
            flavour: flavour(args.flavour),
            table_jobs: usize::from(args.table_jobs),
            index_jobs: usize::from(args.index_jobs),
            maintenance_work_mem: args.maintenance_work_mem,
            cut: cutting(&args.split),
            spool_limit: args.spool_limit.max(1 << 20),
            restore_jobs: usize::from(if args.restore_jobs == 0 { args.index_jobs } else { args.restore_jobs }),
            fail_fast: args.fail_fast,
            leave: leave(&args.what),
            requirements: args.what.requirements.as_deref().map(Requirements::read).transpose()?,
            drop_if_exists: args.what.drop_if_exists,
            roles: args.what.roles.then_some(!args.what.no_role_passwords),
            large_object_parts: large_object_parts(&args.split, &args.what),
            allow_insert_only: args.what.allow_insert_only,
            filters: args.what.filters.as_deref().map(Filters::read).transpose()?,
            leave_new_tables: args.leave_new_tables,
            limits: limits(args.limits),
            reconnect_for: Duration::from_secs(args.reconnect_for),
            slot_wait: args.slot_wait,
            stalled_after: args.watched.stalled_after,
            wal_budget: (args.wal_budget > 0).then_some(args.wal_budget),
            wal_budget_policy: match args.wal_budget_policy {
                WalBudgetPolicyArg::Stop => Policy::Stop,
                WalBudgetPolicyArg::Drop => Policy::Drop,
            },
            cutover: cutover_settings(args.cutover)?,
            ddl: args.ddl.map(|ddl| match ddl {
                DdlArg::Apply => Mode::Apply,
                DdlArg::Stop => Mode::Stop,
                DdlArg::Off => Mode::Off,
            }),
            back_of: None,
            cutting: watch::Sender::new(false),
            binary_stream: args.stream_format == StreamFormatArg::Auto,
            on_conflict: match args.on_conflict {
                OnConflictArg::Stop => OnConflict::Stop,
                OnConflictArg::Warn => OnConflict::Warn,
            },
        })
    }
}

impl Config {
    /// The way back: the same with source and target exchanged, and a folder of its own within that of the
    /// migration.
    pub fn back(&self) -> Config {
        Config {
            source: self.target.clone(),
            target: self.source.clone(),
            dir: self.dir.join("back"),
            slot_name: slot_back(&self.name),
            follow: true,
            endpos: None,
            flavour: None,
            filters: None,
            back_of: Some(self.slot_name.clone()),
            cutting: watch::Sender::new(false),
            ..self.clone()
        }
    }

    pub fn is_back(&self) -> bool {
        self.back_of.is_some()
    }

    /// What preflight looks at, tried where that says more than reading.
    pub fn asked(&self) -> Asked {
        let probes = self.limits.max_slowdown.is_some() || self.limits.max_standby_lag.is_some();
        Asked {
            follow: self.follow,
            slot_name: self.slot_name.clone(),
            plugin: named(self.plugin),
            flavour: self.flavour,
            allow_insert_only: self.allow_insert_only,
            filters: self.filters.clone(),
            endpos: self.endpos,
            leave: self.leave,
            requirements: self.requirements.clone(),
            drop_if_exists: self.drop_if_exists,
            roles: self.roles,
            large_objects: self.large_object_parts > 0,
            // Beside the workers: catalog, snapshot, receiver, dump, watch; and the probe.
            sessions: (self.table_jobs.max(self.index_jobs) + self.large_object_parts + 5 + usize::from(probes)) as i64,
            tries: Some(Tries { source: self.source.clone(), dir: self.dir.clone() }),
            begun: None,
        }
    }
}

impl Config {
    /// What a run was told, for people who ask later; no secret is among it.
    pub fn settings(&self) -> Vec<(String, String)> {
        let size = |bytes: u64| units::bytes(bytes);
        let limit = |bytes: Option<u64>| bytes.map_or("none".to_string(), size);
        let number = |number: Option<u16>, of: &str| {
            number.filter(|number| *number > 0).map_or("none".into(), |number| format!("{number}{of}"))
        };
        let given = &self.limits;
        let leave: Vec<&str> = self.leave.of_all().into_iter().map(|(flag, _)| flag).collect();
        let told = [
            ("source", self.source.to_string()),
            ("target", self.target.to_string()),
            ("--dir", self.dir.display().to_string()),
            ("--follow", self.follow.to_string()),
            ("--filters", self.filters.as_ref().map_or("none".into(), |filters| filters.file.clone())),
            ("left behind by flags", if leave.is_empty() { "nothing".into() } else { leave.join(", ") }),
            ("--table-jobs", self.table_jobs.to_string()),
            ("--index-jobs", self.index_jobs.to_string()),
            ("--restore-jobs", self.restore_jobs.to_string()),
            ("--large-objects-jobs", self.large_object_parts.to_string()),
            ("--split-tables-larger-than", limit(self.cut.larger_than)),
            ("--resume-parts-larger-than", limit(self.cut.keep_parts_of)),
            ("--snapshot-per-part", self.cut.snapshot_per_part.to_string()),
            ("--maintenance-work-mem", size(self.maintenance_work_mem)),
            ("--max-rate", limit(given.max_rate.filter(|rate| *rate > 0))),
            ("--max-source-connections", number(given.max_source_connections, "")),
            ("--max-slowdown", number(given.max_slowdown, " %")),
            ("--probe", given.probe.as_deref().filter(|sql| !sql.is_empty()).map_or("pgmig's own", |_| "given").into()),
            (
                "--max-standby-lag",
                given.max_standby_lag.filter(|lag| !lag.is_zero()).map_or("none".into(), units::duration),
            ),
            ("--spool-limit", size(self.spool_limit)),
            ("--wal-budget", limit(self.wal_budget)),
            ("--on-conflict", format!("{:?}", self.on_conflict).to_lowercase()),
            ("--reconnect-for", units::duration(self.reconnect_for)),
        ];
        told.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

/// What people allow the copy.
pub fn limits(args: LimitArgs) -> Limits {
    Limits {
        max_rate: args.max_rate,
        max_source_connections: args.max_source_connections,
        max_slowdown: args.max_slowdown,
        max_standby_lag: args.max_standby_lag,
        probe: args.probe,
    }
}

/// The slot of the way back, on the target.
pub fn slot_back(migration: &str) -> String {
    format!("pgmig_{migration}_back")
}

/// The plugin that was asked for by name.
pub fn named(plugin: PluginArg) -> Option<&'static str> {
    match plugin {
        PluginArg::Auto => None,
        PluginArg::Wal2json => Some("wal2json"),
        PluginArg::Pgoutput => Some("pgoutput"),
    }
}

pub fn cutover_settings(args: CutoverHow) -> Result<cutover::Settings> {
    Ok(cutover::Settings {
        freeze: args.freeze,
        spared: args.spare,
        max_downtime: args.max_downtime,
        verify: args.verify,
        max_lag: args.max_lag,
        switch: args.switch,
        reverse: args.reverse,
        pgbouncer: match args.pgbouncer {
            Some(console) => Some((conninfo(&console)?, args.pgbouncer_database)),
            None => None,
        },
    })
}

/// What the flags leave out.
pub fn leave(what: &WhatArgs) -> Leave {
    Leave {
        owner: what.no_owner,
        acl: what.no_acl,
        comments: what.no_comments,
        tablespaces: what.no_tablespaces,
        extensions: what.skip_extensions,
        extension_comments: what.skip_ext_comments,
        publications: what.skip_publications,
        collations: what.skip_collations,
        db_properties: what.skip_db_properties,
        analyze: what.skip_vacuum,
    }
}

pub fn cutting(args: &SplitArgs) -> Cutting {
    Cutting {
        larger_than: (args.split_tables_larger_than > 0).then_some(args.split_tables_larger_than),
        parts_max: if args.split_max_parts > 0 { args.split_max_parts } else { u64::MAX },
        by: match args.split_by {
            _ if args.skip_split_by_ctid => Some(SplitBy::Key),
            SplitByArg::Auto => None,
            SplitByArg::Ctid => Some(SplitBy::Ctid),
            SplitByArg::Key => Some(SplitBy::Key),
        },
        keep_parts_of: (args.resume_parts_larger_than > 0).then_some(args.resume_parts_larger_than),
        snapshot_per_part: args.snapshot_per_part,
        sizes: if args.estimate_table_sizes { Sizes::Estimates } else { Sizes::Files },
    }
}

pub fn large_object_parts(split: &SplitArgs, what: &WhatArgs) -> usize {
    if what.skip_large_objects { 0 } else { usize::from(split.large_objects_jobs) }
}

pub fn flavour(arg: FlavourArg) -> Option<Flavour> {
    match arg {
        FlavourArg::Auto => None,
        FlavourArg::Extension => Some(Flavour::Extension),
        FlavourArg::Plain => Some(Flavour::Plain),
    }
}

/// A folder that the same target and name always give, so that `run` finds its spool again.
pub fn default_dir(target: &Conninfo, name: &str) -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home =
        || std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), |home| PathBuf::from(home).join(".local/state"));
    let target: String = target
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "@.-_".contains(c) { c } else { '_' })
        .collect();
    state.unwrap_or_else(home).join("pgmig").join(target).join(name)
}
