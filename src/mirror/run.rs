//! Runs one rsync: feeds its list, keeps what it says, and ends it when told to or when it hangs.
//!
//! One thread waits for everything at once (the process, its pipes, the stop signal), so that neither a full pipe nor
//! a silent peer can block it. Deliberately absent: what the words and the exit code mean (`outcome`).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, getpriority_process, kill_process_group, pidfd_open, setpriority_pgrp};

use super::blocked::{self, Blocked, Hangs};
use super::capture::Capture;
use super::environment;
use super::installed::RSYNC;
use super::lingering::{self, Line};
use super::pace::{LOOK, Pace, bytes_read};
use super::program::{OWNER, Program, end_rest_of_group};
use super::stop::StopSignal;
use super::under_way::{UnderWay, bytes_sent};
use crate::clock::monotonic;
use crate::model::Lane;

/// An rsync that has read and written nothing for so long hangs. Long, since a peer may be busy for many minutes
/// without a word: deleting a huge tree, or reading a huge file to compare it. rsync's own `--timeout` is the finer tool.
pub const STALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How often progress is looked at.
const PROGRESS_TICK: Duration = Duration::from_secs(20);

/// How often a process is asked whether it has ended, on kernels without pidfd (before Linux 5.3).
const REAP_TICK: Duration = Duration::from_millis(10);

/// How often it is asked whether a comparison is still wanted.
const WANTED_TICK: Duration = Duration::from_millis(500);

/// Comparisons have time. Where the I/O scheduler knows priorities it follows the niceness.
const COMPARISON_NICENESS: i32 = 10;
/// What takes long should go on as well as it can beside a machine's other work, only behind what is quickly done.
const LONG_RUN_NICENESS: i32 = 5;

/// A run that lasts so long has its connection taken hold of. One that is quickly done pays nothing for it, and one whose
/// server does not answer lasts.
const HOLD_AFTER: Duration = Duration::from_millis(20);
/// A server that is well closes the connection of a run that was cut off within this, and its worker waits for that.
const CLOSES_WITHIN: Duration = Duration::from_millis(300);

/// Between asking a process to end and ending it. rsync removes its temporary files in that time.
const TERM_GRACE: Duration = Duration::from_secs(3);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    /// Ended by a signal that we did not send.
    Signal(i32),
    /// We ended it, as the stop signal asked.
    Stopped,
    /// We ended it, since nothing moved for the program's `stall_limit`.
    Stalled,
    /// We ended it, since it hung in a file of the source.
    Blocked,
}

/// What is left of a run.
#[derive(Debug, Clone)]
pub struct Ended {
    pub end: End,
    pub stderr: Capture,
    /// Empty unless asked for.
    pub stdout: Capture,
    /// The file in which it hung, if that was its end.
    pub blocked: Option<Box<Blocked>>,
    pub cut: Cut,
}

/// What is known of the connection of a run that was cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cut {
    /// It was not cut off, or had no connection yet.
    #[default]
    No,
    /// It was held, and the other side has closed it: nothing of it is on its way any more, as far as that can know.
    Closed,
    /// It is held until the other side closes it.
    Held,
    /// It had none of its own: it went through another program, if anywhere.
    Unseen,
    /// Whether it had one may not be known.
    Refused,
}

/// How a comparison is to be run: in the background, and as long as somebody wants it.
pub struct Leisure<'a> {
    pub pace: &'a mut Pace,
    /// Asked now and then; a run that is no longer wanted is ended.
    pub is_wanted: &'a dyn Fn() -> bool,
}

/// Who goes first when the processor is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// As this process.
    Usual,
    /// Behind runs that are quickly done.
    Long,
    /// Behind everything.
    Comparison,
}

impl From<Lane> for Priority {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Small => Self::Usual,
            Lane::Large => Self::Long,
        }
    }
}

