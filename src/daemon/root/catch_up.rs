//! The start of a root: since when to look for changes, and which targets to compare in full.
//!
//! With a watermark a start looks only for changes since then. Without one (a first start, a boot, a clock set back, a store
//! that lost something) every target is compared in full. Deliberately absent: the look itself, which is the watcher's.

use std::time::Duration;

use log::{info, warn};

use super::fingerprint::Fingerprint;
use super::runtime::RootRuntime;
use super::state::Known;
use crate::clock::moment;
use crate::ctime;
use crate::model::{Change, Origin, RelPath, Scope, TargetId, changed_since, dated_since};
use crate::watch::CatchUp;

/// How far before the watermark a start looks after a boot or when the clock was set back. The writes of the last minutes
/// before a power cut may have reached the disk in another order, here and on a target of this machine.
const UNSURE_MARGIN: Duration = Duration::from_secs(600);

impl RootRuntime {
    /// Since when, and beside which known directories, to look for changes that nobody watched. `None` if that is unknown.
    pub(super) fn catch_up(&self) -> Option<(CatchUp, Known)> {
        let path = self.path();
        // A tree that was out of reach may have been changed on another machine, by another clock.
        if self.lock().was_watched || !(self.options.store_is_whole && self.rules.keeps_watermark) {
            return None;
        }
        let record = self.queue.root_record(path)?;
        let watermark = record.watermark?;
        if record.mark != Some(self.identity.mark()) {
            return None;
        }
        let now = moment();
        let (since, certainty) = match changed_since(watermark, now, ctime::MARGIN) {
            Some(since) => (since, Known::Changes),
            None => (dated_since(watermark, now, UNSURE_MARGIN), Known::Dates),
        };
        let records = self.queue.take_directories(path)?;
        let known =
            records.into_iter().map(|known| (known.id, (known.parent, known.name.into_boxed_slice()))).collect();
        Some((CatchUp { since, known }, certainty))
    }

    /// The targets that were complete at the watermark, under the settings of today.
    pub(super) fn complete(&self) -> Vec<TargetId> {
        let is_complete = |&&(target, fingerprint): &&Fingerprint| {
            self.queue.target_record(target).and_then(|record| record.complete_under) == Some(fingerprint)
        };
        self.lock_targets().iter().filter(is_complete).map(|(target, _)| *target).collect()
    }

    /// Has every target compared in full of which too little is known. A target that is not `complete` is one of them, however
    /// much is known of the tree.
    pub(super) fn compare(&self, known: Known, complete: &[TargetId]) {
        let targets = self.targets();
        let is_complete = |target: &TargetId| known > Known::Nothing && complete.contains(target);
        let unvouched: Vec<TargetId> = targets.iter().copied().filter(|target| !is_complete(target)).collect();
        self.queue.distrust(&unvouched);
        let compared = if known == Known::Changes { &unvouched } else { &targets };
        self.queue.enqueue(compared, &[Change::whole_tree()]);
        let path = self.path().display();
        match (compared.len(), known) {
            // With -m there are no targets.
            _ if targets.is_empty() => {}
            _ if self.options.reconcile && self.rules.events.delete => info!(
                "{path}: every target is compared in full, as was asked for; what the source lacks is deleted there, as far \
                 as nobody has to agree to that first"
            ),
            _ if self.options.reconcile => info!("{path}: every target is compared in full, as was asked for"),
            (0, _) if self.options.beside => info!("{path}: nothing has to be compared again"),
            (0, _) => info!("{path}: only what has changed since the last run is sent"),
            (1, Known::Changes) => info!("{path}: 1 target is compared in full"),
            (count, Known::Changes) => info!("{path}: {count} targets are compared in full"),
            (_, Known::Dates | Known::Nothing) => info!("{path}: every target is compared in full"),
        }
        if self.options.reconcile {
            self.reconcile();
        }
        // These jobs are held back while nothing is mounted there, and keep the target from passing for equal.
        for place in self.mounts.missing() {
            let what = if self.mounts.has_any(&place) { "another file system than before" } else { "no file system" };
            warn!("{}: {what} is mounted at {place}; nothing is sent or deleted there", self.path().display());
            self.queue.enqueue(&targets, &[Change::scan(place, Scope::Subtree)]);
        }
    }

    /// Compares the whole tree with every target.
    pub fn reconcile(&self) {
        self.compare_below(&RelPath::root(), &self.targets());
    }

    /// Compares a path and everything below it with the given targets.
    pub fn compare_below(&self, path: &RelPath, targets: &[TargetId]) {
        let change = Change { origin: Origin::Reconcile, ..Change::scan(path.clone(), Scope::Subtree) };
        self.queue.enqueue(targets, &[change]);
    }
}
