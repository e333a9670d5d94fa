//! Figures of targets, their jobs and the store at this moment, for whoever shows them.
//!
//! Deliberately absent: anything that changes a job.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::Queue;
use super::state::StoreTask;
use super::target_queue::{Counts, TargetQueue};
use crate::model::{Job, JobError, RelPath, TargetId, TargetTrouble, Timestamp, Unvouched};
use crate::store::{Census, StoreStats};

/// A target's figures.
#[derive(Debug, Clone)]
pub struct TargetStats {
    pub counts: Counts,
    /// When the oldest change that the target lacks was seen.
    pub oldest: Option<Timestamp>,
    pub trouble: Option<TargetTrouble>,
    pub trouble_since: Option<Timestamp>,
    /// Failures in a row for the present reason.
    pub trouble_failures: u32,
    /// When a target in trouble is tried again. `None` also while it is being tried, and if there is no job to try it
    /// with.
    pub retry_at: Option<Timestamp>,
    /// How many of the waiting jobs wait because they have failed.
    pub backing_off: usize,
    /// Since when an operator has the target paused.
    pub paused_since: Option<Timestamp>,
    /// A job that waits for an operator's approval of its deletions, with its error.
    pub refused: Option<(RelPath, JobError)>,
    /// Jobs done per second, over the last minute.
    pub jobs_per_s: f64,
    /// When a job was last done; `None` if none was since the daemon's start.
    pub last_success: Option<Timestamp>,
    /// A failing path and its error, if any.
    pub failing: Option<(RelPath, JobError)>,
    /// The part of the target's content that nothing vouches for, if any.
    pub unvouched: Option<Unvouched>,
    /// How many paths may still change on the target because a run was cut off, and when the first of them is looked at
    /// again.
    pub awaits_receivers: Option<(usize, Timestamp)>,
}

/// The store as an operator sees it.
#[derive(Debug, Clone, Default)]
pub struct StoreHealth {
    pub stats: StoreStats,
    /// Why the last commit failed, if it did. Until the store is repaired, new jobs are held in memory only.
    pub error: Option<String>,
    /// Records that wait to be written.
    pub uncommitted: usize,
}

impl Queue {
    /// Whether the target is not in trouble, as far as is known.
    pub fn is_well(&self, target: TargetId) -> bool {
        self.shared.lock().targets.get(&target).is_some_and(|queue| queue.breaker.trouble().is_none())
    }

    /// Whether the target is neither paused nor in trouble.
    pub fn is_open(&self, target: TargetId) -> bool {
        let is_well = |queue: &TargetQueue| !queue.paused && queue.breaker.trouble().is_none();
        self.shared.lock().targets.get(&target).is_some_and(is_well)
    }

    /// A target's figures. Looks at each of the target's jobs.
    pub fn stats(&self, target: TargetId) -> Option<TargetStats> {
        let mut state = self.shared.lock();
        let record = state.catalog.target(target).cloned();
        let (paused_since, unvouched) =
            record.map(|record| (record.paused_since, record.unvouched)).unwrap_or_default();
        let queue = state.targets.get_mut(&target)?;
        let now = self.shared.clock.now();
        queue.promote(now);
        Some(TargetStats {
            refused: queue.asks_for_approval(),
            jobs_per_s: queue.throughput.per_second(now),
            last_success: queue.last_success,
            paused_since,
            counts: queue.counts(),
            oldest: queue.oldest(),
            trouble: queue.breaker.trouble().cloned(),
            trouble_since: queue.breaker.history().map(|(since, _)| since),
            trouble_failures: queue.breaker.history().map_or(0, |(_, failures)| failures),
            retry_at: queue.retry_at(now),
            backing_off: queue.backing_off(),
            failing: queue.an_error(),
            unvouched,
            awaits_receivers: queue.awaits_receivers(),
        })
    }

    /// Whether the target is well and has a due job that will send the path.
    pub fn has_due_job_for(&self, target: TargetId, path: &RelPath) -> bool {
        self.shared.lock().targets.get(&target).is_some_and(|queue| queue.has_due_job_for(path))
    }

    /// Returns up to `limit` jobs of a target that have failed and are tried again or given up, in path order, and how
    /// many there are in all. Looks at each of the target's jobs.
    pub fn failing(&self, target: TargetId, limit: usize) -> (Vec<Job>, usize) {
        self.shared.lock().targets.get(&target).map(|queue| queue.failing(limit)).unwrap_or_default()
    }

    /// Up to `limit` jobs of a target in path order, after the path `after`.
    #[cfg(test)]
    pub fn page(
        &self,
        target: TargetId,
        after: Option<&RelPath>,
        limit: usize,
        wanted: impl Fn(crate::model::JobState) -> bool,
    ) -> Vec<Job> {
        let state = self.shared.lock();
        state.targets.get(&target).map(|queue| queue.page(after, limit, wanted)).unwrap_or_default()
    }

    pub fn store_health(&self) -> StoreHealth {
        let state = self.shared.lock();
        StoreHealth { stats: state.store_stats, error: state.store_error.clone(), uncommitted: state.dirty_len() }
    }

    /// Counts what the store holds, after compacting it if `compact`. Reads the whole store; commits wait meanwhile,
    /// mirroring does not. Waits at most `timeout`. `Err` says why there is no count.
    pub fn store_census(&self, compact: bool, timeout: Duration) -> Result<Census, String> {
        let (reply, answer) = bounded(1);
        if self.shared.closing.load(Ordering::SeqCst) {
            return Err("syncq is stopping".to_owned());
        }
        let mut state = self.shared.lock();
        state.store_tasks.push(StoreTask { compact, reply });
        drop(state);
        self.shared.hurry_committer();
        answer.recv_timeout(timeout).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err("it takes too long".to_owned()),
            RecvTimeoutError::Disconnected => Err("syncq is stopping".to_owned()),
        })
    }
}
