//! The operators' side of a target's jobs: selecting them, and acting on them.

use std::ops::Bound;

use super::TargetQueue;
use super::pending_job::{PendingJob, State, Wait};
use crate::model::{Job, JobAction, JobError, RelPath};
use crate::store::TargetRecord;

/// The most jobs that one call looks at: the caller holds a lock that enqueuing waits for.
const LOOKS_MAX: usize = 20_000;

/// The most ends of runs that are noted. Above that, it is only known that there were many.
const ENDS_MAX: usize = 200_000;

/// Jobs that were selected, in the order of their paths.
#[derive(Debug, Default)]
pub struct Selected {
    /// The jobs as they were before anything was done to them.
    pub jobs: Vec<Job>,
    /// The path behind which the next call goes on; `None` at the end.
    pub next: Option<RelPath>,
}

impl TargetQueue {
    /// A queue without jobs of a target that the store knows.
    pub fn known(record: &TargetRecord) -> Self {
        Self { paused: record.paused_since.is_some(), ..Self::new(record.id) }
    }

    /// Selects up to `limit` jobs behind the path `after` for which `action` means something.
    pub fn select(
        &self,
        after: Option<&RelPath>,
        limit: usize,
        action: JobAction,
        wanted: &dyn Fn(&Job) -> bool,
    ) -> Selected {
        let start = after.map_or(Bound::Unbounded, |path| Bound::Excluded(path.as_bytes()));
        let mut selected = Selected::default();
        let mut last: Option<&RelPath> = None;
        for (looks, (path, job)) in self.jobs.range::<[u8], _>((start, Bound::Unbounded)).enumerate() {
            if selected.jobs.len() >= limit || looks >= LOOKS_MAX {
                selected.next = last.cloned();
                break;
            }
            last = Some(path);
            if is_open_to(job, action) {
                selected.jobs.extend(Some(job.to_job(self.target, path)).filter(wanted));
            }
        }
        selected
    }

    /// Does `action` to the job at `path`, if the job's state allows it.
    pub fn act(&mut self, path: &RelPath, action: JobAction) {
        let Some(job) = self.jobs.get_mut(path).filter(|job| is_open_to(job, action)) else { return };
        match action {
            JobAction::List => {}
            JobAction::Retry => {
                if job.state == State::Failed {
                    job.attempts = 0;
                }
                self.unplace(path);
                self.place(path, State::Ready);
                self.dirty.note(path);
            }
            JobAction::Purge => self.remove(path),
        }
    }

    /// The number of the newest change.
    pub fn newest_change(&self) -> u64 {
        self.changes
    }

    /// Returns at most `limit` jobs that stand for the change numbered `number` or an older one. With a path, only jobs
    /// that can be about it: the path's own job, those below, and those of the directories above.
    pub fn lacking(&self, number: u64, path: Option<&RelPath>, limit: usize) -> Vec<Job> {
        let all: Box<dyn Iterator<Item = (&RelPath, &PendingJob)>> = match path.filter(|path| !path.is_root()) {
            None => Box::new(self.jobs.iter()),
            Some(path) => {
                let own = self.jobs.get_key_value(path).into_iter();
                let above = path.ancestors().filter_map(|above| self.jobs.get_key_value(&above));
                Box::new(own.chain(above).chain(self.range_below(path)))
            }
        };
        let old = all.filter(|(_, job)| job.oldest_change() <= number);
        old.take(limit).map(|(path, job)| job.to_job(self.target, path)).collect()
    }

    /// Starts to note which runs end.
    pub fn record_ends(&mut self) {
        self.ended = Some(Vec::new());
    }

    /// Takes the paths of runs that ended since [`record_ends`](Self::record_ends). `None`: there were more than can be
    /// noted.
    pub fn take_ends(&mut self) -> Option<Vec<RelPath>> {
        self.ended.take().filter(|ended| ended.len() < ENDS_MAX)
    }

    pub(super) fn note_end(&mut self, path: &RelPath) {
        if let Some(ended) = self.ended.as_mut().filter(|ended| ended.len() < ENDS_MAX) {
            ended.push(path.clone());
        }
    }

