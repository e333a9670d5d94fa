//! The state of a batch at work: its jobs, its target, and how it starts a run and stops.
//!
//! Every run is started here, after a check that source and target still are the ones that the batch was planned for.
//!
//! Deliberately absent: which runs there are (`execute` and what it uses), and what follows from the end of one (`engine`).

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::report::{BatchReport, COMMANDS_FAILED_MAX, FailedCommand};
use crate::mirror::outcome::classify::{Outcome, Paths, classify};
use crate::mirror::outcome::diagnosis::{Fallback, cannot_start, first_words, lacking_option};
use crate::mirror::plan::arguments::{Mode, Pass, arguments, list, probe_arguments};
use crate::mirror::plan::contents;
use crate::mirror::plan::narrow;
use crate::mirror::plan::run::{Deletion, Run};
use crate::mirror::plan::shell_line::pasteable;
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::{Cut, End, Ended};
use crate::mirror::rsync::itemize::DELETING;
use crate::mirror::rsync::stop::StopSignal;
use crate::mirror::target::capabilities::Capabilities;
use crate::mirror::target::context::TargetContext;
use crate::mirror::target::launch::{run_rsync, with_room};
use crate::mirror::target::looked::Contents;
use crate::mirror::target::observer::CHANGED_BYTES_MAX;
use crate::mirror::transport::standby::{self, Begun};
use crate::model::{ClaimedJob, CutOff, Lane, Origin, RelPath, TargetTrouble, Verdict};

/// A batch starts at most this many rsyncs; jobs undecided then are released. Halving a batch of 1,000 down to one guilty
/// path takes about 20.
const RUNS_MAX: u32 = 64;
/// How many bytes of a dry run's output are kept. A path in the part that is cut off counts as differing.
pub(super) const DRY_OUTPUT_BYTES_MAX: usize = 32 << 20;
/// How many bytes are kept of the output of a run that lists directories or deletes. Without options of the user's such a
/// run prints a line at most.
const WORDS_BYTES_MAX: usize = 64 << 10;
/// How many bytes are kept of the output of a count: its end, where the figures are.
const COUNT_OUTPUT_BYTES_MAX: usize = 16 << 10;

/// Why a batch does not go on as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The plan relied on an option that the target turned out to lack.
    Replan,
    /// Nothing more can be done in this batch.
    Halt,
}

/// A batch at work. Jobs are named by their index in `jobs`.
pub(crate) struct Execution<'a> {
    pub(crate) ctx: &'a TargetContext,
    pub(crate) lane: Lane,
    pub(crate) jobs: &'a [ClaimedJob],
    pub(crate) stop: &'a StopSignal,
    pub(crate) rules: Vec<OsString>,
    pub(crate) verdicts: Vec<Option<Verdict>>,
    /// Jobs at whose paths the quick check can be trusted although they stand for writes.
    pub(crate) trusted: BTreeSet<usize>,
    pub(crate) runs_max: u32,
    /// Places where a file system is expected and none is mounted.
    pub(crate) unmounted: Vec<RelPath>,
    /// The options that the target was known to lack when the newest run began.
    pub(crate) known: Capabilities,
    /// The messages that any run to this target prints have been learned (see `noise`).
    pub(super) has_listened: bool,
    pub(crate) contents: Contents,
    /// A run over the whole tree has compared contents.
    pub(super) compared_contents: bool,
    pub(crate) report: BatchReport,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(ctx: &'a TargetContext, lane: Lane, jobs: &'a [ClaimedJob], stop: &'a StopSignal) -> Self {
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
}

