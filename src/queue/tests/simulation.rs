//! A mirror in miniature: a tree that changes, a watcher that reports it late, the queue, the executor's plans, and rsyncs
//! that list and send step by step beside each other. Whatever the order, the target equals the source once the queue is
//! empty.
//!
//! The queue, `mirror`'s plan and `watch`'s gathering are the real ones. The watcher is the tracker's rules in short; an
//! rsync is what matters of it: it lists before it sends, reads what is there when it sends, takes files of equal size and
//! time for equal unless told otherwise, and deletes what it did not list, or what it was told by name. What lies in a
//! directory that is closed neither can look at. What a cut off one has underway may still
//! arrive seconds later, and minutes later if something between the two holds it.

mod batch;
mod rsync;
mod tree;
mod watcher;

use std::collections::VecDeque;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::mirror::parts::{Deletion, Entry, Run, RunKind, plan};
use crate::mirror::{Limits, Presence};
use crate::model::{PARTIAL_DIR, partial_of};
use crate::watch::parts::{Gather, Presence as Reported};
use batch::Batch;
use rsync::{Received, Rsync, receive};
use tree::{Node, ROOT, Tree, rebased};
use watcher::{Event, Watcher};

const TIMES: Duration = Duration::from_millis(100);
const LIMITS: Limits = Limits { large_file_bytes: 8 << 20, bytes_max: 64 << 20 };
const PATIENCE: Duration = Duration::from_secs(5);
/// For so long something between both sides may hold what an rsync has sent.
const HELD: Duration = Duration::from_secs(150);

