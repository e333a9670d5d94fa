//! Watches one process while it runs: feeds its list, keeps its output, and ends it when told to or when it hangs.
//!
//! One thread waits for everything at once (the process, its pipes, the stop signal), so that neither a full pipe nor
//! a silent peer can block it. Deliberately absent: how a process is started (`process`).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::blocked::{self, Blocked, Hangs};
use super::capture::Capture;
use super::ended::{Cut, End, Ended};
use super::lingering::{self, Line};
use super::read_limit::{LOOK, ReadLimit, bytes_read};
use super::stop::StopSignal;
use super::under_way::{UnderWay, bytes_sent};
use crate::clock::monotonic;

/// How often it is checked whether the process has moved any bytes.
const PROGRESS_TICK: Duration = Duration::from_secs(20);

/// How often a process is asked whether it has ended, on kernels without pidfd (before Linux 5.3).
pub(super) const REAP_TICK: Duration = Duration::from_millis(10);

/// How often a comparison asks whether it is still wanted.
const WANTED_TICK: Duration = Duration::from_millis(500);

/// How often the bytes read by an unbounded comparison are counted.
const COUNT_TICK: Duration = Duration::from_millis(100);

/// When a run has lasted this long, its connection is duplicated into this process. A run that is quickly done pays nothing
/// for that, and a run whose server does not answer lasts long enough.
const HOLD_AFTER: Duration = Duration::from_millis(20);

/// A healthy server closes the connection of a cut off run within this time, and the run's worker waits for that.
const CLOSES_WITHIN: Duration = Duration::from_millis(300);

/// The time between asking a process to end and killing it. rsync removes its temporary files in that time.
const TERM_GRACE: Duration = Duration::from_secs(3);

/// How a comparison is to be run: in the background, and as long as somebody wants it.
pub struct Background<'a> {
    pub limit: &'a mut ReadLimit,
    /// Asked now and then; a run that is no longer wanted is ended.
    pub is_wanted: &'a dyn Fn() -> bool,
}

/// Takes pieces of a process's output.
pub type Each<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// One process under observation.
pub(super) struct Supervision<'a> {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    stdin: Option<std::process::ChildStdin>,
    list: &'a [u8],
    stderr: Option<std::process::ChildStderr>,
    said: Capture,
    stdout: Option<std::process::ChildStdout>,
    each: &'a mut Each<'a>,
    moved: Instant,
    counters: Option<u64>,
    stall_limit: Duration,
    background: Option<Background<'a>>,
    asked: Instant,
    look: blocked::Look,
    hangs: &'a Hangs,
    under_way: &'a UnderWay,
    looked: Instant,
    blocked: Option<Box<Blocked>>,
    /// The process's connection, once the run has lasted a moment.
    line: Option<Line>,
    /// When the connection is next looked for, until it is found.
    hold_at: Instant,
    /// The state of the connection to report if none was found.
    unheld: Cut,
    begun: Instant,
}

impl<'a> Supervision<'a> {
    pub(super) fn new(
        child: &mut Child,
        list: &'a [u8],
        each: &'a mut Each<'a>,
        mut background: Option<Background<'a>>,
        stall_limit: Duration,
        hangs: &'a Hangs,
        under_way: &'a UnderWay,
    ) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let fds = [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for fd in fds.into_iter().flatten() {
            unblock(&fd)?;
        }
        if let Some(background) = &mut background {
            background.limit.next_run();
        }
        Ok(Self {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
            stdin,
            list,
            stderr,
            said: Capture::of_errors(),
            stdout,
            each,
            moved: monotonic(),
            counters: None,
            stall_limit,
            background,
            asked: monotonic(),
            look: blocked::Look::new(pid),
            hangs,
            under_way,
            looked: monotonic(),
            blocked: None,
            line: None,
            hold_at: monotonic() + HOLD_AFTER,
            unheld: Cut::No,
            begun: monotonic(),
        })
    }

