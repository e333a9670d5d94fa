//! Turns a change into a job, or merges it with one that is there: the rules of the parent's documentation for pending
//! jobs.

use std::ops::Bound;
use std::time::Duration;

use super::TargetQueue;
use super::pending_job::{Newer, PendingJob, State, Wait};
use crate::model::{Change, Generation, JobId, Lane, Origin, RelPath, Scope, Settle, Timestamp, below_range};

/// The scope and origin that do the work of two jobs at one path. At the root, a reconcile of the whole tree does all
/// that an `Entry` scan would do, whatever the reconcile leaves out below.
fn both(path: &RelPath, one: (Scope, Origin), other: (Scope, Origin)) -> (Scope, Origin) {
    let reconcile = (Scope::Subtree, Origin::Reconcile);
    let itself = (Scope::Entry, Origin::Scan);
    if path.is_root() && [(one, other), (other, one)].contains(&(reconcile, itself)) {
        return reconcile;
    }
    (one.0.max(other.0), one.1.max(other.1))
}

impl TargetQueue {
    /// Notes that a path may differ. `next_id` is called if a job comes into being.
    pub fn enqueue(&mut self, change: &Change, now: Timestamp, next_id: impl FnOnce() -> JobId) {
        let path = &change.path;
        let rested = self.rested(change, now);
        let change = rested.as_ref().unwrap_or(change);
        self.changes += 1;
        self.doubt_old_names(change, now);
        if change.fresh || change.scope == Scope::Subtree {
            self.widen_doubts(path);
        }
        let old_name = self.usable_old_name(change);
        let mut scope = change.scope;
        if change.fresh && scope < Scope::Subtree && (self.jobs.contains_key(path) || self.any_job_below(path)) {
            scope = Scope::Subtree;
        }
        if self.jobs.contains_key(path) {
            self.merge(path, scope, change, now);
        } else if let Some(sweep) = self.sweep_above(path).filter(|_| change.origin < Origin::Replaced) {
            self.note_since(&sweep, now);
            return;
        } else if change.origin < Origin::Write && !change.fresh && self.pending_subtree_covers(path, change.origin) {
            return;
        } else {
            self.create(path, scope, change, now, next_id());
            if let Some(old) = old_name {
                self.note_old_name(change, old);
            }
        }
        if let Some(file) = change.several_names {
            self.names.note(path, file);
        }
        if scope == Scope::Subtree {
            self.absorb_below(path, now);
        }
    }

    /// A directory has come to `path`, or may have come there or below while nobody watched. See
    /// [`PendingJob::has_tree_come`].
    fn widen_doubts(&mut self, path: &RelPath) {
        self.doubts.widen(path);
        let widen = |job: &mut PendingJob| job.has_tree_come |= job.is_running() || job.awaits_receiver();
        if path.is_root() {
            return self.jobs.values_mut().for_each(widen);
        }
        let (start, end) = below_range(path);
        let below = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
        self.jobs.range_mut::<[u8], _>(below).for_each(|(_, job)| widen(job));
        self.jobs.get_mut(path).into_iter().for_each(widen);
    }

    /// A change of a file, made to wait until the file is quiet. `None` if the change need not wait: the target most
    /// likely lacks it, or its job has waited long enough, since a file may never be quiet.
    fn rested(&self, change: &Change, now: Timestamp) -> Option<Change> {
        const REST_MAX: Duration = Duration::from_secs(10);
        let is_write = change.scope == Scope::Entry && change.origin == Origin::Write && change.settle == Settle::Now;
        let waiting = self.jobs.get(&change.path);
        let is_over = waiting.is_some_and(|job| now.since(job.queued_at) >= REST_MAX || job.last_error.is_some());
        if !is_write || is_over {
            return None;
        }
        let rest = self.sent.rest(&change.path, self.policy.hot_interval, now)?;
        Some(Change { settle: Settle::Quiet(rest), ..change.clone() })
    }