    /// A job that waits for an operator to agree to its deletions, with its error.
    pub fn asks_for_approval(&self) -> Option<(RelPath, JobError)> {
        self.jobs.iter().find_map(|(path, job)| {
            let error = job.last_error.as_deref().filter(|error| error.asks_for_approval())?;
            Some((path.clone(), error.clone()))
        })
    }

    /// The job at `path`, or else the pending one above that does the work at `path`.
    pub fn job_for(&self, path: &RelPath) -> Option<Job> {
        let above = path.ancestors().filter_map(|above| self.jobs.get_key_value(&above));
        let mut near = self.jobs.get_key_value(path).into_iter().chain(above);
        let found = near.find(|(at, job)| job.scope.reaches(at, path));
        found.map(|(path, job)| job.to_job(self.target, path))
    }

    /// Whether a job is at the path or below it, or stands for all in a directory above that is not the root.
    pub fn is_about(&self, path: &RelPath) -> bool {
        self.job_for(path).is_some_and(|job| job.path == *path || !job.path.is_root())
            || self.range_below(path).next().is_some()
    }

    /// The path whose run in flight keeps the ready job at `path` from being run.
    pub fn blocker(&self, path: &RelPath) -> Option<RelPath> {
        self.jobs.get(path).filter(|job| job.state == State::Ready && self.is_excluded(path, job))?;
        let above = path.ancestors().find(|above| self.in_flight.contains_key(above));
        let below = || self.in_flight.keys().find(|flying| path.is_ancestor_of(flying)).cloned();
        let own = Some(path).filter(|path| self.in_flight.contains_key(*path)).cloned();
        // Jobs below come first: a subtree above may be in flight without being in the way.
        own.or_else(below).or(above)
    }
}

