//! Handles each kind of event: what it means for the name that it is about, and for the tracker's table.
//!
//! The tracker takes events apart and gathers what is reported. This file is its part for events on files, on directories
//! and on watched directories themselves. Deliberately absent: when a change is passed on.

use std::time::Duration;

use super::event::{Itself, What};
use super::gather::Existence;
use super::kernel::{Kernel, Look};
use super::received::is_receivers;
use super::table::Wd;
use super::task::{Placed, Task, Walk};
use super::tracker::{Entry, Limbo, MovedFile, Tracker};
use super::{GoneReason, Notice, policy};
use crate::model::{Change, RelPath, Scope, Settle};

/// How long a directory that left a name may take to turn up under another. The kernel queues both events at once, but
/// not as one.
const LIMBO: Duration = Duration::from_millis(20);

/// A smaller file is sent again rather than looked for under its old name.
const MOVED_BYTES_MIN: u64 = 1 << 20;

impl<K: Kernel> Tracker<K> {
    pub(super) fn itself(&mut self, wd: Wd, what: Itself) {
        if !self.table.contains(wd) {
            return;
        }
        let is_root = wd == self.table.root();
        match what {
            Itself::Attributes => self.attributes(wd),
            Itself::Deleted if is_root => self.give_up(GoneReason::Deleted),
            Itself::Moved if is_root => self.give_up(GoneReason::Renamed),
            Itself::Unmounted if is_root => self.give_up(GoneReason::Unmounted),
            Itself::Unwatched if is_root => self.give_up(GoneReason::Lost),
            // The event of the directory above tells of the same.
            Itself::Deleted | Itself::Moved => {}
            Itself::Unmounted => {
                // Not reported: files that are out of reach have not been deleted. The directory underneath is watched
                // instead.
                let above = self.table.place(wd).map(|(above, _)| above);
                self.note_lost_mount(wd);
                self.forget(wd);
                self.tasks.extend(above.map(|wd| Task::List { wd, walk: Walk::default() }));
            }
            Itself::Unwatched => self.forget(wd),
        }
    }

    pub(super) fn attributes(&mut self, wd: Wd) {
        self.look_if_open(wd);
        self.look_at_unseen();
        if let Some(path) = self.table.path(wd)
            && !self.table.is_unreported(wd)
        {
            self.gather.add(Change::scan(path, Scope::Entry), Existence::There);
        }
    }

    pub(super) fn file(&mut self, entry: &Entry<'_>, what: What) {
        let events = self.settings.events;
        match what {
            What::Created => {
                self.touch(entry);
                let look = match self.kernel.look(&entry.path) {
                    // The name is gone again: the event that says so follows.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.not_found(),
                    Err(_) => None,
                    Ok(look) => Some(look),
                };
                if let Some(look) = look {
                    self.created(entry, look);
                }
                if !self.excludes_file(&entry.path)
                    && let Some(settle) = look.map_or(Some(Settle::Now), |look| policy::created(&self.settings, look))
                {
                    self.report_unreported(entry.dir);
                    let is_new = look.is_some_and(|look| look.is_plain);
                    self.gather.add(Change { settle, is_new, ..Change::write(entry.path.clone()) }, Existence::There);
                }
            }
            What::Written => self.written_unless_excluded(entry, events.close_write.then_some(Settle::Now)),
            What::Modified => self.written_unless_excluded(entry, policy::modified(&self.settings)),
            What::MovedTo(cookie) => {
                self.touch(entry);
                self.arrived(entry.dir, entry.name, &entry.path);
                self.note_received(entry, cookie);
                if events.move_to && !self.excludes_file(&entry.path) {
                    self.report_unreported(entry.dir);
                    let moved_from = self.moved_from(entry, cookie);
                    self.gather.add(Change { moved_from, ..Change::write(entry.path.clone()) }, Existence::There);
                }
            }
            What::MovedFrom(cookie) => {
                self.left_temporary = entry.name.starts_with(b".").then(|| (cookie, entry.name.to_vec()));
                self.moved_file = (events.move_from && !self.excludes_file(&entry.path))
                    .then(|| MovedFile { cookie, path: entry.path.clone() });
                self.file_gone(entry, events.move_from);
            }
            What::Deleted => self.file_gone(entry, events.delete),
            What::Attributes => {
                let change = Change::scan(entry.path.clone(), Scope::Entry);
                let change = self.report_links(entry.dir, entry.name, &entry.path, change);
                if !self.excludes_file(&entry.path) {
                    self.report_unreported(entry.dir);
                    self.gather.add(change, Existence::There);
                }
            }
        }
    }

