//! Watches one process while it runs: feeds its list, keeps what it says, and ends it when told to or when it hangs.
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

/// How often progress is looked at.
const PROGRESS_TICK: Duration = Duration::from_secs(20);

/// How often a process is asked whether it has ended, on kernels without pidfd (before Linux 5.3).
pub(super) const REAP_TICK: Duration = Duration::from_millis(10);

/// How often it is asked whether a comparison is still wanted.
const WANTED_TICK: Duration = Duration::from_millis(500);

/// How often it is counted what an unbounded comparison has read.
const COUNT_TICK: Duration = Duration::from_millis(100);

/// A run that lasts so long has its connection taken hold of. One that is quickly done pays nothing for it, and one whose
/// server does not answer lasts.
const HOLD_AFTER: Duration = Duration::from_millis(20);

/// A server that is well closes the connection of a run that was cut off within this, and its worker waits for that.
const CLOSES_WITHIN: Duration = Duration::from_millis(300);

/// Between asking a process to end and ending it. rsync removes its temporary files in that time.
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
    /// Its connection, once it has lasted a moment.
    line: Option<Line>,
    /// When that is next looked for, until it is found.
    hold_at: Instant,
    /// What it means that there is none.
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
            // Before its end is asked for: what it has read is gone with it.
            self.keep_to_limit(stop);
            if let Some(status) = child.try_wait()? {
                // What it wrote last may have come after the look above. A grandchild (an ssh master) may hold the
                // pipes open, so that their end is not waited for.
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

    /// Takes hold of its connection, to learn what becomes of that if it is cut off.
    fn take_hold(&mut self) {
        let now = monotonic();
        // On a busy machine it takes its time to connect.
        let is_young = now.duration_since(self.begun) < blocked::TICK;
        self.hold_at = now + if is_young { HOLD_AFTER } else { blocked::TICK };
        if self.line.is_some() {
            return;
        }
        let dir = PathBuf::from(format!("/proc/{}", self.pid.as_raw_nonzero()));
        (self.line, self.unheld) = match self.pidfd.as_ref().map(|pidfd| lingering::lines_of(pidfd, &dir)) {
            Some(Ok(mut lines)) => (lines.pop(), Cut::Unseen),
            // It has just ended.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => (None, self.unheld),
            Some(Err(_)) | None => (None, Cut::Refused),
        };
    }

    fn ended(&mut self, end: End) -> Ended {
        let blocked = self.blocked.take();
        let is_cut_off = !matches!(end, End::Exit(0 | 23..=25));
        let line = self.line.take().filter(|_| is_cut_off);
        // A stop waits for nobody.
        let patience = if end == End::Stopped { Duration::ZERO } else { CLOSES_WITHIN };
        let cut = match (line.map(|line| line.hold(patience)), end) {
            (Some(true), _) => Cut::Closed,
            (Some(false), _) => Cut::Held,
            // What ends by itself has no unread words of the server's: its connection is seen in the kernel's table.
            (None, End::Exit(_)) => Cut::No,
            (None, _) => self.unheld,
        };
        Ended { end, stderr: std::mem::take(&mut self.said), stdout: Capture::default(), blocked, cut }
    }

    /// Takes what the process has said.
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

    /// Stops the process for as long as it has read too much for.
    fn keep_to_limit(&mut self, stop: &StopSignal) {
        let (Some(background), Some(read)) = (&mut self.background, bytes_read(self.pid)) else { return };
        let mut rest = background.limit.note(read, monotonic());
        if rest <= LOOK {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::STOP);
        // In pieces: a stop, or a client that goes away, ends the rest.
        while !rest.is_zero() && !stop.is_raised() && (background.is_wanted)() {
            stop.rest(rest.min(WANTED_TICK));
            rest = rest.saturating_sub(WANTED_TICK);
        }
        let _ = kill_process_group(self.pid, Signal::CONT);
    }

    /// Hands over as much of the list as the pipe takes, and closes it at the end.
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
                // It wants no more; its exit code tells why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until something can be done.
    fn sleep(&self, stop: &StopSignal) -> io::Result<()> {
        let tick = match &self.background {
            Some(background) if background.limit.is_bounded() => LOOK,
            _ if self.pidfd.is_none() => REAP_TICK,
            // The kernel may not tell what a process has read once that has ended.
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

    /// Whether the process hangs in a file, which is then known.
    fn is_blocked(&mut self) -> bool {
        let now = monotonic();
        if now.duration_since(self.looked) >= blocked::TICK {
            self.looked = now;
            self.blocked = self.look.blocked(now).map(Box::new);
            let hang = self.blocked.as_deref().or(self.look.hang(now)).cloned();
            self.hangs.note(self.pid, hang);
            if let Some(sent) = bytes_sent(self.pid) {
                // What may not be looked at is not said to have none.
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

/// Reads what is there without waiting, until the pipe closes.
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

/// Ends a process with all that it started (ssh, the local receiver), politely first.
pub(super) fn end_group(child: &mut Child) -> io::Result<()> {
    let group = Pid::from_child(child);
    let asked = monotonic();
    // The group outlives its leader until it is reaped, so that neither signal can meet a stranger.
    let _ = kill_process_group(group, Signal::TERM);
    // It may be held up to keep its pace.
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
