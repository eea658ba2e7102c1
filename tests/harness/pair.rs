//! Two throwaway servers, each with an empty database `app`: where from, and where to.

use std::process::Stdio;

use pgmig::embedded::{BinDir, Builder, Cluster, sample};
use pgmig::error::Result;
use pgmig::verify::{self, Comparison};

/// The database of both sides.
pub const DATABASE: &str = "app";

pub struct Pair {
    pub source: Cluster,
    pub target: Cluster,
}

impl Pair {
    pub async fn start() -> Result<Pair> {
        Pair::start_with(Cluster::builder(), Cluster::builder()).await
    }
    pub async fn start_with(source: Builder, target: Builder) -> Result<Pair> {
        let (source, target) = tokio::try_join!(source.start(), target.start())?;
        tokio::try_join!(source.create_database(DATABASE), target.create_database(DATABASE))?;
        Ok(Pair { source, target })
    }
    /// With the sample database on the source.
    pub async fn with_sample(scale: f64) -> Result<Pair> {
        let pair = Pair::start().await?;
        sample::load(&pair.source_uri(), scale).await?;
        Ok(pair)
    }

    pub fn source_uri(&self) -> String {
        self.source.uri(DATABASE)
    }
    pub fn target_uri(&self) -> String {
        self.target.uri(DATABASE)
    }
    pub async fn on_source(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.source.sql(DATABASE, sql).await
    }
    pub async fn on_target(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.target.sql(DATABASE, sql).await
    }
    pub async fn compare(&self, mut options: verify::Options) -> Result<Comparison> {
        // An older pg_dump refuses a newer server.
        options.bin_dir.get_or_insert_with(|| self.newer_bin_dir().path().to_path_buf());
        options.source_bin_dir.get_or_insert_with(|| self.source.bin_dir().path().to_path_buf());
        verify::compare(&self.source_uri(), &self.target_uri(), options).await
    }

    /// PostgreSQL's programs of the newer of both servers.
    fn newer_bin_dir(&self) -> &BinDir {
        if self.target.major() >= self.source.major() { self.target.bin_dir() } else { self.source.bin_dir() }
    }

    /// Copies source to target with PostgreSQL's own tools, for tests that need equal sides.
    pub fn dump_and_restore(&self) -> std::io::Result<()> {
        let mut dump = self.source.bin_dir().tool("pg_dump");
        dump.args(["--format=custom", "--compress=0", "-d"]).arg(self.source.socket_uri(DATABASE));
        let mut dump = dump.stdout(Stdio::piped()).spawn()?;
        let stream = dump.stdout.take().ok_or_else(|| std::io::Error::other("pg_dump has no output"))?;
        let mut restore = self.newer_bin_dir().tool("pg_restore");
        restore.args(["--exit-on-error", "-d"]).arg(self.target.socket_uri(DATABASE)).stdin(stream);
        let restored = restore.status()?;
        let dumped = dump.wait()?;
        if !dumped.success() || !restored.success() {
            return Err(std::io::Error::other(format!("pg_dump: {dumped}; pg_restore: {restored}")));
        }
        Ok(())
    }
}
