//! A path that was moved is claimed together with its old name, and only while nothing speaks against it.

use super::*;
use crate::model::Verdict;

fn moved(new: &str, old: &str) -> Change {
    let tree = Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path(new), Scope::Subtree) };
    Change { moved_from: Some(path(old)), ..tree }
}

fn moved_file(new: &str, old: &str) -> Change {
    Change { moved_from: Some(path(old)), ..Change::write(path(new)) }
}

/// A directory that was renamed from `old` to `new`, as the watcher reports it.
fn renamed(bench: &mut Bench, new: &str, old: &str) {
    bench.add(moved(new, old));
    bench.scan(old, Scope::Entry);
}

/// The paths claimed, with the paths that they were moved from.
fn claimed(bench: &mut Bench) -> Vec<(String, Option<String>)> {
    let jobs = bench.queue.claim(Lane::Large, 100, bench.now);
    bench.queue.check_invariants();
    jobs.iter().map(|job| (job.path.to_string(), job.moved_from.as_ref().map(RelPath::to_string))).collect()
}

fn from(new: &str, old: &str) -> Vec<(String, Option<String>)> {
    vec![(new.to_owned(), Some(old.to_owned())), (old.to_owned(), None)]
}

#[test]
fn the_old_name_waits_for_the_new_one_and_goes_with_it() {
    let mut bench = Bench::new();
    renamed(&mut bench, "new", "old");
    assert!(bench.small().is_empty(), "the old name is still needed");
    assert_eq!(claimed(&mut bench), from("new", "old"));
    bench.add(Change::write(path("old/f")));
    assert!(bench.small().is_empty(), "nothing comes to the old name meanwhile");
    bench.done("new");
    bench.done("old");
    assert_eq!(bench.small(), ["old/f"]);
}

#[test]
fn a_large_file_goes_with_its_old_name_in_the_large_lane() {
    let mut bench = Bench::new();
    bench.add(moved_file("d/f", "f"));
    bench.scan("f", Scope::Entry);
    assert!(bench.small().is_empty());
    assert_eq!(claimed(&mut bench), from("d/f", "f"));
}

/// A log that begins anew does not wait for the large lane for long.
#[test]
fn what_is_new_under_the_old_name_of_a_file_is_not_held_back_for_long() {
    let mut bench = Bench::new();
    bench.add(moved_file("log.1", "log"));
    bench.scan("log", Scope::Entry);
    bench.write("log");
    bench.wait(9_000);
    assert!(bench.small().is_empty());
    let due = bench.queue.next_due().expect("something is due");
    bench.wait(due.since(bench.now).as_millis() as u64);
    assert_eq!(bench.small(), ["log"]);
    assert_eq!(claimed(&mut bench), [("log.1".to_owned(), None)]);
}

#[test]
fn a_target_that_was_down_is_told_again_and_one_that_failed_is_not() {
    let mut bench = Bench::new();
    renamed(&mut bench, "new", "old");
    assert_eq!(claimed(&mut bench), from("new", "old"));
    bench.finish("new", Verdict::Released);
    bench.finish("old", Verdict::Released);
    assert_eq!(claimed(&mut bench), from("new", "old"));
    bench.failed("new");
    bench.finish("old", Verdict::Released);
    assert_eq!(bench.small(), ["old"], "a new name that backs off holds up nothing");
}

#[test]
fn a_chain_leads_back_to_what_the_target_has() {
    let mut bench = Bench::new();
    renamed(&mut bench, "b", "a");
    renamed(&mut bench, "c", "b");
    renamed(&mut bench, "d", "c");
    let mut all = claimed(&mut bench);
    all.sort();
    let mut expected = from("d", "a");
    expected.extend([("b".to_owned(), None), ("c".to_owned(), None)]);
    expected.sort();
    assert_eq!(all, expected);
}

