//! The machine's own kernel, asked by system calls: watches, events, listings, and what a path names. Nothing is decided here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Inotify, WatchMask, Watches};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::event::RawEvent;
use super::kernel::{Kernel, Listed, Listing, Look};
use super::table::Wd;
use crate::ctime::{self, Dated};
use crate::model::{DirectoryId, RelPath, Timestamp};
use crate::mounts::{self, MountKey};

/// Where a process finds its open files by number.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Where the kernel tells what is mounted where.
const MOUNTS: &str = "/proc/self/mountinfo";

/// The fields that tell one directory from another.
const IDENTITY: StatxFlags = StatxFlags::INO.union(StatxFlags::BTIME);

/// An inotify instance that watches below one root.
#[derive(Debug)]
pub struct SystemKernel {
    inotify: Inotify,
    watches: Watches,
    root: PathBuf,
    /// The root's path without links, and the kernel's table of mounts. Absent where there is no such table.
    mounts: Option<(PathBuf, File)>,
    /// Whether the kernel can look up a path without following links (Linux 5.6), and name the directory that it found.
    strict: bool,
    mask: WatchMask,
    /// Which directory the root is.
    root_id: Option<DirectoryId>,
    /// By device: whether the file system on it dates each change.
    dates_changes: HashMap<(u32, u32), bool>,
    /// Refuse new watches, as with the limit reached.
    #[cfg(test)]
    pub exhausted: bool,
}

/// A path that leads to one directory for as long as this value lives.
struct Resolved {
    path: PathBuf,
    /// The open directory, which `path` then names through `/proc`; without it `path` is the plain path.
    held: Option<OwnedFd>,
}

/// Opens a directory to be named, not read. The root is opened anew each time: the kernel does not tell of the end of a
/// directory that somebody holds open.
fn open_below(root: &Path, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

impl SystemKernel {
    pub fn new(root: PathBuf, attributes: bool) -> Result<Self, Errno> {
        let inotify = Inotify::init().map_err(errno)?;
        // EXCL_UNLINK: a file that is written to after it was unlinked has no name here any more.
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
        let root_id = root_id(&root);
        let mounts = root.canonicalize().ok().zip(File::open(MOUNTS).ok());
        Ok(Self {
            root_id,
            mounts,
            watches: inotify.watches(),
            inotify,
            root,
            strict,
            mask,
            dates_changes: HashMap::new(),
            #[cfg(test)]
            exhausted: false,
        })
    }

    /// Looks a directory up, without following links if the kernel can.
    fn resolve(&self, path: &RelPath) -> Result<Resolved, Errno> {
        if self.strict && !path.is_root() {
            let held = open_below(&self.root, path.as_bytes())?;
            let path = Path::new(DESCRIPTORS).join(held.as_raw_fd().to_string());
            return Ok(Resolved { path, held: Some(held) });
        }
        Ok(Resolved { path: path.under(&self.root), held: None })
    }

    /// Becomes ready (`POLLPRI`) whenever anything is mounted or unmounted.
    pub fn mount_table(&self) -> Option<BorrowedFd<'_>> {
        self.mounts.as_ref().map(|(_, table)| table.as_fd())
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

    /// Behaves as on a file system that does not date changes.
    #[cfg(test)]
    pub fn distrust_all(&mut self) {
        let stat = rustix::fs::statx(CWD, &self.root, AtFlags::empty(), StatxFlags::INO).unwrap();
        self.dates_changes.insert((stat.stx_dev_major, stat.stx_dev_minor), false);
    }

    /// When a directory or its listing last changed, unless its file system cannot be trusted to date changes.
    fn dated(&mut self, resolved: &Resolved) -> io::Result<Option<Timestamp>> {
        let stat = resolved.stat(b"", ctime::WANTED)?;
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        let dates_changes = match self.dates_changes.entry(device) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => *unknown.insert(ctime::dates_changes(&resolved.path)),
        };
        Ok(dates_changes.then(|| Dated::from(&stat).changed))
    }
}

impl Kernel for SystemKernel {
    fn watch(&mut self, path: &RelPath) -> Result<(Wd, Option<DirectoryId>), Errno> {
        let resolved = self.resolve(path)?;
        #[cfg(test)]
        if self.exhausted {
            return Err(Errno::NOSPC);
        }
        // The root may be named through a symbolic link, and a name in `/proc` is one.
        let follow = path.is_root() || resolved.held.is_some();
        let link = if follow { WatchMask::empty() } else { WatchMask::DONT_FOLLOW };
        let descriptor = self.watches.add(&resolved.path, self.mask | link).map_err(errno)?;
        let wd = Wd(descriptor.get_watch_descriptor_id());
        let id = resolved.stat(b"", IDENTITY).ok().map(|stat| directory_id(&stat));
        Ok((wd, id))
    }

