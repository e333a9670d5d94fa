//! Carries a batch of jobs through: plan, run, read the outcome, and where that is not enough fall back, verify or
//! halve until every job has exactly one verdict.
//!
//! Deliberately absent: when and on which thread a batch runs (`dispatch`), and what a verdict does to a job (the
//! queue).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use super::blocked;
use super::capture::Capture;
use super::changed::{CHANGED_BYTES_MAX, Changed, Operation, changes};
use super::command::{Mode, Pass, arguments, is_too_long, list, pasteable, probe_arguments};
use super::contents;
use super::context::{Capabilities, TargetContext};
use super::expand;
use super::fold;
use super::launch::{probe, run_rsync, with_room};
use super::leftovers;
use super::line::Extent;
use super::look::{Presence, Source};
use super::looked::Contents;
use super::narrow;
use super::outcome::{Outcome, Paths, Undone, classify};
use super::plan::{Deletion, Entry, Plan, Run, RunKind, deletion_refused, plan};
use super::recent;
use super::rename;
use super::run::{Cut, End, Ended};
use super::says::{self, DELETING, difference, full_directory, to_path};
use super::standby::{self, Begun};
use super::stop::StopSignal;
use super::times;
use super::trouble::{Fallback, cannot_start, lacking_option};
use super::unvouched;
use crate::filter::Kind;
use crate::model::{
    ClaimedJob, CutOff, Found, JobError, Lane, Origin, RelPath, Scope, TargetTrouble, Timestamp, Verdict,
};
use crate::mounts::Mounts;

/// A batch starts at most so many rsyncs; what is undecided then is released. Halving a batch of 1,000 down to one
/// guilty path takes about 20.
const RUNS_MAX: u32 = 64;

/// How often a batch is planned anew because the other side lacks an option. There are four such options.
const ROUNDS_MAX: u32 = 5;

/// Of a dry run so much output is kept. What does not fit counts as differing.
pub(super) const DRY_OUTPUT_BYTES_MAX: usize = 32 << 20;

/// Of what a run prints that lists directories or deletes so much is kept. Without options of the user's that is a line at most.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// Of a count the end is kept, where the figures are.
const COUNT_OUTPUT_BYTES_MAX: usize = 16 << 10;

/// A file larger than this may fail for lack of room while the target still takes others.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// Of the command lines that failed so many are reported.
const COMMANDS_FAILED_MAX: usize = 4;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct BatchReport {
    /// Exactly one for each job, in the order in which the jobs were given.
    pub verdicts: Vec<(RelPath, Verdict)>,
    /// Why the target (or the source) lets nothing through at present.
    pub trouble: Option<TargetTrouble>,
    /// How many rsyncs were started.
    pub runs: u32,
    /// A path that this batch made equal.
    pub last_path: Option<RelPath>,
    /// Failures at paths that no job named: below a level or a subtree.
    pub found: Vec<Found>,
    /// Command lines of runs that failed, for the log; at most `COMMANDS_FAILED_MAX`.
    pub commands_failed: Vec<FailedCommand>,
    /// What the runs have changed on the target, if there is an observer.
    pub changed: Vec<Changed>,
    /// More was changed than could be kept.
    pub changed_cut: bool,
    /// Paths at which a run found nothing to do.
    pub equal: BTreeSet<RelPath>,
    /// What became of the connections of runs that were cut off and begun again.
    pub cut: CutOff,
    /// The whole tree was compared by content and is equal.
    pub vouched: bool,
}

impl BatchReport {
    /// Takes back what came of the batch, since it was run under settings that hold no more. What was done may have come
    /// last, and what failed, or the trouble, may be what the new settings mend.
    pub fn disown(&mut self) {
        let ended = |verdict: &Verdict| matches!(verdict, Verdict::Done | Verdict::Failed(_));
        let ended = self.verdicts.iter_mut().filter(|(_, verdict)| ended(verdict));
        ended.for_each(|(_, verdict)| *verdict = Verdict::Released);
        self.found.clear();
        self.trouble = None;
        self.vouched = false;
    }
}

/// A run that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCommand {
    /// The line to paste into a shell.
    pub command: String,
    /// What went wrong, in one line.
    pub message: String,
}

