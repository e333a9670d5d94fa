//! Any order of changes, claims, verdicts and waits ends with equal trees.

use proptest::prelude::*;

use super::*;

/// A mirror in miniature: the source and the target map paths to versions, a run copies what it saw when it began, each
/// path at some moment until it ends.
#[derive(Debug, Clone)]
enum Step {
    Write(u8),
    Modify(u8),
    Subtree(u8),
    Claim(bool),
    Send(u8, u8),
    Finish(u8, u8),
    Wait(u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12).prop_map(Step::Write),
        2 => (0u8..12).prop_map(Step::Modify),
        1 => (0u8..12).prop_map(Step::Subtree),
        4 => any::<bool>().prop_map(Step::Claim),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(which, what)| Step::Send(which, what)),
        4 => (any::<u8>(), 0u8..8).prop_map(|(which, how)| Step::Finish(which, how)),
        2 => (0u16..3_000).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

const PATHS: [&str; 12] = ["a", "a/b", "a/b/c", "a/b/d", "a/e", "f", "f/g", "f/g/h", "i", "j/k", "j", "a/b/c/l"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_empty_queue_means_equal_trees(steps in proptest::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new();
        let mut source: BTreeMap<String, u64> = BTreeMap::new();
        let mut mirror: BTreeMap<String, u64> = BTreeMap::new();
        // What each run in flight saw when it began and has not sent yet.
        let mut in_flight: Vec<(String, Vec<(String, u64)>)> = Vec::new();
        let mut version = 0;
        // Path, version and number of each write.
        let mut writes: Vec<(&str, u64, u64)> = Vec::new();
        let begin = |bench: &mut Bench, lane, source: &BTreeMap<String, u64>, in_flight: &mut Vec<_>| {
            for job in bench.queue.claim(lane, 3, bench.now) {
                let covered: Vec<(String, u64)> = source
                    .iter()
                    .filter(|(p, _)| path(p) == job.path || job.scope == Scope::Subtree && job.path.covers(&path(p)))
                    .map(|(p, v)| (p.clone(), *v))
                    .collect();
                in_flight.push((job.path.to_string(), covered));
            }
        };
        let mut all = steps;
        all.extend((0..40).flat_map(|_| [Step::Wait(u16::MAX), Step::Claim(true), Step::Claim(false), Step::Finish(0, 0), Step::Finish(0, 0), Step::Finish(0, 0)]));
        for step in all {
            match step {
                Step::Write(n) => {
                    version += 1;
                    source.insert(PATHS[n as usize].into(), version);
                    bench.write(PATHS[n as usize]);
                    writes.push((PATHS[n as usize], version, bench.queue.newest_change()));
                }
                Step::Modify(n) => {
                    version += 1;
                    source.insert(PATHS[n as usize].into(), version);
                    bench.add(Change { settle: Settle::Quiet(SOON), ..Change::write(path(PATHS[n as usize])) });
                    writes.push((PATHS[n as usize], version, bench.queue.newest_change()));
                }
                Step::Subtree(n) => bench.scan(PATHS[n as usize], Scope::Subtree),
                Step::Claim(small) => {
                    begin(&mut bench, if small { Lane::Small } else { Lane::Large }, &source, &mut in_flight);
                }
                Step::Send(which, what) if !in_flight.is_empty() => {
                    let which = which as usize % in_flight.len();
                    let saw = &mut in_flight[which].1;
                    if !saw.is_empty() {
                        mirror.extend([saw.remove(what as usize % saw.len())]);
                    }
                }
                Step::Finish(which, how) if !in_flight.is_empty() => {
                    let (at, saw) = in_flight.remove(which as usize % in_flight.len());
                    let verdict = match how {
                        0..=3 => {
                            mirror.extend(saw);
                            Verdict::Done
                        }
                        4 => Verdict::Released,
                        5 => Verdict::Failed(JobError::new(None, "no")),
                        6 => Verdict::Large,
                        _ => Verdict::LookAgain(Scope::Entry),
                    };
                    bench.finish(&at, verdict);
                }
                Step::Send(..) | Step::Finish(..) => {}
                Step::Wait(ms) => bench.wait(u64::from(ms)),
                Step::Restart => {
                    // The runs in flight may or may not have done their work.
                    in_flight.clear();
                    let jobs = bench.queue.page(None, usize::MAX, |_| true);
                    bench.queue = TargetQueue::new(TargetId(1));
                    for job in jobs {
                        bench.queue.load(job);
                    }
                    writes.iter_mut().for_each(|(.., number)| *number = 0);
                }
            }
            bench.queue.check_invariants();
            // At any time, a path that differs has a job, or is in flight and will have one.
            let pending = bench.queue.page(None, usize::MAX, |_| true);
            for (p, v) in &source {
                let has_job = |job: &Job| job.path == path(p) || job.scope == Scope::Subtree && job.path.covers(&path(p));
                prop_assert!(mirror.get(p) == Some(v) || pending.iter().any(has_job), "{p} differs and has no job");
            }
            // Whoever waits for a change waits until the target has it.
            for (p, version, number) in &writes {
                let arrived = mirror.get(*p).is_some_and(|there| there >= version);
                let waits = || !bench.queue.lacking(*number, Some(&path(p)), 1).is_empty();
                prop_assert!(arrived || waits(), "{p} in version {version} is waited for no more and has not arrived");
            }
        }
        prop_assert_eq!(bench.len(), 0, "the queue drains");
        prop_assert_eq!(source, mirror);
    }
}
