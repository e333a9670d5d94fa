//! State that the queue's callers and its committer share: all targets under one lock, and the signals that the two sides
//! give each other.
//!
//! This file says what a commit takes of the state and how the end of a commit changes it. `committer` decides when a
//! commit is made. The queue and each `target_queue` decide what a change or a verdict means.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Sender, TrySendError};
use log::info;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::checkpoint::Catalog;
use super::target_queue::{BatchId, TargetQueue};
use crate::clock::Clock;
use crate::model::{JobId, RelPath, TargetId, Timestamp};
use crate::store::{Census, Op, Store, StoreError, StoreStats};

pub(super) struct State {
    pub(super) targets: BTreeMap<TargetId, TargetQueue>,
    /// Targets that were registered for the first time since the start and have not been distrusted since.
    pub(super) new_targets: BTreeSet<TargetId>,
    pub(super) catalog: Catalog,
    pub(super) next_job_id: u64,
    pub(super) stored_job_id: u64,
    pub(super) next_batch_id: u64,
    pub(super) batches: HashMap<BatchId, Vec<RelPath>>,
    pub(super) store_error: Option<String>,
    pub(super) store_stats: StoreStats,
    /// Notes besides jobs are counted: all of them, those in the commit under way, and those that are durable.
    pub(super) notes: u64,
    pub(super) notes_taken: u64,
    pub(super) notes_durable: u64,
    /// The target at which the last commit became full. The next commit begins behind that target.
    pub(super) cut_at: Option<TargetId>,
    pub(super) pending_max: usize,
    /// Above this many jobs some collapse. Equals `pending_max`, except after a collapse that could not get below it.
    pub(super) collapse_above: usize,
    /// How many callers wait for the disk.
    pub(super) flushing: usize,
    pub(super) store_tasks: Vec<StoreTask>,
    /// A caller has reason to think that the store is not where it was.
    pub(super) store_in_doubt: bool,
    pub(super) random: fastrand::Rng,
}

impl State {
    pub(super) fn dirty_len(&self) -> usize {
        self.catalog.dirty_len() + self.targets.values().map(TargetQueue::dirty_len).sum::<usize>()
    }

    /// Whether the store has been told of everything.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty_len() == 0 && self.notes_durable == self.notes
    }

    /// Takes the operations of the next commit, at most `ops_max`. Records of roots and targets are few and come first.
    /// The targets take turns, so that no target waits until another one's backlog is written.
    pub(super) fn take_dirty(&mut self, ops_max: usize) -> Vec<Op> {
        let mut ops: Vec<Op> = Vec::new();
        let numbers = self.next_job_id != self.stored_job_id;
        let ops_max = ops_max.saturating_sub(usize::from(numbers));
        self.catalog.take_records(ops_max, &mut ops);
        let behind = self.cut_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let order: Vec<TargetId> = self.targets.range((behind, Bound::Unbounded)).map(|(id, _)| *id).collect();
        let others: Vec<TargetId> = self.targets.keys().filter(|id| !order.contains(id)).copied().collect();
        for id in order.into_iter().chain(others) {
            let Some(queue) = self.targets.get_mut(&id) else { continue };
            queue.take_dirty(ops_max, &mut ops);
            if ops.len() >= ops_max {
                self.cut_at = Some(id);
                break;
            }
        }
        // Steps of checkpoints come after jobs, since jobs are what must not be lost.
        self.catalog.take_steps(ops_max, &mut ops);
        if self.catalog.dirty_len() == 0 {
            self.notes_taken = self.notes;
        }
        // A new job id alone is no reason to write: its job was done before it was stored.
        if numbers && !ops.is_empty() {
            ops.push(Op::PutNextJobId(self.next_job_id));
        }
        ops
    }

    /// Whether a commit may be put off: nothing but jobs is to be written, and no target is known to be down or paused.
    /// Then most jobs are done before they need to be stored.
    pub(super) fn may_wait(&self) -> bool {
        self.catalog.dirty_len() == 0 && self.targets.values().all(TargetQueue::is_served)
    }

    /// Lets the next commits take all that is dirty now.
    pub(super) fn release_dirty(&mut self) {
        self.targets.values_mut().for_each(TargetQueue::release_dirty);
    }

    /// Whether a commit would find something to take right now.
    pub(super) fn has_releasable(&self) -> bool {
        self.catalog.dirty_len() > 0 || self.targets.values().any(TargetQueue::has_releasable)
    }

    /// Has everything written again, to a store that has lost everything.
    pub(super) fn store_lost(&mut self) {
        self.catalog.lost();
        self.targets.values_mut().for_each(TargetQueue::all_dirty);
        // Below every job id that was ever given out, so that the next id is written again.
        self.stored_job_id = 0;
    }

    /// Settles the commit of `ops`. If it is not `durable`, everything in it is dirty again.
    pub(super) fn settle_commit(&mut self, ops: Vec<Op>, durable: bool) {
        for queue in self.targets.values_mut() {
            queue.settle_dirty(durable);
        }
        if durable {
            self.notes_durable = self.notes_taken;
            self.catalog.committed();
        } else {
            self.catalog.restore_steps();
        }
        for op in ops {
            match op {
                Op::PutNextJobId(id) if durable => self.stored_job_id = id,
                Op::PutRoot(record) if !durable => self.catalog.restore_root(record.id),
                Op::PutTarget(record) if !durable => self.catalog.restore_target(record.id),
                // Jobs and steps of checkpoints have been settled above.
                _ => {}
            }
        }
    }

    /// Keeps the number of jobs within bounds by collapsing jobs of the target that has most of them.
    pub(super) fn bound_backlog(&mut self, now: Timestamp) {
        let total =
            |targets: &BTreeMap<TargetId, TargetQueue>| targets.values().map(TargetQueue::waiting_len).sum::<usize>();
        if total(&self.targets) <= self.collapse_above {
            return;
        }
        let mut stuck: Vec<TargetId> = Vec::new();
        while total(&self.targets) > self.pending_max
            && let Some((id, queue)) = self
                .targets
                .iter_mut()
                .filter(|(id, _)| !stuck.contains(id))
                .max_by_key(|(_, queue)| queue.waiting_len())
        {
            let before = queue.waiting_len();
            queue.collapse(now, || {
                let id = JobId(self.next_job_id);
                self.next_job_id += 1;
                id
            });
            let after = queue.waiting_len();
            if after >= before {
                stuck.push(*id);
                continue;
            }
            let name = self.catalog.target(*id).map_or("a target", |target| target.destination.as_str());
            info!("{name}: {before} pending jobs became {after} that stand for directories (maxPending)");
        }
        let left = total(&self.targets);
        self.collapse_above = if left <= self.pending_max { self.pending_max } else { left + left / 2 };
    }

    /// A mark that covers all that was noted up to now.
    pub(super) fn mark(&self) -> Mark {
        Mark { notes: self.notes, jobs: self.targets.iter().map(|(id, queue)| (*id, queue.dirty_mark())).collect() }
    }

    pub(super) fn is_durable(&self, mark: &Mark) -> bool {
        let jobs = |(id, mark): &(TargetId, u64)| self.targets.get(id).is_none_or(|queue| queue.is_durable(*mark));
        self.notes_durable >= mark.notes && mark.jobs.iter().all(jobs)
    }
}

