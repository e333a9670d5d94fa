//! Follows mounts and unmounts below the root. inotify tells of neither: a watch stays with the directory that is covered
//! or taken away.
//!
//! A file system that is mounted now is looked through and reported as a whole. The files of one that was unmounted are
//! not reported as gone, since they were not deleted; the directory that comes to light is watched in its place. That
//! nothing is deleted there on the targets is [`Mounts`](crate::mounts::Mounts)' part.

use super::Notice;
use super::kernel::Kernel;
use super::table::Wd;
use super::task::{Task, Walk};
use super::tracker::Tracker;
use crate::filter::Kind;
use crate::model::{Change, RelPath, Scope};
use crate::mounts::MountKey;

impl<K: Kernel> Tracker<K> {
    /// Handles a mount or an unmount anywhere: sees to what lies below the root.
    pub(super) fn mounts_changed(&mut self) {
        self.has_lost_mount = false;
        // A mount over the root, or an unmount that bared it, puts another directory in its place.
        self.not_found();
        let (now, twins) = self.kernel.mounts();
        let former = std::mem::replace(&mut self.twins, twins);
        let before = std::mem::replace(&mut self.mounted, now.clone());
        for path in before.keys().filter(|path| !now.contains_key(*path)) {
            self.unmounted(path);
        }
        for (path, key) in &now {
            if before.get(path) != Some(key) {
                self.mounted_at(path);
            }
        }
        for (one, other) in former {
            self.look_after(&one);
            self.look_after(&other);
        }
    }

    /// Watches one of two places that showed the same directory, if the table has lost the directory with the other
    /// place.
    fn look_after(&mut self, path: &RelPath) {
        if self.is_followed(path)
            && self.kernel.identify(path).is_some()
            && let Some((dir, name)) = self.holder(path)
            && self.table.child(dir, &name).is_none()
            && let Some(wd) = self.place_at(dir, &name, path).wd()
        {
            self.tasks.push(Task::Report { wd, fresh: false });
            self.tasks.push(Task::List { wd, walk: Walk::DEEP });
        }
    }

    /// Whether the directory is where the table has it, though it was found at another place: both places show it.
    pub(super) fn is_at_twin(&self, wd: Wd) -> bool {
        !self.twins.is_empty()
            && self.table.path(wd).is_some_and(|path| self.kernel.identify(&path) == self.table.id(wd))
    }

    /// Returns the changes, and for each at one of two places that show the same directory also the same change at the
    /// other.
    pub(super) fn at_twins(&self, mut changes: Vec<Change>) -> Vec<Change> {
        let mut more = Vec::new();
        for (one, other) in &self.twins {
            for (from, to) in [(one, other), (other, one)] {
                let shown = changes.iter().filter(|change| from.covers(&change.path));
                more.extend(shown.filter_map(|change| {
                    let below = change.path.as_bytes().get(from.as_bytes().len()..)?;
                    let below = below.strip_prefix(b"/").unwrap_or(below);
                    let path = if below.is_empty() { to.clone() } else { to.join(below) };
                    let is_plain = !self.settings.filter.excludes(&path, Kind::File);
                    let change = Change { path, moved_from: None, ..change.clone() };
                    (is_plain && self.is_followed(&change.path)).then_some(change)
                }));
            }
        }
        changes.extend(more);
        changes
    }

    /// Remembers which file systems were mounted before the tree was watched.
    pub(super) fn visit_mounts(&mut self) {
        for path in self.mounted.keys().filter(|path| self.is_followed(path)) {
            self.settings.mounts.found(path);
        }
    }

    /// Notes that the kernel has ended a watch since its file system was unmounted. The file system may be mounted again
    /// by now, to all appearance as it was.
    pub(super) fn note_lost_mount(&mut self, wd: Wd) {
        if let Some(path) = self.table.path(wd) {
            let innermost = self.mounted.iter_mut().rfind(|(place, _)| place.covers(&path));
            innermost.into_iter().for_each(|(_, key)| *key = MountKey::default());
        }
        self.has_lost_mount = true;
    }

    /// Whether a look at the mounts is due although the table of mounts told nothing.
    pub fn has_lost_mount(&self) -> bool {
        self.has_lost_mount
    }

    fn mounted_at(&mut self, path: &RelPath) {
        if !self.is_followed(path) {
            return;
        }
        self.settings.mounts.found(path);
        self.notice(Notice::Mounted { at: path.clone() });
        if self.kernel.identify(path).is_none() {
            self.report_file(path.clone(), false);
        } else if let Some((dir, name)) = self.holder(path) {
            match self.place_at(dir, &name, path).wd() {
                Some(wd) => {
                    self.tasks.push(Task::Report { wd, fresh: false });
                    self.tasks.push(Task::List { wd, walk: Walk::DEEP });
                }
                // The table has the directory at another place, or the directory is gone again.
                None => self.report(Change::scan(path.clone(), Scope::Subtree)),
            }
        }
    }

    fn unmounted(&mut self, path: &RelPath) {
        if !self.is_followed(path) {
            return;
        }
        self.notice(Notice::Unmounted { at: path.clone() });
        if let Some((dir, name)) = self.holder(path) {
            match self.place_at(dir, &name, path).wd() {
                Some(wd) => self.tasks.push(Task::List { wd, walk: Walk::default() }),
                None => self.table.child(dir, &name).into_iter().for_each(|wd| self.forget(wd)),
            }
        }
        // The change is held back with its reason, so that `status` and `wait` do not pass the place for equal.
        self.report(Change::scan(path.clone(), Scope::Subtree));
    }

    /// The known directory that holds `path`, and the name in it.
    fn holder(&self, path: &RelPath) -> Option<(Wd, Vec<u8>)> {
        let mut names: Vec<&[u8]> = path.components().collect();
        let name = names.pop()?.to_vec();
        let dir = names.into_iter().try_fold(self.table.root(), |dir, name| self.table.child(dir, name))?;
        Some((dir, name))
    }

    /// Whether what is at the path is mirrored.
    fn is_followed(&self, path: &RelPath) -> bool {
        let is_excluded = |path: &RelPath| self.settings.filter.excludes(path, Kind::Directory);
        !is_excluded(path) && !path.ancestors().filter(|above| !above.is_root()).any(|above| is_excluded(&above))
    }
}
