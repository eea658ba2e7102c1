//! The part of the process environment that a connection string depends on, as a value: read once
//! at start, made up in tests. Must never be read from anywhere else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

/// Where libpq's defaults come from (manual 34.15).
#[derive(Clone, Default)]
pub struct Environment {
    /// Only variables whose name starts with `PG`.
    pub vars: HashMap<String, String>,
    pub home: Option<PathBuf>,
    pub os_user: Option<String>,
    /// The directory of the server's Unix socket, if it is on this machine.
    pub socket_dir: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process. A variable that is not UTF-8 is left out.
    pub fn of_process() -> Environment {
        let vars = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("PG"))
            .collect();
        let account = User::from_uid(geteuid()).ok().flatten();
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let socket_dir = Path::new("/var/run/postgresql");
        Environment {
            vars,
            home: home.or_else(|| account.as_ref().map(|account| account.dir.clone())),
            os_user: account.map(|account| account.name),
            socket_dir: socket_dir.is_dir().then(|| socket_dir.to_path_buf()),
        }
    }

    /// The variable's value; an empty one counts as not set.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A path below the home directory.
    pub fn in_home(&self, relative: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(relative))
    }
}
