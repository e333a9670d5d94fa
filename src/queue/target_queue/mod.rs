//! All jobs of one target: which are ready in which order, which wait, which run, and which exclude each other.
//!
//! Pure: time, chance and job ids are parameters. Paths that the store has to be told of are noted in a line of dirty
//! paths, which the committer empties. There is one job per path, so a thousand writes to a file are one job.
//!
//! The rules for jobs that run together are applied when a job is claimed:
//! 1. Two jobs of one path never run together.
//! 2. No job runs while a job below its path is in flight. Either run may delete what the other one sends, or replace a
//!    directory by a link through which the other one would write. The comparison of the whole tree is excepted, since it
//!    would never find a moment. Nothing deletes the root, and rule 4 repairs the rest. The comparison waits only for
//!    other subtrees and for jobs whose content was moved; such jobs do not overtake it.
//! 3. No job runs below an `Entry` or `Children` job in flight. The upper job may send a link in the place of a directory
//!    that the lower job has seen, and a `Children` run deletes what it did not see at its level. An `Entry` job of the
//!    root is no obstacle, since the root remains a directory.
//! 4. Any job but a `Subtree` job may run below a `Subtree` job in flight, since such a run can take hours. The subtree's
//!    rsync may have listed the tree before the change and may undo it. So a job that was in flight beside the subtree's
//!    run is run once more after it ([`PendingJob::reruns_after_subtree`], [`PendingJob::subtree_ended_meanwhile`]).
//! 5. A `Subtree` job never runs inside another one in flight.
//!
//! The receiver of a run that was cut off may still write. So two kinds of jobs are kept when they are done and run once
//! more ([`Wait::ReceiverMayWrite`]): a job whose run was cut off, and any job that runs in the first moments after an
//! earlier daemon.
//!
//! A directory that comes into being (`Change::fresh`) becomes a `Subtree` job if work for its name, or for anything
//! below, is pending or running. An older run may still delete what the new one has sent. The subtree job has to wait for
//! the older run by rule 1 or 2, and repairs the damage. For this reason a fresh directory is not left to a subtree job
//! above it either, except to a sweep.
//!
//! Content that was moved within the tree is sent before its old name is deleted, in one batch with that deletion
//! ([`renames`]).
//!
//! Jobs at several names of one file go in one batch where the target is to have them as names of one file ([`names`]).
//!
//! A *sweep* is a `Subtree` job of origin `Write` or above: writes below its path count as well. A sweep waits for all
//! that is in flight below it, even a sweep of the whole tree: the exception in rule 2 does not hold for sweeps. So a
//! sweep can take over everything that is to be done below it, and until it begins, no write below it becomes a job of
//! its own. Sweeps bound a backlog (`collapse`).

mod claim;
mod collapse;
mod dirty;
mod doubts;
mod enqueue;
mod figures;
mod finish;
mod hints;
mod names;
mod operator;
mod pending_job;
mod renames;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use self::dirty::DirtyPaths;
use self::doubts::Doubts;
use self::hints::{Names, Renames};
pub use self::operator::Selected;
use self::pending_job::{PendingJob, State, Wait};
use super::batch_size::BatchSize;
use super::breaker::Breaker;
use super::sent_log::SentLog;
use super::throughput::Throughput;
use crate::model::{Backoff, Change, Job, JobId, JobState, Lane, RelPath, Scope, TargetId, Timestamp, below_range};
use crate::store::Op;

/// How jobs are retried and held back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    pub backoff: Backoff,
    /// Failures after which a job is a dead letter; 0 for never.
    pub attempts_max: u32,
    /// The shortest time between two runs of a path that changes again and again.
    pub hot_interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { backoff: Backoff::default(), attempts_max: 0, hot_interval: Duration::from_secs(1) }
    }
}

/// The number of one batch in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// Jobs by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub ready: usize,
    pub running: usize,
    pub waiting: usize,
    pub failed: usize,
}

