//! Answers how much of a root is seen at run time, in the terms of `sight`.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::runtime::RootRuntime;
use super::sight::{Sight, Suspension};
use super::state::Watching;
use crate::clock::monotonic;
use crate::model::RelPath;

/// The age up to which a look at a root is recent enough for an answer.
const FRESH: Duration = Duration::from_millis(1_500);
/// A file system that has not answered for so long is taken to hang. Longer than the longest rest between two looks.
const SILENT: Duration = Duration::from_secs(45);

impl RootRuntime {
    /// The file that another rsync was last seen to overwrite again and again.
    pub fn answered(&self) -> Option<RelPath> {
        self.answered.lock().at(monotonic()).next_back().cloned()
    }

    /// Whether another rsync was seen to overwrite this path again and again.
    pub fn is_answered(&self, path: &RelPath) -> bool {
        self.answered.lock().at(monotonic()).any(|answered| answered == path)
    }

    /// How much of what happens in the tree is seen, as of the last look.
    pub fn sight(&self) -> Sight {
        let state = self.lock();
        if let Some(suspended) = &state.suspended {
            return Sight::Suspended(suspended.clone());
        }
        match &state.watching {
            Watching::Off(suspended) => Sight::Suspended(suspended.clone()),
            Watching::Starting => Sight::Behind("its directories are still being walked".to_owned()),
            Watching::On(_) if self.looked_at().elapsed() > SILENT => {
                Sight::Behind("its file system does not answer".to_owned())
            }
            Watching::On(watcher) => {
                let stats = watcher.stats();
                match (stats.unwatched, stats.is_behind) {
                    (0, false) => Sight::Whole,
                    (0, true) => Sight::Behind("what has changed is still being looked for".to_owned()),
                    (count, _) => {
                        let (directories, them) =
                            if count == 1 { ("directory", "it") } else { ("directories", "them") };
                        let reason = format!(
                            "{count} {directories} cannot be watched, and what changes in {them} is found late"
                        );
                        let hint =
                            "they are named in the log; for want of watches: sysctl -w fs.inotify.max_user_watches";
                        Sight::Partial(reason, Some(hint.to_owned()))
                    }
                }
            }
        }
    }

    /// Has the root looked at and waits up to `patience`, unless the last look was a moment ago. A root at rest is looked at
    /// seldom, and no event tells that a directory above it was renamed or that something was mounted over it.
    pub fn look_again(&self, patience: Duration) {
        let before = self.looked_at();
        if before.elapsed() < FRESH || !matches!(self.lock().watching, Watching::On(_)) {
            return;
        }
        self.notify();
        let mut looked = self.looked.0.lock();
        self.looked.1.wait_while_for(&mut looked, |at| *at == before, patience);
    }

    fn looked_at(&self) -> Instant {
        *self.looked.0.lock()
    }

    /// Whether the path was in the tree since the start, and is no longer. Ask behind a barrier.
    pub fn has_lost(&self, path: &RelPath) -> bool {
        self.gone.lock().knows(path)
    }

    /// Asks the watcher to answer once everything that happened in the tree before this call has jobs. The error says why the
    /// watcher cannot know that.
    pub fn barrier(&self) -> Result<Receiver<()>, String> {
        self.look().map_err(|suspended| suspended.reason)?;
        if let Sight::Suspended(Suspension { reason, .. }) = self.sight() {
            return Err(reason);
        }
        match &self.lock().watching {
            Watching::On(watcher) => Ok(watcher.barrier()),
            Watching::Starting => Err("its directories are still being walked".to_owned()),
            Watching::Off(suspended) => Err(suspended.reason.clone()),
        }
    }
}
