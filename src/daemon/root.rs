//! One watched root at run time: its watcher, its targets, and whether the source is what it was.
//!
//! A root is suspended while its directory is missing or another one than at the start: nothing is sent or deleted
//! then. [`RootRuntime::check`], called once a second, notices both that and the return; on the return the tree is
//! watched anew and compared in full. What happened meanwhile to the watcher itself is told by its notices.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use log::{error, info, warn};
use rustix::io::Errno;

use crate::filter::Filter;
use crate::mirror::RootIdentity;
use crate::model::{Change, Origin, RelPath, Root, Scope, TargetId};
use crate::plugin::Follower;
use crate::queue::Queue;
use crate::watch::{Notice, Sink, WatchError, WatchSettings, WatchStats, Watcher};

use super::sysctl;

/// How the watcher of a root stands.
#[derive(Debug, Default)]
enum Watching {
    /// Watches are being set.
    #[default]
    Starting,
    On(Watcher),
    /// The tree cannot be watched; why.
    Off(String),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct RootRuntime {
    pub config: Root,
    pub targets: Vec<TargetId>,
    pub filter: Arc<Filter>,
    identity: RootIdentity,
    quiet_period: Duration,
    hot_interval: Duration,
    queue: Arc<Queue>,
    /// Told of every change, with `-m`.
    follower: OnceLock<Arc<Follower>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watching: Watching,
    /// Why nothing is sent, if so.
    suspended: Option<String>,
    /// The store knows which directory this is.
    remembered: bool,
}

impl RootRuntime {
    pub fn new(
        config: Root,
        targets: Vec<TargetId>,
        filter: Arc<Filter>,
        identity: RootIdentity,
        settle: (Duration, Duration),
        queue: Arc<Queue>,
    ) -> Self {
        let (quiet_period, hot_interval) = settle;
        Self {
            config,
            targets,
            filter,
            identity,
            quiet_period,
            hot_interval,
            queue,
            follower: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.config.path
    }

    /// Has every change told to plugins from now on.
    pub fn follow(&self, follower: Arc<Follower>) {
        let _ = self.follower.set(follower);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the watches, which takes as long as a walk of the tree, and then has every target compared in full: what
    /// changed before has left no event. Live changes flow from the first watch on.
    pub fn watch(self: &Arc<Self>) -> Result<(), WatchError> {
        let settings = WatchSettings {
            root: self.config.path.clone(),
            events: self.config.events,
            filter: Arc::clone(&self.filter),
            quiet_period: self.quiet_period,
            hot_interval: self.hot_interval,
        };
        let sink = Arc::new(RootSink { root: Arc::clone(self) });
        match Watcher::start(settings, sink) {
            Ok(watcher) => {
                info!("watch path is: {} ({} directories)", self.path().display(), watcher.stats().watches);
                let remembered = self.remember();
                let mut state = self.lock();
                state.watching = Watching::On(watcher);
                state.remembered |= remembered;
                drop(state);
                self.reconcile();
                Ok(())
            }
            Err(failure) => {
                self.lock().watching = Watching::Off(failure.to_string());
                Err(failure)
            }
        }
    }

    /// Has the whole tree compared with every target.
    pub fn reconcile(&self) {
        let change = Change { origin: Origin::Reconcile, ..Change::scan(RelPath::root(), Scope::Subtree) };
        self.queue.enqueue(&self.targets, &[change]);
    }

    /// Looks whether the source is what it was.
    pub fn check(self: &Arc<Self>) {
        let now = self.identity.check(self.path()).map_err(|trouble| trouble.message);
        let mut state = self.lock();
        match (&state.suspended, now) {
            (None, Err(reason)) => {
                error!("{}: {reason}; nothing is sent or deleted until it is back", self.path().display());
                state.suspended = Some(reason);
            }
            (Some(before), Err(reason)) if *before != reason => state.suspended = Some(reason),
            (Some(_), Ok(())) => {
                info!("{}: the source is back", self.path().display());
                state.suspended = None;
                let old = std::mem::take(&mut state.watching);
                drop(state);
                if let Watching::On(watcher) = old {
                    watcher.stop();
                }
                // Another failure shows in `status`, and the next check finds it again.
                if let Err(failure) = self.watch() {
                    error!("{}: {failure}", self.path().display());
                    self.lock().suspended = Some(failure.to_string());
                }
                self.queue.hurry(&self.targets);
            }
            (None, Ok(())) if !state.remembered => state.remembered = self.remember(),
            _ => {}
        }
    }

    /// Notes in the store which directory this is, and returns whether it did. An empty one may be a mount point: what
    /// counts is the one with something in it.
    fn remember(&self) -> bool {
        let counts = self.identity.check(self.path()).is_ok() && !is_empty(self.path());
        if counts {
            self.queue.set_root_mark(self.path(), self.identity.mark());
        }
        counts
    }

    /// Why nothing is sent, if so.
    pub fn suspended(&self) -> Option<String> {
        let state = self.lock();
        state.suspended.clone().or_else(|| match &state.watching {
            Watching::Off(reason) => Some(reason.clone()),
            _ => None,
        })
    }

    pub fn is_starting(&self) -> bool {
        matches!(self.lock().watching, Watching::Starting)
    }

    pub fn watch_stats(&self) -> WatchStats {
        match &self.lock().watching {
            Watching::On(watcher) => watcher.stats(),
            _ => WatchStats::default(),
        }
    }

    pub fn stop(&self) {
        self.remember();
        let watching = std::mem::take(&mut self.lock().watching);
        if let Watching::On(watcher) = watching {
            watcher.stop();
        }
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Passes on what the watcher finds. Its own type, so that the root is no part of the watcher's surface.
struct RootSink {
    root: Arc<RootRuntime>,
}

impl Sink for RootSink {
    fn changes(&self, changes: Vec<Change>) {
        if let Some(follower) = self.root.follower.get() {
            follower.changes(self.root.path(), &changes);
        }
        self.root.queue.enqueue(&self.root.targets, &changes);
    }

    fn notice(&self, notice: Notice) {
        let root = self.root.path().display();
        match notice.hint() {
            Some(hint) => warn!("{root}: {notice}; hint: {hint}"),
            None => warn!("{root}: {notice}"),
        }
        match notice {
            Notice::RootGone { .. } => self.root.lock().suspended = Some(notice.to_string()),
            // The watcher tries again by itself and then reports what it has missed.
            Notice::Unwatched { errno: Errno::NOSPC, .. } => sysctl::make_room(),
            _ => {}
        }
    }
}
