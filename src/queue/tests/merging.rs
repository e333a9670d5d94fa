//! Several changes of one path or of related ones: which jobs they become, which of these run beside each other, and what
//! runs once more.

use super::*;

#[test]
fn a_thousand_writes_to_one_file_are_one_job() {
    let mut bench = Bench::new();
    for _ in 0..1_000 {
        bench.write("a");
    }
    assert_eq!(bench.len(), 1);
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    assert_eq!(bench.len(), 0);
}

#[test]
fn a_change_during_the_run_is_not_lost() {
    let mut bench = Bench::new();
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
    bench.write("a");
    assert!(bench.small().is_empty(), "never two runs of one path");
    bench.done("a");
    assert_eq!(bench.small(), ["a"], "the newer change runs");
    bench.done("a");
    assert_eq!(bench.len(), 0);
}

#[test]
fn jobs_are_claimed_in_the_order_of_their_changes() {
    let mut bench = Bench::new();
    for name in ["c", "a", "b"] {
        bench.write(name);
    }
    assert_eq!(bench.small(), ["c", "a", "b"]);
}

/// A new file cost two runs: one for its directory's times as soon as it was created, one for the file.
#[test]
fn a_directorys_times_go_out_with_what_changed_in_it() {
    let mut bench = Bench::new();
    let times = Change { settle: Settle::Within(SOON), ..Change::scan(path("d"), Scope::Entry) };
    bench.add(times.clone());
    assert!(bench.small().is_empty());
    bench.write("d/f");
    assert_eq!(bench.small(), ["d/f", "d"]);
    bench.done("d/f");
    bench.done("d");
    bench.add(times);
    bench.wait(5_000);
    assert_eq!(bench.small(), ["d"], "or alone, if nothing comes");
}

/// A directory that was being filled was listed as a whole again by every batch.
#[test]
fn what_a_run_has_done_is_not_done_again_for_a_smaller_change() {
    let mut bench = Bench::new();
    bench.add(fresh_dir("d"));
    assert_eq!(bench.small(), ["d"]);
    bench.scan("d", Scope::Entry);
    assert_eq!(bench.job("d").scope, Scope::Children, "a crash now still needs all of it");
    bench.done("d");
    assert_eq!((bench.job("d").scope, bench.job("d").origin), (Scope::Entry, Origin::Scan));
    assert_eq!(bench.small(), ["d"]);
    bench.write("d");
    bench.failed("d");
    assert_eq!(bench.job("d").origin, Origin::Write, "what failed is still to be done");
}

#[test]
fn a_directory_is_not_touched_while_something_below_is_in_flight() {
    let mut bench = Bench::new();
    bench.write("d/f");
    assert_eq!(bench.small(), ["d/f"]);
    bench.write("d");
    bench.scan("", Scope::Entry);
    assert!(bench.small().is_empty());
    bench.done("d/f");
    assert_eq!(bench.small(), ["d", "."]);
}

#[test]
fn a_directory_and_its_entries_share_a_batch() {
    let mut bench = Bench::new();
    bench.add(fresh_dir("d"));
    bench.write("d/f");
    assert_eq!(bench.small(), ["d", "d/f"]);
}

#[test]
fn nothing_runs_below_a_level_in_flight() {
    let mut bench = Bench::new();
    bench.add(fresh_dir("d"));
    assert_eq!(bench.small(), ["d"]);
    bench.write("d/e/f");
    bench.write("other");
    assert_eq!(bench.small(), ["other"]);
    bench.done("d");
    assert_eq!(bench.small(), ["d/e/f"]);
}

