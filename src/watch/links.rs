//! Files with several names. The kernel tells of a write under the name through which it was made, and under all others
//! the file has changed as well.
//!
//! So a file that is found to have more than one name (one `lstat` for a write that is not part of a burst) is looked
//! for: first under the names that are known of it, then in the whole tree, by the inode numbers that listings tell
//! without looking at files. Once the whole tree was searched for an inode, every further name of it comes by an event or
//! a listing, and the inode is not searched for again. One search goes for all inodes that are wanted, and searches take
//! no more than a tenth of the time.
//!
//! A name that may not be looked at is neither there nor gone. A write through it is remembered until somebody may look.
//! The file's other names in closed directories are reported, and wait there. A name that is gone by the time of the look
//! still leads to the others if it was known. If it was not known, and nobody could look meanwhile, the whole tree is
//! looked through for what has changed.
//!
//! A write through a name in a directory without a watch has no event. Names in these are learnt when they are listed, and
//! each time that they are looked through all files that are known to have several names are looked at as well.
//!
//! Not found: writes through a name outside of the tree, through one in a directory that is left out, and through one
//! that is gone at once and was never seen to be one of several.

use std::io::ErrorKind;
use std::time::Duration;

use super::kernel::{Kernel, Look};
use super::known_names::Wanted;
use super::policy;
use super::table::Wd;
use super::task::Task;
use super::tracker::Tracker;
use crate::model::{Change, Origin, RelPath, Scope, Settle, Timestamp, changed_since};

/// The most inodes to be searched for at once, and the most names to be looked at later. Above that, everything that
/// changed of late is sent anew instead.
const WANTED_MAX: usize = 65_536;

/// How many times as long as a search took the next one is put off, and the longest that it is put off.
const SEARCH_PAUSE: u32 = 9;
const SEARCH_PAUSE_MAX: Duration = Duration::from_secs(60);

impl<K: Kernel> Tracker<K> {
    /// The number that ties the names of a file together, if a target is to have them as names of one file.
    fn tie(&self, inode: u64) -> Option<u64> {
        self.settings.keeps_links.then_some(inode)
    }
}

impl<K: Kernel> Tracker<K> {
    /// Whether names are still to be searched for.
    pub fn seeks_names(&self) -> bool {
        !self.links.wanted.is_empty() || self.links.begun.is_some()
    }

    /// Whether a listed entry may be another name of a file that is known to have several, or is searched for.
    pub(super) fn may_be_linked(&self, inode: u64) -> bool {
        !self.links.is_empty() && (self.links.known.contains_key(&inode) || self.links.sought.contains_key(&inode))
    }

    /// Learns a name that is there, by an event or in a listing; `look` says of which file. Returns whether it is one of
    /// several.
    pub(super) fn learn_name(&mut self, dir: Wd, name: &[u8], look: Look) -> bool {
        let is_linked = look.has_names();
        if is_linked {
            self.links.learn(look.inode, dir, name);
        }
        is_linked
    }

    /// Learns the name to which a file was moved: while the file is searched for, nothing else tells of that name.
    pub(super) fn arrived(&mut self, dir: Wd, name: &[u8], path: &RelPath) {
        if !self.links.is_empty()
            && let Ok(look) = self.kernel.look(path)
        {
            self.learn_name(dir, name, look);
        }
    }

