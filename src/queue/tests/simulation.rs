//! A mirror in miniature: a tree that changes, the watcher that follows it, the queue, the executor's plans, and rsyncs
//! that list and send step by step beside each other. Whatever the order, the target equals the source once the queue is
//! empty.
//!
//! The watcher's tracker, the queue and `mirror`'s plan are the real ones. The tracker follows a simulated kernel
//! (`watch::simulated`). Its file system may change between any two questions of the tracker, its queue of events is
//! short, and it may refuse further watches. The watcher may end and begin again at any time.
//!
//! The simulated rsync has the properties that matter: it lists before it sends, reads a file when it sends the file,
//! takes files of equal size and time for equal unless told otherwise, and deletes paths that it did not list or that it
//! was told by name. Neither rsync nor the tracker can look into a closed directory. Data of an rsync that was cut off
//! may still arrive seconds later, and minutes later if something between both sides holds it.
//!
//! `PROPTEST_CASES=n` sets how many histories there are. `SYNCQ_SEED=n` plays the same histories again, if their number
//! is the same.
//!
//! Deliberately absent: what is mounted, which the executor has to hold back, and names of one file on the target.

#![expect(clippy::print_stdout, reason = "a failing test shows which seed it was")]

mod batch;
mod rsync;
mod tree;

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustix::io::Errno;

use super::*;
use crate::mirror::parts::{Deletion, Entry, Run, RunKind, plan};
use crate::mirror::{Limits, Presence};
use crate::model::{PARTIAL_DIR, partial_of};
use crate::watch::simulated::{self as disk, Disk, Operation, Turn, Turns};
use batch::Batch;
use rsync::{Received, Rsync, receive};
use tree::{Node, ROOT, Tree, rebased};

const LIMITS: Limits = Limits { large_file_bytes: 8 << 20, bytes_max: 64 << 20 };
const PATIENCE: Duration = Duration::from_secs(5);
/// How long something between both sides may hold data that an rsync has sent.
const HELD: Duration = Duration::from_secs(150);

#[derive(Debug, Clone)]
enum Step {
    /// Operations one after the other, before the tracker looks.
    Do(Vec<Operation>),
    /// An operation that takes place after this many further questions of the tracker.
    Meanwhile(u8, Operation),
    Turn(Turn),
    /// From now on this many directories can be watched.
    Limit(usize),
    /// The knowledge of the tree is stored.
    Checkpoint,
    /// The watcher ends and begins again.
    Restart,
    Reconcile,
    Collapse,
    Claim(bool),
    /// Lets one batch do this many steps.
    Go(u8, u8),
    /// Lets this many things arrive that one batch has sent.
    Arrive(u8, u8),
    /// Cuts one batch off.
    Cut(u8),
    /// Lets one thing arrive that was sent by a batch that was cut off.
    ArriveLate(u8),
    Wait(u16),
    /// Does all jobs that are ready. If the flag is set, the watcher does all that it can before.
    Drain(bool),
}

/// The conditions under which a history takes place.
#[derive(Debug, Clone)]
struct Terms {
    attrib: bool,
    modify: bool,
    create_file: bool,
    keeps_links: bool,
    dates_changes: bool,
    events_max: usize,
    /// The target equals the source when all begins.
    begins_equal: bool,
    /// Operations that take place while the tree is watched for the first time.
    first: Vec<(u8, Operation)>,
    /// Data that was cut off and is still held arrives this many times 20 s after the last step.
    late: u8,
}

fn place() -> impl Strategy<Value = RelPath> {
    (0..PLACES.len()).prop_map(|at| path(PLACES[at]))
}

