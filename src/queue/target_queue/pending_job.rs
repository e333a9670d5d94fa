//! One job as it stands in memory.

use crate::model::{Generation, Job, JobError, JobId, JobState, Lane, Origin, RelPath, Scope, TargetId, Timestamp};

/// Why a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The job's file is still being written. A finished change ends the wait.
    Settling,
    /// The path was sent too often, or changed under its run, a moment ago. Nothing but time ends the wait.
    Hot,
    /// The job failed. A newer change shortens the wait to the base of the backoff.
    Backoff,
    /// The job is done, but the receiver of a run that was cut off may still have been writing. A newer change ends the
    /// wait.
    ReceiverMayWrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Running { claimed: Generation },
    Waiting { due: Timestamp, why: Wait },
    Failed,
}

/// A change that arrived while its path was in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newer {
    pub(super) scope: Scope,
    pub(super) origin: Origin,
    pub(super) since: Timestamp,
    /// The number of the first of these changes.
    pub(super) first_change: u64,
    /// Until when to wait for more changes; `None` to run at once.
    pub(super) due: Option<Timestamp>,
}

/// One job in memory.
#[derive(Debug)]
pub(super) struct PendingJob {
    pub(super) id: JobId,
    pub(super) scope: Scope,
    pub(super) origin: Origin,
    pub(super) state: State,
    pub(super) lane: Lane,
    /// Place in the ready order; 0 for none. A released job keeps its place, so that it comes first again.
    pub(super) seq: u64,
    pub(super) generation: Generation,
    /// The number of the oldest change that the target may lack; 0 is older than any.
    pub(super) first_change: u64,
    pub(super) queued_at: Timestamp,
    pub(super) changed_at: Timestamp,
    pub(super) attempts: u32,
    pub(super) looks: u32,
    pub(super) last_error: Option<Box<JobError>>,
    /// A box, since only running jobs have one.
    pub(super) newer: Option<Box<Newer>>,
    /// The job was done while a subtree above was in flight. It runs once more, but not before that subtree's run has
    /// ended.
    pub(super) reruns_after_subtree: bool,
    /// A subtree's run above has ended since this job's run began, so the job runs once more.
    pub(super) subtree_ended_meanwhile: bool,
    /// An earlier run of the job was cut off, so its receiver may still write. Once the job is done, it runs once more.
    pub(super) was_cut_off: bool,
    /// The job was done and runs once more because a receiver may have written late.
    pub(super) is_safety_rerun: bool,
    /// How often the job was repeated because data of a run that was cut off was still on its way.
    pub(super) lingered: u32,
    /// A directory has come to its path, or to one above, since a run of it began that may have deleted there. What that run
    /// still deletes takes along all that is below by then, so that the path alone is not enough to look at.
    pub(super) has_tree_come: bool,
    /// Nothing has changed: the job looks whether data of a run that was cut off has come late.
    pub(super) checks: bool,
    /// A run that sent the path as a large file did not go well, so a part of the file may lie beside it on the target.
    pub(super) partial: bool,
    /// The run that is about to be settled found nothing to do at the path.
    pub(super) equal: bool,
    /// The path is a new file of which nothing was sent yet.
    pub(super) is_new: bool,
    /// The store holds a record of this path, or is being handed one.
    pub(super) stored: bool,
}

/// Whether a job is a sweep: a subtree job that distrusts the quick check and so makes everything below its path equal,
/// whatever changed there.
pub(super) fn is_sweep(scope: Scope, origin: Origin) -> bool {
    scope == Scope::Subtree && origin >= Origin::Write
}

impl PendingJob {
    /// Whether a run that has not begun will do all that is to be done below the path. A job that failed does not count,
    /// since nothing below should have to wait with it.
    pub(super) fn will_sweep(&self) -> bool {
        match self.state {
            _ if self.attempts > 0 => false,
            State::Ready | State::Waiting { why: Wait::Settling | Wait::Hot | Wait::ReceiverMayWrite, .. } => {
                is_sweep(self.scope, self.origin)
            }
            State::Running { .. } => self.newer.as_ref().is_some_and(|newer| is_sweep(newer.scope, newer.origin)),
            State::Waiting { why: Wait::Backoff, .. } | State::Failed => false,
        }
    }

