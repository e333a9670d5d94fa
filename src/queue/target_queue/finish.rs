//! Settles a job whose run has ended.

use std::time::Duration;

use super::pending_job::{Newer, PendingJob, State, Wait};
use super::{RECEIVER_PATIENCE, TargetQueue};
use crate::model::{Change, Found, JobError, JobId, Lane, Origin, RelPath, Scope, Timestamp, Verdict, partial_of};

/// After more runs in a row than this under which the source changed, the job is backed off like a failure.
const LOOKS_MAX: u32 = 20;
/// How often a repetition is repeated while data of a run that was cut off may still arrive. The distances grow to four
/// times [`RECEIVER_PATIENCE`], so that this lasts ten minutes. A server that takes longer to end is not waited for.
const LINGERS_MAX: u32 = 33;
/// The pause before a path that vanished under a run is looked at again, multiplied by the number of looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Events during the run of a job that is done.
struct Done {
    newer: Option<Newer>,
    /// When the path may be sent next, if it has been sent too often of late.
    hot_until: Option<Timestamp>,
    /// The run began while receivers of runs that were cut off may still have been writing.
    was_early: bool,
    /// A subtree above is still in flight.
    beside_subtree: bool,
}

impl TargetQueue {
    /// Notes that a run of the job was cut off, whatever becomes of the next run. If the run was to send what is below
    /// the path as well, its receiver may also undo what other jobs send there.
    pub fn note_cut(&mut self, path: &RelPath, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(path) else { return };
        job.was_cut_off = true;
        if job.scope > Scope::Entry {
            self.receiver_window.until = self.receiver_window.until.max(now.after(RECEIVER_PATIENCE));
        }
    }

    /// Notes that a run of the job was cut off and was begun again after its connection had been closed.
    pub fn doubt(&mut self, path: &RelPath, now: Timestamp) {
        if let Some(job) = self.jobs.get(path)
            && !self.receives_here
        {
            self.doubts.note(path, job.scope_of_doubt(), now);
        }
    }

    /// Notes that data of an earlier run of the job is still on its way, so that one repetition is not enough.
    pub fn note_lingering(&mut self, path: &RelPath) {
        let is_one = |job: &&mut PendingJob| job.is_safety_rerun && job.lingered < LINGERS_MAX;
        if let Some(job) = self.jobs.get_mut(path).filter(is_one) {
            (job.was_cut_off, job.is_safety_rerun) = (true, false);
            job.lingered += 1;
        }
    }

    /// Notes that the job's run, which is about to be settled, has sent nothing. Such a run does not count as sending the
    /// path again.
    pub fn note_equal(&mut self, path: &RelPath) {
        if let Some(job) = self.jobs.get_mut(path) {
            job.equal = true;
        }
    }

    /// Settles one claimed job by its verdict. `took` is how long its batch ran.
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
            // The job's next run cannot rely on what was true of the old name at the claim.
            self.renames.forget(path);
        }
        let was_early =
            now.before(took) < self.receiver_window.until && (self.receiver_window.whole_trees || !whole_tree);
        match verdict {
            Verdict::Done => {
                // A repetition that finds all as it was left says nothing of where changes come from.
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
                // A newer change may have put something at the path again: the path is looked at once more.
                match self.sweep_above(path) {
                    _ if is_newer => {}
                    // Without this the path would be looked at again and again, and the sweep would wait for it each
                    // time.
                    Some(sweep) => self.absorb(&sweep, std::slice::from_ref(path)),
                    None => self.move_up(path, &above, id, origin, now),
                }
            }
            Verdict::Large => {
                job.lane = Lane::Large;
                self.place(path, State::Ready);
                // The store is told, so that a later daemon knows of the partial file if this one does not see the run end.
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
        // A sweep above may have been made while this job ran: it takes over what is left of the job.
        if self.jobs.get(path).is_some_and(|job| job.may_go(false))
            && let Some(sweep) = self.sweep_above(path)
        {
            self.absorb(&sweep, std::slice::from_ref(path));
        }
    }

    /// Gives the work of the job at `path` to the job at `above`. If there is none at `above`, a new job there takes the
    /// id.
    fn move_up(&mut self, path: &RelPath, above: &RelPath, id: JobId, origin: Origin, now: Timestamp) {
        let change = Change { origin, ..Change::scan(above.clone(), Scope::Entry) };
        if self.jobs.contains_key(above) {
            self.merge(above, Scope::Entry, &change, now);
        } else {
            self.create(above, Scope::Entry, &change, now, id);
        }
        self.absorb(above, std::slice::from_ref(path));
    }

    /// Removes the job, unless there is more to do at its path: a change newer than its run, or work that others may have
    /// undone.
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
            // Work that may be undone has to be done once more, not only the newer change.
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

    /// Removes the job at `path` and makes one that deletes what its runs may have left of a large file. While another
    /// such job is pending in the same directory, the deletion is left to that job, which has use for what lies there.
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

    /// Notes that a subtree's run has ended. Jobs in flight below it may have done their work before that run undid it.
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

    /// Adds a failure that a run found at a path that none of its jobs had named (below a subtree), with as much as the
    /// run left undone there.
    pub fn add_failure(&mut self, found: Found, now: Timestamp, chance: f64, next_id: impl FnOnce() -> JobId) {
        let Found { path, error, scope, origin, since } = found;
        let change = Change { scope, origin, ..Change::write(path.clone()) };
        let is_running = self.jobs.get(&path).is_some_and(PendingJob::is_running);
        if is_running {
            // The running job finds out by itself, as far as its scope reaches.
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
        // Nobody knows which changes of this path the run above stood for.
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
