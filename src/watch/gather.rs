//! Gathers changes until they are handed on (`thread` says when), so that a path is reported once in a call however many
//! events name it.
//!
//! Pure. Changes keep the order of their first appearance, except that paths that are gone go last. So a renamed file's
//! new name is ahead of the deletion of its old one, and the content is still on the target when the new name is sent.
//! The path from which a directory was moved is passed on only if nothing else was reported that says more of either
//! place.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::{Change, Origin, RelPath, Scope, Settle};

/// Whether a path was there when it was last reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    There,
    Gone,
    /// A directory is gone, with all that was in it.
    GoneDirectory,
}

/// Changes that have not been handed on yet.
#[derive(Debug, Default)]
pub struct Gather {
    changes: Vec<(Change, Existence)>,
    places: HashMap<RelPath, usize>,
}

impl Gather {
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn add(&mut self, mut change: Change, existence: Existence) {
        if let Some(between) = &change.moved_from
            && let Some(&place) = self.places.get(between)
        {
            // The entry was moved on at once: the name in between does not matter, unless something happened there.
            let is_quiet = !self.changes.iter().any(|(other, _)| between.is_ancestor_of(&other.path));
            let first = self.changes.get_mut(place).and_then(|(earlier, _)| earlier.moved_from.take());
            if let Some(first) = first {
                change.moved_from = is_quiet.then_some(first);
            }
        }
        match self.places.get(&change.path).and_then(|&place| self.changes.get_mut(place)) {
            Some((earlier, was)) => {
                earlier.scope = earlier.scope.max(change.scope);
                earlier.origin = earlier.origin.max(change.origin);
                earlier.settle = sooner(earlier.settle, change.settle);
                earlier.fresh |= change.fresh;
                earlier.several_names = change.several_names.or(earlier.several_names);
                // A change of the path's own times and attributes does not count.
                if change.scope > Scope::Entry || change.origin >= Origin::Write {
                    earlier.moved_from = None;
                }
                *was = existence;
            }
            None => {
                self.places.insert(change.path.clone(), self.changes.len());
                self.changes.push((change, existence));
            }
        }
    }

    /// Notes that a path that may have been reported as gone is there again.
    pub fn appeared(&mut self, path: &RelPath) {
        if let Some((_, existence)) = self.places.get(path).and_then(|&place| self.changes.get_mut(place)) {
            *existence = Existence::There;
        }
    }

    /// The gathered paths that are no longer there.
    pub fn gone(&self) -> Vec<RelPath> {
        let gone = self.changes.iter().filter(|(_, existence)| *existence != Existence::There);
        gone.map(|(change, _)| change.path.clone()).collect()
    }

    /// Hands out all gathered changes, and is empty again.
    pub fn take(&mut self) -> Vec<Change> {
        self.places.clear();
        self.drop_doubtful_moves();
        let mut changes = std::mem::take(&mut self.changes);
        let gone: HashSet<RelPath> =
            changes.iter().filter(|(_, p)| *p == Existence::GoneDirectory).map(|(c, _)| c.path.clone()).collect();
        if !gone.is_empty() {
            // The deletion of a directory stands for all changes below it.
            changes.retain(|(change, _)| !change.path.ancestors().any(|above| gone.contains(&above)));
        }
        changes.sort_by_key(|(_, existence)| *existence != Existence::There);
        let tell = |(change, existence)| Change { gone_directory: existence == Existence::GoneDirectory, ..change };
        changes.into_iter().map(tell).collect()
    }