impl Execution<'_> {
    /// Whether equal size and time mean equal content where no job says otherwise.
    pub(crate) fn vouches(&self) -> bool {
        self.contents == Contents::Vouched
    }

    /// Whether the path lies where a file system is expected and none is mounted.
    pub(super) fn is_unmounted(&self, path: &RelPath) -> bool {
        self.unmounted.iter().any(|place| place.covers(path))
    }

    /// Whether only rsync knows what the user's own options let it find, follow or spare.
    pub(crate) fn selects(&self) -> bool {
        self.ctx.target.options.params.selects()
    }

    pub(crate) fn deletion(&self) -> Deletion {
        self.ctx.capabilities.deletion(self.ctx.target.options.delete)
    }

    /// Whether rsync may first empty a directory that `run` deletes or replaces.
    pub(crate) fn empties(&self, run: &Run) -> bool {
        run.is_judged || !self.ctx.filter.has_expressions()
    }

    pub(crate) fn mode(&self, pass: Pass) -> Mode<'_> {
        self.ctx.mode(self.lane, pass, &self.rules)
    }

    /// Starts one rsync, if source and target still are what they were. `None`: nothing was started and the batch is over.
    pub(crate) fn start(&mut self, planned: &Run, pass: Pass) -> Option<(Ended, String)> {
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
            empties: self.empties(planned) || pass != Pass::Real,
            ..mode
        };
        let args = arguments(&self.ctx.target, planned, mode);
        self.report.runs += 1;
        let command = pasteable(&self.ctx.root, &args, planned);
        // These words are sersync's: people search logs for them, then copy the command that follows and run it by hand.
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
                // A root that went away at this moment makes the start fail like a missing program does.
                self.report.trouble = Some(self.ctx.check().err().unwrap_or_else(|| cannot_start(&error)));
                None
            }
        }
    }

    /// Runs a listing of the target. `None`: rsync could not be started.
    pub(super) fn list_target(&mut self, args: &[OsString], kept: Capture) -> Option<Ended> {
        self.launch_with(args, b"", &|| Some(kept.clone()))
    }

    /// Starts one rsync with exactly these arguments. `None`: it could not be started.
    pub(crate) fn launch(&mut self, args: &[OsString], list: &[u8]) -> Option<Ended> {
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

    /// Raises the batch's limit of runs: the runs that the size of the tree asks for do not count towards it.
    pub(super) fn allow_more(&mut self, runs: usize) {
        self.runs_max = self.runs_max.saturating_add(u32::try_from(runs).unwrap_or(u32::MAX));
    }

    pub(super) fn may_run(&mut self) -> bool {
        if self.stop.is_raised() {
            return false;
        }
        match self.ctx.check() {
            // A file system that was mounted or unmounted meanwhile makes the source another one than the batch was planned
            // for.
            Ok(()) => self.ctx.mounts.missing() == self.unmounted,
            Err(trouble) => {
                self.report.trouble = Some(trouble);
                false
            }
        }
    }

    /// Whether a local target still is what it was after a run. Its disk may have gone between the check before the run and
    /// rsync's own look, and then rsync's result is true of the mount point only.
    fn is_in_place(&mut self) -> bool {
        match self.ctx.place.as_ref().map(|place| place.check()) {
            Some(Err(trouble)) => {
                self.report.trouble = Some(trouble);
                false
            }
            Some(Ok(())) | None => true,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_raised()
    }

    /// Reads how a run ended. Messages of no known kind are first compared with those of a run that touches no path.
    pub(crate) fn understood(&mut self, run: &Run, ended: &Ended) -> Outcome {
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

    /// The meaning of a run's end for the batch. A stop of the whole service may reach rsync or its ssh before it reaches this
    /// process. An end that looks like the target's trouble then means nothing.
    pub(crate) fn meaning(&self, run: &Run, ended: &Ended) -> Outcome {
        match classify(ended, run, &self.ctx.prefixes, &self.ctx.noise) {
            Outcome::Target(_) | Outcome::Split(_) | Outcome::NoRoom { .. } if self.is_stopped() => Outcome::Void,
            outcome => outcome,
        }
    }

    /// The paths named by a run that changes nothing, or why the batch ends with that run.
    pub(super) fn told(&mut self, outcome: Outcome, command: String, ended: &Ended) -> Result<Paths, Flow> {
        match outcome {
            Outcome::Done => Ok(Paths::default()),
            Outcome::Paths(paths) => Ok(paths),
            Outcome::Fallback(fallback) => Err(self.fall_back(fallback, command, ended)),
            Outcome::Target(found) | Outcome::Split(found) | Outcome::NoRoom { trouble: found, .. } => {
                Err(self.halt(found, command))
            }
            Outcome::Blocked(..) | Outcome::Void => Err(Flow::Halt),
        }
    }

    pub(super) fn fall_back(&mut self, fallback: Fallback, command: String, ended: &Ended) -> Flow {
        // Another batch may have learned the same lack while this run was under way.
        if self.ctx.capabilities.learn(fallback) || !self.known.lacks(fallback) {
            return Flow::Replan;
        }
        let said = first_words(&ended.stderr.bytes());
        self.halt(lacking_option(&said), command)
    }

    pub(super) fn halt(&mut self, trouble: TargetTrouble, command: String) -> Flow {
        self.note(command.clone(), trouble.message.clone());
        self.report.trouble = Some(TargetTrouble { command: Some(command), ..trouble });
        Flow::Halt
    }

    pub(crate) fn note(&mut self, command: String, message: String) {
        if self.report.commands_failed.len() < COMMANDS_FAILED_MAX {
            self.report.commands_failed.push(FailedCommand { command, message });
        }
    }

    /// Notes that a run was cut off and that other runs do its work.
    pub(crate) fn note_cut(&mut self, cut: Cut) {
        let cut = if cut == Cut::Closed { CutOff::Closed } else { CutOff::Open };
        self.report.cut = self.report.cut.max(cut);
    }
}

/// Joins the output of the attempt over the standby with that of its repetition: rsync lists a path only in the run that
/// changed it, and observers need both.
fn after(before: Option<Capture>, ended: Ended) -> Ended {
    let Some(mut stdout) = before.filter(|said| !said.is_empty()) else { return ended };
    stdout.push(&ended.stdout.bytes());
    Ended { stdout, ..ended }
}
