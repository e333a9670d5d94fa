//! The durable job queue: one job per target and path, added by changes, removed only by a confirmed run or
//! an operator.
//!
//! Theory of operation. All jobs are in memory, in one `TargetQueue` per target; the store holds a copy of each that
//! survives the process. [`Queue::enqueue`] and [`Queue::finish`] change memory and note which jobs became dirty. One
//! thread, the committer, commits whatever has become dirty as one atomic, durable batch, then starts the next. The more
//! jobs a commit holds, the less each of them costs. Claiming does not wait for the disk, since running a job early is
//! harmless. If the store fails, mirroring goes on from memory, the failure is shown, and the commit is tried again.
//!
//! Callers give changes and verdicts and take batches; each call is short and never waits for disk or network. Records of
//! roots and targets are in `records`, figures for display in `figures`, the deeds of operators in `operator`.
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
    /// The batch is a probe: it finds out whether a target in trouble is back.
    pub probe: bool,
    /// The part of the target's content that nothing vouches for, if any.
    pub unvouched: Option<Unvouched>,
    started_at: Timestamp,
}

/// The outcome of a batch, as the executor reports it.
#[derive(Debug, Clone, Default)]
pub struct BatchResult {
    /// One for each of the batch's jobs; a job without one is released.
    pub verdicts: Vec<(RelPath, Verdict)>,
    /// Failures at paths that no job of the batch named: below a subtree.
    pub found: Vec<Found>,
    /// Why the target could not be used, if so.
    pub trouble: Option<TargetTrouble>,
    /// The target answered and took work, so the target is not in trouble.
    pub reached: bool,
    /// Paths that are done and where nothing had to be sent.
    pub equal: BTreeSet<RelPath>,
    /// Whether data of a run that was cut off may still arrive after this batch. If so, jobs that were repeated because
    /// of that data have to be repeated once more.
    pub lingers: Lingers,
    /// Whether runs of the batch were cut off and begun again, and whether their old connections were closed by then.
    pub cut: CutOff,
}

/// News of a target that [`Queue::finish`] has for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetEvent {
    /// The target is in trouble, or its trouble has another reason than before. The target is tried again at `probe_at`.
    Trouble { trouble: TargetTrouble, probe_at: Timestamp },
    /// The target is back; the trouble lasted for `after`.
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
    /// Takes over what the store holds and starts the committer. Also returns how many records were damaged: if any, the
    /// trees have to be compared in full.
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

    /// Notes that an earlier daemon ended a moment ago, so receivers of its unfinished runs may still write. Jobs that
    /// run in the first seconds therefore run twice. Comparisons of whole trees do so only if that daemon was `killed`.
    pub fn open_receiver_window(&self, killed: bool) {
        let now = self.shared.clock.now();
        self.shared.lock().targets.values_mut().for_each(|queue| queue.open_receiver_window(now, killed));
    }

    /// Returns the number of the target that mirrors `root` to `destination`, and whether the target is new to the store.
    /// From now on the target's jobs follow `policy`.
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

    /// Bounds the jobs that are held one by one to `jobs`, over all targets and without those in flight. Above the bound,
    /// jobs of the target that has most of them become fewer jobs that stand for whole directories.
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

    /// Like [`enqueue`](Self::enqueue), for changes of a burst. If `more_follow`, the burst goes on, and the next batch
    /// may wait for the rest of it, a second at most, so that a flood is sent in few batches.
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

    /// Hands out the oldest jobs that may run now in one batch. `None` if no job may run, or if the batch waits for the
    /// rest of a burst: then [`Self::next_due`] returns when that wait ends.
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

    /// Whether [`claim`](Self::claim) would hand out a batch.
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

    /// Whether jobs of the target are ready, even if jobs in flight exclude them for now.
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
        // In the order of the claim, so that released jobs keep their order.
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
            // Release the found failures at once. The deletion of the job that found them may be released already: if it
            // were committed without them, a crash would lose them.
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

    /// Lets targets in trouble be tried now, since the reason of their trouble may have gone (the source is back).
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

    /// Makes jobs ready that have waited long enough, and returns when one of `targets` next has something to do that no
    /// token announces: a wait ends, or a probe is due. Call this before claiming, so that nothing is missed in between.
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

    /// Has the committer look at once whether the store is still the same and in the same place. The committer also does
    /// so from time to time by itself.
    pub fn doubt_store(&self) {
        self.shared.lock().store_in_doubt = true;
        self.shared.hurry_committer();
    }

    /// Waits until everything noted before the call is on disk, at most `timeout`, and returns whether all of it is.
    /// Changes that are noted during the wait are not waited for.
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