    /// Drops the old path of each moved directory of which more was reported than that it is there and no longer where it
    /// was: a write below the old name, or what was at the new name or became of it.
    fn drop_doubtful_moves(&mut self) {
        let is_moved_tree = |change: &&Change| change.moved_from.is_some() && change.scope == Scope::Subtree;
        let changes = || self.changes.iter().map(|(change, _)| change);
        let places: Vec<(&RelPath, &RelPath)> = changes()
            .filter(is_moved_tree)
            .filter_map(|change| change.moved_from.as_ref().map(|old| (old, &change.path)))
            .collect();
        if places.is_empty() {
            return;
        }
        let by_old: HashMap<&RelPath, &RelPath> = places.iter().copied().collect();
        let by_new: HashSet<&RelPath> = places.iter().map(|(_, new)| *new).collect();
        let mut doubtful: HashSet<RelPath> = HashSet::new();
        for change in changes() {
            let writes = change.origin >= Origin::Write;
            let at_old = by_old.get(&change.path).filter(|_| writes || change.scope > Scope::Entry);
            doubtful.extend(at_old.map(|new| (*new).clone()));
            for above in change.path.ancestors() {
                doubtful.extend(by_new.get(&above).map(|new| (*new).clone()));
                doubtful.extend(by_old.get(&above).filter(|_| writes).map(|new| (*new).clone()));
            }
        }
        for (change, _) in &mut self.changes {
            change.moved_from.take_if(|_| doubtful.contains(&change.path));
        }
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
        gather.add(Change::scan(path("d"), Scope::Entry), Existence::There);
        gather.add(Change::write(path("f")), Existence::There);
        let fresh = Change { scope: Scope::Children, origin: Origin::Write, fresh: true, ..Change::write(path("d")) };
        gather.add(fresh.clone(), Existence::There);
        gather.add(Change::scan(path("d"), Scope::Entry), Existence::There);
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
        gather.add(Change::scan(path("old"), Scope::Entry), Existence::Gone);
        gather.add(Change::scan(path("d/e/f"), Scope::Entry), Existence::Gone);
        gather.add(Change::scan(path("d"), Scope::Entry), Existence::There);
        gather.add(Change::scan(path("d/e"), Scope::Entry), Existence::GoneDirectory);
        gather.add(Change::write(path("new")), Existence::There);
        assert_eq!(paths(&gather.take()), ["d", "new", "old", "d/e"]);
    }

    #[test]
    fn where_a_directory_came_from_is_passed_on_if_nothing_speaks_against_it() {
        let entry = |at: &str| Change::scan(path(at), Scope::Entry);
        let tree = |at: &str| Change { origin: Origin::Replaced, ..Change::scan(path(at), Scope::Subtree) };
        let moved = |new: &str, old: &str| Change { moved_from: Some(path(old)), ..tree(new) };
        for (changes, expected) in [
            (vec![moved("new", "old"), entry("old")], Some("old")),
            (vec![entry("old/d"), moved("new", "old"), entry("new"), entry("old")], Some("old")),
            (vec![Change::write(path("old/f")), moved("new", "old"), entry("old")], None),
            (vec![moved("new", "old"), Change::write(path("new/f"))], None),
            (vec![moved("new", "old"), entry("new/f")], None),
            (vec![moved("new", "old"), Change { fresh: true, scope: Scope::Children, ..entry("old") }], None),
            (vec![entry("new"), moved("new", "old")], None),
            (vec![moved("new", "old"), tree("new")], None),
            // Two steps at once, and with something in between.
            (vec![moved("b", "old"), moved("new", "b"), entry("b")], Some("old")),
            (vec![moved("b", "old"), Change::write(path("b/f")), moved("new", "b"), entry("b")], None),
            (vec![tree("b"), moved("new", "b"), entry("b")], None),
        ] {
            let mut gather = Gather::default();
            changes.iter().for_each(|change| gather.add(change.clone(), Existence::There));
            let taken = gather.take();
            let new = taken.iter().find(|change| change.path == path("new")).expect("the new name");
            assert_eq!(new.moved_from, expected.map(path), "{changes:?}");
        }
    }

    #[test]
    fn a_directory_that_came_back_stands_for_nothing() {
        let mut gather = Gather::default();
        gather.add(Change::scan(path("d"), Scope::Entry), Existence::GoneDirectory);
        gather.appeared(&path("d"));
        gather.add(Change::write(path("d/f")), Existence::There);
        assert_eq!(paths(&gather.take()), ["d", "d/f"]);
    }
}
