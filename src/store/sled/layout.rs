//! The names of everything that lies in a state directory. The files are looked at only to tell whose store it is and
//! which stores were kept. How a store is opened is not said here.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::disk;
use crate::store::{KeptStore, StoreError};

/// The beginning of the names of stores that are kept for people.
pub(super) const DAMAGED_PREFIX: &str = "store.damaged-";
pub(super) const SCHEMA_PREFIX: &str = "store.schema-";
const KEPT_PREFIXES: [&str; 2] = [DAMAGED_PREFIX, SCHEMA_PREFIX];

/// The paths of these things in a state directory, or in a copy of it.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The state directory, in the layout of a copy as well: errors name it.
    pub dir: PathBuf,
    pub store: PathBuf,
    /// The copy that a compaction makes, and the store that it replaces.
    pub compact: PathBuf,
    pub old: PathBuf,
    pub identity: PathBuf,
    pub ballast: PathBuf,
    pub progress: PathBuf,
    pub lock: PathBuf,
}

impl Layout {
    pub fn of(dir: &Path) -> Self {
        let [store, compact, old] = ["store", "store.compact", "store.old"].map(|name| dir.join(name));
        let [identity, ballast, progress, lock] =
            ["identity", "ballast", "progress", "lock"].map(|name| dir.join(name));
        Self { dir: dir.into(), store, compact, old, identity, ballast, progress, lock }
    }

    /// The same layout in `place`, for a copy. Errors name the original.
    pub fn copied_to(&self, place: &Path) -> Self {
        Self { dir: self.dir.clone(), ..Self::of(place) }
    }

    /// The directory that everything lies in.
    pub fn place(&self) -> &Path {
        self.store.parent().unwrap_or(&self.dir)
    }

    /// The files and directories that a store is made of.
    pub fn parts(&self) -> [&Path; 4] {
        [&self.store, &self.old, &self.identity, &self.progress]
    }

    /// Fails if there is no store, not even one that a compaction was about to replace.
    pub fn has_store(&self) -> io::Result<()> {
        self.owner().map(drop)
    }

    /// The number of the user to whom that store belongs.
    pub fn owner(&self) -> io::Result<u32> {
        let there = |dir: &Path| std::fs::metadata(dir.join(disk::DB)).map(|found| found.uid());
        there(&self.store).or_else(|error| there(&self.old).map_err(|_| error))
    }

    /// Stores that were set aside: damaged ones, and copies from before a migration.
    pub fn kept(&self) -> io::Result<Vec<KeptStore>> {
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
            if KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes())) {
                kept.push(KeptStore { bytes: disk::size_bytes(&path), path });
            }
        }
        kept.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(kept)
    }

    pub fn directory(&self, source: io::Error) -> StoreError {
        StoreError::Directory { dir: self.dir.clone(), source }
    }

    pub(super) fn damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { dir: self.dir.clone(), reason }
    }
}
