//! Directories that cannot be watched when they are met, and file systems that come and go: over the simulated kernel, where
//! neither asks for a privilege.

use super::path;
use crate::model::{Change, Origin, RelPath, Scope, Timestamp};
use crate::watch::simulated::{Disk, Operation, Turns};

/// A watched tree of these directories, of which no more than `watches_max` can be watched.
fn watch(directories: &[&str], watches_max: usize) -> Turns {
    let mut disk = Disk::new(Timestamp(1_000_000), false);
    disk.limit(watches_max, usize::MAX);
    for directory in directories {
        assert!(disk.perform(&Operation::MakeDirectory(path(directory))));
        assert!(disk.perform(&Operation::Write(path(directory).join(b"f"))));
    }
    let mut turns = Turns::new(disk, |_| {});
    let _ = turns.settle();
    turns
}

/// Performs the operations, later than all before. Returns the changes that are reported.
fn after(turns: &mut Turns, operations: &[Operation]) -> Vec<Change> {
    let now = turns.disk().now;
    turns.disk().now = Timestamp(now.0 + 60_000);
    for operation in operations {
        assert!(turns.perform(operation), "{operation:?}");
    }
    turns.settle()
}

fn is_covered(changes: &[Change], at: &RelPath, origin: Origin) -> bool {
    let covers = |change: &Change| change.path == *at || change.scope == Scope::Subtree && change.path.covers(at);
    changes.iter().any(|change| covers(change) && change.origin >= origin)
}

/// Of two directories without a watch that were exchanged neither was known afterwards: what changed in them was never sent.
#[test]
fn exchanged_directories_without_a_watch_are_both_looked_through() {
    let mut turns = watch(&["a", "b"], 1);
    assert_eq!(turns.stats().unwatched, 2);
    let _ = after(&mut turns, &[Operation::Exchange(path("a"), path("b"))]);
    assert_eq!(turns.stats().unwatched, 2);
    let files = [path("a/f"), path("b/f")];
    let changes = after(&mut turns, &files.clone().map(Operation::Write));
    assert!(files.iter().all(|file| is_covered(&changes, file, Origin::Write)), "{changes:?}");
}

/// A directory that could not be watched took the place of one that was watched, and was taken for it until the kernel
/// told that the watched one had left.
#[test]
fn what_takes_the_place_of_a_watched_directory_is_not_taken_for_it() {
    let mut turns = watch(&["a"], 2);
    let _ = after(&mut turns, &[Operation::MakeDirectory(path("b"))]);
    assert_eq!((turns.stats().watches, turns.stats().unwatched), (2, 1));
    let _ = after(&mut turns, &[Operation::Exchange(path("b"), path("a"))]);
    let changes = after(&mut turns, &[Operation::Write(path("a/g"))]);
    assert!(is_covered(&changes, &path("a/g"), Origin::Write), "{changes:?}");
}

/// The directory was compared by size and time alone once it could be watched, and the file stayed old on the targets.
#[test]
fn what_the_quick_check_cannot_see_is_reported_although_the_watch_came_late() {
    let mut turns = watch(&["a"], 1);
    turns.disk().limit_watches(usize::MAX);
    let changes = after(&mut turns, &[Operation::Rewrite(path("a/f"))]);
    assert_eq!((turns.stats().watches, turns.stats().unwatched), (2, 0));
    assert!(is_covered(&changes, &path("a/f"), Origin::Write), "{changes:?}");
}

/// The write was found under the name through which it was made, and the file's other names stayed old on the targets.
#[test]
fn a_write_through_a_name_is_reported_under_the_others_although_the_watch_came_late() {
    let mut turns = watch(&["a", "a/b", "c"], 2);
    let _ = after(&mut turns, &[Operation::HardLink(path("a/b/f"), path("c/g"))]);
    let _ = after(&mut turns, &[Operation::HardLink(path("a/b/f"), path("h"))]);
    turns.disk().limit_watches(usize::MAX);
    let changes = after(&mut turns, &[Operation::Write(path("a/b/f"))]);
    assert_eq!(turns.stats().unwatched, 0);
    assert!(is_covered(&changes, &path("h"), Origin::Write), "{changes:?}");
}

/// What changed before a directory was closed was looked for in vain, and later from a later moment on.
#[test]
fn what_changed_before_a_directory_was_closed_is_found_once_it_is_open() {
    let mut turns = watch(&["a", "a/b"], usize::MAX);
    turns.checkpoint();
    turns.restart();
    let _ = after(&mut turns, &[Operation::Rewrite(path("a/f")), Operation::Close(path("a"))]);
    let _ = after(&mut turns, &[]);
    let changes = after(&mut turns, &[Operation::Open(path("a"))]);
    assert!(is_covered(&changes, &path("a/f"), Origin::Write), "{changes:?}");
}

#[test]
fn what_is_mounted_is_compared_and_what_comes_to_light_is_watched() {
    let mut turns = watch(&["a"], usize::MAX);
    let changes = after(&mut turns, &[Operation::Mount(path("a"))]);
    assert!(is_covered(&changes, &path("a/f"), Origin::Scan), "{changes:?}");
    let changes = after(&mut turns, &[Operation::Write(path("a/new"))]);
    assert!(is_covered(&changes, &path("a/new"), Origin::Write), "{changes:?}");
    let _ = after(&mut turns, &[Operation::Unmount(path("a"))]);
    let changes = after(&mut turns, &[Operation::Write(path("a/f"))]);
    assert!(changes.contains(&Change::write(path("a/f"))), "{changes:?}");
    assert_eq!((turns.stats().watches, turns.stats().unwatched), (2, 0));
}