fn operation() -> impl Strategy<Value = Operation> {
    let two = || (place(), place());
    let slot = 0u8..2;
    prop_oneof![
        6 => place().prop_map(Operation::Write),
        4 => place().prop_map(Operation::Rewrite),
        5 => place().prop_map(Operation::MakeDirectory),
        2 => place().prop_map(Operation::Symlink),
        2 => two().prop_map(|(from, to)| Operation::HardLink(from, to)),
        3 => place().prop_map(Operation::Remove),
        4 => two().prop_map(|(from, to)| Operation::Rename(from, to)),
        2 => two().prop_map(|(one, other)| Operation::Exchange(one, other)),
        1 => (place(), slot.clone()).prop_map(|(path, slot)| Operation::Leave(path, slot)),
        1 => (slot, place()).prop_map(|(slot, path)| Operation::Enter(slot, path)),
        2 => place().prop_map(Operation::Close),
        3 => place().prop_map(Operation::Open),
    ]
}

/// What programs do in one go: single deeds as a rule, or something else in the place of what is there, or a directory with
/// something in it.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let successors: Vec<fn(RelPath) -> Operation> =
        vec![Operation::Symlink, Operation::Write, Operation::MakeDirectory];
    let replaced = (place(), proptest::sample::select(successors))
        .prop_map(|(at, make)| vec![Operation::Remove(at.clone()), make(at)]);
    let filled = place().prop_map(|at| {
        let above: Vec<RelPath> = at.ancestors().filter(|above| !above.is_root()).collect();
        let directories = above.into_iter().rev().map(Operation::MakeDirectory);
        directories.chain([Operation::Write(at.clone())]).collect()
    });
    prop_oneof![16 => operation().prop_map(|one| vec![one]), 2 => replaced, 2 => filled]
}

/// A limit that is seldom in force.
fn limit(bound: std::ops::Range<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(usize::MAX), 1 => bound]
}

fn terms() -> impl Strategy<Value = Terms> {
    let switches = (any::<bool>(), proptest::bool::weighted(0.2), proptest::bool::weighted(0.2), any::<bool>());
    let first = proptest::collection::vec((0u8..6, operation()), 0..6);
    (switches, proptest::bool::weighted(0.8), any::<bool>(), limit(2..20), first, 0u8..8).prop_map(
        |((attrib, modify, create_file, keeps_links), dates_changes, begins_equal, events_max, first, late)| Terms {
            begins_equal,
            attrib,
            modify,
            create_file,
            keeps_links,
            dates_changes,
            events_max,
            first,
            late,
        },
    )
}