/// Two trees may differ in nothing but the bytes of their files.
#[test]
fn what_the_target_may_hold_otherwise_is_not_taken_over() {
    let sweep = |at: &str| Change { origin: Origin::Write, ..Change::scan(path(at), Scope::Subtree) };
    let before: [(&str, Vec<Change>); 6] = [
        ("a write below the old name", vec![Change::write(path("p/old/f"))]),
        ("the old name itself came from elsewhere", vec![moved("p/old", "x")]),
        ("so did a directory above", vec![Change { moved_from: None, ..moved("p", "x") }]),
        ("all of it is to be sent", vec![sweep("p")]),
        ("the new name was another thing", vec![Change::scan(path("new"), Scope::Entry)]),
        ("there was something below it", vec![Change::scan(path("new/f"), Scope::Entry)]),
    ];
    for (what, changes) in before {
        let mut bench = Bench::new();
        changes.into_iter().for_each(|change| bench.add(change));
        renamed(&mut bench, "new", "p/old");
        assert!(claimed(&mut bench).iter().all(|(_, old)| old.is_none()), "{what}");
    }
    let after: [(&str, Change); 6] = [
        ("a write below the new name", Change::write(path("new/f"))),
        ("a write below the old name", Change::write(path("p/old/f"))),
        ("something came to the old name", fresh_dir("p/old")),
        ("something came to a name above it", Change { moved_from: None, ..moved("p", "x") }),
        ("another thing came to the new name", moved("new", "y")),
        ("a directory above was swept", sweep("p")),
    ];
    for (what, change) in after {
        let mut bench = Bench::new();
        renamed(&mut bench, "new", "p/old");
        bench.add(change);
        assert!(claimed(&mut bench).iter().all(|(_, old)| old.is_none()), "{what}");
    }
}

#[test]
fn what_the_quick_check_sees_may_happen_around_it() {
    let mut bench = Bench::new();
    bench.scan("p/old", Scope::Entry);
    bench.scan("p/old/gone", Scope::Entry);
    bench.scan("p", Scope::Entry);
    renamed(&mut bench, "new", "p/old");
    bench.scan("new", Scope::Entry);
    bench.scan("p", Scope::Entry);
    assert_eq!(claimed(&mut bench), from("new", "p/old"));
}

#[test]
fn a_run_that_may_touch_the_old_name_ends_the_hint() {
    let mut bench = Bench::new();
    bench.scan("p", Scope::Children);
    renamed(&mut bench, "new", "p/old");
    assert_eq!(bench.small(), ["p"]);
    bench.done("p");
    assert!(claimed(&mut bench).iter().all(|(_, old)| old.is_none()));

    let mut bench = Bench::new();
    bench.write("old/f");
    assert_eq!(bench.small(), ["old/f"]);
    renamed(&mut bench, "new", "old");
    bench.done("old/f");
    assert!(claimed(&mut bench).iter().all(|(_, old)| old.is_none()));
}

/// Whatever is renamed to whatever, no two jobs may wait for each other.
#[test]
fn renames_in_circles_all_end() {
    const NAMES: [&str; 7] = ["a", "b", "a/x", "b/x", "a/x/y", "c", "c/a"];
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let mut running: Vec<String> = Vec::new();
        for _ in 0..40 {
            let (new, old) = (NAMES[rng.usize(..NAMES.len())], NAMES[rng.usize(..NAMES.len())]);
            match rng.u32(..10) {
                0..4 => {
                    bench.add(if rng.bool() { moved(new, old) } else { moved_file(new, old) });
                    bench.scan(old, Scope::Entry);
                }
                4 => bench.write(new),
                5 => bench.add(fresh_dir(new)),
                6 | 7 => running.extend(bench.claim(if rng.bool() { Lane::Small } else { Lane::Large })),
                _ if running.is_empty() => {}
                _ => {
                    let path = running.swap_remove(rng.usize(..running.len()));
                    bench.finish(&path, if rng.bool() { Verdict::Done } else { Verdict::Released });
                }
            }
        }
        for _ in 0..200 {
            running.drain(..).for_each(|path| bench.done(&path));
            bench.wait(10_000);
            running.extend(bench.claim(Lane::Large));
            running.extend(bench.small());
        }
        assert_eq!(bench.len(), 0, "seed {seed}");
    }
}
