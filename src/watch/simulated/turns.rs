//! The tracker over the simulated kernel, turned by hand: how much it reads and does in each turn is the test's to say.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Disk, Operation, SimulatedKernel};
use crate::clock;
use crate::model::{BootId, Change, DirectoryChange, Moment, Timestamp};
use crate::watch::tests::{Collector, settings};
use crate::watch::tracker::Tracker;
use crate::watch::{CatchUp, Counters, KnownDirectories, Sink, WatchSettings, WatchStats};

/// How far one turn of the loop goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// How many events are read at most.
    pub(crate) events: usize,
    /// How many listings and other tasks are done at most.
    pub(crate) steps: usize,
    /// Directories that could not be watched are tried again.
    pub(crate) retries: bool,
    /// The gathered changes are handed on.
    pub(crate) hands_on: bool,
}

impl Turn {
    /// All that can be done at once.
    pub(crate) const WHOLE: Self = Self { events: usize::MAX, steps: usize::MAX, retries: true, hands_on: true };
}

/// See the module's documentation.
pub(crate) struct Turns {
    tracker: Tracker<SimulatedKernel>,
    settings: WatchSettings,
    collector: Arc<Collector>,
    counters: Arc<Counters>,
    /// The monotonic clock at [`Timestamp::ZERO`].
    zero: Instant,
    /// All reported changes have been handed on.
    is_handed_on: bool,
    /// The operations up to this version are seen even where nothing is watched.
    looked_at: u64,
    /// How many changes of mounts the tracker has been told of.
    mounts: usize,
    known: KnownDirectories,
    since: Timestamp,
}

fn moment(now: Timestamp) -> Moment {
    Moment { wall: now, boot: BootId([0; 16]), uptime_ms: now.0 }
}

impl Turns {
    /// A tracker that watches nothing but the root yet.
    pub(crate) fn new(disk: Disk, change: impl FnOnce(&mut WatchSettings)) -> Self {
        let mut settings = settings(Path::new("/root"));
        settings.ctime_margin = Duration::ZERO;
        change(&mut settings);
        let (zero, now) = (clock::monotonic(), disk.now);
        let (collector, counters) = (Arc::default(), Arc::default());
        let tracker = track(SimulatedKernel::new(disk), &settings, &collector, &counters, zero, now);
        let (known, since) = (KnownDirectories::new(), now);
        Self { tracker, settings, collector, counters, zero, is_handed_on: true, looked_at: 0, mounts: 0, known, since }
    }

    pub(crate) fn kernel(&mut self) -> &mut SimulatedKernel {
        self.tracker.kernel_mut()
    }

    pub(crate) fn disk(&mut self) -> &mut Disk {
        self.kernel().disk_mut()
    }

    pub(crate) fn perform(&mut self, operation: &Operation) -> bool {
        self.disk().perform(operation)
    }

    /// Takes one turn of the loop. Returns the changes that are handed on.
    pub(crate) fn turn(&mut self, turn: Turn) -> Vec<Change> {
        let (now, version) = (self.disk().now, self.disk().version);
        self.tracker.begin(self.zero + Duration::from_millis(now.0), moment(now));
        let mut events = Vec::new();
        while events.len() < turn.events
            && let Some(event) = self.disk().read()
        {
            events.push(event);
        }
        let is_all = self.disk().is_read();
        events.iter().for_each(|event| self.tracker.handle(event.raw()));
        if is_all {
            self.tracker.read_until(moment(now));
        }
        let mounts = self.disk().mounts_changed;
        let mounts_changed = std::mem::replace(&mut self.mounts, mounts) != mounts;
        self.tracker.proceed(turn.retries, mounts_changed, turn.steps);
        if turn.retries {
            self.looked_at = version;
        }
        self.is_handed_on = turn.hands_on;
        if turn.hands_on {
            self.tracker.flush(false);
        }
        self.tracker.tell_whether_behind();
        if self.disk().is_read() && self.tracker.is_caught_up() {
            self.disk().is_known();
        }
        self.collector.take()
    }

    pub(crate) fn stats(&self) -> WatchStats {
        self.counters.read()
    }

    /// Whether a barrier would be answered: all that has happened is handed on.
    pub(crate) fn is_reached(&mut self) -> bool {
        self.disk().is_read()
            && !self.kernel().is_armed()
            && self.mounts == self.disk().mounts_changed
            && self.tracker.is_caught_up()
            && self.is_handed_on
    }

    /// Whether all that has happened is handed on, even where nothing is watched.
    pub(crate) fn sees_all(&mut self) -> bool {
        let stats = self.stats();
        self.is_reached() && !stats.is_behind && (stats.unwatched == 0 || self.looked_at == self.disk().version)
    }

    /// Takes turns until there is nothing more to do, and returns all that was handed on. Time passes.
    pub(crate) fn settle(&mut self) -> Vec<Change> {
        let mut changes = self.turn(Turn::WHOLE);
        while !self.is_reached() {
            self.disk().now = self.disk().now.after(Duration::from_secs(100));
            changes.extend(self.turn(Turn { retries: false, ..Turn::WHOLE }));
        }
        changes
    }

    /// Remembers what is known of the tree, if a barrier is reached.
    pub(crate) fn checkpoint(&mut self) {
        if !self.is_reached() {
            return;
        }
        self.since = self.disk().now;
        for change in self.tracker.take_directories() {
            match change {
                DirectoryChange::Put { id, parent, name } => drop(self.known.insert(id, (parent, name))),
                DirectoryChange::Gone(id) => drop(self.known.remove(&id)),
            }
        }
    }

    /// Ends the watching and begins again. The first walk finds what has happened since the last checkpoint.
    pub(crate) fn restart(&mut self) {
        let catch_up = Some(CatchUp { since: self.since, known: self.known.clone() });
        let settings = WatchSettings { catch_up, ..self.settings.clone() };
        // The new tracker needs the same file system, so another one is put in its place in the old tracker meanwhile.
        let disk = std::mem::replace(self.tracker.kernel_mut().disk_mut(), Disk::new(Timestamp::ZERO, false));
        let mut kernel = SimulatedKernel::new(disk);
        kernel.disk_mut().forget_watches();
        let now = kernel.disk().now;
        self.counters = Arc::default();
        self.tracker = track(kernel, &settings, &self.collector, &self.counters, self.zero, now);
        self.is_handed_on = false;
    }
}

fn track(
    kernel: SimulatedKernel,
    settings: &WatchSettings,
    collector: &Arc<Collector>,
    counters: &Arc<Counters>,
    zero: Instant,
    now: Timestamp,
) -> Tracker<SimulatedKernel> {
    let (send_started, _) = crossbeam_channel::bounded(1);
    let sink = Arc::clone(collector) as Arc<dyn Sink>;
    let now = (zero + Duration::from_millis(now.0), moment(now));
    Tracker::new(kernel, settings.clone(), sink, Arc::clone(counters), send_started, now).expect("the root is there")
}
