//! Throwaway PostgreSQL servers with a sample database and a workload, for `pgmig demo` and for the
//! tests. Nothing here may touch a server that it did not start itself, and nothing is left behind
//! but a template of a data directory, which makes the next start quick.

mod bin_dir;
mod cluster;
mod pagila;
mod pgbouncer;
mod process;
pub mod sample;
mod shop;
mod template;
mod workload;

pub use bin_dir::{BinDir, RunAs};
pub use cluster::{Builder, Cluster, Rows, Stop};
pub use pgbouncer::{Lends, PgBouncer};
pub use workload::{Options as WriterOptions, Summary, Workload, Writer};

use crate::error::{Context, Exit, Result};

/// Trouble with a throwaway server is nobody's source; it is reported as trouble with the target.
const EXIT: Exit = Exit::Target;

/// The one place where this module connects: without TLS, to a server on this machine.
async fn session(uri: &str, application_name: &str) -> Result<tokio_postgres::Client> {
    let mut config: tokio_postgres::Config =
        uri.parse().during(EXIT, || "read the address of a throwaway server".to_string())?;
    config.application_name(application_name);
    let (client, connection) = config
        .connect(tokio_postgres::NoTls)
        .await
        .during(EXIT, || format!("connect to a throwaway server as {application_name}"))?;
    // Ends with the client; whoever uses the client sees the failure.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}
