//! Carries out a sweep: a directory below which files were written, and nobody remembers which.
//!
//! The quick check may take such a file for what the target has: same size, same time, other content. To have rsync
//! distrust the whole tree would read it all on both sides. But a write leaves its mark where nobody can forge it: the
//! inode's change time. So the files changed since the oldest of the forgotten writes was seen are sent first, by name
//! and without the quick check; one quick run over the tree then does everything else. Where change times are not the
//! kernel's own (network and FUSE file systems, unions), the whole tree goes without the quick check.
//!
//! Deliberately absent: directories that came from elsewhere (`Origin::Replaced`). The change times in them are old.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::execute::{Batch, Flow};
use super::look::Presence;
use super::plan::{Entry, Run, RunKind};
use crate::ctime;
use crate::filter::{Filter, Kind};
use crate::model::{Origin, RelPath, Timestamp};

/// A write is seen later than it happens: after the kernel's queue, a busy machine, a stopped process.
const SEEN_WITHIN: Duration = Duration::from_secs(600);

/// So many files go into one list.
const LIST_PATHS_MAX: usize = 20_000;

/// Whether `run` is a sweep that can be carried out in this way.
pub(super) fn concerns(batch: &Batch<'_>, run: &Run) -> bool {
    run.kind == RunKind::Tree && run.origin == Origin::Write && ctime::dates_changes(&batch.ctx.root)
}

/// Makes the trees of `run` equal.
pub(super) fn drive(batch: &mut Batch<'_>, run: Run) -> Flow {
    let (ctx, jobs) = (batch.ctx, batch.jobs);
    let below = |entry: &Entry| {
        let since = entry.jobs.iter().filter_map(|&job| jobs.get(job)).map(|job| job.since).min();
        let margin_ms = u64::try_from(SEEN_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let since_ms = since.unwrap_or(Timestamp::ZERO).0.saturating_sub(margin_ms);
        Files::below(&ctx.root, &entry.path, since_ms, &ctx.filter)
    };
    let mut files = run.entries.iter().flat_map(below);
    loop {
        let mut entries: Vec<Entry> = files.by_ref().take(LIST_PATHS_MAX).collect();
        if entries.is_empty() {
            break;
        }
        entries.retain(|entry| !batch.is_unmounted(&entry.path));
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let flow = batch.attempt_more(Run::new(RunKind::Flat, Origin::Write, entries));
        if flow != Flow::Continue {
            return flow;
        }
    }
    drop(files);
    batch.drive(Run { origin: Origin::Scan, ..run })
}

/// The files below a directory that changed at or after a moment, or whose file system cannot tell.
pub(super) struct Files<'a> {
    root: &'a Path,
    filter: &'a Filter,
    since_ms: u64,
    /// Directories to be read, with the device each is on, and whether its change times count.
    left: Vec<(RelPath, u64, bool)>,
    found: Vec<Entry>,
}

impl<'a> Files<'a> {
    pub(super) fn below(root: &'a Path, dir: &RelPath, since_ms: u64, filter: &'a Filter) -> Self {
        let mut files = Self { root, filter, since_ms, left: Vec::new(), found: Vec::new() };
        if let Ok(found) = std::fs::metadata(dir.under(root)) {
            files.left.push((dir.clone(), found.dev(), ctime::dates_changes(&dir.under(root))));
        }
        files
    }

    fn read(&mut self, dir: &RelPath, device: u64, trusted: bool) {
        // What cannot be read is for rsync to name, in the run over the tree.
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
            // Whatever is no file has no content that could be missed.
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