/// Starts `program args` in `root`, feeds it `list` and waits for its end. Of its output is kept what `stdout` keeps.
pub fn run(
    program: &Program,
    root: &Path,
    args: &[OsString],
    list: &[u8],
    stdout: Option<Capture>,
    priority: Priority,
    stop: &StopSignal,
) -> io::Result<Ended> {
    let start = |stdout: Option<&mut Each<'_>>| {
        let mut started = Started::new(program, root, args, stdout.is_some())?;
        started.yield_to_others(priority);
        started.conduct(list, stdout, program.stall_limit, stop, None)
    };
    let Some(mut kept) = stdout else { return start(None) };
    let mut keep = |bytes: &[u8]| {
        kept.push(bytes);
        Ok(())
    };
    let ended = start(Some(&mut keep))?;
    Ok(Ended { stdout: kept, ..ended })
}

/// As [`run`], for a comparison: hands its output to `each` as it comes.
pub fn run_at_leisure(
    program: &Program,
    root: &Path,
    args: &[OsString],
    list: &[u8],
    each: &mut Each<'_>,
    stop: &StopSignal,
    leisure: Leisure<'_>,
) -> io::Result<Ended> {
    let mut started = Started::new(program, root, args, true)?;
    started.yield_to_others(Priority::Comparison);
    started.conduct(list, Some(each), program.stall_limit, stop, Some(leisure))
}

/// Takes pieces of a process's output.
pub type Each<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// A process that has been started and waits for its list. Dropped before it got one, it is killed.
#[derive(Debug)]
pub struct Started {
    child: Child,
    owner: OsString,
    has_list: bool,
    hangs: Arc<Hangs>,
    under_way: Arc<UnderWay>,
}

impl Started {
    /// Starts `program args` in `root`.
    pub fn new(program: &Program, root: &Path, args: &[OsString], with_stdout: bool) -> io::Result<Self> {
        let mut command = Command::new(&program.path);
        command.args(args).current_dir(root).process_group(0);
        environment::prepare(&mut command, args);
        command.env(OWNER, &program.owner);
        let (heard, said) = words()?;
        let (stdout, printed) =
            if with_stdout { words().map(|(heard, said)| (Some(heard), said))? } else { (None, Stdio::null()) };
        command.stdin(Stdio::piped()).stdout(printed).stderr(said);
        let mut child = match &program.places {
            Some(places) if program.path == RSYNC => places.spawn(&mut command, args)?,
            _ => command.spawn()?,
        };
        (child.stdout, child.stderr) = (stdout.map(ChildStdout::from), Some(heard.into()));
        let (hangs, under_way) = (Arc::clone(&program.hangs), Arc::clone(&program.under_way));
        Ok(Self { child, owner: program.owner.clone(), has_list: false, hangs, under_way })
    }