impl Counts {
    pub fn total(&self) -> usize {
        self.ready + self.running + self.waiting + self.failed
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct TargetQueue {
    target: TargetId,
    pub(super) policy: Policy,
    /// The target is a directory of this machine. Its receivers are local processes and end with their runs, so data of a
    /// run that was cut off does not come late.
    pub(super) receives_here: bool,
    pub(super) breaker: Breaker,
    jobs: BTreeMap<RelPath, PendingJob>,
    ready: [BTreeMap<u64, RelPath>; 2],
    waiting: BTreeSet<(Timestamp, RelPath)>,
    in_flight: BTreeMap<RelPath, Scope>,
    in_flight_subtrees: usize,
    /// Jobs in flight whose content was moved from another path. Their run may begin below the target's root, where rsync
    /// follows whatever stands in the place of a directory.
    rooted: BTreeSet<RelPath>,
    failed: usize,
    sent: SentLog,
    dirty: DirtyPaths,
    next_seq: u64,
    /// Changes are numbered, so that a caller can wait for all changes before a moment.
    changes: u64,
    pub(super) throughput: Throughput,
    /// The size of batches of the small lane.
    pub(super) batch_size: BatchSize,
    /// A burst of changes goes on, as far as is known.
    pub(super) expects_more: bool,
    /// When a job was last done, since the start.
    pub(super) last_success: Option<Timestamp>,
    /// No jobs are handed out.
    pub(super) paused: bool,
    receiver_window: ReceiverWindow,
    doubts: Doubts,
    renames: Renames,
    names: Names,
    /// Paths whose run has ended, while somebody wants to know them.
    ended: Option<Vec<RelPath>>,
}

/// How long the receiver of a run that was cut off may go on writing. The receiver has to notice the end of its
/// connection, and does so only behind the data that the connection still holds.
const RECEIVER_PATIENCE: Duration = Duration::from_secs(5);

/// The time until which receivers of runs that nobody watches any more may still write, at any path.
#[derive(Debug, Clone, Copy, Default)]
struct ReceiverWindow {
    until: Timestamp,
    /// Comparisons of the whole tree are repeated as well, although they take long.
    whole_trees: bool,
}

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Small => 0,
        Lane::Large => 1,
    }
}

/// A stored job as a queue takes it over. A job that was settling when the daemon ended is ready, since no event will
/// come for it.
pub fn restored(job: Job) -> Job {
    let (state, due_at) = match job.state {
        JobState::Waiting if job.attempts > 0 => (JobState::Waiting, job.due_at),
        JobState::Ready | JobState::Running | JobState::Waiting => (JobState::Ready, Timestamp::ZERO),
        JobState::Failed => (JobState::Failed, Timestamp::ZERO),
    };
    Job { state, due_at, ..job }
}

impl TargetQueue {
    pub fn new(target: TargetId) -> Self {
        Self {
            target,
            policy: Policy::default(),
            receives_here: false,
            breaker: Breaker::default(),
            jobs: BTreeMap::new(),
            ready: [BTreeMap::new(), BTreeMap::new()],
            waiting: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            in_flight_subtrees: 0,
            rooted: BTreeSet::new(),
            failed: 0,
            sent: SentLog::default(),
            dirty: DirtyPaths::default(),
            next_seq: 0,
            changes: 0,
            throughput: Throughput::default(),
            batch_size: BatchSize::default(),
            expects_more: false,
            last_success: None,
            paused: false,
            receiver_window: ReceiverWindow::default(),
            doubts: Doubts::of(target),
            renames: Renames::default(),
            names: Names::default(),
            ended: None,
        }
    }

    /// Takes over a job from the store.
    pub fn load(&mut self, stored: Job) {
        let stored = restored(stored);
        let state = match stored.state {
            JobState::Ready | JobState::Running => State::Ready,
            JobState::Waiting => State::Waiting { due: stored.due_at, why: Wait::Backoff },
            JobState::Failed => State::Failed,
        };
        let job = PendingJob {
            id: stored.id,
            scope: stored.scope,
            origin: stored.origin,
            state: State::Ready,
            lane: Lane::Small,
            seq: 0,
            generation: stored.generation,
            first_change: 0,
            queued_at: stored.queued_at,
            changed_at: stored.changed_at,
            attempts: stored.attempts,
            looks: 0,
            last_error: stored.last_error.map(Box::new),
            newer: None,
            reruns_after_subtree: false,
            subtree_ended_meanwhile: false,
            was_cut_off: false,
            is_safety_rerun: false,
            lingered: 0,
            has_tree_come: false,
            checks: false,
            partial: stored.partial,
            equal: false,
            is_new: false,
            stored: true,
        };
        self.jobs.insert(stored.path.clone(), job);
        self.place(&stored.path, state);
    }