    pub(super) fn create(&mut self, path: &RelPath, scope: Scope, change: &Change, now: Timestamp, id: JobId) {
        let job = PendingJob {
            id,
            scope,
            origin: change.origin,
            state: State::Ready,
            // The executor learns the size of a file when it looks at the file, and then moves the job to the large lane.
            lane: Lane::Small,
            seq: 0,
            generation: Generation::FIRST,
            first_change: self.changes,
            queued_at: now,
            changed_at: now,
            attempts: 0,
            looks: 0,
            last_error: None,
            newer: None,
            reruns_after_subtree: false,
            subtree_ended_meanwhile: false,
            was_cut_off: false,
            is_safety_rerun: false,
            lingered: 0,
            has_tree_come: false,
            checks: false,
            partial: false,
            equal: false,
            is_new: change.is_new,
            // The store may still hold a record of the path's last job, whose deletion is not committed yet.
            stored: self.dirty.is_unsettled(path),
        };
        self.jobs.insert(path.clone(), job);
        let state = match (change.settle, self.sent.hot_until(path, now)) {
            (_, Some(due)) => State::Waiting { due, why: Wait::Hot },
            (Settle::Now, None) => State::Ready,
            (Settle::Quiet(wait) | Settle::Within(wait), None) => {
                State::Waiting { due: now.after(wait), why: Wait::Settling }
            }
        };
        self.place(path, state);
        self.dirty.note(path);
    }

    pub(super) fn merge(&mut self, path: &RelPath, scope: Scope, change: &Change, now: Timestamp) {
        let policy = self.policy;
        let number = self.changes;
        let Some(job) = self.jobs.get_mut(path) else { return };
        let before = job.all_of_it();
        let record_changes = scope > before.0 || change.origin > before.1;
        // A narrower change does not hurry, such as one of a directory's own times: a subtree job that keeps failing
        // would be tried at each change in its directory.
        let hurries = scope >= job.scope || change.origin >= Origin::Write;
        if !job.is_running() {
            (job.scope, job.origin) = both(path, (job.scope, job.origin), (scope, change.origin));
        }
        job.changed_at = now;
        job.reruns_after_subtree = false;
        job.is_safety_rerun = false;
        job.checks = false;
        let settles_at = match change.settle {
            Settle::Now => None,
            Settle::Quiet(wait) | Settle::Within(wait) => Some(now.after(wait)),
        };
        let quiet = matches!(change.settle, Settle::Quiet(_));
        let next = match job.state {
            State::Running { .. } => {
                job.generation = job.generation.next();
                let due = match job.newer.as_deref() {
                    Some(Newer { due: None, .. }) => None,
                    Some(Newer { due: Some(due), .. }) if !quiet => settles_at.map(|at| at.min(*due)),
                    _ => settles_at,
                };
                let ((scope, origin), since, first_change) =
                    job.newer.as_ref().map_or(((scope, change.origin), now, number), |newer| {
                        let both = both(path, (newer.scope, newer.origin), (scope, change.origin));
                        (both, newer.since, newer.first_change)
                    });
                job.newer = Some(Box::new(Newer { scope, origin, since, first_change, due }));
                None
            }
            // The job is placed anew, since a wider scope may ask for the other lane.
            State::Ready if record_changes => Some(State::Ready),
            State::Ready => None,
            State::Waiting { due, why: Wait::Settling } => Some(match settles_at {
                None => State::Ready,
                Some(at) => State::Waiting { due: if quiet { at } else { at.min(due) }, why: Wait::Settling },
            }),
            State::Waiting { why: Wait::Hot, .. } => None,
            State::Waiting { why: Wait::ReceiverMayWrite, .. } => {
                job.was_cut_off = job.awaits_receiver();
                Some(settles_at.map_or(State::Ready, |due| State::Waiting { due, why: Wait::Settling }))
            }
            State::Waiting { why: Wait::Backoff, .. } if !hurries => None,
            State::Waiting { due, why: Wait::Backoff } => {
                let soon = now.after(policy.backoff.base);
                Some(State::Waiting { due: due.min(soon), why: Wait::Backoff })
            }
            State::Failed => {
                job.attempts = 0;
                Some(State::Ready)
            }
        };
        let revived = job.state == State::Failed;
        if !job.is_running() {
            job.generation = job.generation.next();
        }
        if let Some(state) = next {
            self.unplace(path);
            self.place(path, state);
        }
        if record_changes || revived {
            self.dirty.note(path);
        }
    }

