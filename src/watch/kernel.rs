//! The questions that the tracker asks of a kernel, and the form of the answers: watches, listings, and what a path
//! names.
//!
//! `system_kernel` asks the machine's own. Tests have a kernel in memory (`simulated`), whose file system changes between
//! any two answers. Deliberately absent: how events are read and waited for. That is between a kernel and whoever turns
//! the tracker.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;

use super::table::Wd;
use crate::ctime::{self, Dated};
use crate::model::{DirectoryId, RelPath, Timestamp};
use crate::mounts::MountKey;

/// Answers the tracker of one root. Paths are relative to the root.
///
/// Since events lag behind, a directory on the way to a path may have become a symbolic link meanwhile. Following that
/// link would watch one directory in the name of another, so directories are looked up without following any.
pub trait Kernel {
    /// Watches a directory. Returns its descriptor, and which directory it is, if the kernel can tell. A directory that
    /// is watched already has the descriptor that it had, whatever it was called then.
    fn watch(&mut self, path: &RelPath) -> Result<(Wd, Option<DirectoryId>), Errno>;

    /// Removes watches. A watch that ended by itself meanwhile is no error.
    fn unwatch(&mut self, wds: &[Wd]);

    /// Which directory is at a path, if there is one and the kernel can tell.
    fn identify(&self, path: &RelPath) -> Option<DirectoryId>;

    /// The mounts below the root, and the pairs of places there that show the same directory.
    fn mounts(&self) -> (BTreeMap<RelPath, MountKey>, Vec<(RelPath, RelPath)>);

    /// Whether another directory, or none, is in the place of the root. If so, a path that is not found says nothing.
    fn is_root_away(&self) -> bool;

    /// The names in a directory. A name that vanishes meanwhile is left out. With `dated` the answer also says when each
    /// name changed, unless the file system is not known to date each change. With `dated` or `counted` it says which files
    /// have several names.
    fn list(&mut self, path: &RelPath, dated: bool, counted: bool) -> io::Result<Listing>;

    /// The names in a directory that are not directories, each with its inode where a listing can be trusted to tell it.
    fn list_inodes(&self, path: &RelPath) -> io::Result<Vec<(Vec<u8>, Option<u64>)>>;

    /// Whether a directory can be listed, and its entries be looked at.
    fn is_open(&self, path: &RelPath) -> bool;

    /// Looks at the entry that the path names: at the entry itself, not at what a symbolic link leads to.
    fn look(&self, path: &RelPath) -> io::Result<Look>;
}

/// The listing of a directory.
#[derive(Debug)]
pub struct Listing {
    /// When the directory or its listing last changed, if that was asked for and can be told.
    pub changed: Option<Timestamp>,
    pub entries: Vec<Listed>,
}

/// One name in a directory.
#[derive(Debug)]
pub struct Listed {
    pub name: Vec<u8>,
    pub is_dir: bool,
    /// The inode as the listing has it; `lstat` may tell another one.
    pub inode: u64,
    /// When the entry changed, if that was asked for and can be told.
    pub dated: Option<Dated>,
    /// Whether the entry has several names, if that was asked for.
    pub has_names: bool,
}

/// The facts about an entry that the watcher wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub size: u64,
    /// A regular file with one name. Other entries are complete once they have a name: nobody will close them after
    /// writing.
    pub is_plain: bool,
    pub inode: u64,
    pub device: u64,
    /// How many names the entry has; 1 for a directory.
    pub links: u64,
    /// When the entry was last written, as its own times tell: seconds and nanoseconds.
    pub written: (i64, i64),
    /// When anything about the entry last changed, the number of its names included.
    pub changed: Timestamp,
}

impl Look {
    /// Whether the entry has several names.
    pub fn has_names(self) -> bool {
        self.links > 1
    }

    pub fn is_same_file(self, other: Self) -> bool {
        (self.inode, self.device) == (other.inode, other.device)
    }
}

impl From<&Metadata> for Look {
    fn from(metadata: &Metadata) -> Self {
        let links = if metadata.is_dir() { 1 } else { metadata.nlink() };
        let is_plain = metadata.is_file() && links == 1;
        let written = (metadata.mtime(), metadata.mtime_nsec());
        let changed = ctime::timestamp(metadata.ctime(), metadata.ctime_nsec());
        Self { size: metadata.size(), is_plain, inode: metadata.ino(), device: metadata.dev(), links, written, changed }
    }
}