    /// Notes that an earlier daemon ended a moment before `now` and may have cut off runs. Jobs that run before the
    /// receivers of those runs must have noticed run once more. Comparisons of the whole tree do so only if
    /// `whole_trees`.
    pub fn open_receiver_window(&mut self, now: Timestamp, whole_trees: bool) {
        self.receiver_window = ReceiverWindow { until: now.after(RECEIVER_PATIENCE), whole_trees };
    }

    /// Notes that a receiver that was cut off is known not to have ended by `now`. Whatever has run until then may have
    /// to run again.
    pub fn extend_receiver_window(&mut self, now: Timestamp) {
        let until = self.receiver_window.until.max(now.after(RECEIVER_PATIENCE));
        self.receiver_window = ReceiverWindow { until, whole_trees: true };
    }

    /// How many paths wait to be sent once more because a receiver of a run that was cut off may have written late, and
    /// when the first of them is due. Looks at every waiting job.
    pub fn awaits_receivers(&self) -> Option<(usize, Timestamp)> {
        let is_one = |path: &RelPath| self.jobs.get(path).is_some_and(PendingJob::awaits_receiver);
        let mut jobs = self.waiting.iter().filter(|(_, path)| is_one(path));
        let first = jobs.next()?.0;
        Some((jobs.count() + 1, first))
    }

