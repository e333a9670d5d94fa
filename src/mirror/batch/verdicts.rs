//! Gives each job of a batch exactly one verdict: the worst of those that its runs came to.
//!
//! Deliberately absent: what a verdict does to a job (the queue).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::report::BatchReport;
use super::session::Execution;
use crate::mirror::outcome::classify::{Paths, Undone};
use crate::mirror::plan::planner::deletion_refused;
use crate::mirror::plan::run::{Deletion, Entry, Run, RunKind};
use crate::mirror::rsync::messages::Extent;
use crate::model::{ClaimedJob, Found, JobError, Origin, RelPath, Scope, Verdict};

impl<'a> Execution<'a> {
    pub(super) fn jobs_to_plan(&self) -> Cow<'a, [ClaimedJob]> {
        if self.trusted.is_empty() {
            return Cow::Borrowed(self.jobs);
        }
        let mut jobs = self.jobs.to_vec();
        for (_, job) in jobs.iter_mut().enumerate().filter(|(at, _)| self.trusted.contains(at)) {
            job.origin = job.origin.min(Origin::Scan);
        }
        Cow::Owned(jobs)
    }
}

impl Execution<'_> {
    /// Keeps the worse of two verdicts: a job may stand behind several list entries.
    pub(crate) fn settle(&mut self, job: usize, verdict: Verdict) {
        let rank = |verdict: &Verdict| match verdict {
            Verdict::Done => 0,
            Verdict::Above(_) | Verdict::LookAgain(_) => 1,
            Verdict::Large | Verdict::Released => 2,
            Verdict::Failed(_) => 3,
        };
        if let Some(kept) = self.verdicts.get_mut(job)
            && kept.as_ref().is_none_or(|kept| rank(kept) < rank(&verdict))
        {
            *kept = Some(verdict);
        }
    }

    /// Takes back that a job is done, since more has to be done for it.
    pub(crate) fn reopen(&mut self, job: usize) {
        if let Some(verdict) = self.verdicts.get_mut(job) {
            verdict.take_if(|verdict| *verdict == Verdict::Done);
        }
    }

    /// Gives every job of the run its verdict: done, unless `paths` says otherwise.
    pub(super) fn settle_rest(&mut self, run: &Run, paths: &Paths) {
        let deletes = run.looks_around();
        for (at, entry) in run.entries.iter().enumerate() {
            // A failed entry that was found below a sweep has no job yet; it becomes one.
            if entry.jobs.is_empty() {
                if let Some(error) = paths.failed.get(&at) {
                    self.found_entry(entry, error.clone());
                } else if paths.vanished.contains(&at) {
                    let error = JobError::new(Some(24), "the source changed while it was read");
                    self.found_entry(entry, error);
                }
            }
            for &job in &entry.jobs {
                let scope = self.jobs.get(job).map_or(Scope::Entry, |job| job.scope);
                let verdict = if let Some(error) = paths.failed.get(&at) {
                    Verdict::Failed(error.clone())
                } else if deletes && paths.deletions_skipped {
                    Verdict::Failed(JobError::new(
                        Some(23),
                        "rsync deletes nothing while part of the source is unreadable",
                    ))
                } else if paths.vanished.contains(&at) && !entry.orphan {
                    Verdict::LookAgain(scope)
                } else if deletes && self.deletion() == Deletion::Refused {
                    Verdict::Failed(deletion_refused())
                } else {
                    Verdict::Done
                };
                if verdict == Verdict::Done {
                    self.report.last_path = Some(entry.path.clone());
                }
                self.settle(job, verdict);
            }
        }
    }

    /// Keeps the failures of `run` at paths that no job named, each with how much it left undone. Below a tree, a directory
    /// that could not be made or read stands for everything in it.
    pub(crate) fn found(&mut self, run: &Run, found: BTreeMap<RelPath, Undone>) {
        for (path, Undone { error, extent }) in found {
            let over = run.entries.iter().filter(|entry| entry.path.covers(&path)).flat_map(|entry| &entry.jobs);
            let over: Vec<&ClaimedJob> = over.filter_map(|&job| self.jobs.get(job)).collect();
            let since = over.iter().map(|job| job.since).min();
            let is_whole = extent == Extent::Below && run.kind == RunKind::Tree;
            let (scope, origin) = match over.iter().map(|job| job.origin).max() {
                Some(origin) if is_whole => (Scope::Subtree, origin.max(run.origin)),
                None if is_whole => (Scope::Subtree, run.origin),
                // It is not known here whether the run looked at contents, so the new job distrusts them.
                _ => (Scope::Entry, Origin::Write),
            };
            self.report.found.push(Found { path, error, scope, origin, since });
        }
    }

    /// Keeps the failure of an entry without a job, such as one that was found below a sweep.
    pub(super) fn found_entry(&mut self, entry: &Entry, error: JobError) {
        self.report.found.push(Found::entry(entry.path.clone(), error));
    }

    pub(crate) fn is_done(&self, job: usize) -> bool {
        self.verdicts.get(job) == Some(&Some(Verdict::Done))
    }

    /// Marks the job as one whose path the quick check judges rightly.
    pub(crate) fn trust(&mut self, job: usize) {
        self.trusted.insert(job);
    }

    /// The job of the whole tree, if this batch has it and made the target equal.
    pub(crate) fn whole_tree_done(&self) -> Option<usize> {
        self.jobs.iter().zip(&self.verdicts).position(|(job, verdict)| {
            job.path.is_root() && job.scope == Scope::Subtree && *verdict == Some(Verdict::Done)
        })
    }

    pub(super) fn into_report(self) -> BatchReport {
        let Self { jobs, verdicts, mut report, .. } = self;
        let decided = jobs.iter().zip(verdicts);
        report.verdicts =
            decided.map(|(job, verdict)| (job.path.clone(), verdict.unwrap_or(Verdict::Released))).collect();
        report
    }
}
