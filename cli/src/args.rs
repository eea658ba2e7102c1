//! What can be typed. Values are taken as they are; `config` and the commands make them ready.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::model::Lsn;

#[derive(Debug, Parser)]
#[command(
    name = "pgmig",
    version,
    about = "Moves a live PostgreSQL database to another server, with seconds of write downtime, and proves that nothing was lost",
    max_term_width = 110,
    disable_help_subcommand = true,
    after_help = "Start with: pgmig demo\nExit codes: 0 done, 1 the answer is no, 2 usage, 3 source, 4 target, 5 not in this phase, 6 data differ, 7 this machine, 70 bug, 130 stopped"
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,

    /// Say more on stderr: facts, twice for every batch, three times for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,

    /// Say only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copy the source and follow its changes until endpos; run again, it goes on where it was
    Run(Box<RunArgs>),
    /// Show how far migrations are
    Status(StatusArgs),
    /// Say where a migration stops
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
    /// Connection string of the source, as libpq takes it
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI")]
    pub source: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Databases")]
pub struct TargetArg {
    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI")]
    pub target: String,

    /// Name of the migration
    #[arg(long, env = "PGMIG_NAME", default_value = "default", value_parser = migration)]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Folder for the plan and the spool [default: a folder of the target's name under the user's state folder]
    #[arg(long, env = "PGMIG_DIR", value_name = "DIR", help_heading = "Databases")]
    pub dir: Option<PathBuf>,

    /// Logical replication slot on the source [default: pgmig_NAME]
    #[arg(long, value_name = "SLOT", value_parser = slot, help_heading = "Databases")]
    pub slot_name: Option<String>,

    /// Go on with the source's changes after the copy (the default)
    #[arg(long, overrides_with = "no_follow", help_heading = "What to migrate")]
    pub follow: bool,

    /// End after the copy
    #[arg(long, overrides_with = "follow", conflicts_with = "endpos", help_heading = "What to migrate")]
    pub no_follow: bool,

    /// Stop when every transaction that ends at or before this WAL position is applied
    #[arg(long, value_name = "LSN", value_parser = lsn, help_heading = "What to migrate")]
    pub endpos: Option<Lsn>,

    /// pgcopydb's filter file: which objects to migrate
    #[arg(long, value_name = "FILE", help_heading = "What to migrate")]
    pub filters: Option<PathBuf>,

    /// Do not set the owners of objects
    #[arg(long, help_heading = "What to migrate")]
    pub no_owner: bool,

    /// Do not set privileges
    #[arg(long, help_heading = "What to migrate")]
    pub no_acl: bool,

    /// Leave large objects behind
    #[arg(long, help_heading = "What to migrate")]
    pub skip_large_objects: bool,

    /// Accept tables whose UPDATE and DELETE do not say which row they mean; only inserts are followed
    #[arg(long, help_heading = "What to migrate")]
    pub allow_insert_only: bool,

    /// Leave tables behind that were created on the source since the migration began
    #[arg(long, help_heading = "What to migrate")]
    pub leave_new_tables: bool,

    /// Output plugin on the source
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub plugin: PluginArg,

    /// How pgmig installs itself on the target: as an extension, or as plain SQL
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub flavour: FlavourArg,

    /// Parts that are copied at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Speed")]
    pub table_jobs: u16,

    /// Indexes and constraints that are built at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Speed")]
    pub index_jobs: u16,

    /// Cut tables larger than this into Parts of about this size; 0 cuts none
    #[arg(long, default_value = "10GB", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub split_tables_larger_than: u64,

    /// Size of the spool at which receiving waits for apply
    #[arg(long, default_value = "100GB", value_name = "SIZE", value_parser = size, help_heading = "Speed")]
    pub spool_limit: u64,

    /// One JSON object a line on stdout
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Connection string of the target, as libpq takes it
    #[arg(long, env = "PGMIG_TARGET", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub target: String,

    /// Only this migration
    #[arg(long, env = "PGMIG_NAME", value_parser = migration, help_heading = "Databases")]
    pub name: Option<String>,

    /// Show again every second, until interrupted
    #[arg(long, help_heading = "Output")]
    pub watch: bool,

    /// One JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["lsn", "current"])))]
pub struct SetEndposArgs {
    /// WAL position on the source
    #[arg(value_name = "LSN", value_parser = lsn)]
    pub lsn: Option<Lsn>,

    #[command(flatten)]
    pub target: TargetArg,

    /// The position at which the source stands now
    #[arg(long, requires = "source")]
    pub current: bool,

    /// Connection string of the source, for --current
    #[arg(long, env = "PGMIG_SOURCE", hide_env_values = true, value_name = "URI", help_heading = "Databases")]
    pub source: Option<String>,
}

#[derive(Debug, Args)]
pub struct CleanupArgs {
    #[command(flatten)]
    pub source: SourceArg,
    #[command(flatten)]
    pub target: TargetArg,

    /// Also when the migration is not done: what it has received and not applied is lost
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// pagila.sql, a sample database for psql to load [default: one that the demo makes]
    #[arg(long, value_name = "FILE")]
    pub database: Option<PathBuf>,

    /// How pgmig installs itself on the target
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub flavour: FlavourArg,

    /// Output plugin on the source
    #[arg(long, value_enum, default_value = "auto", help_heading = "How")]
    pub plugin: PluginArg,

    /// How long the writer writes while changes are followed, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS", help_heading = "How")]
    pub seconds: u64,

    /// Leave the two servers and their folders, and say where
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
