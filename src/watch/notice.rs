//! News of the watching for an operator, or for whoever guards the root. Pure values.

use std::fmt;

use rustix::io::Errno;

use crate::model::RelPath;

/// Something about the watching itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The kernel's queue overflowed and events were lost. Changes since then are looked for and reported.
    Overflow,
    /// A directory cannot be watched: it is looked through now and then. The first few such directories are told, and
    /// then ever fewer; `so_far` counts all of them since the start.
    Unwatched { dir: RelPath, errno: Errno, so_far: u64 },
    /// Directories that could not be watched are watched now, and have been reported.
    WatchedAgain { directories: u64 },
    /// A file system was mounted below the root. What is in it has been reported.
    Mounted { at: RelPath },
    /// A file system was unmounted, or lies under another now.
    Unmounted { at: RelPath },
    /// An rsync from elsewhere writes the same versions of a file again and again.
    Answered { path: RelPath },
    /// The root itself is gone, and nothing is watched any more.
    RootGone { reason: GoneReason },
}

/// The reason why a root is not watched any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneReason {
    Deleted,
    Renamed,
    Unmounted,
    /// Something else, or nothing, is in the root's place.
    Away,
    /// The kernel ended the watch, or reading events failed.
    Lost,
}

impl Notice {
    /// What an operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unwatched { errno, .. } => hint(*errno),
            Self::Overflow => Some("sysctl -w fs.inotify.max_queued_events=1048576"),
            Self::Answered { .. } => {
                Some("if two mirrors run in opposite directions, leave the file out of one of them")
            }
            _ => None,
        }
    }
}

pub fn hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::NOSPC => Some("all inotify watches are in use: sysctl -w fs.inotify.max_user_watches=1048576"),
        Errno::ACCESS => Some("the directory has to be readable for the user that syncq runs as"),
        _ => None,
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow => {
                f.write_str("the kernel's event queue overflowed, so the tree is looked through for what has changed")
            }
            Self::Unwatched { dir, errno, so_far } => {
                write!(f, "cannot watch {dir}: {errno} ({so_far} directories so far)")
            }
            Self::WatchedAgain { directories } => {
                write!(f, "{directories} directories that could not be watched are watched now")
            }
            Self::Mounted { at } => write!(f, "a file system is mounted at {at} now, and is compared"),
            Self::Unmounted { at } => {
                write!(f, "the file system at {at} was unmounted; nothing is sent or deleted there until it is back")
            }
            Self::Answered { path } => write!(
                f,
                "{path} is sent, and written here again by another rsync as it was before, over and over: does another mirror \
                 write here?"
            ),
            Self::RootGone { reason } => write!(f, "the watched directory {reason}"),
        }
    }
}

impl fmt::Display for GoneReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "was deleted",
            Self::Renamed => "was renamed or moved",
            Self::Unmounted => "was unmounted",
            Self::Away => "is not in its place",
            Self::Lost => "is no longer watched by the kernel",
        })
    }
}
