//! One rsync to be run, as a value: what kind of run it is, and the entries of its list.
//!
//! Every entry remembers the jobs that it stands for, so that rsync's message about a name leads back to its jobs. Pure.
//! Deliberately absent: which runs a batch needs (`planner`), and argument lists (`arguments`).

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::source::Presence;
use crate::model::{Origin, RelPath};

/// How a run treats the directories in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunKind {
    /// Deletes the entries, which are missing in the source, where deletions by name are refused. The directories above the
    /// entries are listed with the one level in them, and rules keep everything else there from being sent or deleted.
    Removal,
    /// Exactly the entries listed.
    Flat,
    /// The root directory's own attributes and nothing in it.
    RootOnly,
    /// Each listed directory with the one level in it.
    Level,
    /// Each listed directory with everything below.
    Tree,
}

/// One line of a run's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: RelPath,
    pub presence: Presence,
    /// The entry's parent is not in the source either: rsync deletes the entry, but reports it as vanished.
    pub orphan: bool,
    /// Indices into the claimed jobs.
    pub jobs: Vec<usize>,
}

/// One rsync to be run. Entries are sorted by path and distinct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub kind: RunKind,
    /// The least trusting origin among the entries: it allows (`Reconcile`, `Scan`) or forbids (`Write`) the quick check.
    pub origin: Origin,
    pub entries: Vec<Entry>,
    /// Paths that rsync must neither read nor delete in the directories that it looks into.
    pub skip: Vec<RelPath>,
    /// How many deletions a level or tree run may make; `None` for any number.
    pub max_delete: Option<u64>,
    /// Directories in the list of a flat run that stand for their contents as well, one level deep. In a level run all
    /// directories do if this is empty. In a removal these directories are the whole list.
    pub with_contents: BTreeSet<RelPath>,
    /// How many bytes the files hold for which the list stands. `None`: the entries of the list tell.
    pub content_bytes: Option<u64>,
    /// rsync has no list and looks for itself, from the root on, at no more than the entries (`narrow`).
    pub looks: bool,
    /// The patterns that narrow a run in which rsync looks for itself: they exclude all paths but its entries. Set at the
    /// start.
    pub narrowing: Vec<OsString>,
    /// The user's expressions have been asked about everything below the paths that this run deletes or replaces.
    pub is_judged: bool,
    /// All files have just been made: the target has nothing to compare them with.
    pub are_new: bool,
    /// Contents are compared: size and time say nothing of what this target holds.
    pub by_content: bool,
}

impl Run {
    pub fn new(kind: RunKind, origin: Origin, entries: Vec<Entry>) -> Self {
        Self {
            kind,
            origin,
            entries,
            skip: Vec::new(),
            max_delete: None,
            with_contents: BTreeSet::new(),
            looks: false,
            narrowing: Vec::new(),
            is_judged: false,
            content_bytes: None,
            are_new: false,
            by_content: false,
        }
    }

    /// The run that deletes entries which are missing in the source, in the way that `deletion` allows.
    pub fn deletion(deletion: Deletion, entries: Vec<Entry>, look: &mut dyn FnMut(&RelPath) -> Presence) -> Self {
        if deletion != Deletion::ByLevel {
            return Self::new(RunKind::Flat, Origin::Scan, entries);
        }
        // The lowest existing directory above each entry: missing directories between go with the entry, once they are
        // empty.
        let mut above = |path: &RelPath| path.ancestors().find(|above| look(above) == Presence::Directory);
        let with_contents = entries.iter().filter_map(|entry| above(&entry.path)).collect();
        Self { with_contents, ..Self::new(RunKind::Removal, Origin::Scan, entries) }
    }

    /// Whether rsync finds by itself what exists, and deletes what the source lacks.
    pub fn lists(&self) -> bool {
        self.looks || self.compares()
    }

    /// Whether the run makes directories equal, and not only single names.
    pub fn compares(&self) -> bool {
        matches!(self.kind, RunKind::Level | RunKind::Tree)
    }

    /// Whether rsync looks by itself into the directories of the list, and finds what is to be deleted there.
    pub fn looks_around(&self) -> bool {
        self.lists() || self.kind == RunKind::Removal
    }

    /// Whether a change or failure at `path` concerns the job of `entry`.
    pub fn reaches(&self, entry: &Entry, path: &RelPath) -> bool {
        match self.kind {
            RunKind::Level | RunKind::Tree => entry.path.covers(path),
            RunKind::RootOnly => path.is_root(),
            RunKind::Removal => entry.path.covers(path),
            // The target may have a directory where a listed path replaces or deletes something.
            RunKind::Flat => {
                entry.path == *path || (entry.presence != Presence::Directory && entry.path.is_ancestor_of(path))
            }
        }
    }

    /// The jobs behind the run's entries. A job may be named more than once.
    pub fn jobs(&self) -> Vec<usize> {
        self.entries.iter().flat_map(|entry| entry.jobs.iter().copied()).collect()
    }

    /// Two runs: the entries whose index is `chosen`, and the others.
    pub fn parted(mut self, chosen: impl Fn(usize) -> bool) -> (Self, Self) {
        let (mut these, mut others) = (Vec::new(), Vec::new());
        for (at, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            if chosen(at) { these.push(entry) } else { others.push(entry) }
        }
        (Self { entries: these, ..self.clone() }, Self { entries: others, ..self })
    }

    /// Divides the run into two of about the same length.
    pub fn halves(self) -> (Self, Self) {
        let half = self.entries.len() / 2;
        let (mut first, rest) = self.parted(|at| at < half);
        // A flat list carries the root only as the parent of its other entries.
        if first.kind == RunKind::Flat && first.entries.iter().all(|entry| entry.path.is_root()) {
            first.kind = RunKind::RootOnly;
        }
        (first, rest)
    }
}

/// How deletions can be made on a target, as far as a plan depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Deletions are not wanted.
    Off,
    /// A missing path in the list is deleted.
    ByName,
    /// The server refuses deletions by name, but deletes in a directory what the source lacks there ([`RunKind::Removal`]).
    ByLevel,
    /// The server refuses every deletion.
    Refused,
}
