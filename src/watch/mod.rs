//! Watches a directory tree and reports each path that may have changed, as soon as the kernel says so.
//!
//! inotify watches single directories and forgets much: this module makes it recursive and complete. One thread per root
//! reads the kernel's events, keeps a table of what is watched where, and lets a tracker turn each read into one set of
//! [`Change`]s for the [`Sink`]. A new directory is watched first and then listed, so nothing that happens in between is
//! missed; a renamed one keeps its watches. Some changes have no events: before the start, lost in an overflow, past the
//! kernel's watch limit. They are found by looking through the tree for what has changed since it was known
//! ([`CatchUp`]).
//!
//! inotify has blind spots that only a comparison of the whole tree closes: writes through `mmap` until the mapping ends,
//! a file written under a name outside of the tree, other machines' writes to a network file system, and a renamed
//! directory above the root. Of mounts and unmounts below the root the kernel tells elsewhere (`mounted`).
//!
//! Invariant: never waits for a disk commit or a target, and knows neither jobs nor targets.

mod entries;
mod event;
mod gather;
mod kernel;
mod known_names;
mod links;
mod mounted;
mod notice;
mod policy;
mod received;
#[cfg(test)]
pub(crate) mod simulated;
mod system_kernel;
mod table;
mod task;
#[cfg(test)]
mod tests;
mod thread;
mod tracker;
mod walk;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::filter::Filter;
use crate::model::{Change, DirectoryId, EventSwitches, RelPath, Timestamp};
use crate::mounts::Mounts;

pub use notice::{GoneReason, Notice};
/// For `tools/micro`, which times the parts one by one; of no use to anybody else.
#[doc(hidden)]
pub mod parts {
    pub use super::event::{Event, RawEvent};
    pub use super::gather::{Existence, Gather};
    pub use super::table::{Table, Wd};
}
pub use thread::Watcher;

/// The tree to watch, and the changes in it to report.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// The directory to watch, with all below it.
    pub root: PathBuf,
    pub events: EventSwitches,
    pub filter: Arc<Filter>,
    /// A file that is written to and not closed is reported as complete once it has been quiet for this long.
    pub quiet_period: Duration,
    /// With the `modify` switch, a file that is being written to is sent at most this often.
    pub hot_interval: Duration,
    /// How much older than its event a change may be dated: [`MARGIN`](crate::ctime::MARGIN), but for tests.
    pub ctime_margin: Duration,
    /// Whether targets link the names of a file, so that a new name concerns the file's other names too.
    pub keeps_links: bool,
    /// Is told what is mounted below the root.
    pub mounts: Arc<Mounts>,
    /// Report what changed while nobody watched, as far as that shows.
    pub catch_up: Option<CatchUp>,
}

/// The place of each directory: the directory that holds it, and its name there.
pub type KnownDirectories = HashMap<DirectoryId, (DirectoryId, Box<[u8]>)>;

/// The knowledge of the tree when it was last watched.
#[derive(Debug, Clone, Default)]
pub struct CatchUp {
    /// Changes with an older `ctime` are known.
    pub since: Timestamp,
    /// The directories of which all that was in them then is known.
    pub known: KnownDirectories,
}

/// Takes what the watcher finds. Must not block: the kernel's queue fills meanwhile.
pub trait Sink: Send + Sync {
    /// Takes paths that may have changed, each at most once in a call. `more_follow`: the paths are part of a burst that
    /// goes on, so that another call comes in some milliseconds, if only to say with no changes that the burst is over.
    fn changes(&self, changes: Vec<Change>, more_follow: bool);
    /// Takes paths that were there and are no longer, before the call that reports them as changed.
    fn gone(&self, paths: Vec<RelPath>);
    fn notice(&self, notice: Notice);
    /// The kernel grants this user no further inotify instance. Returns whether it may grant one now, so that one more
    /// try is worth it.
    fn make_instances(&self) -> bool {
        false
    }
}

/// Why a tree cannot be watched at all.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("cannot use inotify")]
    Inotify(#[source] Errno),
    /// The limit is that of this process, or of the machine.
    #[error("cannot use inotify: all file descriptors are in use")]
    Descriptors(#[source] Errno),
    #[error("cannot watch {}", .root.display())]
    Root {
        root: PathBuf,
        #[source]
        errno: Errno,
    },
    #[error("{} went away while its directories were being watched", .root.display())]
    RootGone { root: PathBuf },
    #[error("cannot start the watching thread")]
    Thread(#[source] std::io::Error),
}

impl WatchError {
    /// What an operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Inotify(Errno::MFILE) => Some("sysctl -w fs.inotify.max_user_instances=1024"),
            Self::Descriptors(_) => Some("allow more open files: ulimit -n 65536, or LimitNOFILE=65536 in a unit"),
            Self::Root { errno, .. } => notice::hint(*errno),
            _ => None,
        }
    }
}

/// The state of a watcher, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchStats {
    /// Directories that are watched.
    pub watches: u64,
    /// Directories that should be watched and cannot be. They are looked through now and then.
    pub unwatched: u64,
    /// How often the kernel's queue overflowed.
    pub overflows: u64,
    /// Events read.
    pub events: u64,
    /// Changes are being looked for: a walk is under way, or is due since events were lost.
    pub is_behind: bool,
}

/// [`WatchStats`] as the thread writes and others read them.
#[derive(Debug, Default)]
struct Counters {
    watches: AtomicU64,
    unwatched: AtomicU64,
    overflows: AtomicU64,
    events: AtomicU64,
    is_behind: AtomicBool,
}

impl Counters {
    fn read(&self) -> WatchStats {
        WatchStats {
            watches: self.watches.load(Ordering::Relaxed),
            unwatched: self.unwatched.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            is_behind: self.is_behind.load(Ordering::Relaxed),
        }
    }
}
