//! Finds PostgreSQL's programs and runs them with an environment of our own, as a user that
//! PostgreSQL accepts. No password goes on a command line here.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, chown, geteuid};

use super::EXIT;
use crate::error::{Context, Error, Exit, Result};

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone)]
pub struct BinDir {
    path: PathBuf,
    version: String,
    major: u32,
}

impl BinDir {
    /// The folder that was asked for, else `PGMIG_PG_BIN`, else the newest Debian package, else the
    /// installation in PATH.
    pub fn find(explicit: Option<&Path>) -> Result<BinDir> {
        let from_env = || std::env::var_os("PGMIG_PG_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        if let Some(dir) = explicit.map(Path::to_path_buf).or_else(from_env) {
            return BinDir::open(&dir);
        }
        if let Some(newest) = BinDir::packaged().into_iter().next_back() {
            return Ok(newest);
        }
        let told = run(Command::new("pg_config").arg("--bindir"), "ask pg_config for PostgreSQL's programs")
            .map_err(|e| e.hint("install PostgreSQL's server programs, or set PGMIG_PG_BIN to their folder"))?;
        BinDir::open(Path::new(told.trim()))
    }

    /// Every server that Debian's packages installed, oldest first.
    pub fn packaged() -> Vec<BinDir> {
        let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut found: Vec<BinDir> = folders.filter_map(|f| BinDir::open(&f.path().join("bin")).ok()).collect();
        found.sort_by_key(|bin| bin.major);
        found
    }

    pub fn open(dir: &Path) -> Result<BinDir> {
        let doing = format!("use the PostgreSQL programs in {}", dir.display());
        let missing = || Error::new(Exit::Usage, &doing).hint("PGMIG_PG_BIN is the folder that holds `postgres`");
        // "postgres (PostgreSQL) 15.20 (Debian …)", "postgres (PostgreSQL) 19devel"
        let told = run(Command::new(dir.join("postgres")).arg("--version"), "ask for the version")
            .map_err(|e| missing().cause(e))?;
        let version = told.split(") ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let version = version.ok_or_else(missing)?.to_string();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        let major = digits.parse().map_err(|_| missing())?;
        Ok(BinDir { path: dir.to_path_buf(), version, major })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
    /// As the server prints it: `15.20`.
    pub fn version(&self) -> &str {
        &self.version
    }
    pub fn major(&self) -> u32 {
        self.major
    }

    /// One of the programs, with the variables of libpq removed and the locale set.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.path.join(name));
        let foreign = |key: &OsStr| {
            let key = key.to_string_lossy();
            key.starts_with("PG") && !key.starts_with("PGMIG") || key.starts_with("LC_") || key == "LANG"
        };
        for (key, _) in std::env::vars_os().filter(|(key, _)| foreign(key)) {
            command.env_remove(key);
        }
        command.env_remove("RUST_BACKTRACE").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    /// Whether the server knows a setting; an unknown one would keep it from starting.
    pub(super) fn knows_setting(&self, name: &str) -> Result<bool> {
        let all = run(self.tool("postgres").arg("--describe-config"), "list the settings that postgres knows")?;
        Ok(all.lines().any(|line| line.split('\t').next() == Some(name)))
    }

    /// Whether the installation holds the library of the JIT compiler.
    pub(super) fn has_jit(&self) -> bool {
        let told = run(self.tool("pg_config").arg("--pkglibdir"), "ask pg_config for the libraries");
        told.is_ok_and(|dir| {
            ["so", "dylib"].iter().any(|end| Path::new(dir.trim()).join(format!("llvmjit.{end}")).exists())
        })
    }
}

/// Whom servers run as: PostgreSQL refuses root, so root lends them to `postgres` or `nobody`.
#[derive(Debug, Clone, Copy)]
pub struct RunAs(Option<(Uid, Gid)>);

impl RunAs {
    pub fn choose() -> Result<RunAs> {
        if !geteuid().is_root() {
            return Ok(RunAs(None));
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.ok_or_else(|| Error::new(EXIT, "find a user for the throwaway server: root may not run it"))?;
        Ok(RunAs(Some((user.uid, user.gid))))
    }
    pub fn uid(&self) -> Uid {
        self.0.map_or_else(geteuid, |(uid, _)| uid)
    }
    pub fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some((uid, gid)) = self.0 {
            command.uid(uid.as_raw()).gid(gid.as_raw()).current_dir("/");
        }
        command
    }
    pub fn give(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.0 else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).during(EXIT, || format!("give {} to the server's user", path.display()))
    }
}

/// Runs a program to its end; its output, or an error with what it said.
pub(super) fn run(command: &mut Command, doing: &str) -> Result<String> {
    let output = command.output().during(EXIT, || format!("{doing}: start {}", program(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let said = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(Error::new(EXIT, doing).cause(format!("{} ended with {}: {said}", program(command), output.status)))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
