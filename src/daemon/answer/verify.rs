//! Verifies a target: finds what differs there although nothing is under way.
//!
//! A comparison of a living tree always finds something: files change between the look at one side and the look at the other,
//! and changes have jobs that are not done. So every difference is looked at again, chunk by chunk. First the watcher's barrier
//! makes sure that the queue knows every change up to now. Then the jobs about these paths are waited for. Then rsync looks at
//! these paths alone. A difference that remains counts if three things hold: the path did not change meanwhile, it has no job,
//! and no run for it, above it or below it has ended meanwhile (a run in flight gives a directory another time for a moment). A
//! path that does not come to rest within `ROUNDS_MAX` rounds is reported as busy.
//!
//! A directory that cannot be read is reported, since nothing in it was compared. If it has become readable by the second look,
//! it is busy. A path whose job keeps failing counts as different. A reload that concerns the target ends the comparison with
//! that target.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::monotonic;
use crate::control::{
    DifferenceKind, DifferenceRow, Differing, DifferingKind, Refusal, RefusalKind, Verified, VerifyLine, VerifyRequest,
    seconds,
};
use crate::ctime;
use crate::dispatch::Executor;
use crate::mirror::{Comparison, Difference, Differs, Look, can_count};
use crate::model::{Change, Job, JobState, Origin, RelPath, Scope, TargetTrouble, below_range};
use crate::queue::Queue;

use crate::daemon::named_target::NamedTarget;
use crate::daemon::root::RootRuntime;

/// Differences held in memory at a time.
const CHUNK: usize = 10_000;
/// How often a chunk is looked at again before its restless paths are called busy.
const ROUNDS_MAX: u32 = 5;
/// A recent change in a directory without a watch is sent again at each look at that directory, until `ctime::MARGIN` has
/// passed. So the rounds together have to last longer than that margin.
const UNWATCHED_PAUSE: Duration = Duration::from_secs(3);
const _: () = assert!(UNWATCHED_PAUSE.as_secs() * (ROUNDS_MAX as u64 - 1) > ctime::MARGIN.as_secs());
/// How long the jobs of one target are waited for in total, and how often they are checked.
const JOBS_PATIENCE: Duration = Duration::from_secs(60);
const JOBS_POLL: Duration = Duration::from_millis(20);
/// How long the watcher's answer to a barrier is waited for.
const BARRIER_PATIENCE: Duration = Duration::from_secs(10);
/// A job with at least this many failures, whose newest change is at least this old, is no longer waited for. Fewer failures,
/// or a more recent change, are normal in a tree that changes.
const FAILURES_MIN: u32 = 3;
const CHANGE_AGE_MIN: Duration = Duration::from_secs(10);
/// The most jobs about one path that are examined.
const JOBS_LOOKED_AT: usize = 16;
/// The least and the greatest budget, in bytes per second.
const BUDGET_BYTES: std::ops::RangeInclusive<f64> = 1e5..=1e13;

/// The options of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    look: Look,
    repair: bool,
}

impl Wanted {
    pub fn new(request: &VerifyRequest) -> Result<Self, Refusal> {
        let bytes_per_s = match request.budget_mb_s.map(|budget| budget * 1e6) {
            None => None,
            Some(bytes) if !BUDGET_BYTES.contains(&bytes) => {
                let message = "the budget is out of range";
                return Err(Refusal::new(RefusalKind::Wrong, message, "give megabytes a second, 0.1 or more"));
            }
            Some(_) if !can_count() => {
                let message = "a budget cannot be kept here: the kernel does not tell what processes read";
                let hint = "it needs /proc/PID/io (CONFIG_TASK_IO_ACCOUNTING); leave the budget out";
                return Err(Refusal::new(RefusalKind::Unavailable, message, hint));
            }
            Some(bytes) => Some(bytes as u64),
        };
        Ok(Self { look: Look { checksum: request.checksum, bytes_per_s }, repair: request.repair })
    }
}

