//! Follows a tree from event to event: keeps the table true and says which paths changed.
//!
//! Events lag behind the file system, so a path that an event names may by now be something else. Three rules keep
//! this harmless. A directory is known by its watch descriptor, which the kernel derives from the inode: whenever one
//! is met under a name, the table is corrected to what is there (see `walk`). Whatever is found wrong on the way is
//! simply forgotten, since the event that explains it is still to come and looks again. And what was not watched for
//! a moment is reported as a whole afterwards, never before.
//!
//! Never reads a clock: each turn of the loop is told the time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::io::Errno;

use super::event::{Event, Itself, RawEvent, What};
use super::gather::{Gather, Presence};
use super::kernel::{Kernel, Look};
use super::known_names::Links;
use super::received::{Received, is_receivers};
use super::table::{Table, Wd};
use super::task::{Placed, Task, Walk};
use super::{Counters, GoneReason, KnownDirectories, Notice, Sink, WatchSettings, policy};
use crate::filter::Kind;
use crate::model::{Change, DirectoryChange, Moment, Origin, RelPath, Scope, Settle};
use crate::mounts::MountKey;

/// How long a directory that left a name may take to turn up under another. The kernel queues both events at once, but
/// not as one.
const LIMBO: Duration = Duration::from_millis(20);

/// Changes gathered before they are handed on although the read is not through.
const GATHERED_MAX: usize = 4_096;

/// How long the kernel must have had no need to drop events until what it dropped is looked for, and how long that is
/// waited for at most.
const CALM: Duration = Duration::from_millis(500);
const CALM_AWAITED: Duration = Duration::from_secs(5);

/// A smaller file is sent again rather than looked for under its old name.
const MOVED_BYTES_MIN: u64 = 1 << 20;

/// A directory that left its name and has not turned up elsewhere.
#[derive(Debug)]
struct Limbo {
    cookie: u32,
    wd: Wd,
    path: RelPath,
    deadline: Instant,
    turn: u64,
    /// Something has happened in it since, and was not reported.
    is_disturbed: bool,
}

/// A file that left its name a moment ago.
#[derive(Debug)]
struct MovedFile {
    cookie: u32,
    path: RelPath,
}

/// A span of time of which events are lost.
#[derive(Debug)]
struct Gap {
    from: Moment,
    calm_at: Instant,
    latest_at: Instant,
}

/// One name in a watched directory, with the paths of both.
struct Entry<'a> {
    dir: Wd,
    parent: RelPath,
    name: &'a [u8],
    path: RelPath,
}

/// The state of one watched root.
pub(super) struct Tracker {
    pub(super) kernel: Kernel,
    pub(super) settings: WatchSettings,
    pub(super) table: Table,
    /// Last in, first out. At most about one entry for each directory.
    pub(super) tasks: Vec<Task>,
    pub(super) started: Option<Sender<()>>,
    /// Directories so far that could not be watched.
    pub(super) failures: u64,
    /// Where each directory was when the tree was last watched; empty after the first [`Tracker::take_directories`].
    pub(super) known: KnownDirectories,
    pub(super) moment: Moment,
    /// When directories without a watch were last looked through.
    pub(super) polled_at: Moment,
    /// All events of what happened before have been handled, or are known to be lost.
    complete_until: Moment,
    gap: Option<Gap>,
    gather: Gather,
    has_promised_more: bool,
    limbo: Vec<Limbo>,
    /// What is mounted below the root, as far as it has been seen to.
    pub(super) mounted: BTreeMap<RelPath, MountKey>,
    /// Places that show the same directory. The table has it at one of them, and what changes is reported at both.
    pub(super) twins: Vec<(RelPath, RelPath)>,
    /// The kernel has ended watches because of an unmount.
    pub(super) has_lost_mount: bool,
    pub(super) links: Links,
    /// Files that have been found to have one name, since changes were last handed on.
    pub(super) single: HashSet<RelPath>,
    /// Directories in which something could not be looked at, for want of permission. What became of it is looked at once they
    /// are open again.
    pub(super) closed: HashSet<Wd>,
    /// Directories that were not found any more under the name to which they had moved.
    in_passing: HashSet<Wd>,
    /// The last one: the kernel queues both events of a move at once.
    moved_file: Option<MovedFile>,
    /// The last temporary that may have been a receiver's and has got another name: the move's cookie, and its name.
    left_temporary: Option<(u32, Vec<u8>)>,
    received: Received,
    sink: Arc<dyn Sink>,
    counters: Arc<Counters>,
    now: Instant,
    turn: u64,
    /// The root has been found not to be in its place.
    away: bool,
    gone: bool,
}

