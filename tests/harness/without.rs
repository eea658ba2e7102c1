//! A server that lacks a library, by a setting: nothing on the machine is changed.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use pgmig::embedded::BinDir;

/// A folder that leads to every library of the server but one, for `dynamic_library_path`.
pub fn libraries_without(library: &str) -> Result<tempfile::TempDir, Box<dyn std::error::Error + Send + Sync>> {
    let told = BinDir::find(None)?.tool("pg_config").arg("--pkglibdir").output()?;
    let told = String::from_utf8(told.stdout)?;
    let folder = tempfile::tempdir()?;
    // The server's user passes through.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(Path::new(told.trim()))? {
        let entry = entry?;
        if entry.path().file_stem().is_none_or(|name| name != library) {
            symlink(entry.path(), folder.path().join(entry.file_name()))?;
        }
    }
    Ok(folder)
}