    /// Handles a file that has changed under one of its names: reports the other names, and returns the change, tied to
    /// them if need be.
    #[must_use]
    pub(super) fn report_links(&mut self, dir: Wd, name: &[u8], path: &RelPath, change: Change) -> Change {
        if self.single.contains(path) {
            return change;
        }
        let wanted = Wanted { origin: change.origin, settle: change.settle };
        let look = match self.kernel.look(path) {
            Ok(look) => look,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.report_left(dir, name, wanted);
                return change;
            }
            Err(_) => {
                self.look_later(dir, name, wanted);
                return change;
            }
        };
        if !self.learn_name(dir, name, look) {
            self.single.insert(path.clone());
            return change;
        }
        let count =
            self.report_known(look.inode, |other| other.is_none_or(|other| other.is_same_file(look)), path, wanted);
        let is_complete = self.links.known.get(&look.inode).is_some_and(|known| known.is_complete);
        if count < look.links && !is_complete {
            self.want(look.inode, wanted);
        }
        Change { several_names: self.tie(look.inode), ..change }
    }

    /// Handles a file that has changed under a name that is gone by now: reports the names that it has left, as far as
    /// they are known. A search for each such file would hold up whoever waits.
    fn report_left(&mut self, dir: Wd, name: &[u8], wanted: Wanted) {
        let Some(inode) = self.links.inodes.get(&(dir, name.into())).copied() else { return };
        let gone = self.table.path(dir).map_or_else(RelPath::root, |dir| dir.join(name));
        self.report_known(inode, |other| other.is_none_or(|other| other.inode == inode), &gone, wanted);
    }

    /// Reports the known names of an inode but `told`, and forgets names that lead elsewhere by now. `is_same` judges
    /// what is found at a name; it is given `None` where nobody may look. Returns how many names are left.
    fn report_known(
        &mut self,
        inode: u64,
        is_same: impl Fn(Option<Look>) -> bool,
        told: &RelPath,
        wanted: Wanted,
    ) -> u64 {
        let names = self.links.known.get_mut(&inode).map(|known| std::mem::take(&mut known.names)).unwrap_or_default();
        let (mut kept, mut others) = (Vec::new(), Vec::new());
        for (at, called) in names {
            let below = self.table.path(at).map(|dir| dir.join(&called));
            let is_there = below.as_ref().is_some_and(|below| match self.kernel.look(below) {
                Ok(look) => is_same(Some(look)),
                Err(error) => error.kind() != ErrorKind::NotFound && is_same(None),
            });
            match below {
                Some(below) if is_there => {
                    if below != *told {
                        others.push((at, below));
                    }
                    kept.push((at, called));
                }
                _ => drop(self.links.inodes.remove(&(at, called))),
            }
        }
        let left = u64::try_from(kept.len()).unwrap_or(u64::MAX);
        match self.links.known.get_mut(&inode) {
            // The file is in the tree no more, or only under names that nobody knows.
            Some(_) if kept.is_empty() => drop(self.links.known.remove(&inode)),
            Some(known) => known.names = kept,
            None => {}
        }
        for (at, below) in others {
            self.report_link(at, below, inode, wanted);
        }
        left
    }

    /// Has the next search look for this inode as well.
    fn want(&mut self, inode: u64, Wanted { origin, settle }: Wanted) {
        let wanted = self.links.wanted.entry(inode).or_insert(Wanted { origin, settle });
        wanted.origin = wanted.origin.max(origin);
        // If one of the changes is complete, it need not wait for the other.
        if settle == Settle::Now {
            wanted.settle = settle;
        }
        if self.links.wanted.len() > WANTED_MAX {
            self.links.wanted.clear();
            self.report_everything();
        }
    }

    /// Remembers a name through which something was written and at which nobody may look.
    fn look_later(&mut self, dir: Wd, name: &[u8], wanted: Wanted) {
        self.closed.insert(dir);
        if !self.links.unseen.iter().any(|(at, called, _)| *at == dir && **called == *name) {
            self.links.unseen.push((dir, name.into(), wanted));
            self.links.unseen_since.get_or_insert(self.moment);
        }
        if self.links.unseen.len() > WANTED_MAX {
            self.links.unseen.clear();
            self.report_everything();
        }
    }

    /// Looks at the remembered names of closed directories, some of which may be open by now.
    pub(super) fn look_at_unseen(&mut self) {
        let since = self.links.unseen_since.take();
        let mut leads_nowhere = false;
        for (dir, name, wanted) in std::mem::take(&mut self.links.unseen) {
            let is_known = self.links.inodes.contains_key(&(dir, name.clone()));
            let Some(path) = self.table.path(dir).map(|dir| dir.join(&name)) else {
                self.report_left(dir, &name, wanted);
                leads_nowhere |= !is_known;
                continue;
            };
            let is_gone = self.kernel.look(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
            leads_nowhere |= is_gone && !is_known;
            let Wanted { origin, settle } = wanted;
            let change = Change { origin, settle, ..Change::scan(path.clone(), Scope::Entry) };
            let _ = self.report_links(dir, &name, &path, change);
        }
        if !self.links.unseen.is_empty() {
            self.links.unseen_since = since;
        }
        if leads_nowhere && let Some(since) = since {
            self.look_for_changes(since);
        }
    }

    /// Learns a name that was listed in a directory without a watch and whose file has several, so that it leads to the
    /// others once it is gone. Without room it is not learnt: a tree of snapshots would push out all that is known.
    pub(super) fn learn_unwatched(&mut self, dir: Wd, name: &[u8], path: &RelPath) {
        if self.links.has_room()
            && !self.links.inodes.contains_key(&(dir, name.into()))
            && let Ok(look) = self.kernel.look(path)
        {
            self.learn_name(dir, name, look);
        }
    }

    /// Looks at all files that are known to have several names. A file is reported if it has changed since `since`, or if
    /// none of its names is left and one in a directory without a watch was known. Without `since` all are reported.
    pub(super) fn look_at_linked(&mut self, since: Option<Timestamp>) {
        for inode in self.links.known.keys().copied().collect::<Vec<_>>() {
            let (mut seen, mut is_lost) = (None, false);
            for (dir, name) in self.links.known.get(&inode).map_or(&[][..], |known| &known.names) {
                match self.table.path(*dir).map(|dir| self.kernel.look(&dir.join(name))) {
                    Some(Ok(look)) if look.inode == inode => seen = Some(look),
                    Some(Err(error)) if error.kind() != ErrorKind::NotFound => {}
                    _ => is_lost |= !dir.is_watched(),
                }
                if seen.is_some() {
                    break;
                }
            }
            let has_changed = seen.map_or(is_lost, |seen| since.is_none_or(|since| seen.changed >= since));
            if !has_changed {
                continue;
            }
            let is_complete = self.links.known.get(&inode).is_some_and(|known| known.is_complete);
            let wanted = Wanted { origin: Origin::Write, settle: Settle::Now };
            let is_same = |other: Option<Look>| other.is_none_or(|other| other.inode == inode);
            let left = self.report_known(inode, is_same, &RelPath::root(), wanted);
            if !is_complete && seen.is_none_or(|seen| left < seen.links) {
                self.want(inode, wanted);
            }
        }
    }

    fn report_everything(&mut self) {
        self.report(Change { origin: Origin::Write, ..Change::scan(RelPath::root(), Scope::Subtree) });
    }

    fn report_link(&mut self, dir: Wd, path: RelPath, inode: u64, wanted: Wanted) {
        if !self.excludes_file(&path) {
            self.report_unreported(dir);
            let Wanted { origin, settle } = wanted;
            let several_names = self.tie(inode);
            self.report(Change { origin, settle, several_names, ..Change::scan(path, Scope::Entry) });
        }
    }

    /// Begins to search for names, if it is time.
    pub(super) fn seek_names(&mut self) {
        let is_due = self.links.not_before.is_none_or(|moment| moment <= self.now());
        if !self.links.wanted.is_empty() && self.links.begun.is_none() && is_due && self.tasks.is_empty() {
            self.links.sought = std::mem::take(&mut self.links.wanted);
            self.links.begun = Some(self.now());
            self.tasks.push(Task::Sought);
            self.tasks.push(Task::Seek { wd: self.table.root() });
        }
    }

    /// Looks for names in one directory, and then in those below it.
    pub(super) fn seek(&mut self, dir: Wd) {
        let Some(path) = self.table.path(dir) else { return };
        match self.kernel.list_inodes(&path) {
            Ok(listed) => listed.into_iter().for_each(|(name, inode)| self.listed(dir, &path, &name, inode)),
            // It cannot be sent either. Whatever of it may be another name is reported once it is open.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let since = changed_since(self.polled_at, self.moment, self.settings.ctime_margin);
                self.unlisted.entry(dir).or_insert(since.unwrap_or(Timestamp::ZERO));
                self.closed.insert(dir);
            }
            Err(_) => {}
        }
        let below: Vec<Wd> = self.table.children(dir).into_iter().map(|(wd, _)| wd).collect();
        self.tasks.extend(below.into_iter().map(|wd| Task::Seek { wd }));
    }

    /// Handles a name that was listed: reports it if its file is searched for.
    pub(super) fn listed(&mut self, dir: Wd, parent: &RelPath, name: &[u8], inode: Option<u64>) {
        if inode.is_some_and(|inode| !self.may_be_linked(inode)) {
            return;
        }
        let path = parent.join(name);
        if let Ok(look) = self.kernel.look(&path)
            && self.may_be_linked(look.inode)
        {
            self.learn_name(dir, name, look);
            if let Some(wanted) = self.links.sought.get(&look.inode).copied() {
                self.report_link(dir, path, look.inode, wanted);
            }
        }
    }

    /// Ends the search, after the whole tree was searched.
    pub(super) fn sought(&mut self) {
        for (inode, _) in self.links.sought.drain() {
            if let Some(known) = self.links.known.get_mut(&inode) {
                known.is_complete = true;
            }
        }
        let now = self.now();
        let took = self.links.begun.take().map_or(Duration::ZERO, |begun| now.duration_since(begun));
        self.links.not_before = Some(now + (took * SEARCH_PAUSE).min(SEARCH_PAUSE_MAX).max(policy::TIMES_WAIT));
    }
}
