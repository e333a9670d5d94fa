//! No two runs in flight may take a path for different things: if one run sends files below a directory, its receiver
//! writes through whatever the other run has put in the place of that directory.

use super::*;
use crate::model::Verdict;

fn large(bench: &mut Bench) -> Vec<String> {
    let jobs = bench.queue.claim(Lane::Large, 100, bench.now);
    bench.queue.check_invariants();
    jobs.iter().map(|job| job.path.to_string()).collect()
}

/// A link that took a directory's place was sent while a large file below the directory was on its way.
#[test]
fn nothing_below_a_path_starts_while_what_stands_there_is_being_sent() {
    let mut bench = Bench::new();
    bench.write("d/big");
    assert_eq!(bench.small(), ["d/big"]);
    bench.finish("d/big", Verdict::Large);
    bench.write("d");
    assert_eq!(bench.small(), ["d"]);
    assert!(large(&mut bench).is_empty());
    bench.done("d");
    assert_eq!(large(&mut bench), ["d/big"]);
}

#[test]
fn the_root_keeps_nothing_from_being_sent() {
    let mut bench = Bench::new();
    bench.write("big");
    assert_eq!(bench.small(), ["big"]);
    bench.finish("big", Verdict::Large);
    bench.scan("", Scope::Entry);
    assert_eq!(bench.small(), ["."]);
    assert_eq!(large(&mut bench), ["big"]);
}

/// The path above is sent once, in a run that others keep clear of, and the change is not lost on the way.
#[test]
fn a_job_below_what_is_no_directory_becomes_one_of_what_stands_above() {
    let mut bench = Bench::new();
    bench.write("a/b/f");
    let number = bench.queue.newest_change();
    let above = || Verdict::Above(path("a/b"));
    assert_eq!(bench.small(), ["a/b/f"]);
    bench.finish("a/b/f", above());
    assert!(!bench.queue.lacking(number, None, 1).is_empty(), "somebody waits for it still");
    assert_eq!(bench.small(), ["a/b"]);
    bench.done("a/b");
    assert_eq!(bench.len(), 0);

    // Something may be at the path again.
    bench.write("a/b/f");
    assert_eq!(bench.small(), ["a/b/f"]);
    bench.write("a/b/f");
    bench.finish("a/b/f", above());
    assert_eq!(bench.small(), ["a/b/f"]);
    // The path above may be in flight already.
    bench.scan("a/b", Scope::Entry);
    bench.finish("a/b/f", Verdict::Released);
    assert_eq!(bench.small(), ["a/b/f", "a/b"]);
    bench.finish("a/b/f", above());
    bench.done("a/b");
    assert_eq!(bench.small(), ["a/b"], "once more: it may have been looked at before");
    bench.done("a/b");
    assert_eq!(bench.len(), 0);
}

/// The whole tree's run may make a link of a directory in which a moved one is being linked.
#[test]
fn the_whole_tree_waits_for_what_was_moved_and_for_subtrees_and_comes_next() {
    let whole = || Change { origin: Origin::Reconcile, ..Change::scan(RelPath::root(), Scope::Subtree) };
    let mut bench = Bench::new();
    bench.add(Change { moved_from: Some(path("f")), ..Change::write(path("d/f")) });
    bench.scan("f", Scope::Entry);
    assert_eq!(large(&mut bench), ["d/f", "f"]);
    bench.add(whole());
    bench.scan("later", Scope::Subtree);
    assert!(large(&mut bench).is_empty(), "nor does what came later go first");
    bench.done("d/f");
    bench.done("f");
    assert_eq!(large(&mut bench), [".", "later"]);

    let mut bench = Bench::new();
    bench.scan("long", Scope::Subtree);
    assert_eq!(large(&mut bench), ["long"]);
    bench.add(whole());
    bench.write("f");
    bench.finish("long", Verdict::Released);
    assert_eq!(bench.small(), ["f"]);
}

/// The moved file's run would begin in a directory that the subtree's run may be about to replace.
#[test]
fn below_a_subtree_in_flight_what_was_moved_is_sent() {
    let mut bench = Bench::new();
    bench.scan("d", Scope::Subtree);
    assert_eq!(large(&mut bench), ["d"]);
    bench.add(Change { moved_from: Some(path("f")), ..Change::write(path("d/f")) });
    bench.scan("f", Scope::Entry);
    let jobs = bench.queue.claim(Lane::Large, 100, bench.now);
    assert_eq!(jobs.iter().map(|job| job.moved_from.clone()).collect::<Vec<_>>(), [None]);
}

/// The job was looked at again and again, and the sweep waited for it each time.
#[test]
fn a_sweep_takes_over_what_lies_below_no_directory() {
    let mut bench = Bench::new();
    bench.add(Change { origin: Origin::Replaced, ..Change::scan(path("a/b"), Scope::Subtree) });
    assert_eq!(large(&mut bench), ["a/b"]);
    bench.add(Change { origin: Origin::Write, ..Change::scan(RelPath::root(), Scope::Subtree) });
    bench.finish("a/b", Verdict::Above(path("a")));
    assert_eq!(large(&mut bench), ["."]);
    bench.done("");
    assert_eq!(bench.len(), 0);
}