    /// Whether a receiver of an earlier run may still write, so that being done once is not enough.
    pub(super) fn awaits_receiver(&self) -> bool {
        self.was_cut_off || matches!(self.state, State::Waiting { why: Wait::ReceiverMayWrite, .. })
    }

    /// How much of the path is looked at again after a run of it was cut off.
    pub(super) fn scope_of_doubt(&self) -> Scope {
        if self.has_tree_come { Scope::Subtree } else { self.scope }
    }

    /// When the oldest change that the target lacks was seen, those of the run under way included.
    pub(super) fn oldest(&self) -> Timestamp {
        self.newer.as_ref().map_or(self.queued_at, |newer| self.queued_at.min(newer.since))
    }

    /// When the oldest change that a run to come has to make good was seen.
    pub(super) fn since(&mut self) -> &mut Timestamp {
        match &mut self.newer {
            Some(newer) => &mut newer.since,
            None => &mut self.queued_at,
        }
    }

    /// The number of the oldest change that a run to come has to make good.
    pub(super) fn first_change_to_come(&mut self) -> &mut u64 {
        match &mut self.newer {
            Some(newer) => &mut newer.first_change,
            None => &mut self.first_change,
        }
    }

    /// The number of the oldest change that the target lacks, the run under way included.
    pub(super) fn oldest_change(&self) -> u64 {
        self.newer.as_ref().map_or(self.first_change, |newer| self.first_change.min(newer.first_change))
    }

    /// Whether a job above may take over this one. Two kinds stay unless `all` says that room is needed: a job that fails
    /// by itself, so that it can be seen, and one that would make the whole job above expensive (`Origin::Replaced`).
    pub(super) fn may_go(&self, all: bool) -> bool {
        !self.is_running() && (all || (self.last_error.is_none() && self.origin < Origin::Replaced))
    }

    /// Makes the run to come trust no time below the path, since a directory there came from elsewhere.
    pub(super) fn distrust_all(&mut self) {
        match &mut self.newer {
            Some(newer) => newer.origin = Origin::Replaced,
            None => self.origin = Origin::Replaced,
        }
    }

    /// Scope and origin of all that is to be done, the run under way included. The store keeps these.
    pub(super) fn all_of_it(&self) -> (Scope, Origin) {
        let newer = self.newer.as_ref().filter(|_| self.is_running());
        newer.map_or((self.scope, self.origin), |newer| (self.scope.max(newer.scope), self.origin.max(newer.origin)))
    }

    /// Whether rsync keeps what it has of the path's file when a run is cut off, as it does with large files. A subtree
    /// job counts as well: a large file may have taken the place of its directory since the job was made.
    pub(super) fn may_leave_partial(&self, path: &RelPath) -> bool {
        self.lane == Lane::Large && !path.is_root()
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(super) fn to_job(&self, target: TargetId, path: &RelPath) -> Job {
        let (state, due_at) = match self.state {
            State::Ready => (JobState::Ready, Timestamp::ZERO),
            State::Running { .. } => (JobState::Running, Timestamp::ZERO),
            State::Waiting { due, .. } => (JobState::Waiting, due),
            State::Failed => (JobState::Failed, Timestamp::ZERO),
        };
        let (scope, origin) = self.all_of_it();
        Job {
            id: self.id,
            target,
            path: path.clone(),
            scope,
            origin,
            state,
            generation: self.generation,
            queued_at: self.oldest(),
            changed_at: self.changed_at,
            attempts: self.attempts,
            due_at,
            // By the time that the record is read, the run under way may have been cut off.
            partial: self.partial || self.may_leave_partial(path),
            last_error: self.last_error.as_deref().cloned(),
        }
    }
}
