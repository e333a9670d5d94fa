//! How much of a root is seen: what `status` may say of it, and whether a missing name ever existed.
//!
//! A target may be called equal to its source only while every change of the source is seen. So each answer about a target asks
//! here first.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::clock::moment;
use crate::model::{RelPath, Timestamp};

/// Why nothing of a root is sent or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    pub reason: String,
    /// What an operator can do about it.
    pub hint: Option<String>,
    pub since: Timestamp,
}

impl Suspension {
    pub fn now(reason: impl Into<String>, hint: Option<impl Into<String>>) -> Self {
        Self { reason: reason.into(), hint: hint.map(Into::into), since: moment().wall }
    }
}

/// How much of what happens in a root is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// All of it.
    Whole,
    /// Something may have changed that has no job yet. Holds the reason. The changes are being looked for.
    Behind(String),
    /// Some directories are looked at only now and then. Holds the reason, and a hint.
    Partial(String, Option<String>),
    /// Nothing.
    Suspended(Suspension),
}

/// Names that existed in the tree since it was watched, and no longer do. Only the newest are kept, as hashes. A forgotten name
/// costs no more than a refused question.
#[derive(Debug, Default)]
pub struct Gone {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Gone {
    /// Takes 3 MB at most, in a root with very many deletions.
    const NAMES_MAX: usize = 100_000;

    pub fn note(&mut self, path: &RelPath) {
        let print = self.hasher.hash_one(path.as_bytes());
        if !self.known.insert(print) {
            return;
        }
        self.order.push_back(print);
        if self.order.len() > Self::NAMES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether the path, or a directory above it, was there.
    pub fn knows(&self, path: &RelPath) -> bool {
        let known = |path: &RelPath| self.known.contains(&self.hasher.hash_one(path.as_bytes()));
        known(path) || path.ancestors().any(|above| !above.is_root() && known(&above))
    }
}

/// How long a file that another rsync overwrites is reported. As long as the overwriting goes on, it is noticed anew.
const ANSWERED_FOR: Duration = Duration::from_secs(1_200);

/// The most files that are reported so.
const ANSWERED_MAX: usize = 100;

/// Files that another rsync was seen to overwrite again and again, each with the time of the last notice; the newest is the
/// last.
#[derive(Debug, Default)]
pub(super) struct Answered(Vec<(RelPath, Instant)>);

impl Answered {
    pub fn note(&mut self, path: RelPath, now: Instant) {
        self.0.retain(|(known, at)| *known != path && now.duration_since(*at) < ANSWERED_FOR);
        self.0.push((path, now));
        self.0.drain(..self.0.len().saturating_sub(ANSWERED_MAX));
    }

    pub(super) fn at(&self, now: Instant) -> impl DoubleEndedIterator<Item = &RelPath> {
        self.0.iter().filter(move |(_, at)| now.duration_since(*at) < ANSWERED_FOR).map(|(path, _)| path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_known_with_what_was_in_it_until_there_is_too_much() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let mut gone = Gone::default();
        gone.note(&path("d/e"));
        for (text, known) in [("d/e", true), ("d/e/f", true), ("d", false), ("d/ee", false), ("x", false)] {
            assert_eq!(gone.knows(&path(text)), known, "{text}");
        }
        for n in 0..Gone::NAMES_MAX {
            gone.note(&path(&format!("f{n}")));
            gone.note(&path("f0"));
        }
        assert!(!gone.knows(&path("d/e")) && gone.knows(&path("f0")));
        assert_eq!((gone.known.len(), gone.order.len()), (Gone::NAMES_MAX, Gone::NAMES_MAX));
    }
}
