//! Whether the source, and its local targets, are still what they were. While a root is suspended nothing is sent or deleted.
//!
//! A root is suspended while its directory is missing, is another one than before, or is empty at the start though it was not
//! empty before. On its return the tree is watched anew and compared in full. Deliberately absent: when to look, which
//! [`RootRuntime::maintain`] decides.

use std::path::Path;
use std::sync::Arc;

use log::{error, info, warn};

use super::runtime::RootRuntime;
use super::sight::Suspension;
use super::state::Watching;
use crate::model::{Change, TargetTrouble};

impl RootRuntime {
    /// Checks that the source is there and is what it was. A source that is empty now, and was not when it was last mirrored,
    /// is most likely waiting for its content. Once the source is watched, events tell how it became empty.
    pub(super) fn look(&self) -> Result<(), Suspension> {
        self.identity.check(self.path()).map_err(|trouble| Suspension::now(trouble.message, trouble.hint))?;
        // The lock is not held while the file system is asked: `status` has to answer even if the file system hangs.
        let guarded = {
            let state = self.lock();
            !state.was_watched && !self.options.accept_root && !state.accepts_empty
        };
        if guarded && is_empty(self.path()) && self.queue.root_mark(self.path()).is_some() {
            let reason = format!("{} is empty, and was not when it was last mirrored", self.path().display());
            let hint = "mount or restore what was in it; if it is to be empty: syncq accept-deletions TARGET";
            return Err(Suspension::now(reason, Some(hint)));
        }
        Ok(())
    }

    pub(super) fn suspend(&self, suspended: Suspension) {
        let path = self.path().display();
        // Most reasons contain the path themselves.
        let reason = suspended.reason.strip_suffix(&format!(": {path}")).unwrap_or(&suspended.reason);
        error!("{path}: {reason}; nothing is sent or deleted until it is back");
        if let Some(hint) = &suspended.hint {
            error!("{}: hint: {hint}", self.path().display());
        }
        self.lock().suspended = Some(suspended);
    }

    pub(super) fn check(self: &Arc<Self>) {
        let now = self.look();
        let mut state = self.lock();
        match (&state.suspended, now) {
            (None, Err(suspended)) => {
                drop(state);
                self.suspend(suspended);
            }
            (Some(before), Err(suspended)) => {
                let since = before.since;
                state.suspended = Some(Suspension { since, ..suspended });
            }
            (Some(_), Ok(())) => {
                info!("{}: the source is back", self.path().display());
                state.suspended = None;
                let old = std::mem::take(&mut state.watching);
                drop(state);
                if let Watching::On(watcher) = old {
                    watcher.stop();
                }
                // The failure shows in `status`, and the next check meets it again.
                if let Err(failure) = self.watch() {
                    error!("{}: {failure}", self.path().display());
                    self.lock().suspended = Some(Suspension::now(failure.to_string(), failure.hint()));
                }
                self.queue.probe_now(&self.targets());
            }
            (None, Ok(())) if !state.remembered => {
                drop(state);
                let remembered = self.remember();
                self.lock().remembered |= remembered;
            }
            _ => {}
        }
    }

    /// Checks whether local targets are what they were. Each run checks too, but while nothing changes no run is started.
    pub(super) fn check_places(&self) {
        let places = self.places.lock().clone();
        for (target, place) in places {
            let found = place.check();
            if !self.queue.note_place(target, found.clone()) {
                continue;
            }
            match found {
                Err(TargetTrouble { message, hint, .. }) => {
                    error!("{message}; nothing is sent there until it is back");
                    hint.iter().for_each(|hint| warn!("hint: {hint}"));
                }
                Ok(()) => {
                    info!("{}: the target is back, and is compared", place.path().display());
                    // The target may have been used for something else meanwhile, so it is compared in full.
                    self.queue.enqueue(&[target], &[Change::whole_tree()]);
                }
            }
        }
    }

    /// Records in the store which directory this is, and returns whether it did. An empty directory is not recorded, since it
    /// may be a mount point.
    pub(super) fn remember(&self) -> bool {
        let counts = self.identity.check(self.path()).is_ok() && !is_empty(self.path());
        if counts {
            self.queue.set_root_mark(self.path(), self.identity.mark());
        }
        counts
    }

    /// Accepts that file systems below the root are no longer mounted.
    pub fn accept_unmounted(&self) {
        for place in self.mounts.accept_missing() {
            warn!(
                "{}: an operator has agreed to {place} being mounted no more, or something else there",
                self.path().display()
            );
        }
        self.notify();
    }

    /// Accepts the directory although it is empty. The next [`maintain`](Self::maintain) resumes the root.
    pub fn accept_empty(&self) {
        self.lock().accepts_empty = true;
        self.notify();
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}
