//! Follows a tree from event to event: keeps the table true and says which paths changed.
//!
//! Events lag behind the file system, so a path that an event names may by now be something else. Three rules keep this
//! harmless. A directory is known by its watch descriptor, which the kernel derives from the inode: whenever a directory
//! is met under a name, the table is corrected to what is there (see `walk`). A path that is found wrong on the way is
//! simply forgotten, since the event that explains it is still to come and looks again. And a directory that was not
//! watched for a moment is reported as a whole afterwards, never before.
//!
//! `entries` has what an event means for the name that it is about.
//!
//! Never reads a clock: each turn of the loop is told the time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::io::Errno;

use super::event::{Event, RawEvent};
use super::gather::{Existence, Gather};
use super::kernel::Kernel;
use super::known_names::Links;
use super::received::Received;
use super::table::{Table, Wd};
use super::task::{Task, Walk};
use super::{Counters, GoneReason, KnownDirectories, Notice, Sink, WatchSettings};
use crate::filter::Kind;
use crate::model::{Change, DirectoryChange, Moment, Origin, RelPath, Scope, Timestamp};
use crate::mounts::MountKey;

/// The most changes that are gathered. Then they are handed on even in the middle of a read.
const GATHERED_MAX: usize = 4_096;

/// How long the kernel must have dropped no event until the lost ones are looked for, and how long that calm is waited
/// for at most.
const CALM: Duration = Duration::from_millis(500);
const CALM_AWAITED: Duration = Duration::from_secs(5);

/// A directory that left its name and has not turned up elsewhere.
#[derive(Debug)]
pub(super) struct Limbo {
    pub(super) cookie: u32,
    pub(super) wd: Wd,
    pub(super) path: RelPath,
    pub(super) deadline: Instant,
    pub(super) turn: u64,
    /// Something has happened in the directory since it left, and was not reported.
    pub(super) is_disturbed: bool,
}

/// A file that left its name a moment ago.
#[derive(Debug)]
pub(super) struct MovedFile {
    pub(super) cookie: u32,
    pub(super) path: RelPath,
}

/// A span of time of which events are lost.
#[derive(Debug)]
pub(super) struct Gap {
    pub(super) from: Moment,
    calm_at: Instant,
    latest_at: Instant,
}

/// One name in a watched directory, with the path of the directory and that of the name.
pub(super) struct Entry<'a> {
    pub(super) dir: Wd,
    pub(super) parent: RelPath,
    pub(super) name: &'a [u8],
    pub(super) path: RelPath,
}

/// The state of one watched root.
pub(super) struct Tracker<K> {
    pub(super) kernel: K,
    pub(super) settings: WatchSettings,
    pub(super) table: Table,
    /// Last in, first out. At most about one entry for each directory.
    pub(super) tasks: Vec<Task>,
    /// Directories that could not be listed, each with the time from which on changes in it are still to be looked for.
    pub(super) unlisted: BTreeMap<Wd, Timestamp>,
    /// The descriptors of directories that are watched at last, by the made-up ones under which tasks know these
    /// directories.
    pub(super) rekeyed: BTreeMap<Wd, Wd>,
    pub(super) started: Option<Sender<()>>,
    /// How many directories could not be watched so far.
    pub(super) failures: u64,
    /// Where each directory was when the tree was last watched; empty after the first [`Tracker::take_directories`].
    pub(super) known: KnownDirectories,
    pub(super) moment: Moment,
    /// When directories without a watch were last looked through.
    pub(super) polled_at: Moment,
    /// All events from before this moment have been handled, or are known to be lost.
    complete_until: Moment,
    /// When the watching began, if it goes on from an earlier one.
    pub(super) caught_up_from: Option<Moment>,
    pub(super) gap: Option<Gap>,
    pub(super) gather: Gather,
    pub(super) has_promised_more: bool,
    pub(super) limbo: Vec<Limbo>,
    /// The mounts below the root, as far as they have been seen to.
    pub(super) mounted: BTreeMap<RelPath, MountKey>,
    /// Pairs of places that show the same directory. The table has the directory at one of them, and changes are reported
    /// at both.
    pub(super) twins: Vec<(RelPath, RelPath)>,
    /// The kernel has ended watches because of an unmount.
    pub(super) has_lost_mount: bool,
    pub(super) links: Links,
    /// Files that have been found to have one name, since changes were last handed on.
    pub(super) single: HashSet<RelPath>,
    /// Directories in which something could not be looked at, for want of permission. They are looked into once they are
    /// open again.
    pub(super) closed: BTreeSet<Wd>,
    /// A directory without a watch has gone, and the last writes in it have not been looked for.
    pub(super) has_lost_unwatched: bool,
    /// Directories that were not found any more under the name to which they had moved.
    pub(super) passing_through: HashSet<Wd>,
    /// Only the last such file: the kernel queues both events of a move at once.
    pub(super) moved_file: Option<MovedFile>,
    /// The last temporary that may have been a receiver's and was renamed: the move's cookie, and the temporary's name.
    pub(super) left_temporary: Option<(u32, Vec<u8>)>,
    pub(super) received: Received,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) counters: Arc<Counters>,
    pub(super) now: Instant,
    pub(super) turn: u64,
    /// The root has been found not to be in its place.
    pub(super) away: bool,
    pub(super) gone: bool,
}

