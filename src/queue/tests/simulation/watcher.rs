//! The watcher in miniature: what the kernel queues, and the tracker's rules in short.

use super::*;

/// What the kernel queues, by the inode of the watched directory.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Written(u32, Vec<u8>),
    FileGone(u32, Vec<u8>),
    DirGone(u32, Vec<u8>),
    Made(u32, Vec<u8>),
    MovedFrom(u32, Vec<u8>, u32),
    MovedTo(u32, Vec<u8>, u32),
}

pub(super) struct Limbo {
    pub(super) cookie: u32,
    pub(super) inode: u32,
    pub(super) old: RelPath,
    /// It and what is watched below, under their old names.
    pub(super) watched: Vec<(u32, RelPath)>,
    pub(super) until: Timestamp,
    pub(super) disturbed: bool,
}

/// The tracker in short.
#[derive(Default)]
pub(super) struct Watcher {
    /// Where each watched directory is, as far as events say.
    pub(super) table: BTreeMap<u32, RelPath>,
    pub(super) limbo: Vec<Limbo>,
    /// Those in which something could not be looked at, or watched.
    pub(super) closed: BTreeSet<u32>,
    pub(super) gather: Gather,
}

impl Watcher {
    pub(super) fn at(&self, path: &RelPath) -> Option<u32> {
        self.table.iter().find(|(_, at)| *at == path).map(|(inode, _)| *inode)
    }

    pub(super) fn forget_below(&mut self, path: &RelPath) {
        self.table.retain(|_, at| !path.covers(at));
    }

    pub(super) fn touch(&mut self, dir: &RelPath) {
        let times = Change { settle: Settle::Within(TIMES), ..Change::scan(dir.clone(), Scope::Entry) };
        self.gather.add(times, Reported::There);
    }

