//! Whether a local target is the directory that it was. Where its disk is not mounted there is the mount point, or nothing,
//! and rsync would fill or make that directory without a word.
//!
//! The queue's record remembers the directory from the target's first complete batch on. It is compared before each run, as
//! the source is. [`Place::accept`] accepts whatever directory is there.
//!
//! Deliberately absent: targets on other machines, whose inodes cannot be known here.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};

use crate::ctime;
use crate::mirror::outcome::diagnosis::trouble;
use crate::mirror::transport::root_identity::RootIdentity;
use crate::model::{DirectoryId, Target, TargetTrouble, TroubleClass};

/// See the module's documentation.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    name: String,
    mark: Mutex<Option<DirectoryId>>,
}

impl Place {
    /// The place of `target`, at `path`. `mark`: the directory that it was, if that is known.
    pub fn new(path: PathBuf, target: &Target, mark: Option<DirectoryId>) -> Self {
        Self { path, name: target.name(), mark: Mutex::new(mark) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Option<DirectoryId>> {
        self.mark.lock()
    }

    /// The error: the directory is missing, cannot be looked at, or is not the known one. `Ok` too if none is known.
    pub fn check(&self) -> Result<(), TargetTrouble> {
        let Some(mark) = *self.lock() else { return Ok(()) };
        let meaning = match identify(&self.path) {
            Ok(now) if now == mark => return Ok(()),
            Ok(_) => "another directory has taken the place of the target",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "the target directory is missing",
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => "the target is no directory",
            Err(error) => {
                let said = format!("{}: {error}", self.path.display());
                return Err(trouble(TroubleClass::Target, None, "the target cannot be looked at", &said, &self.hint()));
            }
        };
        Err(trouble(TroubleClass::Target, None, meaning, &self.path.display().to_string(), &self.hint()))
    }

    fn hint(&self) -> String {
        format!("mount or restore it; to mirror to what is there now: syncq accept-target {}", self.name)
    }

    /// Remembers the directory that is there now, unless one is known already. Returns a directory that was newly learned.
    pub(crate) fn learn(&self) -> Option<DirectoryId> {
        let mut mark = self.lock();
        if mark.is_none() {
            *mark = identify(&self.path).ok();
            return *mark;
        }
        None
    }

    /// Forgets the known directory, so that whatever is there now is accepted.
    pub fn accept(&self) {
        *self.lock() = None;
    }
}

/// Which directory is at `path`. Where inodes may be numbered anew with each mount (FAT, FUSE), a directory is known by its
/// kind of file system alone, which still tells a disk from its mount point.
fn identify(path: &Path) -> io::Result<DirectoryId> {
    const NFS: u32 = 0x6969;
    let mark = RootIdentity::of(path)?.mark();
    let kind = rustix::fs::statfs(path)?.f_type;
    let is_nfs = u32::try_from(kind) == Ok(NFS);
    if is_nfs || ctime::is_trusted(path) {
        return Ok(mark);
    }
    Ok(DirectoryId { inode: u64::try_from(kind).unwrap_or(0), born_ns: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, TransferOptions};

    /// A local target whose disk was not mounted was filled into the mount point.
    #[test]
    fn only_the_directory_that_it_was_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("www");
        let target = Target { destination: Destination::Local(path.clone()), options: TransferOptions::default() };
        let place = Place::new(path.clone(), &target, None);
        assert!(place.check().is_ok() && place.learn().is_none(), "rsync makes it");
        std::fs::create_dir(&path).unwrap();
        let mark = place.learn().unwrap();
        assert!(place.check().is_ok() && place.learn().is_none());

        std::fs::rename(&path, dir.path().join("away")).unwrap();
        let missing = place.check().unwrap_err();
        assert!(missing.class == TroubleClass::Target && missing.message.contains("missing"), "{missing:?}");
        assert!(missing.hint.unwrap().ends_with(&format!("syncq accept-target {}", path.display())));
        std::fs::create_dir(&path).unwrap();
        assert!(place.check().unwrap_err().message.starts_with("another directory"));
        // The same holds after a restart.
        assert!(Place::new(path.clone(), &target, Some(mark)).check().is_err());
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(dir.path().join("away"), &path).unwrap();
        assert!(place.check().is_ok());
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(place.check().unwrap_err().message.starts_with("the target is no directory"));
        place.accept();
        assert!(place.check().is_ok());
    }
}
