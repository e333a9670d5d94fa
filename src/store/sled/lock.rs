//! The lock on a state directory: one syncq at a time. Held by `flock`, so a killed process leaves no lock behind.
//!
//! The file stays when the lock goes: without the file two processes might lock two files of one name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::disk;
use crate::store::StoreError;
use crate::trust;

/// Holds the lock until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock at `path` in the state directory `dir`, and writes this process's id into it.
    pub fn take(dir: &Path, path: &Path) -> Result<Self, StoreError> {
        let in_dir = |source| StoreError::Directory { dir: dir.to_owned(), source };
        // The standard library opens with O_CLOEXEC: a child that outlives us must not hold the lock.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = trust::open_plain(path, &mut options).map_err(in_dir)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { dir: dir.to_owned(), pid: holder(&mut file) });
            }
            Err(errno) => return Err(in_dir(errno.into())),
        }
        // The process id is for people only: with a full disk it may be missing.
        if let Err(error) = write_pid(&mut file) {
            log::debug!("cannot write the lock file: {error}");
        }
        Ok(Self { file })
    }

    /// Keeps others from taking the lock at `path` for as long as the returned file is held; several callers may do this
    /// at a time. Changes nothing. `None` if there is no lock file: no syncq uses the directory then.
    pub fn share(dir: &Path, path: &Path) -> Result<Option<File>, StoreError> {
        let in_dir = |source| StoreError::Directory { dir: dir.to_owned(), source };
        let mut file = match trust::open_plain(path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(in_dir(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(StoreError::Locked { dir: dir.to_owned(), pid: holder(&mut file) })
            }
            Err(errno) => Err(in_dir(errno.into())),
        }
    }

    /// Whether the locked file is still the one at `path`. If not, another process may lock the one there.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        disk::is_at(&self.file, path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The process id would be wrong from here on.
        if let Err(error) = self.file.set_len(0) {
            log::debug!("cannot clear the lock file: {error}");
        }
        // Unlock explicitly: a child between its fork and its exec has the descriptor too, and would hold the lock a
        // little longer.
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            log::debug!("cannot release the lock: {error}");
        }
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    const PID_BYTES_MAX: u64 = 16;
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
