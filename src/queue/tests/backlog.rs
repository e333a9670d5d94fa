//! What becomes of a backlog that is too large: it collapses, and nothing is lost.

use proptest::prelude::*;

use super::*;
use crate::model::Generation;

impl Bench {
    fn collapse(&mut self) {
        let ids = &mut self.ids;
        self.queue.collapse(self.now, || {
            *ids += 1;
            JobId(*ids)
        });
        self.queue.check_invariants();
    }

    /// Path, scope and origin of each job.
    fn jobs(&self) -> Vec<(String, Scope, Origin)> {
        let all = self.queue.page(None, usize::MAX, |_| true);
        all.into_iter().map(|job| (job.path.to_string(), job.scope, job.origin)).collect()
    }

    fn paths(&self) -> Vec<String> {
        self.jobs().into_iter().map(|(path, ..)| path).collect()
    }
}

#[test]
fn the_fullest_of_the_smallest_directories_go_first() {
    let mut bench = Bench::new();
    for (dir, files) in [("a/full", 10), ("a/less", 4), ("b", 3), ("b-side/deep", 1)] {
        for n in 0..files {
            bench.write(&format!("{dir}/{n}"));
        }
    }
    bench.collapse();
    let left = ["a/full", "a/less/0", "a/less/1", "a/less/2", "a/less/3", "b-side/deep/0", "b/0", "b/1", "b/2"];
    assert_eq!(bench.paths(), left, "half of them would do, and one directory has more");
    bench.collapse();
    assert_eq!(bench.paths(), ["a/full", "a/less", "b", "b-side/deep/0"]);
    bench.collapse();
    assert_eq!(bench.paths(), ["."], "the root has two of them, more than a");
    assert_eq!(bench.jobs(), [(".".to_owned(), Scope::Subtree, Origin::Write)]);
}

#[test]
fn single_jobs_of_many_directories_count_for_the_directory_above() {
    let mut bench = Bench::new();
    for n in 0..20 {
        bench.write(&format!("mail/{n}/new/letter"));
    }
    bench.write("other");
    bench.collapse();
    assert_eq!(bench.paths(), ["mail", "other"]);
}

#[test]
fn a_sweep_takes_over_what_changes_below_until_it_begins() {
    let mut bench = Bench::new();
    for name in ["d/a", "d/b", "d/c"] {
        bench.write(name);
        bench.wait(1_000);
    }
    let since = bench.job("d/a").queued_at;
    bench.collapse();
    assert_eq!(bench.job("d").queued_at, since, "the age of the oldest");
    bench.write("d/e");
    bench.scan("d/a", Scope::Entry);
    bench.add(fresh_dir("d/new"));
    assert_eq!(bench.paths(), ["d"]);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.write("d/a");
    assert_eq!(bench.small(), ["d/a"], "it may have passed there already");
    bench.done("d");
    bench.done("d/a");
    assert_eq!(bench.small(), ["d/a"], "it may have undone that");
    bench.done("d/a");
    assert_eq!(bench.len(), 0);
}

#[test]
fn a_clock_that_was_set_back_makes_a_sweep_look_further_back() {
    let mut bench = Bench::new();
    bench.write("d/a");
    bench.write("d/b");
    bench.collapse();
    bench.now = Timestamp(bench.now.0 - 50_000);
    bench.write("d/c");
    assert_eq!(bench.job("d").queued_at, bench.now);
}

#[test]
fn jobs_in_flight_are_not_taken_over_and_their_sweep_waits_for_them() {
    for sweep in ["d", "."] {
        let mut bench = Bench::new();
        bench.write("d/a");
        assert_eq!(bench.small(), ["d/a"]);
        bench.write("d/a");
        for name in ["d/b", "d/c", if sweep == "d" { "d/d" } else { "e" }] {
            bench.write(name);
        }
        bench.collapse();
        if sweep == "." {
            bench.collapse();
        }
        assert_eq!(bench.paths(), [sweep, "d/a"]);
        assert!(bench.claim(Lane::Large).is_empty());
        bench.done("d/a");
        assert_eq!(bench.paths(), [sweep], "its newer change is swept as well");
        assert_eq!(bench.claim(Lane::Large), [sweep]);
    }
}

/// Whatever changes below a subtree in flight was a job, and stayed one until that run had ended.
#[test]
fn what_gathers_below_a_running_subtree_becomes_its_next_run() {
    let mut bench = Bench::new();
    bench.scan("", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["."]);
    for name in ["a", "b", "c"] {
        bench.write(name);
    }
    assert_eq!(bench.small().len(), 3);
    for name in ["a", "b", "c"] {
        bench.done(name);
    }
    assert_eq!(bench.len(), 4, "each runs once more");
    bench.collapse();
    bench.wait(5);
    bench.write("d");
    assert_eq!(bench.paths(), ["."]);
    bench.done("");
    assert_eq!(bench.jobs(), [(".".to_owned(), Scope::Subtree, Origin::Write)]);
    assert_eq!(bench.job("").queued_at, Timestamp(bench.now.0 - 5));
    assert_eq!(bench.claim(Lane::Large), ["."]);
    bench.done("");
    assert_eq!(bench.len(), 0);
}