    pub(super) fn wait(&mut self, child: &mut Child, stop: &StopSignal) -> io::Result<Ended> {
        loop {
            self.feed()?;
            self.listen()?;
            // Read /proc/PID/io before `try_wait` reaps the process; afterwards the counters are gone.
            self.keep_to_limit(stop);
            if let Some(status) = child.try_wait()? {
                // The last output may have come after the look above. A grandchild (an ssh master) may hold the pipes open,
                // so their end is not waited for.
                self.listen()?;
                return Ok(self.ended(of_status(status)));
            }
            if self.line.is_none() && monotonic() >= self.hold_at {
                self.take_hold();
            }
            let end = if stop.is_raised() || !self.is_wanted() {
                End::Stopped
            } else if self.is_blocked() {
                End::Blocked
            } else if self.stalled() {
                End::Stalled
            } else {
                self.sleep(stop)?;
                continue;
            };
            self.take_hold();
            end_group(child)?;
            self.listen()?;
            return Ok(self.ended(end));
        }
    }

    /// Duplicates the process's connection into this one, to learn what becomes of it if the run is cut off.
    fn take_hold(&mut self) {
        let now = monotonic();
        // On a busy machine a process takes its time to connect.
        let is_young = now.duration_since(self.begun) < blocked::TICK;
        self.hold_at = now + if is_young { HOLD_AFTER } else { blocked::TICK };
        if self.line.is_some() {
            return;
        }
        let dir = PathBuf::from(format!("/proc/{}", self.pid.as_raw_nonzero()));
        (self.line, self.unheld) = match self.pidfd.as_ref().map(|pidfd| lingering::lines_of(pidfd, &dir)) {
            Some(Ok(mut lines)) => (lines.pop(), Cut::Unseen),
            // The process has just ended.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => (None, self.unheld),
            Some(Err(_)) | None => (None, Cut::Refused),
        };
    }

    fn ended(&mut self, end: End) -> Ended {
        let blocked = self.blocked.take();
        let is_cut_off = !matches!(end, End::Exit(0 | 23..=25));
        let line = self.line.take().filter(|_| is_cut_off);
        // A stop waits for no server.
        let patience = if end == End::Stopped { Duration::ZERO } else { CLOSES_WITHIN };
        let cut = match (line.map(|line| line.hold(patience)), end) {
            (Some(true), _) => Cut::Closed,
            (Some(false), _) => Cut::Held,
            // A process that ended by itself leaves no unread data of the server's. The kernel's table shows its
            // connection.
            (None, End::Exit(_)) => Cut::No,
            (None, _) => self.unheld,
        };
        Ended { end, stderr: std::mem::take(&mut self.said), stdout: Capture::default(), blocked, cut }
    }

    /// Reads what the process has printed.
    fn listen(&mut self) -> io::Result<()> {
        let said = &mut self.said;
        drain(&mut self.stderr, &mut |bytes| {
            said.push(bytes);
            Ok(())
        })?;
        drain(&mut self.stdout, self.each)
    }

    fn is_wanted(&mut self) -> bool {
        let Some(background) = &self.background else { return true };
        if self.asked.elapsed() < WANTED_TICK {
            return true;
        }
        self.asked = monotonic();
        (background.is_wanted)()
    }

    /// Stops the process until the bytes that it read too early are within the limit.
    fn keep_to_limit(&mut self, stop: &StopSignal) {
        let (Some(background), Some(read)) = (&mut self.background, bytes_read(self.pid)) else { return };
        let mut rest = background.limit.note(read, monotonic());
        if rest <= LOOK {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::STOP);
        // The rest is taken in pieces, so that a stop or a client that goes away can end it.
        while !rest.is_zero() && !stop.is_raised() && (background.is_wanted)() {
            stop.rest(rest.min(WANTED_TICK));
            rest = rest.saturating_sub(WANTED_TICK);
        }
        let _ = kill_process_group(self.pid, Signal::CONT);
    }

