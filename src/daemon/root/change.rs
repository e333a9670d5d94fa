//! The effects of a new configuration on a root that is watched already.
//!
//! A root may get other targets while it is watched ([`RootRuntime::retarget`]). If it has to be watched under other rules,
//! another runtime starts beside the old one and takes over once it sees everything ([`RootRuntime::succeed`]). So no moment of
//! the tree is unwatched. Until the hand-over the store's watermark belongs to the old runtime alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;

use super::fingerprint::Fingerprint;
use super::runtime::RootRuntime;
use super::sight::Suspension;
use super::state::{Known, Watching};
use crate::clock::monotonic;
use crate::model::{Change, TargetId};

/// How long a watcher may take to pass on to its successor what it has seen. After that the targets are compared in full
/// instead.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

const OVER: &str = "it is no longer being watched";

impl RootRuntime {
    /// Sends changes to these targets from now on. A target that is new or has other settings is compared in full. The executor
    /// has to run under the new settings already: a comparison under the old settings would count as complete.
    pub fn retarget(&self, fingerprints: Vec<Fingerprint>) {
        // Held until the jobs are queued: a checkpoint assumes that each target in this list already has its jobs.
        let mut targets = self.lock_targets();
        let is_new = |print: &&Fingerprint| !targets.contains(print);
        let new: Vec<TargetId> = fingerprints.iter().filter(is_new).map(|(target, _)| *target).collect();
        // After a crash, a start with the previous settings must not find these targets complete.
        self.queue.forget_complete(&new);
        // The content of these targets may have been sent from elsewhere, or left out on purpose.
        self.queue.distrust(&new);
        self.queue.enqueue(&new, &[Change::whole_tree()]);
        *targets = fingerprints;
        drop(targets);
        if !new.is_empty() {
            // Clearing both makes the next checkpoint due at once, even if no event comes.
            let mut state = self.lock();
            (state.checkpoint.last, state.checkpoint.events) = (None, None);
            drop(state);
            self.notify();
            info!("{}: {} targets are compared in full", self.path().display(), new.len());
        }
    }

    /// Takes over from the runtimes in `before`, which have watched the same tree so far; this one was started beside them.
    /// Each of them passes on what it has seen, and ends. Every change up to then has a job, so that only targets are compared
    /// that are new or have new settings. If a watcher did not answer in time, all targets are compared.
    pub fn succeed(&self, before: &[Arc<Self>]) {
        let had: Vec<Fingerprint> = before.iter().flat_map(|before| before.lock_targets().clone()).collect();
        let deadline = monotonic() + HAND_OVER_PATIENCE;
        // `collect` asks all of them, even if the first one fails.
        let handed_over: Vec<bool> = before.iter().map(|before| before.hand_over(deadline)).collect();
        // The directories in the store were recorded by another watcher, and this one does not know them.
        self.queue.forget_watermark(self.path());
        let watching = std::mem::take(&mut self.lock().watching);
        let is_watched = matches!(watching, Watching::On(_));
        let saw_all = is_watched && handed_over.iter().all(|all| *all);
        let known: Vec<TargetId> =
            self.lock_targets().iter().filter(|print| had.contains(print)).map(|(target, _)| *target).collect();
        self.compare(if saw_all { Known::Changes } else { Known::Nothing }, &known);
        match watching {
            Watching::On(watcher) => self.begin(watcher),
            other => self.lock().watching = other,
        }
        self.lock().in_charge = true;
    }

    /// Passes on everything that has happened up to now, then ends without touching the store again. Returns whether nothing
    /// can have been missed.
    fn hand_over(&self, deadline: Instant) -> bool {
        let passed_on = self.barrier();
        let saw_all = passed_on.is_ok_and(|passed_on| passed_on.recv_deadline(deadline).is_ok());
        self.abandon();
        saw_all
    }

    /// Ends the watching, and leaves the store as it is.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.in_charge = false;
        state.over = true;
        let watching = std::mem::replace(&mut state.watching, Watching::Off(Suspension::now(OVER, None::<String>)));
        drop(state);
        if let Watching::On(watcher) = watching {
            watcher.stop();
        }
    }
}
