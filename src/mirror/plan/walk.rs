//! Walks a source tree for its files, directory by directory, through no link. Deliberately absent: what is done with the
//! files.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::run::Entry;
use super::source::Presence;
use crate::ctime;
use crate::filter::{Filter, Kind};
use crate::model::RelPath;

/// The files below a directory that changed at or after a moment, or are on a file system that cannot tell.
pub(crate) struct Files<'a> {
    root: &'a Path,
    filter: &'a Filter,
    since_ms: u64,
    /// Directories that are still to be read, each with its device, and whether change times on that device can be trusted.
    left: Vec<(RelPath, u64, bool)>,
    found: Vec<Entry>,
}

impl<'a> Files<'a> {
    pub(crate) fn below(root: &'a Path, dir: &RelPath, since_ms: u64, filter: &'a Filter) -> Self {
        let mut files = Self { root, filter, since_ms, left: Vec::new(), found: Vec::new() };
        if let Ok(found) = std::fs::metadata(dir.under(root)) {
            files.left.push((dir.clone(), found.dev(), ctime::dates_changes(&dir.under(root))));
        }
        files
    }

    fn read(&mut self, dir: &RelPath, device: u64, trusted: bool) {
        // A directory that cannot be read is skipped here; rsync reports it, in the run over the tree.
        let Ok(entries) = std::fs::read_dir(dir.under(self.root)) else { return };
        for entry in entries.flatten() {
            let path = dir.join(std::os::unix::ffi::OsStrExt::as_bytes(&*entry.file_name()));
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                if !self.filter.excludes(&path, Kind::Directory) {
                    let at: PathBuf = entry.path();
                    let trusted = if found.dev() == device { trusted } else { ctime::dates_changes(&at) };
                    self.left.push((path, found.dev(), trusted));
                }
                continue;
            }
            let changed_ms = found.ctime().saturating_mul(1_000).saturating_add(found.ctime_nsec() / 1_000_000);
            let recent = !trusted || u64::try_from(changed_ms).unwrap_or(0) >= self.since_ms;
            let size = found.len();
            // Only a file has content that the quick check could miss.
            if recent && found.is_file() && !self.filter.excludes(&path, Kind::File) {
                let presence = Presence::File { size };
                self.found.push(Entry { path, presence, orphan: false, jobs: Vec::new() });
            }
        }
    }
}

impl Iterator for Files<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        while self.found.is_empty() {
            let (dir, device, trusted) = self.left.pop()?;
            self.read(&dir, device, trusted);
        }
        self.found.pop()
    }
}