/// Makes the target equal to the source at the paths of `jobs`.
pub fn execute(
    ctx: &TargetContext,
    lane: Lane,
    jobs: &[ClaimedJob],
    contents: Contents,
    now: Timestamp,
    stop: &StopSignal,
) -> BatchReport {
    let mut batch = Batch { contents, ..Batch::new(ctx, lane, jobs, stop) };
    times::look(&mut batch, now);
    batch.work();
    if let Some(job) = batch.whole_tree_done() {
        leftovers::drive(&mut batch, job, now);
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

/// What a run ended with that was begun before, over a standby. What it had changed by then is not named a second time.
fn after(before: Option<Capture>, ended: Ended) -> Ended {
    let Some(mut stdout) = before.filter(|said| !said.is_empty()) else { return ended };
    stdout.push(&ended.stdout.bytes());
    Ended { stdout, ..ended }
}

/// Whether a batch goes on after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// The plan was made for a target that can do more.
    Replan,
    /// Nothing more can be done for this batch.
    Halt,
}

/// A batch at work.
pub(super) struct Batch<'a> {
    pub(super) ctx: &'a TargetContext,
    lane: Lane,
    pub(super) jobs: &'a [ClaimedJob],
    stop: &'a StopSignal,
    rules: Vec<OsString>,
    verdicts: Vec<Option<Verdict>>,
    /// Jobs at whose paths the quick check can be trusted after all.
    trusted: BTreeSet<usize>,
    runs_max: u32,
    /// Where a file system is expected and none is mounted.
    pub(super) unmounted: Vec<RelPath>,
    /// What was known of the target when the newest run began.
    known: Capabilities,
    /// What runs to this target say in any case has been heard.
    has_listened: bool,
    contents: Contents,
    /// A run over the whole tree has compared contents.
    compared_contents: bool,
    report: BatchReport,
}

impl<'a> Batch<'a> {
    pub(super) fn new(ctx: &'a TargetContext, lane: Lane, jobs: &'a [ClaimedJob], stop: &'a StopSignal) -> Self {
        let (rules, verdicts) = (ctx.filter.rsync_rules(), vec![None; jobs.len()]);
        let (trusted, report, unmounted) = (BTreeSet::new(), BatchReport::default(), ctx.mounts.missing());
        let (contents, compared_contents) = (Contents::Vouched, false);
        Self {
            ctx,
            lane,
            jobs,
            stop,
            rules,
            verdicts,
            trusted,
            runs_max: RUNS_MAX,
            unmounted,
            known: ctx.capabilities.snapshot(),
            has_listened: false,
            contents,
            compared_contents,
            report,
        }
    }

    fn jobs_to_plan(&self) -> Cow<'a, [ClaimedJob]> {
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
            let mut flow = fold::attempt_together(self, &mut runs);
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

    /// Whether equal size and time mean equal content where no job says otherwise.
    pub(super) fn vouches(&self) -> bool {
        self.contents == Contents::Vouched
    }