    /// Handles a name that has come into being: of a new file, or one more of a file that is there.
    pub(super) fn created(&mut self, entry: &Entry<'_>, look: Look) {
        if !self.learn_name(entry.dir, entry.name, look) {
            self.single.insert(entry.path.clone());
        } else if self.settings.keeps_links {
            let change = Change::scan(entry.path.clone(), Scope::Entry);
            let change = self.report_links(entry.dir, entry.name, &entry.path, change);
            if !self.excludes_file(&entry.path) {
                self.gather.add(change, Existence::There);
            }
        }
    }

    /// The path from which a large file has just been moved to `entry`, if the file has kept its directory or its name:
    /// by one of them its content can be found there.
    pub(super) fn moved_from(&mut self, entry: &Entry<'_>, cookie: u32) -> Option<RelPath> {
        let old = self.moved_file.take().filter(|left| left.cookie == cookie)?.path;
        let is_near = old.name() == entry.name || old.parent().as_ref() == Some(&entry.parent);
        let is_large = || self.kernel.look(&entry.path).is_ok_and(|look| look.is_plain && look.size >= MOVED_BYTES_MIN);
        (is_near && is_large()).then_some(old)
    }

    /// Notes a file that another rsync has written here.
    pub(super) fn note_received(&mut self, entry: &Entry<'_>, cookie: u32) {
        let Some((_, old)) = self.left_temporary.take().filter(|(of, _)| *of == cookie) else { return };
        if !is_receivers(&old, entry.name) || self.excludes_file(&entry.path) {
            return;
        }
        if let Ok(Look { size, written: (seconds, nanoseconds), .. }) = self.kernel.look(&entry.path)
            && self.received.note(&entry.path, (size, seconds, nanoseconds), self.now)
        {
            self.notice(Notice::Answered { path: entry.path.clone() });
        }
    }

    pub(super) fn written_unless_excluded(&mut self, entry: &Entry<'_>, settle: Option<Settle>) {
        if let Some(settle) = settle {
            let change = Change { settle, ..Change::write(entry.path.clone()) };
            let change = self.report_links(entry.dir, entry.name, &entry.path, change);
            if !self.excludes_file(&entry.path) {
                self.report_unreported(entry.dir);
                self.gather.add(change, Existence::There);
            }
        }
    }

    pub(super) fn file_gone(&mut self, entry: &Entry<'_>, reported: bool) {
        self.touch(entry);
        if reported && !self.excludes_file(&entry.path) {
            self.gather.add(Change::scan(entry.path.clone(), Scope::Entry), Existence::Gone);
        }
    }

    /// Reports the directory that holds the entry: its listing changed, and with it its time.
    pub(super) fn touch(&mut self, entry: &Entry<'_>) {
        if !self.table.is_unreported(entry.dir) {
            let times = Change {
                settle: Settle::Within(policy::TIMES_WAIT),
                ..Change::scan(entry.parent.clone(), Scope::Entry)
            };
            self.gather.add(times, Existence::There);
        }
    }

    pub(super) fn directory(&mut self, entry: &Entry<'_>, what: What) {
        let events = self.settings.events;
        match what {
            What::Created => self.directory_created(entry),
            What::MovedTo(cookie) => self.directory_arrived(entry, cookie),
            What::Deleted => {
                if let Some(wd) = self.table.child(entry.dir, entry.name) {
                    self.forget(wd);
                }
                self.directory_gone(entry, events.delete, Existence::GoneDirectory);
            }
            What::MovedFrom(cookie) => {
                // When two directories are exchanged, the kernel tells of the first one's arrival before it tells that
                // the second has left the same name. And a directory that left may be back.
                if let Some(wd) = self.table.child(entry.dir, entry.name).filter(|wd| !self.is_in_place(*wd, entry)) {
                    self.table.detach(wd);
                    let (path, is_disturbed) = (entry.path.clone(), self.passing_through.remove(&wd));
                    let (deadline, turn) = (self.now + LIMBO, self.turn);
                    self.limbo.push(Limbo { cookie, wd, path, deadline, turn, is_disturbed });
                }
                self.note_if_closed(entry.dir, &entry.path);
                let existence = if self.is_free(&entry.path) { Existence::GoneDirectory } else { Existence::There };
                self.directory_gone(entry, events.move_from, existence);
            }
            What::Attributes => {
                // A directory that is not known is excluded, or not met yet and then reported as a whole.
                if let Some(wd) = self.table.child(entry.dir, entry.name) {
                    self.attributes(wd);
                }
            }
            What::Written | What::Modified => {}
        }
    }