#[test]
fn failures_stay_to_be_seen_while_there_is_room() {
    let mut bench = Bench::new();
    bench.write("d/bad");
    assert_eq!(bench.small(), ["d/bad"]);
    bench.failed("d/bad");
    for name in ["d/a", "d/b", "d/c"] {
        bench.write(name);
    }
    bench.collapse();
    assert_eq!(bench.paths(), ["d", "d/bad"]);
    assert!(bench.job("d/bad").last_error.is_some());
    bench.collapse();
    assert_eq!(bench.paths(), ["d"]);
    assert!(bench.job("d").last_error.is_some(), "one error is shown");
}

/// A failure that the sweep cannot repair would delay everything below it.
#[test]
fn a_sweep_that_failed_takes_nothing_over() {
    let mut bench = Bench::new();
    bench.write("d/a");
    bench.write("d/b");
    bench.collapse();
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.failed("d");
    bench.write("d/a");
    assert_eq!(bench.small(), ["d/a"]);
}

/// The tree in miniature. Directories are there or not; a file has a content, and how it looks to rsync's quick check.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    Dir,
    File { content: u64, looks: u64, changed: Timestamp },
}

type Tree = BTreeMap<String, Node>;

fn parent_of(p: &str) -> Option<&str> {
    p.rsplit_once('/').map(|(parent, _)| parent)
}