fn is_open_to(job: &PendingJob, action: JobAction) -> bool {
    match action {
        JobAction::List => true,
        JobAction::Retry => matches!(job.state, State::Failed | State::Waiting { why: Wait::Backoff, .. }),
        JobAction::Purge => !job.is_running(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Backoff, Change, Found, JobId, JobState, Lane, Origin, Scope, TargetId, Timestamp, Verdict};

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    struct Bench {
        queue: TargetQueue,
        ids: u64,
        now: Timestamp,
    }

    impl Bench {
        fn new() -> Self {
            let mut queue = TargetQueue::new(TargetId(1));
            queue.policy.attempts_max = 2;
            queue.policy.backoff = Backoff { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(60) };
            Self { queue, ids: 0, now: Timestamp(1_000_000) }
        }

        fn add(&mut self, change: Change) -> u64 {
            self.ids += 1;
            let id = JobId(self.ids);
            self.queue.enqueue(&change, self.now, || id);
            self.queue.check_invariants();
            self.queue.newest_change()
        }

        fn scan(&mut self, text: &str, scope: Scope) -> u64 {
            self.add(Change::scan(path(text), scope))
        }

        fn claim(&mut self, lane: Lane) -> Vec<String> {
            self.queue.claim(lane, 100, self.now).iter().map(|job| job.path.to_string()).collect()
        }

        fn finish(&mut self, text: &str, verdict: Verdict) {
            self.queue.finish(&path(text), verdict, Duration::ZERO, self.now, 0.5);
            self.queue.check_invariants();
        }

        fn fail(&mut self, text: &str) {
            self.now = self.now.after(Duration::from_secs(100));
            assert!(self.claim(Lane::Small).contains(&text.to_owned()), "{text} is ready");
            self.finish(text, Verdict::Failed(JobError::new(Some(23), "denied")));
        }

        fn state(&self, text: &str) -> Option<(JobState, u32)> {
            let jobs = self.queue.select(None, 100, JobAction::List, &|job| job.path == path(text)).jobs;
            jobs.first().map(|job| (job.state, job.attempts))
        }

        fn lacks(&self, number: u64) -> bool {
            !self.queue.lacking(number, None, 1).is_empty()
        }
    }

    #[test]
    fn a_retry_makes_ready_what_has_failed_and_nothing_else() {
        let mut bench = Bench::new();
        bench.scan("dead", Scope::Entry);
        bench.fail("dead");
        bench.fail("dead");
        bench.scan("backs-off", Scope::Entry);
        bench.fail("backs-off");
        bench
            .add(Change { settle: crate::model::Settle::Quiet(Duration::from_secs(5)), ..Change::write(path("open")) });
        assert_eq!(bench.state("dead"), Some((JobState::Failed, 2)));
        assert_eq!(bench.state("backs-off"), Some((JobState::Waiting, 1)));
        let selected = bench.queue.select(None, 100, JobAction::Retry, &|_| true);
        assert_eq!(selected.jobs.iter().map(|job| job.path.to_string()).collect::<Vec<_>>(), ["backs-off", "dead"]);
        for text in ["dead", "backs-off", "open"] {
            bench.queue.act(&path(text), JobAction::Retry);
            bench.queue.check_invariants();
        }
        assert_eq!(bench.state("dead"), Some((JobState::Ready, 0)), "begins anew");
        assert_eq!(bench.state("backs-off"), Some((JobState::Ready, 1)));
        assert_eq!(bench.state("open"), Some((JobState::Waiting, 0)), "is still being written");
    }

    #[test]
    fn a_purge_leaves_alone_what_is_being_sent() {
        let mut bench = Bench::new();
        bench.scan("a", Scope::Entry);
        assert_eq!(bench.claim(Lane::Small), ["a"]);
        bench.scan("b", Scope::Entry);
        assert_eq!(bench.queue.select(None, 100, JobAction::Purge, &|_| true).jobs.len(), 1);
        for text in ["a", "b"] {
            bench.queue.act(&path(text), JobAction::Purge);
            bench.queue.check_invariants();
        }
        assert_eq!((bench.state("a"), bench.state("b")), (Some((JobState::Running, 0)), None));
    }

    #[test]
    fn a_page_says_where_the_next_one_starts() {
        let mut bench = Bench::new();
        for n in 0..LOOKS_MAX + 10 {
            bench.ids += 1;
            let id = JobId(bench.ids);
            bench.queue.enqueue(&Change::scan(path(&format!("f{n:06}")), Scope::Entry), bench.now, || id);
        }
        let page = bench.queue.select(None, 10, JobAction::List, &|_| true);
        assert_eq!((page.jobs.len(), page.next), (10, Some(path("f000009"))));
        // A rare job is not searched for to the end while the lock is held.
        let rare = |job: &Job| job.path == path(&format!("f{:06}", LOOKS_MAX + 5));
        let page = bench.queue.select(None, 10, JobAction::List, &rare);
        assert_eq!(page.jobs.len(), 0);
        let page = bench.queue.select(page.next.as_ref(), 10, JobAction::List, &rare);
        assert_eq!((page.jobs.len(), page.next), (1, None));
    }

    #[test]
    fn what_changes_while_it_is_sent_is_lacking_until_it_was_sent_again() {
        let mut bench = Bench::new();
        let first = bench.scan("a", Scope::Entry);
        bench.claim(Lane::Small);
        let second = bench.scan("a", Scope::Entry);
        assert!(bench.lacks(first) && bench.lacks(second));
        bench.finish("a", Verdict::Done);
        assert!(!bench.lacks(first) && bench.lacks(second));
        bench.claim(Lane::Small);
        let third = bench.scan("a", Scope::Entry);
        bench.finish("a", Verdict::Released);
        assert!(bench.lacks(second), "nothing was sent");
        bench.claim(Lane::Small);
        bench.finish("a", Verdict::Done);
        assert!(!bench.lacks(third));
    }

    #[test]
    fn ends_are_noted_while_somebody_wants_to_know() {
        let mut bench = Bench::new();
        for text in ["before", "a", "a"] {
            bench.scan(text, Scope::Entry);
            bench.claim(Lane::Small);
            bench.finish(text, Verdict::Done);
            if text == "before" {
                bench.queue.record_ends();
            }
        }
        assert_eq!(bench.queue.take_ends(), Some(vec![path("a"), path("a")]));
        assert_eq!(bench.queue.take_ends(), None);
    }

    /// The change was once lost with a job that a subtree took over: a wait for it was over while the target lacked it.
    #[test]
    fn a_subtree_lacks_what_the_jobs_lacked_that_it_took_over() {
        let mut bench = Bench::new();
        let number = bench.scan("d/a", Scope::Entry);
        bench.scan("d", Scope::Subtree);
        assert_eq!(bench.state("d/a"), None);
        assert!(bench.lacks(number));
        bench.claim(Lane::Large);
        bench.finish("d", Verdict::Done);
        assert!(!bench.lacks(number));
    }

    /// The subtree's run may have listed the directory before the change.
    #[test]
    fn what_was_sent_below_a_subtree_in_flight_is_lacking_until_its_echo_is_done() {
        let mut bench = Bench::new();
        bench.scan("d", Scope::Subtree);
        assert_eq!(bench.claim(Lane::Large), ["d"]);
        let number = bench.add(Change::write(path("d/a")));
        assert_eq!(bench.claim(Lane::Small), ["d/a"]);
        bench.finish("d/a", Verdict::Done);
        assert!(bench.lacks(number));
        bench.finish("d", Verdict::Done);
        assert!(bench.lacks(number));
        bench.claim(Lane::Small);
        bench.finish("d/a", Verdict::Done);
        assert!(!bench.lacks(number));
    }

    /// The subtree's job is done, but for the path that its run stumbled over.
    #[test]
    fn a_path_that_failed_below_a_subtree_is_lacking_since_ever() {
        let mut bench = Bench::new();
        let number = bench.scan("d", Scope::Subtree);
        bench.claim(Lane::Large);
        bench.finish("d", Verdict::Done);
        let found = Found::entry(path("d/a"), JobError::new(Some(23), "denied"));
        bench.queue.add_failure(found, bench.now, 0.5, || JobId(99));
        assert!(bench.lacks(number) && bench.lacks(0));
    }

    #[test]
    fn about_a_path_are_its_own_job_those_below_and_those_above() {
        let mut bench = Bench::new();
        let number = bench.add(Change { origin: Origin::Write, ..Change::scan(path("d/e/f"), Scope::Entry) });
        for (about, expected) in
            [("d/e/f", true), ("d/e/f/g", true), ("d/e", true), ("d", true), ("d/e/other", false), ("x", false)]
        {
            let lacking = !bench.queue.lacking(number, Some(&path(about)), 1).is_empty();
            assert_eq!(lacking, expected, "{about}");
        }
        assert!(!bench.queue.lacking(number, Some(&RelPath::root()), 1).is_empty());
    }

    #[test]
    fn the_run_in_the_way_is_named() {
        let mut bench = Bench::new();
        bench.scan("d", Scope::Children);
        bench.claim(Lane::Small);
        bench.scan("d/a", Scope::Entry);
        bench.scan("x", Scope::Entry);
        assert_eq!(bench.queue.blocker(&path("d/a")), Some(path("d")));
        assert_eq!(bench.queue.blocker(&path("x")), None);
        assert_eq!(bench.queue.job_for(&path("d/a")).map(|job| job.path), Some(path("d/a")));
    }

    /// A file in a new directory was said to be equal while the directory's job, which sends it, was pending.
    #[test]
    fn the_job_of_a_path_may_be_its_directorys() {
        let mut bench = Bench::new();
        bench.scan("d", Scope::Children);
        bench.scan("d/a", Scope::Entry);
        bench.scan("t", Scope::Subtree);
        for (about, at) in
            [("d/a", Some("d/a")), ("d/b", Some("d")), ("d/e/c", None), ("t/u/v", Some("t")), ("x", None)]
        {
            assert_eq!(bench.queue.job_for(&path(about)).map(|job| job.path), at.map(path), "{about}");
        }
    }
}