    fn range_below<'a>(&'a self, path: &RelPath) -> Box<dyn Iterator<Item = (&'a RelPath, &'a PendingJob)> + 'a> {
        if path.is_root() {
            return Box::new(self.jobs.iter().filter(|(path, _)| !path.is_root()));
        }
        let (start, end) = below_range(path);
        Box::new(self.jobs.range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()))))
    }

    /// Makes ready the jobs that have waited long enough.
    pub fn promote(&mut self, now: Timestamp) {
        self.renames.expire(now);
        while let Some((due, path)) = self.waiting.first()
            && *due <= now
        {
            let path = path.clone();
            self.unplace(&path);
            self.place(&path, State::Ready);
        }
    }

    /// Has paths looked at again to which data of a run that was cut off may have come since.
    pub fn raise_doubts(&mut self, now: Timestamp, mut next_id: impl FnMut() -> JobId) {
        for (path, scope) in self.doubts.take_due(now) {
            let change = match scope {
                Scope::Subtree => Change::scan(path, scope),
                Scope::Entry | Scope::Children => Change { scope, ..Change::write(path) },
            };
            let is_new = !self.jobs.contains_key(&change.path);
            // A pending job of this scope or a wider one looks at the path as well.
            if self.jobs.get(&change.path).is_some_and(|job| !job.is_running() && job.scope >= scope) {
                continue;
            }
            self.enqueue(&change, now, &mut next_id);
            if let Some(job) = self.jobs.get_mut(&change.path).filter(|_| is_new) {
                job.checks = true;
                // Ready at once, so that all doubts go in one batch, even those at paths that were sent often of late.
                self.unplace(&change.path);
                self.place(&change.path, State::Ready);
            }
        }
    }

    /// When the next wait ends: that of a job, of a doubt, or of something new under an old name.
    pub fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.waiting.first().map(|(due, _)| *due);
        [waiting, self.doubts.next_due(), self.renames.next_due()].into_iter().flatten().min()
    }

    /// Gives the job its state and a place in the order of that state. The job must stand in no order before.
    fn place(&mut self, path: &RelPath, state: State) {
        let Some(job) = self.jobs.get_mut(path) else { return };
        job.state = state;
        if job.scope == Scope::Subtree {
            job.lane = Lane::Large;
        }
        match state {
            State::Ready => {
                if job.seq == 0 {
                    self.next_seq += 1;
                    job.seq = self.next_seq;
                }
                if let Some(ready) = self.ready.get_mut(lane_index(job.lane)) {
                    ready.insert(job.seq, path.clone());
                }
            }
            State::Waiting { due, .. } => {
                job.seq = 0;
                self.waiting.insert((due, path.clone()));
            }
            State::Failed => {
                job.seq = 0;
                self.failed += 1;
            }
            State::Running { .. } => {}
        }
    }

    /// Takes the job out of the order of its state, before the job gets another state or goes.
    fn unplace(&mut self, path: &RelPath) {
        let Some(job) = self.jobs.get(path) else { return };
        match job.state {
            State::Ready => {
                if let Some(ready) = self.ready.get_mut(lane_index(job.lane)) {
                    ready.remove(&job.seq);
                }
            }
            State::Waiting { due, .. } => {
                self.waiting.remove(&(due, path.clone()));
            }
            State::Failed => self.failed = self.failed.saturating_sub(1),
            State::Running { .. } => {}
        }
    }

    fn remove(&mut self, path: &RelPath) {
        self.unplace(path);
        self.renames.forget(path);
        self.names.forget(path);
        if let Some(job) = self.jobs.remove(path) {
            if job.stored {
                self.dirty.note(path);
            } else {
                self.dirty.forget(path);
            }
        }
    }

    /// Appends what the store has to be told and is releasable to `ops`, until there are `ops_max` operations.
    /// [`TargetQueue::settle_dirty`] is told how their commit went.
    pub fn take_dirty(&mut self, ops_max: usize, ops: &mut Vec<Op>) {
        while ops.len() < ops_max
            && let Some(path) = self.dirty.take()
        {
            ops.push(match self.jobs.get_mut(&path) {
                Some(job) => {
                    job.stored = true;
                    Op::PutJob(job.to_job(self.target, &path))
                }
                None => Op::DeleteJob { target: self.target, path },
            });
        }
    }

    /// Has all jobs written again.
    pub fn all_dirty(&mut self) {
        self.jobs.keys().for_each(|path| self.dirty.note(path));
    }

    /// Notes that the operations taken last are durable, or have to be taken again.
    pub fn settle_dirty(&mut self, durable: bool) {
        if durable { self.dirty.committed() } else { self.dirty.restore() }
    }

    /// Lets the store be told of all that is dirty now.
    pub fn release_dirty(&mut self) {
        self.dirty.release_dirty();
    }

    /// Whether [`take_dirty`](Self::take_dirty) would hand over something.
    pub fn has_releasable(&self) -> bool {
        self.dirty.has_releasable()
    }

    /// Whether ready jobs are handed out, as far as is known: the target is neither paused nor in trouble.
    pub fn is_served(&self) -> bool {
        !self.paused && self.breaker.trouble().is_none()
    }

    /// A mark that covers all that the store has not been told of, or is being told.
    pub fn dirty_mark(&self) -> u64 {
        self.dirty.mark()
    }

    /// Whether the store has durably been told of all that `mark` stands for.
    pub fn is_durable(&self, mark: u64) -> bool {
        self.dirty.is_durable(mark)
    }

    /// Up to `limit` jobs in path order, from the first after `after`. For tests.
    #[cfg(test)]
    pub fn page(&self, after: Option<&RelPath>, limit: usize, wanted: impl Fn(JobState) -> bool) -> Vec<Job> {
        let start = after.map_or(Bound::Unbounded, |path| Bound::Excluded(path.as_bytes()));
        self.jobs
            .range::<[u8], _>((start, Bound::Unbounded))
            .map(|(path, job)| job.to_job(self.target, path))
            .filter(|job| wanted(job.state))
            .take(limit)
            .collect()
    }

    /// Whether every job stands in exactly the order that its state asks for. For tests.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        for (path, job) in &self.jobs {
            let in_ready = self.ready.iter().flat_map(|ready| ready.values()).filter(|p| *p == path).count();
            let in_waiting = self.waiting.iter().filter(|(_, p)| p == path).count();
            let expected = match job.state {
                State::Ready => (1, 0, false),
                State::Waiting { .. } => (0, 1, false),
                State::Failed => (0, 0, false),
                State::Running { .. } => (0, 0, true),
            };
            assert_eq!(
                (in_ready, in_waiting, self.in_flight.contains_key(path)),
                expected,
                "{path} is {:?}",
                job.state
            );
            assert!(job.stored || self.dirty.is_unsettled(path), "{path} is in no store");
        }
        let counts = self.counts();
        assert_eq!(counts.ready + counts.running + counts.waiting + counts.failed, self.jobs.len());
    }
}
