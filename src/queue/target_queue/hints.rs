//! Remembers two things of pending paths besides their jobs, in memory only: which paths are names of one file, and which
//! paths send content that was moved from another path. `names` and `renames` act on these.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use crate::model::{RelPath, Timestamp, below_range};

/// Pending paths that are names of one file, by the number of the file.
#[derive(Debug, Default)]
pub(super) struct Names {
    files: HashMap<RelPath, u64>,
    names: HashMap<u64, BTreeSet<RelPath>>,
}

impl Names {
    pub(super) fn note(&mut self, path: &RelPath, file: u64) {
        self.forget(path);
        self.files.insert(path.clone(), file);
        self.names.entry(file).or_default().insert(path.clone());
    }

    pub(super) fn forget(&mut self, path: &RelPath) {
        let Some(file) = self.files.remove(path) else { return };
        let Some(names) = self.names.get_mut(&file) else { return };
        names.remove(path);
        if names.is_empty() {
            self.names.remove(&file);
        }
    }

    pub(super) fn file(&self, path: &RelPath) -> Option<u64> {
        self.files.get(path).copied()
    }

    pub(super) fn others<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
        let names = self.files.get(path).and_then(|file| self.names.get(file));
        names.into_iter().flatten().filter(move |name| *name != path)
    }
}

/// The path from which the content of a job was moved.
#[derive(Debug)]
pub(super) struct Hint {
    pub(super) old: RelPath,
    pub(super) is_tree: bool,
}

/// The hints of all jobs, by their new and by their old paths.
#[derive(Debug, Default)]
pub(super) struct Renames {
    pub(super) by_new: BTreeMap<RelPath, Hint>,
    pub(super) by_old: BTreeMap<RelPath, RelPath>,
    /// New names for which something new under their old name waits, each with the time until which it does.
    pub(super) until: BTreeSet<(Timestamp, RelPath)>,
}

impl Renames {
    pub(super) fn old_name(&self, new: &RelPath) -> Option<&RelPath> {
        self.by_new.get(new).map(|hint| &hint.old)
    }

    pub(super) fn is_old_name(&self, path: &RelPath) -> bool {
        self.by_old.contains_key(path)
    }

    pub(super) fn put(&mut self, new: RelPath, hint: Hint) {
        if let Some(before) = self.by_old.insert(hint.old.clone(), new.clone()) {
            self.by_new.remove(&before);
        }
        self.by_new.insert(new, hint);
    }

    pub(super) fn forget(&mut self, new: &RelPath) {
        if let Some(hint) = self.by_new.remove(new) {
            self.by_old.remove(&hint.old);
        }
    }

    /// Drops the hints for which something new has waited long enough.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.until.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, new)) = self.until.pop_first() {
                self.forget(&new);
            }
        }
    }

    /// When the next such wait ends.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.until.first().map(|(until, _)| *until)
    }

    pub(super) fn forget_trees(&mut self, news: Vec<RelPath>) {
        for new in news {
            if self.by_new.get(&new).is_some_and(|hint| hint.is_tree) {
                self.forget(&new);
            }
        }
    }

    /// The new names of content that was moved from strictly below `path`.
    pub(super) fn moved_from_below(&self, path: &RelPath) -> Vec<RelPath> {
        below(&self.by_old, path).map(|(_, new)| new.clone()).collect()
    }

    /// The new names strictly below `path`.
    pub(super) fn moved_to_below(&self, path: &RelPath) -> Vec<RelPath> {
        below(&self.by_new, path).map(|(new, _)| new.clone()).collect()
    }
}

/// The paths of `map` below a directory.
pub(super) fn below<'a, T>(
    map: &'a BTreeMap<RelPath, T>,
    path: &RelPath,
) -> impl Iterator<Item = (&'a RelPath, &'a T)> {
    let (start, end) = below_range(path);
    let bounds = match path.is_root() {
        // Every path that has a first byte: all but the root.
        true => (Vec::from([0]), Bound::Unbounded),
        false => (start, Bound::Excluded(end)),
    };
    let (start, end) = (bounds.0, bounds.1);
    map.range::<[u8], _>((Bound::Included(start.as_slice()), end.as_ref().map(Vec::as_slice)))
}
