//! The statements that make one table, as pg_dump gives them.

use std::path::Path;

use super::dump::{Entry, Tools, output};
use crate::config::Conninfo;
use crate::error::Result;
use crate::model::{Leave, TableName};

impl Tools {
    /// One table, with its sequences, as entries of a dump: what it needs, and what needs it.
    pub async fn table_entries(
        &self,
        source: &Conninfo,
        table: &TableName,
        leave: Leave,
        file: &Path,
    ) -> Result<(Vec<Entry>, Vec<Entry>)> {
        let mut command = self.command("pg_dump");
        for (name, value) in source.libpq_env() {
            command.env(name, value);
        }
        command
            .args(["--no-password", "--schema-only", "--format=custom", "--encoding=UTF8"])
            .arg(format!("--table={}", table.sql()))
            .arg("--file")
            .arg(file);
        output(command, "pg_dump").await?;
        self.entries(file, leave).await
    }

    /// Without comments, settings and owners: for a person to run on the target.
    pub async fn table_ddl(&self, source: &Conninfo, table: &TableName) -> Result<Vec<String>> {
        let mut command = self.command("pg_dump");
        for (name, value) in source.libpq_env() {
            command.env(name, value);
        }
        command
            .args(["--no-password", "--schema-only", "--encoding=UTF8", "--no-owner", "--no-acl", "--no-publications"])
            .arg(format!("--table={}", table.sql()));
        let text = output(command, "pg_dump").await?;
        let talk = |line: &str| {
            line.trim().is_empty()
                || line.starts_with("--")
                || line.starts_with('\\')
                || line.starts_with("SET ")
                || line.starts_with("SELECT pg_catalog.set_config(")
        };
        Ok(text.lines().filter(|line| !talk(line)).map(str::to_string).collect())
    }
}
