//! One watched root at run time: its parts, and how it starts, is maintained and ends.
//!
//! Deliberately absent: the moves of the watermark (`watermark`), where a start looks for changes (`catch_up`), whether the
//! source is what it was (`suspension`), and what becomes of a change (`sink`). Each is a part of [`RootRuntime`] in a file of
//! its own.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock::{moment, monotonic};
use crate::filter::Filter;
use crate::mirror::{Place, RootIdentity};
use crate::model::{RelPath, TargetId};
use crate::mounts::Mounts;
use crate::plugin::Follower;
use crate::queue::Queue;
use crate::watch::{WatchError, WatchStats, Watcher};

use super::fingerprint::Fingerprint;
use super::rules::Rules;
use super::sight::{Answered, Gone};
use super::state::{Checkpoint, Known, State, Watching};

const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// A watched root, its watcher, and its targets.
#[derive(Debug)]
pub struct RootRuntime {
    pub rules: Rules,
    pub filter: Arc<Filter>,
    pub identity: RootIdentity,
    /// The file systems mounted below the root.
    pub mounts: Arc<Mounts>,
    pub(super) options: StartOptions,
    pub(super) queue: Arc<Queue>,
    pub(super) targets: Mutex<Vec<Fingerprint>>,
    /// The places of local targets.
    pub(super) places: Mutex<Vec<(TargetId, Arc<Place>)>>,
    /// The follower that is told of every change, with `-m`.
    pub(super) follower: OnceLock<Arc<Follower>>,
    pub(super) state: Mutex<State>,
    pub(super) gone: Mutex<Gone>,
    /// Files that another rsync was seen to overwrite in this root again and again, the newest last.
    pub(super) answered: Mutex<Answered>,
    /// When the source was last looked at. The condition is signalled after each look.
    pub(super) looked: (Mutex<Instant>, Condvar),
    /// Rouses the thread that maintains the root.
    pub(super) notify: Sender<()>,
    notified: Receiver<()>,
}

/// What the start of the daemon asks of a root.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Compare every target in full, whatever the store knows.
    pub reconcile: bool,
    /// Take the directory as it is, even if it is another one than before or empty.
    pub accept_root: bool,
    /// The store has lost nothing that was ever written to it.
    pub store_is_whole: bool,
    /// Watch beside other runtimes of the same tree, until [`RootRuntime::succeed`].
    pub beside: bool,
}

impl RootRuntime {
    pub fn new(
        rules: Rules,
        filter: Arc<Filter>,
        identity: RootIdentity,
        mounts: Arc<Mounts>,
        options: StartOptions,
        targets: Vec<Fingerprint>,
        queue: Arc<Queue>,
    ) -> Self {
        let state = Mutex::new(State { in_charge: !options.beside, ..State::default() });
        let (targets, places, follower) = (Mutex::new(targets), Mutex::default(), OnceLock::new());
        let (notify, notified) = bounded(1);
        let (gone, answered, looked) = (Mutex::default(), Mutex::default(), (Mutex::new(monotonic()), Condvar::new()));
        Self {
            rules,
            filter,
            identity,
            mounts,
            options,
            queue,
            targets,
            places,
            follower,
            state,
            gone,
            answered,
            looked,
            notify,
            notified,
        }
    }

    /// Receives a token when [`maintain`](Self::maintain) may have something to do.
    pub fn notified(&self) -> &Receiver<()> {
        &self.notified
    }

    pub(super) fn notify(&self) {
        // A full channel already holds a token.
        let _ = self.notify.try_send(());
    }

    pub fn path(&self) -> &Path {
        &self.rules.path
    }

    /// The targets that changes go to.
    pub fn targets(&self) -> Vec<TargetId> {
        self.lock_targets().iter().map(|(target, _)| *target).collect()
    }

    pub fn has(&self, target: TargetId) -> bool {
        self.lock_targets().iter().any(|(id, _)| *id == target)
    }