#[test]
fn what_ends_below_a_running_subtree_runs_once_more_after_it() {
    let mut bench = Bench::new();
    bench.scan("d", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.write("d/f");
    assert_eq!(bench.small(), ["d/f"], "a long run above delays nothing");
    bench.done("d/f");
    assert!(bench.small().is_empty(), "but its work may be undone by that run");
    bench.done("d");
    assert_eq!(bench.small(), ["d/f"]);
    bench.done("d/f");
    assert_eq!(bench.len(), 0);
}

/// A run beside a subtree's run deleted a file, the subtree's run made it again and ended, and then the first job was
/// done for good.
#[test]
fn what_ends_after_a_subtree_it_ran_beside_runs_once_more_too() {
    let mut bench = Bench::new();
    bench.scan("d", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.write("d/f");
    assert_eq!(bench.small(), ["d/f"]);
    bench.done("d");
    bench.done("d/f");
    assert_eq!(bench.small(), ["d/f"]);
    bench.done("d/f");
    assert_eq!(bench.len(), 0);
}

#[test]
fn what_was_in_flight_when_a_subtree_started_runs_once_more_too() {
    let mut bench = Bench::new();
    bench.write("d/f");
    assert_eq!(bench.small(), ["d/f"]);
    bench.scan("", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["."], "a stream of changes does not starve a reconcile");
    bench.done("d/f");
    bench.done("");
    assert_eq!(bench.small(), ["d/f"]);
}

#[test]
fn a_directory_that_comes_back_is_compared_in_full() {
    let mut bench = Bench::new();
    bench.scan("d", Scope::Entry);
    assert_eq!(bench.small(), ["d"], "its deletion is under way");
    bench.add(fresh_dir("d"));
    bench.done("d");
    assert_eq!(bench.job("d").scope, Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
}

#[test]
fn a_directory_that_comes_back_over_pending_remains_is_compared_in_full() {
    let mut bench = Bench::new();
    bench.write("d/old");
    assert_eq!(bench.small(), ["d/old"]);
    bench.add(fresh_dir("d"));
    assert_eq!(bench.job("d").scope, Scope::Subtree);
    bench.done("d/old");
}

/// A run that began when `d` was gone may list `d` for deletion on behalf of `d/old`. A subtree job that repairs this has
/// to come after it, and neither a job for the whole tree nor one above may stand in for it.
#[test]
fn a_directory_that_comes_back_is_compared_after_the_run_that_may_delete_it() {
    let mut bench = Bench::new();
    bench.write("d/old");
    assert_eq!(bench.small(), ["d/old"]);
    bench.add(Change { fresh: true, ..Change::scan(path("d"), Scope::Subtree) });
    assert!(bench.claim(Lane::Large).is_empty());
    bench.scan("", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["."]);
    bench.done("d/old");
    bench.done("");
    assert!(bench.claim(Lane::Large).contains(&"d".to_owned()));
}

/// A change that came during a run made the repetition after the subtree smaller than the work that the subtree may have
/// undone.
#[test]
fn what_ends_below_a_running_subtree_is_repeated_in_full() {
    let mut bench = Bench::new();
    bench.scan("", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["."]);
    bench.add(fresh_dir("d"));
    assert_eq!(bench.small(), ["d"]);
    bench.scan("d", Scope::Entry);
    bench.done("d");
    assert_eq!(bench.job("d").scope, Scope::Children);
    assert_eq!(bench.small(), ["d"]);
    bench.done("d");
    bench.done("");
    assert_eq!(bench.small(), ["d"]);
    bench.done("d");
    assert_eq!(bench.len(), 0);
}

#[test]
fn a_subtree_absorbs_what_waits_below_but_not_writes() {
    let mut bench = Bench::new();
    bench.scan("d/a", Scope::Entry);
    bench.scan("d/b/c", Scope::Children);
    bench.write("d/w");
    bench.scan("da", Scope::Entry);
    bench.scan("d", Scope::Subtree);
    assert_eq!(bench.len(), 3);
    bench.scan("d/a", Scope::Entry);
    assert_eq!(bench.len(), 3, "covered by the pending subtree");
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.scan("d/a", Scope::Entry);
    assert_eq!(bench.len(), 4, "a subtree that runs may have passed the path already");
}

/// The run of `a` had seen `a/f` and sent it after the end of the whole tree's run, which had not seen it.
#[test]
fn the_whole_tree_does_not_stand_in_for_what_a_run_in_flight_may_put_back() {
    let mut bench = Bench::new();
    bench.scan("a", Scope::Children);
    assert_eq!(bench.small(), ["a"]);
    bench.scan("", Scope::Subtree);
    bench.scan("a/f", Scope::Entry);
    assert_eq!(bench.claim(Lane::Large), ["."]);
    bench.done("");
    bench.done("a");
    assert_eq!(bench.small(), ["a/f", "a"]);
}

#[test]
fn a_reconcile_does_not_swallow_changes_that_its_own_filter_may_leave_out() {
    let mut bench = Bench::new();
    bench.scan("a.php", Scope::Entry);
    let reconcile = Change { origin: Origin::Reconcile, ..Change::scan(RelPath::root(), Scope::Subtree) };
    bench.add(reconcile);
    assert_eq!(bench.len(), 2);
    bench.scan("b.php", Scope::Entry);
    assert_eq!(bench.len(), 3);
}

/// A whole-tree run that was refused since it would have deleted too much took all live deletions into its pauses.
#[test]
fn what_keeps_failing_above_does_not_stand_in_for_changes_below() {
    let mut bench = Bench::new();
    bench.scan("d", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.failed("d");
    bench.scan("d/gone", Scope::Entry);
    assert_eq!(bench.small(), ["d/gone"]);
    bench.wait(600_000);
    bench.scan("d/too", Scope::Entry);
    assert_eq!(bench.small(), ["d/too"], "ready to be tried again, and may fail again");
}

#[test]
fn a_failing_subtree_is_not_tried_at_each_change_of_its_own_times() {
    let mut bench = Bench::new();
    bench.scan("d", Scope::Subtree);
    for _ in 0..4 {
        bench.wait(600_000);
        assert_eq!(bench.claim(Lane::Large), ["d"]);
        bench.failed("d");
    }
    let due = bench.job("d").due_at;
    bench.scan("d", Scope::Entry);
    assert_eq!(bench.job("d").due_at, due);
    bench.scan("d", Scope::Subtree);
    assert!(bench.job("d").due_at < due);
}

/// A file in the root that changed just before a scheduled run switched off its crontabfilter.
#[test]
fn the_roots_own_times_do_not_change_what_a_reconcile_leaves_out() {
    let times = || Change::scan(RelPath::root(), Scope::Entry);
    let reconcile = || Change { origin: Origin::Reconcile, ..Change::scan(RelPath::root(), Scope::Subtree) };
    for changes in [[times(), reconcile()], [reconcile(), times()]] {
        let mut bench = Bench::new();
        for change in changes {
            bench.add(change);
        }
        let job = bench.job("");
        assert_eq!((job.scope, job.origin), (Scope::Subtree, Origin::Reconcile));
    }
}

#[test]
fn large_files_go_out_one_a_run_beside_small_ones() {
    let mut bench = Bench::new();
    for name in ["big1", "big2", "small"] {
        bench.write(name);
    }
    assert_eq!(bench.small().len(), 3);
    bench.finish("big1", Verdict::Large);
    bench.finish("big2", Verdict::Large);
    bench.done("small");
    assert_eq!(bench.claim(Lane::Large), ["big1"]);
    assert_eq!(bench.claim(Lane::Large), ["big2"]);
}
