//! What the callers' side of the queue and its committer share: the state of all targets under one lock, and the signs that
//! they give each other.
//!
//! Here is what a commit takes of that state and what its end changes there. When a commit is made is the `committer`'s
//! business, what a change or a verdict means that of the queue and of each `target_queue`.

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
    /// Those that were registered for the first time since the start, and not distrusted since.
    pub(super) new_targets: BTreeSet<TargetId>,
    pub(super) catalog: Catalog,
    pub(super) next_job_id: u64,
    pub(super) stored_job_id: u64,
    pub(super) next_batch_id: u64,
    pub(super) batches: HashMap<BatchId, Vec<RelPath>>,
    pub(super) store_error: Option<String>,
    pub(super) store_stats: StoreStats,
    /// Counts what was noted besides jobs; how much of it the commit under way holds, and how much is durable.
    pub(super) notes: u64,
    pub(super) notes_taken: u64,
    pub(super) notes_durable: u64,
    /// The target at which the last batch was full. The next one begins behind it.
    pub(super) cut_at: Option<TargetId>,
    pub(super) pending_max: usize,
    /// Above so many jobs some collapse: `pending_max`, except after a collapse that could not get below it.
    pub(super) collapse_above: usize,
    /// How many callers wait for the disk.
    pub(super) flushing: usize,
    pub(super) store_tasks: Vec<StoreTask>,
    /// Somebody has reason to think that the store is not where it was.
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

    /// The operations of the next commit. What concerns no job is few and always part of it. The targets take turns, so
    /// that none waits for another one's backlog to be written.
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
        // Jobs first: they are what must not be lost.
        self.catalog.take_steps(ops_max, &mut ops);
        if self.catalog.dirty_len() == 0 {
            self.notes_taken = self.notes;
        }
        // Jobs that are done before they are stored are no reason to write.
        if numbers && !ops.is_empty() {
            ops.push(Op::PutNextJobId(self.next_job_id));
        }
        ops
    }

    /// Whether nothing but jobs is to be written, and no target is down or paused, as far as is known, so that they are done
    /// rather than kept.
    pub(super) fn may_wait(&self) -> bool {
        self.catalog.dirty_len() == 0 && self.targets.values().all(TargetQueue::is_served)
    }

    /// Lets what is dirty now be part of the next commits.
    pub(super) fn release_dirty(&mut self) {
        self.targets.values_mut().for_each(TargetQueue::release_dirty);
    }

    /// Whether there is more for a commit right now.
    pub(super) fn has_releasable(&self) -> bool {
        self.catalog.dirty_len() > 0 || self.targets.values().any(TargetQueue::has_releasable)
    }

    /// The store has lost everything and gets all of it again.
    pub(super) fn store_lost(&mut self) {
        self.catalog.lost();
        self.targets.values_mut().for_each(TargetQueue::all_dirty);
        // Below every number that was ever given out.
        self.stored_job_id = 0;
    }

    /// Notes what came of a commit. After a failure everything in it is dirty again.
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
                // Jobs, and steps of checkpoints, have been seen to above.
                _ => {}
            }
        }
    }

    /// Keeps the number of jobs within bounds, at the cost of the target that has most of them.
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

    /// Stands for all that was noted up to now.
    pub(super) fn mark(&self) -> Mark {
        Mark { notes: self.notes, jobs: self.targets.iter().map(|(id, queue)| (*id, queue.dirty_mark())).collect() }
    }

    pub(super) fn is_durable(&self, mark: &Mark) -> bool {
        let jobs = |(id, mark): &(TargetId, u64)| self.targets.get(id).is_none_or(|queue| queue.is_durable(*mark));
        self.notes_durable >= mark.notes && mark.jobs.iter().all(jobs)
    }
}

/// What the callers' side and the committer share.
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
    /// Of those who want to know that something happened.
    pub(super) subscribers: Mutex<Vec<Sender<()>>>,
}

impl Shared {
    /// A panic elsewhere while the lock was held leaves state that is still sound: each change is completed before
    /// anything that could panic. Better to go on mirroring than to stop.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Ends the committer's pauses. What it is to do has to be noted before.
    pub(super) fn hurry_committer(&self) {
        self.dirty.notify_all();
        self.hurry.notify_all();
    }

    pub(super) fn announce_distrust(&self) {
        // Full means that a token is on its way.
        let _ = self.distrust.try_send(());
    }

    pub(super) fn announce_work(&self) {
        // Full means that a wake-up is already under way.
        let _ = self.wake.try_send(());
        self.subscribers
            .lock()
            .retain(|subscriber| !matches!(subscriber.try_send(()), Err(TrySendError::Disconnected(()))));
    }
}

/// A moment in the order in which things are to become durable.
pub(super) struct Mark {
    pub(super) notes: u64,
    pub(super) jobs: Vec<(TargetId, u64)>,
}

/// What an operator wants of the store.
pub(super) struct StoreTask {
    pub compact: bool,
    pub reply: Sender<Result<Census, String>>,
}

impl StoreTask {
    /// Only what leaves the store unusable is an error to the committer.
    pub(super) fn run(self, store: &mut dyn Store) -> Result<(), StoreError> {
        let compacted = if self.compact { store.compact() } else { Ok(()) };
        let (answer, result) = match compacted.and_then(|()| store.census()) {
            Ok(census) => (Ok(census), Ok(())),
            Err(failure @ StoreError::NotCompacted { .. }) => (Err(failure.to_string()), Ok(())),
            Err(failure) => (Err(failure.with_causes()), Err(failure)),
        };
        // Who asked may have gone.
        let _ = self.reply.send(answer);
        result
    }
}
