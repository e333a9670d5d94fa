//! The queue's promises, without a store that can fail and without threads where none are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::target_queue::TargetQueue;
use super::*;
use crate::clock::SimulatedClock;
use crate::model::{JobState, Origin, Scope, Settle, TroubleClass};

mod cut_off;
mod full_disk;
mod renames;
mod simulation;

const SOON: Duration = Duration::from_secs(5);

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn fresh_dir(text: &str) -> Change {
    Change { scope: Scope::Children, fresh: true, ..Change::write(path(text)) }
}

/// One target's queue with a clock and ids of its own.
struct Bench {
    queue: TargetQueue,
    now: Timestamp,
    ids: u64,
}

impl Bench {
    fn new() -> Self {
        let now = Timestamp(1_000_000);
        Self { queue: TargetQueue::new(TargetId(1)), now, ids: 0 }
    }

    fn add(&mut self, change: Change) {
        let ids = &mut self.ids;
        self.queue.enqueue(&change, self.now, || {
            *ids += 1;
            JobId(*ids)
        });
        self.queue.check_invariants();
    }

    fn write(&mut self, text: &str) {
        self.add(Change::write(path(text)));
    }

    fn scan(&mut self, text: &str, scope: Scope) {
        let path = if text.is_empty() { RelPath::root() } else { path(text) };
        self.add(Change::scan(path, scope));
    }

    fn claim(&mut self, lane: Lane) -> Vec<String> {
        let jobs = self.queue.claim(lane, 100, self.now);
        self.queue.check_invariants();
        jobs.iter().map(|job| job.path.to_string()).collect()
    }

    fn small(&mut self) -> Vec<String> {
        self.claim(Lane::Small)
    }

    fn finish(&mut self, text: &str, verdict: Verdict) {
        let path = if text.is_empty() { RelPath::root() } else { path(text) };
        self.queue.finish(&path, verdict, Duration::from_millis(30), self.now, 0.5);
        self.queue.check_invariants();
    }

    fn done(&mut self, text: &str) {
        self.finish(text, Verdict::Done);
    }

    fn failed(&mut self, text: &str) {
        self.finish(text, Verdict::Failed(JobError::new(Some(23), "permission denied")));
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
    }

    fn len(&self) -> usize {
        self.queue.page(None, usize::MAX, |_| true).len()
    }

    fn job(&self, text: &str) -> Job {
        let all = self.queue.page(None, usize::MAX, |_| true);
        all.into_iter().find(|job| job.path == path(text)).unwrap_or_else(|| panic!("no job at {text}"))
    }
}

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

