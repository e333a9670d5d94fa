//! Runs one rsync: starts it with its pipes, its environment and its priority, and hands it over to `supervision`.
//!
//! Deliberately absent: what the words and the exit code mean (`outcome`).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpriority_process, kill_process_group, pidfd_open, setpriority_pgrp};

use super::blocked::Hangs;
use super::capture::Capture;
use super::ended::{Cut, End, Ended};
use super::environment;
use super::installed::RSYNC;
use super::orphans::end_rest_of_group;
use super::program::{OWNER, Program};
use super::stop::StopSignal;
use super::supervision::{Background, Each, REAP_TICK, Supervision, drain, end_group, of_status, unblock};
use super::under_way::UnderWay;
use crate::clock::monotonic;
use crate::model::Lane;

/// An rsync that has read and written nothing for this long hangs. The time is long, since a peer may be busy for many
/// minutes without a word: deleting a huge tree, or reading a huge file to compare it. rsync's own `--timeout` is the finer
/// tool.
pub const STALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// A comparison may wait. An I/O scheduler with priorities follows the niceness.
const COMPARISON_NICENESS: i32 = 10;
/// A long run goes on beside a machine's other work as well as it can, only behind runs that are quickly done.
const LONG_RUN_NICENESS: i32 = 5;

/// Who goes first when the processor is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The same as this process.
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

/// Starts `program args` in `root`, feeds it `list` and waits for its end. `stdout` decides which of its output is kept.
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
        started.run_to_end(list, stdout, program.stall_limit, stop, None)
    };
    let Some(mut kept) = stdout else { return start(None) };
    let mut keep = |bytes: &[u8]| {
        kept.push(bytes);
        Ok(())
    };
    let ended = start(Some(&mut keep))?;
    Ok(Ended { stdout: kept, ..ended })
}

/// Like [`run`], for a comparison: hands the output to `each` piece by piece.
pub fn run_in_background(
    program: &Program,
    root: &Path,
    args: &[OsString],
    list: &[u8],
    each: &mut Each<'_>,
    stop: &StopSignal,
    background: Background<'_>,
) -> io::Result<Ended> {
    let mut started = Started::new(program, root, args, true)?;
    started.yield_to_others(Priority::Comparison);
    started.run_to_end(list, Some(each), program.stall_limit, stop, Some(background))
}

/// A process that waits for its list. Dropping this value without a list kills the process.
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

    /// The directory in which the process works, as the kernel knows it: still the right one if its name now leads
    /// elsewhere.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/cwd", self.child.id()))
    }

    /// The end and the output of the process, if it has ended.
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

    /// Gives the process its list and waits for its end, like [`run`].
    pub fn hand_over(
        mut self,
        list: &[u8],
        stdout: Option<Capture>,
        stall_limit: Duration,
        stop: &StopSignal,
    ) -> io::Result<Ended> {
        let Some(mut kept) = stdout else { return self.run_to_end(list, None, stall_limit, stop, None) };
        let mut keep = |bytes: &[u8]| {
            kept.push(bytes);
            Ok(())
        };
        let ended = self.run_to_end(list, Some(&mut keep), stall_limit, stop, None)?;
        Ok(Ended { stdout: kept, ..ended })
    }

    /// Gives the process an empty list, so that it ends by itself. Does not wait for the end.
    pub fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ends the process without a list. Takes a moment; a process that has not ended after `patience` is killed.
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

    /// Lowers the priority of the process below that of this one. If that fails, the run goes on with the usual priority.
    fn yield_to_others(&self, priority: Priority) {
        let niceness = match priority {
            Priority::Usual => return,
            Priority::Long => LONG_RUN_NICENESS,
            Priority::Comparison => COMPARISON_NICENESS,
        };
        let niceness = getpriority_process(None).map_or(niceness, |ours| ours.max(niceness));
        let _ = setpriority_pgrp(Some(Pid::from_child(&self.child)), niceness);
    }

    fn run_to_end(
        &mut self,
        list: &[u8],
        stdout: Option<&mut Each<'_>>,
        stall_limit: Duration,
        stop: &StopSignal,
        background: Option<Background<'_>>,
    ) -> io::Result<Ended> {
        self.has_list = true;
        let child = &mut self.child;
        let _attended = stop.attend(Pid::from_child(child));
        let mut ignored = |_: &[u8]| Ok(());
        let each = stdout.unwrap_or(&mut ignored);
        let (hangs, under_way) = (&*self.hangs, &*self.under_way);
        let watch = Supervision::new(child, list, each, background, stall_limit, hangs, under_way);
        let ended = watch.and_then(|mut watch| watch.wait(child, stop));
        hangs.note(Pid::from_child(child), None);
        under_way.forget(Pid::from_child(child));
        match &ended {
            Err(_) => end_group(child)?,
            // Other processes of the group may outlive their leader. When rsync ends with these codes, all of them have
            // agreed to end.
            Ok(Ended { end: End::Exit(0 | 23 | 24 | 25), .. }) => {}
            Ok(Ended { end: End::Exit(_) | End::Signal(_), .. }) => {
                end_rest_of_group(&self.owner, Pid::from_child(child));
            }
            Ok(_) => {}
        }
        ended
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.has_list && matches!(self.child.try_wait(), Ok(None)) {
            // The process has no list, so there is no work that a politer signal would let it finish.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// A pipe for a process's output, which the process can read from as well. So the process does not fail for want of a
/// reader when this one is killed, in the middle of its data and without a trace. The next daemon finds the process, and
/// its connection.
fn words() -> io::Result<(OwnedFd, Stdio)> {
    let (reader, writer) = io::pipe()?;
    let both = OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    Ok((reader.into(), both.map_or_else(|_| writer.into(), Stdio::from)))
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

    /// The receiver of a local rsync went on writing beside the run that repeated its work.
    #[test]
    fn what_a_leader_has_started_is_ended_when_that_was_killed_or_lost_a_sibling() {
        let stop = StopSignal::new().unwrap();
        for (end, meant) in [("kill -9 $$", End::Signal(9)), ("exit 16", End::Exit(16))] {
            let ended = shell(&format!("sleep 60 >/dev/null 2>&1 & echo $!; {end}"), b"", &stop);
            assert_eq!(ended.end, meant);
            let said = ended.stdout.bytes();
            let pid = std::str::from_utf8(&said).unwrap().trim();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        }
    }

    #[test]
    fn the_environment_is_scrubbed() {
        let stop = StopSignal::new().unwrap();
        let ended = shell("printf %s \"[${RSYNC_PASSWORD-unset}] $LC_ALL $SYNCQ_STATE_DIR\"", b"", &stop);
        assert_eq!(ended.stdout.bytes(), b"[] C /state");
    }
}
