//! The `ctime` of a file: when anything about it last changed. The kernel sets it, and no program can set it back.
//!
//! Deliberately not here: from which `ctime` on something counts as changed
//! ([`changed_since`](crate::model::changed_since)).

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Statx, StatxFlags};

use crate::model::Timestamp;

/// How much older than its event a change may be dated: a program that writes much at once has its file dated when it
/// begins and reported when it ends. Longer than any single call should take.
pub const MARGIN: Duration = Duration::from_secs(10);

/// The fields that [`Dated`] has to ask the kernel for.
pub const WANTED: StatxFlags = StatxFlags::CTIME.union(StatxFlags::MTIME);

/// When a file or directory changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    pub changed: Timestamp,
    /// The last change was one of the content, as far as its times tell: a copy of the same size and `mtime` is equal.
    /// Not so after `cp -p`, a restore, or a rename.
    pub written_last: bool,
}

impl From<&Statx> for Dated {
    fn from(stat: &Statx) -> Self {
        let (changed, written) = (stat.stx_ctime, stat.stx_mtime);
        Self {
            changed: timestamp(changed.tv_sec, changed.tv_nsec.into()),
            written_last: (changed.tv_sec, changed.tv_nsec) == (written.tv_sec, written.tv_nsec),
        }
    }
}

/// A time as the kernel tells it, in seconds and nanoseconds since the epoch.
pub fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    let milliseconds = u64::try_from(nanoseconds).unwrap_or(0) / 1_000_000;
    Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000).saturating_add(milliseconds))
}

/// Whether a file system of this kind is on a disk and numbers its files lastingly: ext2 to ext4, XFS, Btrfs, ZFS, F2FS,
/// bcachefs.
pub fn is_on_disk(kind: rustix::fs::FsWord) -> bool {
    const ON_DISKS: [u32; 6] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x2FC1_2FC1, 0xF2F5_2010, 0xCA45_1A4E];
    u32::try_from(kind).is_ok_and(|kind| ON_DISKS.contains(&kind))
}

/// Whether the file system that holds `path` dates each change, by this machine's clock. Trusted ones do, and so does an
/// overlay, which leaves that to the file systems that it consists of. The inodes of an overlay are no lasting ones.
pub fn dates_changes(path: &Path) -> bool {
    const OVERLAY: u32 = 0x794C_7630;
    let kind = rustix::fs::statfs(path).ok().and_then(|found| u32::try_from(found.f_type).ok());
    kind == Some(OVERLAY) || is_trusted(path)
}

/// Whether the file system that holds `path` dates each change, by this machine's clock, and numbers its files lastingly.
/// Network file systems take another machine's clock, FUSE takes what some program says.
pub fn is_trusted(path: &Path) -> bool {
    /// ext2 to ext4, XFS, Btrfs, ZFS, F2FS, bcachefs, tmpfs.
    const THAT_DO: [u32; 7] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x2FC1_2FC1, 0xF2F5_2010, 0xCA45_1A4E, 0x0102_1994];
    let kind = rustix::fs::statfs(path).map(|found| found.f_type);
    kind.ok().and_then(|kind| u32::try_from(kind).ok()).is_some_and(|kind| THAT_DO.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD};

    #[test]
    fn a_restored_file_was_not_written_last() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dated = || Dated::from(&rustix::fs::statx(CWD, file.path(), AtFlags::empty(), WANTED).unwrap());
        std::fs::write(file.path(), "content").unwrap();
        let written = dated();
        assert!(written.written_last);
        file.as_file().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!dated().written_last && dated().changed >= written.changed);
    }
}
