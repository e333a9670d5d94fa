//! Names of one file go in one batch, and files that have just been made are known as such.

use super::*;

fn named(bench: &mut Bench, text: &str, file: u64) {
    bench.add(Change { several_names: Some(file), ..Change::write(path(text)) });
}

fn one(bench: &mut Bench, lane: Lane) -> Vec<String> {
    let jobs = bench.queue.claim(lane, 1, bench.now);
    bench.queue.check_invariants();
    jobs.iter().map(|job| job.path.to_string()).collect()
}

/// Names that went in two runs were two files on the target.
#[test]
fn names_of_one_file_are_claimed_together_or_not_at_all() {
    let mut bench = Bench::new();
    for name in ["a", "b", "d/c"] {
        named(&mut bench, name, 7);
    }
    bench.write("other");
    assert_eq!(one(&mut bench, Lane::Small), ["a", "b", "d/c"], "a batch of one job");
    // Each job learns that its file is large, and goes alone but for the other names of the file.
    for name in ["a", "b", "d/c"] {
        bench.finish(name, Verdict::Large);
    }
    assert_eq!(one(&mut bench, Lane::Small), ["other"]);
    assert_eq!(one(&mut bench, Lane::Large), ["a", "b", "d/c"]);
    named(&mut bench, "e", 7);
    assert!(one(&mut bench, Lane::Small).is_empty(), "the others are on their way");
    bench.done("a");
    bench.done("b");
    named(&mut bench, "a", 7);
    assert!(one(&mut bench, Lane::Small).is_empty(), "one is");
    bench.done("d/c");
    assert_eq!(one(&mut bench, Lane::Small), ["e", "a"]);
}

#[test]
fn nobody_waits_for_a_name_that_fails() {
    let mut bench = Bench::new();
    named(&mut bench, "a", 7);
    named(&mut bench, "b", 7);
    assert_eq!(bench.small(), ["a", "b"]);
    bench.finish("a", Verdict::Failed(JobError::new(Some(23), "denied")));
    bench.done("b");
    named(&mut bench, "b", 7);
    assert_eq!(bench.small(), ["b"]);
    bench.done("b");
    // The name belongs to another file by now.
    named(&mut bench, "b", 8);
    named(&mut bench, "c", 7);
    bench.wait(60_000);
    assert_eq!(one(&mut bench, Lane::Small), ["b"]);
}

#[test]
fn a_file_is_new_until_it_is_sent() {
    let mut bench = Bench::new();
    let new = |text: &str| Change { is_new: true, ..Change::write(path(text)) };
    let claimed = |bench: &mut Bench| {
        let jobs = bench.queue.claim(Lane::Small, 100, bench.now);
        jobs.into_iter().map(|job| (job.path.to_string(), job.is_new)).collect::<Vec<_>>()
    };
    bench.add(new("a"));
    bench.write("a");
    // Something of that name may still be on the target.
    bench.scan("b", Scope::Entry);
    bench.add(new("b"));
    assert_eq!(claimed(&mut bench), [("a".to_owned(), true), ("b".to_owned(), false)]);
    bench.write("a");
    bench.done("a");
    bench.done("b");
    assert_eq!(claimed(&mut bench), [("a".to_owned(), false)], "the target may have got it");
    bench.finish("a", Verdict::Released);
    assert_eq!(claimed(&mut bench), [("a".to_owned(), false)]);
}
