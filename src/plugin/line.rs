//! The notices that wait for delivery: in order, one per path, bounded. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use super::Notice;
use crate::model::RelPath;

/// The path that a notice is about: its root, and the path below.
pub(super) type Key = (PathBuf, RelPath);

/// A notice and how often it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) notice: Notice,
    pub(super) tries: u32,
    /// How many others had been delivered at the last try that counts.
    pub(super) delivered_then: Option<u64>,
}

impl Waiting {
    fn new(notice: Notice) -> Self {
        Self { notice, tries: 0, delivered_then: None }
    }
}

/// The result of putting a notice into the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Kept,
    /// The notice took the place of one that waited for the same path.
    Merged,
    /// There was no room for the notice.
    Dropped,
}

/// A path is waiting, in flight, or both if it changed while in flight. Of two notices of one path only the newer one
/// counts.
#[derive(Debug, Default)]
pub(super) struct Line {
    order: VecDeque<Key>,
    waiting: HashMap<Key, Waiting>,
    in_flight: HashSet<Key>,
}

impl Line {
    /// Takes a notice in, unless `limit` others wait. If a notice of its path waits already, the new one takes its place.
    pub(super) fn put(&mut self, notice: Notice, limit: usize) -> Put {
        let key = (notice.source.path.clone(), notice.path.clone());
        if let Some(waiting) = self.waiting.get_mut(&key) {
            *waiting = Waiting::new(notice);
            return Put::Merged;
        }
        if self.waiting.len() >= limit {
            return Put::Dropped;
        }
        self.waiting.insert(key.clone(), Waiting::new(notice));
        // While a notice of this path is in flight, the new one is not in the order yet, so that two of one path never run
        // side by side.
        if !self.in_flight.contains(&key) {
            self.order.push_back(key);
        }
        Put::Kept
    }

    /// Hands out the next notice.
    pub(super) fn take(&mut self) -> Option<Waiting> {
        let key = self.order.pop_front()?;
        let waiting = self.waiting.remove(&key)?;
        self.in_flight.insert(key);
        Some(waiting)
    }

    /// Ends the delivery of a notice, whatever its result.
    pub(super) fn done(&mut self, notice: &Notice) {
        let key = (notice.source.path.clone(), notice.path.clone());
        self.in_flight.remove(&key);
        if self.waiting.contains_key(&key) {
            self.order.push_back(key);
        }
    }

    /// Takes a notice back for another try: at the front, so that the order is kept, or at the end, so that others get
    /// their turn. If a newer notice of its path waits, that one is tried instead.
    pub(super) fn again(&mut self, waiting: Waiting, front: bool) {
        let key = (waiting.notice.source.path.clone(), waiting.notice.path.clone());
        self.in_flight.remove(&key);
        self.waiting.entry(key.clone()).or_insert(waiting);
        if front { self.order.push_front(key) } else { self.order.push_back(key) }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a notice may be taken now.
    pub(super) fn has_next(&self) -> bool {
        !self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::notice::tests::notice;
    use super::*;
    use crate::mirror::Operation;

    #[test]
    fn a_path_in_flight_waits_for_its_end_and_the_newest_notice_counts() {
        let mut line = Line::default();
        assert_eq!(line.put(notice("/d", b"a"), 2), Put::Kept);
        assert_eq!(line.put(notice("/d", b"a"), 2), Put::Merged);
        let first = line.take().unwrap();
        assert!(!line.has_next());
        let deleted = Notice { operation: Operation::Delete, ..notice("/d", b"a") };
        assert_eq!(line.put(deleted.clone(), 2), Put::Kept);
        assert_eq!(line.put(notice("/d", b"b"), 2), Put::Kept);
        assert_eq!(line.put(notice("/d", b"c"), 2), Put::Dropped);
        assert_eq!(line.take().unwrap().notice.path.as_bytes(), b"b");
        assert_eq!(line.take(), None, "the path is in flight");
        line.again(Waiting { tries: 1, ..first }, true);
        assert_eq!(line.take(), Some(Waiting::new(deleted)));
    }

    proptest! {
        /// No notice is lost, no two notices of a path overtake each other, and a path is never handed out twice at a time.
        #[test]
        fn the_last_notice_of_each_path_is_delivered(steps in proptest::collection::vec((0u8..4, 0u8..5), 0..200)) {
            let mut line = Line::default();
            let mut newest: HashMap<u8, usize> = HashMap::new();
            let mut delivered: HashMap<u8, usize> = HashMap::new();
            let mut out: Vec<Waiting> = Vec::new();
            let mut count = 0;
            let number = |waiting: &Waiting| waiting.notice.source.targets[0].parse::<usize>().unwrap();
            let path = |waiting: &Waiting| waiting.notice.path.as_bytes()[0];
            let drain = (0..50).map(|_| (1, 0)).chain((0..50).map(|_| (2, 0)));
            for (step, which) in steps.into_iter().chain(drain.clone()).chain(drain) {
                match step {
                    0 => {
                        count += 1;
                        let mut notice = notice("/d", &[b'a' + which]);
                        std::sync::Arc::make_mut(&mut notice.source).targets = vec![count.to_string()];
                        if line.put(notice, 4) != Put::Dropped {
                            newest.insert(b'a' + which, count);
                        }
                    }
                    1 => out.extend(line.take()),
                    2 if !out.is_empty() => {
                        let waiting = out.remove(usize::from(which) % out.len());
                        let before = delivered.insert(path(&waiting), number(&waiting));
                        prop_assert!(before < Some(number(&waiting)));
                        line.done(&waiting.notice);
                    }
                    3 if !out.is_empty() => {
                        let waiting = out.remove(usize::from(which) % out.len());
                        line.again(waiting, which % 2 == 0);
                    }
                    _ => {}
                }
                let mut paths: Vec<u8> = out.iter().map(path).collect();
                paths.sort_unstable();
                paths.dedup();
                prop_assert_eq!(paths.len(), out.len());
                prop_assert_eq!(line.in_flight(), out.len());
            }
            prop_assert_eq!(delivered, newest);
            prop_assert_eq!(line.waiting(), 0);
        }
    }
}
