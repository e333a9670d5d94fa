//! The watcher against the real kernel, on temporary directories, and against the simulated one (`late_watches`, and the
//! simulation among the queue's tests).
//!
//! Most tests drive a [`Tracker`] by hand, one turn at a time: what the watcher has seen when something happens is then
//! decided by the test, and its table can be looked at.

mod cases;
mod catch_up;
mod kernels;
mod late_watches;
mod model;
mod property;
mod threaded;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use inotify::EventMask;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::event::RawEvent;
use super::kernel::Kernel as _;
use super::system_kernel::SystemKernel;
use super::table::Wd;
use super::tracker::Tracker;
use super::{CatchUp, Counters, Notice, Sink, WatchSettings};
use crate::clock;
use crate::filter::Filter;
use crate::model::{Change, EventSwitches, RelPath, Timestamp};
use crate::mounts::Mounts;

pub(super) fn settings(root: &Path) -> WatchSettings {
    WatchSettings {
        root: root.to_path_buf(),
        events: EventSwitches::default(),
        filter: Arc::new(Filter::new(&[], false).unwrap()),
        quiet_period: Duration::from_secs(5),
        hot_interval: Duration::from_secs(1),
        ctime_margin: TICK,
        keeps_links: false,
        mounts: Arc::new(Mounts::new(root, [])),
        catch_up: None,
    }
}

/// The longest that the kernel lets pass between two readings of the clock from which files get their times.
const TICK: Duration = Duration::from_millis(12);

fn path(bytes: impl AsRef<[u8]>) -> RelPath {
    RelPath::new(bytes.as_ref()).unwrap()
}

/// A directory in memory where there is such a place: the tests make and delete very many files.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Keeps what the watcher hands on.
#[derive(Default)]
pub(super) struct Collector {
    changes: Mutex<Vec<Change>>,
    /// How often changes came.
    calls: AtomicU64,
    /// Whether the last call said that more follow.
    awaits_more: AtomicBool,
    notices: Mutex<Vec<Notice>>,
}

impl Collector {
    #[must_use]
    pub(super) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock())
    }
}

impl Sink for Collector {
    fn changes(&self, changes: Vec<Change>, more_follow: bool) {
        self.awaits_more.store(more_follow, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.changes.lock().extend(changes);
    }

    fn gone(&self, _paths: Vec<RelPath>) {}

    fn notice(&self, notice: Notice) {
        self.notices.lock().push(notice);
    }
}

/// A tracker that is turned by hand. `root` is watched; `outside` is on the same file system and not.
struct Driver {
    _dir: TempDir,
    root: PathBuf,
    outside: PathBuf,
    tracker: Tracker<SystemKernel>,
    collector: Arc<Collector>,
    buffer: Vec<u8>,
}

/// A tracker that knows nothing but the root yet.
fn track(settings: WatchSettings) -> (Tracker<SystemKernel>, Arc<Collector>) {
    let kernel = SystemKernel::new(settings.root.clone(), settings.events.attrib).unwrap();
    let collector = Arc::new(Collector::default());
    let (send_started, _) = crossbeam_channel::bounded(1);
    let sink = Arc::clone(&collector) as Arc<dyn Sink>;
    let now = (clock::monotonic(), clock::moment());
    let tracker = Tracker::new(kernel, settings, sink, Arc::new(Counters::default()), send_started, now).unwrap();
    (tracker, collector)
}

/// Waits until changes from now on are dated later than changes before, and returns a time in between.
fn between_changes() -> Timestamp {
    let begun = clock::moment().wall;
    let between = begun.after(TICK);
    while clock::moment().wall <= between.after(TICK) {
        std::thread::yield_now();
    }
    between
}

impl Driver {
    /// Watches what `prepare` makes, all of it.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let mut driver = Self::with(|_| {}, prepare);
        driver.settle();
        driver
    }

    /// A driver with settings of its own, before the first walk.
    fn with(change: impl FnOnce(&mut WatchSettings), prepare: impl FnOnce(&Path)) -> Self {
        let dir = scratch();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        prepare(&root);
        let mut settings = settings(&root);
        change(&mut settings);
        let (tracker, collector) = track(settings);
        Self { _dir: dir, root, outside, tracker, collector, buffer: vec![0; 64 * 1024] }
    }

    /// Ends the watching and begins again.
    fn restart(&mut self, catch_up: CatchUp) {
        let settings = WatchSettings { catch_up: Some(catch_up), ..settings(&self.root) };
        (self.tracker, self.collector) = track(settings);
    }

    /// One turn of the loop at a time that far in the future, with at most `bytes` of events read and `steps` of work
    /// done. Returns whether there was anything to read.
    fn turn(&mut self, ahead: Duration, bytes: usize, steps: usize) -> bool {
        let moment = clock::moment();
        self.tracker.begin(clock::monotonic() + ahead, moment);
        let mut any = false;
        for event in self.tracker.kernel_mut().read(&mut self.buffer[..bytes]).unwrap() {
            any = true;
            self.tracker.handle(event);
        }
        if !any {
            self.tracker.read_until(moment);
        }
        self.tracker.proceed(false, false, steps);
        self.tracker.flush(false);
        any
    }

    /// Turns until there is nothing more to do.
    fn settle(&mut self) {
        let hour = Duration::from_secs(3600);
        while self.turn(hour, 64 * 1024, 64) || !self.tracker.is_caught_up() {}
    }

    /// As [`Self::report_in_full`], without what only makes the sending cheaper or ties it together.
    #[must_use]
    fn report(&mut self) -> Vec<Change> {
        let plain = |change| Change { is_new: false, several_names: None, ..change };
        self.report_in_full().into_iter().map(plain).collect()
    }

    /// Settles and returns what was reported since the last time.
    #[must_use]
    fn report_in_full(&mut self) -> Vec<Change> {
        self.settle();
        self.collector.take()
    }

    /// Lets the kernel forget the events that it had to tell, and say so.
    fn overflow(&mut self) {
        while self.tracker.kernel_mut().read(&mut self.buffer).unwrap().next().is_some() {}
        self.inject(RawEvent { wd: Wd(-1), mask: EventMask::Q_OVERFLOW, cookie: 0, name: b"" });
    }

    fn inject(&mut self, event: RawEvent<'_>) {
        self.tracker.handle(event);
    }

    /// Checks that the table says what the tree is, and that the kernel says what the table says.
    fn check_table(&mut self) {
        let known = self.tracker.table().snapshot();
        let there: BTreeMap<RelPath, Wd> = model::directories(&self.root)
            .into_iter()
            .map(|path| {
                let (wd, _) = self.tracker.kernel_mut().watch(&path).unwrap();
                (path, wd)
            })
            .collect();
        assert_eq!(known, there);
    }
}
