//! The two servers of a bench: set up like small production machines, fsync and checksums on, and
//! reached over TCP. Both are thrown away at the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgmig::embedded::{Cluster, Stop};

use crate::Outcome;

/// Name of the database on the target.
pub const TARGET: &str = "moved";

/// Fills shared_buffers once, and leaves files of WAL to be used again, as on a server in service: memory and
/// files that are touched for the first time cost more, which would count against whoever runs first.
const WARM: &str = "
    create table warm (page text);
    alter table warm alter page set storage plain;
    insert into warm select repeat('x', 8000)
    from pg_settings, generate_series(1, setting::int) where name = 'shared_buffers';
    drop table warm";

pub struct Servers {
    pub source: Cluster,
    pub target: Cluster,
    /// For dumps, spools and logs.
    pub scratch: tempfile::TempDir,
}

impl Servers {
    /// `target_wal_level` is logical, replica or minimal.
    pub async fn start(target_wal_level: &str) -> Outcome<Servers> {
        let senders = if target_wal_level == "minimal" { "0" } else { "16" };
        let target = [("wal_level", target_wal_level), ("max_wal_senders", senders)];
        let (source, target) = tokio::try_join!(server(&[]), server(&target))?;
        tokio::try_join!(source.sql("postgres", WARM), target.sql("postgres", WARM))?;
        let scratch = tempfile::Builder::new().prefix("pgmig-bench-").tempdir()?;
        let servers = Servers { source, target, scratch };
        servers.settle().await?;
        Ok(servers)
    }

    /// An empty target database, whatever was there before.
    pub async fn new_target(&self) -> Outcome<()> {
        self.drop_database(&self.target, TARGET).await?;
        Ok(self.target.create_database(TARGET).await?)
    }

    pub async fn drop_database(&self, cluster: &Cluster, name: &str) -> Outcome<()> {
        cluster.sql("postgres", &format!("drop database if exists {name} with (force)")).await?;
        Ok(())
    }

    /// Leaves no work of what was done before to what is measured next.
    pub async fn settle(&self) -> Outcome<()> {
        tokio::try_join!(self.source.sql("postgres", "checkpoint"), self.target.sql("postgres", "checkpoint"))?;
        Ok(())
    }

    /// A folder that is empty and not made yet.
    pub fn folder(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.scratch.path().join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        Ok(path)
    }
}

async fn server(settings: &[(&str, &str)]) -> Outcome<Cluster> {
    let common = [
        ("shared_buffers", "2GB"),
        ("maintenance_work_mem", "512MB"),
        ("max_wal_size", "8GB"),
        ("min_wal_size", "4GB"),
        ("synchronous_commit", "on"),
        ("max_connections", "100"),
        // It would work for one contender on what another left.
        ("autovacuum", "off"),
    ];
    let mut builder = Cluster::builder().durable();
    for (name, value) in common.iter().chain(settings) {
        builder = builder.setting(name, value);
    }
    let cluster = builder.start().await?;
    cluster.stop(Stop::Fast).await?;
    let mut checksums = cluster.bin_dir().tool("pg_checksums");
    checksums.args(["--enable", "--no-sync", "--pgdata"]).arg(cluster.data_dir());
    run(&mut checksums)?;
    cluster.start().await?;
    Ok(cluster)
}

/// A session that stays open.
pub async fn session(uri: &str) -> Outcome<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(uri, tokio_postgres::NoTls).await?;
    // Ends with the client, who sees the failure.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists())
}

/// Runs a program that is not measured.
pub fn run(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{:?} ended with {}: {}", command.get_program(), output.status, said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A pgmig with none of the caller's PostgreSQL variables.
pub fn pgmig_command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        if name != "PGMIG_PG_BIN" {
            command.env_remove(name);
        }
    }
    command.stdin(std::process::Stdio::null());
    command
}
