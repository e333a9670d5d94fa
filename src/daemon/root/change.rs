//! What another configuration makes of a root that is watched already.
//!
//! A root may get other targets while it is watched ([`RootRuntime::retarget`]). Where it is to be watched under other
//! rules, another runtime starts beside it and takes over once it sees everything ([`RootRuntime::succeed`]), so that no
//! moment of the tree is unwatched. Until then the store's watermark is the older one's alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;

use super::fingerprint::Fingerprint;
use super::runtime::RootRuntime;
use super::sight::Suspension;
use super::state::{Known, Watching};
use crate::clock::monotonic;
use crate::model::{Change, TargetId};

/// How long a watcher may take to pass on what it has seen to the one that takes over. After that the targets are compared
/// in full instead.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

const OVER: &str = "it is no longer being watched";

impl RootRuntime {
    /// From now on changes go to these targets. Those that it did not have, or under other settings, are compared in full.
    /// The executor has to run by the new settings already: what is compared under the old ones would count.
    pub fn retarget(&self, fingerprints: Vec<Fingerprint>) {
        // Held until the jobs are there: a checkpoint takes whatever is a target for one that has its jobs.
        let mut targets = self.lock_targets();
        let is_new = |print: &&Fingerprint| !targets.contains(print);
        let new: Vec<TargetId> = fingerprints.iter().filter(is_new).map(|(target, _)| *target).collect();
        // A start after a crash, with the settings of before, shall not find them equal.
        self.queue.forget_complete(&new);
        // What they hold may have been sent from elsewhere, or left out on purpose.
        self.queue.distrust(&new);
        self.queue.enqueue(&new, &[Change::whole_tree()]);
        *targets = fingerprints;
        drop(targets);
        if !new.is_empty() {
            // The next checkpoint comes soon, whether something happens or not.
            let mut state = self.lock();
            (state.checkpoint.last, state.checkpoint.events) = (None, None);
            drop(state);
            self.notify();
            info!("{}: {} targets are compared in full", self.path().display(), new.len());
        }
    }

    /// Takes over from those that have watched the same tree so far, this one having been started beside them. Each passes
    /// on what it has seen, and ends. What had not arrived by then has jobs, so that only those targets are compared that
    /// are new or have new settings.
    pub fn succeed(&self, before: &[Arc<Self>]) {
        let had: Vec<Fingerprint> = before.iter().flat_map(|before| before.lock_targets().clone()).collect();
        let deadline = monotonic() + HAND_OVER_PATIENCE;
        // All of them, whatever the first one answers.
        let handed_over: Vec<bool> = before.iter().map(|before| before.hand_over(deadline)).collect();
        // The directories that the store knows came from another watcher.
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

    /// Passes on all that has happened up to now, then ends without another word to the store. Returns whether nothing
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
