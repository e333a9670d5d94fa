//! What programs do to the simulated kernel's file system, and which events each deed makes.

use ::inotify::EventMask;
use rustix::io::Errno;

use super::disk::{Disk, Node, OUTSIDE, ROOT};
use crate::model::RelPath;

/// A deed of a program. It may fail, as a program's may, and then nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Writes a file that is there through this name, or a new one.
    Write(RelPath),
    /// Writes a file so that the quick check sees nothing of it.
    Rewrite(RelPath),
    MakeDirectory(RelPath),
    Symlink(RelPath),
    /// Gives a file one more name, which is the second path.
    HardLink(RelPath, RelPath),
    /// Removes the path with all that is below.
    Remove(RelPath),
    Rename(RelPath, RelPath),
    Exchange(RelPath, RelPath),
    /// Moves the path out of the tree, to the place of that number.
    Leave(RelPath, u8),
    /// Moves what is at the place of that number back into the tree.
    Enter(u8, RelPath),
    Close(RelPath),
    Open(RelPath),
    /// Another file system with a file `f` in it comes over a directory.
    Mount(RelPath),
    Unmount(RelPath),
}

/// Where a name is: the inode of the directory, and the name.
type Place = (u64, Vec<u8>);

impl Disk {
    /// Lets a program do something. Returns whether it could.
    pub(crate) fn perform(&mut self, operation: &Operation) -> bool {
        let outside = |number: u8| (OUTSIDE, vec![b'0' + number]);
        let done = match operation {
            Operation::Write(path) => self.write(path, false),
            // Where changes are not dated, nothing would show the write once its event is lost.
            Operation::Rewrite(path) => self.write(path, self.dates_changes),
            Operation::MakeDirectory(path) => self.add(path, Node::Directory(std::collections::BTreeMap::new())),
            Operation::Symlink(path) => self.add(path, Node::Link(self.serial + 1)),
            Operation::HardLink(from, to) => self.hard_link(from, to),
            Operation::Remove(path) => self.place(path).and_then(|place| self.remove(&place)),
            Operation::Rename(from, to) => {
                self.place(from).and_then(|from| self.place(to).and_then(|to| self.rename(&from, &to)))
            }
            Operation::Exchange(one, other) => {
                self.place(one).and_then(|one| self.place(other).and_then(|other| self.exchange(&one, &other)))
            }
            Operation::Leave(path, number) => self.place(path).and_then(|from| self.rename(&from, &outside(*number))),
            Operation::Enter(number, path) => self.place(path).and_then(|to| self.rename(&outside(*number), &to)),
            Operation::Close(path) => self.set_closed(path, true),
            Operation::Open(path) => self.set_closed(path, false),
            Operation::Mount(path) => self.mount(path),
            Operation::Unmount(path) => self.unmount(path),
        };
        self.version += u64::from(done.is_ok());
        done.is_ok()
    }

    /// The place of the name that a path ends in. Its directory has to be there.
    fn place(&self, path: &RelPath) -> Result<Place, Errno> {
        let dir = self.find(&path.parent().ok_or(Errno::BUSY)?)?;
        if self.is_directory(dir) { Ok((dir, path.name().to_vec())) } else { Err(Errno::NOTDIR) }
    }

    fn at(&self, (dir, name): &Place) -> Option<u64> {
        self.entries(*dir)?.get(name).copied()
    }

    /// Changes a listing: `inode` comes to the place, or nothing does. Returns the inode that was there.
    fn put(&mut self, (dir, name): &Place, inode: Option<u64>) -> Option<u64> {
        let now = self.now;
        let dir = self.inodes.get_mut(dir)?;
        dir.changed = now;
        let Node::Directory(entries) = &mut dir.node else { return None };
        match inode {
            Some(inode) => entries.insert(name.clone(), inode),
            None => entries.remove(name),
        }
    }

    /// Dates a change of the inode that is not one of its content.
    fn touch(&mut self, inode: u64) {
        let now = self.now;
        if let Some(inode) = self.inodes.get_mut(&inode) {
            (inode.changed, inode.written_last) = (now, false);
        }
    }

    fn tell(&mut self, (dir, name): &Place, mask: EventMask, of: u64, cookie: u32) {
        let kind = if self.is_directory(of) { EventMask::ISDIR } else { EventMask::empty() };
        self.inotify.tell(*dir, mask | kind, cookie, name);
    }

