//! Starts a root's watcher, and puts the changes that it finds into the queue.
//!
//! Deliberately absent: when a watcher is started, and what becomes of its predecessor.

use std::sync::Arc;

use log::{info, warn};
use rustix::io::Errno;

use super::runtime::RootRuntime;
use super::sight::Suspension;
use super::state::Watching;
use crate::clock::monotonic;
use crate::ctime;
use crate::model::{Change, RelPath, Scope, counted};
use crate::system::inotify_limits;
use crate::watch::{CatchUp, Notice, Sink, WatchError, WatchSettings, Watcher};

impl RootRuntime {
    pub(super) fn start_watcher(self: &Arc<Self>, catch_up: Option<CatchUp>) -> Result<Watcher, WatchError> {
        let settings = WatchSettings {
            root: self.rules.path.clone(),
            events: self.rules.events,
            filter: Arc::clone(&self.filter),
            quiet_period: self.rules.quiet_period,
            hot_interval: self.rules.hot_interval,
            ctime_margin: ctime::MARGIN,
            keeps_links: self.rules.keeps_links,
            mounts: Arc::clone(&self.mounts),
            catch_up,
        };
        let sink = Arc::new(RootSink { root: Arc::clone(self) });
        let watcher = Watcher::start(settings, sink).inspect_err(|failure| {
            self.lock().watching = Watching::Off(Suspension::now(failure.to_string(), failure.hint()));
        })?;
        let directories = counted(watcher.stats().watches, "directory");
        info!("watch path is: {} ({directories})", self.path().display());
        Ok(watcher)
    }
}

/// Passes on the watcher's changes and notices. A type of its own, so that the watcher sees nothing else of the root.
struct RootSink {
    root: Arc<RootRuntime>,
}

impl Sink for RootSink {
    fn changes(&self, changes: Vec<Change>, more_follow: bool) {
        // This watcher is about to be given up. A successor reports the tree by other rules.
        if self.root.lock().over {
            return;
        }
        if let Some(follower) = self.root.follower.get() {
            follower.changes(self.root.path(), &changes);
        }
        let rules = self.root.rules.rule_files.iter().map(String::as_bytes);
        let of_rules = changes.iter().filter(|change| rules.clone().any(|name| name == change.path.name()));
        // A filter file concerns everything below its directory.
        let parents = of_rules.filter_map(|change| change.path.parent());
        let concerned: Vec<Change> = parents.map(|parent| Change::scan(parent, Scope::Subtree)).collect();
        let changes = if concerned.is_empty() { changes } else { [changes, concerned].concat() };
        self.root.queue.enqueue_burst(&self.root.targets(), &changes, more_follow);
        self.root.notify();
    }

    fn make_instances(&self) -> bool {
        inotify_limits::make_instances()
    }

    fn gone(&self, paths: Vec<RelPath>) {
        self.root.note_gone(&paths);
    }

    fn notice(&self, notice: Notice) {
        let root = self.root.path().display();
        match notice.hint() {
            Some(hint) => warn!("{root}: {notice}; hint: {hint}"),
            None => warn!("{root}: {notice}"),
        }
        match notice {
            Notice::RootGone { .. } => {
                // The next look at the root finds a more exact reason.
                let hint = "mount or restore it: syncq goes on by itself when it is back";
                self.root.lock().suspended = Some(Suspension::now(notice.to_string(), Some(hint)));
                self.root.notify();
            }
            // The watcher tries again by itself, and then reports the changes that it has missed.
            Notice::Unwatched { errno: Errno::NOSPC, .. } => {
                inotify_limits::make_watches();
            }
            Notice::Answered { path } => {
                self.root.answered.lock().note(path, monotonic());
            }
            // The mounts below are recorded by the next `maintain`.
            Notice::Mounted { .. } | Notice::Unmounted { .. } => self.root.notify(),
            _ => {}
        }
    }
}