impl<K: Kernel> Tracker<K> {
    /// Watches the root itself and leaves all below it to [`Tracker::work`], which sends to `started` when done.
    pub fn new(
        mut kernel: K,
        mut settings: WatchSettings,
        sink: Arc<dyn Sink>,
        counters: Arc<Counters>,
        started: Sender<()>,
        (now, moment): (Instant, Moment),
    ) -> Result<Self, Errno> {
        let (root, id) = kernel.watch(&RelPath::root())?;
        // Before the walk: the kernel tells of whatever is mounted from now on.
        let (mounted, twins) = kernel.mounts();
        let catch_up = settings.catch_up.take();
        let walk = Walk { since: catch_up.as_ref().map(|catch_up| catch_up.since), ..Walk::default() };
        let caught_up_from = catch_up.is_some().then_some(moment);
        Ok(Self {
            kernel,
            settings,
            table: Table::new(root, id),
            tasks: vec![Task::Started, Task::List { wd: root, walk }],
            unlisted: BTreeMap::new(),
            rekeyed: BTreeMap::new(),
            started: Some(started),
            failures: 0,
            known: catch_up.map(|catch_up| catch_up.known).unwrap_or_default(),
            moment,
            polled_at: moment,
            complete_until: moment,
            caught_up_from,
            gap: None,
            gather: Gather::default(),
            has_promised_more: false,
            limbo: Vec::new(),
            mounted,
            twins,
            has_lost_mount: false,
            links: Links::default(),
            single: HashSet::new(),
            closed: BTreeSet::new(),
            has_lost_unwatched: false,
            passing_through: HashSet::new(),
            moved_file: None,
            left_temporary: None,
            received: Received::default(),
            sink,
            counters,
            now,
            turn: 0,
            away: false,
            gone: false,
        })
    }

    #[cfg(test)]
    pub fn table(&self) -> &Table {
        &self.table
    }