    /// Whether a subtree job above the path that has not started will do the work anyway. A job that failed does not
    /// count, since it may fail again. A reconcile does not count for other origins, since it may leave out what
    /// `crontabfilter` names. A job of the whole tree does not count at a path that a run in flight may change back: the
    /// whole tree would not wait for that run, and may end before it.
    fn pending_subtree_covers(&self, path: &RelPath, origin: Origin) -> bool {
        let covers = |job: &PendingJob| {
            job.scope == Scope::Subtree
                && job.origin >= origin
                && job.attempts == 0
                && matches!(job.state, State::Ready | State::Waiting { .. })
        };
        let mut above = path.ancestor_bytes().filter(|above| self.jobs.get(*above).is_some_and(covers));
        above.any(|above| !above.is_empty() || !self.any_in_flight_around(path))
    }

    /// The path of the nearest job above that will do whatever is to be done at `path`, writes included.
    pub(super) fn sweep_above(&self, path: &RelPath) -> Option<RelPath> {
        let above = path.ancestor_bytes().filter_map(|above| self.jobs.get_key_value(above));
        above.filter(|(_, job)| job.will_sweep()).map(|(path, _)| path.clone()).next()
    }

    /// Notes that the job at `path` also stands for a change that was seen at `since`. `since` may be earlier than all
    /// times before, if the clock was set back.
    fn note_since(&mut self, path: &RelPath, since: Timestamp) {
        let Some(known) = self.jobs.get_mut(path).map(PendingJob::since) else { return };
        if since < *known {
            *known = since;
            self.dirty.note(path);
        }
    }

    /// Removes the jobs below a subtree job that has not started, as far as the subtree job does their work. A sweep
    /// takes over all that may go. Other subtree jobs leave two kinds: writes, whose contents they would not look at, and
    /// jobs that have to come after a run in flight for which the whole tree would not wait. A failed job that stays is
    /// tried again.
    fn absorb_below(&mut self, path: &RelPath, now: Timestamp) {
        let Some(job) = self.jobs.get(path) else { return };
        let (origin, sweeps, can_absorb) = (job.origin, job.will_sweep(), !job.is_running() && job.attempts == 0);
        let (mut going, mut failed) = (Vec::new(), Vec::new());
        for (below, job) in self.range_below(path).filter(|(_, job)| !job.is_running()) {
            let repairs = || job.reruns_after_subtree || self.any_in_flight_around(below);
            let trusts = job.origin <= origin && job.origin < Origin::Write;
            if (sweeps && job.may_go(false)) || (can_absorb && trusts && !repairs()) {
                going.push(below.clone());
            } else if job.state == State::Failed {
                failed.push(below.clone());
            }
        }
        self.absorb(path, &going);
        for path in failed {
            let Some(job) = self.jobs.get_mut(&path) else { continue };
            job.attempts = 0;
            job.changed_at = now;
            self.unplace(&path);
            self.place(&path, State::Ready);
            self.dirty.note(&path);
        }
    }

    /// Removes the jobs at `paths`. The job at `heir`, a path above, does their work as well.
    pub(super) fn absorb(&mut self, heir: &RelPath, paths: &[RelPath]) {
        for path in paths {
            let Some(job) = self.jobs.get_mut(path) else { continue };
            let (since, origin, error) = (job.queued_at, job.origin, job.last_error.take());
            let (first_change, was_cut_off, has_tree_come) =
                (job.first_change, job.awaits_receiver(), job.has_tree_come);
            self.dirty.hand_over(path, heir);
            self.remove(path);
            let Some(heir) = self.jobs.get_mut(heir) else { continue };
            heir.was_cut_off |= was_cut_off;
            heir.has_tree_come |= has_tree_come;
            *heir.since() = (*heir.since()).min(since);
            *heir.first_change_to_come() = (*heir.first_change_to_come()).min(first_change);
            if origin == Origin::Replaced {
                heir.distrust_all();
            }
            // A sweep keeps the error, so that it can be seen. Other heirs find out by themselves, and soon.
            if heir.will_sweep() && heir.last_error.is_none() {
                heir.last_error = error;
            }
        }
    }

    pub(super) fn any_job_below(&self, path: &RelPath) -> bool {
        self.range_below(path).next().is_some()
    }
}
