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
    /// Copy a table again, while changes are followed
    Resync(TableNameArgs),
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
