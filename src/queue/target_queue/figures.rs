//! Figures of a target's jobs: how many, how old, which failed and why. Nothing here changes a job.
//!
//! Deliberately absent: whether the target itself is in trouble. Its breaker knows that.

use std::collections::BTreeMap;

use super::pending_job::{PendingJob, State, Wait};
use super::{Counts, TargetQueue, lane_index};
use crate::model::{Job, JobError, Lane, Origin, RelPath, Scope, Timestamp};
use crate::queue::breaker::Gate;

impl TargetQueue {
    /// Ready jobs of one lane, also those that jobs in flight exclude for now.
    pub fn ready_len(&self, lane: Lane) -> usize {
        self.ready.get(lane_index(lane)).map_or(0, BTreeMap::len)
    }

    /// Until when the next batch of the small lane should wait for the rest of a burst. `None` if it should not wait.
    pub fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        let oldest = self.ready.get(lane_index(Lane::Small)).and_then(|ready| ready.values().next());
        let begun = self.jobs.get(oldest.filter(|_| self.expects_more)?)?.queued_at;
        let until = begun.after(self.batch_size.hold(self.ready_len(Lane::Small)));
        // A job from the future shows that the clock was set back, not how long the job has waited.
        (begun <= now && now < until).then_some(until)
    }

    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// How many jobs are not in flight. Only these can be collapsed.
    pub fn waiting_len(&self) -> usize {
        self.ready.iter().map(BTreeMap::len).sum::<usize>() + self.waiting.len() + self.failed
    }

    pub fn counts(&self) -> Counts {
        Counts {
            ready: self.ready.iter().map(BTreeMap::len).sum(),
            running: self.in_flight.len(),
            waiting: self.waiting.len(),
            failed: self.failed,
        }
    }

    /// When the oldest change that is not on the target yet was seen. Looks at every job.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.jobs.values().map(PendingJob::oldest).min()
    }

    /// The error of the failing job that is tried next, or else of one that is given up, for a status line.
    pub fn an_error(&self) -> Option<(RelPath, JobError)> {
        let error = |path: &RelPath| Some((path.clone(), self.jobs.get(path)?.last_error.as_deref().cloned()?));
        let given_up = || {
            let is_given_up = |(_, job): &(&RelPath, &PendingJob)| job.state == State::Failed;
            (self.failed > 0).then(|| self.jobs.iter().find(is_given_up)).flatten()
        };
        self.waiting.iter().find_map(|(_, path)| error(path)).or_else(|| error(given_up()?.0))
    }

    /// How many jobs wait because they have failed.
    pub fn backing_off(&self) -> usize {
        let backs_off = |job: &PendingJob| matches!(job.state, State::Waiting { why: Wait::Backoff, .. });
        self.waiting.iter().filter(|(_, path)| self.jobs.get(path).is_some_and(backs_off)).count()
    }

    /// When a target in trouble is tried again. That takes a job that is ready by then; `None` if there is none.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        let probe_at = match self.breaker.gate(now) {
            Gate::Closed => None,
            Gate::Probe => Some(now),
            Gate::Open(at) => at,
        };
        let ready = self.ready.iter().any(|ready| !ready.is_empty());
        let due = if ready { Some(now) } else { self.waiting.first().map(|(due, _)| *due) };
        Some(probe_at?.max(due?))
    }

    /// Whether a job that is due covers the path and nothing keeps that job from running. A comparison of the whole tree
    /// does not count, since it may take hours.
    pub fn has_due_job_for(&self, path: &RelPath) -> bool {
        let is_due = |job: &PendingJob| matches!(job.state, State::Ready | State::Running { .. });
        let covers = |(above, job): (RelPath, &PendingJob)| {
            let reach = if path.parent().as_ref() == Some(&above) { Scope::Children } else { Scope::Subtree };
            job.scope >= reach && job.origin > Origin::Reconcile && is_due(job)
        };
        self.breaker.trouble().is_none()
            && (self.jobs.get(path).is_some_and(|job| is_due(job) && !job.reruns_after_subtree)
                || path.ancestors().filter_map(|above| Some((above.clone(), self.jobs.get(&above)?))).any(covers))
    }

    /// Up to `limit` jobs that wait after a failure or are given up, and how many there are.
    pub fn failing(&self, limit: usize) -> (Vec<Job>, usize) {
        let is_failing = |job: &PendingJob| {
            job.last_error.is_some() && matches!(job.state, State::Failed | State::Waiting { why: Wait::Backoff, .. })
        };
        let failing = || self.jobs.iter().filter(|(_, job)| is_failing(job));
        let listed = failing().take(limit).map(|(path, job)| job.to_job(self.target, path)).collect();
        (listed, failing().count())
    }
}