    pub(super) fn directory_created(&mut self, entry: &Entry<'_>) {
        if self.settings.events.create_folder {
            self.touch(entry);
        }
        if !self.excludes_dir(&entry.path) {
            // The first walk tells nobody what it finds, so whatever is new since then is looked for once more.
            let walk = Walk { deep: self.started.is_some(), report: true, ..Walk::default() };
            if let Placed::Known(wd) = self.visit(entry.dir, entry.name, &entry.path, walk) {
                self.announce_again(wd, &entry.path);
            }
        }
    }

    pub(super) fn directory_arrived(&mut self, entry: &Entry<'_>, cookie: u32) {
        self.touch(entry);
        self.gather.appeared(&entry.path);
        let left = self.limbo.iter().position(|l| l.cookie == cookie).map(|at| self.limbo.swap_remove(at));
        if let Some(left) = &left {
            self.settings.mounts.moved(&left.path, &entry.path);
        }
        let known = left.as_ref().filter(|left| self.knows_all_of(left)).map(|left| (left.wd, left.path.clone()));
        let left = left.map(|left| left.wd);
        if !self.excludes_dir(&entry.path) {
            match self.place_at(entry.dir, entry.name, &entry.path).wd() {
                Some(wd) => match known.filter(|(left, _)| *left == wd) {
                    Some((_, old)) => self.report_moved(wd, entry.dir, entry.path.clone(), old),
                    None => self.look_over(wd),
                },
                // The directory has moved on: keep it, watches and all, until the event that says where to.
                None => {
                    if let Some(left) = left.filter(|&wd| self.table.is_detached(wd)) {
                        if let Some(stale) = self.table.child(entry.dir, entry.name) {
                            self.forget(stale);
                        }
                        self.table.attach(left, entry.dir, entry.name);
                        self.passing_through.insert(left);
                    }
                }
            }
        }
        if let Some(left) = left {
            self.forget_if_detached(left);
        }
    }

    /// Whether all that happened in a directory before it was moved has been reported, and all that leaves and arrives is
    /// reported.
    pub(super) fn knows_all_of(&self, left: &Limbo) -> bool {
        let events = self.settings.events;
        let reports_all = events.move_from && events.move_to && events.close_write;
        let sees_all =
            self.gap.is_none() && self.started.is_none() && !self.lacks_watches() && self.passing_through.is_empty();
        reports_all && sees_all && !left.is_disturbed && !self.excludes_dir(&left.path) && self.is_free(&left.path)
    }

    /// Whether nothing is at a path. After an exchange something is at both paths, so neither name has become free.
    pub(super) fn is_free(&self, path: &RelPath) -> bool {
        self.kernel.look(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// The path from which a directory came that a walk has found under another name than before, as far as it is known.
    pub(super) fn left_from(&mut self, wd: Wd, new: &RelPath) -> Option<RelPath> {
        let at = self.limbo.iter().position(|left| left.wd == wd)?;
        self.limbo.get(at).into_iter().for_each(|left| self.settings.mounts.moved(&left.path, new));
        let old = self.limbo.get(at).filter(|left| self.knows_all_of(left)).map(|left| left.path.clone());
        if let Some(left) = self.limbo.get_mut(at) {
            left.is_disturbed = true;
        }
        old
    }

    /// Whether the directory that the table has under the entry's name is there now.
    pub(super) fn is_in_place(&self, wd: Wd, entry: &Entry<'_>) -> bool {
        self.table.id(wd).is_some_and(|id| self.kernel.identify(&entry.path) == Some(id))
    }

    pub(super) fn directory_gone(&mut self, entry: &Entry<'_>, reported: bool, existence: Existence) {
        self.touch(entry);
        if reported && !self.excludes_dir(&entry.path) {
            self.gather.add(Change::scan(entry.path.clone(), Scope::Entry), existence);
        }
    }

    pub(super) fn forget_if_detached(&mut self, wd: Wd) {
        if self.table.is_detached(wd) {
            self.forget(wd);
        }
    }
}
