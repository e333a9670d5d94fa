//! What becomes of a job when its run has ended.

use std::time::Duration;

use super::pending_job::{Newer, PendingJob, State, Wait};
use super::{RECEIVER_PATIENCE, TargetQueue};
use crate::model::{Change, Found, JobError, JobId, Lane, Origin, RelPath, Scope, Timestamp, Verdict, partial_of};

/// A source that changes under each of so many runs in a row has its job backed off like a failure.
const LOOKS_MAX: u32 = 20;
/// A repeat is made again so often while what was cut off may still arrive, at distances that grow to four times
/// [`RECEIVER_PATIENCE`]: for ten minutes. A server that takes longer to come to its end is not waited for.
const LINGERS_MAX: u32 = 33;
/// The pause before a path that vanished under a run is looked at again, times the number of looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Of a job that is done: what happened while it ran.
struct Done {
    newer: Option<Newer>,
    /// When the path may be sent next, if it has been sent too often of late.
    hot_until: Option<Timestamp>,
    /// The run began when receivers that were cut off may still have been writing.
    was_early: bool,
    /// A subtree above is still in flight.
    beside_subtree: bool,
}

impl TargetQueue {
    /// A run of the job was cut off, whatever becomes of the next. If it was to send what is below the path as well, so may
    /// its receiver do over what others send there.
    pub fn note_cut(&mut self, path: &RelPath, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(path) else { return };
        job.was_cut_off = true;
        if job.scope > Scope::Entry {
            self.receiver_window.until = self.receiver_window.until.max(now.after(RECEIVER_PATIENCE));
        }
    }

    /// A run of the job was cut off and has been begun again since its connection was closed.
    pub fn doubt(&mut self, path: &RelPath, now: Timestamp) {
        if let Some(job) = self.jobs.get(path)
            && !self.receives_here
        {
            self.doubts.note(path, job.scope_of_doubt(), now);
        }
    }

    /// What an earlier run of the job had sent is still on its way: to have been repeated is not enough.
    pub fn note_lingering(&mut self, path: &RelPath) {
        let is_one = |job: &&mut PendingJob| job.is_safety_rerun && job.lingered < LINGERS_MAX;
        if let Some(job) = self.jobs.get_mut(path).filter(is_one) {
            (job.was_cut_off, job.is_safety_rerun) = (true, false);
            job.lingered += 1;
        }
    }

    /// The run of the job, which is about to be settled, has sent nothing there. It does not count as one that was sent again.
    pub fn note_equal(&mut self, path: &RelPath) {
        if let Some(job) = self.jobs.get_mut(path) {
            job.equal = true;
        }
    }

