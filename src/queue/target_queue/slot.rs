//! One job as it stands in memory.

use crate::model::{Generation, Job, JobError, JobId, JobState, Lane, Origin, RelPath, Scope, TargetId, Timestamp};

/// Why a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its file is still being written. A finished change ends the wait.
    Settling,
    /// It was sent a moment ago, again. Nothing but time ends the wait.
    Hot,
    /// It failed. A newer change shortens the wait to the base of the backoff.
    Backoff,
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
    pub(super) oldest: u64,
    /// Wait until then for more; `None` to run at once.
    pub(super) due: Option<Timestamp>,
}

/// One job in memory.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: JobId,
    pub(super) scope: Scope,
    pub(super) origin: Origin,
    pub(super) state: State,
    pub(super) lane: Lane,
    /// Place in the ready order; kept when a job is released, so that it comes first again.
    pub(super) seq: u64,
    pub(super) generation: Generation,
    /// The number of the oldest change that the target does not surely have; 0 is older than any.
    pub(super) oldest: u64,
    pub(super) queued_at: Timestamp,
    pub(super) changed_at: Timestamp,
    pub(super) attempts: u32,
    pub(super) looks: u32,
    pub(super) last_error: Option<Box<JobError>>,
    pub(super) newer: Option<Newer>,
    /// Done while a subtree above was in flight: runs once more, but not before that subtree has ended.
    pub(super) echo: bool,
    /// The store holds a record of this path, or is being handed one.
    pub(super) stored: bool,
}

impl Slot {
    /// What is to be done in all, the run under way included: what the store has to keep.
    pub(super) fn all_of_it(&self) -> (Scope, Origin) {
        let newer = self.newer.filter(|_| self.is_running());
        newer.map_or((self.scope, self.origin), |newer| (self.scope.max(newer.scope), self.origin.max(newer.origin)))
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
            queued_at: self.queued_at,
            changed_at: self.changed_at,
            attempts: self.attempts,
            due_at,
            last_error: self.last_error.as_deref().cloned(),
        }
    }
}
