//! The thread that watches one root: reads the kernel's queue, walks in between, answers barriers, and stops when told to.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::system_kernel::SystemKernel;
use super::tracker::Tracker;
use super::{Counters, GoneReason, Sink, WatchError, WatchSettings, WatchStats};
use crate::clock;
use crate::model::DirectoryChange;

/// Bytes read from the kernel's queue at once, and so the most events that are coalesced: about 8,000 with short names.
const BUFFER_BYTES: usize = 256 * 1024;

/// Directories listed between two reads.
const WALK_STEPS: usize = 64;

/// How long a walk keeps what it finds while there are no events. If changes were handed on one by one, each change of a
/// large tree would get a run of its own after a restart.
const WALK_GATHERS: Duration = Duration::from_secs(1);

/// A change that is followed by nothing for `LULL` is handed on at once. A change that begins a burst is handed on with
/// those that follow, for `BURST_GATHERS` at most. Otherwise the first file of a thousand would take the connection that
/// stands ready for all of them, and the others would have to make one of their own.
const LULL: Duration = Duration::from_millis(1);
const BURST_GATHERS: Duration = Duration::from_millis(25);

/// How long the loop rests while a directory may still turn up under its next name, or lost events are to be made up for.
const POLL: Duration = Duration::from_millis(20);

/// The longest event: a header of 16 bytes, and a name of 255 with a NUL.
const EVENT_BYTES_MAX: usize = 272;

/// How often directories without a watch are tried again, and looked through.
const RETRY: Duration = Duration::from_secs(10);

/// A request to the thread.
enum Request {
    Stop,
    /// Answer once all that had happened at the time of the request is with the sink.
    Barrier(Reply),
}

/// The answer that is given at a barrier.
enum Reply {
    Reached(Sender<()>),
    /// The places of directories, as far as they have changed since the last such answer.
    Directories(Sender<Vec<DirectoryChange>>),
}

/// A barrier that has not been reached yet.
struct Barrier {
    /// Bytes of events that were queued when the barrier was asked for and have not been read since.
    unread: usize,
    reply: Reply,
}

/// Watches one root until stopped.
pub struct Watcher {
    counters: Arc<Counters>,
    requests: Sender<Request>,
    /// Tells the thread, which sleeps in a poll, that there are requests.
    wake: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A descriptor that can wake the thread up.
fn descriptor() -> Result<OwnedFd, Errno> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// Opens an inotify instance. If the sink makes room, other roots that start at the same time may take it: hence many
/// tries.
fn kernel(settings: &WatchSettings, sink: &dyn Sink) -> Result<SystemKernel, WatchError> {
    const TRIES: u32 = 16;
    let mut tries = 0;
    loop {
        match SystemKernel::new(settings.root.clone(), settings.events.attrib) {
            Ok(kernel) => return Ok(kernel),
            // The limit of instances and the limit of descriptors have the same error.
            Err(errno @ (Errno::MFILE | Errno::NFILE)) if descriptor().is_err() => {
                return Err(WatchError::Descriptors(errno));
            }
            Err(Errno::MFILE) if tries < TRIES && sink.make_instances() => tries += 1,
            Err(errno) => return Err(WatchError::Inotify(errno)),
        }
    }
}

impl Watcher {
    /// Watches the whole tree and returns when it is watched. Changes go to `sink` from the first moment on, from a
    /// thread of the watcher's own. Of earlier changes only those that [`CatchUp`](super::CatchUp) asks for are reported.
    pub fn start(settings: WatchSettings, sink: Arc<dyn Sink>) -> Result<Self, WatchError> {
        let counters = Arc::new(Counters::default());
        let wake = Arc::new(descriptor().map_err(WatchError::Descriptors)?);
        let kernel = kernel(&settings, sink.as_ref())?;
        let root = settings.root.clone();
        let (requests, asked) = crossbeam_channel::unbounded();
        let (send_started, started) = crossbeam_channel::bounded(1);
        let tracker = Tracker::new(
            kernel,
            settings,
            sink,
            Arc::clone(&counters),
            send_started,
            (clock::monotonic(), clock::moment()),
        )
        .map_err(|errno| WatchError::Root { root: root.clone(), errno })?;
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn({
                let wake = Arc::clone(&wake);
                move || Loop { tracker, wake, asked, barriers: Vec::new(), polls_now: false }.run()
            })
            .map_err(WatchError::Thread)?;
        let watcher = Self { counters, requests, wake, thread: Mutex::new(Some(thread)) };
        started.recv().map_err(|_| WatchError::RootGone { root })?;
        Ok(watcher)
    }

    pub fn stats(&self) -> WatchStats {
        self.counters.read()
    }

    /// Answers once everything that has happened in the tree before this call is with the sink. Directories without a
    /// watch are looked through for that. The channel is disconnected without an answer if the watching ends or has
    /// ended.
    pub fn barrier(&self) -> Receiver<()> {
        let (reply, reached) = crossbeam_channel::bounded(1);
        self.ask(Request::Barrier(Reply::Reached(reply)));
        reached
    }

    /// Like [`barrier`](Self::barrier), answered with the directories that came to other places, or left, since the last
    /// such question: these bring what is known of the tree up to that barrier.
    pub fn checkpoint(&self) -> Receiver<Vec<DirectoryChange>> {
        let (reply, reached) = crossbeam_channel::bounded(1);
        self.ask(Request::Barrier(Reply::Directories(reply)));
        reached
    }

    /// Ends the watching and waits until the thread has. May be called more than once, but not by the sink.
    pub fn stop(&self) {
        self.ask(Request::Stop);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the watching thread ended by a panic");
        }
    }

