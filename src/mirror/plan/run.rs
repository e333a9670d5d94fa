//! One rsync to be run, as a value: what kind of run it is, and the entries of its list.
//!
//! Every entry remembers the jobs it stands for, so that what rsync says about a name finds its way back. Pure. Deliberately
//! absent: which runs a batch needs (`planner`), and argv (`arguments`).

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::source::Presence;
use crate::model::{Origin, RelPath};

/// How a run treats the directories in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunKind {
    /// Deletes the entries, which are missing in the source, where deletions by name are refused: the directories above them
    /// are listed with the one level in them, and rules keep all else there from being sent or deleted.
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
    /// Its parent is not in the source either: rsync deletes it, but reports it as vanished.
    pub orphan: bool,
    /// Indices into the claimed jobs.
    pub jobs: Vec<usize>,
}

/// One rsync to be run. Entries are sorted by path and distinct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub kind: RunKind,
    /// The least trusting origin allows (`Reconcile`, `Scan`) or forbids (`Write`) the quick check.
    pub origin: Origin,
    pub entries: Vec<Entry>,
    /// What rsync must neither read nor delete in the directories that it looks into.
    pub skip: Vec<RelPath>,
    /// How many deletions a level or tree run may make; `None` for any number.
    pub max_delete: Option<u64>,
    /// Directories in the list of a flat run that stand for what is in them as well, one level deep. In a level run all do
    /// if this is empty. In a removal they are the whole list.
    pub with_contents: BTreeSet<RelPath>,
    /// How much the files hold for which the list stands, where that is known although the list does not name them.
    pub content_bytes: Option<u64>,
    /// rsync has no list and looks for itself, from the root on, at no more than the entries (`narrow`).
    pub looks: bool,
    /// What narrows a run that looks: patterns of what is none of its entries. Set when it is started.
    pub narrowing: Vec<OsString>,
    /// The user's expressions have been asked about all that lies below what this run deletes or replaces.
    pub is_judged: bool,
    /// Nothing but files that have just been made: there is nothing on the target to compare them with.
    pub are_new: bool,
    /// Size and time say nothing of what the target holds: contents are compared.
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

    /// What takes entries away that are missing in the source, in the way that `deletion` leaves.
    pub fn deletion(deletion: Deletion, entries: Vec<Entry>, look: &mut dyn FnMut(&RelPath) -> Presence) -> Self {
        if deletion != Deletion::ByLevel {
            return Self::new(RunKind::Flat, Origin::Scan, entries);
        }
        // The lowest directory above each that is there: what else is missing above it goes with it, once it is empty.
        let mut above = |path: &RelPath| path.ancestors().find(|above| look(above) == Presence::Directory);
        let with_contents = entries.iter().filter_map(|entry| above(&entry.path)).collect();
        Self { with_contents, ..Self::new(RunKind::Removal, Origin::Scan, entries) }
    }

    /// Whether rsync finds by itself what there is, and deletes what there is not.
    pub fn lists(&self) -> bool {
        self.looks || self.compares()
    }

    /// Whether it makes directories equal, and not only what is named.
    pub fn compares(&self) -> bool {
        matches!(self.kind, RunKind::Level | RunKind::Tree)
    }

    /// Whether rsync looks for itself what is in the directories of the list, and what is to be deleted there.
    pub fn looks_around(&self) -> bool {
        self.lists() || self.kind == RunKind::Removal
    }

    /// Whether what happens at `path` concerns the entry at `entry`.
    pub fn reaches(&self, entry: &Entry, path: &RelPath) -> bool {
        match self.kind {
            RunKind::Level | RunKind::Tree => entry.path.covers(path),
            RunKind::RootOnly => path.is_root(),
            RunKind::Removal => entry.path.covers(path),
            // What a listed path replaces or deletes may be a directory on the target.
            RunKind::Flat => {
                entry.path == *path || (entry.presence != Presence::Directory && entry.path.is_ancestor_of(path))
            }
        }
    }

    /// The jobs behind its entries, some of them perhaps more than once.
    pub fn jobs(&self) -> Vec<usize> {
        self.entries.iter().flat_map(|entry| entry.jobs.iter().copied()).collect()
    }

    /// Two runs: the entries that are `chosen`, by their place in the list, and the others.
    pub fn parted(mut self, chosen: impl Fn(usize) -> bool) -> (Self, Self) {
        let (mut these, mut others) = (Vec::new(), Vec::new());
        for (at, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            if chosen(at) { these.push(entry) } else { others.push(entry) }
        }
        (Self { entries: these, ..self.clone() }, Self { entries: others, ..self })
    }

    /// Cuts the run into two of about the same length.
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

/// What the target can do, as far as a plan depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Deletions are not wanted.
    Off,
    /// Missing paths in the list delete.
    ByName,
    /// The server refuses that, but deletes what it lacks in a directory ([`RunKind::Removal`]).
    ByLevel,
    /// The server refuses every deletion.
    Refused,
}
