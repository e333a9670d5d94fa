//! The durable job queue: one job per target and path, added by changes, removed only by a confirmed run or
//! an operator.
//!
//! Theory of operation. All jobs are in memory, in one `TargetQueue` per target; the store holds a copy of each that
//! survives the process. [`Queue::enqueue`] and [`Queue::finish`] change memory and note what became dirty; one
//! committer thread turns what has gathered into a single atomic, durable batch, and so on without a pause, so that a
//! commit costs the more jobs the less each of them. Claiming does not wait for the disk: running a job early is
//! harmless. If the store fails, mirroring goes on from memory, the failure is shown, and the commit is tried again.
//!
//! Callers give changes and verdicts and take batches; each call is short and never waits for disk or network.
//! What the store remembers beside jobs is in `records`, what there is to show in `figures`, what operators do in `operator`.
//!
//! Invariant: the queue knows nothing of rsync, inotify or files.

mod batch_size;
mod breaker;
mod checkpoint;
mod committer;
mod figures;
mod operator;
mod records;
mod sent_log;
mod state;
mod target_queue;
mod throughput;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use parking_lot::{Condvar, Mutex};

pub use figures::{StoreHealth, TargetStats};
pub use operator::{Selected, Standing};
pub use target_queue::{BatchId, Counts, Policy, restored};

use breaker::Gate;
use checkpoint::Catalog;
use committer::Committer;
use state::{Shared, State};
use target_queue::TargetQueue;

use crate::clock::Clock;
use crate::model::{
    Change, ClaimedJob, CutOff, Destination, Found, JobId, Lane, Lingers, RelPath, TargetId, TargetTrouble, Timestamp,
    TroubleClass, Unvouched, Verdict,
};
use crate::store::{Contents, Store, StoreError};
use std::os::unix::ffi::OsStrExt;

/// A batch of jobs handed to the executor, which gives it back through [`Queue::finish`].
#[derive(Debug, Clone)]
pub struct Batch {
    pub id: BatchId,
    pub target: TargetId,
    pub lane: Lane,
    pub jobs: Vec<ClaimedJob>,
    /// Finds out whether a target in trouble is back.
    pub probe: bool,
    /// What nothing vouches for, of what the target holds.
    pub unvouched: Option<Unvouched>,
    started_at: Timestamp,
}

/// What came of a batch.
#[derive(Debug, Clone, Default)]
pub struct BatchResult {
    /// One for each of the batch's jobs; a job without one is released.
    pub verdicts: Vec<(RelPath, Verdict)>,
    /// Failures at paths that no job of the batch named: below a subtree.
    pub found: Vec<Found>,
    /// Why the target could not be used, if so.
    pub trouble: Option<TargetTrouble>,
    /// The target answered and took work, so it is not in trouble.
    pub reached: bool,
    /// Paths that are done and where nothing had to be sent.
    pub equal: BTreeSet<RelPath>,
    /// Whether what a run that was cut off has left may arrive after these. What was repeated for its sake then has to be so
    /// again.
    pub lingers: Lingers,
    /// What became of the connections of runs of it that were cut off and begun again.
    pub cut: CutOff,
}

/// What [`Queue::finish`] has to say to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetEvent {
    /// The target is in trouble, or in another one than before. It is tried again at that time.
    Trouble { trouble: TargetTrouble, probe_at: Timestamp },
    /// The target is back after this long.
    Recovered { class: TroubleClass, after: Duration },
}

