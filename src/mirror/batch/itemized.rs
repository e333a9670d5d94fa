//! Keeps for the observer which paths the runs of a batch changed, and at which paths they found nothing to do. `itemize`
//! and `observer` know how one line of rsync's is read.

use std::collections::BTreeSet;

use super::session::Execution;
use crate::mirror::outcome::classify::Outcome;
use crate::mirror::plan::arguments::Pass;
use crate::mirror::plan::run::{Entry, Run, RunKind};
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::ended::Ended;
use crate::mirror::rsync::itemize::{difference, to_path};
use crate::mirror::target::observer::{CHANGED_BYTES_MAX, Changed, Operation, changes};
use crate::mirror::transport::standby;
use crate::model::{Origin, RelPath};

impl Execution<'_> {
    /// Keeps the paths that a run says it changed, except those that failed. A run that broke off is no exception: a file
    /// that arrived is not sent again, so the observer would never hear of it later.
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
        // The temporary of a killed receiver was never at the source.
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

    /// Written files that the run found equal. Another run has carried them, perhaps one over the whole tree, and such a
    /// run does not report what nobody knew the target to lack.
    fn carried_by_others(&self, run: &Run, changed: &[Changed]) -> Vec<Changed> {
        let named: BTreeSet<&RelPath> = changed.iter().map(|changed| &changed.path).collect();
        let is_write =
            |&job: &usize| self.jobs.get(job).is_some_and(|job| job.origin >= Origin::Write && !job.is_safety_rerun);
        let is_one = |entry: &&Entry| {
            let is_file = matches!(entry.presence, Presence::File { .. });
            is_file && !named.contains(&entry.path) && entry.jobs.iter().any(is_write)
        };
        let update =
            |entry: &Entry| Changed { path: entry.path.clone(), operation: Operation::Update, directory: false };
        run.entries.iter().filter(is_one).map(update).collect()
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

    /// Keeps the paths that a run which names its changes did not name: nothing was sent there.
    pub(crate) fn note_equal(&mut self, run: &Run, ended: &Ended) {
        if !standby::suits(run, self.lane, Pass::Real) || ended.stdout.is_cut() {
            return;
        }
        let output = ended.stdout.bytes();
        let names = output.split(|&b| b == b'\n').filter_map(difference);
        let changed: BTreeSet<RelPath> = names.filter_map(|(name, _)| to_path(&name)).collect();
        let equal = run.entries.iter().map(|entry| &entry.path).filter(|path| !changed.contains(*path));
        self.report.equal.extend(equal.cloned());
    }
}
