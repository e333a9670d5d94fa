//! What the tracker asks of a kernel, and how it is answered: watches, listings, and what a path names.
//!
//! `system_kernel` asks the machine's own. Tests have one in memory (`simulated`), whose file system changes between any two
//! answers. Deliberately absent: how events are read and waited for, which is between a kernel and whoever turns the tracker.

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
/// Since events lag behind, a directory on the way to a path may have become a symbolic link meanwhile. To follow it would be
/// to watch one directory in the name of another, so directories are looked up without following any.
pub trait Kernel {
    /// Watches a directory, or says under which descriptor it is watched already, whatever it was called then; and which
    /// directory that is, if the kernel can tell.
    fn watch(&mut self, path: &RelPath) -> Result<(Wd, Option<DirectoryId>), Errno>;

    /// Removes watches. One that ended by itself meanwhile is no error.
    fn unwatch(&mut self, wds: &[Wd]);

    /// Which directory is at a path, if there is one and the kernel can tell.
    fn identify(&self, path: &RelPath) -> Option<DirectoryId>;

    /// What is mounted below the root, and which places there show the same directory.
    fn mounts(&self) -> (BTreeMap<RelPath, MountKey>, Vec<(RelPath, RelPath)>);

    /// Whether another directory, or none, is in the place of the root: a path that is not found then says nothing.
    fn is_root_away(&self) -> bool;

    /// The names in a directory. A name that vanishes meanwhile is left out. With `dated` also when each changed; where the
    /// file system is not known to date each change, that is not told. With `dated` or `counted` also which files have
    /// several names.
    fn list(&mut self, path: &RelPath, dated: bool, counted: bool) -> io::Result<Listing>;

    /// The names in a directory that are none of directories, each with its inode where a listing can be trusted with that.
    fn list_inodes(&self, path: &RelPath) -> io::Result<Vec<(Vec<u8>, Option<u64>)>>;

    /// Whether a directory can be listed, and what is in it be looked at.
    fn is_open(&self, path: &RelPath) -> bool;

    /// What the path names, itself and not what a symbolic link leads to.
    fn look(&self, path: &RelPath) -> io::Result<Look>;
}

/// What is in a directory.
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
    /// As the listing has it; that of a file system may be another one than `lstat` tells.
    pub inode: u64,
    /// When it changed, if that was asked for and can be told.
    pub dated: Option<Dated>,
    /// Whether it has several names, if that was asked for.
    pub has_names: bool,
}

/// What the watcher wants to know of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub size: u64,
    /// A regular file with one name. Others are complete once they have a name: nobody will close them after writing.
    pub is_plain: bool,
    pub inode: u64,
    pub device: u64,
    /// How many names it has, if it is no directory.
    pub links: u64,
    /// When it was last written, as its times tell: seconds and nanoseconds.
    pub written: (i64, i64),
    /// When anything about it last changed, the number of its names included.
    pub changed: Timestamp,
}

impl Look {
    /// Whether it has several names.
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
