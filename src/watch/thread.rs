//! The thread that watches one root: reads the kernel's queue, walks in between, and stops when told to.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::event::parse;
use super::kernel::Kernel;
use super::tracker::Tracker;
use super::{Counters, GoneReason, Sink, WatchError, WatchSettings, WatchStats};
use crate::clock;

/// Bytes read from the kernel's queue at once, and so the most that is coalesced: about 8,000 events with short names.
const BUFFER_BYTES: usize = 256 * 1024;

/// Directories listed between two reads.
const WALK_STEPS: usize = 64;

/// How long the loop rests while a directory may still turn up under its next name.
const LIMBO_POLL: Duration = Duration::from_millis(20);

/// How often directories without a watch are tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Watches one root until stopped.
pub struct Watcher {
    counters: Arc<Counters>,
    stop: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watcher {
    /// Watches the whole tree and returns when it is watched. Changes go to `sink` from the first moment on, from a
    /// thread of the watcher's own; what was there before is not reported.
    pub fn start(settings: WatchSettings, sink: Arc<dyn Sink>) -> Result<Self, WatchError> {
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(WatchError::Inotify)?);
        let kernel = Kernel::new(settings.root.clone(), settings.events.attrib).map_err(WatchError::Inotify)?;
        let root = settings.root.clone();
        let (send_started, started) = crossbeam_channel::bounded(1);
        let tracker = Tracker::new(kernel, settings, sink, Arc::clone(&counters), send_started, clock::monotonic())
            .map_err(|errno| WatchError::Root { root: root.clone(), errno })?;
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn({
                let stop = Arc::clone(&stop);
                move || run(tracker, &stop)
            })
            .map_err(WatchError::Thread)?;
        let watcher = Self { counters, stop, thread: Mutex::new(Some(thread)) };
        started.recv().map_err(|_| WatchError::RootGone { root })?;
        Ok(watcher)
    }

    pub fn stats(&self) -> WatchStats {
        self.counters.read()
    }

    /// Ends the watching and waits until the thread has. May be called more than once, but not by the sink.
    pub fn stop(&self) {
        // Fails only if the counter is full, and then it is readable all the same.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the watching thread ended by a panic");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn run(mut tracker: Tracker, stop: &OwnedFd) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut retried = clock::monotonic();
    while !tracker.is_gone() {
        let timeout = if tracker.has_work() {
            Some(Duration::ZERO)
        } else if tracker.awaits_name() {
            Some(LIMBO_POLL)
        } else {
            tracker.lacks_watches().then_some(RETRY)
        };
        match wait(&[tracker.kernel(), stop], timeout) {
            Ok(ready) if ready.get(1) == Some(&true) => return,
            Ok(_) => {}
            Err(errno) => return lose(tracker, errno, stop),
        }
        tracker.begin(clock::monotonic());
        match tracker.kernel().read(&mut buffer) {
            Ok(bytes) => parse(bytes).for_each(|event| tracker.handle(event)),
            Err(errno) => return lose(tracker, errno, stop),
        }
        tracker.expire();
        if tracker.lacks_watches() && clock::monotonic().duration_since(retried) >= RETRY {
            retried = clock::monotonic();
            tracker.retry_unwatched();
        }
        tracker.work(WALK_STEPS);
        tracker.flush();
    }
    idle(tracker, stop);
}

/// Events can no longer be read, which no file system can cause: treated like a root that is gone.
fn lose(mut tracker: Tracker, errno: Errno, stop: &OwnedFd) {
    log::error!(errno:%; "reading inotify events failed");
    tracker.give_up(GoneReason::Lost);
    idle(tracker, stop);
}

/// Gives the inotify instance back and waits for the stop.
fn idle(tracker: Tracker, stop: &OwnedFd) {
    drop(tracker);
    while wait(&[stop], None) == Ok(vec![false]) {}
}

/// Waits until one of the descriptors is readable, and says which are.
fn wait(descriptors: &[&dyn AsFd], timeout: Option<Duration>) -> Result<Vec<bool>, Errno> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|d| PollFd::from_borrowed_fd(d.as_fd(), PollFlags::IN)).collect();
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|p| !p.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; polled.len()]),
        Err(errno) => Err(errno),
    }
}
