//! Carries a batch of jobs through: plans its runs, decides for each in which way it is carried out, and plans anew where the
//! target can do less than was thought.
//!
//! Deliberately absent: how one run is started (`session`) and carried through (`engine`), when and on which thread a batch
//! runs (`dispatch`), and what a verdict does to a job (the queue).

use super::filtered;
use super::rename;
use super::report::BatchReport;
use super::session::{Batch, Flow};
use super::short_list;
use super::stale_temporaries;
use super::sweep;
use super::times;
use crate::filter::Kind;
use crate::mirror::plan::planner::{Plan, plan};
use crate::mirror::plan::run::{Deletion, Entry, Run, RunKind};
use crate::mirror::plan::source::{Presence, Source};
use crate::mirror::rsync::stop::StopSignal;
use crate::mirror::target::context::TargetContext;
use crate::mirror::target::looked::Contents;
use crate::mirror::target::unvouched;
use crate::model::{ClaimedJob, JobError, Lane, Origin, RelPath, Timestamp, Verdict};
use crate::mounts::Mounts;

/// How often a batch is planned anew because the other side lacks an option. There are four such options.
const ROUNDS_MAX: u32 = 5;

/// Makes the target equal to the source at the paths of `jobs`.
pub fn execute(
    ctx: &TargetContext,
    lane: Lane,
    jobs: &[ClaimedJob],
    contents: Contents,
    now: Timestamp,
    stop: &StopSignal,
) -> BatchReport {
    let mut batch = Batch { contents, ..Batch::new(ctx, lane, jobs, filtered::drive, stop) };
    times::look(&mut batch, now);
    batch.work();
    if let Some(job) = batch.whole_tree_done() {
        stale_temporaries::drive(&mut batch, job, now);
        if batch.whole_tree_done().is_some() {
            if ctx.guard.whole_tree_done() {
                log::info!("{}: the whole tree has been compared, and what differed is there", ctx.target.name());
            }
            // What could not be read has jobs of its own, but may hold more than these speak of.
            batch.report.vouched =
                batch.compared_contents && batch.report.found.is_empty() && batch.unmounted.is_empty();
        }
    }
    batch.into_report()
}

impl Batch<'_> {
    fn work(&mut self) {
        self.hold_unmounted();
        rename::drive(self);
        if self.report.trouble.is_some() {
            return;
        }
        let jobs = self.jobs_to_plan();
        for _ in 0..ROUNDS_MAX {
            let undecided: Vec<usize> =
                self.verdicts.iter().enumerate().filter(|(_, v)| v.is_none()).map(|(at, _)| at).collect();
            if undecided.is_empty() || !self.may_run() {
                return;
            }
            let mut source = Source::new(&self.ctx.root);
            let undecided = self.without_excluded(undecided, &mut source);
            // Where rsync looks for itself, nothing is deleted by a name that the server could refuse.
            let deletion = match self.deletion() {
                Deletion::ByLevel if self.selects() => Deletion::ByName,
                deletion => deletion,
            };
            let Plan { mut runs, settled } =
                plan(&jobs, &undecided, self.lane, self.ctx.limits, deletion, &mut |path| source.look(path));
            for (job, verdict) in settled {
                self.settle(job, verdict);
            }
            self.spare_unmounted(&mut runs);
            let mut flow = short_list::attempt_together(self, &mut runs);
            let mut runs = runs.into_iter();
            while flow == Flow::Continue
                && let Some(run) = runs.next()
            {
                flow = self.drive(run);
            }
            if flow != Flow::Replan {
                return;
            }
        }
    }

    fn hold_unmounted(&mut self) {
        for (job, verdict) in self.jobs.iter().zip(&mut self.verdicts) {
            if let Some(place) = self.unmounted.iter().find(|place| place.covers(&job.path)) {
                *verdict = Some(Verdict::Failed(not_mounted(place, &self.ctx.mounts)));
            }
        }
    }

    /// Takes out of the runs what would delete on the target what is mounted at the source as a rule.
    fn spare_unmounted(&mut self, runs: &mut [Run]) {
        for place in self.unmounted.clone() {
            for run in &mut *runs {
                let holds_it = |entry: &Entry| entry.presence == Presence::Missing && entry.path.covers(&place);
                for entry in run.entries.extract_if(.., |entry| holds_it(entry)) {
                    for job in entry.jobs {
                        self.settle(job, Verdict::Failed(not_mounted(&place, &self.ctx.mounts)));
                    }
                }
                if run.entries.iter().any(|entry| entry.path.covers(&place)) {
                    run.skip.push(place.clone());
                }
            }
        }
    }

    /// Settles the jobs of what is excluded. The watcher makes none, but one may be older than the filter, or an operator's.
    fn without_excluded(&mut self, undecided: Vec<usize>, source: &mut Source) -> Vec<usize> {
        if !self.ctx.filter.has_expressions() {
            return undecided;
        }
        let (jobs, filter) = (self.jobs, &self.ctx.filter);
        let is_excluded = |at: &usize| {
            jobs.get(*at).is_some_and(|job| {
                let is_directory = source.look(&job.path) == Presence::Directory;
                filter.spares(&job.path, if is_directory { Kind::Directory } else { Kind::File })
            })
        };
        let (excluded, left): (Vec<usize>, Vec<usize>) = undecided.into_iter().partition(is_excluded);
        for job in excluded {
            self.settle(job, Verdict::Done);
        }
        left
    }

    fn drive(&mut self, run: Run) -> Flow {
        let run = Run { looks: run.looks || self.selects(), ..run };
        let is_whole = run.kind == RunKind::Tree && run.entries.iter().any(|entry| entry.path.is_root());
        if is_whole && !run.by_content && !self.vouches() && unvouched::is_small(self.ctx) {
            // Whatever was written is found by that as well.
            let origin = run.origin.min(Origin::Scan);
            self.compared_contents = true;
            return self.drive(Run { by_content: true, origin, ..run });
        }
        if sweep::concerns(self, &run) {
            return match sweep::drive(self, &run) {
                Flow::Continue => self.drive(Run { origin: Origin::Scan, ..run }),
                flow => flow,
            };
        }
        if run.looks_around() && self.ctx.filter.has_expressions() {
            return self.drive_filtered(run);
        }
        let max_delete = self.first_limit(&run);
        self.attempt(Run { max_delete, ..run })
    }
}

/// What a job is told that concerns what is not mounted.
fn not_mounted(place: &RelPath, mounts: &Mounts) -> JobError {
    let found = if mounts.has_any(place) {
        format!("another file system than before is mounted at {place}")
    } else {
        format!("no file system is mounted at {place}, where one was")
    };
    let hint =
        "nothing is sent or deleted there: mount the one that was; if its end is right: syncq accept-deletions TARGET";
    JobError::new(Some(JobError::DELETES_TOO_MUCH), format!("{found}; {hint}"))
}