    pub(super) fn lock_targets(&self) -> MutexGuard<'_, Vec<Fingerprint>> {
        self.targets.lock()
    }

    /// Has plugins told of every change from now on.
    pub fn follow(&self, follower: Arc<Follower>) {
        let _ = self.follower.set(follower);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Begins to watch. If the source is missing or not what it was, the root is suspended until it is back.
    pub fn start(self: &Arc<Self>) -> Result<(), WatchError> {
        if let Err(suspended) = self.look() {
            self.suspend(suspended);
            return Ok(());
        }
        if self.options.beside {
            let watcher = self.start_watcher(None)?;
            self.keep(watcher);
            return Ok(());
        }
        self.watch()
    }

    /// Sets the watches, which takes as long as a walk of the tree, and has the changes found that nobody watched. Live changes
    /// flow from the first watch on.
    pub(super) fn watch(self: &Arc<Self>) -> Result<(), WatchError> {
        if self.lock().over {
            return Ok(());
        }
        let (catch_up, known) = self.catch_up().map_or((None, Known::Nothing), |(since, known)| (Some(since), known));
        let complete = self.complete();
        if known == Known::Nothing {
            self.queue.forget_watermark(self.path());
        }
        let watcher = self.start_watcher(catch_up)?;
        self.compare(known, &complete);
        self.begin(watcher);
        if known == Known::Nothing {
            self.first_checkpoint();
        }
        Ok(())
    }

    /// Makes a started watcher the root's own, unless the root has ended meanwhile. Returns whether it did.
    pub(super) fn keep(&self, watcher: Watcher) -> bool {
        let mut state = self.lock();
        if state.over {
            // Unlock first: the watcher's thread may need the lock before it can end.
            drop(state);
            watcher.stop();
            return false;
        }
        state.watching = Watching::On(watcher);
        true
    }

    pub(super) fn begin(&self, watcher: Watcher) {
        let remembered = self.remember();
        if !self.keep(watcher) {
            return;
        }
        let mut state = self.lock();
        state.remembered |= remembered;
        state.was_watched = true;
        state.checkpoint = Checkpoint::default();
    }

    /// Does what is due: checks whether the source is what it was, and moves the watermark. Returns whether the root has to be
    /// maintained again soon.
    pub fn maintain(self: &Arc<Self>) -> bool {
        if !self.lock().in_charge {
            return true;
        }
        self.check();
        self.remember_mounts();
        self.check_places();
        self.note_look();
        self.advance();
        !self.is_at_rest()
    }

    /// Sets the places of the root's local targets.
    pub fn set_places(&self, places: Vec<(TargetId, Arc<Place>)>) {
        *self.places.lock() = places;
    }

    /// Records in the store which file systems are mounted below.
    fn remember_mounts(&self) {
        if let Some(mounts) = self.mounts.take_changed() {
            self.queue.set_mounts(self.path(), mounts);
        }
    }

    fn note_look(&self) {
        *self.looked.0.lock() = monotonic();
        self.looked.1.notify_all();
    }

    pub(super) fn note_gone(&self, paths: &[RelPath]) {
        let mut gone = self.gone.lock();
        paths.iter().for_each(|path| gone.note(path));
    }

    /// Whether the tree has been watched since the start.
    pub fn was_watched(&self) -> bool {
        self.lock().was_watched
    }

    pub fn watch_stats(&self) -> WatchStats {
        match &self.lock().watching {
            Watching::On(watcher) => watcher.stats(),
            _ => WatchStats::default(),
        }
    }

    /// Ends the watching, and moves the watermark as far as possible.
    pub fn stop(&self) {
        self.remember();
        self.remember_mounts();
        let mut state = self.lock();
        let watching = std::mem::take(&mut state.watching);
        let asked = state.checkpoint.asked.take();
        let Watching::On(watcher) = watching else {
            state.over = true;
            return;
        };
        drop(state);
        let asked_at = moment();
        // An earlier answer may still be in its channel. Its directories are needed, since the watcher does not report them
        // twice.
        let last = asked.map(|(_, reply)| reply).into_iter().chain([watcher.checkpoint()]);
        let deadline = monotonic() + LAST_PATIENCE;
        let answers: Option<Vec<_>> = last.map(|reply| reply.recv_deadline(deadline).ok()).collect();
        watcher.stop();
        self.lock().over = true;
        if let Some(answers) = answers
            && self.rules.keeps_watermark
            && self.lock().suspended.is_none()
        {
            let mut state = self.lock();
            state.checkpoint.reached = Some(asked_at);
            state.checkpoint.directories.extend(answers.into_iter().flatten());
            drop(state);
            self.settle(LAST_PATIENCE);
        }
    }
}
