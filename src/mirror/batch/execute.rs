//! Carries a batch of jobs through: plans its runs, chooses for each the way in which it is carried out, and plans anew
//! where the target lacks something that the plan relied on.
//!
//! Deliberately absent: how one run is started (`session`) and carried through (`engine`), when and on which thread a batch
//! runs (`dispatch`), and what a verdict does to a job (the queue).

use super::filtered;
use super::rename;
use super::report::BatchReport;
use super::session::{Execution, Flow};
use super::short_list;
use super::stale_temporaries;
use super::sweep;
use super::times;
use super::work::{Next, Work};
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

/// How often a batch is planned anew because the other side lacks an option. Jobs still undecided then are released, and
/// the next batch knows what this one has learned about the target.
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
    let mut batch = Execution { contents, ..Execution::new(ctx, lane, jobs, stop) };
    times::look(&mut batch, now);
    batch.hold_unmounted();
    // The result is ignored: a move that could not be taken over is sent like any other change.
    let _ = batch.take_over_moved();
    if batch.report.trouble.is_none() {
        batch.plan_and_run();
    }
    if let Some(job) = batch.whole_tree_done() {
        batch.remove_stale_temporaries(job, now);
        if batch.whole_tree_done().is_some() {
            if ctx.guard.whole_tree_done() {
                log::info!("{}: the whole tree has been compared, and what differed is there", ctx.target.name());
            }
            // A path that could not be read has a job of its own, but more may differ below it than that job names.
            batch.report.vouched =
                batch.compared_contents && batch.report.found.is_empty() && batch.unmounted.is_empty();
        }
    }
    batch.into_report()
}

impl Execution<'_> {
    /// Takes over from its old name what was moved within the tree. An error ends only the taking over, not the batch.
    fn take_over_moved(&mut self) -> Result<(), Flow> {
        for moved in rename::find(self)? {
            if let Some((sent, old)) = rename::take_over(self, &moved)? {
                self.remove(vec![old])?;
                rename::taken_over(self, &moved, sent);
            }
        }
        Ok(())
    }

    fn remove_stale_temporaries(&mut self, job: usize, now: Timestamp) {
        let Some(entries) = stale_temporaries::find(self, job, now) else { return };
        let count = entries.len();
        if count == 0 || self.remove(entries).is_ok() {
            stale_temporaries::note_removed(self, count, now);
        }
    }

    /// Plans and runs the undecided jobs, and repeats this as long as the other side turns out to lack something.
    fn plan_and_run(&mut self) {
        let jobs = self.jobs_to_plan();
        for _ in 0..ROUNDS_MAX {
            let undecided: Vec<usize> =
                self.verdicts.iter().enumerate().filter(|(_, v)| v.is_none()).map(|(at, _)| at).collect();
            if undecided.is_empty() || !self.may_run() {
                return;
            }
            let mut source = Source::new(&self.ctx.root);
            let undecided = self.without_excluded(undecided, &mut source);
            // In a run where rsync looks for itself, rsync deletes without a list of names that the server could refuse.
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
            if self.run_all(runs) != Err(Flow::Replan) {
                return;
            }
        }
    }

    fn run_all(&mut self, mut runs: Vec<Run>) -> Result<(), Flow> {
        short_list::attempt_together(self, &mut runs)?;
        runs.into_iter().try_for_each(|run| self.carry_out_planned(run))
    }

    fn hold_unmounted(&mut self) {
        for (job, verdict) in self.jobs.iter().zip(&mut self.verdicts) {
            if let Some(place) = self.unmounted.iter().find(|place| place.covers(&job.path)) {
                *verdict = Some(Verdict::Failed(not_mounted(place, &self.ctx.mounts)));
            }
        }
    }

    /// Takes out of the runs every deletion on the target of a place whose file system is not mounted at the source now.
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

    /// Settles jobs at excluded paths as done. The watcher makes no such jobs, but a job may be older than the filter, or
    /// made by an operator.
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

    fn carry_out_planned(&mut self, run: Run) -> Result<(), Flow> {
        let mut run = self.compared(run);
        if sweep::concerns(self, &run) {
            for files in sweep::runs(self, &run) {
                self.allow_more(1);
                self.carry_out(vec![Work::Run(files)])?;
            }
            run = self.compared(Run { origin: Origin::Scan, ..run });
        }
        if run.looks_around() && self.ctx.filter.has_expressions() {
            return self.carry_out(Work::filtered(run));
        }
        let max_delete = self.first_limit(&run);
        self.carry_out(vec![Work::Run(Run { max_delete, ..run })])
    }

    /// Adds to the run how it compares. rsync looks for itself where only rsync knows what the user's options select. A
    /// small whole tree for whose contents nobody vouches is compared by content; that comparison finds written files as
    /// well.
    fn compared(&mut self, run: Run) -> Run {
        let run = Run { looks: run.looks || self.selects(), ..run };
        let is_whole = run.kind == RunKind::Tree && run.entries.iter().any(|entry| entry.path.is_root());
        if !is_whole || run.by_content || self.vouches() || !unvouched::is_small(self.ctx) {
            return run;
        }
        self.compared_contents = true;
        Run { by_content: true, origin: run.origin.min(Origin::Scan), ..run }
    }

    /// Deletes entries that are missing in the source, whatever kind of deletion the batch was planned with.
    fn remove(&mut self, entries: Vec<Entry>) -> Result<(), Flow> {
        let first = self.removal(entries.clone());
        match self.carry_out(vec![Work::Run(first)]) {
            Err(Flow::Replan) => {
                let again = self.removal(entries);
                self.carry_out(vec![Work::Run(again)])
            }
            done => done,
        }
    }

    /// Carries out `work` and all that follows from it. The stack needs no limit of its own: a step puts back parts of the
    /// piece that it was given, and there are never more parts than entries.
    fn carry_out(&mut self, work: Vec<Work>) -> Result<(), Flow> {
        let mut stack: Vec<Work> = work.into_iter().rev().collect();
        while let Some(work) = stack.pop() {
            match self.step(work) {
                Ok(next) => stack.extend(next.into_iter().rev()),
                Err(flow) => {
                    let given_up = stack.into_iter().filter_map(|work| match work {
                        Work::Reopen(jobs) => Some(jobs),
                        _ => None,
                    });
                    given_up.flatten().for_each(|job| self.reopen(job));
                    return Err(flow);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, work: Work) -> Next {
        match work {
            Work::Run(run) => self.begin(run),
            Work::Piece(run) => self.carry_through(run),
            Work::Survey(run) => filtered::survey(self, &run),
            Work::Send { run, entries, is_judged } => Ok(filtered::send(self, &run, entries, is_judged)),
            Work::Reopen(_) => Ok(Vec::new()),
        }
    }
}

/// The error of a job at a path where a file system is expected and not mounted.
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