    #[cfg(test)]
    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Begins a turn of the loop.
    pub fn begin(&mut self, now: Instant, moment: Moment) {
        self.now = now;
        self.moment = moment;
        self.turn += 1;
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Whether the root is gone, and with it all work.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether there are directories whose next name may still come.
    pub fn awaits_name(&self) -> bool {
        !self.limbo.is_empty()
    }

    pub fn handle(&mut self, raw: RawEvent<'_>) {
        self.counters.events.fetch_add(1, Ordering::Relaxed);
        match raw.decode() {
            Event::Overflow => self.overflow(),
            Event::Itself { wd, what } => self.itself(wd, what),
            Event::Entry { dir, name, is_dir, what } => {
                // An unknown directory is forgotten already. One without a path was moved away, and is reported whole if
                // it turns up.
                let Some(parent) = self.table.path(dir) else {
                    self.limbo.iter_mut().for_each(|left| left.is_disturbed = true);
                    return;
                };
                let entry = Entry { dir, path: parent.join(name), parent, name };
                if is_dir { self.directory(&entry, what) } else { self.file(&entry, what) }
            }
            Event::Nothing => {}
        }
        if self.gather.len() >= GATHERED_MAX {
            self.flush(true);
        }
    }

    /// Does what is due after the events that were read. `retries`: directories that could not be watched are tried
    /// again.
    pub fn proceed(&mut self, retries: bool, mounts_changed: bool, steps: usize) {
        self.expire();
        if retries && self.lacks_watches() {
            self.retry_unwatched();
        }
        if mounts_changed || self.has_lost_mount() {
            self.mounts_changed();
        }
        self.close_gap();
        self.seek_names();
        self.work(steps);
    }

    /// Whether only the gathered changes follow from the events that were read: neither a walk, nor half a rename, nor a
    /// gap, nor a search for names.
    pub fn is_caught_up(&self) -> bool {
        !self.has_work() && !self.awaits_name() && !self.has_gap() && !self.seeks_names()
    }

    /// Gives up directories that were moved out of the tree. Those that left in this turn may still turn up.
    fn expire(&mut self) {
        let (now, turn) = (self.now, self.turn);
        let (late, waiting) =
            std::mem::take(&mut self.limbo).into_iter().partition(|l| l.turn < turn && l.deadline <= now);
        self.limbo = waiting;
        for Limbo { wd, path, .. } in late {
            if self.table.is_detached(wd) {
                self.settings.mounts.left(&path);
            }
            self.forget_if_detached(wd);
        }
    }

    /// Notes that a path is not there. As a rule the event that explains this is still to come. But if the root is
    /// elsewhere, nothing in it is found either, and no event will bring that to mind.
    pub(super) fn not_found(&mut self) {
        self.away = self.away || self.kernel.is_root_away();
    }

    /// Whether the sink was told that more changes follow, and has to be told when none do.
    pub fn has_promised_more(&self) -> bool {
        self.has_promised_more
    }

    /// Hands on what has been gathered, and brings the numbers up to date.
    pub fn flush(&mut self, more_follow: bool) {
        self.single.clear();
        if std::mem::take(&mut self.away) {
            self.give_up(GoneReason::Away);
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let (watches, unwatched) = if self.gone { (0, 0) } else { (self.table.watched(), self.table.unwatched()) };
        self.counters.watches.store(count(watches), Ordering::Relaxed);
        self.counters.unwatched.store(count(unwatched), Ordering::Relaxed);
        if !self.gather.is_empty() || (self.has_promised_more && !more_follow) {
            self.has_promised_more = more_follow;
            let gone = self.gather.gone();
            if !gone.is_empty() {
                self.sink.gone(gone);
            }
            let changes = self.gather.take();
            let changes = self.at_twins(changes);
            self.sink.changes(changes, more_follow);
        }
    }

    /// Notes whether changes are still being looked for.
    pub fn tell_whether_behind(&self) {
        let is_behind = self.has_work() || self.has_gap() || !self.closed.is_empty();
        self.counters.is_behind.store(is_behind, Ordering::Relaxed);
    }

    /// Ends all watching, since the root is not there or not the root any more.
    pub fn give_up(&mut self, reason: GoneReason) {
        if !std::mem::replace(&mut self.gone, true) {
            self.tasks.clear();
            self.limbo.clear();
            self.gap = None;
            // Whoever waits for the start learns that it will not come.
            self.started = None;
            let root = self.table.root();
            self.forget(root);
            self.flush(false);
            self.sink.notice(Notice::RootGone { reason });
        }
    }

    pub(super) fn notice(&self, notice: Notice) {
        self.sink.notice(notice);
    }

    /// Forgets a directory and all below it, watches included.
    pub(super) fn forget(&mut self, wd: Wd) {
        // A directory that is forgotten at one of two twin places may still be at the other.
        self.has_lost_mount |= !self.twins.is_empty();
        self.passing_through.remove(&wd);
        let unwatched = self.table.unwatched();
        let watched = self.table.remove(wd);
        self.has_lost_unwatched |= self.table.unwatched() < unwatched;
        self.kernel.unwatch(&watched);
    }

    pub(super) fn excludes_dir(&self, path: &RelPath) -> bool {
        self.settings.filter.excludes(path, Kind::Directory)
    }

    pub(super) fn excludes_file(&self, path: &RelPath) -> bool {
        self.settings.filter.excludes(path, Kind::File)
    }

    /// Reports a directory that is new under its name, or leaves it unreported until something is in it.
    pub(super) fn announce(&mut self, wd: Wd, path: RelPath) {
        self.gather.appeared(&path);
        if self.settings.events.create_folder {
            self.gather.add(fresh_directory(path), Existence::There);
        } else {
            self.table.set_unreported(wd);
        }
    }

    /// Reports a directory that a walk found before its event came.
    pub(super) fn announce_again(&mut self, wd: Wd, path: &RelPath) {
        if self.settings.events.create_folder {
            self.announce(wd, path.clone());
        }
    }

    /// Reports `dir` itself if it has not been yet, since something in it is reported.
    pub(super) fn report_unreported(&mut self, dir: Wd) {
        if self.settings.events.create_folder {
            return;
        }
        for wd in self.table.take_unreported(dir) {
            if let Some(path) = self.table.path(wd) {
                self.gather.add(fresh_directory(path), Existence::There);
            }
        }
    }

    pub(super) fn report(&mut self, change: Change) {
        self.gather.add(change, Existence::There);
    }

    /// Reports one level, since the listing of a directory changed.
    pub(super) fn report_level(&mut self, wd: Wd) {
        if let Some(path) = self.table.path(wd)
            && !self.table.is_unreported(wd)
        {
            self.gather.add(Change::scan(path, Scope::Children), Existence::There);
        }
    }

    /// Reports a file whose content may have changed; with `quick` as a change that the quick check can see.
    pub(super) fn report_file(&mut self, path: RelPath, quick: bool) {
        let change = if quick { Change::scan(path, Scope::Entry) } else { Change::write(path) };
        self.gather.add(change, Existence::There);
        if self.gather.len() >= GATHERED_MAX {
            self.flush(true);
        }
    }

    /// Reports the tree at `wd` under its present name.
    pub(super) fn report_tree(&mut self, wd: Wd, fresh: bool) {
        // A directory without a path is gone or on the move; then its next name is reported.
        let Some(path) = self.table.path(wd) else { return };
        if let Some((dir, _)) = self.table.place(wd) {
            self.report_unreported(dir);
        }
        self.table.take_unreported(wd);
        let origin = if fresh { Origin::Replaced } else { Origin::Scan };
        self.gather.add(Change { fresh, origin, ..Change::scan(path, Scope::Subtree) }, Existence::There);
    }

    /// Reports the tree at `wd`, which has been moved there from `old` and was watched all the time.
    pub(super) fn report_moved(&mut self, wd: Wd, dir: Wd, path: RelPath, old: RelPath) {
        self.report_unreported(dir);
        self.table.take_unreported(wd);
        let moved = Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path, Scope::Subtree) };
        self.gather.add(Change { moved_from: Some(old), ..moved }, Existence::There);
        // Directories in it that are new, without a watch until now, are reported by themselves.
        self.tasks.push(Task::List { wd, walk: Walk { report_whole: true, ..Walk::DEEP } });
    }

