//! What became of a batch, for whoever ran it: a verdict for each job, and what else there is to tell. Plain values.

use std::collections::BTreeSet;

use crate::mirror::target::observer::Changed;
use crate::model::{CutOff, Found, RelPath, TargetTrouble, Verdict};

/// Of the command lines that failed so many are reported.
pub(super) const COMMANDS_FAILED_MAX: usize = 4;

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
