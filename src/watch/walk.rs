//! Looks at directories: sets the watches that are missing, and corrects the table where the tree has moved on.
//!
//! Watch first, then list: what appears after the watch has an event, what was there before is in the listing. A
//! walk is cut into single listings on a stack, done between reads of the kernel's queue, so that even a tree of a
//! million directories does not keep the queue waiting.

use std::collections::HashSet;

use rustix::io::Errno;

use super::Notice;
use super::table::Wd;
use super::tracker::{Task, Tracker};
use crate::model::RelPath;

/// Each of the first failures to watch a directory is told, afterwards each power of two.
const FAILURES_TOLD: u64 = 16;

/// What the kernel and the table together say of a directory under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// It was there already.
    Known(Wd),
    New(Wd),
    /// It was known under another name.
    Moved(Wd),
    /// Not there any more, or one that cannot have two places in the table.
    Not,
}

impl Placed {
    pub fn wd(self) -> Option<Wd> {
        match self {
            Self::Known(wd) | Self::New(wd) | Self::Moved(wd) => Some(wd),
            Self::Not => None,
        }
    }
}

impl Tracker {
    /// Whether there is work to do between reads.
    pub fn has_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whether some directories wait for a watch.
    pub fn lacks_watches(&self) -> bool {
        self.table.unwatched() > 0
    }

    /// Does up to `steps` tasks.
    pub fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.tasks.pop() {
                Some(Task::List { wd, deep, report }) => self.list(wd, deep, report),
                Some(Task::Report { wd, fresh }) => self.report_tree(wd, fresh),
                Some(Task::Started) => {
                    self.flush();
                    if let Some(started) = self.started.take() {
                        // Nobody waits any more: the start was given up.
                        let _ = started.send(());
                    }
                }
                None => return,
            }
        }
    }

    /// Sees to a directory found under a name: watches it, looks into it, and with `report` says that it is new.
    /// `deep` does the same for one that is known already, which else is left alone.
    pub(super) fn meet(&mut self, dir: Wd, name: &[u8], path: &RelPath, deep: bool, report: bool) -> Placed {
        let placed = self.place_at(dir, name, path);
        match placed {
            Placed::Known(wd) | Placed::New(wd) if deep || placed == Placed::New(wd) => {
                if report {
                    self.announce(wd, path.clone());
                }
                self.tasks.push(Task::List { wd, deep, report });
            }
            Placed::Moved(wd) => self.look_over(wd),
            Placed::Known(_) | Placed::New(_) | Placed::Not => {}
        }
        placed
    }

    /// Looks for missing watches in a directory that came from elsewhere, and reports all of it afterwards.
    pub(super) fn look_over(&mut self, wd: Wd) {
        if self.settings.events.move_to {
            self.tasks.push(Task::Report { wd, fresh: true });
        }
        self.tasks.push(Task::List { wd, deep: true, report: false });
    }

    /// Watches the directory at `path` and makes the table say that it is there.
    pub(super) fn place_at(&mut self, dir: Wd, name: &[u8], path: &RelPath) -> Placed {
        let there = self.table.child(dir, name);
        match self.kernel.watch(path) {
            Ok(wd) if there == Some(wd) => Placed::Known(wd),
            Ok(wd) if self.table.contains(wd) => {
                // A bind mount can show a directory inside itself.
                if self.table.is_at_or_above(wd, dir) {
                    return Placed::Not;
                }
                if let Some(there) = there {
                    self.forget(there);
                }
                // It may have been below the one just forgotten; then its watch is gone too.
                if !self.table.contains(wd) {
                    return self.place_at(dir, name, path);
                }
                self.table.detach(wd);
                self.table.attach(wd, dir, name);
                Placed::Moved(wd)
            }
            Ok(wd) => {
                match there {
                    Some(unwatched) if !unwatched.is_watched() => self.table.rekey(unwatched, wd),
                    Some(another) => {
                        self.forget(another);
                        self.table.insert(dir, name, Some(wd));
                    }
                    None => {
                        self.table.insert(dir, name, Some(wd));
                    }
                }
                Placed::New(wd)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Placed::Not,
            Err(errno) => match there {
                Some(wd) => Placed::Known(wd),
                None => {
                    let wd = self.table.insert(dir, name, None);
                    self.tell_unwatched(path, errno);
                    Placed::New(wd)
                }
            },
        }
    }

    /// Tries again to watch what could not be watched. Watches may have become free, or permissions been given.
    pub fn retry_unwatched(&mut self) {
        let mut directories = 0;
        for wd in self.table.unwatched_wds() {
            let Some(path) = self.table.path(wd) else { continue };
            match self.kernel.watch(&path) {
                Ok(known) if self.table.contains(known) => {}
                Ok(new) => {
                    self.table.rekey(wd, new);
                    self.tasks.push(Task::Report { wd: new, fresh: true });
                    self.tasks.push(Task::List { wd: new, deep: true, report: false });
                    directories += 1;
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.forget(wd),
                Err(Errno::NOSPC) => break,
                Err(_) => {}
            }
        }
        if directories > 0 {
            self.notice(Notice::WatchedAgain { directories });
        }
    }

    fn list(&mut self, dir: Wd, deep: bool, report: bool) {
        let Some(path) = self.table.path(dir) else { return };
        let listed = match self.kernel.list(&path) {
            Ok(listed) => listed,
            Err(error) => {
                match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                    // The event that explains it is still to come.
                    Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {}
                    // One that could not be watched either has been told of.
                    errno if dir.is_watched() => self.tell_unwatched(&path, errno),
                    _ => {}
                }
                return;
            }
        };
        let mut found = HashSet::new();
        for entry in listed {
            let below = path.join(&entry.name);
            if entry.is_dir {
                if !self.excludes_dir(&below) {
                    self.meet(dir, &entry.name, &below, deep, report);
                    found.insert(entry.name);
                }
            } else if self.table.is_silent(dir) && !self.excludes_file(&below, &entry.name) {
                self.speak(dir);
            }
        }
        let stale: Vec<Wd> =
            self.table.children(dir).into_iter().filter(|(_, name)| !found.contains(*name)).map(|(wd, _)| wd).collect();
        for wd in stale {
            self.forget(wd);
        }
    }

    fn tell_unwatched(&mut self, dir: &RelPath, errno: Errno) {
        self.failures += 1;
        if self.failures <= FAILURES_TOLD || self.failures.is_power_of_two() {
            self.notice(Notice::Unwatched { dir: dir.clone(), errno, so_far: self.failures });
        }
    }
}