    /// Notes that events are lost, from the moment on up to which all are known to have been read. Their changes are
    /// looked for once the kernel has dropped none for a moment: looking while it drops events would only make it drop
    /// more.
    pub(super) fn overflow(&mut self) {
        self.counters.overflows.fetch_add(1, Ordering::Relaxed);
        let calm_at = self.now + CALM;
        match &mut self.gap {
            Some(gap) => gap.calm_at = calm_at,
            None => {
                self.gap = Some(Gap { from: self.complete_until, calm_at, latest_at: self.now + CALM_AWAITED });
                self.notice(Notice::Overflow);
            }
        }
    }

    /// Looks for what an overflow made the kernel forget, if it is time.
    fn close_gap(&mut self) {
        let now = self.now;
        // A walk under way, even the first one, is let finish: with a new walk for each gap none would ever end.
        if self.tasks.is_empty()
            && let Some(gap) = self.gap.take_if(|gap| gap.calm_at.min(gap.latest_at) <= now)
        {
            self.look_for_changes(gap.from);
        }
    }

    /// Whether events were lost and their changes have not been looked for yet.
    pub fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Notes that all events from before `moment` have been handled, or are known to be lost.
    pub fn read_until(&mut self, moment: Moment) {
        self.complete_until = moment;
    }

    /// Takes the places of directories that have changed since the last call; with the first call, since the tree was
    /// last watched.
    pub fn take_directories(&mut self) -> Vec<DirectoryChange> {
        let mut changes = self.table.take_changes();
        let known = std::mem::take(&mut self.known);
        if !known.is_empty() {
            let mut left = known;
            changes.retain(|change| match change {
                DirectoryChange::Put { id, parent, name } => {
                    left.remove(id).is_none_or(|(was_in, was_called)| was_in != *parent || was_called != *name)
                }
                DirectoryChange::Gone(id) => {
                    left.remove(id);
                    true
                }
            });
            let gone: Vec<_> = left.into_keys().map(DirectoryChange::Gone).collect();
            changes.splice(0..0, gone);
        }
        changes
    }
}

/// The change for a directory that has just come into being: with the one level in it, whose files may be older than its
/// watch.
fn fresh_directory(path: RelPath) -> Change {
    Change { scope: Scope::Children, fresh: true, ..Change::write(path) }
}