/// The state and the signals that callers and committer share.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Something became dirty, or somebody waits for the committer.
    pub(super) dirty: Condvar,
    /// Somebody waits for the committer.
    pub(super) hurry: Condvar,
    /// A commit ended.
    pub(super) committed: Condvar,
    pub(super) closing: AtomicBool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wake: Sender<()>,
    pub(super) distrust: Sender<()>,
    /// One sender for each receiver of [`Queue::subscribe`](super::Queue::subscribe).
    pub(super) subscribers: Mutex<Vec<Sender<()>>>,
}

impl Shared {
    /// Locks the state. A panic of a thread that held the lock leaves the state sound, since each change is completed
    /// before anything that could panic. To go on mirroring is better than to stop.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Ends a pause of the committer. Whatever the committer is to do has to be noted before this call.
    pub(super) fn hurry_committer(&self) {
        self.dirty.notify_all();
        self.hurry.notify_all();
    }

    pub(super) fn announce_distrust(&self) {
        // A full channel means that a token is already on its way.
        let _ = self.distrust.try_send(());
    }

    pub(super) fn announce_work(&self) {
        // A full channel means that a wake-up is already on its way.
        let _ = self.wake.try_send(());
        self.subscribers
            .lock()
            .retain(|subscriber| !matches!(subscriber.try_send(()), Err(TrySendError::Disconnected(()))));
    }
}

/// A moment in the order in which notes and jobs become durable.
pub(super) struct Mark {
    pub(super) notes: u64,
    pub(super) jobs: Vec<(TargetId, u64)>,
}

/// An operator's request to the store: to count what the store holds, after compacting it if `compact`.
pub(super) struct StoreTask {
    pub compact: bool,
    pub reply: Sender<Result<Census, String>>,
}

impl StoreTask {
    /// Runs the request. Only a failure that leaves the store unusable is an error to the committer.
    pub(super) fn run(self, store: &mut dyn Store) -> Result<(), StoreError> {
        let compacted = if self.compact { store.compact() } else { Ok(()) };
        let (answer, result) = match compacted.and_then(|()| store.census()) {
            Ok(census) => (Ok(census), Ok(())),
            Err(failure @ StoreError::NotCompacted { .. }) => (Err(failure.to_string()), Ok(())),
            Err(failure) => (Err(failure.with_causes()), Err(failure)),
        };
        // The operator who asked may have gone.
        let _ = self.reply.send(answer);
        result
    }
}
