//! Looks at directories: sets the watches that are missing, and corrects the table where the tree has moved on.
//!
//! Watch first, then list: a name that appears after the watch has an event, one that was there before is in the listing.
//! A walk is cut into single listings on a stack, done between reads of the kernel's queue, so that even a tree of a
//! million directories does not keep the queue waiting.

use std::collections::HashSet;

use rustix::io::Errno;

use super::Notice;
use super::kernel::{Kernel, Listed};
use super::table::Wd;
use super::task::{Placed, Task, Walk};
use super::tracker::Tracker;
use crate::model::{Change, DirectoryId, Moment, RelPath, Timestamp, changed_since};

/// Each of the first failures to watch a directory is told, afterwards each power of two.
const FAILURES_TOLD: u64 = 16;

impl<K: Kernel> Tracker<K> {
    /// Whether there is work to do between reads.
    pub fn has_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whether some directories wait for a watch, or to be looked into, or a directory that had no watch has gone.
    pub fn lacks_watches(&self) -> bool {
        self.table.unwatched() > 0 || self.has_lost_unwatched || !self.closed.is_empty()
    }

    /// Does up to `steps` tasks.
    pub(super) fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.tasks.pop() {
                Some(Task::List { wd, walk }) => self.list(self.present(wd), walk),
                Some(Task::Seek { wd }) => self.seek(self.present(wd)),
                Some(Task::Sought) => self.sought(),
                Some(Task::Report { wd, fresh }) => self.report_tree(self.present(wd), fresh),
                Some(Task::Started) => {
                    self.flush(false);
                    self.visit_mounts();
                    if let Some(started) = self.started.take() {
                        // Sending fails if nobody waits any more: the start was given up.
                        let _ = started.send(());
                    }
                }
                None => return self.rekeyed.clear(),
            }
        }
    }

    /// The descriptor under which a directory is known by now that a task knows as `wd`.
    fn present(&self, wd: Wd) -> Wd {
        self.rekeyed.get(&wd).copied().unwrap_or(wd)
    }

    /// Gives a directory that is watched at last its descriptor. Tasks that know it by the made-up one stay valid.
    fn rekey(&mut self, made_up: Wd, wd: Wd, id: Option<DirectoryId>) {
        self.table.rekey(made_up, wd, id);
        self.rekeyed.insert(made_up, wd);
    }

    /// Handles a directory that was found under a name: watches it and looks into it as `walk` says.
    pub(super) fn visit(&mut self, dir: Wd, name: &[u8], path: &RelPath, mut walk: Walk) -> Placed {
        let placed = self.place_at(dir, name, path);
        match placed {
            Placed::Known(wd) | Placed::New(wd) if walk.deep || placed == Placed::New(wd) => {
                if walk.report {
                    self.announce(wd, path.clone());
                } else if walk.report_whole && placed == Placed::New(wd) {
                    walk.report_whole = false;
                    self.tasks.push(Task::Report { wd, fresh: true });
                } else if walk.since.is_some() && placed == Placed::New(wd) && !self.was_known(wd) {
                    if self.settings.events.create_folder {
                        walk.is_unknown = true;
                    } else {
                        walk.since = None;
                        walk.report = true;
                        self.announce(wd, path.clone());
                    }
                }
                self.tasks.push(Task::List { wd, walk });
            }
            Placed::Moved(wd) => match self.left_from(wd, path) {
                Some(old) => self.report_moved(wd, dir, path.clone(), old),
                None => self.look_over(wd),
            },
            Placed::Known(_) | Placed::New(_) | Placed::Not => {}
        }
        placed
    }

    /// Whether the first walk finds the directory where it was when the tree was last watched.
    fn was_known(&self, wd: Wd) -> bool {
        let known = || {
            self.started.as_ref()?;
            let (parent, name) = self.table.place(wd)?;
            let (was_in, was_called) = self.known.get(&self.table.id(wd)?)?;
            Some(*was_in == self.table.id(parent)? && **was_called == *name)
        };
        known().unwrap_or(false)
    }

    /// Looks for missing watches in a directory that came from elsewhere, and reports all of it afterwards.
    pub(super) fn look_over(&mut self, wd: Wd) {
        if self.settings.events.move_to {
            self.tasks.push(Task::Report { wd, fresh: true });
        }
        self.tasks.push(Task::List { wd, walk: Walk::DEEP });
    }

    /// Looks through the whole tree for changes since `from`, of which there are no events.
    pub(super) fn look_for_changes(&mut self, from: Moment) {
        let wd = self.table.root();
        let since = changed_since(from, self.moment, self.settings.ctime_margin);
        if since.is_none() {
            self.tasks.push(Task::Report { wd, fresh: false });
        }
        // Most changes that are found have been reported already, by the events that were not lost. A file that was
        // written twice within one tick of the kernel's clock, and sent in between, looks like one that was written once;
        // but no rsync starts between two events of which the queue is full.
        self.tasks.push(Task::List { wd, walk: Walk { since, quick: true, ..Walk::DEEP } });
    }

    /// Watches the directory at `path` and makes the table say that it is there.
    pub(super) fn place_at(&mut self, dir: Wd, name: &[u8], path: &RelPath) -> Placed {
        let there = self.table.child(dir, name);
        match self.kernel.watch(path) {
            Ok((wd, _)) if there == Some(wd) => Placed::Known(wd),
            Ok((wd, _)) if self.table.contains(wd) => {
                // A bind mount can show a directory inside itself.
                if self.table.is_at_or_above(wd, dir) {
                    return Placed::Not;
                }
                if self.is_at_twin(wd) {
                    return Placed::Not;
                }
                if let Some(there) = there {
                    self.forget(there);
                }
                // The directory may have been below the one just forgotten; then its watch is gone too.
                if !self.table.contains(wd) {
                    return self.place_at(dir, name, path);
                }
                if let Some(old) = self.table.path(wd) {
                    self.settings.mounts.moved(&old, path);
                }
                self.table.detach(wd);
                self.table.attach(wd, dir, name);
                Placed::Moved(wd)
            }
            Ok((wd, id)) => {
                match there {
                    Some(unwatched) if !unwatched.is_watched() => self.rekey(unwatched, wd, id),
                    Some(another) => {
                        self.forget(another);
                        self.table.insert(dir, name, Some(wd), id);
                    }
                    None => {
                        self.table.insert(dir, name, Some(wd), id);
                    }
                }
                Placed::New(wd)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.not_found();
                Placed::Not
            }
            Err(errno) => {
                self.note_if_closed(dir, path);
                // The departure of the directory that was here before may be told only later. Without this comparison
                // the new one would pass for it.
                let id = self.kernel.identify(path);
                if let Some(known) = there {
                    if id.is_none() || self.table.id(known) == id {
                        return Placed::Known(known);
                    }
                    self.forget(known);
                }
                let wd = self.table.insert(dir, name, None, id);
                self.tell_unwatched(path, errno);
                Placed::New(wd)
            }
        }
    }

    /// Tries again to watch directories that could not be watched: watches may have become free, or permissions been
    /// given. A directory that still cannot be watched is looked through for changes since the last time.
    pub fn retry_unwatched(&mut self) {
        for wd in self.closed.clone() {
            self.look_if_open(wd);
        }
        self.look_at_unseen();
        let since = changed_since(self.polled_at, self.moment, self.settings.ctime_margin);
        self.polled_at = self.moment;
        self.has_lost_unwatched = false;
        self.unlisted.retain(|wd, _| self.table.contains(*wd));
        let mut directories = 0;
        let mut exhausted = false;
        for wd in self.table.unwatched_wds() {
            let Some(path) = self.table.path(wd) else { continue };
            let watched = if exhausted { Err(Errno::NOSPC) } else { self.kernel.watch(&path) };
            match watched {
                Ok((known, _)) if self.table.contains(known) => {}
                Ok((new, id)) => {
                    let since = self.unlooked_since(wd, since);
                    self.unlisted.remove(&wd);
                    self.rekey(wd, new, id);
                    self.tasks.push(Task::Report { wd: new, fresh: false });
                    // The quick check may not see all changes up to now.
                    self.tasks.push(Task::List { wd: new, walk: Walk::reported(since) });
                    directories += 1;
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.forget(wd),
                Err(errno) => {
                    exhausted = errno == Errno::NOSPC;
                    if since.is_none() {
                        self.tasks.push(Task::Report { wd, fresh: false });
                    }
                    let since = self.unlooked_since(wd, since);
                    self.tasks.push(Task::List { wd, walk: Walk { since, ..Walk::default() } });
                }
            }
        }
        self.look_at_linked(since);
        if directories > 0 {
            self.notice(Notice::WatchedAgain { directories });
        }
    }

    /// The time from which on changes in a directory are looked for at a poll: an earlier one if it could not be listed
    /// before.
    fn unlooked_since(&self, wd: Wd, since: Option<Timestamp>) -> Option<Timestamp> {
        since.map(|since| self.unlisted.get(&wd).map_or(since, |earliest| since.min(*earliest)))
    }

    /// Remembers that nobody may look at `path`. That says nothing of what is there, only that `dir`, in which `path` is,
    /// has to be looked into later.
    pub(super) fn note_if_closed(&mut self, dir: Wd, path: &RelPath) {
        if self.kernel.look(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            self.closed.insert(dir);
        }
    }

    /// Looks into a directory that was closed, if it is open by now, and reports all of it.
    pub(super) fn look_if_open(&mut self, wd: Wd) {
        if !self.closed.contains(&wd) {
            return;
        }
        let path = self.table.path(wd);
        if path.as_ref().is_none_or(|path| self.kernel.is_open(path)) {
            self.closed.remove(&wd);
            if path.is_some() {
                self.tasks.push(Task::Report { wd, fresh: false });
                let since = self.unlisted.remove(&wd);
                self.tasks.push(Task::List { wd, walk: Walk::reported(since) });
            }
        }
    }

    fn list(&mut self, dir: Wd, mut walk: Walk) {
        let Some(path) = self.table.path(dir) else { return };
        let goes_on = self.started.is_some() && self.caught_up_from.is_some();
        let looks_for_names = !dir.is_watched() || walk.report || goes_on;
        let listing = match self.kernel.list(&path, walk.since.is_some(), looks_for_names) {
            Ok(listing) => listing,
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                if errno == Errno::ACCESS
                    && let Some(since) = walk.since
                {
                    let earliest = self.unlisted.entry(dir).or_insert(since);
                    *earliest = since.min(*earliest);
                }
                match errno {
                    // The event that explains the missing directory is still to come.
                    Errno::NOENT | Errno::NOTDIR | Errno::LOOP => self.not_found(),
                    // A directory that could not be watched either has been told of.
                    errno if dir.is_watched() => {
                        if errno == Errno::ACCESS {
                            self.closed.insert(dir);
                        }
                        self.tell_unwatched(&path, errno);
                    }
                    _ => {}
                }
                return;
            }
        };
        if walk.since.is_some_and(|since| self.unlisted.get(&dir).is_some_and(|earliest| since <= *earliest)) {
            self.unlisted.remove(&dir);
        }
        if let Some(since) = walk.since {
            match listing.changed {
                changed if std::mem::take(&mut walk.is_unknown) => {
                    // Nobody knows where the directory was before, and its files may be older than `since`. It would have
                    // had to change to come here since then.
                    let fresh = changed.is_none_or(|changed| changed >= since);
                    if fresh || !walk.is_reported {
                        self.tasks.push(Task::Report { wd: dir, fresh });
                    }
                    // Files that came with old times may have been written since all the same. An overlay's directory is
                    // another one, and no newer, once something in it has been written.
                    walk.is_reported = true;
                    walk.since = walk.since.filter(|_| !fresh || walk.names);
                }
                Some(changed) if changed >= since => self.report_level(dir),
                Some(_) => {}
                None => {
                    self.tasks.push(Task::Report { wd: dir, fresh: false });
                    walk.since = None;
                }
            }
        }
        let mut found = HashSet::new();
        for entry in listing.entries {
            let below = path.join(&entry.name);
            if entry.is_dir {
                if !self.excludes_dir(&below) {
                    self.visit(dir, &entry.name, &below, walk);
                    found.insert(entry.name);
                }
                continue;
            }
            self.listed(dir, &path, &entry.name, Some(entry.inode));
            if entry.has_names {
                if !dir.is_watched() {
                    self.learn_unwatched(dir, &entry.name, &below);
                }
                if walk.report || self.may_have_passed_a_name(&entry) {
                    let _ = self.report_links(dir, &entry.name, &below, Change::write(below.clone()));
                }
            }
            let is_new = walk.since.is_some_and(|since| entry.dated.is_none_or(|dated| dated.changed >= since));
            if (is_new || self.table.is_unreported(dir)) && !self.excludes_file(&below) {
                self.report_unreported(dir);
                if is_new {
                    // Where there are events, or where the whole tree is looked through, each name tells of itself.
                    if !dir.is_watched() || walk.names {
                        let _ = self.report_links(dir, &entry.name, &below, Change::write(below.clone()));
                    }
                    self.report_file(below, walk.quick && entry.dated.is_some_and(|dated| dated.written_last));
                }
            }
        }
        let stale: Vec<Wd> =
            self.table.children(dir).into_iter().filter(|(_, name)| !found.contains(*name)).map(|(wd, _)| wd).collect();
        for wd in stale {
            self.forget(wd);
        }
    }

    /// Whether the first walk may have listed another name of a file before that changed through this one, whose directory was
    /// not watched then. Later walks find all directories watched but new ones.
    fn may_have_passed_a_name(&self, entry: &Listed) -> bool {
        let Some(from) = self.caught_up_from.filter(|_| self.started.is_some()) else { return false };
        let since = || changed_since(from, self.moment, self.settings.ctime_margin);
        entry.dated.is_none_or(|dated| since().is_none_or(|since| dated.changed >= since))
    }

    fn tell_unwatched(&mut self, dir: &RelPath, errno: Errno) {
        self.failures += 1;
        if self.failures <= FAILURES_TOLD || self.failures.is_power_of_two() {
            self.notice(Notice::Unwatched { dir: dir.clone(), errno, so_far: self.failures });
        }
    }
}