#[derive(Debug, Clone)]
enum Step {
    Write(u8),
    /// Without a change that the quick check sees.
    Rewrite(u8),
    Make(u8),
    Link(u8),
    Remove(u8),
    Rename(u8, u8),
    /// Only root may look into it for a while.
    Close(u8),
    Open(u8),
    /// Reads so many events.
    Read(u8),
    Reconcile,
    Collapse,
    Claim(bool),
    /// Lets one batch do so many things.
    Go(u8, u8),
    /// Lets so many things arrive that one batch has sent.
    Arrive(u8, u8),
    /// Ends one before its time.
    Cut(u8),
    /// Lets one thing arrive that was sent by one whose end came before its time.
    ArriveLate(u8),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0u8..PLACES.len() as u8;
    let step = prop_oneof![
        6 => at.clone().prop_map(Step::Write),
        1 => at.clone().prop_map(Step::Rewrite),
        5 => at.clone().prop_map(Step::Make),
        2 => at.clone().prop_map(Step::Link),
        3 => at.clone().prop_map(Step::Remove),
        4 => (at.clone(), at.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => at.clone().prop_map(Step::Close),
        2 => at.prop_map(Step::Open),
        8 => (1u8..6).prop_map(Step::Read),
        1 => Just(Step::Reconcile),
        1 => Just(Step::Collapse),
        8 => any::<bool>().prop_map(Step::Claim),
        24 => (any::<u8>(), 1u8..12).prop_map(|(which, steps)| Step::Go(which, steps)),
        1 => any::<u8>().prop_map(Step::Cut),
        12 => (any::<u8>(), 1u8..12).prop_map(|(which, count)| Step::Arrive(which, count)),
        1 => any::<u8>().prop_map(Step::ArriveLate),
        3 => (0u16..3_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Few, so that what happens meets.
const PLACES: [&str; 7] = ["a", "b", "a/a", "a/b", "b/a", "b/a/a", "a/a/b"];

/// What one has sent that was cut off.
struct Adrift {
    cut_at: Timestamp,
    until: Timestamp,
    sent: VecDeque<Received>,
}

struct World {
    bench: Bench,
    places: Vec<RelPath>,
    source: Tree,
    mirror: Tree,
    events: VecDeque<Event>,
    watcher: Watcher,
    batches: Vec<Batch>,
    /// What was sent by rsyncs that were cut off, and until when it may arrive.
    adrift: Vec<Adrift>,
    /// Something has arrived for which nobody waits any more, and looks to come have to find it.
    is_late: bool,
    next: u32,
    /// What the target's rsync lets itself be told.
    deletion: Deletion,
}

impl World {
    /// A watched tree of directories with a file each, of which the target has nothing yet.
    fn new(deletion: Deletion) -> Self {
        let watcher = Watcher { table: BTreeMap::from([(ROOT, RelPath::root())]), ..Watcher::default() };
        let mut world = Self {
            bench: Bench::new(),
            places: PLACES.map(path).to_vec(),
            source: Tree::default(),
            mirror: Tree::default(),
            events: VecDeque::new(),
            watcher,
            batches: Vec::new(),
            adrift: Vec::new(),
            is_late: false,
            next: ROOT,
            deletion,
        };
        for place in world.places.clone() {
            let number = world.number();
            let holds_others = world.places.iter().any(|other| place.is_ancestor_of(other));
            let node = if holds_others { Node::Dir(number) } else { Node::File { content: number, stamp: number } };
            if holds_others {
                world.watcher.table.insert(number, place.clone());
            }
            world.source.nodes.insert(place, node);
        }
        world.step(Step::Reconcile);
        world
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Tells the watcher of `path`, if the directory above it is watched.
    fn tell(&mut self, path: &RelPath, event: impl FnOnce(u32, Vec<u8>) -> Event) {
        let inode = self.source.inode(&path.parent().unwrap()).unwrap();
        if self.watcher.watches(inode) {
            self.events.push_back(event(inode, path.name().to_vec()));
        }
    }

    fn is_in_place(&self, path: &RelPath) -> bool {
        path.parent().is_some_and(|parent| self.source.is_dir(&parent))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(at) | Step::Rewrite(at) => {
                let (path, content) = (self.places[at as usize].clone(), self.number());
                let before = match self.source.nodes.get(&path) {
                    Some(Node::Dir(_) | Node::Link(_)) => return,
                    Some(Node::File { stamp, .. }) => Some(*stamp),
                    None => None,
                };
                if self.is_in_place(&path) {
                    let stamp = before.filter(|_| matches!(step, Step::Rewrite(_))).unwrap_or(content);
                    self.source.nodes.insert(path.clone(), Node::File { content, stamp });
                    self.tell(&path, Event::Written);
                }
            }
            Step::Make(at) => {
                let (path, inode) = (self.places[at as usize].clone(), self.number());
                if self.is_in_place(&path) && !self.source.nodes.contains_key(&path) {
                    self.source.nodes.insert(path.clone(), Node::Dir(inode));
                    self.tell(&path, Event::Made);
                }
            }
            Step::Link(at) => {
                let (path, to) = (self.places[at as usize].clone(), self.number());
                if self.is_in_place(&path) && !self.source.nodes.contains_key(&path) {
                    self.source.nodes.insert(path.clone(), Node::Link(to));
                    self.tell(&path, Event::Written);
                }
            }
            Step::Remove(at) => {
                let below = |path: &&RelPath| self.places[at as usize].covers(path);
                let all: Vec<RelPath> = self.source.nodes.keys().filter(below).cloned().collect();
                for path in all.into_iter().rev() {
                    let event = if self.source.is_dir(&path) { Event::DirGone } else { Event::FileGone };
                    self.tell(&path, event);
                    self.source.nodes.remove(&path);
                }
            }
            Step::Rename(from, to) => self.rename(from, to),
            Step::Close(at) => self.source.closed.extend(self.source.inode(&self.places[at as usize])),
            Step::Open(at) => {
                if let Some(inode) = self.source.inode(&self.places[at as usize]) {
                    self.source.closed.remove(&inode);
                }
            }
            Step::Read(count) => {
                let seen = self.source.seen();
                for _ in 0..count {
                    let Some(event) = self.events.pop_front() else { break };
                    self.watcher.read(event, &seen, self.bench.now);
                }
                self.watcher.look_if_open(&seen);
                for change in self.watcher.gather.take() {
                    self.bench.add(change);
                }
                if self.events.is_empty() {
                    self.watcher.expire(self.bench.now);
                }
            }
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
                let (at, seen) = (which as usize % self.batches.len(), self.source.seen());
                for _ in 0..count {
                    let has_ended = self.batches[at].step(&seen, &mut self.mirror);
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
                    // What was cut off below a directory may hold paths that nobody has a doubt about.
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
            Step::Wait(ms) => self.bench.wait(u64::from(ms)),
        }
        self.excuse();
        self.bench.queue.check_invariants();
        self.check_rest();
    }

    /// Lets one thing arrive of what one has sent that was cut off. Whether there was one.
    fn arrives_late(&mut self, at: usize) -> bool {
        let Adrift { cut_at, until, sent } = &mut self.adrift[at];
        let Some(received) = sent.pop_front().filter(|_| *until > self.bench.now) else { return false };
        self.is_late |= self.bench.now > cut_at.after(PATIENCE);
        receive(received, None, &mut self.mirror);
        true
    }

    /// Lets all arrive that was cut off, but for what a look at a whole tree, which goes by size and time, could not tell from
    /// what is there.
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

    /// Where nothing is left to be done, and nothing is on its way, a wait would be over.
    fn check_rest(&self) {
        let watcher = &self.watcher;
        let is_seen = self.events.is_empty() && watcher.gather.is_empty() && watcher.limbo.is_empty();
        let may_look = self.source.closed.is_empty() && watcher.closed.is_empty();
        if is_seen && may_look && !self.is_late && self.bench.len() == 0 {
            assert_eq!(self.mirror.shown(), self.source.shown(), "a wait was over too early");
        }
    }

    /// Notes which batches have run beside what no rule keeps from making a link of a directory.
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

    fn rename(&mut self, from: u8, to: u8) {
        let (from, to) = (self.places[from as usize].clone(), self.places[to as usize].clone());
        let Some(node) = self.source.nodes.get(&from).copied() else { return };
        if from.covers(&to) || to.covers(&from) || !self.is_in_place(&to) {
            return;
        }
        let is_dir = matches!(node, Node::Dir(_));
        let fits = match self.source.nodes.get(&to) {
            None => true,
            Some(Node::File { .. } | Node::Link(_)) => !is_dir,
            Some(Node::Dir(_)) => is_dir && self.source.children(&to).is_empty(),
        };
        if !fits {
            return;
        }
        let cookie = self.number();
        if is_dir {
            self.tell(&from, |dir, name| Event::MovedFrom(dir, name, cookie));
            self.tell(&to, |dir, name| Event::MovedTo(dir, name, cookie));
        } else {
            self.tell(&from, Event::FileGone);
            self.tell(&to, Event::Written);
        }
        self.source.rename(&from, &to);
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

/// `late`: how many times 20 s after the last step all arrives that was cut off and is still held.
fn end_equal(deletion: Deletion, steps: Vec<Step>, late: u8) -> Result<(), TestCaseError> {
    let mut world = World::new(deletion);
    steps.into_iter().for_each(|step| world.step(step));
    world.source.closed.clear();
    for round in 0..60 {
        world.step(Step::Wait(20_000));
        if round == late {
            world.all_arrives_late();
        }
        for step in [Step::Read(u8::MAX), Step::Claim(true), Step::Claim(false)] {
            world.step(step);
        }
        while !world.batches.is_empty() {
            world.step(Step::Go(0, u8::MAX));
        }
    }
    let left: Vec<Job> = world.bench.queue.page(None, usize::MAX, |_| true);
    prop_assert_eq!(left, [], "the queue drains");
    prop_assert_eq!(world.mirror.shown(), world.source.shown());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_trees_end_equal(steps in steps(), late in 0u8..8) {
        end_equal(Deletion::ByName, steps, late)?;
    }

    #[test]
    fn the_same_where_the_target_deletes_by_directory_alone(steps in steps(), late in 0u8..8) {
        end_equal(Deletion::ByLevel, steps, late)?;
    }
}