    /// Settles what became of one claimed job. `took` is how long its batch ran.
    pub fn finish(&mut self, path: &RelPath, verdict: Verdict, took: Duration, now: Timestamp, chance: f64) {
        self.note_end(path);
        self.rooted.remove(path);
        if let Some(scope) = self.in_flight.remove(path)
            && scope == Scope::Subtree
        {
            self.in_flight_subtrees = self.in_flight_subtrees.saturating_sub(1);
            self.note_subtree_end(path);
        }
        let beside_subtree = self.in_flight_subtrees > 0
            && path.ancestor_bytes().any(|above| self.in_flight.get(above) == Some(&Scope::Subtree));
        let Some(job) = self.jobs.get_mut(path) else { return };
        let State::Running { claimed } = job.state else { return };
        let newer = job.newer.take().map(|newer| *newer).filter(|_| job.generation > claimed);
        let is_equal = std::mem::take(&mut job.equal);
        let is_write = job.origin == Origin::Write && job.scope == Scope::Entry;
        if let Some(newer) = newer
            && verdict != Verdict::Done
        {
            job.scope = job.scope.max(newer.scope);
            job.origin = job.origin.max(newer.origin);
            job.queued_at = job.queued_at.min(newer.since);
            job.first_change = job.first_change.min(newer.first_change);
        }
        job.partial |= job.may_leave_partial(path) && verdict != Verdict::Done;
        let whole_tree = path.is_root() && job.scope == Scope::Subtree;
        let is_repeat = job.is_safety_rerun || job.checks;
        if verdict != Verdict::Released {
            // What follows cannot lean on what it was when it was claimed.
            self.renames.forget(path);
        }
        let was_early =
            now.before(took) < self.receiver_window.until && (self.receiver_window.whole_trees || !whole_tree);
        match verdict {
            Verdict::Done => {
                // A repeat that finds all as it was left says nothing of where changes come from.
                if is_write && !is_repeat {
                    self.sent.note_echo(path, is_equal, now);
                }
                let is_sent = is_write && !is_equal;
                let hot_until =
                    if is_sent { self.sent.note(path, self.policy.hot_interval.max(took), now) } else { None };
                self.done(path, Done { newer, hot_until, was_early, beside_subtree }, now);
            }
            Verdict::Failed(error) => self.fail(path, error, newer, now, chance),
            Verdict::Released => self.place(path, State::Ready),
            Verdict::Above(above) => {
                let (id, origin, is_newer) = (job.id, job.origin.min(Origin::Write), newer.is_some());
                self.place(path, State::Ready);
                // What is newer may mean that there is something at the path again: it is looked at once more.
                match self.sweep_above(path) {
                    _ if is_newer => {}
                    // Otherwise it would be looked at again and again, and the sweep wait for it as often.
                    Some(sweep) => self.absorb(&sweep, std::slice::from_ref(path)),
                    None => self.move_up(path, &above, id, origin, now),
                }
            }
            Verdict::Large => {
                job.lane = Lane::Large;
                self.place(path, State::Ready);
                // For a daemon that does not see this one's run end.
                self.dirty.note(path);
            }
            Verdict::LookAgain(scope) => {
                job.scope = job.scope.max(scope);
                job.looks += 1;
                if job.looks > LOOKS_MAX {
                    let error = JobError::new(Some(24), "the source keeps changing while it is read");
                    self.fail(path, error, newer, now, chance);
                } else {
                    let due = now.after(LOOK_AGAIN * job.looks);
                    self.place(path, State::Waiting { due, why: Wait::Hot });
                }
            }
        }
        // A job above took over what waited here while this one ran.
        if self.jobs.get(path).is_some_and(|job| job.may_go(false))
            && let Some(sweep) = self.sweep_above(path)
        {
            self.absorb(&sweep, std::slice::from_ref(path));
        }
    }

    /// The work of the job at `path` becomes that of the one at `above`, which takes its id if there is none yet.
    fn move_up(&mut self, path: &RelPath, above: &RelPath, id: JobId, origin: Origin, now: Timestamp) {
        let change = Change { origin, ..Change::scan(above.clone(), Scope::Entry) };
        if self.jobs.contains_key(above) {
            self.merge(above, Scope::Entry, &change, now);
        } else {
            self.create(above, Scope::Entry, &change, now, id);
        }
        self.absorb(above, std::slice::from_ref(path));
    }

    /// The job goes, unless there is more to do at its path: what is newer than its run, or what others may have undone.
    fn done(&mut self, path: &RelPath, done: Done, now: Timestamp) {
        let Done { newer, hot_until, was_early, beside_subtree } = done;
        self.throughput.note(now);
        self.last_success = Some(now);
        let Some(job) = self.jobs.get_mut(path) else { return };
        job.lane = Lane::Small;
        job.attempts = 0;
        job.looks = 0;
        let had_error = job.last_error.take().is_some();
        let under_subtree = beside_subtree || job.subtree_ended_meanwhile;
        let may_be_undone = job.was_cut_off || (was_early && !job.is_safety_rerun);
        if let Some(newer) = newer {
            // What may be undone has to run once more, not only what is new.
            if under_subtree || may_be_undone {
                job.scope = job.scope.max(newer.scope);
                job.origin = job.origin.max(newer.origin);
                job.first_change = job.first_change.min(newer.first_change);
            } else {
                job.scope = newer.scope;
                job.origin = newer.origin;
                job.first_change = newer.first_change;
            }
            job.queued_at = newer.since;
            job.seq = 0;
            let due = newer.due.max(hot_until);
            let why = if due == newer.due { Wait::Settling } else { Wait::Hot };
            self.place(path, due.map_or(State::Ready, |due| State::Waiting { due, why }));
            if had_error {
                self.dirty.note(path);
            }
        } else if under_subtree {
            job.reruns_after_subtree = beside_subtree;
            job.seq = 0;
            self.place(path, State::Ready);
        } else if may_be_undone {
            let due = now.after(RECEIVER_PATIENCE * (1 + job.lingered / 2).min(4));
            let due = if job.was_cut_off { due } else { due.min(self.receiver_window.until) };
            job.scope = job.scope_of_doubt();
            job.has_tree_come = false;
            if !self.receives_here && (job.was_cut_off || self.receiver_window.whole_trees) {
                self.doubts.note(path, job.scope, now);
            }
            job.was_cut_off = false;
            job.is_safety_rerun = true;
            job.seq = 0;
            let waits = State::Waiting { due, why: Wait::ReceiverMayWrite };
            self.place(path, if due > now { waits } else { State::Ready });
        } else if job.partial {
            self.leave_partial(path, now);
        } else {
            self.remove(path);
        }
    }