    /// The directory in which it works, as the kernel knows it: whatever has its name by now, this is the one.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/cwd", self.child.id()))
    }

    /// How it ended, if it did, and what it said.
    pub fn ended(&mut self) -> io::Result<Option<Ended>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let mut stderr = Capture::of_errors();
        if let Some(pipe) = &self.child.stderr {
            unblock(pipe)?;
        }
        drain(&mut self.child.stderr.take(), &mut |bytes| {
            stderr.push(bytes);
            Ok(())
        })?;
        Ok(Some(Ended { end: of_status(status), stderr, stdout: Capture::default(), blocked: None, cut: Cut::No }))
    }

    #[cfg(test)]
    pub fn has_died(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Gives it its list and waits for its end, as [`run`].
    pub fn hand_over(
        mut self,
        list: &[u8],
        stdout: Option<Capture>,
        stall_limit: Duration,
        stop: &StopSignal,
    ) -> io::Result<Ended> {
        let Some(mut kept) = stdout else { return self.conduct(list, None, stall_limit, stop, None) };
        let mut keep = |bytes: &[u8]| {
            kept.push(bytes);
            Ok(())
        };
        let ended = self.conduct(list, Some(&mut keep), stall_limit, stop, None)?;
        Ok(Ended { stdout: kept, ..ended })
    }

    /// Gives it an empty list: it ends by itself. Does not wait for that.
    pub fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ends it without having done anything. Takes a moment; one that has not ended after `patience` is killed.
    pub fn dismiss(mut self, patience: Duration) -> io::Result<Option<Ended>> {
        self.release();
        let begun = monotonic();
        loop {
            let ended = self.ended()?;
            let left = patience.saturating_sub(begun.elapsed());
            if ended.is_some() || left.is_zero() {
                return Ok(ended);
            }
            let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
            let tick = if pidfd.is_ok() { left } else { REAP_TICK };
            let timeout = Timespec::try_from(tick).map_err(|_| io::ErrorKind::InvalidInput)?;
            // An early end of the wait does no harm.
            let _ =
                poll(&mut pidfd.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect::<Vec<_>>(), Some(&timeout));
        }
    }

    /// Lowers its priority, never below that of this process. One that cannot be lowered is as good as any other.
    fn yield_to_others(&self, priority: Priority) {
        let niceness = match priority {
            Priority::Usual => return,
            Priority::Long => LONG_RUN_NICENESS,
            Priority::Comparison => COMPARISON_NICENESS,
        };
        let niceness = getpriority_process(None).map_or(niceness, |ours| ours.max(niceness));
        let _ = setpriority_pgrp(Some(Pid::from_child(&self.child)), niceness);
    }

    fn conduct(
        &mut self,
        list: &[u8],
        stdout: Option<&mut Each<'_>>,
        stall_limit: Duration,
        stop: &StopSignal,
        leisure: Option<Leisure<'_>>,
    ) -> io::Result<Ended> {
        self.has_list = true;
        let child = &mut self.child;
        let _attended = stop.attend(Pid::from_child(child));
        let mut ignored = |_: &[u8]| Ok(());
        let each = stdout.unwrap_or(&mut ignored);
        let (hangs, under_way) = (&*self.hangs, &*self.under_way);
        let watch = Watch::new(child, list, each, leisure, stall_limit, hangs, under_way);
        let ended = watch.and_then(|mut watch| watch.wait(child, stop));
        hangs.note(Pid::from_child(child), None);
        under_way.forget(Pid::from_child(child));
        match &ended {
            Err(_) => end_group(child)?,
            // What it has started may go on without it.
            Ok(Ended { end: End::Signal(_), .. }) => end_rest_of_group(&self.owner, Pid::from_child(child)),
            Ok(_) => {}
        }
        ended
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.has_list && matches!(self.child.try_wait(), Ok(None)) {
            // It is in the middle of nothing, so there is nothing to be polite about.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// One process under observation.
struct Watch<'a> {
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
    leisure: Option<Leisure<'a>>,
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

/// A pipe for what a process says, which that can read from as well. So it does not fail for want of a reader when this
/// process is killed, in the middle of what it sends and without a trace: the next daemon finds it, and its connection.
fn words() -> io::Result<(OwnedFd, Stdio)> {
    let (reader, writer) = io::pipe()?;
    let both = OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    Ok((reader.into(), both.map_or_else(|_| writer.into(), Stdio::from)))
}

/// Reads what is there without waiting, until the pipe closes.
fn drain(pipe: &mut Option<impl Read>, each: &mut Each<'_>) -> io::Result<()> {
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

impl<'a> Watch<'a> {
    fn new(
        child: &mut Child,
        list: &'a [u8],
        each: &'a mut Each<'a>,
        mut leisure: Option<Leisure<'a>>,
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
        if let Some(leisure) = &mut leisure {
            leisure.pace.next_run();
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
            leisure,
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

    fn wait(&mut self, child: &mut Child, stop: &StopSignal) -> io::Result<Ended> {
        loop {
            self.feed()?;
            self.listen()?;
            // Before its end is asked for: what it has read is gone with it.
            self.keep_pace(stop);
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
        let Some(leisure) = &self.leisure else { return true };
        if self.asked.elapsed() < WANTED_TICK {
            return true;
        }
        self.asked = monotonic();
        (leisure.is_wanted)()
    }

    /// Stops the process for as long as it has read too much for.
    fn keep_pace(&mut self, stop: &StopSignal) {
        let (Some(leisure), Some(read)) = (&mut self.leisure, bytes_read(self.pid)) else { return };
        let mut rest = leisure.pace.note(read, monotonic());
        if rest <= LOOK {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::STOP);
        // In pieces: a stop, or a client that goes away, ends the rest.
        while !rest.is_zero() && !stop.is_raised() && (leisure.is_wanted)() {
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
        let tick = match &self.leisure {
            Some(leisure) if leisure.pace.is_bounded() => LOOK,
            _ if self.pidfd.is_none() => REAP_TICK,
            Some(_) => WANTED_TICK.min(blocked::TICK),
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
fn bytes_moved(pid: Pid) -> Option<u64> {
    let counters = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    let field = |name: &str| counters.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(field("rchar:")?.wrapping_add(field("wchar:")?))
}

/// Ends a process with all that it started (ssh, the local receiver), politely first.
fn end_group(child: &mut Child) -> io::Result<()> {
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

fn of_status(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

fn unblock(fd: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, list: &[u8], stop: &StopSignal) -> Ended {
        let args = [OsString::from("-c"), OsString::from(script)];
        run(
            &Program {
                path: "sh".into(),
                owner: "/state".into(),
                stall_limit: STALL_LIMIT,
                places: None,
                hangs: Arc::default(),
                under_way: Arc::default(),
            },
            Path::new("/"),
            &args,
            list,
            Some(Capture::new(1 << 20, 0)),
            Priority::Usual,
            stop,
        )
        .unwrap()
    }

    #[test]
    fn a_long_list_and_long_output_do_not_block_each_other() {
        let stop = StopSignal::new().unwrap();
        let list = vec![b'x'; 900_000];
        let ended = shell("cat; cat /dev/zero | head -c 200000 >&2; exit 7", &list, &stop);
        assert_eq!(ended.end, End::Exit(7));
        assert_eq!(ended.stdout.bytes().len(), list.len());
        assert_eq!(ended.stderr.bytes().len(), 200_000);
    }

    #[test]
    fn an_unread_list_is_no_error() {
        let stop = StopSignal::new().unwrap();
        assert_eq!(shell("exit 5", &[b'x'; 300_000], &stop).end, End::Exit(5));
        assert_eq!(shell("kill -9 $$", b"", &stop).end, End::Signal(9));
    }

    #[test]
    fn the_stop_signal_ends_the_whole_group() {
        let stop = StopSignal::new().unwrap();
        let raise = stop.clone();
        let raiser = std::thread::spawn(move || raise.raise());
        let begun = monotonic();
        assert_eq!(shell("sleep 60 & sleep 60; wait", b"", &stop).end, End::Stopped);
        assert!(monotonic().duration_since(begun) < Duration::from_secs(30));
        raiser.join().unwrap();
    }

    /// A local rsync's receiver went on writing beside the run that repeated it.
    #[test]
    fn what_a_killed_leader_has_started_is_ended() {
        let stop = StopSignal::new().unwrap();
        let ended = shell("sleep 60 & echo $!; kill -9 $$", b"", &stop);
        assert_eq!(ended.end, End::Signal(9));
        let said = ended.stdout.bytes();
        let pid = std::str::from_utf8(&said).unwrap().trim();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[test]
    fn the_environment_is_scrubbed() {
        let stop = StopSignal::new().unwrap();
        let ended = shell("printf %s \"[${RSYNC_PASSWORD-unset}] $LC_ALL $SYNCQ_STATE_DIR\"", b"", &stop);
        assert_eq!(ended.stdout.bytes(), b"[] C /state");
    }
}
