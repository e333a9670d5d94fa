//! Where changes come from and where they go: roots, targets, and how rsync is told to reach them. Pure values.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::params::Params;
use super::{RelPath, Timestamp};

/// A target's number in the store, kept for as long as the store lives. A target is known by its root's path and its
/// destination, so a configuration may be reordered without touching the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetId(pub u32);

/// A root's number in the store, kept for as long as the store lives. A root is known by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RootId(pub u32);

/// Where a mirror lives, as rsync distinguishes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A directory on this machine.
    Local(PathBuf),
    /// `[user@]host:/path` through a remote shell.
    Ssh { host: String, path: PathBuf },
    /// `[user@]host::module[/path]`: an rsync daemon. `module` holds the module and the path in it.
    Daemon { host: String, module: OsString },
}

impl Destination {
    /// The destination as rsync's last argument. It ends in a slash where rsync could take it for a file.
    pub fn to_arg(&self) -> OsString {
        let mut arg = OsString::new();
        match self {
            Self::Local(path) => arg.push(path),
            Self::Ssh { host, path } => {
                arg.push(host);
                arg.push(":");
                arg.push(path);
            }
            Self::Daemon { host, module } => {
                arg.push(host);
                arg.push("::");
                arg.push(module);
            }
        }
        if !arg.as_encoded_bytes().ends_with(b"/") {
            arg.push("/");
        }
        arg
    }

    pub fn is_daemon(&self) -> bool {
        matches!(self, Self::Daemon { .. })
    }

    pub fn is_ssh(&self) -> bool {
        matches!(self, Self::Ssh { .. })
    }
}

/// The destination as an operator writes it, without a slash that was added for rsync: the target's name everywhere.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Ssh { host, path } => write!(f, "{host}:{}", path.display()),
            Self::Daemon { host, module } => write!(f, "{host}::{}", module.display()),
        }
    }
}

/// How rsync is called for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferOptions {
    /// The user's own rsync arguments (`commonParams`), split into words, as they are given to rsync.
    pub params: Params,
    /// The rsync daemon's password file.
    pub password_file: Option<PathBuf>,
    /// The rsync daemon's port, or with ssh the port of sshd.
    pub port: Option<u16>,
    /// rsync's `--timeout`: silence on the line for this long ends a run. `None` leaves it to syncq's own watchdog.
    pub timeout: Option<Duration>,
    /// Whether paths that are gone from the source are deleted from the target.
    pub delete: bool,
    /// Patterns in rsync's own syntax, for runs over the whole tree only (`crontabfilter`).
    pub reconcile_excludes: Vec<OsString>,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self {
            params: Params::from_iter(["-artz"]),
            password_file: None,
            port: None,
            timeout: None,
            delete: true,
            reconcile_excludes: Vec::new(),
        }
    }
}

/// One mirror of one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub destination: Destination,
    pub options: TransferOptions,
}

impl Target {
    /// The target's name in messages, `status` and `list`.
    pub fn name(&self) -> String {
        self.destination.to_string()
    }
}

/// The state of a target for whose content nothing vouches: equal size and time may stand over other content, since
/// nobody saw how the content got there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unvouched {
    /// Since when nothing vouches for the target. The time also tells this state from later ones.
    pub since: Timestamp,
    /// Paths up to this one, in the order of the tree, have been compared by content. The root: none.
    pub up_to: RelPath,
}

/// Names that stood at the top of a target and of its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    pub names: Vec<RelPath>,
    /// When these names were seen.
    pub at: Timestamp,
}

/// Which kinds of events make jobs: the switches of sersync's `<inotify>` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSwitches {
    pub delete: bool,
    pub create_folder: bool,
    /// A new file is sent at its creation already, before it is closed.
    pub create_file: bool,
    pub close_write: bool,
    pub move_from: bool,
    pub move_to: bool,
    /// Mode, owner, times and extended attributes are followed.
    pub attrib: bool,
    /// A file is sent while it is still being written.
    pub modify: bool,
}

impl Default for EventSwitches {
    fn default() -> Self {
        Self {
            delete: true,
            create_folder: true,
            create_file: false,
            close_write: true,
            move_from: true,
            move_to: true,
            attrib: false,
            modify: false,
        }
    }
}

/// One watched directory tree with its mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Absolute path of the directory.
    pub path: PathBuf,
    pub targets: Vec<Target>,
    pub events: EventSwitches,
    /// Regular expressions over bytes; see `crate::filter`. Checked when the configuration is read.
    pub excludes: Vec<String>,
    /// Apply sersync's old rule: dot-files and `*~` are not mirrored.
    pub legacy_hidden: bool,
    /// When the whole tree is compared again.
    pub schedule: Option<Schedule>,
}

impl Root {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// When whole-tree runs are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At this interval, since the start or the last run.
    Every(Duration),
    /// At the times of a cron expression.
    Cron {
        /// 5 or 6 fields, or `@daily` and the like; checked when the configuration is read.
        expression: String,
        /// The time zone in which its fields are read, by its name in the IANA data base; `None` is this machine's.
        timezone: Option<String>,
    },
}