/// Hands `each` every difference that a reconcile would remove, as far as that is known beforehand.
pub(crate) fn survey(
    executor: &Executor,
    target: &NamedTarget,
    path: &RelPath,
    each: &mut dyn FnMut(DifferenceRow) -> ControlFlow<()>,
    is_wanted: &dyn Fn() -> bool,
) -> Result<ControlFlow<()>, Refusal> {
    let Some(context) = executor.context(target.id) else { return Ok(ControlFlow::Continue(())) };
    let mut comparison = executor.compare(&context, Look::default(), is_wanted);
    let refused = |trouble: TargetTrouble| {
        let hint = trouble.hint.unwrap_or_else(|| "see syncq status".to_owned());
        Refusal::new(RefusalKind::Unavailable, format!("{}: {}", target.name, trouble.message), hint)
    };
    let mut found = comparison.below(path).map_err(refused)?;
    loop {
        let chunk = found.next(CHUNK).map_err(refused)?;
        if chunk.is_empty() {
            break;
        }
        for Difference { path, what } in chunk {
            let change = match what {
                Differs::Extra => DifferenceKind::Delete,
                Differs::Unreadable(_) => continue,
                _ => DifferenceKind::Send,
            };
            if each(DifferenceRow::new(&path, change, &target.root, &target.name)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    match found.is_cut() {
        true => Err(refused(too_many("look at a part: --path PATH"))),
        false => Ok(ControlFlow::Continue(())),
    }
}

/// Waits until the queue knows every change made up to now. If the watcher does not answer in time, changes are noticed by
/// their times alone.
pub(crate) fn barrier(root: &RootRuntime) {
    if let Ok(reached) = root.barrier() {
        let _ = reached.recv_timeout(BARRIER_PATIENCE);
    }
}

/// The comparison with one target.
pub(super) struct Verification<'a> {
    pub queue: &'a Queue,
    pub executor: &'a Executor,
    pub root: &'a RootRuntime,
    pub target: &'a NamedTarget,
    pub wanted: Wanted,
    pub is_wanted: &'a dyn Fn() -> bool,
}

/// The result so far.
struct Progress {
    verified: Verified,
    /// The remaining time that jobs may be waited for.
    patience: Duration,
}

/// The state of a source path at a moment: the number of missing names, then inode and change time of what is there.
type Print = (usize, u64, i64, i64);

impl Verification<'_> {
    /// Compares `path` and everything below it, and hands the lines to `each`.
    pub fn run(&self, path: &RelPath, each: &mut dyn FnMut(VerifyLine) -> ControlFlow<()>) -> ControlFlow<()> {
        let begun = monotonic();
        let (root, target) = (self.target.root.display().to_string(), self.target.name.clone());
        let verified = Verified { target, root, ..Verified::default() };
        let mut progress = Progress { verified, patience: JOBS_PATIENCE };
        let Some(context) = self.executor.context(self.target.id) else {
            let TargetTrouble { message, hint, .. } = reloaded();
            return each(VerifyLine::Target(Verified { error: Some(message), hint, ..progress.verified }));
        };
        // A difference cannot be told from the effect of a reload, so a reload of this target ends the comparison.
        let is_current = || self.executor.context(self.target.id).is_some_and(|now| Arc::ptr_eq(&now, &context));
        let is_wanted = || (self.is_wanted)() && is_current();
        let current = Verification { is_wanted: &is_wanted, ..*self };
        let mut comparison = self.executor.compare(&context, self.wanted.look, &is_wanted);
        let result = current.compare(&mut comparison, path, &mut progress, each);
        // From here on nobody needs the record of ended runs.
        self.queue.take_ends(self.target.id);
        let mut verified = progress.verified;
        match result {
            Ok(ControlFlow::Break(())) => return ControlFlow::Break(()),
            _ if !is_current() => (verified.error, verified.hint) = (Some(reloaded().message), reloaded().hint),
            Ok(ControlFlow::Continue(())) => {}
            Err(trouble) => (verified.error, verified.hint) = (Some(trouble.message), trouble.hint),
        }
        verified.bytes_read = comparison.bytes_read();
        verified.elapsed_s = seconds(begun.elapsed());
        each(VerifyLine::Target(verified))
    }

    fn compare(
        &self,
        comparison: &mut Comparison<'_>,
        path: &RelPath,
        progress: &mut Progress,
        each: &mut dyn FnMut(VerifyLine) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TargetTrouble> {
        let mut found = comparison.below(path)?;
        loop {
            let chunk = found.next(CHUNK)?;
            if chunk.is_empty() {
                break;
            }
            let (differing, busy) = self.confirm(comparison, chunk, progress)?;
            if !(self.is_wanted)() {
                // A client that is gone does not read this answer.
                return Err(reloaded());
            }
            if self.wanted.repair {
                progress.verified.repaired += self.repair(&differing);
                // A busy path may be sent twice, but a real difference among the busy paths must not remain.
                progress.verified.repaired += self.repair(&busy);
            }
            progress.verified.differences += differing.len() as u64;
            progress.verified.busy += busy.len() as u64;
            let differing = differing.into_iter().map(|difference| VerifyLine::Difference(self.line(difference)));
            let busy = busy.into_iter().map(|difference| VerifyLine::Busy(self.line(difference)));
            if differing.chain(busy).try_for_each(&mut *each).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if found.is_cut() { Err(too_many("look at a part: syncq verify PATH")) } else { Ok(ControlFlow::Continue(())) }
    }

    /// Looks at differences again until each is certain, gone or busy. Returns the certain ones and the busy ones.
    fn confirm(
        &self,
        comparison: &mut Comparison<'_>,
        mut open: Vec<Difference>,
        progress: &mut Progress,
    ) -> Result<(Vec<Difference>, Vec<Difference>), TargetTrouble> {
        let (mut certain, mut busy) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS_MAX {
            if round > 0 && self.root.watch_stats().unwatched > 0 {
                self.rest(UNWATCHED_PAUSE);
            }
            self.barrier();
            let newest = self.queue.newest_change(self.target.id);
            let mut waiting = Vec::new();
            open.retain(|difference| {
                let is_done = self.wait_for_jobs(&difference.path, newest, progress);
                if !is_done {
                    waiting.push(difference.clone());
                }
                is_done
            });
            busy.append(&mut waiting);
            // Start recording here: the runs that were waited for do not count.
            self.queue.record_ends(self.target.id);
            let prints: Vec<Print> = open.iter().map(|difference| self.print(&difference.path)).collect();
            let paths: Vec<RelPath> = open.iter().map(|difference| difference.path.clone()).collect();
            let unread: BTreeMap<RelPath, Differs> = open
                .into_iter()
                .filter(|difference| matches!(difference.what, Differs::Unreadable(_)))
                .map(|difference| (difference.path, difference.what))
                .collect();
            let mut differing = if paths.is_empty() { Default::default() } else { comparison.again(&paths)? };
            self.barrier();
            let newest = self.queue.newest_change(self.target.id);
            let rests = |path: &RelPath, print: Print| !self.has_job(path, newest) && self.print(path) == print;
            let restless: Vec<bool> = paths.iter().zip(prints).map(|(path, print)| !rests(path, print)).collect();
            // Take the ended runs after the check for jobs: a job above the path that was there at the first look may have
            // ended since.
            let ended = self.queue.take_ends(self.target.id).map(BTreeSet::from_iter);
            for (path, restless) in paths.into_iter().zip(restless) {
                let Some(what) = differing.remove(&path) else {
                    // Compared by itself, a directory that cannot be read looks equal, but its content has not been compared.
                    if let Some(what) = unread.get(&path).cloned() {
                        let is_certain = comparison.is_out_of_reach(&path);
                        if is_certain || self.is_directory(&path) {
                            let told = if is_certain { &mut certain } else { &mut busy };
                            told.push(Difference { path, what });
                        }
                    }
                    continue;
                };
                let rests = !restless && ended.as_ref().is_some_and(|ended| !touches(ended, &path));
                let difference = Difference { path, what };
                match (rests, round + 1 < ROUNDS_MAX) {
                    (true, _) => certain.push(difference),
                    (false, true) => waiting.push(difference),
                    (false, false) => busy.push(difference),
                }
            }
            open = waiting;
            if open.is_empty() {
                break;
            }
        }
        Ok((certain, busy))
    }

    fn barrier(&self) {
        barrier(self.root);
    }

    fn rest(&self, length: Duration) {
        let until = monotonic() + length;
        while (self.is_wanted)() && monotonic() < until {
            std::thread::sleep(JOBS_POLL);
        }
    }

    /// Waits until no job is left that stands for a change of the path up to number `newest`. Returns whether that came true.
    fn wait_for_jobs(&self, path: &RelPath, newest: u64, progress: &mut Progress) -> bool {
        while self.has_job(path, newest) {
            let standing = self.queue.standing(self.target.id);
            let is_held_up = standing.paused_since.is_some() || standing.trouble.is_some();
            if is_held_up || progress.patience.is_zero() || !(self.is_wanted)() {
                return false;
            }
            let began: Instant = monotonic();
            std::thread::sleep(JOBS_POLL);
            progress.patience = progress.patience.saturating_sub(began.elapsed());
        }
        true
    }

    /// Whether a job exists that is about the path and may still make it equal.
    fn has_job(&self, path: &RelPath, number: u64) -> bool {
        let jobs = self.queue.lacking(self.target.id, number, Some(path), JOBS_LOOKED_AT);
        jobs.iter().any(|job| !is_failing(job))
    }

    fn print(&self, path: &RelPath) -> Print {
        let own = std::iter::once(path.clone());
        let found = own.chain(path.ancestors()).enumerate().find_map(|(missing, path)| {
            let found = std::fs::symlink_metadata(path.under(self.root.path())).ok()?;
            Some((missing, found.ino(), found.ctime(), found.ctime_nsec()))
        });
        found.unwrap_or_default()
    }

    /// Queues what differs, and returns how many paths that is. An entry that is in excess or in the way is removed by a
    /// comparison of its parent directory, so that the limit on deletions holds.
    fn repair(&self, differing: &[Difference]) -> u64 {
        let mut levels = BTreeSet::new();
        let mut changes = Vec::new();
        for Difference { path, what } in differing {
            match what {
                Differs::Extra | Differs::Type => drop(levels.insert(self.directory_above(path))),
                Differs::Attributes => changes.push(Change::scan(path.clone(), Scope::Entry)),
                Differs::Unreadable(_) => continue,
                _ if self.is_directory(path) => changes.push(Change::scan(path.clone(), Scope::Entry)),
                // Write, not scan: rsync's quick check would miss a difference that only a comparison of contents has found.
                _ => changes.push(Change::write(path.clone())),
            }
        }
        let level = |path| Change { origin: Origin::Reconcile, ..Change::scan(path, Scope::Children) };
        changes.extend(levels.into_iter().map(level));
        self.queue.enqueue(&[self.target.id], &changes);
        let is_queued = |difference: &&Difference| !matches!(difference.what, Differs::Unreadable(_));
        differing.iter().filter(is_queued).count() as u64
    }

    fn directory_above(&self, path: &RelPath) -> RelPath {
        path.ancestors().find(|above| self.is_directory(above)).unwrap_or_else(RelPath::root)
    }

    fn is_directory(&self, path: &RelPath) -> bool {
        std::fs::symlink_metadata(path.under(self.root.path())).is_ok_and(|found| found.is_dir())
    }

    fn line(&self, difference: Difference) -> Differing {
        let Difference { path, what } = difference;
        let mut error = None;
        let kind = match what {
            Differs::Missing => DifferingKind::Missing,
            Differs::Type => DifferingKind::Type,
            Differs::Content => DifferingKind::Content,
            Differs::Size => DifferingKind::Size,
            Differs::Time => DifferingKind::Time,
            Differs::Attributes => DifferingKind::Attributes,
            Differs::Extra => DifferingKind::Extra,
            Differs::Unreadable(why) => {
                error = Some(why.to_string());
                DifferingKind::Unreadable
            }
        };
        Differing { error, ..Differing::new(&path, kind, &self.target.root, &self.target.name) }
    }
}

/// Whether a job has failed for longer than a recent change of its path would explain.
fn is_failing(job: &Job) -> bool {
    let is_old = job.due_at.since(job.changed_at) >= CHANGE_AGE_MIN;
    let meets_changes = job.last_error.as_ref().is_some_and(|error| error.code == Some(24));
    match job.state {
        JobState::Failed => true,
        JobState::Waiting => job.attempts >= FAILURES_MIN && is_old && !meets_changes,
        JobState::Ready | JobState::Running => false,
    }
}

/// Whether `ended` holds the path itself, a path above it or a path below it.
fn touches(ended: &BTreeSet<RelPath>, path: &RelPath) -> bool {
    if path.is_root() {
        return !ended.is_empty();
    }
    let (start, end) = below_range(path);
    let below = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
    ended.contains(path)
        || path.ancestors().any(|above| ended.contains(&above))
        || ended.range::<[u8], _>(below).next().is_some()
}

fn reloaded() -> TargetTrouble {
    TargetTrouble {
        class: crate::model::TroubleClass::Unavailable,
        code: None,
        message: "the configuration has changed meanwhile".to_owned(),
        hint: Some("see syncq status, and verify again".to_owned()),
        command: None,
    }
}

fn too_many(hint: &str) -> TargetTrouble {
    TargetTrouble {
        class: crate::model::TroubleClass::Unavailable,
        code: None,
        message: "there are more differences than can be told".to_owned(),
        hint: Some(hint.to_owned()),
        command: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Generation, JobError, JobId, TargetId, Timestamp};

    #[test]
    fn failures_that_follow_changes_are_no_reason_to_call_a_path_different() {
        let job = |state, attempts, due_s: u64, code| Job {
            id: JobId(1),
            target: TargetId(1),
            path: RelPath::root(),
            scope: Scope::Entry,
            origin: Origin::Write,
            state,
            generation: Generation::FIRST,
            queued_at: Timestamp(0),
            changed_at: Timestamp(1_000_000),
            attempts,
            due_at: Timestamp(1_000_000 + due_s * 1_000),
            partial: false,
            last_error: Some(JobError::new(Some(code), "it failed")),
        };
        for (state, attempts, due_s, code, failing) in [
            (JobState::Waiting, 3, 12, 23, true),
            (JobState::Waiting, 2, 12, 23, false),
            // The job has failed often, but its path changed a moment ago.
            (JobState::Waiting, 9, 2, 23, false),
            (JobState::Waiting, 9, 60, 24, false),
            (JobState::Failed, 1, 0, 24, true),
            (JobState::Ready, 9, 60, 23, false),
            (JobState::Running, 9, 60, 23, false),
        ] {
            assert_eq!(is_failing(&job(state, attempts, due_s, code)), failing, "{state:?} {attempts} {due_s} {code}");
        }
    }

    #[test]
    fn a_run_touches_its_path_those_above_and_those_below() {
        let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
        let ended = BTreeSet::from([path("d/e"), path("x.y")]);
        for (text, touched) in
            [("d/e", true), ("d", true), ("d/e/f", true), ("", true), ("d/f", false), ("x", false), ("x.y", true)]
        {
            assert_eq!(touches(&ended, &path(text)), touched, "{text}");
        }
        assert!(!touches(&BTreeSet::new(), &path("")));
    }
}
