//! Which paths the store has to be told of, in the order in which they became dirty. Pure.
//!
//! A path keeps its place however often it changes, even through a commit that fails. So whoever waits for what is dirty
//! now ([`DirtyPaths::mark`]) waits for a bounded number of commits, however much becomes dirty meanwhile. A job that
//! takes over the work of another also takes over its place, and the other job is deleted from the store only after that.

use std::collections::{BTreeSet, HashMap};

use crate::model::RelPath;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct DirtyPaths {
    places: HashMap<RelPath, u64>,
    /// Paths may share a place. Then a directory comes before what is below it.
    order: BTreeSet<(u64, RelPath)>,
    /// The paths in the commit under way, each with the place to which a failure returns it.
    under_way: HashMap<RelPath, u64>,
    next_place: u64,
    /// Paths at this place or a later one have to wait.
    released_until: u64,
}

impl DirtyPaths {
    pub fn note(&mut self, path: &RelPath) {
        if !self.places.contains_key(path) {
            self.put(path.clone(), self.next_place);
            self.next_place += 1;
        }
    }

    fn put(&mut self, path: RelPath, place: u64) {
        self.order.insert((place, path.clone()));
        self.places.insert(path, place);
    }

    /// Makes `heir`, a path above, stand for `path`, whose job is about to go.
    pub fn hand_over(&mut self, path: &RelPath, heir: &RelPath) {
        let place = self.places.get(path).into_iter().chain(self.under_way.get(path)).min().copied();
        let known = self.places.get(heir).copied();
        self.forget(path);
        match (known, place) {
            (Some(known), Some(place)) if place < known => {
                self.forget(heir);
                self.put(heir.clone(), place);
            }
            (Some(_), _) => {}
            (None, Some(place)) => self.put(heir.clone(), place),
            (None, None) => self.note(heir),
        }
    }

    /// Notes that the store need not be told of the path after all.
    pub fn forget(&mut self, path: &RelPath) {
        if let Some(place) = self.places.remove(path) {
            self.order.remove(&(place, path.clone()));
        }
    }

    /// Whether the store has still to be told of the path, or is being told.
    pub fn is_unsettled(&self, path: &RelPath) -> bool {
        self.places.contains_key(path) || self.under_way.contains_key(path)
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Lets all that is dirty now be taken. A path that becomes dirty from now on has to wait for the next call: its job
    /// may be done by then without the store.
    pub fn release_dirty(&mut self) {
        self.released_until = self.next_place;
    }

    /// Whether something can be taken.
    pub fn has_releasable(&self) -> bool {
        self.order.first().is_some_and(|(place, _)| *place < self.released_until)
    }

    /// Takes the next path that is releasable into the commit under way.
    pub fn take(&mut self) -> Option<RelPath> {
        if !self.has_releasable() {
            return None;
        }
        let (place, path) = self.order.pop_first()?;
        self.places.remove(&path);
        self.under_way.insert(path.clone(), place);
        Some(path)
    }

    /// Notes that the commit is durable.
    pub fn committed(&mut self) {
        self.under_way.clear();
    }

    /// Notes that the commit failed: the paths in it are dirty again, at their old places.
    pub fn restore(&mut self) {
        for (path, place) in std::mem::take(&mut self.under_way) {
            self.forget(&path);
            self.put(path, place);
        }
    }

    /// A mark that covers all that is dirty or being committed now. See [`DirtyPaths::is_durable`].
    pub fn mark(&self) -> u64 {
        self.next_place
    }

    /// Whether all that was dirty at `mark` is on disk.
    pub fn is_durable(&self, mark: u64) -> bool {
        let oldest = self.order.first().map(|(place, _)| place).into_iter().chain(self.under_way.values()).min();
        oldest.is_none_or(|place| *place >= mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> RelPath {
        RelPath::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_failed_commit_costs_no_path_its_place() {
        let mut dirty = DirtyPaths::default();
        for name in ["a", "b", "c"] {
            dirty.note(&path(name));
        }
        let mark = dirty.mark();
        assert_eq!(dirty.take(), None, "nothing is releasable");
        dirty.release_dirty();
        assert_eq!(dirty.take(), Some(path("a")));
        assert_eq!(dirty.take(), Some(path("b")));
        for name in ["d", "b"] {
            dirty.note(&path(name));
        }
        dirty.restore();
        for name in ["a", "b", "c"] {
            assert!(!dirty.is_durable(mark));
            assert_eq!(dirty.take(), Some(path(name)));
        }
        assert!(!dirty.is_durable(mark), "the commit is still under way");
        assert!(dirty.take().is_none(), "d came later");
        dirty.committed();
        assert!(dirty.is_durable(mark), "d came later");
        assert!(!dirty.is_durable(dirty.mark()));
    }

    /// A crash between the two records would lose the work of both jobs.
    #[test]
    fn a_job_is_deleted_after_the_one_that_took_over() {
        let mut dirty = DirtyPaths::default();
        for name in ["d/a", "d/b", "other"] {
            dirty.note(&path(name));
        }
        dirty.release_dirty();
        assert_eq!(dirty.take(), Some(path("d/a")));
        let mark = dirty.mark();
        for name in ["d/a", "d/b"] {
            dirty.hand_over(&path(name), &path("d"));
            dirty.note(&path(name));
        }
        dirty.restore();
        dirty.release_dirty();
        let order: Vec<RelPath> = std::iter::from_fn(|| dirty.take()).collect();
        assert_eq!(order, ["d", "d/a", "other", "d/b"].map(path));
        assert!(!dirty.is_durable(mark));
    }
}