    /// The job at `path` goes, and its place is taken by the deletion of what its runs may have left of a large file. As
    /// long as there is another such job in the directory that is left to it: what lies there is of use to it.
    fn leave_partial(&mut self, path: &RelPath, now: Timestamp) {
        let Some(PendingJob { id, queued_at, first_change, .. }) = self.jobs.get(path) else { return };
        let (id, queued_at, first_change) = (*id, *queued_at, *first_change);
        self.remove(path);
        let dir = path.parent().unwrap_or_else(RelPath::root);
        if self.range_below(&dir).any(|(other, job)| job.partial && other.parent().as_ref() == Some(&dir)) {
            return;
        }
        let partial = partial_of(path);
        let change = Change::scan(partial.clone(), Scope::Entry);
        if self.jobs.contains_key(&partial) {
            self.merge(&partial, Scope::Entry, &change, now);
        } else {
            self.create(&partial, Scope::Entry, &change, now, id);
        }
        if let Some(job) = self.jobs.get_mut(&partial) {
            *job.since() = (*job.since()).min(queued_at);
            *job.first_change_to_come() = (*job.first_change_to_come()).min(first_change);
        }
    }

    /// A subtree's run has ended: what is in flight below may have done its work before that run undid it.
    fn note_subtree_end(&mut self, subtree: &RelPath) {
        let Self { jobs, in_flight, .. } = self;
        for path in in_flight.keys().filter(|path| subtree.covers(path)) {
            if let Some(job) = jobs.get_mut(path) {
                job.subtree_ended_meanwhile = true;
            }
        }
    }

    fn fail(&mut self, path: &RelPath, error: JobError, newer: Option<Newer>, now: Timestamp, chance: f64) {
        let policy = self.policy;
        let Some(job) = self.jobs.get_mut(path) else { return };
        job.attempts = job.attempts.saturating_add(1);
        job.last_error = Some(Box::new(error));
        let dead = policy.attempts_max > 0 && job.attempts >= policy.attempts_max && newer.is_none();
        let state = if dead {
            State::Failed
        } else {
            let wait = policy.backoff.delay(job.attempts, chance);
            let wait = if newer.is_some() { wait.min(policy.backoff.base) } else { wait };
            State::Waiting { due: now.after(wait), why: Wait::Backoff }
        };
        self.place(path, state);
        self.dirty.note(path);
    }

    /// Adds a failure that a run found at a path which no job of its own had named (below a subtree), with as much as it
    /// left undone.
    pub fn add_failure(&mut self, found: Found, now: Timestamp, chance: f64, next_id: impl FnOnce() -> JobId) {
        let Found { path, error, scope, origin, since } = found;
        let change = Change { scope, origin, ..Change::write(path.clone()) };
        let is_running = self.jobs.get(&path).is_some_and(PendingJob::is_running);
        if is_running {
            // It finds out by itself, as far as it goes.
            if scope > Scope::Entry {
                self.merge(&path, scope, &change, now);
            }
        } else if let Some(job) = self.jobs.get_mut(&path) {
            job.scope = job.scope.max(scope);
            job.origin = job.origin.max(origin);
            self.unplace(&path);
        } else {
            self.create(&path, scope, &change, now, next_id());
            self.unplace(&path);
        }
        // Which change it was that the run above had for this path, nobody knows.
        if let Some(job) = self.jobs.get_mut(&path) {
            job.first_change = 0;
            job.queued_at = job.queued_at.min(since.unwrap_or(now));
            if let Some(newer) = &mut job.newer {
                newer.first_change = 0;
                newer.since = newer.since.min(since.unwrap_or(now));
            }
        }
        if is_running {
            return;
        }
        self.fail(&path, error, None, now, chance);
    }
}
