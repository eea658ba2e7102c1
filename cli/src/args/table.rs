//! The arguments of `table`.

use clap::{Args, Subcommand};

use super::TargetArg;

#[derive(Debug, Args)]
pub struct TableArgs {
    #[command(subcommand)]
    pub verb: TableVerb,
}

#[derive(Debug, Subcommand)]
pub enum TableVerb {
    /// Take a table in that was left out: it is made, copied and followed
    Add(TableNameArgs),
    /// Copy a table again, while changes are followed; or every table, by the next run
    Resync(ResyncArgs),
}

#[derive(Debug, Args)]
pub struct ResyncArgs {
    /// Schema and name, as SQL has them: public.orders
    #[arg(value_name = "SCHEMA.TABLE", required_unless_present = "all", help_heading = "Databases")]
    pub table: Option<String>,

    /// Every table of the migration: where changes that were received are lost
    #[arg(long, conflicts_with = "table", help_heading = "Databases")]
    pub all: bool,

    #[command(flatten)]
    pub target: TargetArg,

    /// Ask the run, and do not wait until it has done it
    #[arg(long, help_heading = "How")]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct TableNameArgs {
    /// Schema and name, as SQL has them: public.orders
    #[arg(value_name = "SCHEMA.TABLE", help_heading = "Databases")]
    pub table: String,

    #[command(flatten)]
    pub target: TargetArg,

    /// Ask the run, and do not wait until it has done it
    #[arg(long, help_heading = "How")]
    pub no_wait: bool,
}
