//! Makes a data directory quickly: initdb once per version, then copies. A copy gets a system
//! identifier of its own: two servers must never look like one and the same source.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::geteuid;

use super::EXIT;
use super::bin_dir::{BinDir, RunAs, run};
use crate::error::{Context, Error, Result};

/// Makes the data directory `to`, which must not exist, in a folder that the server's user may enter.
pub fn make(bin: &BinDir, run_as: RunAs, encoding: &str, to: &Path) -> Result<()> {
    let Some(shelf) = shelf() else { return initdb(bin, run_as, encoding, to) };
    let key = format!("{}-{}-{encoding}-{}", bin.version(), bin.path().display(), run_as.uid());
    let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    // A template lives for a day: what cleans /tmp may take single files out of an old one.
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let template = shelf.join(format!("{today}-{key}"));

    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let turn = ONE_AT_A_TIME.lock();
    if !template.exists() {
        let draft = shelf.join(format!("draft-{}", std::process::id()));
        let _ = fs::remove_dir_all(&draft);
        initdb(bin, run_as, encoding, &draft)?;
        sweep(&shelf, today);
        // Another process may have been faster; its template is as good as ours.
        if fs::rename(&draft, &template).is_err() {
            let _ = fs::remove_dir_all(&draft);
        }
    }
    drop(turn);

    let mut copy = Command::new("cp");
    copy.arg(if cfg!(target_os = "linux") { "-a" } else { "-pR" });
    if cfg!(target_os = "linux") {
        copy.arg("--reflink=auto");
    }
    run(copy.arg(&template).arg(to), "copy the template of a data directory")?;
    renew_identifier(&to.join("global/pg_control"))?;
    // New WAL with the new identifier in it.
    let mut reset = bin.tool("pg_resetwal");
    run(run_as.apply(reset.arg("-D").arg(to)), "give a copied data directory its own WAL")?;
    Ok(())
}

fn initdb(bin: &BinDir, run_as: RunAs, encoding: &str, to: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(to).during(EXIT, || format!("make the folder {}", to.display()))?;
    run_as.give(to)?;
    let locale = if encoding.eq_ignore_ascii_case("UTF8") { "C.UTF-8" } else { "C" };
    let mut initdb = bin.tool("initdb");
    initdb.args(["--no-sync", "--auth=trust", "--username=postgres"]);
    initdb.arg(format!("--encoding={encoding}")).arg(format!("--locale={locale}")).arg("-D").arg(to);
    run(run_as.apply(&mut initdb), "make a data directory").map(drop).map_err(|e| {
        e.hint("the server's user must be able to read PostgreSQL's programs and to enter the temporary folder")
    })
}

/// Where templates lie from one run to the next; None if that place is not safely ours.
fn shelf() -> Option<PathBuf> {
    let path = super::cluster::temp_root().join(format!("pgmig-templates-{}", geteuid()));
    // Others may pass through to what is theirs (the server's user), not look around.
    let _ = DirBuilder::new().mode(0o711).create(&path);
    let meta = fs::symlink_metadata(&path).ok()?;
    let ours = meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o022 == 0;
    ours.then_some(path)
}

/// Removes the templates that nobody copies any more.
fn sweep(shelf: &Path, today: u64) {
    for entry in fs::read_dir(shelf).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let day = name.split('-').next().and_then(|day| day.parse::<u64>().ok());
        if day.is_some_and(|day| day + 1 < today) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The identifier is the first field of pg_control; a CRC-32C of all fields follows the last one,
/// at a place that differs from version to version and is found by trying.
fn renew_identifier(pg_control: &Path) -> Result<()> {
    let doing = || "give a copied data directory its own identifier".to_string();
    let mut bytes = fs::read(pg_control).during(EXIT, doing)?;
    let crc_at = (8..bytes.len().saturating_sub(4).min(8192))
        .step_by(4)
        .find(|at| bytes[*at..*at + 4] == crc32c(&bytes[..*at]).to_ne_bytes())
        .ok_or_else(|| Error::new(EXIT, doing()).cause("pg_control holds no checksum"))?;
    // As initdb does it: seconds in the upper half, then what tells two of the same second apart.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let identifier = now.as_secs() << 32 | fastrand::u64(..) & 0xffff_ffff;
    bytes[..8].copy_from_slice(&identifier.to_ne_bytes());
    let crc = crc32c(&bytes[..crc_at]);
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_ne_bytes());
    let file = OpenOptions::new().write(true).open(pg_control).during(EXIT, doing)?;
    file.write_all_at(&bytes, 0).during(EXIT, doing)
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(super::crc32c(b"123456789"), 0xE306_9283);
    }
}
