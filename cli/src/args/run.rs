//! What a migration is made of: the arguments of `run` and `plan`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Command, FromArgMatches, ValueEnum};

use super::cutover::CutoverHow;
use super::{LimitArgs, LogArgs, SourceArg, TargetArg, WatchedArgs, duration, lsn, migration, size, slot};
use crate::error::{Error, Result};
use crate::model::Lsn;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PluginArg {
    Auto,
    Wal2json,
    Pgoutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WalBudgetPolicyArg {
    Stop,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StreamFormatArg {
    Auto,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DdlArg {
    Apply,
    Stop,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnConflictArg {
    Stop,
    Warn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlavourArg {
    Auto,
    Extension,
    Plain,
}

/// What is left out of a migration, and what is accepted in it: the same for a run and for its plan.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to migrate")]
pub struct WhatArgs {
    /// Which objects to migrate, as a filter file of pgcopydb
    #[arg(long, alias = "filter", value_name = "FILE", help_heading = "What to migrate")]
    pub filters: Option<PathBuf>,

    /// Leave owners behind: the target's role owns everything
    #[arg(long, help_heading = "What to migrate")]
    pub no_owner: bool,

    /// Leave privileges (GRANT) behind
    #[arg(long, help_heading = "What to migrate")]
    pub no_acl: bool,

    /// Leave comments behind
    #[arg(long, help_heading = "What to migrate")]
    pub no_comments: bool,

    /// Leave tablespaces behind: all goes to the default one of the target database
    #[arg(long, help_heading = "What to migrate")]
    pub no_tablespaces: bool,

    /// Leave large objects behind
    #[arg(long, alias = "skip-blobs", help_heading = "What to migrate")]
    pub skip_large_objects: bool,

    /// Leave extensions behind, with their comments and the rows of their configuration tables
    #[arg(long, help_heading = "What to migrate")]
    pub skip_extensions: bool,

    /// Leave comments on extensions behind, which only the owner of an extension may make
    #[arg(long, help_heading = "What to migrate")]
    pub skip_ext_comments: bool,

    /// Leave publications behind
    #[arg(long, help_heading = "What to migrate")]
    pub skip_publications: bool,

    /// Leave collations behind
    #[arg(long, help_heading = "What to migrate")]
    pub skip_collations: bool,

    /// Leave behind what ALTER DATABASE SET and ALTER ROLE IN DATABASE SET have set
    #[arg(long, help_heading = "What to migrate")]
    pub skip_db_properties: bool,

    /// Make no statistics on the target; nothing is ever vacuumed, since rows are stored frozen
    #[arg(long, help_heading = "What to migrate")]
    pub skip_vacuum: bool,

    /// Accepted as pgcopydb has it: the source is never analyzed
    #[arg(long, help_heading = "What to migrate")]
    pub skip_analyze: bool,

    /// Drop on the target what the migration will make, if it is there
    #[arg(long, help_heading = "What to migrate")]
    pub drop_if_exists: bool,

    /// Fill tables that the target has already, empty, where one of the sides has them partitioned
    #[arg(long, conflicts_with = "drop_if_exists", help_heading = "What to migrate")]
    pub keep_tables: bool,

    /// Make the source's roles that the target does not have
    #[arg(long, help_heading = "What to migrate")]
    pub roles: bool,

    /// Make them without passwords, which only a superuser of the source may read
    #[arg(long, requires = "roles", help_heading = "What to migrate")]
    pub no_role_passwords: bool,

    /// Versions of extensions: a JSON file with an array of {"name", "version"}
    #[arg(long, value_name = "FILE", help_heading = "What to migrate")]
    pub requirements: Option<PathBuf>,

    /// Accept tables without a key, of which only inserts are followed, no UPDATE or DELETE
    #[arg(long, help_heading = "What to migrate")]
    pub allow_insert_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitByArg {
    Auto,
    Ctid,
    Key,
}

/// How large tables are cut into Parts: the same for a run and for its plan.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speed")]
pub struct SplitArgs {
    /// Copy tables larger than this in Parts of about this size; 0 cuts none
    #[arg(long, alias = "split-at", default_value = "10GB", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub split_tables_larger_than: u64,

    /// Cut no table into more Parts than this; 0 sets no limit
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Speed")]
    pub split_max_parts: u64,

    /// What tables are cut by: heap blocks (auto, from PostgreSQL 14 on) or the leading column of a unique key
    #[arg(long, value_enum, default_value = "auto", help_heading = "Speed")]
    pub split_by: SplitByArg,

    /// Cut tables larger than this by a key, where a number, uuid, time or text in the collation C identifies their
    /// rows: an interrupted copy keeps the Parts that it has; 0 cuts none for that
    #[arg(long, default_value = "100GB", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub resume_parts_larger_than: u64,

    /// Read each Part under a snapshot of its own, so that a long copy does not hold back vacuum on the source; cuts by
    /// key, as above, and no other table
    #[arg(long, conflicts_with_all = ["split_by", "skip_split_by_ctid", "no_follow"], help_heading = "Speed")]
    pub snapshot_per_part: bool,

    /// Cut by key ranges only: --split-by key
    #[arg(long, conflicts_with = "split_by", help_heading = "Speed")]
    pub skip_split_by_ctid: bool,

    /// Take the sizes of tables from the last ANALYZE: quicker where tables are many
    #[arg(long, help_heading = "Speed")]
    pub estimate_table_sizes: bool,

    /// How many workers at most copy large objects at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128), help_heading = "Speed")]
    pub large_objects_jobs: u16,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Folder for the plan and the changes that wait to be applied [default: below ~/.local/state/pgmig]
    #[arg(long, env = "PGMIG_DIR", hide_env_values = true, value_name = "DIR", help_heading = "Databases")]
    pub dir: Option<PathBuf>,

    /// Logical replication slot to make on the source [default: pgmig_NAME]
    #[arg(long, value_name = "SLOT", value_parser = slot, help_heading = "Databases")]
    pub slot_name: Option<String>,

    /// After the copy, go on with what changes on the source (the default)
    #[arg(long, overrides_with = "no_follow", help_heading = "What to migrate")]
    pub follow: bool,

    /// Help a run on another machine: copy Parts of the migration until none is left, then end
    #[arg(long, conflicts_with_all = ["endpos", "no_follow"], help_heading = "What to migrate")]
    pub join: bool,

    /// End after the copy: for a source that nobody writes to
    #[arg(long, overrides_with = "follow", conflicts_with = "endpos", help_heading = "What to migrate")]
    pub no_follow: bool,

    /// Stop once every transaction that ends at or before this WAL position of the source is applied
    #[arg(long, value_name = "LSN", value_parser = lsn, help_heading = "What to migrate")]
    pub endpos: Option<Lsn>,

    #[command(flatten)]
    pub what: WhatArgs,

    /// Leave tables behind that were created on the source since the migration began
    #[arg(long, help_heading = "What to migrate")]
    pub leave_new_tables: bool,

    /// A change that finds no row, or a second one with its key: stop, or record it in pgmig.conflicts and go on
    #[arg(long, value_enum, default_value = "stop", help_heading = "How")]
    pub on_conflict: OnConflictArg,

    /// How pgoutput sends values: in binary where the types of all tables allow it and the target has the
    /// extension, or as text
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub stream_format: StreamFormatArg,

    /// Output plugin of the source that says what changes
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub plugin: PluginArg,

    /// How pgmig installs itself on the target: extension pgmig_sentinel (faster) or plain SQL
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub flavour: FlavourArg,

    /// Stop at the first object that cannot be made, also where the data are right without it
    #[arg(long, help_heading = "How")]
    pub fail_fast: bool,

    /// How many tables, or Parts of large ones, are copied at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Speed")]
    pub table_jobs: u16,

    /// How many indexes and constraints are built at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Speed")]
    pub index_jobs: u16,

    /// How many foreign keys, validations, materialized views and statistics are made at once; 0: as --index-jobs
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256), help_heading = "Speed")]
    pub restore_jobs: u16,

    /// Memory for each index build on the target, unless the server allows more
    #[arg(long, default_value = "1GB", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub maintenance_work_mem: u64,

    #[command(flatten)]
    pub split: SplitArgs,

    #[command(flatten)]
    pub limits: LimitArgs,

    /// Receive no more while changes of this size wait in --dir
    #[arg(long, default_value = "100GB", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub spool_limit: u64,

    /// WAL that the source may keep for the migration: half of it is a warning, at three quarters the copy is
    /// held back; 0 is as much as the source's max_slot_wal_keep_size
    #[arg(long, default_value = "0", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub wal_budget: u64,

    /// When the WAL budget is spent: stop, or drop the slot too, so that the source survives and the migration does not
    #[arg(long, value_enum, default_value = "stop", help_heading = "Speed")]
    pub wal_budget_policy: WalBudgetPolicyArg,

    /// DDL on tables of the migration, told by event triggers on the source: apply runs it on the target where it stood
    /// between the changes, stop ends the run there with the statement, off tells nothing. Kept for later runs; at first off
    #[arg(long, value_enum, value_name = "HOW", help_heading = "How")]
    pub ddl: Option<DdlArg>,

    /// How long a server that cannot be reached any more is waited for, in seconds; 0 ends the run at once
    #[arg(long, default_value_t = 600, value_name = "SECONDS", help_heading = "How")]
    pub reconnect_for: u64,

    /// Give up when the slot has waited so long for transactions that are open on the source; without it, it
    /// waits until they end, and says for which
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "How")]
    pub slot_wait: Option<Duration>,

    #[command(flatten)]
    pub cutover: CutoverHow,

    #[command(flatten)]
    pub watched: WatchedArgs,

    #[command(flatten)]
    pub log: LogArgs,

    /// Print one JSON object a line on stdout
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

impl RunArgs {
    /// The arguments of a run that goes on with a migration as it was begun.
    pub fn begun(source: &str, target: &str, name: &str, slot_name: &str, dir: Option<&Path>) -> Result<RunArgs> {
        let mut args: Vec<OsString> = vec!["run".into()];
        for (flag, value) in [("--source", source), ("--target", target), ("--name", name), ("--slot-name", slot_name)]
        {
            args.extend([flag.into(), value.into()]);
        }
        if let Some(dir) = dir {
            args.extend(["--dir".into(), dir.into()]);
        }
        // An error of clap's would print what it was given, which may hold a password.
        let matches = RunArgs::augment_args(Command::new("run")).try_get_matches_from(args);
        let read = matches.and_then(|matches| RunArgs::from_arg_matches(&matches));
        read.map_err(|_| Error::bug("the arguments of a run that goes on are not understood"))
    }
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub source: SourceArg,

    /// Connection string of the target; with it, what stands in the way of a run is shown too
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub target: Option<String>,

    /// Name of the migration
    #[arg(long, env = "PGMIG_NAME", default_value = "default", value_parser = migration, help_heading = "Databases")]
    pub name: String,

    /// Logical replication slot on the source [default: pgmig_NAME]
    #[arg(long, value_name = "SLOT", value_parser = slot, help_heading = "Databases")]
    pub slot_name: Option<String>,

    /// As for a run that ends after the copy
    #[arg(long, help_heading = "What to migrate")]
    pub no_follow: bool,

    #[command(flatten)]
    pub what: WhatArgs,

    /// Output plugin on the source
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub plugin: PluginArg,

    #[command(flatten)]
    pub split: SplitArgs,

    /// One JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}
