//! A count of commits beside the store, so that a store that has silently lost its latest commits is noticed: after
//! damage sled may open at an older state and say nothing.
//!
//! Each commit raises the count inside the store and, once it is durable, the one in this file. The file is written
//! without syncing, so it costs a microsecond; it may lag behind after a power cut but is never ahead, and is exact after
//! a kill. So a file that is ahead of its store means that acknowledged commits are gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::disk;
use crate::trust;

/// The number of the last commit, big-endian, and its CRC-32.
const FILE_BYTES: usize = 12;

#[derive(Debug)]
pub struct Progress {
    file: File,
}

impl Progress {
    /// Opens or creates the file at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = trust::open_plain(path, &mut options)?;
        Ok(Self { file })
    }

    /// The last commit that the file knows of; 0 if it says nothing sensible.
    pub fn commit(&self) -> u64 {
        let mut bytes = [0; FILE_BYTES];
        if self.file.read_exact_at(&mut bytes, 0).is_err() {
            return 0;
        }
        let (commit, sum) = bytes.split_at(8);
        let whole = crc32fast::hash(commit).to_be_bytes() == sum;
        commit.try_into().ok().filter(|_| whole).map_or(0, u64::from_be_bytes)
    }

    /// Notes that `commit` is durable in the store.
    pub fn note(&self, commit: u64) {
        let mut bytes = commit.to_be_bytes().to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        // The store has the commit; a note that lags only hides a later loss.
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            log::debug!("cannot note the store's progress: {error}");
        }
    }

    /// Whether the open file is still the one at `path`.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        disk::is_at(&self.file, path)
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_nonsense_is_nothing() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("progress");
        let progress = Progress::open(&path).expect("opens");
        assert_eq!(progress.commit(), 0);
        progress.note(7);
        progress.note(u64::MAX - 1);
        assert_eq!(Progress::open(&path).expect("opens").commit(), u64::MAX - 1);
        std::fs::write(&path, b"twelve bytes").expect("writes");
        assert_eq!(progress.commit(), 0);
    }
}
