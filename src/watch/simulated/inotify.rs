//! The simulated kernel's watches and its queue of events: merged, bounded and lost as the kernel does it.

use std::collections::{BTreeMap, VecDeque};

use ::inotify::EventMask;
use rustix::io::Errno;

use crate::watch::event::RawEvent;
use crate::watch::table::Wd;

/// An event that nobody has read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) wd: Wd,
    pub(crate) mask: EventMask,
    pub(crate) cookie: u32,
    pub(crate) name: Vec<u8>,
}

impl Queued {
    pub(crate) fn raw(&self) -> RawEvent<'_> {
        let Self { wd, mask, cookie, name } = self;
        RawEvent { wd: *wd, mask: *mask, cookie: *cookie, name }
    }
}

/// One inotify instance.
#[derive(Debug)]
pub(super) struct Inotify {
    inodes: BTreeMap<Wd, u64>,
    descriptors: BTreeMap<u64, Wd>,
    last_wd: i32,
    last_cookie: u32,
    queue: VecDeque<Queued>,
    /// Whether changes of attributes are told.
    pub(super) tells_attributes: bool,
    /// With this many watches further ones are refused.
    pub(super) watches_max: usize,
    /// With this many events in the queue further ones are lost.
    pub(super) events_max: usize,
}

impl Inotify {
    pub(super) fn new(tells_attributes: bool) -> Self {
        Self {
            inodes: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            last_wd: 0,
            last_cookie: 0,
            queue: VecDeque::new(),
            tells_attributes,
            watches_max: usize::MAX,
            events_max: usize::MAX,
        }
    }

    pub(super) fn watch(&mut self, inode: u64) -> Result<Wd, Errno> {
        if let Some(wd) = self.descriptors.get(&inode) {
            return Ok(*wd);
        }
        if self.inodes.len() >= self.watches_max {
            return Err(Errno::NOSPC);
        }
        self.last_wd += 1;
        let wd = Wd(self.last_wd);
        self.inodes.insert(wd, inode);
        self.descriptors.insert(inode, wd);
        Ok(wd)
    }

    pub(super) fn unwatch(&mut self, wd: Wd) {
        if let Some(inode) = self.inodes.remove(&wd) {
            self.descriptors.remove(&inode);
            self.queue(Queued { wd, mask: EventMask::IGNORED, cookie: 0, name: Vec::new() });
        }
    }

    /// Ends the watch of an inode that is no more.
    pub(super) fn end(&mut self, inode: u64, why: EventMask) {
        if let Some(wd) = self.descriptors.get(&inode).copied() {
            self.tell(inode, why, 0, b"");
            self.unwatch(wd);
        }
    }

    pub(super) fn cookie(&mut self) -> u32 {
        self.last_cookie += 1;
        self.last_cookie
    }

    /// Tells whoever watches `inode` of an event on it, or on a name in it.
    pub(super) fn tell(&mut self, inode: u64, mask: EventMask, cookie: u32, name: &[u8]) {
        let is_wanted = self.tells_attributes || !mask.contains(EventMask::ATTRIB);
        if let Some(wd) = self.descriptors.get(&inode).copied().filter(|_| is_wanted) {
            self.queue(Queued { wd, mask, cookie, name: name.to_vec() });
        }
    }

    fn queue(&mut self, event: Queued) {
        let overflow = Queued { wd: Wd(-1), mask: EventMask::Q_OVERFLOW, cookie: 0, name: Vec::new() };
        if self.queue.len() >= self.events_max {
            if !self.queue.contains(&overflow) {
                self.queue.push_back(overflow);
            }
            return;
        }
        let is_told = self.queue.back().is_some_and(|last| {
            (last.wd, last.mask, &last.name) == (event.wd, event.mask, &event.name) && last.mask != EventMask::IGNORED
        });
        if !is_told {
            self.queue.push_back(event);
        }
    }

    pub(super) fn read(&mut self) -> Option<Queued> {
        self.queue.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