    fn unwatch(&mut self, wds: &[Wd]) {
        for wd in wds {
            // Not by way of the inotify crate: it wants its own kind of descriptor, for which one more map of all watches
            // would be needed.
            let _ = rustix::fs::inotify::remove_watch(&self.inotify, wd.0);
        }
    }

    fn identify(&self, path: &RelPath) -> Option<DirectoryId> {
        let stat = self.resolve(path).ok()?.stat(b"", IDENTITY | StatxFlags::TYPE).ok()?;
        (FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory).then(|| directory_id(&stat))
    }

    fn mounts(&self) -> (BTreeMap<RelPath, MountKey>, Vec<(RelPath, RelPath)>) {
        let read = |(root, table): &(PathBuf, File)| {
            let (mut table, mut text) = (table, Vec::new());
            table.rewind().and_then(|()| table.read_to_end(&mut text)).ok()?;
            Some((mounts::below(&text, root), mounts::twins(&text, root)))
        };
        self.mounts.as_ref().and_then(read).unwrap_or_default()
    }

    fn is_root_away(&self) -> bool {
        self.root_id != root_id(&self.root)
    }

    fn list(&mut self, path: &RelPath, dated: bool, counted: bool) -> io::Result<Listing> {
        let resolved = self.resolve(path)?;
        // Before the listing: an event tells of changes in between.
        let changed = if dated { self.dated(&resolved)? } else { None };
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&resolved.path)? {
            let entry = entry?;
            let Ok(kind) = entry.file_type() else { continue };
            let (name, is_dir) = (entry.file_name().into_vec(), kind.is_dir());
            let mut listed = Listed { name, is_dir, inode: entry.ino(), dated: None, has_names: false };
            if (changed.is_some() || counted) && !is_dir {
                match resolved.stat(&listed.name, ctime::WANTED | StatxFlags::NLINK) {
                    Ok(stat) => {
                        listed.dated = changed.is_some().then(|| Dated::from(&stat));
                        listed.has_names = stat.stx_nlink > 1;
                    }
                    Err(Errno::NOENT) => continue,
                    Err(_) => {}
                }
            }
            entries.push(listed);
        }
        Ok(Listing { changed, entries })
    }

    fn list_inodes(&self, path: &RelPath) -> io::Result<Vec<(Vec<u8>, Option<u64>)>> {
        let resolved = self.resolve(path)?;
        let is_trusted = ctime::is_trusted(&resolved.path);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&resolved.path)? {
            let entry = entry?;
            if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                names.push((entry.file_name().into_vec(), is_trusted.then(|| entry.ino())));
            }
        }
        Ok(names)
    }

    fn is_open(&self, path: &RelPath) -> bool {
        let Ok(resolved) = self.resolve(path) else { return false };
        resolved.stat(b".", StatxFlags::TYPE).is_ok() && std::fs::read_dir(&resolved.path).is_ok()
    }

    fn look(&self, path: &RelPath) -> io::Result<Look> {
        std::fs::symlink_metadata(path.under(&self.root)).map(|metadata| Look::from(&metadata))
    }
}

impl Resolved {
    /// Looks at what the path names, or at a name in it: at the entry itself, not at what a symbolic link leads to.
    fn stat(&self, name: &[u8], wanted: StatxFlags) -> Result<Statx, Errno> {
        match &self.held {
            Some(held) => rustix::fs::statx(held, name, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, wanted),
            // The path itself may be the root, which may be a link; a name in it is joined to the path.
            None if name.is_empty() => rustix::fs::statx(CWD, &self.path, AtFlags::empty(), wanted),
            None => {
                let path = self.path.join(OsStr::from_bytes(name));
                rustix::fs::statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, wanted)
            }
        }
    }
}

fn root_id(root: &Path) -> Option<DirectoryId> {
    let stat = rustix::fs::statx(CWD, root, AtFlags::empty(), IDENTITY);
    stat.ok().map(|stat| directory_id(&stat))
}

fn directory_id(stat: &Statx) -> DirectoryId {
    let tells_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = Duration::new(u64::try_from(stat.stx_btime.tv_sec).unwrap_or(0), stat.stx_btime.tv_nsec);
    let born_ns = tells_birth.then(|| u64::try_from(born.as_nanos()).ok()).flatten();
    DirectoryId { inode: stat.stx_ino, born_ns }
}

/// The system error in an error of the inotify crate.
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl AsFd for SystemKernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
