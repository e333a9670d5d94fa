//! Tells when an rsync from elsewhere writes the same versions of a file into the tree again and again. Most likely a
//! mirror in the other direction answers each time this one has sent the file, and neither comes to rest.
//!
//! An rsync that receives a file writes `.NAME.XXXXXX` and renames it to NAME, so that it can be told from people and
//! programs. A version is the size and time of the file, which rsync carries over. A file that another machine mirrors
//! here, such as a log, has another version each time; in a loop old versions come back.
//!
//! Pure, and bounded by [`FILES_MAX`]. Deliberately absent: loops through programs that give a file a new time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::RelPath;

/// How many times within [`WITHIN`] a version that had been received before has to be received again until that is told.
const TIMES: u32 = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// The most files that are followed at a time.
const FILES_MAX: usize = 1_024;
/// How many versions of each file are known. A loop goes round with two or three.
const VERSIONS: usize = 4;

/// A version of a file: its size, and its time in seconds and nanoseconds.
pub(super) type Version = (u64, i64, i64);

#[derive(Debug)]
struct History {
    /// The newest is last.
    versions: Vec<Version>,
    since: Instant,
    again: u32,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Received {
    files: HashMap<RelPath, History>,
}

/// Whether a file that was renamed from `old` to `new` was written by an rsync.
pub(super) fn is_receivers(old: &[u8], new: &[u8]) -> bool {
    let name = old.strip_prefix(b".").and_then(|rest| rest.strip_prefix(new));
    name.and_then(|rest| rest.strip_prefix(b".")).is_some_and(|random| random.len() == 6 && random.is_ascii())
}

impl Received {
    /// Notes that a version of a file was received. Returns whether its repetition has just become worth telling.
    pub fn note(&mut self, path: &RelPath, version: Version, now: Instant) -> bool {
        let is_recent = |history: &History| now.duration_since(history.since) < WITHIN;
        if self.files.len() >= FILES_MAX && !self.files.contains_key(path) {
            self.files.retain(|_, history| is_recent(history));
            if self.files.len() >= FILES_MAX {
                return false;
            }
        }
        let fresh = || History { versions: Vec::new(), since: now, again: 0 };
        let history = self.files.entry(path.clone()).or_insert_with(fresh);
        if !is_recent(history) {
            *history = fresh();
        }
        if history.versions.contains(&version) {
            history.again += 1;
            return history.again == TIMES;
        }
        if history.versions.len() >= VERSIONS {
            history.versions.remove(0);
        }
        history.versions.push(version);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_a_receivers_own_temporary_is_taken_for_one() {
        assert!(is_receivers(b".f.AbCdEf", b"f") && is_receivers(b"..h.x1Y2z3", b".h"));
        for (old, new) in [(&b".f.AbCdEf"[..], &b"g"[..]), (b"f.AbCdEf", b"f"), (b".f.AbC", b"f"), (b"f~", b"f")] {
            assert!(!is_receivers(old, new), "{}", old.escape_ascii());
        }
    }

    #[test]
    fn versions_that_come_back_are_told_once_and_new_ones_never() {
        let (begun, second) = (crate::clock::monotonic(), Duration::from_secs(1));
        let told = |version: fn(u32) -> Version, pause: Duration| {
            let mut received = Received::default();
            let told = |n: &u32| received.note(&path("f"), version(*n), begun + pause * *n);
            (0..100).filter(told).collect::<Vec<u32>>()
        };
        // A file that is rewritten as it was, and a file of which two versions set each other back.
        assert_eq!(told(|_| (3, 7, 0), second), [10]);
        assert_eq!(told(|n| (u64::from(n % 2), 7, 0), second), [11]);
        // A log that another machine mirrors here.
        assert_eq!(told(|n| (u64::from(n), i64::from(n), 0), second), [0; 0]);
        // Somebody's job that restores the file each two minutes.
        assert_eq!(told(|_| (3, 7, 0), second * 120), [0; 0]);
    }

    #[test]
    fn no_more_files_are_followed_than_that() {
        let (mut received, now) = (Received::default(), crate::clock::monotonic());
        for n in 0..5_000 {
            received.note(&path(&n.to_string()), (1, 1, 0), now);
        }
        assert_eq!(received.files.len(), FILES_MAX);
        received.note(&path("later"), (1, 1, 0), now + WITHIN);
        assert_eq!(received.files.len(), 1);
    }
}
