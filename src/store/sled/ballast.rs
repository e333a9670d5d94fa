//! Room that is kept back in the state directory, to be given up when a start finds the disk full. Without a little room
//! sled opens nothing, the identity cannot be written, and nobody would mirror until somebody had cleaned up.
//!
//! Deliberately not given up for a store that is in use: mirroring goes on from memory then, and the next start needs the
//! room more.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Enough for opening a store and for some 40,000 jobs.
const BYTES: u64 = 16 << 20;
/// The ballast is made only where this much is free: it shall not be what fills the disk.
const FREE_BYTES_MIN: u64 = 8 * BYTES;

/// Makes the file at `path`, if it is not there and there is room for it.
pub fn make(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let disk = statvfs(path.parent().unwrap_or(Path::new(".")))?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, BYTES).map_err(|errno| {
        // An empty file would stay: a later call takes it for the ballast.
        let _ = std::fs::remove_file(path);
        errno.into()
    })
}

/// Removes the file at `path` and returns whether there was one.
pub fn give_up(path: &Path) -> bool {
    std::fs::remove_file(path).is_ok()
}
