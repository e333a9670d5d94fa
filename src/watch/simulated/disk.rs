//! The simulated kernel's file system: inodes, the names that lead to them, when each changed, and what is mounted where.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::inotify::{Inotify, Queued};
use crate::model::{RelPath, Timestamp};

/// The watched root.
pub(crate) const ROOT: u64 = 2;
/// A directory on the same file system that is not watched.
pub(super) const OUTSIDE: u64 = 3;
const FIRST_DEVICE: u64 = 1;

/// The kind of an inode, with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory(BTreeMap<Vec<u8>, u64>),
    /// A file's stamp is what a quick check sees of it: its size and time.
    File {
        content: u32,
        stamp: u32,
    },
    /// A link to a directory that is nowhere here.
    Link(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) node: Node,
    /// The superuser alone may list the directory, watch it, or look at what is in it.
    pub(crate) is_closed: bool,
    pub(super) born_ns: u64,
    pub(super) device: u64,
    pub(super) links: u64,
    pub(super) changed: Timestamp,
    /// The last change was one of the content, and the file's time tells so.
    pub(super) written_last: bool,
}

/// The size of a file with this stamp. A large file stays large until it is written, since only that gives it another
/// stamp.
pub(crate) fn size(stamp: u32) -> u64 {
    if stamp.is_multiple_of(3) { 9 << 20 } else { 2 << 20 }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    /// The inode of the directory that is seen in the place of a covered one, by the inode of the covered one.
    pub(super) mounted: BTreeMap<u64, u64>,
    pub(super) inotify: Inotify,
    pub(crate) now: Timestamp,
    /// Whether the file system is known to date each change.
    pub(crate) dates_changes: bool,
    /// Numbers the things that are made and written.
    pub(super) serial: u32,
    /// Rises with each operation that took place.
    pub(crate) version: u64,
    /// How often something was mounted or unmounted.
    pub(crate) mounts_changed: usize,
    /// The names through which files with several names were written since the tracker last knew of all that has
    /// happened.
    pub(super) written_names: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    /// An empty root. `tells_attributes`: the watches are to tell of changes of attributes.
    pub(crate) fn new(now: Timestamp, tells_attributes: bool) -> Self {
        let mut disk = Self {
            inodes: BTreeMap::new(),
            mounted: BTreeMap::new(),
            inotify: Inotify::new(tells_attributes),
            now,
            dates_changes: true,
            serial: 0,
            version: 0,
            mounts_changed: 0,
            written_names: Vec::new(),
        };
        for top in [ROOT, OUTSIDE] {
            let made = disk.make(Node::Directory(BTreeMap::new()), FIRST_DEVICE);
            debug_assert_eq!(made, top);
        }
        disk
    }

    /// A new inode, by the smallest number that is free, as many file systems give them.
    pub(super) fn make(&mut self, node: Node, device: u64) -> u64 {
        self.serial += 1;
        let inode = (ROOT..).find(|inode| !self.inodes.contains_key(inode)).unwrap_or(u64::MAX);
        let written_last = matches!(node, Node::File { .. });
        let born_ns = u64::from(self.serial);
        let made = Inode { node, is_closed: false, born_ns, device, links: 0, changed: self.now, written_last };
        self.inodes.insert(inode, made);
        inode
    }

    pub(super) fn inode(&self, inode: u64) -> &Inode {
        &self.inodes[&inode]
    }

    pub(super) fn entries(&self, dir: u64) -> Option<&BTreeMap<Vec<u8>, u64>> {
        match &self.inodes.get(&dir)?.node {
            Node::Directory(entries) => Some(entries),
            Node::File { .. } | Node::Link(_) => None,
        }
    }

    pub(super) fn is_directory(&self, inode: u64) -> bool {
        self.entries(inode).is_some()
    }

    /// The inode that is found below `top`, by the superuser or by the watcher's user.
    pub(super) fn find_below(&self, top: u64, path: &RelPath, as_superuser: bool) -> Result<u64, Errno> {
        let mut at = top;
        for name in path.components().filter(|name| !name.is_empty()) {
            let inode = self.inode(at);
            let entries = match &inode.node {
                Node::Directory(_) if inode.is_closed && !as_superuser => return Err(Errno::ACCESS),
                Node::Directory(entries) => entries,
                Node::File { .. } => return Err(Errno::NOTDIR),
                Node::Link(_) => return Err(Errno::LOOP),
            };
            at = *entries.get(name).ok_or(Errno::NOENT)?;
            at = self.mounted.get(&at).copied().unwrap_or(at);
        }
        Ok(at)
    }

    pub(super) fn find(&self, path: &RelPath) -> Result<u64, Errno> {
        self.find_below(ROOT, path, true)
    }

    /// The inode that the watcher's user finds.
    pub(super) fn seen(&self, path: &RelPath) -> Result<u64, Errno> {
        self.find_below(ROOT, path, false)
    }

    /// All that the superuser finds below the root.
    pub(crate) fn tree(&self) -> Vec<(RelPath, u64, &Inode)> {
        let (mut found, mut open) = (Vec::new(), vec![(RelPath::root(), ROOT)]);
        while let Some((path, dir)) = open.pop() {
            for (name, inode) in self.entries(dir).into_iter().flatten() {
                let (path, inode) = (path.join(name), self.mounted.get(inode).copied().unwrap_or(*inode));
                found.push((path.clone(), inode, self.inode(inode)));
                open.push((path, inode));
            }
        }
        found
    }

    /// Whether there is a directory into which not everybody may look.
    pub(crate) fn has_closed(&self) -> bool {
        self.inodes.values().any(|inode| inode.is_closed)
    }

    /// Opens all directories that are closed.
    pub(crate) fn open_all(&mut self) {
        let closed: Vec<RelPath> =
            self.tree().into_iter().filter(|(_, _, inode)| inode.is_closed).map(|(path, ..)| path).collect();
        for path in closed {
            self.perform(&super::Operation::Open(path));
        }
        self.inodes.values_mut().for_each(|inode| inode.is_closed = false);
    }

    /// Takes the first of the events that nobody has read.
    pub(crate) fn read(&mut self) -> Option<Queued> {
        self.inotify.read()
    }

    /// Whether all events have been read.
    pub(crate) fn is_read(&self) -> bool {
        self.inotify.is_empty()
    }

    /// Limits how many directories can be watched, and how many events are kept.
    pub(crate) fn limit(&mut self, watches_max: usize, events_max: usize) {
        (self.inotify.watches_max, self.inotify.events_max) = (watches_max, events_max);
    }

    /// Limits how many directories can be watched from now on.
    pub(crate) fn limit_watches(&mut self, watches_max: usize) {
        self.inotify.watches_max = watches_max;
    }

    /// Ends all watches and forgets their events: another inotify instance takes the place of this one.
    pub(crate) fn forget_watches(&mut self) {
        let successor = Inotify::new(self.inotify.tells_attributes);
        let ended = std::mem::replace(&mut self.inotify, successor);
        self.limit(ended.watches_max, ended.events_max);
    }

    /// Notes that the tracker has followed up all that has happened.
    pub(crate) fn is_known(&mut self) {
        self.written_names.clear();
    }
}