    /// Whether the path lies where a file system is expected and none is mounted.
    pub(super) fn is_unmounted(&self, path: &RelPath) -> bool {
        self.unmounted.iter().any(|place| place.covers(path))
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

    /// What the quick check sees of the job's path is what there is to send.
    pub(super) fn trust(&mut self, job: usize) {
        self.trusted.insert(job);
    }

    /// Tells the observer, if there is one, of paths that changed in a run whose output did not say so.
    pub(super) fn note_taken_over(&mut self, changed: impl Iterator<Item = Changed>) {
        let mut bytes = 0;
        for changed in changed {
            bytes += changed.path.as_bytes().len();
            if bytes > CHANGED_BYTES_MAX {
                self.report.changed_cut = true;
                return;
            }
            self.report.changed.push(changed);
        }
    }

    pub(super) fn is_done(&self, job: usize) -> bool {
        self.verdicts.get(job) == Some(&Some(Verdict::Done))
    }

    pub(super) fn drive(&mut self, run: Run) -> Flow {
        let run = Run { looks: run.looks || self.selects(), ..run };
        let is_whole = run.kind == RunKind::Tree && run.entries.iter().any(|entry| entry.path.is_root());
        if is_whole && !run.by_content && !self.vouches() && unvouched::is_small(self.ctx) {
            // Whatever was written is found by that as well.
            let origin = run.origin.min(Origin::Scan);
            self.compared_contents = true;
            return self.drive(Run { by_content: true, origin, ..run });
        }
        if recent::concerns(self, &run) {
            return recent::drive(self, run);
        }
        if run.looks_around() && self.ctx.filter.has_expressions() {
            return self.drive_filtered(run);
        }
        let max_delete = self.first_limit(&run);
        self.attempt(Run { max_delete, ..run })
    }

    fn drive_filtered(&mut self, run: Run) -> Flow {
        for piece in narrow::pieces(run) {
            let flow = expand::drive(self, &piece);
            if flow != Flow::Continue {
                return flow;
            }
        }
        Flow::Continue
    }

    /// Whether only rsync knows what the user's own options let it find, follow or spare.
    pub(super) fn selects(&self) -> bool {
        self.ctx.target.options.params.selects()
    }

    /// A run like any other, but one that does not count towards the batch's limit: it is one of as many as the tree asks
    /// for.
    pub(super) fn attempt_more(&mut self, run: Run) -> Flow {
        self.runs_max = self.runs_max.saturating_add(1);
        self.attempt(run)
    }

    /// Runs rsync for `run` and settles its jobs, halving where one path sinks all.
    pub(super) fn attempt(&mut self, run: Run) -> Flow {
        if let Some(flow) = fold::attempt(self, &run) {
            return flow;
        }
        let run = Run { looks: run.looks || self.selects(), ..run };
        let mut halves = narrow::pieces(run);
        self.runs_max = self.runs_max.saturating_add(u32::try_from(halves.len().saturating_sub(1)).unwrap_or(u32::MAX));
        halves.reverse();
        while let Some(mut run) = halves.pop() {
            if run.entries.is_empty() {
                continue;
            }
            if is_too_long(&run) {
                let (first, second) = run.halves();
                halves.extend([second, first]);
                self.runs_max = self.runs_max.saturating_add(1);
                continue;
            }
            let Some((ended, command)) = self.start(&run, Pass::Real) else { return Flow::Halt };
            let mut outcome = self.understood(&run, &ended);
            self.note_changed(&run, &ended, &outcome);
            if let Some(flow) = self.go_on(&run, &ended, &mut halves) {
                if flow != Flow::Continue {
                    return flow;
                }
                continue;
            }
            let stuck = self.take_stuck(&mut run, &ended, &mut outcome);
            let flow = match outcome {
                Outcome::Done => {
                    self.note_equal(&run, &ended);
                    self.settle_rest(&run, &Paths::default());
                    Flow::Continue
                }
                Outcome::Paths(paths) => self.partial(run, paths, command, &mut halves),
                Outcome::Target(found) => self.halt(found, command),
                Outcome::Split(found) => self.split(run, ended.cut, found, command, &mut halves),
                Outcome::NoRoom { entry, trouble } => match self.sparing(&run) {
                    Some(sparing) => {
                        self.runs_max = self.runs_max.saturating_add(1);
                        halves.push(sparing);
                        Flow::Continue
                    }
                    None => self.no_room(&run, entry, trouble, command),
                },
                Outcome::Fallback(fallback) => self.fall_back(fallback, command, &ended),
                Outcome::Blocked(path, error) => {
                    halves.extend(self.blocked(run, ended.cut, path, error, command));
                    Flow::Continue
                }
                Outcome::Void => Flow::Halt,
            };
            if flow != Flow::Continue {
                return flow;
            }
            if let Some(run) = stuck {
                let flow = if run.is_judged || !self.ctx.filter.has_expressions() {
                    self.attempt(Run { looks: true, ..run })
                } else {
                    self.drive_filtered(run)
                };
                if flow != Flow::Continue {
                    return flow;
                }
            }
        }
        Flow::Continue
    }

    /// Reads what became of a run. Words that nobody knows are first held against those of a run about no path.
    pub(super) fn understood(&mut self, run: &Run, ended: &Ended) -> Outcome {
        let ctx = self.ctx;
        let outcome = self.meaning(run, ended);
        if !matches!(&outcome, Outcome::Paths(paths) if paths.unknown_words) || self.has_listened {
            return outcome;
        }
        self.has_listened = true;
        let args = probe_arguments(&ctx.target, self.mode(Pass::Real));
        let said = self.launch(&args, b"").filter(|ended| ended.end == End::Exit(0));
        if said.is_some_and(|ended| ctx.noise.learn(&ended.stderr.bytes())) {
            return self.meaning(run, ended);
        }
        outcome
    }

    /// What a run's end means for the batch. A stop of the whole service may have reached rsync, or its ssh, before it reached
    /// us: what then looks like the target's trouble means nothing.
    pub(super) fn meaning(&self, run: &Run, ended: &Ended) -> Outcome {
        match classify(ended, run, &self.ctx.prefixes, &self.ctx.noise) {
            Outcome::Target(_) | Outcome::Split(_) | Outcome::NoRoom { .. } if self.is_stopped() => Outcome::Void,
            outcome => outcome,
        }
    }

    /// Takes out of a run that went through what it could not delete in this way, as a run of its own.
    ///
    /// Under expressions a directory with something in it stays where it is until they have been asked about that. One
    /// that may not be written in, rsync opens only where it compares.
    fn take_stuck(&self, run: &mut Run, ended: &Ended, outcome: &mut Outcome) -> Option<Run> {
        let none = Paths::default();
        let failed = match &*outcome {
            Outcome::Done => &none,
            Outcome::Paths(paths) => paths,
            _ => return None,
        };
        let empties = self.empties(run);
        let (full, unsure) = if empties { (BTreeSet::new(), false) } else { full_directories(ended) };
        let is_stuck = |at: usize| {
            run.entries.get(at).is_some_and(|entry| match entry.presence {
                Presence::Directory | Presence::Unknown(_) => false,
                Presence::Missing => {
                    full.contains(&entry.path) || unsure || (failed.denied.contains(&at) && (!empties || !run.looks))
                }
                Presence::File { .. } | Presence::Other => full.contains(&entry.path),
            })
        };
        let stuck: BTreeSet<usize> = (0..run.entries.len()).filter(|&at| is_stuck(at)).collect();
        let deletes = matches!(self.deletion(), Deletion::ByName | Deletion::ByLevel);
        if stuck.is_empty() || run.compares() || !deletes {
            return None;
        }
        if let Outcome::Paths(paths) = outcome {
            paths.failed.retain(|at, _| !stuck.contains(at));
            paths.denied.retain(|at| !stuck.contains(at));
            if *paths == none {
                *outcome = Outcome::Done;
            }
        }
        let (apart, _) = run.clone().parted(|at| stuck.contains(&at));
        let apart = Run { kind: RunKind::Flat, with_contents: BTreeSet::new(), ..apart };
        for (_, entry) in run.entries.iter_mut().enumerate().filter(|(at, _)| stuck.contains(at)) {
            entry.jobs.clear();
        }
        Some(apart)
    }

    /// Whether what a run deletes or replaces is emptied first.
    fn empties(&self, run: &Run) -> bool {
        run.is_judged || !self.ctx.filter.has_expressions()
    }

    /// Some paths failed; the rest is done, if rsync said enough to know.
    fn partial(&mut self, run: Run, mut paths: Paths, command: String, halves: &mut Vec<Run>) -> Flow {
        let below = paths.found.values().map(|undone| &undone.error);
        let failures = paths.failed.values().chain(below).chain(paths.unattributed.as_ref());
        let message = failures.map(|error| error.message.clone()).next();
        if let Some(message) = message {
            self.note(command, message);
        }
        self.ctx.note_refused(&paths.refused);
        if let Some(error) = paths.unattributed.take() {
            // Words alone are no failure yet.
            if run.entries.len() == 1 && error.code != Some(0) {
                paths.failed.entry(0).or_insert(error);
            } else {
                match self.verify(&run) {
                    Ok(differing) => {
                        for at in differing {
                            paths.failed.entry(at).or_insert_with(|| error.clone());
                        }
                    }
                    Err(Flow::Continue) if run.entries.len() == 1 => {
                        paths.failed.entry(0).or_insert(error);
                    }
                    Err(Flow::Continue) => {
                        let (first, second) = run.halves();
                        halves.extend([second, first]);
                        return Flow::Continue;
                    }
                    Err(flow) => return flow,
                }
            }
        }
        self.found(&run, std::mem::take(&mut paths.found));
        if let Some(skip) = paths.to_skip(&run) {
            halves.push(Run { skip, ..run });
            return Flow::Continue;
        }
        if paths.deletions_skipped && !paths.failed.is_empty() && paths.failed.len() < run.entries.len() {
            // So it does for the others without what is listed and cannot be read.
            let (guilty, others) = run.parted(|at| paths.failed.contains_key(&at));
            let failed = paths.failed.into_values().enumerate().collect();
            self.settle_rest(&guilty, &Paths { failed, ..Paths::default() });
            halves.push(others);
            return Flow::Continue;
        }
        self.settle_rest(&run, &paths);
        Flow::Continue
    }

    /// A run was cut off, and what it was to do is done by another.
    pub(super) fn note_cut(&mut self, cut: Cut) {
        let cut = if cut == Cut::Closed { CutOff::Closed } else { CutOff::Open };
        self.report.cut = self.report.cut.max(cut);
    }

    /// Failures of `run` at paths that no job named, each with as much as it left undone: below a tree, a directory that
    /// could not be made or read stands for all that is in it.
    pub(super) fn found(&mut self, run: &Run, found: BTreeMap<RelPath, Undone>) {
        for (path, Undone { error, extent }) in found {
            let over = run.entries.iter().filter(|entry| entry.path.covers(&path)).flat_map(|entry| &entry.jobs);
            let over: Vec<&ClaimedJob> = over.filter_map(|&job| self.jobs.get(job)).collect();
            let since = over.iter().map(|job| job.since).min();
            let is_whole = extent == Extent::Below && run.kind == RunKind::Tree;
            let (scope, origin) = match over.iter().map(|job| job.origin).max() {
                Some(origin) if is_whole => (Scope::Subtree, origin.max(run.origin)),
                None if is_whole => (Scope::Subtree, run.origin),
                // Whether the run looked at contents is not known here.
                _ => (Scope::Entry, Origin::Write),
            };
            self.report.found.push(Found { path, error, scope, origin, since });
        }
    }

    /// An entry without a job, such as was found below a sweep, has failed.
    fn found_entry(&mut self, entry: &Entry, error: JobError) {
        self.report.found.push(Found::entry(entry.path.clone(), error));
    }

    /// Gives every job of the run its verdict: done, unless `paths` says otherwise.
    pub(super) fn settle_rest(&mut self, run: &Run, paths: &Paths) {
        let deletes = run.looks_around();
        for (at, entry) in run.entries.iter().enumerate() {
            // One that was found below a sweep becomes a job of its own.
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

    /// Asks rsync which entries still differ. `Err(Continue)`: it cannot tell.
    fn verify(&mut self, run: &Run) -> Result<BTreeSet<usize>, Flow> {
        // What rsync skips without a word that is known is not named as a difference either. So of single entries it is asked
        // to name those that are equal.
        let pass = if run.lists() { Pass::Show } else { Pass::Confirm };
        let Some((ended, _)) = self.start(run, pass) else { return Err(Flow::Halt) };
        if ended.end == End::Stopped {
            return Err(Flow::Halt);
        }
        let said = match self.understood(run, &ended) {
            Outcome::Done => Paths::default(),
            Outcome::Paths(paths) => paths,
            _ => return Err(Flow::Continue),
        };
        let cannot_tell = ended.stdout.is_cut() || !said.found.is_empty();
        if cannot_tell || (said.unattributed.is_some() && run.lists()) {
            return Err(Flow::Continue);
        }
        let output = ended.stdout.bytes();
        let names = |of: fn(&[u8]) -> Option<Vec<u8>>| -> BTreeSet<RelPath> {
            let names = output.split(|&b| b == b'\n').filter_map(of);
            names.filter_map(|name| to_path(&name)).collect()
        };
        let differing = names(|line| difference(line).map(|(name, _)| name));
        let equal = names(says::equal);
        let differs = |at: &usize| {
            let Some(entry) = run.entries.get(*at) else { return false };
            let is_there = matches!(entry.presence, Presence::File { .. } | Presence::Directory);
            let is_unnamed = said.unattributed.is_some() && is_there && !equal.contains(&entry.path);
            said.failed.contains_key(at)
                || said.vanished.contains(at)
                || (is_unnamed && !said.refuses(&entry.path))
                || differing.iter().any(|path| run.reaches(entry, path))
        };
        let differing: BTreeSet<usize> = (0..run.entries.len()).filter(differs).collect();
        if differing.is_empty() && said.unknown_words {
            // All is equal, and it says so all the same.
            self.ctx.noise.learn(&ended.stderr.bytes());
        }
        Ok(differing)
    }

    /// The run hung in a file, which fails alone. What is left to be run: all the rest, or both halves if it is not known
    /// which of the run's paths it was.
    pub(super) fn blocked(
        &mut self,
        run: Run,
        cut: Cut,
        path: Option<RelPath>,
        error: JobError,
        command: String,
    ) -> Vec<Run> {
        // Its receiver may still be writing what the connection held.
        self.note_cut(cut);
        self.note(command, error.message.clone());
        let is_suspect = |entry: &Entry| blocked::suspicion(&entry.path.under(&self.ctx.root)).is_some();
        let named = match &path {
            Some(path) => run.entries.iter().position(|entry| entry.path == *path),
            None if run.entries.len() > 1 => run.entries.iter().position(is_suspect),
            None => None,
        };
        let is_within = |path: &RelPath| run.entries.iter().any(|entry| run.reaches(entry, path));
        match (named, path) {
            (Some(at), _) => {
                let (guilty, others) = run.parted(|entry| entry == at);
                self.settle_rest(&guilty, &Paths { failed: BTreeMap::from([(0, error)]), ..Paths::default() });
                vec![others]
            }
            (None, Some(path)) if is_within(&path) && !run.skip.contains(&path) => {
                self.report.found.push(Found::entry(path.clone(), error));
                let skip = run.skip.iter().cloned().chain([path]).collect();
                vec![Run { skip, ..run }]
            }
            (None, _) if run.entries.len() > 1 => {
                let (first, second) = run.halves();
                vec![second, first]
            }
            (None, _) => {
                let failed = (0..run.entries.len()).map(|at| (at, error.clone())).collect();
                self.settle_rest(&run, &Paths { failed, ..Paths::default() });
                Vec::new()
            }
        }
    }

    /// The batch died. If the target is well, one path is to blame: alone it fails, among others it is searched for.
    fn split(&mut self, run: Run, cut: Cut, found: TargetTrouble, command: String, halves: &mut Vec<Run>) -> Flow {
        self.report.runs += 1;
        if let Err(trouble) = probe(self.ctx, self.stop) {
            return self.halt(trouble, command);
        }
        if self.is_stopped() {
            // The probe ended for that, and has said nothing of the target.
            return Flow::Halt;
        }
        // Its receiver may still be writing what the connection held.
        self.note_cut(cut);
        self.note(command, found.message.clone());
        if let [only] = run.entries.as_slice() {
            let error = JobError::new(found.code, found.message);
            for &job in &only.jobs {
                self.settle(job, Verdict::Failed(error.clone()));
            }
            if only.jobs.is_empty() {
                self.found_entry(only, error);
            }
            return Flow::Continue;
        }
        let (first, second) = run.halves();
        halves.extend([second, first]);
        Flow::Continue
    }

    /// A run that sends all makes a copy of each file first, also of what is equal: the same run with contents compared, which
    /// needs room for what differs alone.
    fn sparing(&self, run: &Run) -> Option<Run> {
        let sends_all = run.origin >= Origin::Write
            && self.ctx.capabilities.compares_contents()
            && !contents::are_few(&self.ctx.root, run);
        sends_all.then(|| Run { by_content: true, ..run.clone() })
    }

    /// A large file may be too large for a target that has room for others; when a small one does not fit, nothing
    /// does.
    fn no_room(&mut self, run: &Run, entry: Option<usize>, trouble: TargetTrouble, command: String) -> Flow {
        let guilty = match (entry, run.entries.as_slice()) {
            (None, [only]) => Some(only),
            (Some(at), entries) => entries.get(at),
            (None, _) => None,
        };
        let Some(guilty) =
            guilty.filter(|entry| matches!(entry.presence, Presence::File { size } if size > SMALL_BYTES_MAX && !entry.jobs.is_empty()))
        else {
            return self.halt(trouble, command);
        };
        for &job in &guilty.jobs {
            self.settle(job, Verdict::Failed(JobError::new(trouble.code, trouble.message.clone())));
        }
        self.note(command, trouble.message);
        Flow::Halt
    }

    pub(super) fn fall_back(&mut self, fallback: Fallback, command: String, ended: &Ended) -> Flow {
        // Another batch may have learned it while this run was under way.
        if self.ctx.capabilities.learn(fallback) || !self.known.lacks(fallback) {
            return Flow::Replan;
        }
        let said = super::trouble::first_words(&ended.stderr.bytes());
        self.halt(lacking_option(&said), command)
    }

    /// Starts one rsync, if the root still is what it was. `None`: nothing was started and the batch is over.
    pub(super) fn start(&mut self, planned: &Run, pass: Pass) -> Option<(Ended, String)> {
        let planned = &*narrow::prepared(planned, &self.ctx.root);
        if !self.may_run() || self.report.runs >= self.runs_max {
            return None;
        }
        self.known = self.ctx.capabilities.snapshot();
        let suits = standby::suits(planned, self.lane, pass);
        let itemized = pass == Pass::Real && (suits || self.ctx.observer().is_some());
        let mode = self.mode(if itemized { Pass::Itemized } else { pass });
        let mode = Mode {
            contents: mode.contents && (suits || !planned.are_new) && contents::are_few(&self.ctx.root, planned),
            empties: self.empties(planned) || !matches!(pass, Pass::Real),
            ..mode
        };
        let args = arguments(&self.ctx.target, planned, mode);
        self.report.runs += 1;
        let command = pasteable(&self.ctx.root, &args, planned);
        // sersync's words: people look for them, copy what follows and run it by hand.
        log::debug!("execute command: {command}");
        let stdout = || match pass {
            Pass::Real | Pass::Itemized if itemized => Some(Capture::new(CHANGED_BYTES_MAX, 0)),
            Pass::Real | Pass::Itemized => {
                let deletes = planned.entries.iter().any(|entry| entry.presence == Presence::Missing);
                let says = planned.lists() || deletes || self.ctx.keeps_words();
                says.then(|| Capture::new(WORDS_BYTES_MAX, WORDS_BYTES_MAX))
            }
            Pass::Show | Pass::Confirm => Some(Capture::new(DRY_OUTPUT_BYTES_MAX, 0)),
            Pass::Count => Some(Capture::new(0, COUNT_OUTPUT_BYTES_MAX).counting(DELETING)),
        };
        let list = list(planned);
        let standby = self.ctx.standby.as_deref();
        let begun = standby.filter(|_| suits && args == self.ctx.flat_arguments(planned.origin));
        let begun = begun.map_or(Begun::Not, |standby| standby.begin(&self.ctx.launch(), &list, stdout(), self.stop));
        let (args, before) = match begun {
            Begun::Answered(ended) => {
                self.ctx.note_cut(ended.cut);
                return Some((ended, command));
            }
            Begun::Not => (args, None),
            Begun::Unconfirmed(said) => (self.ctx.flat_arguments(Origin::Scan), Some(said)),
            Begun::CutOff(cut, said) => {
                self.ctx.note_cut(cut);
                self.note_cut(cut);
                (args, Some(said))
            }
        };
        if before.is_some() && !self.may_run() {
            return None;
        }
        let start = || run_rsync(self.ctx, &args, &list, &stdout, self.lane.into(), self.stop);
        let ended = with_room(self.ctx, planned, self.report.runs > 1, self.stop, &start);
        match ended {
            Ok(ended) => self.is_in_place().then(|| (after(before, ended), command)),
            Err(error) => {
                // A root that went away in this moment looks like a missing program.
                self.report.trouble = Some(self.ctx.check().err().unwrap_or_else(|| cannot_start(&error)));
                None
            }
        }
    }

    pub(super) fn mode(&self, pass: Pass) -> Mode<'_> {
        // With expressions rsync lists nothing by itself, except to find what it would delete: unfiltered, since the
        // expressions decide.
        let is_dry = !matches!(pass, Pass::Real | Pass::Itemized);
        Mode {
            lane: self.lane,
            deletion: self.deletion(),
            mkpath: self.ctx.capabilities.makes_path(),
            contents: self.ctx.capabilities.compares_contents(),
            rules: if is_dry && self.ctx.filter.has_expressions() { &[] } else { &self.rules },
            empties: is_dry || !self.ctx.filter.has_expressions(),
            pass,
            withheld: self.ctx.capabilities.withheld(),
        }
    }

    /// Keeps what a run says it changed, but for what failed. Of a run that broke off all is kept: what has arrived is
    /// not sent again, and would never be told of.
    pub(super) fn note_changed(&mut self, run: &Run, ended: &Ended, outcome: &Outcome) {
        if self.ctx.observer().is_none() {
            return;
        }
        let failed = |path: &RelPath| match outcome {
            Outcome::Paths(paths) => {
                paths.found.contains_key(path)
                    || paths.failed.keys().any(|&at| run.entries.get(at).is_some_and(|entry| entry.path == *path))
            }
            _ => false,
        };
        // What a killed receiver left was never at the source.
        let counts = |changed: &Changed| !failed(&changed.path) && !self.ctx.filter.is_leftover(&changed.path);
        let output = ended.stdout.bytes();
        let changed: Vec<Changed> = changes(&output, run.origin).filter(counts).collect();
        if *outcome == Outcome::Done && run.kind == RunKind::Flat && run.origin == Origin::Write {
            let carried = self.carried_by_others(run, &changed);
            self.report.changed.extend(carried);
        }
        self.report.changed.extend(changed);
        self.report.changed_cut |= ended.stdout.is_cut();
    }

    /// Files that were written and that the run found equal: another run has carried them, one over the whole tree perhaps,
    /// which tells of nothing that the target lacked.
    fn carried_by_others(&self, run: &Run, changed: &[Changed]) -> Vec<Changed> {
        let named: BTreeSet<&RelPath> = changed.iter().map(|changed| &changed.path).collect();
        let is_write = |&job: &usize| self.jobs.get(job).is_some_and(|job| job.origin >= Origin::Write && !job.repeats);
        let is_one = |entry: &&Entry| {
            let is_file = matches!(entry.presence, Presence::File { .. });
            is_file && !named.contains(&entry.path) && entry.jobs.iter().any(is_write)
        };
        let update =
            |entry: &Entry| Changed { path: entry.path.clone(), operation: Operation::Update, directory: false };
        run.entries.iter().filter(is_one).map(update).collect()
    }

    /// Keeps what a run that names its changes did not name: nothing was sent there.
    fn note_equal(&mut self, run: &Run, ended: &Ended) {
        if !standby::suits(run, self.lane, Pass::Real) || ended.stdout.is_cut() {
            return;
        }
        let output = ended.stdout.bytes();
        let names = output.split(|&b| b == b'\n').filter_map(difference);
        let changed: BTreeSet<RelPath> = names.filter_map(|(name, _)| to_path(&name)).collect();
        let equal = run.entries.iter().map(|entry| &entry.path).filter(|path| !changed.contains(*path));
        self.report.equal.extend(equal.cloned());
    }

    fn may_run(&mut self) -> bool {
        if self.stop.is_raised() {
            return false;
        }
        match self.ctx.check() {
            // A file system that has come or gone meanwhile makes it another source: the batch was planned for the first.
            Ok(()) => self.ctx.mounts.missing() == self.unmounted,
            Err(trouble) => {
                self.report.trouble = Some(trouble);
                false
            }
        }
    }

    /// Whether a local target is what it was after a run as well: its disk may have gone between our look and rsync's, and
    /// what rsync says is then true of the mount point.
    fn is_in_place(&mut self) -> bool {
        match self.ctx.place.as_ref().map(|place| place.check()) {
            Some(Err(trouble)) => {
                self.report.trouble = Some(trouble);
                false
            }
            Some(Ok(())) | None => true,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_raised()
    }

    /// The job of the whole tree, if this batch has it and made the target equal.
    fn whole_tree_done(&self) -> Option<usize> {
        self.jobs.iter().zip(&self.verdicts).position(|(job, verdict)| {
            job.path.is_root() && job.scope == Scope::Subtree && *verdict == Some(Verdict::Done)
        })
    }

    /// Lists the target. `None`: that could not be started.
    pub(super) fn list_target(&mut self, args: &[OsString], kept: Capture) -> Option<Ended> {
        self.launch_with(args, b"", &|| Some(kept.clone()))
    }

    /// Starts one rsync with these very arguments. `None`: that could not be done.
    pub(super) fn launch(&mut self, args: &[OsString], list: &[u8]) -> Option<Ended> {
        self.launch_with(args, list, &|| None)
    }

    fn launch_with(&mut self, args: &[OsString], list: &[u8], kept: &dyn Fn() -> Option<Capture>) -> Option<Ended> {
        if !self.may_run() {
            return None;
        }
        self.report.runs += 1;
        let ended = run_rsync(self.ctx, args, list, kept, self.lane.into(), self.stop).ok()?;
        self.is_in_place().then_some(ended)
    }

    pub(super) fn halt(&mut self, trouble: TargetTrouble, command: String) -> Flow {
        self.note(command.clone(), trouble.message.clone());
        self.report.trouble = Some(TargetTrouble { command: Some(command), ..trouble });
        Flow::Halt
    }

    pub(super) fn note(&mut self, command: String, message: String) {
        if self.report.commands_failed.len() < COMMANDS_FAILED_MAX {
            self.report.commands_failed.push(FailedCommand { command, message });
        }
    }

    /// Deletes entries that are missing in the source, whatever the batch's plan was made for.
    pub(super) fn remove(&mut self, entries: Vec<Entry>) -> Flow {
        let again = entries.clone();
        match self.attempt(self.removal(entries)) {
            Flow::Replan => self.attempt(self.removal(again)),
            flow => flow,
        }
    }

    /// What deletes entries that are missing in the source, and about which the filter has been asked.
    pub(super) fn removal(&self, entries: Vec<Entry>) -> Run {
        let mut source = Source::new(&self.ctx.root);
        let deletion = if self.selects() { Deletion::ByName } else { self.deletion() };
        let run = Run::deletion(deletion, entries, &mut |path| source.look(path));
        Run { is_judged: true, ..run }
    }

    pub(super) fn deletion(&self) -> Deletion {
        self.ctx.capabilities.deletion(self.ctx.target.options.delete)
    }

    /// Keeps the worse of two verdicts: a job may stand behind several list entries.
    pub(super) fn settle(&mut self, job: usize, verdict: Verdict) {
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

    /// Takes a job's verdict back, since more has to be done for it.
    pub(super) fn reopen(&mut self, job: usize) {
        if let Some(verdict) = self.verdicts.get_mut(job) {
            verdict.take_if(|verdict| *verdict == Verdict::Done);
        }
    }

    fn into_report(self) -> BatchReport {
        let Self { jobs, verdicts, mut report, .. } = self;
        let decided = jobs.iter().zip(verdicts);
        report.verdicts =
            decided.map(|(job, verdict)| (job.path.clone(), verdict.unwrap_or(Verdict::Released))).collect();
        report
    }
}

/// What a job is told that concerns what is not mounted.
fn not_mounted(place: &RelPath, mounts: &Mounts) -> JobError {
    let found = if mounts.has_any(place) {
        format!("another file system than before is mounted at {place}")
    } else {
        format!("no file system is mounted at {place}, where one was")
    };
    let hint = "nothing is sent or deleted there: mount the one that was; if its end is right: syncq accept-deletions";
    JobError::new(Some(JobError::DELETES_TOO_MUCH), format!("{found}; {hint}"))
}

/// The directories that a run has left alone since something is in them, and whether there may be more.
fn full_directories(ended: &Ended) -> (BTreeSet<RelPath>, bool) {
    let said = [ended.stdout.bytes(), ended.stderr.bytes()];
    let names = said.iter().flat_map(|said| said.split(|&b| b == b'\n')).filter_map(full_directory);
    (names.filter_map(|name| to_path(&name)).collect(), ended.stdout.is_cut())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe that ended after a reload had mended the configuration kept the target waiting for up to a minute more.
    #[test]
    fn what_came_of_settings_that_hold_no_more_is_taken_back() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let error = JobError::new(Some(23), "denied");
        let mut report = BatchReport {
            verdicts: vec![
                (path("done"), Verdict::Done),
                (path("failed"), Verdict::Failed(error.clone())),
                (path("large"), Verdict::Large),
            ],
            found: vec![Found::entry(path("below"), error)],
            trouble: Some(cannot_start(&std::io::ErrorKind::NotFound.into())),
            ..BatchReport::default()
        };
        report.disown();
        let verdicts: Vec<Verdict> = report.verdicts.into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(verdicts, [Verdict::Released, Verdict::Released, Verdict::Large]);
        assert!(report.found.is_empty() && report.trouble.is_none());
    }
}
