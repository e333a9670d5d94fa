//! Claims jobs: which of them may run now, and which together, by the rules of the parent's documentation.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::pending_job::{PendingJob, State, Wait, is_sweep};
use super::{TargetQueue, lane_index};
use crate::model::{ClaimedJob, Lane, RelPath, Scope, Timestamp, below_range};

/// Leaves the directory of the last of the `chosen` to the next batch, unless most of them are in it. More of that
/// directory is to come, and a directory that is sent in two pieces is listed twice and in part sent twice.
fn leave_last_directory(chosen: &mut Vec<RelPath>) {
    let Some(last) = chosen.last().and_then(RelPath::parent).filter(|last| !last.is_root()) else { return };
    let stays = |path: &RelPath| *path != last && path.ancestor_bytes().next() != Some(last.as_bytes());
    if chosen.iter().filter(|path| stays(path)).count() * 2 >= chosen.len() {
        chosen.retain(stays);
    }
}

impl TargetQueue {
    /// Takes up to `jobs_max` jobs that may run together in one batch, oldest first, and marks them running. A batch of
    /// the small lane that is full, or is claimed in the middle of a burst, leaves the directory at its end to the next
    /// batch.
    pub fn claim(&mut self, lane: Lane, jobs_max: usize, now: Timestamp) -> Vec<ClaimedJob> {
        self.promote(now);
        let mut recursive = None;
        let mut chosen: Vec<RelPath> = Vec::new();
        let Some(ready) = self.ready.get(lane_index(lane)) else { return Vec::new() };
        let mut limit = jobs_max;
        let mut whole_tree_waits = false;
        for path in ready.values() {
            if chosen.len() >= limit {
                break;
            }
            let Some(job) = self.jobs.get(path) else { continue };
            let is_subtree = job.scope == Scope::Subtree;
            // Subtrees and moved content must not start again and again before the comparison of the whole tree that
            // waits for them.
            if whole_tree_waits && (is_subtree || self.renames.old_name(path).is_some()) {
                continue;
            }
            let is_blocked = self.is_blocked(path, job);
            whole_tree_waits |= is_blocked && is_subtree && path.is_root();
            if is_blocked || recursive.is_some_and(|recursive| recursive != is_subtree) {
                continue;
            }
            // Each large file goes in a run of its own, with all its names, beside other such runs. Subtrees share a run.
            // So do jobs that look again, since hardly anything is sent for them.
            let is_alone = lane == Lane::Large && !is_subtree && !job.checks;
            if is_alone && !chosen.is_empty() {
                continue;
            }
            recursive = Some(is_subtree);
            if is_alone {
                limit = 1;
            }
            chosen.push(path.clone());
        }
        if lane == Lane::Small {
            if chosen.len() >= limit || self.expects_more {
                leave_last_directory(&mut chosen);
            }
            self.add_parents(&mut chosen);
        }
        self.add_old_names(&mut chosen);
        self.add_names(&mut chosen);
        chosen.into_iter().filter_map(|path| self.start(path)).collect()
    }

    /// Whether [`claim`](Self::claim) would take a job.
    pub fn has_claimable(&mut self, lane: Lane, now: Timestamp) -> bool {
        self.promote(now);
        let is_free = |path: &RelPath| self.jobs.get(path).is_some_and(|job| !self.is_blocked(path, job));
        self.ready.get(lane_index(lane)).is_some_and(|ready| ready.values().any(is_free))
    }

    /// Adds the directories of the chosen paths whose times wait to go with the changes in them.
    fn add_parents(&self, chosen: &mut Vec<RelPath>) {
        let waits = |path: &RelPath| {
            self.jobs.get(path).is_some_and(|job| {
                job.scope == Scope::Entry
                    && matches!(job.state, State::Waiting { why: Wait::Settling, .. })
                    && !self.is_blocked(path, job)
            })
        };
        let parents: BTreeSet<RelPath> = chosen.iter().filter_map(RelPath::parent).filter(waits).collect();
        chosen.extend(parents);
    }

    fn start(&mut self, path: RelPath) -> Option<ClaimedJob> {
        self.unplace(&path);
        let scope = self.jobs.get(&path)?.scope;
        self.touch_old_names(&path, scope);
        let moved_from = self.renames.old_name(&path).cloned();
        // Nothing below an old name may begin while the content below it is still needed.
        let reach = if self.renames.is_old_name(&path) { scope.max(Scope::Children) } else { scope };
        let job = self.jobs.get_mut(&path)?;
        job.state = State::Running { claimed: job.generation };
        job.reruns_after_subtree = false;
        job.subtree_ended_meanwhile = false;
        let PendingJob { scope, origin, generation, queued_at: since, .. } = *job;
        let is_safety_rerun = job.is_safety_rerun || job.checks;
        let is_new = std::mem::take(&mut job.is_new);
        let several_names = self.names.file(&path);
        let claimed = ClaimedJob {
            path: path.clone(),
            scope,
            origin,
            generation,
            since,
            moved_from,
            several_names,
            is_new,
            is_safety_rerun,
        };
        if claimed.scope == Scope::Subtree {
            self.in_flight_subtrees += 1;
        }
        if claimed.moved_from.is_some() {
            self.rooted.insert(path.clone());
        }
        self.in_flight.insert(path, reach);
        Some(claimed)
    }

    fn any_in_flight_below(&self, path: &RelPath) -> bool {
        if path.is_root() {
            return self.in_flight.keys().any(|path| !path.is_root());
        }
        let (start, end) = below_range(path);
        let bounds = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
        self.in_flight.range::<[u8], _>(bounds).next().is_some()
    }

    /// Whether a run in flight may touch the path, or anything below it.
    pub(super) fn any_in_flight_around(&self, path: &RelPath) -> bool {
        self.in_flight.contains_key(path)
            || self.any_in_flight_below(path)
            || path.ancestor_bytes().any(|above| self.in_flight.contains_key(above))
    }

    fn is_blocked(&self, path: &RelPath, job: &PendingJob) -> bool {
        self.is_held(path) || self.is_excluded(path, job) || self.waits_for_name(path)
    }

    /// Whether the jobs in flight keep the job from running, by the rules of the parent's documentation.
    pub(super) fn is_excluded(&self, path: &RelPath, job: &PendingJob) -> bool {
        if self.in_flight.is_empty() {
            return false;
        }
        if self.in_flight.contains_key(path) {
            return true;
        }
        let whole_tree = path.is_root() && job.scope == Scope::Subtree && !is_sweep(job.scope, job.origin);
        let waits = match whole_tree {
            true => self.in_flight_subtrees > 0 || !self.rooted.is_empty(),
            false => self.any_in_flight_below(path),
        };
        if waits {
            return true;
        }
        path.ancestor_bytes().any(|ancestor| match self.in_flight.get(ancestor) {
            None => false,
            // Of all directories only the root stays one, whatever its `Entry` job sends.
            Some(Scope::Entry) => !ancestor.is_empty(),
            Some(Scope::Children) => true,
            Some(Scope::Subtree) => job.scope == Scope::Subtree || job.reruns_after_subtree,
        })
    }
}
