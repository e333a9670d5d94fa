//! The result of a batch: a verdict for each job, and what else there is to tell. Plain values.

use std::collections::BTreeSet;

use crate::mirror::target::observer::Changed;
use crate::model::{CutOff, Found, RelPath, TargetTrouble, Verdict};

/// At most this many command lines of failed runs are reported.
pub(super) const COMMANDS_FAILED_MAX: usize = 4;

/// The result of a batch.
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
    /// The paths that the runs have changed on the target, if there is an observer.
    pub changed: Vec<Changed>,
    /// The runs changed more than could be kept in `changed`.
    pub changed_cut: bool,
    /// Paths at which a run found nothing to do.
    pub equal: BTreeSet<RelPath>,
    /// The state of the connections of runs that were cut off and begun again.
    pub cut: CutOff,
    /// The whole tree was compared by content and is equal.
    pub vouched: bool,
}

impl BatchReport {
    /// Withdraws the results of a batch that ran under settings no longer in force. An older run may have written last, so
    /// a job that is done does not count. The new settings may mend a failure or a trouble.
    pub fn disown(&mut self) {
        let ended = |verdict: &Verdict| matches!(verdict, Verdict::Done | Verdict::Failed(_));
        let ended = self.verdicts.iter_mut().filter(|(_, verdict)| ended(verdict));
        ended.for_each(|(_, verdict)| *verdict = Verdict::Released);
        self.found.clear();
        self.trouble = None;
        self.vouched = false;
    }
}

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCommand {
    /// The command line as a person may paste it into a shell.
    pub command: String,
    /// The failure, in one line.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::outcome::diagnosis::cannot_start;
    use crate::model::JobError;

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