fn is_below(p: &str, dir: &str) -> bool {
    dir.is_empty() || p.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// A run: its job, and the source as it was when the run began. The run does all of its work when it ends, which is the
/// worst case.
struct Run {
    path: String,
    scope: Scope,
    origin: Origin,
    since: Timestamp,
    saw: Tree,
}

impl Run {
    fn finish(&self, mirror: &mut Tree) {
        let above: Vec<String> = path(&self.path).ancestors().filter(|p| !p.is_root()).map(|p| p.to_string()).collect();
        let topmost = above.iter().rev().find(|p| !self.saw.contains_key(*p)).unwrap_or(&self.path);
        if !topmost.is_empty() && !self.saw.contains_key(topmost) {
            mirror.retain(|p, _| p != topmost && !is_below(p, topmost));
            return;
        }
        mirror.extend(above.into_iter().map(|p| (p, Node::Dir)));
        let is_dir = self.path.is_empty() || self.saw.get(&self.path) == Some(&Node::Dir);
        let reaches = |p: &String| match self.scope {
            _ if *p == self.path => true,
            _ if !is_dir => false,
            Scope::Entry => false,
            Scope::Children => parent_of(p).unwrap_or_default() == self.path,
            Scope::Subtree => is_below(p, &self.path),
        };
        let extra = |p: &String| reaches(p) && !self.saw.contains_key(p);
        let gone: Vec<String> = mirror.keys().filter(|p| extra(p)).cloned().collect();
        mirror.retain(|p, _| !gone.iter().any(|gone| p == gone || is_below(p, gone)));
        for (p, node) in self.saw.iter().filter(|(p, _)| reaches(p)) {
            let same = match (*node, mirror.get(p).copied()) {
                (Node::File { looks, changed, .. }, Some(Node::File { looks: known, .. })) => {
                    let sees = self.origin == Origin::Write && (self.scope != Scope::Subtree || changed >= self.since);
                    looks == known && !sees
                }
                _ => false,
            };
            if !same {
                mirror.insert(p.clone(), *node);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    /// The flag says whether the file keeps the size and the time that it had before.
    Write(usize, bool),
    RemoveFile(usize),
    RemoveDir(usize),
    Reconcile(Origin),
    Claim(bool),
    Finish(u8, u8, bool),
    Wait(u16),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..FILES.len(), any::<bool>()).prop_map(|(n, stealthy)| Act::Write(n, stealthy)),
        2 => (0..FILES.len()).prop_map(Act::RemoveFile),
        1 => (0..DIRS.len()).prop_map(Act::RemoveDir),
        1 => prop_oneof![Just(Origin::Scan), Just(Origin::Reconcile)].prop_map(Act::Reconcile),
        5 => any::<bool>().prop_map(Act::Claim),
        5 => (any::<u8>(), 0u8..8, any::<bool>()).prop_map(|(which, how, works)| Act::Finish(which, how, works)),
        2 => (0u16..3_000).prop_map(Act::Wait),
        1 => Just(Act::Restart),
    ]
}

const DIRS: [&str; 4] = ["a", "a/b", "a/b/c", "d"];
const FILES: [&str; 9] = ["1", "a/1", "a/2", "a/b/1", "a/b/2", "a/b/c/1", "a/b/c/2", "d/1", "d/2"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_backlog_of_any_size_ends_in_equal_trees(cap in 1usize..8, acts in proptest::collection::vec(act(), 1..150)) {
        let mut bench = Bench::new();
        let (mut source, mut mirror) = (Tree::new(), Tree::new());
        let mut in_flight: Vec<Run> = Vec::new();
        let mut content = 0;
        let drain = (0..60).flat_map(|_| {
            let finish = || Act::Finish(0, 0, true);
            [Act::Wait(u16::MAX), Act::Claim(true), Act::Claim(false), finish(), finish(), finish(), finish()]
        });
        for act in acts.into_iter().chain(drain) {
            match act {
                Act::Write(n, stealthy) => {
                    let name = FILES[n];
                    let above: Vec<RelPath> = path(name).ancestors().filter(|p| !p.is_root()).collect();
                    for dir in above.iter().rev() {
                        if source.insert(dir.to_string(), Node::Dir).is_none() {
                            bench.add(fresh_dir(&dir.to_string()));
                        }
                    }
                    content += 1;
                    // A new file with the size and time of a removed one may come too, as from a backup.
                    let looks = if stealthy { n as u64 } else { 100 + content };
                    let looks = match source.get(name) {
                        Some(Node::File { looks, .. }) if stealthy => *looks,
                        _ => looks,
                    };
                    source.insert(name.into(), Node::File { content, looks, changed: bench.now });
                    bench.write(name);
                }
                Act::RemoveFile(n) => {
                    if source.remove(FILES[n]).is_some() {
                        bench.scan(FILES[n], Scope::Entry);
                    }
                }
                Act::RemoveDir(n) => {
                    if source.remove(DIRS[n]).is_some() {
                        source.retain(|p, _| !is_below(p, DIRS[n]));
                        bench.scan(DIRS[n], Scope::Entry);
                    }
                }
                Act::Reconcile(origin) => bench.add(Change { origin, ..Change::scan(RelPath::root(), Scope::Subtree) }),
                Act::Claim(small) => {
                    for job in bench.queue.claim(if small { Lane::Small } else { Lane::Large }, 3, bench.now) {
                        let path = if job.path.is_root() { String::new() } else { job.path.to_string() };
                        let (scope, origin, since) = (job.scope, job.origin, job.since);
                        in_flight.push(Run { path, scope, origin, since, saw: source.clone() });
                    }
                }
                Act::Finish(which, how, works) if !in_flight.is_empty() => {
                    let run = in_flight.remove(which as usize % in_flight.len());
                    let verdict = match how {
                        0..=3 => Verdict::Done,
                        4 => Verdict::Released,
                        5 => Verdict::Failed(JobError::new(None, "no")),
                        6 => Verdict::Large,
                        _ => Verdict::LookAgain(run.scope),
                    };
                    if works || verdict == Verdict::Done {
                        run.finish(&mut mirror);
                    }
                    bench.finish(&run.path, verdict);
                }
                Act::Finish(..) => {}
                Act::Wait(ms) => bench.wait(u64::from(ms)),
                Act::Restart => {
                    // Some runs in flight have done their work, the rest have not. Leftovers are ended before the next
                    // start.
                    in_flight.drain(..).step_by(2).for_each(|run| run.finish(&mut mirror));
                    let jobs = bench.queue.page(None, usize::MAX, |_| true);
                    bench.queue = TargetQueue::new(TargetId(1));
                    for job in jobs {
                        bench.queue.load(Job { generation: Generation::FIRST, ..job });
                    }
                }
            }
            let pending = |bench: &Bench| bench.queue.waiting_len();
            while bench.queue.waiting_len() > cap && pending(&bench) > 1 {
                let before = pending(&bench);
                bench.collapse();
                prop_assert!(pending(&bench) < before, "{before} pending jobs cannot be fewer");
            }
        }
        prop_assert_eq!(bench.jobs(), [], "the queue drains");
        prop_assert_eq!(source, mirror);
    }
}

/// Not a test: prints what a pending job costs. `cargo test --release -- --ignored --nocapture memory_per`
#[test]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "its result")]
fn memory_per_pending_job() {
    let resident_kb = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    for jobs in [200_000u64, 1_000_000] {
        let before = resident_kb();
        let mut queue = TargetQueue::new(TargetId(1));
        for n in 0..jobs {
            let name = format!("site{}/section{:04}/some-typical-file-name-{:06}.html", n % 7, n / 1_000, n % 1_000);
            queue.enqueue(&Change::write(path(&name)), Timestamp(n), || JobId(n));
            if n % 1_000 == 999 {
                let mut ops = Vec::new();
                queue.release_dirty();
                queue.take_dirty(1_000, &mut ops);
                queue.settle_dirty(true);
            }
        }
        let bytes = (resident_kb() - before) * 1_024;
        let begun = crate::clock::monotonic();
        queue.oldest();
        let oldest = begun.elapsed();
        println!("{jobs} jobs: {} MB, {} bytes each; oldest() takes {oldest:?}", bytes >> 20, bytes / jobs);
        let begun = crate::clock::monotonic();
        queue.collapse(Timestamp(jobs), || JobId(jobs));
        println!("a collapse to {} takes {:?}", queue.waiting_len(), begun.elapsed());
    }
}