/// See the module's documentation.
pub struct Queue {
    shared: Arc<Shared>,
    work: Receiver<()>,
    distrusted: Receiver<()>,
    committer: Mutex<Option<Committer>>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// Takes over what the store holds and starts the committer. Returns also how many records were damaged: if any,
    /// the trees have to be compared in full.
    pub fn open(mut store: Box<dyn Store>, clock: Arc<dyn Clock>) -> Result<(Self, u64), StoreError> {
        let Contents { roots, targets: records, directories, jobs, next_job_id, damaged_records } = store.load()?;
        let mut targets: BTreeMap<TargetId, TargetQueue> =
            records.iter().map(|record| (record.id, TargetQueue::known(record))).collect();
        let next_job_id = jobs.iter().map(|job| job.id.0 + 1).max().unwrap_or(1).max(next_job_id);
        for job in jobs {
            targets.entry(job.target).or_insert_with(|| TargetQueue::new(job.target)).load(job);
        }
        let (wake, work) = bounded(1);
        let (distrust, distrusted) = bounded(1);
        let state = State {
            targets,
            new_targets: BTreeSet::new(),
            catalog: Catalog::new(roots, records, directories),
            next_job_id,
            stored_job_id: next_job_id,
            next_batch_id: 1,
            batches: HashMap::new(),
            store_error: None,
            store_stats: store.stats(),
            collapse_above: usize::MAX,
            pending_max: usize::MAX,
            notes: 0,
            notes_taken: 0,
            notes_durable: 0,
            cut_at: None,
            flushing: 0,
            store_tasks: Vec::new(),
            store_in_doubt: false,
            random: fastrand::Rng::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            dirty: Condvar::new(),
            hurry: Condvar::new(),
            committed: Condvar::new(),
            closing: AtomicBool::new(false),
            clock,
            wake,
            distrust,
            subscribers: Mutex::default(),
        });
        let committer = Committer::start(Arc::clone(&shared), store);
        Ok((Self { shared, work, distrusted, committer: Mutex::new(Some(committer)) }, damaged_records))
    }

    /// An earlier daemon has ended a moment ago: receivers of runs that it could not bring to their end may still write. What
    /// runs in the first seconds therefore runs twice; comparisons of whole trees only if `killed`.
    pub fn open_receiver_window(&self, killed: bool) {
        let now = self.shared.clock.now();
        self.shared.lock().targets.values_mut().for_each(|queue| queue.open_receiver_window(now, killed));
    }

    /// The number of the target that mirrors `root` to `destination`, and whether the store had not known it. From now
    /// on its jobs follow `policy`.
    pub fn register(&self, root: &Path, destination: &Destination, policy: Policy) -> (TargetId, bool) {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let (id, new) = state.catalog.register(root.as_os_str().as_bytes(), destination.to_string(), now);
        state.notes += u64::from(new);
        if new {
            state.new_targets.insert(id);
            self.shared.announce_distrust();
        }
        let queue = state.targets.entry(id).or_insert_with(|| TargetQueue::new(id));
        queue.policy = policy;
        queue.receives_here = matches!(destination, Destination::Local(_));
        self.shared.hurry_committer();
        (id, new)
    }

    /// From now on no more than `jobs` are held one by one, over all targets, but for those in flight. Above that, those
    /// of the target with the most become fewer that stand for whole directories.
    pub fn set_pending_max(&self, jobs: usize) {
        let mut state = self.shared.lock();
        state.pending_max = jobs;
        state.collapse_above = jobs;
        state.bound_backlog(self.shared.clock.now());
        self.shared.dirty.notify_all();
    }

    /// Notes for each of `targets` that each of `changes` may differ there.
    pub fn enqueue(&self, targets: &[TargetId], changes: &[Change]) {
        if !changes.is_empty() {
            self.enqueue_burst(targets, changes, false);
        }
    }

    /// The same for changes that came in a burst, which goes on if `more_follow`. Then the next batch may wait for them, a
    /// second at most, so that a flood is sent in few batches.
    pub fn enqueue_burst(&self, targets: &[TargetId], changes: &[Change], more_follow: bool) {
        if targets.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        for target in targets {
            let Some(queue) = state.targets.get_mut(target) else { continue };
            queue.expects_more = more_follow;
            for change in changes {
                queue.enqueue(change, now, || {
                    let id = JobId(state.next_job_id);
                    state.next_job_id += 1;
                    id
                });
            }
        }
        state.bound_backlog(now);
        self.shared.dirty.notify_all();
        self.shared.announce_work();
    }

    /// Hands out the oldest jobs that may run now in one batch, or nothing: then [`Self::next_due`] tells whether that is
    /// because a burst goes on.
    pub fn claim(&self, target: TargetId, lane: Lane) -> Option<Batch> {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let queue = state.targets.get_mut(&target).filter(|queue| !queue.paused)?;
        let gate = queue.breaker.gate(now);
        let jobs_max = match gate {
            Gate::Closed if lane == Lane::Small && queue.held_until(now).is_some() => return None,
            Gate::Closed => queue.batch_size.jobs(),
            Gate::Probe => 1,
            Gate::Open(_) => return None,
        };
        let jobs = queue.claim(lane, jobs_max, now);
        if jobs.is_empty() {
            return None;
        }
        let probe = gate == Gate::Probe;
        if probe {
            queue.breaker.probe_started();
        }
        let id = BatchId(state.next_batch_id);
        state.next_batch_id += 1;
        state.batches.insert(id, jobs.iter().map(|job| job.path.clone()).collect());
        let unvouched = state.catalog.target(target).and_then(|record| record.unvouched.clone());
        Some(Batch { id, target, lane, jobs, probe, unvouched, started_at: now })
    }

    /// Whether [`claim`](Self::claim) would hand out something.
    pub fn has_work(&self, target: TargetId, lane: Lane) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let Some(queue) = state.targets.get_mut(&target).filter(|queue| !queue.paused) else { return false };
        let is_open = match queue.breaker.gate(now) {
            Gate::Closed => lane != Lane::Small || queue.held_until(now).is_none(),
            Gate::Probe => true,
            Gate::Open(_) => false,
        };
        is_open && queue.has_claimable(lane, now)
    }

    /// Whether jobs of the target are ready, be it that others exclude them for now.
    pub fn has_ready(&self, target: TargetId) -> bool {
        let state = self.shared.lock();
        state
            .targets
            .get(&target)
            .is_some_and(|queue| [Lane::Small, Lane::Large].iter().any(|&lane| queue.ready_len(lane) > 0))
    }

    /// Takes a batch back. Jobs of it that have no verdict are released.
    pub fn finish(&self, batch: &Batch, result: BatchResult) -> Option<TargetEvent> {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let mut unsettled = state.batches.remove(&batch.id)?;
        let queue = state.targets.get_mut(&batch.target)?;
        let took = now.since(batch.started_at);
        if batch.lane == Lane::Small {
            match result.trouble {
                Some(_) => queue.batch_size.failed(),
                None if result.reached => queue.batch_size.note(batch.jobs.len(), took),
                None => {}
            }
        }
        let mut verdicts: HashMap<RelPath, Verdict> = result.verdicts.into_iter().collect();
        let is_cut = result.trouble.as_ref().is_some_and(|trouble| trouble.class == TroubleClass::Unavailable);
        if result.lingers == Lingers::Surely {
            queue.extend_receiver_window(now);
        }
        // In the order of the claim, so that released jobs keep theirs.
        for path in unsettled.drain(..) {
            let verdict = verdicts.remove(&path).unwrap_or(Verdict::Released);
            let is_unsent = is_cut && verdict == Verdict::Released;
            match result.cut {
                CutOff::No if is_unsent => queue.note_cut(&path, now),
                CutOff::No => {}
                CutOff::Closed if !is_unsent => queue.doubt(&path, now),
                CutOff::Closed | CutOff::Open => queue.note_cut(&path, now),
            }
            if result.lingers > Lingers::No {
                queue.note_lingering(&path);
            }
            if result.equal.contains(&path) {
                queue.note_equal(&path);
            }
            queue.finish(&path, verdict, took, now, state.random.f64());
        }
        let has_found = !result.found.is_empty();
        for found in result.found {
            let chance = state.random.f64();
            queue.add_failure(found, now, chance, || {
                let id = JobId(state.next_job_id);
                state.next_job_id += 1;
                id
            });
        }
        if has_found {
            // Not written after the deletion of the job that found it: that may be in line for longer.
            queue.release_dirty();
        }
        let event = if let Some(trouble) = result.trouble {
            let chance = state.random.f64();
            let news = queue.breaker.trip(trouble.clone(), batch.probe, now, chance);
            self.shared.hurry_committer();
            queue.breaker.probe_at().filter(|_| news).map(|probe_at| TargetEvent::Trouble { trouble, probe_at })
        } else if result.reached {
            queue.breaker.close(now).map(|(class, after)| TargetEvent::Recovered { class, after })
        } else {
            if batch.probe {
                queue.breaker.probe_void();
            }
            None
        };
        state.bound_backlog(now);
        self.shared.dirty.notify_all();
        self.shared.announce_work();
        event
    }

    /// Lets targets in trouble be tried now: their reason may have gone (the source is back).
    pub fn probe_now(&self, targets: &[TargetId]) {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        for target in targets {
            if let Some(queue) = state.targets.get_mut(target) {
                queue.breaker.probe_now(now);
            }
        }
        self.shared.announce_work();
    }

    /// Receives a token whenever there may be new work. One token may stand for many changes.
    pub fn work(&self) -> &Receiver<()> {
        &self.work
    }

    /// Receives a token after jobs have come, gone or changed, so that whoever shows them can sleep until then. One token may
    /// stand for many changes.
    pub fn subscribe(&self) -> Receiver<()> {
        let (subscriber, changed) = bounded(1);
        self.shared.subscribers.lock().push(subscriber);
        changed
    }

    /// Makes ready what has waited long enough, and tells when one of `targets` next has something to do that no token
    /// announces: a wait ends, or a probe is due. To be asked before claiming, so that nothing is missed in between.
    pub fn next_due(&self, targets: &[TargetId]) -> Option<Timestamp> {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let mut next = None;
        for target in targets {
            let Some(queue) = state.targets.get_mut(target) else { continue };
            queue.promote(now);
            let next_job_id = &mut state.next_job_id;
            queue.raise_doubts(now, || {
                let id = JobId(*next_job_id);
                *next_job_id += 1;
                id
            });
            if queue.paused {
                continue;
            }
            let due = match queue.breaker.gate(now) {
                Gate::Closed => [queue.next_due(), queue.held_until(now)].into_iter().flatten().min(),
                Gate::Probe => queue.next_due(),
                Gate::Open(at) => at,
            };
            next = [next, due].into_iter().flatten().min();
        }
        next
    }

    /// The time by which jobs are due.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Has it looked at once whether the store is still what and where it was. That happens from time to time by itself.
    pub fn doubt_store(&self) {
        self.shared.lock().store_in_doubt = true;
        self.shared.hurry_committer();
    }

    /// Waits until everything noted before the call is on disk, at most `timeout`. Returns whether it is. What is noted
    /// meanwhile is not waited for.
    pub fn flush(&self, timeout: Duration) -> bool {
        let mut state = self.shared.lock();
        let mark = state.mark();
        state.flushing += 1;
        self.shared.hurry_committer();
        let waits = |state: &mut State| !state.is_durable(&mark) && !self.shared.closing.load(Ordering::SeqCst);
        self.shared.committed.wait_while_for(&mut state, waits, timeout);
        state.flushing = state.flushing.saturating_sub(1);
        state.is_durable(&mark)
    }

    /// Commits what is dirty, ends the committer and gives up the store. May be called twice.
    pub fn close(&self, timeout: Duration) {
        let committer = self.committer.lock().take();
        let Some(committer) = committer else { return };
        self.flush(timeout);
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.hurry_committer();
        self.shared.committed.notify_all();
        committer.join();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close(Duration::from_secs(5));
    }
}

#[cfg(test)]
mod tests;