#[test]
fn released_jobs_keep_their_place_and_count_no_attempt() {
    let mut bench = Bench::new();
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
    bench.write("b");
    bench.finish("a", Verdict::Released);
    assert_eq!(bench.job("a").attempts, 0);
    assert_eq!(bench.small(), ["a", "b"]);
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

/// A run beside a subtree's deleted a file, the subtree's made it again, ended, and then the first was done for good.
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

/// A change that came during a run made the repeat after the subtree smaller than what that subtree may have undone.
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

/// The run of `a` had seen `a/f` and sent it after the whole tree's run, which had not, was over.
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
fn failures_back_off_and_a_newer_change_shortens_the_wait() {
    let mut bench = Bench::new();
    bench.write("a");
    for attempt in 1..=5 {
        bench.wait(3_600_000);
        assert_eq!(bench.small(), ["a"]);
        bench.failed("a");
        assert_eq!(bench.job("a").attempts, attempt);
        assert!(bench.small().is_empty());
    }
    assert_eq!(bench.job("a").due_at, bench.now.after(Duration::from_secs(16)));
    bench.write("a");
    assert_eq!(bench.job("a").due_at, bench.now.after(Duration::from_secs(1)));
    bench.wait(1_000);
    assert_eq!(bench.small(), ["a"]);
}

#[test]
fn after_the_last_attempt_a_job_is_dead_until_its_path_changes() {
    let mut bench = Bench::new();
    bench.queue.policy.attempts_max = 2;
    bench.write("a");
    for _ in 0..2 {
        bench.wait(3_600_000);
        assert_eq!(bench.small(), ["a"]);
        bench.failed("a");
    }
    assert_eq!(bench.job("a").state, JobState::Failed);
    bench.wait(86_400_000);
    assert!(bench.small().is_empty());
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
}

#[test]
fn a_reconcile_revives_dead_letters() {
    let mut bench = Bench::new();
    bench.queue.policy.attempts_max = 1;
    bench.write("d/a");
    bench.small();
    bench.failed("d/a");
    bench.scan("", Scope::Subtree);
    assert_eq!(bench.small(), ["d/a"]);
}

#[test]
fn an_open_file_waits_for_its_close_or_for_quiet() {
    let mut bench = Bench::new();
    let modified = Change { settle: Settle::Quiet(SOON), ..Change::write(path("log")) };
    bench.add(modified.clone());
    bench.wait(4_000);
    assert!(bench.small().is_empty());
    bench.add(modified.clone());
    bench.wait(4_000);
    assert!(bench.small().is_empty(), "each write begins the wait anew");
    bench.write("log");
    assert_eq!(bench.small(), ["log"], "the close ends it");
    bench.add(modified);
    bench.done("log");
    assert!(bench.small().is_empty());
    bench.wait(5_000);
    assert_eq!(bench.small(), ["log"]);
}

#[test]
fn a_followed_file_is_not_postponed_by_further_writes() {
    let mut bench = Bench::new();
    for _ in 0..11 {
        bench.add(Change { settle: Settle::Within(Duration::from_secs(1)), ..Change::write(path("log")) });
        bench.wait(100);
    }
    assert_eq!(bench.small(), ["log"]);
}

#[test]
fn a_path_that_changes_all_the_time_is_sent_once_an_interval() {
    let mut bench = Bench::new();
    let mut runs = 0;
    for _ in 0..3_000 {
        bench.write("log");
        if !bench.small().is_empty() {
            runs += 1;
            bench.write("log");
            bench.done("log");
        }
        bench.wait(1);
    }
    assert!((5..=8).contains(&runs), "{runs} runs in 3 s");
    bench.wait(2_000);
    assert_eq!(bench.small(), ["log"], "the newest state goes out at last");
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

#[test]
fn a_source_that_keeps_vanishing_backs_off_at_last() {
    let mut bench = Bench::new();
    bench.write("a");
    let mut looks = 0;
    while bench.job("a").attempts == 0 {
        bench.wait(10_000);
        assert_eq!(bench.small(), ["a"]);
        bench.finish("a", Verdict::LookAgain(Scope::Entry));
        looks += 1;
        assert!(looks < 100);
    }
}

/// A finished job that was never written costs the store nothing; one that was is deleted from it.
#[test]
fn only_what_the_store_holds_is_deleted_from_it() {
    let mut bench = Bench::new();
    bench.write("a");
    bench.small();
    bench.done("a");
    assert_eq!(bench.queue.dirty_len(), 0);
    bench.write("a");
    let mut ops = Vec::new();
    bench.queue.ripen();
    bench.queue.take_dirty(10, &mut ops);
    assert!(matches!(ops.as_slice(), [Op::PutJob(_)]));
    bench.small();
    bench.done("a");
    bench.write("a");
    bench.small();
    bench.done("a");
    ops.clear();
    bench.queue.ripen();
    bench.queue.take_dirty(10, &mut ops);
    assert!(matches!(ops.as_slice(), [Op::DeleteJob { .. }]));
}

/// A mirror in miniature: the source and the target map paths to versions, a run copies what it saw when it began, each
/// path at some moment until it ends. Whatever the order of changes, claims, verdicts and waits, the target equals the source once the queue is empty.
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
                    // What was in flight may or may not have done its work.
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
            // At any time, what differs has a job, or is in flight and will have one.
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

mod backlog;
mod burst;

mod threads {
    use super::*;
    use crate::store::COMMIT_OPS_MAX;
    use crate::store::memory::MemoryStore;

    fn open(store: &MemoryStore, clock: &Arc<SimulatedClock>) -> Queue {
        let clock: Arc<dyn Clock> = Arc::<SimulatedClock>::clone(clock);
        Queue::open(Box::new(store.clone()), clock).expect("opens").0
    }

    fn destination() -> Destination {
        Destination::Local("/mirror".into())
    }

    #[test]
    fn what_was_enqueued_is_there_after_a_crash() {
        let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let queue = open(&store, &clock);
        let (target, new) = queue.register(Path::new("/src"), &destination(), Policy::default());
        assert!(new);
        let changes: Vec<Change> = (0..2_500).map(|n| Change::write(path(&format!("f{n}")))).collect();
        queue.enqueue(&[target], &changes);
        assert!(queue.flush(SOON));
        queue.claim(target, Lane::Small).expect("a batch is running at the crash");
        std::mem::forget(queue);

        let queue = open(&store, &clock);
        let (same, new) = queue.register(Path::new("/src"), &destination(), Policy::default());
        assert_eq!((same, new), (target, false));
        assert_eq!(queue.stats(target).unwrap().counts, Counts { ready: 2_500, ..Counts::default() });
        let ids: BTreeSet<u64> = queue.page(target, None, 10_000, |_| true).iter().map(|job| job.id.0).collect();
        assert_eq!(ids.len(), 2_500, "ids are unique");
        queue.enqueue(&[target], &[Change::write(path("one more"))]);
        let one_more = queue.page(target, None, 10_000, |_| true).iter().map(|job| job.id.0).max();
        assert_eq!(one_more, ids.iter().max().map(|max| max + 1), "and are never used twice");
    }

    /// Each of them cost the disk two commits.
    #[test]
    fn a_job_that_is_done_at_once_is_never_written() {
        let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let queue = open(&store, &clock);
        let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
        assert!(queue.flush(SOON));
        let before = store.commits();
        for n in 0..100 {
            queue.enqueue(&[target], &[Change::write(path(&format!("f{n}")))]);
            let batch = queue.claim(target, Lane::Small).expect("a job");
            let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), Verdict::Done)).collect();
            queue.finish(&batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
        }
        // The first may have been there before the committer went to rest.
        assert!(queue.flush(SOON) && store.commits() <= before + 2, "{} commits", store.commits() - before);
        drop(queue);
        let queue = open(&store, &clock);
        queue.enqueue(&[target], &[Change::write(path("one more"))]);
        let id = queue.page(target, None, 1, |_| true).first().map(|job| job.id.0);
        assert_eq!(id, Some(101), "no number is given twice");
    }

    /// A crash between the two would forget the path that failed. The directory's job has been in line for longer.
    #[test]
    fn a_failure_that_a_run_found_is_stored_with_the_end_of_its_job() {
        let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let queue = open(&store, &clock);
        let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
        let whole = |origin| Change { origin, ..Change::scan(path("d"), Scope::Subtree) };
        queue.enqueue(&[target], &[whole(Origin::Reconcile)]);
        assert!(queue.flush(SOON));
        queue.enqueue(&[target], &[whole(Origin::Scan)]);
        // Of all else the committer is told at once, and with it of what is in line.
        queue.set_root_mark(Path::new("/src"), DirectoryId { inode: 1, born_ns: None });
        let batch = queue.claim(target, Lane::Large).expect("a job");
        let found = vec![(path("d/f"), JobError::new(Some(23), "permission denied"))];
        let verdicts = vec![(path("d"), Verdict::Done)];
        queue.finish(&batch, BatchResult { verdicts, found, reached: true, ..BatchResult::default() });
        let begun = crate::clock::monotonic();
        loop {
            let stored: Vec<RelPath> = store.contents().jobs.iter().map(|job| job.path.clone()).collect();
            if !stored.contains(&path("d")) {
                assert_eq!(stored, [path("d/f")]);
                break;
            }
            assert!(begun.elapsed() < SOON * 4, "the job's end is not written");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// No run will do what it stands for soon, so it is written without waiting to be asked.
    #[test]
    fn a_job_of_a_target_that_is_not_served_is_written_at_once() {
        let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let queue = open(&store, &clock);
        let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
        assert!(queue.pause(target, true) && queue.flush(SOON));
        queue.enqueue(&[target], &[Change::write(path("f"))]);
        let begun = crate::clock::monotonic();
        while store.contents().jobs.is_empty() {
            assert!(begun.elapsed() < SOON, "it is not written");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_failing_store_stops_nothing_and_catches_up() {
        let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let queue = open(&store, &clock);
        let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
        assert!(queue.flush(SOON));
        store.fail_after(0);
        queue.enqueue(&[target], &[Change::write(path("a"))]);
        assert!(!queue.flush(Duration::from_millis(50)));
        assert!(queue.claim(target, Lane::Small).is_some(), "mirroring goes on from memory");
        store.heal();
        assert!(queue.flush(SOON), "and the job is stored once the store is back");
        assert_eq!(queue.store_health().error, None);
    }

    /// It waited until nothing at all was dirty, which under load never was.
    #[test]
    fn a_flush_waits_for_what_came_before_it_only() {
        let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let queue = open(&store, &clock);
        let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
        let (other, _) = queue.register(Path::new("/other"), &destination(), Policy::default());
        let stop = AtomicBool::new(false);
        let (begun, has_begun) = bounded(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0.. {
                    let changes: Vec<Change> =
                        (0..COMMIT_OPS_MAX * 3).map(|n| Change::write(path(&format!("{round}/{n}")))).collect();
                    queue.enqueue(&[target], &changes);
                    let _ = begun.try_send(());
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
            has_begun.recv().unwrap();
            for marked in [target, other] {
                let marker = path(&format!("marker of {}", marked.0));
                queue.enqueue(&[marked], &[Change::write(marker.clone())]);
                let flushed = queue.flush(SOON);
                let stored = store.contents().jobs.iter().any(|job| job.target == marked && job.path == marker);
                stop.store(!flushed || marked == other, Ordering::SeqCst);
                assert!(flushed, "returns");
                assert!(stored, "but not too early");
            }
        });
        assert!(queue.flush(SOON));
        assert_eq!(store.contents().jobs.len(), queue.stats(target).unwrap().counts.total() + 1);
    }

    #[test]
    fn a_target_in_trouble_burns_no_attempts_and_is_probed_by_one_job() {
        let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let queue = open(&store, &clock);
        let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
        let changes: Vec<Change> = (0..50).map(|n| Change::write(path(&format!("f{n}")))).collect();
        queue.enqueue(&[target], &changes);
        let trouble = TargetTrouble {
            class: TroubleClass::Unavailable,
            code: Some(10),
            message: "connection refused".into(),
            hint: None,
            command: None,
        };
        let down = || BatchResult { trouble: Some(trouble.clone()), ..BatchResult::default() };
        let batch = queue.claim(target, Lane::Small).unwrap();
        assert_eq!(batch.jobs.len(), 50);
        assert!(matches!(queue.finish(&batch, down()), Some(TargetEvent::Trouble { .. })));
        assert!(queue.claim(target, Lane::Small).is_none());
        let due = queue.next_due(&[target]).expect("a probe is due");
        clock.advance(due.since(clock.now()));
        let probe = queue.claim(target, Lane::Small).unwrap();
        assert_eq!((probe.jobs.len(), probe.probe), (1, true));
        assert!(queue.claim(target, Lane::Small).is_none(), "one probe at a time");
        let verdicts = vec![(probe.jobs[0].path.clone(), Verdict::Done)];
        let up = BatchResult { verdicts, reached: true, ..BatchResult::default() };
        assert!(matches!(queue.finish(&probe, up), Some(TargetEvent::Recovered { .. })));
        let batch = queue.claim(target, Lane::Small).unwrap();
        assert_eq!(batch.jobs.len(), 49);
        assert!(queue.page(target, None, 100, |_| true).iter().all(|job| job.attempts == 0));
    }

    /// What the store holds, and what the queue notes, of roots and directories.
    mod checkpoints {
        use super::*;
        use crate::model::{BootId, RootId};
        use crate::store::Contents;

        const SRC: &str = "/src";

        struct World {
            store: MemoryStore,
            queue: Queue,
            target: TargetId,
        }

        impl World {
            fn new() -> Self {
                Self::on(MemoryStore::new())
            }

            fn on(store: MemoryStore) -> Self {
                let queue = open(&store, &Arc::new(SimulatedClock::new(Timestamp(1_000))));
                let (target, _) = queue.register(Path::new(SRC), &destination(), Policy::default());
                Self { store, queue, target }
            }

            fn checkpoint(&self, at: u64, directories: Vec<DirectoryChange>, complete: &[u64]) {
                let complete: Vec<_> = complete.iter().map(|fingerprint| (self.target, *fingerprint)).collect();
                self.queue.checkpoint(Path::new(SRC), moment(at), directories, &complete);
            }

            fn flushed(&self) -> Contents {
                assert!(self.queue.flush(SOON));
                self.store.contents()
            }

            /// Lets `commits` more commits succeed and waits until they have and the next has failed.
            fn fails_after(&self, commits: u64, change: impl FnOnce()) {
                assert!(self.queue.store_health().error.is_some() || self.queue.flush(SOON));
                let done = self.store.commits() + commits;
                self.store.fail_after(0);
                change();
                self.store.fail_after(commits);
                let begun = crate::clock::monotonic();
                while self.store.commits() < done || self.queue.store_health().error.is_none() {
                    assert!(begun.elapsed() < SOON, "{} of {done} commits", self.store.commits());
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert_eq!(self.store.commits(), done);
            }

            /// The watermark and the fingerprint that the store has.
            fn durable(&self) -> (Option<u64>, Option<u64>) {
                let contents = self.flushed();
                (contents.roots[0].watermark.map(|moment| moment.uptime_ms), contents.targets[0].complete_under)
            }

            /// Has the queue killed and opened again on what the store holds.
            fn crash(self) -> Self {
                let store = self.store.copy();
                std::mem::forget(self);
                Self::on(store)
            }

            fn remembered(&self) -> Vec<u64> {
                let taken = self.queue.take_directories(Path::new(SRC)).unwrap_or_default();
                taken.iter().map(|directory| directory.id.inode).collect()
            }
        }

        fn moment(at: u64) -> Moment {
            Moment { wall: Timestamp(at), boot: BootId([1; 16]), uptime_ms: at }
        }

        fn id(inode: u64) -> DirectoryId {
            DirectoryId { inode, born_ns: Some(5) }
        }

        fn put(inode: u64) -> DirectoryChange {
            DirectoryChange::Put { id: id(inode), parent: id(1), name: format!("d{inode}").into_bytes().into() }
        }

        #[test]
        fn a_checkpoint_is_there_after_a_crash_and_hands_its_directories_out_once() {
            let world = World::new();
            world.checkpoint(10, (2..5).map(put).collect(), &[99]);
            assert_eq!(world.durable(), (Some(10), Some(99)));
            let moved = DirectoryChange::Put { id: id(2), parent: id(3), name: (*b"moved").into() };
            world.checkpoint(20, vec![moved, DirectoryChange::Gone(id(4))], &[99]);
            assert_eq!(world.durable(), (Some(20), Some(99)));
            let world = world.crash();
            assert_eq!(world.queue.root_record(Path::new(SRC)).unwrap().watermark, Some(moment(20)));
            assert_eq!(world.queue.target_record(world.target).unwrap().complete_under, Some(99));
            let directories = world.queue.take_directories(Path::new(SRC)).unwrap();
            let places: Vec<_> = directories.iter().map(|d| (d.id.inode, d.parent.inode, d.name.as_slice())).collect();
            assert_eq!(places, [(2, 3, &b"moved"[..]), (3, 1, b"d3")]);
            assert_eq!(world.queue.take_directories(Path::new(SRC)), None);
        }

        #[test]
        fn the_mark_and_the_scheduled_run_are_kept() {
            let world = World::new();
            let unknown = Path::new("/nowhere");
            world.queue.set_root_mark(Path::new(SRC), id(1));
            world.queue.set_scheduled_run(Path::new(SRC), Timestamp(77));
            world.queue.set_root_mark(unknown, id(1));
            world.checkpoint(10, vec![], &[]);
            world.flushed();
            let world = world.crash();
            let root = world.queue.root_record(Path::new(SRC)).unwrap();
            assert_eq!(
                (root.mark, root.scheduled_run, root.watermark),
                (Some(id(1)), Some(Timestamp(77)), Some(moment(10)))
            );
            assert_eq!(world.queue.root_mark(Path::new(SRC)), Some(id(1)));
            assert_eq!(world.queue.root_record(unknown), None);
            world.flushed();
            let ops = world.store.ops();
            world.queue.set_root_mark(Path::new(SRC), id(1));
            world.flushed();
            assert_eq!(world.store.ops(), ops, "what the store has is not written again");
        }

        #[test]
        fn two_targets_share_a_root() {
            let world = World::new();
            let other = Destination::Local("/other mirror".into());
            let (second, new) = world.queue.register(Path::new(SRC), &other, Policy::default());
            let (third, _) = world.queue.register(Path::new("/src2"), &other, Policy::default());
            assert!(new && second != third);
            let contents = world.flushed();
            assert_eq!(contents.roots.iter().map(|root| root.id).collect::<Vec<_>>(), [RootId(1), RootId(2)]);
            assert_eq!(contents.targets.iter().map(|target| target.root.0).collect::<Vec<_>>(), [1, 1, 2]);
        }

        /// Up to here everything is mirrored, said a watermark whose directories had not been written: a directory that
        /// had been moved in was taken for a known one.
        #[test]
        fn a_watermark_is_never_durable_before_its_directories() {
            for commits in [0, 3] {
                let world = World::new();
                world.checkpoint(10, vec![put(2)], &[]);
                world.fails_after(commits, || {
                    world.checkpoint(20, (3..4_003).map(put).collect(), &[7]);
                });
                // A change of the root's record in between must not carry the watermark along.
                world.fails_after(1, || world.queue.set_root_mark(Path::new(SRC), id(1)));
                let contents = world.store.contents();
                let (root, target) = (&contents.roots[0], &contents.targets[0]);
                assert_eq!((root.mark, root.watermark), (Some(id(1)), Some(moment(10))), "after {commits} commits");
                assert_eq!(target.complete_under, None);
                assert!(contents.directories.len() < 4_001);
                world.store.heal();
                assert_eq!(world.durable(), (Some(20), Some(7)), "and all of it gets there at last");
                assert_eq!(world.store.contents().directories.len(), 4_001);
            }
        }

        #[test]
        fn jobs_do_not_wait_for_directories() {
            let world = World::new();
            world.fails_after(2, || {
                world.checkpoint(10, (2..50_002).map(put).collect(), &[]);
                world.queue.enqueue(&[world.target], &[Change::write(path("a"))]);
            });
            assert_eq!(world.store.contents().jobs.len(), 1);
        }

        /// It was not served meanwhile: configured again, it was taken for complete up to the watermark.
        #[test]
        fn a_target_that_a_checkpoint_does_not_name_is_no_longer_complete() {
            let world = World::new();
            world.checkpoint(10, Vec::new(), &[99]);
            assert_eq!(world.durable(), (Some(10), Some(99)));
            // Not even if that was about to be written.
            world.fails_after(0, || world.checkpoint(20, vec![put(2)], &[99]));
            world.checkpoint(30, Vec::new(), &[]);
            world.store.heal();
            assert_eq!(world.durable(), (Some(30), None));
            assert_eq!(world.crash().queue.target_record(TargetId(1)).unwrap().complete_under, None);
        }

        #[test]
        fn a_later_checkpoint_supersedes_the_watermark_of_one_that_still_waits() {
            let world = World::new();
            world.fails_after(0, || world.checkpoint(10, (2..1_502).map(put).collect(), &[1]));
            // One commit takes a thousand operations: all but the end of the first checkpoint.
            world.fails_after(1, || {
                world.checkpoint(20, vec![DirectoryChange::Gone(id(2)), put(9_000)], &[1]);
            });
            assert_eq!(world.store.contents().roots[0].watermark, None);
            world.store.heal();
            assert_eq!(world.durable(), (Some(20), Some(1)));
            let inodes: Vec<u64> = world.store.contents().directories.iter().map(|d| d.id.inode).collect();
            assert_eq!(inodes, (3..1_502).chain([9_000]).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_forgotten_is_gone_however_many_directories_there_are() {
            let world = World::new();
            world.checkpoint(10, (2..3_502).map(put).collect(), &[5]);
            world.flushed();
            world.queue.forget_watermark(Path::new(SRC));
            assert_eq!(world.queue.root_record(Path::new(SRC)).unwrap().watermark, None);
            // What comes after is not deleted along with it.
            world.checkpoint(20, vec![put(7)], &[6]);
            assert_eq!(world.durable(), (Some(20), Some(6)));
            assert_eq!(world.crash().remembered(), [7]);
        }

        #[test]
        fn forgetting_voids_a_checkpoint_that_still_waits() {
            let world = World::new();
            world.fails_after(1, || world.checkpoint(10, (2..1_502).map(put).collect(), &[5]));
            assert_eq!(world.store.contents().directories.len(), 1_000);
            world.queue.forget_watermark(Path::new(SRC));
            world.store.heal();
            assert_eq!(world.durable(), (None, None));
            assert!(world.store.contents().directories.is_empty());
        }

        /// A crash in the middle of a first checkpoint, or of forgetting one, leaves directories without a watermark. Taken
        /// for known later, they would hide what was moved in meanwhile.
        #[test]
        fn directories_without_a_watermark_are_not_handed_out_and_go_with_the_next_checkpoint() {
            let world = World::new();
            world.fails_after(2, || world.checkpoint(10, (2..3_002).map(put).collect(), &[5]));
            let world = world.crash();
            assert_eq!(world.store.contents().directories.len(), 2_000);
            assert!(world.remembered().is_empty());
            world.flushed();
            assert_eq!(world.store.contents().directories.len(), 2_000, "whoever only looks changes nothing");
            world.checkpoint(20, vec![put(8_000)], &[]);
            assert_eq!(world.durable(), (Some(20), None));
            assert_eq!(world.crash().remembered(), [8_000]);
        }

        /// Everything below has to be compared in full then, and the store has to get all that memory holds.
        #[test]
        fn a_store_that_was_lost_gets_everything_again_but_watermarks() {
            let world = World::new();
            world.queue.set_root_mark(Path::new(SRC), id(1));
            world.queue.enqueue(&[world.target], &[Change::write(path("a")), Change::write(path("b"))]);
            world.checkpoint(10, vec![put(2), put(3)], &[5]);
            let before = world.flushed();
            world.store.fail_after(0);
            // As much as is under way at that moment: a job that comes, one that ends, a checkpoint, one to be forgotten.
            let batch = world.queue.claim(world.target, Lane::Small).expect("jobs are ready");
            let verdicts = vec![(path("a"), Verdict::Done)];
            world.queue.finish(&batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
            world.queue.enqueue(&[world.target], &[Change::write(path("c"))]);
            world.checkpoint(20, vec![put(4)], &[]);
            world.store.lose();
            let lost = || world.queue.store_health().error.is_some_and(|error| error.contains("lost"));
            let begun = crate::clock::monotonic();
            while !lost() {
                assert!(begun.elapsed() < SOON, "the loss does not show");
                std::thread::sleep(Duration::from_millis(1));
            }
            let after = world.flushed();
            assert_eq!(after.roots, [RootRecord { watermark: None, ..before.roots[0].clone() }]);
            assert_eq!(after.targets, [TargetRecord { complete_under: None, ..before.targets[0].clone() }]);
            assert!(after.directories.is_empty());
            let paths: Vec<_> = after.jobs.iter().map(|job| job.path.to_string()).collect();
            assert_eq!(paths, ["b", "c"]);
            assert!(after.next_job_id >= before.next_job_id);
            assert_eq!(
                world.queue.root_record(Path::new(SRC)).unwrap().watermark,
                None,
                "so all of it has to be named"
            );
            world.checkpoint(30, vec![put(2), put(3)], &[6]);
            assert_eq!(world.durable(), (Some(30), Some(6)));
            assert_eq!(world.crash().remembered(), [2, 3]);
        }

        #[test]
        fn checkpoints_of_several_roots_do_not_touch_each_other() {
            let world = World::new();
            world.queue.register(Path::new("/src2"), &destination(), Policy::default());
            world.checkpoint(10, vec![put(2)], &[5]);
            world.queue.checkpoint(Path::new("/src2"), moment(11), vec![put(2), put(3)], &[]);
            world.queue.forget_watermark(Path::new(SRC));
            let contents = world.flushed();
            let watermarks: Vec<_> = contents.roots.iter().map(|root| root.watermark).collect();
            assert_eq!(watermarks, [None, Some(moment(11))]);
            let directories: Vec<_> = contents.directories.iter().map(|d| (d.root, d.id.inode)).collect();
            assert_eq!(directories, [(RootId(2), 2), (RootId(2), 3)]);
            world.queue.checkpoint(Path::new("/nowhere"), moment(1), vec![put(9)], &[(TargetId(44), 1)]);
            assert_eq!(world.flushed(), contents);
        }
    }
}