fn turn() -> impl Strategy<Value = Turn> {
    let (events, steps) = (prop_oneof![4 => 0usize..6, 1 => Just(usize::MAX)], 0usize..8);
    let (retries, hands_on) = (proptest::bool::weighted(0.1), proptest::bool::weighted(0.8));
    (events, steps, retries, hands_on).prop_map(|(events, steps, retries, hands_on)| Turn {
        events,
        steps,
        retries,
        hands_on,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        24 => operations().prop_map(Step::Do),
        6 => (0u8..6, operation()).prop_map(|(questions, operation)| Step::Meanwhile(questions, operation)),
        10 => turn().prop_map(Step::Turn),
        1 => limit(1..6).prop_map(Step::Limit),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::Reconcile),
        1 => Just(Step::Collapse),
        8 => any::<bool>().prop_map(Step::Claim),
        24 => (any::<u8>(), 1u8..12).prop_map(|(which, steps)| Step::Go(which, steps)),
        1 => any::<u8>().prop_map(Step::Cut),
        12 => (any::<u8>(), 1u8..12).prop_map(|(which, count)| Step::Arrive(which, count)),
        1 => any::<u8>().prop_map(Step::ArriveLate),
        3 => (0u16..3_000).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::Drain),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Few places, so that operations meet.
const PLACES: [&str; 7] = ["a", "b", "a/a", "a/b", "b/a", "b/a/a", "a/a/b"];

/// Data that a batch had sent when it was cut off.
struct Adrift {
    cut_at: Timestamp,
    until: Timestamp,
    sent: VecDeque<Received>,
}

struct World {
    bench: Bench,
    watcher: Turns,
    /// The source's tree as the superuser sees it, the same as others see it, and the disk's version of both.
    source: Tree,
    seen: Tree,
    version: u64,
    mirror: Tree,
    batches: Vec<Batch>,
    /// Data of rsyncs that were cut off, and until when it may arrive.
    adrift: Vec<Adrift>,
    /// Data has arrived for which nobody waits any more. Looks to come have to find it.
    is_late: bool,
    /// The way of deleting that the target's rsync understands.
    deletion: Deletion,
}

impl World {
    /// A watched tree of directories with a file each, of which the target has nothing yet.
    fn new(deletion: Deletion, terms: &Terms) -> Self {
        let bench = Bench::new();
        let mut disk = Disk::new(bench.now, terms.attrib);
        let places = PLACES.map(path);
        for place in &places {
            let holds_others = places.iter().any(|other| place.is_ancestor_of(other));
            let make = if holds_others { Operation::MakeDirectory } else { Operation::Write };
            assert!(disk.perform(&make(place.clone())));
        }
        disk.dates_changes = terms.dates_changes;
        disk.limit(usize::MAX, terms.events_max);
        let mut watcher = Turns::new(disk, |settings| {
            settings.keeps_links = terms.keeps_links;
            let events = &mut settings.events;
            (events.attrib, events.modify, events.create_file) = (terms.attrib, terms.modify, terms.create_file);
        });
        terms
            .first
            .iter()
            .for_each(|(questions, operation)| watcher.kernel().arm(u32::from(*questions), operation.clone()));
        let mut world = Self {
            bench,
            watcher,
            source: Tree::default(),
            seen: Tree::default(),
            version: u64::MAX,
            mirror: Tree::default(),
            batches: Vec::new(),
            adrift: Vec::new(),
            is_late: false,
            deletion,
        };
        world.step(Step::Reconcile);
        world.watch_all();
        world
    }

    /// Reads the source's tree anew, if the disk has changed.
    fn look(&mut self) {
        let disk = self.watcher.disk();
        if std::mem::replace(&mut self.version, disk.version) != disk.version {
            self.source = Tree::of(disk);
            self.seen = self.source.seen();
        }
    }

    /// Lets the watcher do all that there is to do.
    fn watch_all(&mut self) {
        self.step(Step::Turn(Turn::WHOLE));
        self.watcher.kernel().fire();
        while !self.watcher.is_reached() {
            self.step(Step::Wait(200));
            self.step(Step::Turn(Turn { retries: false, ..Turn::WHOLE }));
        }
    }

    fn step(&mut self, step: Step) {
        self.look();
        match step {
            Step::Do(operations) => {
                for operation in &operations {
                    self.watcher.perform(operation);
                }
            }
            Step::Meanwhile(questions, operation) => self.watcher.kernel().arm(u32::from(questions), operation),
            Step::Turn(turn) => {
                let changes = self.watcher.turn(turn);
                changes.into_iter().for_each(|change| self.bench.add(change));
            }
            Step::Limit(watches) => self.watcher.disk().limit_watches(watches),
            Step::Checkpoint => self.watcher.checkpoint(),
            Step::Restart => self.watcher.restart(),
            Step::Reconcile => {
                let whole = Change::scan(RelPath::root(), Scope::Subtree);
                self.bench.add(Change { origin: Origin::Reconcile, ..whole });
            }
            Step::Collapse => {
                let ids = &mut self.bench.ids;
                self.bench.queue.collapse(self.bench.now, || {
                    *ids += 1;
                    JobId(*ids)
                });
            }
            Step::Claim(is_small) => {
                self.bench.raise_doubts();
                let lane = if is_small { Lane::Small } else { Lane::Large };
                let jobs = self.bench.queue.claim(lane, 4, self.bench.now);
                if !jobs.is_empty() {
                    self.batches.push(Batch::new(jobs, lane, self.deletion));
                }
            }
            Step::Go(which, count) if !self.batches.is_empty() => {
                let at = which as usize % self.batches.len();
                for _ in 0..count {
                    let has_ended = self.batches[at].step(&self.seen, &mut self.mirror);
                    let batch = &self.batches[at];
                    assert!(!batch.astray || batch.is_excused, "wrote behind a link: {:?}", batch.jobs);
                    if has_ended {
                        let batch = self.batches.swap_remove(at);
                        self.finish(batch, false);
                        break;
                    }
                }
            }
            Step::Arrive(which, count) if !self.batches.is_empty() => {
                let at = which as usize % self.batches.len();
                let batch = &mut self.batches[at];
                if let Some(rsync) = &mut batch.current {
                    (0..count).for_each(|_| rsync.arrive(&mut self.mirror));
                    assert!(!rsync.astray || batch.is_excused, "wrote behind a link: {:?}", batch.jobs);
                }
            }
            Step::Cut(which) if !self.batches.is_empty() => {
                let mut batch = self.batches.swap_remove(which as usize % self.batches.len());
                if let Some(mut rsync) = batch.current.take() {
                    rsync.keep_partial(&mut self.mirror);
                    let sent = rsync.underway.into_iter().map(|(received, _)| received);
                    // Data that was cut off below a directory may be at paths for which there is no doubt.
                    let is_known = batch.jobs.iter().all(|job| job.scope == Scope::Entry);
                    let patience = if is_known { HELD } else { PATIENCE };
                    let (cut_at, until) = (self.bench.now, self.bench.now.after(patience));
                    self.adrift.push(Adrift { cut_at, until, sent: sent.collect() });
                }
                self.finish(batch, true);
            }
            Step::ArriveLate(which) if !self.adrift.is_empty() => {
                let at = which as usize % self.adrift.len();
                if !self.arrives_late(at) {
                    self.adrift.swap_remove(at);
                }
            }
            Step::Go(..) | Step::Arrive(..) | Step::Cut(_) | Step::ArriveLate(_) => {}
            Step::Drain(watches) => {
                if watches {
                    self.step(Step::Turn(Turn::WHOLE));
                }
                self.drain();
            }
            Step::Wait(ms) => {
                self.bench.wait(u64::from(ms));
                self.watcher.disk().now = self.bench.now;
            }
        }
        self.excuse();
        self.bench.queue.check_invariants();
        self.check_rest();
    }

    /// Lets one thing arrive that was sent by a batch that was cut off. Returns whether there was one.
    fn arrives_late(&mut self, at: usize) -> bool {
        let Adrift { cut_at, until, sent } = &mut self.adrift[at];
        let Some(received) = sent.pop_front().filter(|_| *until > self.bench.now) else { return false };
        self.is_late |= self.bench.now > cut_at.after(PATIENCE);
        receive(received, None, &mut self.mirror);
        true
    }

    /// Lets all arrive that was cut off, but for data that a comparison of the whole tree, which goes by size and time,
    /// could not tell from what is there.
    fn all_arrives_late(&mut self) {
        let source = &self.source.nodes;
        let is_told_apart = |received: &Received| match received {
            Received::Node(path, Node::File { stamp, .. }) => {
                !matches!(source.get(path), Some(Node::File { stamp: now, .. }) if now == stamp)
            }
            _ => true,
        };
        self.adrift.iter_mut().for_each(|one| one.sent.retain(is_told_apart));
        (0..self.adrift.len()).for_each(|at| while self.arrives_late(at) {});
    }

    /// Checks the trees where nothing is left to be done and nothing is on its way: a wait would be over then.
    fn check_rest(&mut self) {
        if !self.is_late && self.bench.len() == 0 && self.watcher.sees_all() && !self.watcher.disk().has_closed() {
            self.look();
            assert_eq!(self.mirror.shown(), self.source.shown(), "a wait was over too early");
        }
    }

    /// Notes which batches have run beside something that no rule keeps from making a link of a directory.
    fn excuse(&mut self) {
        let subtrees: Vec<Vec<RelPath>> = self.batches.iter().map(Batch::subtrees).collect();
        let is_adrift = self.adrift.iter().any(|one| one.until > self.bench.now && !one.sent.is_empty());
        for (at, batch) in self.batches.iter_mut().enumerate() {
            let others = || subtrees.iter().enumerate().filter(|(other, _)| *other != at);
            let is_beside_subtree = others().any(|(_, roots)| !roots.is_empty());
            let is_subtree = !batch.subtrees().is_empty() && others().next().is_some();
            batch.is_excused |= is_adrift || is_beside_subtree || is_subtree;
        }
    }

    /// Brings the batches under way to their end, and one more of each lane.
    fn drain(&mut self) {
        for step in [Step::Claim(true), Step::Claim(false)] {
            self.step(step);
        }
        while !self.batches.is_empty() {
            self.step(Step::Go(0, u8::MAX));
        }
    }

    /// Lets all be done that there is to do, in `rounds` turns.
    fn rest(&mut self, rounds: u8, late: u8) -> Result<(), TestCaseError> {
        for round in 0..rounds {
            self.step(Step::Wait(20_000));
            if round == late {
                self.all_arrives_late();
            }
            self.watch_all();
            self.drain();
        }
        let left: Vec<Job> = self.bench.queue.page(None, usize::MAX, |_| true);
        prop_assert_eq!(left, [], "the queue drains");
        self.look();
        prop_assert_eq!(self.mirror.shown(), self.source.shown());
        Ok(())
    }

    /// Writes into each directory, and to each file through its first name: all of it is watched.
    fn probe(&mut self) {
        let mut seen = BTreeSet::new();
        let found = self.watcher.disk().tree();
        let mut operations = vec![Operation::Write(path("probe"))];
        for (at, inode, found) in found {
            match found.node {
                disk::Node::Directory(_) => operations.push(Operation::Write(at.join(b"probe"))),
                disk::Node::File { .. } if seen.insert(inode) => operations.push(Operation::Rewrite(at)),
                disk::Node::File { .. } | disk::Node::Link(_) => {}
            }
        }
        self.step(Step::Do(operations));
    }

    fn finish(&mut self, batch: Batch, is_cut: bool) {
        for (job, verdict) in batch.jobs.iter().zip(batch.verdicts) {
            let verdict = verdict.unwrap_or(Verdict::Released);
            if is_cut && verdict == Verdict::Released {
                self.bench.queue.note_cut(&job.path, self.bench.now);
            }
            let took = Duration::from_millis(30);
            self.bench.queue.finish(&job.path, verdict, took, self.bench.now, 0.5);
        }
    }
}

fn end_equal(deletion: Deletion, terms: &Terms, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new(deletion, terms);
    if terms.begins_equal {
        world.watcher.disk().open_all();
        world.rest(8, u8::MAX)?;
    }
    steps.into_iter().for_each(|step| world.step(step));
    world.watcher.kernel().fire();
    world.watcher.disk().open_all();
    world.step(Step::Limit(usize::MAX));
    world.rest(60, terms.late)?;
    world.probe();
    world.rest(12, u8::MAX)
}

fn config() -> ProptestConfig {
    let seed = std::env::var("SYNCQ_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SYNCQ_SEED={seed}");
    let cases = 4 * ProptestConfig::default().cases;
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_trees_end_equal(terms in terms(), steps in steps()) {
        end_equal(Deletion::ByName, &terms, steps)?;
    }

    #[test]
    fn the_same_where_the_target_deletes_by_directory_alone(terms in terms(), steps in steps()) {
        end_equal(Deletion::ByLevel, &terms, steps)?;
    }
}
