//! Jobs that send content that was moved from another path. The target has that content already.
//!
//! The old path is only a hint, and only in memory: a job that loses its hint sends everything. While the hint holds, the
//! job at the old path, which deletes that path on the target, waits for the job at the new path, and both are claimed
//! together.
//!
//! The content of a moved *directory* is taken over on the target without being looked at. So its hint has to be true.
//! The hint is not taken, or is dropped, in two cases: something was or will be sent to either place that rsync's quick
//! check may have missed, or a run has touched the old name. The old content of a moved *file* is only what the new one
//! is compared with, so its hint can be wrong without harm.
//!
//! Deliberately absent: how rsync is made to use a hint (`mirror`), and whether that is worth it.

use std::time::Duration;

use super::TargetQueue;
use super::hints::Hint;
use super::pending_job::{PendingJob, State, Wait};
use crate::model::{Change, Lane, Origin, RelPath, Scope, Timestamp};

/// How long something new under the old name of a file is held back at most. The new thing is small, as a rule: a log
/// that begins anew.
const HELD_BACK: Duration = Duration::from_secs(10);

impl TargetQueue {
    /// The path from which a job that is about to be made can take its content, if the change names one and nothing
    /// speaks against it. If that path has a hint itself and its job has not begun, the path before it is returned.
    pub(super) fn usable_old_name(&self, change: &Change) -> Option<RelPath> {
        let (new, old) = (&change.path, change.moved_from.as_ref()?);
        let is_tree = change.scope == Scope::Subtree;
        let waits = |path: &RelPath| self.jobs.get(path).is_some_and(|job| !job.is_running());
        let first = self.renames.by_new.get(old).filter(|before| before.is_tree == is_tree && waits(old));
        let old = first.map_or(old, |before| &before.old);
        let is_free = !self.jobs.contains_key(new)
            && !self.renames.is_old_name(new)
            && (first.is_some() || !self.renames.by_new.contains_key(old));
        if !is_free || new.covers(old) || old.covers(new) {
            return None;
        }
        (!is_tree || (self.is_unwritten(old, Scope::Children) && self.is_unused(new))).then(|| old.clone())
    }

    /// Whether the target has at `old` what the source had, but for differences that the quick check sees. This holds if
    /// nothing that writes there is pending or in flight.
    fn is_unwritten(&self, old: &RelPath, reach: Scope) -> bool {
        let writes = |job: &PendingJob| job.all_of_it().1 >= Origin::Write;
        let is_above = |above: &[u8]| {
            self.jobs.get(above).is_some_and(|job| writes(job) && job.all_of_it().0 >= reach)
                || self.in_flight.get(above).is_some_and(|scope| *scope >= reach)
        };
        !self.jobs.get(old).is_some_and(|job| writes(job) || job.is_running())
            && !self.range_below(old).any(|(_, job)| writes(job) || job.is_running())
            && !old.ancestor_bytes().any(is_above)
    }

    /// Whether the target has nothing at `new`: nothing is to be done there or has been begun.
    fn is_unused(&self, new: &RelPath) -> bool {
        self.is_unwritten(new, Scope::Subtree) && !self.any_job_below(new)
    }

    /// Notes that the job at the change's path, which has just come into being, sends content that the target has at
    /// `old`.
    pub(super) fn note_old_name(&mut self, change: &Change, old: RelPath) {
        let new = &change.path;
        let is_tree = change.scope == Scope::Subtree;
        if let Some(between) = change.moved_from.as_ref().filter(|between| **between != old) {
            self.renames.forget(between);
        }
        self.renames.put(new.clone(), Hint { old, is_tree });
        if let Some(state) = self.jobs.get(new).map(|job| job.state).filter(|_| !is_tree) {
            // A file with a hint gets a run of its own in the large lane.
            self.unplace(new);
            if let Some(job) = self.jobs.get_mut(new) {
                job.lane = Lane::Large;
            }
            self.place(new, state);
        }
    }

    /// Drops the hints that `change` may have made wrong.
    pub(super) fn doubt_old_names(&mut self, change: &Change, now: Timestamp) {
        if self.renames.by_new.is_empty() {
            return;
        }
        let path = &change.path;
        let (writes, is_wide) = (change.origin >= Origin::Write, change.scope > Scope::Entry);
        if writes && let Some(new) = self.renames.by_old.get(path).cloned() {
            self.renames.until.insert((now.after(HELD_BACK), new));
        }
        let renames = &self.renames;
        let mut doubtful = Vec::new();
        let mut doubt = |at: &[u8]| {
            doubtful.extend(renames.by_new.get_key_value(at).map(|(new, _)| new.clone()));
            doubtful.extend(renames.by_old.get(at).cloned());
        };
        if writes || is_wide {
            doubt(path.as_bytes());
        }
        if writes {
            path.ancestor_bytes().for_each(doubt);
        }
        if writes && is_wide {
            doubtful.extend(renames.moved_from_below(path));
            doubtful.extend(renames.moved_to_below(path));
        }
        self.renames.forget_trees(doubtful);
    }

    /// Drops the hints that the run of the job at `path`, which begins now, may make wrong by changing what the target
    /// has at old names.
    pub(super) fn touch_old_names(&mut self, path: &RelPath, scope: Scope) {
        if self.renames.by_new.is_empty() {
            return;
        }
        let mut touched: Vec<RelPath> =
            path.ancestor_bytes().filter_map(|above| self.renames.by_old.get(above)).cloned().collect();
        if scope > Scope::Entry {
            touched.extend(self.renames.moved_from_below(path));
        }
        self.renames.forget_trees(touched);
    }

    /// Whether the job waits for another one that needs what the target has at `path` or above. A job with a hint of its
    /// own waits for no other, so that no two jobs wait for each other.
    pub(super) fn is_held(&self, path: &RelPath) -> bool {
        if self.renames.by_new.is_empty() || self.renames.by_new.contains_key(path) {
            return false;
        }
        let is_pending = |new: &RelPath| {
            self.jobs.get(new).is_some_and(|job| match job.state {
                State::Ready | State::Waiting { why: Wait::Hot | Wait::Settling | Wait::ReceiverMayWrite, .. } => true,
                State::Waiting { why: Wait::Backoff, .. } | State::Running { .. } | State::Failed => false,
            })
        };
        std::iter::once(path.as_bytes())
            .chain(path.ancestor_bytes())
            .filter_map(|at| self.renames.by_old.get(at))
            .any(is_pending)
    }

    /// Adds the jobs at the old names of what was chosen. Where that is not possible, the hint is of no use and is
    /// dropped.
    pub(super) fn add_old_names(&mut self, chosen: &mut Vec<RelPath>) {
        for at in 0..chosen.len() {
            let Some(new) = chosen.get(at).cloned() else { break };
            let Some(Hint { old, is_tree }) = self.renames.by_new.get(&new) else { continue };
            let may_go = |job: &PendingJob| {
                matches!(job.state, State::Ready | State::Waiting { why: Wait::Hot | Wait::Settling, .. })
                    && (!is_tree || (job.scope == Scope::Entry && job.origin < Origin::Write))
                    && !self.is_excluded(old, job)
            };
            // A subtree's run in flight above may be about to replace a directory in which this job's run begins.
            let is_beside = new.ancestor_bytes().any(|above| self.in_flight.get(above) == Some(&Scope::Subtree));
            if !is_beside && self.jobs.get(old).is_some_and(may_go) && !chosen.contains(old) {
                chosen.push(old.clone());
            } else {
                self.renames.forget(&new);
            }
        }
    }
}
