//! Which rsync is installed: its name, the file in PATH, and the oldest version that is tested. A missing rsync is reported
//! once at the start and not by every run. Starts no process.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// The program, found through PATH.
pub const RSYNC: &str = "rsync";
/// The oldest rsync, on either side, that passes `tools/rsync-matrix`. An older one is not refused but reported as
/// untested.
pub const OLDEST_RSYNC: &str = "3.2.3";

/// The error that PATH leads to no rsync.
#[derive(Debug, thiserror::Error)]
#[error("there is no rsync in PATH ({path})")]
pub struct NoRsync {
    path: String,
}

impl NoRsync {
    pub fn hint(&self) -> &'static str {
        "install it: apt-get install rsync"
    }
}

/// The file of the rsync that runs will use.
pub fn find_rsync() -> Result<PathBuf, NoRsync> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("rsync"))
        .find(|file| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
        .ok_or_else(|| NoRsync { path: path.display().to_string() })
}