    pub(super) fn whole(&mut self, path: &RelPath, moved_from: Option<RelPath>) {
        let tree = Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path.clone(), Scope::Subtree) };
        self.gather.add(Change { moved_from, ..tree }, Reported::There);
    }

    /// Remembers that nobody may look at `path`, or what is in it.
    pub(super) fn note_if_closed(&mut self, source: &Tree, path: &RelPath) {
        let is_closed = matches!(source.presence(path), Presence::Unknown(_)) || source.is_closed(path);
        self.closed.extend(path.parent().filter(|_| is_closed).and_then(|dir| self.at(&dir)));
    }

    /// Reports all of what was closed and is open by now.
    pub(super) fn look_if_open(&mut self, source: &Tree) {
        for dir in self.closed.clone() {
            let Some(path) = self.table.get(&dir).cloned() else { continue };
            if source.inode(&path) != Some(dir) || source.is_closed(&path) {
                continue;
            }
            self.closed.remove(&dir);
            self.gather.add(Change::scan(path.clone(), Scope::Subtree), Reported::There);
            self.look_over(source, &path);
        }
    }

    /// Watches a directory found under a name and what is in it. New ones are told of one by one, or as a whole.
    pub(super) fn meet(&mut self, source: &Tree, path: &RelPath, one_by_one: bool) {
        self.note_if_closed(source, path);
        let Some(inode) = source.inode(path) else { return };
        if source.is_closed(path) && !self.table.contains_key(&inode) {
            return if one_by_one { self.announce(path) } else { self.whole(path, None) };
        }
        match self.table.get(&inode).cloned() {
            Some(known) if known == *path => {
                if one_by_one {
                    self.announce(path);
                }
            }
            Some(elsewhere) => {
                if elsewhere.covers(path) {
                    return;
                }
                self.forget_below(path);
                self.move_names(&elsewhere, path);
                self.whole(path, None);
            }
            None if self.limbo.iter().any(|left| left.inode == inode) => {
                self.limbo.retain(|left| left.inode != inode);
                self.forget_below(path);
                self.table.insert(inode, path.clone());
                self.whole(path, None);
            }
            None => {
                self.forget_below(path);
                self.table.insert(inode, path.clone());
                if one_by_one { self.announce(path) } else { self.whole(path, None) }
            }
        }
        self.closed.extend(Some(inode).filter(|_| source.is_closed(path)));
        for (below, node) in source.children(path) {
            if matches!(node, Node::Dir(_)) && self.at(&below) != source.inode(&below) {
                self.meet(source, &below, one_by_one);
            }
        }
    }

    pub(super) fn announce(&mut self, path: &RelPath) {
        self.gather.appeared(path);
        let fresh = Change { scope: Scope::Children, fresh: true, ..Change::write(path.clone()) };
        self.gather.add(fresh, Reported::There);
    }

    pub(super) fn move_names(&mut self, from: &RelPath, to: &RelPath) {
        for at in self.table.values_mut().filter(|at| from.covers(at)) {
            *at = rebased(at, from, to);
        }
    }

    pub(super) fn read(&mut self, event: Event, source: &Tree, now: Timestamp) {
        let (Event::Written(dir, _)
        | Event::FileGone(dir, _)
        | Event::DirGone(dir, _)
        | Event::Made(dir, _)
        | Event::MovedFrom(dir, ..)
        | Event::MovedTo(dir, ..)) = &event;
        let Some(dir) = self.table.get(dir).cloned() else {
            self.limbo.iter_mut().for_each(|left| left.disturbed = true);
            return;
        };
        match event {
            Event::Written(_, name) => {
                self.touch(&dir);
                self.gather.add(Change::write(dir.join(&name)), Reported::There);
            }
            Event::FileGone(_, name) => {
                self.touch(&dir);
                self.gather.add(Change::scan(dir.join(&name), Scope::Entry), Reported::Gone);
            }
            Event::DirGone(_, name) => {
                self.touch(&dir);
                self.forget_below(&dir.join(&name));
                self.gather.add(Change::scan(dir.join(&name), Scope::Entry), Reported::GoneDirectory);
            }
            Event::Made(_, name) => {
                self.touch(&dir);
                self.meet(source, &dir.join(&name), true);
            }
            Event::MovedFrom(_, name, cookie) => {
                self.touch(&dir);
                let old = dir.join(&name);
                self.note_if_closed(source, &old);
                if let Some(inode) = self.at(&old) {
                    let below = self.table.iter().filter(|(_, at)| old.covers(at));
                    let watched = below.map(|(inode, at)| (*inode, at.clone())).collect();
                    self.forget_below(&old);
                    let until = now.after(Duration::from_millis(20));
                    self.limbo.push(Limbo { cookie, inode, old: old.clone(), watched, until, disturbed: false });
                }
                self.gather.add(Change::scan(old, Scope::Entry), Reported::GoneDirectory);
            }
            Event::MovedTo(_, name, cookie) => {
                self.touch(&dir);
                let new = dir.join(&name);
                self.gather.appeared(&new);
                let left = self.limbo.iter().position(|left| left.cookie == cookie).map(|at| self.limbo.remove(at));
                let known = left.as_ref().filter(|left| !left.disturbed).map(|left| left.old.clone());
                let is_it = left.as_ref().is_some_and(|left| source.inode(&new) == Some(left.inode));
                if let Some(left) = left.filter(|_| is_it || !source.is_dir(&new)) {
                    // If it has moved on already, it is kept until the event that says so.
                    self.forget_below(&new);
                    self.table
                        .extend(left.watched.into_iter().map(|(inode, at)| (inode, rebased(&at, &left.old, &new))));
                }
                if is_it {
                    self.whole(&new, known);
                    self.look_over(source, &new);
                } else if source.is_dir(&new) && source.inode(&new) == self.at(&new) {
                    self.whole(&new, None);
                } else {
                    self.meet(source, &new, false);
                }
            }
        }
    }

    /// Reports what is new in a moved directory as a whole.
    pub(super) fn look_over(&mut self, source: &Tree, path: &RelPath) {
        self.closed.extend(self.at(path).filter(|_| source.is_closed(path)));
        for (below, node) in source.children(path) {
            if let Node::Dir(inode) = node {
                if self.table.get(&inode) == Some(&below) {
                    self.look_over(source, &below);
                } else {
                    self.meet(source, &below, false);
                }
            }
        }
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        self.limbo.retain(|left| left.until > now);
    }

    pub(super) fn watches(&self, inode: u32) -> bool {
        self.table.contains_key(&inode) || self.limbo.iter().any(|left| left.watched.iter().any(|(it, _)| *it == inode))
    }
}
