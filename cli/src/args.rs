//! What can be typed. Values are taken as they are; `config` and the commands make them ready.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::model::Lsn;

#[derive(Debug, Parser)]
#[command(
    name = "pgmig",
    version,
    about = "Moves a live PostgreSQL database to another server, with seconds of write downtime, and proves that nothing was lost",
    max_term_width = 110,
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = "\
Exit codes:
  0 done    2 usage     4 target                7 this machine (--dir)
  1 no      3 source    5 not in this phase    70 a bug of pgmig
                        6 data differ         130 stopped: run again to go on

Start with: pgmig demo"
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,

    /// Say more on stderr: -v for every batch, -vv for every change
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,

    /// Say only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,

    /// Print this help
    #[arg(short, long, global = true, action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "Output")]
    version: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copy the source and follow its changes until endpos; run again to go on
    Run(Box<RunArgs>),
    /// Show what run would move, in which order, and what it would leave out and why
    Plan(Box<PlanArgs>),
    /// Show how far each migration into the target is
    Status(StatusArgs),
    /// Set the WAL position at which a migration stops
    SetEndpos(SetEndposArgs),
    /// Remove what pgmig made: slot and publications on the source, its state on the target
    Cleanup(CleanupArgs),
    /// Migrate a sample database between two throwaway servers, under load, and compare both
    Demo(DemoArgs),
}

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

fn lsn(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|err| format!("{err}: give two hexadecimal numbers with a slash between, such as 16/B374D848"))
}

fn size(text: &str) -> Result<u64, String> {
    crate::report::units::parse_bytes(text).ok_or_else(|| "give a size such as 10GB or 512MB".into())
}

fn migration(text: &str) -> Result<String, String> {
    let right = (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if right { Ok(text.into()) } else { Err("give 1 to 40 of a-z, 0-9 and _".into()) }
}

fn slot(text: &str) -> Result<String, String> {
    let right = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if right { Ok(text.into()) } else { Err("give 1 to 63 of a-z, 0-9 and _".into()) }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Databases")]
pub struct SourceArg {
    /// Connection string of the source, as libpq takes it; a password is safer in PGPASSWORD or ~/.pgpass
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI")]
    pub source: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Databases")]
pub struct TargetArg {
    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI")]
    pub target: String,

    /// Name of the migration: one target may take several
    #[arg(long, env = "PGMIG_NAME", hide_env_values = true, default_value = "default", value_parser = migration)]
    pub name: String,
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

    /// Print one JSON object a line on stdout
    #[arg(long, help_heading = "Output")]
    pub json: bool,
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

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub target: String,

    /// Only this migration
    #[arg(long, env = "PGMIG_NAME", hide_env_values = true, value_parser = migration, help_heading = "Databases")]
    pub name: Option<String>,

    /// Print again every second until interrupted
    #[arg(long, help_heading = "Output")]
    pub watch: bool,

    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["lsn", "current"])))]
pub struct SetEndposArgs {
    /// WAL position of the source, such as 16/B374D848
    #[arg(value_name = "LSN", value_parser = lsn, help_heading = "Position")]
    pub lsn: Option<Lsn>,

    #[command(flatten)]
    pub target: TargetArg,

    /// The position at which --source stands now
    #[arg(long, requires = "source", help_heading = "Position")]
    pub current: bool,

    /// Connection string of the source, needed for --current only
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub source: Option<String>,
}

#[derive(Debug, Args)]
pub struct CleanupArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Also when the migration is not done; what it has received and not applied is lost
    #[arg(long, help_heading = "How")]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// SQL file to load with psql, pagila.sql for now [default: a shop that the demo makes]
    #[arg(long, value_name = "FILE", help_heading = "What to migrate")]
    pub database: Option<PathBuf>,

    /// How pgmig installs itself on the target: extension pgmig_sentinel (faster) or plain SQL
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub flavour: FlavourArg,

    /// Output plugin of the source that says what changes
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub plugin: PluginArg,

    /// Folder of the source's PostgreSQL programs [default: the newest that is installed]
    #[arg(long, value_name = "DIR", help_heading = "How")]
    pub source_bin: Option<PathBuf>,

    /// Folder of the target's PostgreSQL programs: those of a later version show an upgrade
    #[arg(long, value_name = "DIR", help_heading = "How")]
    pub target_bin: Option<PathBuf>,

    /// How long changes are followed while a writer writes
    #[arg(long, default_value_t = 10, value_name = "SECONDS", help_heading = "How")]
    pub seconds: u64,

    /// Keep the two servers until interrupted, and say where they are
    #[arg(long, help_heading = "How")]
    pub keep: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }
}