    fn add(&mut self, path: &RelPath, node: Node) -> Result<(), Errno> {
        let place = self.place(path)?;
        if self.at(&place).is_some() {
            return Err(Errno::EXIST);
        }
        let device = self.inode(place.0).device;
        let made = self.make(node, device);
        self.name(&place, made);
        Ok(())
    }

    /// Gives an inode one more name.
    fn name(&mut self, place: &Place, inode: u64) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.links += 1;
        }
        self.put(place, Some(inode));
        self.tell(place, EventMask::CREATE, inode, 0);
    }

    fn write(&mut self, path: &RelPath, is_hidden: bool) -> Result<(), Errno> {
        let place = self.place(path)?;
        if self.at(&place).is_none() {
            self.add(path, Node::File { content: self.serial + 1, stamp: self.serial + 1 })?;
        }
        let (file, now) = (self.at(&place).ok_or(Errno::NOENT)?, self.now);
        self.serial += 1;
        let serial = self.serial;
        let inode = self.inodes.get_mut(&file).ok_or(Errno::NOENT)?;
        let Node::File { content, stamp } = &mut inode.node else { return Err(Errno::ISDIR) };
        *content = serial;
        if !is_hidden {
            *stamp = serial;
        }
        (inode.changed, inode.written_last) = (now, !is_hidden);
        if inode.links > 1 {
            self.written_names.push(place.clone());
        }
        for mask in [EventMask::MODIFY, EventMask::CLOSE_WRITE] {
            self.tell(&place, mask, file, 0);
        }
        if is_hidden {
            self.tell(&place, EventMask::ATTRIB, file, 0);
        }
        Ok(())
    }

    fn hard_link(&mut self, from: &RelPath, to: &RelPath) -> Result<(), Errno> {
        let (file, place) = (self.find(from)?, self.place(to)?);
        let is_here = self.inode(file).device == self.inode(place.0).device;
        if self.is_directory(file) || self.at(&place).is_some() || !is_here {
            return Err(Errno::PERM);
        }
        self.touch(file);
        self.name(&place, file);
        Ok(())
    }

    /// Whether a name may go. It may not while nobody knows that a file with several names was written through it, since
    /// nobody would learn of the write any more. `links` says so of such a name.
    fn may_go(&self, (dir, name): &Place) -> Result<(), Errno> {
        let Some(inode) = self.at(&(*dir, name.clone())) else { return Err(Errno::NOENT) };
        let is_written = |place: &Place| self.written_names.contains(place);
        let mut open = vec![inode];
        while let Some(below) = open.pop() {
            if self.mounted.contains_key(&below) {
                return Err(Errno::BUSY);
            }
            for (name, inode) in self.entries(below).into_iter().flatten() {
                if is_written(&(below, name.clone())) {
                    return Err(Errno::AGAIN);
                }
                open.push(*inode);
            }
        }
        if is_written(&(*dir, name.clone())) { Err(Errno::AGAIN) } else { Ok(()) }
    }

    fn remove(&mut self, place: &Place) -> Result<(), Errno> {
        self.may_go(place)?;
        let inode = self.at(place).ok_or(Errno::NOENT)?;
        let below: Vec<Place> =
            self.entries(inode).into_iter().flatten().map(|(name, _)| (inode, name.clone())).collect();
        for place in below {
            self.remove(&place)?;
        }
        let kind = if self.is_directory(inode) { EventMask::ISDIR } else { EventMask::empty() };
        self.put(place, None);
        self.unname(inode);
        self.inotify.tell(place.0, EventMask::DELETE | kind, 0, &place.1);
        Ok(())
    }

    /// Takes a name from an inode. With its last name the inode ends.
    fn unname(&mut self, inode: u64) {
        self.touch(inode);
        let Some(found) = self.inodes.get_mut(&inode) else { return };
        found.links -= 1;
        if found.links == 0 {
            self.inotify.end(inode, EventMask::DELETE_SELF);
            self.inodes.remove(&inode);
        }
    }

    /// Whether `dir` is the inode or lies below it.
    fn is_at_or_below(&self, dir: u64, inode: u64) -> bool {
        let mut open = vec![inode];
        while let Some(at) = open.pop() {
            if at == dir {
                return true;
            }
            open.extend(self.entries(at).into_iter().flatten().map(|(_, below)| *below));
        }
        false
    }

    fn rename(&mut self, from: &Place, to: &Place) -> Result<(), Errno> {
        self.may_go(from)?;
        let moved = self.at(from).ok_or(Errno::NOENT)?;
        let there = self.at(to);
        let is_itself = there == Some(moved);
        if is_itself || self.is_at_or_below(to.0, moved) || self.inode(from.0).device != self.inode(to.0).device {
            return Err(Errno::INVAL);
        }
        if let Some(there) = there {
            self.may_go(to)?;
            let fits = match self.entries(there) {
                Some(entries) => self.is_directory(moved) && entries.is_empty(),
                None => !self.is_directory(moved),
            };
            if !fits {
                return Err(Errno::EXIST);
            }
        }
        self.put(from, None);
        self.put(to, Some(moved));
        self.touch(moved);
        self.tell_move(from, to, moved, there);
        if let Some(there) = there {
            self.unname(there);
        }
        Ok(())
    }

    /// Tells of a move that took the name of another inode, if `replaced` is one.
    fn tell_move(&mut self, from: &Place, to: &Place, moved: u64, replaced: Option<u64>) {
        let cookie = self.inotify.cookie();
        self.tell(from, EventMask::MOVED_FROM, moved, cookie);
        self.tell(to, EventMask::MOVED_TO, moved, cookie);
        if let Some(replaced) = replaced {
            self.inotify.tell(replaced, EventMask::ATTRIB, 0, b"");
        }
        self.inotify.tell(moved, EventMask::MOVE_SELF, 0, b"");
    }

    fn exchange(&mut self, one: &Place, other: &Place) -> Result<(), Errno> {
        self.may_go(one)?;
        self.may_go(other)?;
        let (first, second) = (self.at(one).ok_or(Errno::NOENT)?, self.at(other).ok_or(Errno::NOENT)?);
        let is_nested = self.is_at_or_below(other.0, first) || self.is_at_or_below(one.0, second);
        if first == second || is_nested || self.inode(one.0).device != self.inode(other.0).device {
            return Err(Errno::INVAL);
        }
        self.put(one, Some(second));
        self.put(other, Some(first));
        self.touch(first);
        self.touch(second);
        self.tell_move(one, other, first, None);
        self.tell_move(other, one, second, None);
        Ok(())
    }

    fn set_closed(&mut self, path: &RelPath, is_closed: bool) -> Result<(), Errno> {
        let dir = self.find(path)?;
        if path.is_root() || !self.is_directory(dir) || self.inode(dir).is_closed == is_closed {
            return Err(Errno::NOTDIR);
        }
        self.touch(dir);
        if let Some(inode) = self.inodes.get_mut(&dir) {
            inode.is_closed = is_closed;
        }
        let place = self.place(path)?;
        self.tell(&place, EventMask::ATTRIB, dir, 0);
        self.inotify.tell(dir, EventMask::ATTRIB | EventMask::ISDIR, 0, b"");
        Ok(())
    }

    fn mount(&mut self, path: &RelPath) -> Result<(), Errno> {
        let dir = self.find(path)?;
        if dir == ROOT || !self.is_directory(dir) || self.mounted.values().any(|top| *top == dir) {
            return Err(Errno::BUSY);
        }
        let device = u64::from(self.serial) + 2;
        let top = self.make(Node::Directory(std::collections::BTreeMap::new()), device);
        self.mounted.insert(dir, top);
        self.mounts_changed += 1;
        let file = self.make(Node::File { content: self.serial, stamp: self.serial }, device);
        self.name(&(top, b"f".to_vec()), file);
        Ok(())
    }

    fn unmount(&mut self, path: &RelPath) -> Result<(), Errno> {
        let top = self.find(path)?;
        let covered = self.mounted.iter().find(|(_, over)| **over == top).map(|(covered, _)| *covered);
        let covered = covered.ok_or(Errno::INVAL)?;
        if self.mounted.keys().any(|dir| self.is_at_or_below(*dir, top)) {
            return Err(Errno::BUSY);
        }
        self.mounted.remove(&covered);
        self.mounts_changed += 1;
        let mut open = vec![top];
        while let Some(inode) = open.pop() {
            open.extend(self.entries(inode).into_iter().flatten().map(|(_, below)| *below));
            self.inotify.end(inode, EventMask::UNMOUNT);
            self.inodes.remove(&inode);
        }
        Ok(())
    }
}
