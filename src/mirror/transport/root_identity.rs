//! Which directory a root is, so that another directory in its place is noticed. Deliberately absent: what follows from
//! that.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::mirror::outcome::diagnosis::trouble;
use crate::model::{DirectoryId, TargetTrouble, TroubleClass};

/// Which directory a root is, whatever its name: its mark, and its device once the directory has been seen in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootIdentity {
    device: Option<u64>,
    mark: DirectoryId,
}

impl RootIdentity {
    /// Looks at the directory at `root`. Follows links, since the operator gave the name.
    pub fn of(root: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(root)?;
        if !found.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let born = found.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok());
        Ok(Self { device: Some(found.dev()), mark: DirectoryId { inode: found.ino(), born_ns } })
    }

    /// The directory that had this mark in an earlier run, on any device: device numbers may change with a reboot.
    pub fn remembered(mark: DirectoryId) -> Self {
        Self { device: None, mark }
    }

    pub fn mark(&self) -> DirectoryId {
        self.mark
    }

    /// Whether `root` still is this directory. An unmounted or replaced source would otherwise read as one in which
    /// everything was deleted.
    pub fn check(&self, root: &Path) -> Result<(), TargetTrouble> {
        let (meaning, hint) = match Self::of(root) {
            Ok(now) if now.mark == self.mark && (self.device.is_none() || now.device == self.device) => return Ok(()),
            Ok(_) => (
                "another directory has taken the place of the source",
                "mount or restore the one that was there, or accept the other: restart syncq with --accept-root",
            ),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (
                "the source directory cannot be looked at",
                "let the user that syncq runs as enter the directories above it: it goes on by itself then",
            ),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                ("the source is no directory any more", "restore it: syncq goes on by itself then")
            }
            Err(_) => ("the source directory is missing", "mount or restore it: syncq goes on by itself then"),
        };
        Err(trouble(TroubleClass::Source, None, meaning, &root.display().to_string(), hint))
    }
}
