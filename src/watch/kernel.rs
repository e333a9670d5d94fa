//! What the watcher asks of the kernel: watches, listings, and what a path names. Nothing is decided here.
//!
//! Since events lag behind, a directory on the way to a path may have become a symbolic link meanwhile. Following it
//! would watch one directory in the name of another, so directories are looked up without following any.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use inotify::{Inotify, WatchDescriptor, WatchMask, Watches};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::event::RawEvent;
use super::table::Wd;
use crate::model::RelPath;

/// Where a process finds its open files by number.
const DESCRIPTORS: &str = "/proc/self/fd";

/// One name in a directory.
#[derive(Debug)]
pub struct Listed {
    pub name: Vec<u8>,
    pub is_dir: bool,
}

/// An inotify instance that watches below one root.
#[derive(Debug)]
pub struct Kernel {
    inotify: Inotify,
    watches: Watches,
    /// What removing a watch asks for.
    descriptors: HashMap<Wd, WatchDescriptor>,
    root: PathBuf,
    /// Whether the kernel can look up a path without following links (Linux 5.6), and name what it found.
    strict: bool,
    mask: WatchMask,
}

/// A path that leads to a directory for as long as this lives.
struct Resolved {
    path: PathBuf,
    /// What `path` names, then through `/proc`; else `path` is the plain path.
    held: Option<OwnedFd>,
}

/// Opens a directory to be named, not read. The root is opened anew each time: the kernel does not tell of the end of a
/// directory that somebody holds open.
fn open_below(root: &Path, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

impl Kernel {
    pub fn new(root: PathBuf, attributes: bool) -> Result<Self, Errno> {
        let inotify = Inotify::init().map_err(errno)?;
        // EXCL_UNLINK: what is still written to an unlinked file has no name here any more.
        let mut mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::CLOSE_WRITE
            | WatchMask::MODIFY
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::EXCL_UNLINK;
        mask.set(WatchMask::ATTRIB, attributes);
        let strict = Path::new(DESCRIPTORS).is_dir() && open_below(&root, b".").is_ok();
        Ok(Self { watches: inotify.watches(), inotify, descriptors: HashMap::new(), root, strict, mask })
    }

    /// Looks a directory up.
    fn resolve(&self, path: &RelPath) -> Result<Resolved, Errno> {
        if self.strict && !path.is_root() {
            let held = open_below(&self.root, path.as_bytes())?;
            let path = Path::new(DESCRIPTORS).join(held.as_raw_fd().to_string());
            return Ok(Resolved { path, held: Some(held) });
        }
        Ok(Resolved { path: path.under(&self.root), held: None })
    }

    /// Watches a directory, or says under which descriptor it is watched already, whatever it was called then.
    pub fn watch(&mut self, path: &RelPath) -> Result<Wd, Errno> {
        let resolved = self.resolve(path)?;
        // The root may be named through a symbolic link, and a name in `/proc` is one.
        let follow = path.is_root() || resolved.held.is_some();
        let link = if follow { WatchMask::empty() } else { WatchMask::DONT_FOLLOW };
        let descriptor = self.watches.add(&resolved.path, self.mask | link).map_err(errno)?;
        let wd = Wd(descriptor.get_watch_descriptor_id());
        self.descriptors.insert(wd, descriptor);
        Ok(wd)
    }

    /// Removes watches. One that ended by itself meanwhile is no error.
    pub fn unwatch(&mut self, wds: &[Wd]) {
        for descriptor in wds.iter().filter_map(|wd| self.descriptors.remove(wd)) {
            let _ = self.watches.remove(descriptor);
        }
    }

    /// Reads as many events as fit into `buffer`; none if there are none.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> Result<impl Iterator<Item = RawEvent<'a>> + use<'a>, Errno> {
        let events = match self.inotify.read_events(buffer) {
            Ok(events) => Some(events),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            Err(error) => return Err(errno(error)),
        };
        Ok(events.into_iter().flatten().map(RawEvent::from))
    }

    /// How many bytes of events can be read now.
    pub fn queued_bytes(&self) -> Result<usize, Errno> {
        rustix::io::ioctl_fionread(&self.inotify).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// The names in a directory. A name that vanishes meanwhile is left out.
    pub fn list(&self, path: &RelPath) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let resolved = self.resolve(path)?;
        for entry in std::fs::read_dir(&resolved.path)? {
            let entry = entry?;
            if let Ok(kind) = entry.file_type() {
                listed.push(Listed { name: entry.file_name().into_vec(), is_dir: kind.is_dir() });
            }
        }
        Ok(listed)
    }

    /// What the path names, itself and not what a symbolic link leads to.
    pub fn look(&self, path: &RelPath) -> io::Result<Look> {
        std::fs::symlink_metadata(path.under(&self.root)).map(|metadata| Look::from(&metadata))
    }
}

/// The system error in what the inotify crate returns.
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// What the watcher wants to know of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub size: u64,
    /// A regular file with one name. Others are complete once they have a name: nobody will close them after writing.
    pub is_plain: bool,
}

impl From<&Metadata> for Look {
    fn from(metadata: &Metadata) -> Self {
        Self { size: metadata.size(), is_plain: metadata.is_file() && metadata.nlink() == 1 }
    }
}