    /// Writes as much of the list as the pipe takes, and closes the pipe at the end of the list.
    fn feed(&mut self) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            if self.list.is_empty() {
                self.stdin = None;
                break;
            }
            match stdin.write(self.list) {
                Ok(written) => self.list = self.list.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The process reads no more of its list; its exit code will tell why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until there is something to do.
    fn sleep(&self, stop: &StopSignal) -> io::Result<()> {
        let tick = match &self.background {
            Some(background) if background.limit.is_bounded() => LOOK,
            _ if self.pidfd.is_none() => REAP_TICK,
            // Once a process has ended, the kernel may not tell how much it has read.
            Some(_) => COUNT_TICK,
            None => self.progress_tick().min(blocked::TICK),
        };
        let hold_in = self.hold_at.saturating_duration_since(monotonic());
        let tick = if self.line.is_none() { tick.min(hold_in.max(REAP_TICK)) } else { tick };
        let mut fds = vec![PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        if let Some(pidfd) = &self.pidfd {
            fds.push(PollFd::new(pidfd, PollFlags::IN));
        }
        if let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        if let Some(stderr) = &self.stderr {
            fds.push(PollFd::new(stderr, PollFlags::IN));
        }
        if let Some(stdout) = &self.stdout {
            fds.push(PollFd::new(stdout, PollFlags::IN));
        }
        let timeout = Timespec::try_from(tick).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn progress_tick(&self) -> Duration {
        PROGRESS_TICK.min(self.stall_limit / 2)
    }

    /// Whether the process hangs in a file. If so, `self.blocked` holds the file.
    fn is_blocked(&mut self) -> bool {
        let now = monotonic();
        if now.duration_since(self.looked) >= blocked::TICK {
            self.looked = now;
            self.blocked = self.look.blocked(now).map(Box::new);
            let hang = self.blocked.as_deref().or(self.look.hang(now)).cloned();
            self.hangs.note(self.pid, hang);
            if let Some(sent) = bytes_sent(self.pid) {
                // A process that may not be looked into is not reported to have no connection.
                let is_connecting = self.line.is_none() && self.unheld == Cut::Unseen;
                self.under_way.note(self.pid, self.begun, sent, is_connecting, now);
            }
        }
        self.blocked.is_some()
    }

    /// Whether the process has moved no byte for too long. Unknown counters count as movement.
    fn stalled(&mut self) -> bool {
        let now = monotonic();
        if now.duration_since(self.moved) < self.progress_tick() {
            return false;
        }
        let counters = bytes_moved(self.pid);
        if counters.is_none() || counters != self.counters {
            self.counters = counters;
            self.moved = now;
        }
        now.duration_since(self.moved) >= self.stall_limit
    }
}

/// The bytes that a process has read and written since it began, on files and sockets alike.
pub(super) fn bytes_moved(pid: Pid) -> Option<u64> {
    let counters = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    let field = |name: &str| counters.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(field("rchar:")?.wrapping_add(field("wchar:")?))
}

/// Reads the available output without waiting. Forgets the pipe when its other end closes.
pub(super) fn drain(pipe: &mut Option<impl Read>, each: &mut Each<'_>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    while let Some(reader) = pipe {
        match reader.read(&mut chunk) {
            Ok(0) => *pipe = None,
            Ok(read) => each(chunk.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends a process with all that it started (ssh, the local receiver): asks it first and kills it after [`TERM_GRACE`].
pub(super) fn end_group(child: &mut Child) -> io::Result<()> {
    let group = Pid::from_child(child);
    let asked = monotonic();
    // The group outlives its leader until the leader is reaped, so neither signal can meet a stranger.
    let _ = kill_process_group(group, Signal::TERM);
    // The process may be stopped to keep within its read limit.
    let _ = kill_process_group(group, Signal::CONT);
    while child.try_wait()?.is_none() {
        if monotonic().duration_since(asked) >= TERM_GRACE {
            let _ = kill_process_group(group, Signal::KILL);
            child.wait()?;
            break;
        }
        std::thread::sleep(REAP_TICK);
    }
    Ok(())
}

pub(super) fn of_status(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

pub(super) fn unblock(fd: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    Ok(())
}
