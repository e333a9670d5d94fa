//! Gathers the changes that one read of the kernel's queue brings, so that a path is reported once per read however
//! many events name it.
//!
//! Pure. The order of first appearance is kept, except that what is gone goes last: a renamed file's new name is then
//! ahead of the deletion of its old one, and the content is still on the target when the new name is sent.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::{Change, RelPath, Settle};

/// Whether a path was there when it was last reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    There,
    Gone,
    /// A directory, with all that was in it.
    GoneDirectory,
}

/// Changes that have not been handed on yet.
#[derive(Debug, Default)]
pub struct Gather {
    changes: Vec<(Change, Presence)>,
    places: HashMap<RelPath, usize>,
}

impl Gather {
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn add(&mut self, change: Change, presence: Presence) {
        match self.places.get(&change.path).and_then(|&place| self.changes.get_mut(place)) {
            Some((earlier, was)) => {
                earlier.scope = earlier.scope.max(change.scope);
                earlier.origin = earlier.origin.max(change.origin);
                earlier.settle = sooner(earlier.settle, change.settle);
                earlier.fresh |= change.fresh;
                *was = presence;
            }
            None => {
                self.places.insert(change.path.clone(), self.changes.len());
                self.changes.push((change, presence));
            }
        }
    }

    /// A path that may have been reported gone is there again.
    pub fn appeared(&mut self, path: &RelPath) {
        if let Some((_, presence)) = self.places.get(path).and_then(|&place| self.changes.get_mut(place)) {
            *presence = Presence::There;
        }
    }

    /// Hands out what has been gathered, and is empty again.
    pub fn take(&mut self) -> Vec<Change> {
        self.places.clear();
        let mut changes = std::mem::take(&mut self.changes);
        let gone: HashSet<RelPath> =
            changes.iter().filter(|(_, p)| *p == Presence::GoneDirectory).map(|(c, _)| c.path.clone()).collect();
        if !gone.is_empty() {
            // The deletion of a directory stands for all below it.
            changes.retain(|(change, _)| !change.path.ancestors().any(|above| gone.contains(&above)));
        }
        changes.sort_by_key(|(_, presence)| *presence != Presence::There);
        changes.into_iter().map(|(change, _)| change).collect()
    }
}

/// Merges two reports of one path. Of two waits for quiet the longer holds: the shorter one is for files that nobody
/// writes to.
fn sooner(a: Settle, b: Settle) -> Settle {
    let rank = |settle: Settle| match settle {
        Settle::Now => (0, Duration::ZERO),
        Settle::Within(wait) => (1, wait),
        Settle::Quiet(wait) => (2, Duration::MAX - wait),
    };
    std::cmp::min_by_key(a, b, |&settle| rank(settle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, Scope};

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn paths(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|c| c.path.to_string()).collect()
    }

    #[test]
    fn reports_of_one_path_merge() {
        let mut gather = Gather::default();
        gather.add(Change::scan(path("d"), Scope::Entry), Presence::There);
        gather.add(Change::write(path("f")), Presence::There);
        let fresh = Change { scope: Scope::Children, origin: Origin::Write, fresh: true, ..Change::write(path("d")) };
        gather.add(fresh.clone(), Presence::There);
        gather.add(Change::scan(path("d"), Scope::Entry), Presence::There);
        assert_eq!(gather.take(), [fresh, Change::write(path("f"))]);
        assert!(gather.take().is_empty());
    }

    #[test]
    fn settling() {
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(5));
        for (a, b, merged) in [
            (Settle::Now, Settle::Quiet(long), Settle::Now),
            (Settle::Within(long), Settle::Now, Settle::Now),
            (Settle::Quiet(short), Settle::Within(long), Settle::Within(long)),
            (Settle::Quiet(short), Settle::Quiet(long), Settle::Quiet(long)),
            (Settle::Within(short), Settle::Within(long), Settle::Within(short)),
        ] {
            assert_eq!((sooner(a, b), sooner(b, a)), (merged, merged));
        }
    }

    #[test]
    fn what_is_gone_goes_last_and_stands_for_all_below() {
        let mut gather = Gather::default();
        gather.add(Change::scan(path("old"), Scope::Entry), Presence::Gone);
        gather.add(Change::scan(path("d/e/f"), Scope::Entry), Presence::Gone);
        gather.add(Change::scan(path("d"), Scope::Entry), Presence::There);
        gather.add(Change::scan(path("d/e"), Scope::Entry), Presence::GoneDirectory);
        gather.add(Change::write(path("new")), Presence::There);
        assert_eq!(paths(&gather.take()), ["d", "new", "old", "d/e"]);
    }

    #[test]
    fn a_directory_that_came_back_stands_for_nothing() {
        let mut gather = Gather::default();
        gather.add(Change::scan(path("d"), Scope::Entry), Presence::GoneDirectory);
        gather.appeared(&path("d"));
        gather.add(Change::write(path("d/f")), Presence::There);
        assert_eq!(paths(&gather.take()), ["d", "d/f"]);
    }
}