impl Tracker {
    /// Watches the root itself and leaves all below it to [`Tracker::work`], which sends to `started` when done.
    pub fn new(
        mut kernel: Kernel,
        mut settings: WatchSettings,
        sink: Arc<dyn Sink>,
        counters: Arc<Counters>,
        started: Sender<()>,
        (now, moment): (Instant, Moment),
    ) -> Result<Self, Errno> {
        let (root, id) = kernel.watch(&RelPath::root())?;
        // Before the walk: what is mounted from now on is told.
        let (mounted, twins) = kernel.mounts();
        let catch_up = settings.catch_up.take();
        let walk = Walk { since: catch_up.as_ref().map(|catch_up| catch_up.since), ..Walk::default() };
        Ok(Self {
            kernel,
            settings,
            table: Table::new(root, id),
            tasks: vec![Task::Started, Task::List { wd: root, walk }],
            started: Some(started),
            failures: 0,
            known: catch_up.map(|catch_up| catch_up.known).unwrap_or_default(),
            moment,
            polled_at: moment,
            complete_until: moment,
            gap: None,
            gather: Gather::default(),
            has_promised_more: false,
            limbo: Vec::new(),
            mounted,
            twins,
            has_lost_mount: false,
            links: Links::default(),
            single: HashSet::new(),
            closed: HashSet::new(),
            in_passing: HashSet::new(),
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

    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub fn kernel_mut(&mut self) -> &mut Kernel {
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
                // Not known: forgotten already. Without a path: moved away, and reported whole if it turns up.
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

    /// Gives up directories that were moved out of the tree. Those that left in this turn may still turn up.
    pub fn expire(&mut self) {
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

    /// A path is not there. As a rule the event that explains it is still to come; but if the root is elsewhere, what is in
    /// it is not found either, and nothing will bring it to mind again.
    pub(super) fn not_found(&mut self) {
        self.away = self.away || self.kernel.is_root_away();
    }

    /// Whether the sink was told that more follow, and has to be told when none do.
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

    /// Notes whether what has changed is still being looked for.
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
        // What is forgotten at one place may still be at the other.
        self.has_lost_mount |= !self.twins.is_empty();
        self.in_passing.remove(&wd);
        let watched = self.table.remove(wd);
        self.kernel.unwatch(&watched);
    }

    pub(super) fn excludes_dir(&self, path: &RelPath) -> bool {
        self.settings.filter.excludes(path, Kind::Directory)
    }

    pub(super) fn excludes_file(&self, path: &RelPath) -> bool {
        self.settings.filter.excludes(path, Kind::File)
    }

    /// Reports a directory that is new under its name, or keeps it quiet until something is in it.
    pub(super) fn announce(&mut self, wd: Wd, path: RelPath) {
        self.gather.appeared(&path);
        if self.settings.events.create_folder {
            self.gather.add(fresh_directory(path), Presence::There);
        } else {
            self.table.set_silent(wd);
        }
    }

    /// Reports a directory that a walk found before its event came.
    fn announce_again(&mut self, wd: Wd, path: &RelPath) {
        if self.settings.events.create_folder {
            self.announce(wd, path.clone());
        }
    }

    /// Something in `dir` is reported: if `dir` itself has not been yet, now is the time.
    pub(super) fn speak(&mut self, dir: Wd) {
        if self.settings.events.create_folder {
            return;
        }
        for wd in self.table.break_silence(dir) {
            if let Some(path) = self.table.path(wd) {
                self.gather.add(fresh_directory(path), Presence::There);
            }
        }
    }

    pub(super) fn report(&mut self, change: Change) {
        self.gather.add(change, Presence::There);
    }

    /// Reports one level: the listing of a directory changed.
    pub(super) fn report_level(&mut self, wd: Wd) {
        if let Some(path) = self.table.path(wd)
            && !self.table.is_silent(wd)
        {
            self.gather.add(Change::scan(path, Scope::Children), Presence::There);
        }
    }

    /// Reports a file whose content may have changed; with `quick` so that the quick check can see it.
    pub(super) fn report_file(&mut self, path: RelPath, quick: bool) {
        let change = if quick { Change::scan(path, Scope::Entry) } else { Change::write(path) };
        self.gather.add(change, Presence::There);
        if self.gather.len() >= GATHERED_MAX {
            self.flush(true);
        }
    }

    /// Reports the tree at `wd` under its present name.
    pub(super) fn report_tree(&mut self, wd: Wd, fresh: bool) {
        // Without a path it is gone or on the move; then its next name is reported.
        let Some(path) = self.table.path(wd) else { return };
        if let Some((dir, _)) = self.table.place(wd) {
            self.speak(dir);
        }
        self.table.break_silence(wd);
        let origin = if fresh { Origin::Replaced } else { Origin::Scan };
        self.gather.add(Change { fresh, origin, ..Change::scan(path, Scope::Subtree) }, Presence::There);
    }

    /// Reports the tree at `wd`, which has been moved there from `old` and was watched all the time.
    pub(super) fn report_moved(&mut self, wd: Wd, dir: Wd, path: RelPath, old: RelPath) {
        self.speak(dir);
        self.table.break_silence(wd);
        let moved = Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path, Scope::Subtree) };
        self.gather.add(Change { moved_from: Some(old), ..moved }, Presence::There);
        // What is new in it, without a watch until now, is reported by itself.
        self.tasks.push(Task::List { wd, walk: Walk { report_whole: true, ..Walk::DEEP } });
    }

    /// Events are lost from the moment on up to which all are known to have been read. What they told of is looked for once
    /// the kernel has had no need to drop any for a moment: looking while it does would only make it drop more.
    fn overflow(&mut self) {
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
    pub fn close_gap(&mut self) {
        let now = self.now;
        // A walk under way, the first one too, is let finish: one for each gap would never end.
        if self.tasks.is_empty()
            && let Some(gap) = self.gap.take_if(|gap| gap.calm_at.min(gap.latest_at) <= now)
        {
            self.look_for_changes(gap.from);
        }
    }

    /// Whether events were lost and what they told of has not been looked for yet.
    pub fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// All events of what happened before `moment` have been handled, or are known to be lost.
    pub fn read_until(&mut self, moment: Moment) {
        self.complete_until = moment;
    }

    /// Which directories are in which places, as far as that has changed since the last call; with the first call, since the
    /// tree was last watched.
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

    fn itself(&mut self, wd: Wd, what: Itself) {
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
            // The directory above tells of it.
            Itself::Deleted | Itself::Moved => {}
            Itself::Unmounted => {
                // Not reported: what is out of reach has not been deleted. The directory underneath is watched instead.
                let above = self.table.place(wd).map(|(above, _)| above);
                self.note_lost_mount(wd);
                self.forget(wd);
                self.tasks.extend(above.map(|wd| Task::List { wd, walk: Walk::default() }));
            }
            Itself::Unwatched => self.forget(wd),
        }
    }

    fn attributes(&mut self, wd: Wd) {
        self.look_if_open(wd);
        self.look_at_unseen();
        if let Some(path) = self.table.path(wd)
            && !self.table.is_silent(wd)
        {
            self.gather.add(Change::scan(path, Scope::Entry), Presence::There);
        }
    }

    fn file(&mut self, entry: &Entry<'_>, what: What) {
        let events = self.settings.events;
        match what {
            What::Created => {
                self.touch(entry);
                let look = match self.kernel.look(&entry.path) {
                    // Gone again: the event that says so follows.
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
                    self.speak(entry.dir);
                    let is_new = look.is_some_and(|look| look.is_plain);
                    self.gather.add(Change { settle, is_new, ..Change::write(entry.path.clone()) }, Presence::There);
                }
            }
            What::Written => self.written_unless_excluded(entry, events.close_write.then_some(Settle::Now)),
            What::Modified => self.written_unless_excluded(entry, policy::modified(&self.settings)),
            What::MovedTo(cookie) => {
                self.touch(entry);
                self.arrived(entry.dir, entry.name, &entry.path);
                self.note_received(entry, cookie);
                if events.move_to && !self.excludes_file(&entry.path) {
                    self.speak(entry.dir);
                    let moved_from = self.moved_from(entry, cookie);
                    self.gather.add(Change { moved_from, ..Change::write(entry.path.clone()) }, Presence::There);
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
                    self.speak(entry.dir);
                    self.gather.add(change, Presence::There);
                }
            }
        }
    }

    /// A name has come into being: of a new file, or one more of a file that is there.
    fn created(&mut self, entry: &Entry<'_>, look: Look) {
        if !self.learn_name(entry.dir, entry.name, look) {
            self.single.insert(entry.path.clone());
        } else if self.settings.keeps_links {
            let change = Change::scan(entry.path.clone(), Scope::Entry);
            let change = self.report_links(entry.dir, entry.name, &entry.path, change);
            if !self.excludes_file(&entry.path) {
                self.gather.add(change, Presence::There);
            }
        }
    }

    /// Where a large file came from that has just been moved to `entry`, if its content can be found there by its place or
    /// by its name.
    fn moved_from(&mut self, entry: &Entry<'_>, cookie: u32) -> Option<RelPath> {
        let old = self.moved_file.take().filter(|left| left.cookie == cookie)?.path;
        let is_near = old.name() == entry.name || old.parent().as_ref() == Some(&entry.parent);
        let is_large = || self.kernel.look(&entry.path).is_ok_and(|look| look.is_plain && look.size >= MOVED_BYTES_MIN);
        (is_near && is_large()).then_some(old)
    }

    /// Notes what another rsync has written here.
    fn note_received(&mut self, entry: &Entry<'_>, cookie: u32) {
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

    fn written_unless_excluded(&mut self, entry: &Entry<'_>, settle: Option<Settle>) {
        if let Some(settle) = settle {
            let change = Change { settle, ..Change::write(entry.path.clone()) };
            let change = self.report_links(entry.dir, entry.name, &entry.path, change);
            if !self.excludes_file(&entry.path) {
                self.speak(entry.dir);
                self.gather.add(change, Presence::There);
            }
        }
    }

    fn file_gone(&mut self, entry: &Entry<'_>, reported: bool) {
        self.touch(entry);
        if reported && !self.excludes_file(&entry.path) {
            self.gather.add(Change::scan(entry.path.clone(), Scope::Entry), Presence::Gone);
        }
    }

    /// The listing of the directory that holds the entry changed, and with it that directory's time.
    fn touch(&mut self, entry: &Entry<'_>) {
        if !self.table.is_silent(entry.dir) {
            let times = Change {
                settle: Settle::Within(policy::TIMES_WAIT),
                ..Change::scan(entry.parent.clone(), Scope::Entry)
            };
            self.gather.add(times, Presence::There);
        }
    }

    fn directory(&mut self, entry: &Entry<'_>, what: What) {
        let events = self.settings.events;
        match what {
            What::Created => self.directory_created(entry),
            What::MovedTo(cookie) => self.directory_arrived(entry, cookie),
            What::Deleted => {
                if let Some(wd) = self.table.child(entry.dir, entry.name) {
                    self.forget(wd);
                }
                self.directory_gone(entry, events.delete, Presence::GoneDirectory);
            }
            What::MovedFrom(cookie) => {
                // Of two that are exchanged the first is told to have arrived before the second is told to have left its
                // name; and one that left may be back.
                if let Some(wd) = self.table.child(entry.dir, entry.name).filter(|wd| !self.is_in_place(*wd, entry)) {
                    self.table.detach(wd);
                    let (path, is_disturbed) = (entry.path.clone(), self.in_passing.remove(&wd));
                    let (deadline, turn) = (self.now + LIMBO, self.turn);
                    self.limbo.push(Limbo { cookie, wd, path, deadline, turn, is_disturbed });
                }
                self.note_if_closed(entry.dir, &entry.path);
                let presence = if self.is_free(&entry.path) { Presence::GoneDirectory } else { Presence::There };
                self.directory_gone(entry, events.move_from, presence);
            }
            What::Attributes => {
                // One that is not known is excluded, or not met yet and then reported as a whole.
                if let Some(wd) = self.table.child(entry.dir, entry.name) {
                    self.attributes(wd);
                }
            }
            What::Written | What::Modified => {}
        }
    }

    fn directory_created(&mut self, entry: &Entry<'_>) {
        if self.settings.events.create_folder {
            self.touch(entry);
        }
        if !self.excludes_dir(&entry.path) {
            // The first walk tells nobody what it finds, so what is new since then is looked for once more.
            let walk = Walk { deep: self.started.is_some(), report: true, ..Walk::default() };
            if let Placed::Known(wd) = self.meet(entry.dir, entry.name, &entry.path, walk) {
                self.announce_again(wd, &entry.path);
            }
        }
    }

    fn directory_arrived(&mut self, entry: &Entry<'_>, cookie: u32) {
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
                // It has moved on: keep it, watches and all, until the event that says where to.
                None => {
                    if let Some(left) = left.filter(|&wd| self.table.is_detached(wd)) {
                        if let Some(stale) = self.table.child(entry.dir, entry.name) {
                            self.forget(stale);
                        }
                        self.table.attach(left, entry.dir, entry.name);
                        self.in_passing.insert(left);
                    }
                }
            }
        }
        if let Some(left) = left {
            self.forget_if_detached(left);
        }
    }

    /// Whether all that happened in a directory before it was moved has been reported, and what leaves and arrives is.
    fn knows_all_of(&self, left: &Limbo) -> bool {
        let events = self.settings.events;
        let reports_all = events.move_from && events.move_to && events.close_write;
        let sees_all =
            self.gap.is_none() && self.started.is_none() && !self.lacks_watches() && self.in_passing.is_empty();
        reports_all && sees_all && !left.is_disturbed && !self.excludes_dir(&left.path) && self.is_free(&left.path)
    }

    /// Whether nothing is at a path. What was exchanged is found at both, and took neither of the names from nothing.
    fn is_free(&self, path: &RelPath) -> bool {
        self.kernel.look(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// From where a directory came that a walk has found under another name than it had, as far as that is known.
    pub(super) fn left_from(&mut self, wd: Wd, new: &RelPath) -> Option<RelPath> {
        let at = self.limbo.iter().position(|left| left.wd == wd)?;
        self.limbo.get(at).into_iter().for_each(|left| self.settings.mounts.moved(&left.path, new));
        let old = self.limbo.get(at).filter(|left| self.knows_all_of(left)).map(|left| left.path.clone());
        if let Some(left) = self.limbo.get_mut(at) {
            left.is_disturbed = true;
        }
        old
    }

    /// Whether the directory that the table has under a name is there now.
    fn is_in_place(&self, wd: Wd, entry: &Entry<'_>) -> bool {
        self.table.id(wd).is_some_and(|id| self.kernel.identify(&entry.path) == Some(id))
    }

    fn directory_gone(&mut self, entry: &Entry<'_>, reported: bool, presence: Presence) {
        self.touch(entry);
        if reported && !self.excludes_dir(&entry.path) {
            self.gather.add(Change::scan(entry.path.clone(), Scope::Entry), presence);
        }
    }

    fn forget_if_detached(&mut self, wd: Wd) {
        if self.table.is_detached(wd) {
            self.forget(wd);
        }
    }
}

/// A directory that has just come into being: with the one level in it, whose files may be older than its watch.
fn fresh_directory(path: RelPath) -> Change {
    Change { scope: Scope::Children, fresh: true, ..Change::write(path) }
}
