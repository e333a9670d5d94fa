//! Tells whoever listens what the executor does, as it happens.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::mirror::TargetContext;
use crate::model::{TargetTrouble, Timestamp};

/// Something that happened at a target.
#[derive(Debug, Clone)]
pub struct Activity {
    pub target: String,
    pub root: PathBuf,
    pub what: Happened,
}

#[derive(Debug, Clone)]
pub enum Happened {
    /// `jobs` jobs of one batch are done.
    Sent { jobs: u64, took: Duration },
    /// Nothing gets through to the target any more.
    Trouble { trouble: TargetTrouble, retry_at: Timestamp },
    /// Runs get through to the target again.
    Recovered { after: Duration },
}

/// Takes what happens. Must not wait for anything. Returns `false` when it wants to be told nothing more.
pub type Listener = Box<dyn Fn(&Activity) -> bool + Send>;

/// The listeners.
#[derive(Default)]
pub struct Activities {
    any: AtomicBool,
    listeners: Mutex<Vec<Listener>>,
}

impl fmt::Debug for Activities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activities").field("any", &self.any).finish_non_exhaustive()
    }
}

impl Activities {
    pub fn listen(&self, listener: Listener) {
        let mut listeners = self.listeners.lock();
        listeners.push(listener);
        self.any.store(true, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, context: &TargetContext, what: impl FnOnce() -> Happened) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let activity = Activity { target: context.target.name(), root: context.root.clone(), what: what() };
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener(&activity));
        self.any.store(!listeners.is_empty(), Ordering::Relaxed);
    }
}