    fn ask(&self, request: Request) {
        // Sending fails if the thread has ended, and the dropped request tells its sender so.
        if self.requests.send(request).is_ok() {
            // Writing fails only if the counter is full, and then the descriptor is readable all the same.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
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

/// The state of the thread.
struct Loop {
    tracker: Tracker<SystemKernel>,
    wake: Arc<OwnedFd>,
    asked: Receiver<Request>,
    barriers: Vec<Barrier>,
    /// Somebody waits for changes in directories without a watch as well.
    polls_now: bool,
}

impl Loop {
    fn run(mut self) {
        match self.watch() {
            Ok(true) => return,
            Ok(false) => {}
            Err(errno) => {
                // No file system can cause this error. It is treated like a root that is gone, since nothing is seen any
                // more.
                log::error!(errno:%; "reading inotify events failed");
                self.tracker.give_up(GoneReason::Lost);
            }
        }
        let Self { tracker, asked, barriers, .. } = self;
        // Gives the inotify instance back, and ends the barriers that will not be reached.
        drop((tracker, barriers));
        while let Ok(Request::Barrier(_)) = asked.recv() {}
    }

    /// Watches until told to stop (true) or until the root is gone (false).
    fn watch(&mut self) -> Result<bool, Errno> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut retried = clock::monotonic();
        let mut gathers_since = retried;
        let mut has_events = false;
        while !self.tracker.is_gone() {
            let awaits_lull = has_events || self.tracker.has_promised_more();
            let rest =
                if awaits_lull { self.rest().map_or(Some(LULL), |rest| Some(rest.min(LULL))) } else { self.rest() };
            let (asked, mounts_changed) = self.wait(rest)?;
            if asked && self.is_told_to_stop()? {
                // The gathered changes came out of the kernel's queue, and nobody would bring them to mind again.
                self.tracker.flush(false);
                return Ok(true);
            }
            let moment = clock::moment();
            let now = clock::monotonic();
            self.tracker.begin(now, moment);
            let mut bytes = 0;
            for event in self.tracker.kernel_mut().read(&mut buffer)? {
                bytes += event.queued_bytes();
                self.tracker.handle(event);
            }
            // Room for one more event shows that the kernel's queue has been read to its end.
            if bytes + EVENT_BYTES_MAX <= buffer.len() {
                self.tracker.read_until(moment);
            }
            for barrier in &mut self.barriers {
                barrier.unread = barrier.unread.saturating_sub(bytes);
            }
            let polls_now = std::mem::take(&mut self.polls_now);
            let retries = self.tracker.lacks_watches() && (polls_now || now.duration_since(retried) >= RETRY);
            if retries {
                retried = now;
            }
            self.tracker.proceed(retries, mounts_changed, WALK_STEPS);
            if bytes > 0 && !std::mem::replace(&mut has_events, true) && !self.tracker.has_work() {
                gathers_since = now;
            }
            let gathers_for = if has_events { BURST_GATHERS } else { WALK_GATHERS };
            let is_lull = bytes == 0 && !self.tracker.has_work();
            if is_lull || !self.barriers.is_empty() || now.duration_since(gathers_since) >= gathers_for {
                (gathers_since, has_events) = (now, false);
                self.tracker.flush(!is_lull);
            }
            self.tracker.tell_whether_behind();
            self.answer();
        }
        Ok(false)
    }

    /// How long to wait for events at most; `None` for any time.
    fn rest(&self) -> Option<Duration> {
        if self.tracker.has_work() || self.tracker.has_lost_mount() {
            Some(Duration::ZERO)
        } else if self.tracker.awaits_name() || self.tracker.has_gap() || self.tracker.seeks_names() {
            Some(POLL)
        } else {
            self.tracker.lacks_watches().then_some(RETRY)
        }
    }

    /// Waits until there is something to do: returns whether something is asked for, and whether mounts have changed.
    fn wait(&self, timeout: Option<Duration>) -> Result<(bool, bool), Errno> {
        let kernel = self.tracker.kernel();
        let mut polled = vec![PollFd::new(&*self.wake, PollFlags::IN), PollFd::new(kernel, PollFlags::IN)];
        polled.extend(kernel.mount_table().map(|table| PollFd::from_borrowed_fd(table, PollFlags::PRI)));
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {
                let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
                Ok((is_ready(0), is_ready(2)))
            }
            Err(Errno::INTR) => Ok((false, false)),
            Err(errno) => Err(errno),
        }
    }

    fn is_told_to_stop(&mut self) -> Result<bool, Errno> {
        // The counter is reset before the requests are taken: a request that comes in between wakes the thread again.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        while let Ok(request) = self.asked.try_recv() {
            match request {
                Request::Stop => return Ok(true),
                Request::Barrier(reply) => {
                    let unread = self.tracker.kernel().queued_bytes()?;
                    self.polls_now |= matches!(reply, Reply::Reached(_));
                    self.barriers.push(Barrier { unread, reply });
                }
            }
        }
        Ok(false)
    }

    /// Answers the barriers behind which nothing is left: neither events, nor a walk, nor half a rename, nor a gap.
    fn answer(&mut self) {
        if self.tracker.is_caught_up() {
            for barrier in self.barriers.extract_if(.., |barrier| barrier.unread == 0) {
                // Whoever asked may have lost interest.
                match barrier.reply {
                    Reply::Reached(reply) => drop(reply.send(())),
                    Reply::Directories(reply) => drop(reply.send(self.tracker.take_directories())),
                }
            }
        }
    }
}
