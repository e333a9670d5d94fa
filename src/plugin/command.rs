//! The `command` plugin: runs `PREFIX PATH SUFFIX` for each notice.
//!
//! The prefix is split into words as a shell would split it, once, when the configuration is read. The path is one
//! argument, whatever bytes it has; no shell is involved. The environment tells the program what happened. The exit status
//! means nothing, as in sersync, but is logged. A program that runs too long is ended, with all that it has started.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use log::info;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::{Delivery, Failure, Notice, PluginError};
use crate::clock::monotonic;
use crate::config::CommandPlugin;
use crate::filter::Pattern;
use crate::mirror::{Operation, StopSignal};

/// A program that runs longer hangs. The limit is generous, since sersync set none at all.
const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The time between asking a program to end and killing it.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How often a program is asked whether it has ended, on kernels without pidfd (before Linux 5.3), and at its end.
const REAP_TICK: Duration = Duration::from_millis(10);
/// How much of a program's output is logged; the rest is thrown away.
const OUTPUT_BYTES_MAX: usize = 4096;
const OUTPUT_LINES_MAX: usize = 20;

pub(super) struct Command {
    prefix: Vec<OsString>,
    suffix: Vec<OsString>,
    ignore_error: bool,
    includes: Option<Vec<Pattern>>,
    time_limit: Duration,
    stop: StopSignal,
}

impl Command {
    pub(super) fn new(config: &CommandPlugin) -> Result<Self, PluginError> {
        let compile = |expressions: &Vec<String>| {
            expressions.iter().map(|expression| crate::filter::compile(expression, true)).collect::<Result<_, _>>()
        };
        Ok(Self {
            prefix: config.prefix.clone(),
            suffix: config.suffix.clone(),
            ignore_error: config.ignore_error,
            includes: config.includes.as_ref().map(compile).transpose()?,
            time_limit: TIME_LIMIT,
            stop: StopSignal::new()?,
        })
    }

    #[cfg(test)]
    pub(super) fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    fn command(&self, notice: &Notice) -> std::process::Command {
        let mut words = self.prefix.iter().cloned();
        let mut command = std::process::Command::new(words.next().unwrap_or_default());
        let operation = match notice.operation {
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        command
            .args(words)
            .arg(OsString::from_vec(notice.spelled()))
            .args(&self.suffix)
            .env("SYNCQ_OPERATION", operation)
            .env("SYNCQ_KIND", if notice.directory { "directory" } else { "file" })
            .env("SYNCQ_PATH", OsString::from_vec(notice.path.as_bytes().to_vec()))
            .env("SYNCQ_ROOT", &notice.source.path)
            .env("SYNCQ_TARGETS", notice.source.targets.join("\n"))
            // The password is not meant for the program.
            .env_remove("RSYNC_PASSWORD")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    fn run(&self, notice: &Notice) -> Result<(End, Vec<u8>), Failure> {
        let mut command = self.command(notice);
        let output = if self.ignore_error {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            None
        } else {
            let (reader, writer) = io::pipe().map_err(|failure| self.cannot_start(&failure))?;
            let twin = writer.try_clone().map_err(|failure| self.cannot_start(&failure))?;
            command.stdout(writer).stderr(twin);
            Some(reader)
        };
        let mut child = command.spawn().map_err(|failure| self.cannot_start(&failure))?;
        // `command` holds the end of the pipe that the program writes to.
        drop(command);
        let mut output = Output { reader: output, kept: Vec::new() };
        let end = self.wait(&mut child, &mut output).unwrap_or_else(|failure| {
            let _ = end_group(&mut child);
            End::Lost(failure)
        });
        Ok((end, output.kept))
    }

    fn wait(&self, child: &mut Child, output: &mut Output) -> io::Result<End> {
        if let Some(reader) = &output.reader {
            let flags = fcntl_getfl(reader)?;
            fcntl_setfl(reader, flags | OFlags::NONBLOCK)?;
        }
        let begun = monotonic();
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
        loop {
            output.drain()?;
            if let Some(status) = child.try_wait()? {
                // Another process that the program left running may hold the pipe, so the pipe's end is not waited for.
                output.drain()?;
                return Ok(End::Exit(status));
            }
            let left = self.time_limit.saturating_sub(begun.elapsed());
            let end = match (self.stop.is_raised(), left.is_zero()) {
                (true, _) => End::Stopped,
                (_, true) => End::TooLong,
                _ => {
                    self.sleep(pidfd.as_ref(), output, left)?;
                    continue;
                }
            };
            end_group(child)?;
            return Ok(end);
        }
    }

    fn sleep(&self, pidfd: Option<&OwnedFd>, output: &Output, left: Duration) -> io::Result<()> {
        let tick = if pidfd.is_some() { left } else { left.min(REAP_TICK) };
        let mut fds = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        fds.extend(pidfd.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        fds.extend(output.reader.as_ref().map(|reader| PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)));
        let timeout = Timespec::try_from(tick).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    fn cannot_start(&self, failure: &io::Error) -> Failure {
        let program = self.prefix.first().map_or(OsStr::new(""), OsString::as_os_str);
        let reason = format!("cannot start {}: {failure}", program.display());
        if is_lasting(failure) { Failure::Refused(reason) } else { Failure::Unreachable(reason) }
    }
}

/// Whether starting the program for this path will fail again. Other failures may be mended meanwhile: no process, memory
/// or descriptor is left, or the program is missing or just being written.
fn is_lasting(failure: &io::Error) -> bool {
    matches!(
        failure.kind(),
        io::ErrorKind::ArgumentListTooLong | io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput
    )
}

enum End {
    Exit(ExitStatus),
    Stopped,
    TooLong,
    Lost(io::Error),
}

/// The output of a program.
struct Output {
    reader: Option<io::PipeReader>,
    kept: Vec<u8>,
}

impl Output {
    /// Reads the available output without waiting.
    fn drain(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while let Some(reader) = &mut self.reader {
            match reader.read(&mut chunk) {
                Ok(0) => self.reader = None,
                Ok(read) => {
                    let room = OUTPUT_BYTES_MAX.saturating_sub(self.kept.len()).min(read);
                    self.kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
                }
                Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => break,
                Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }
}

/// Ends a program with all that it has started: asks it first and kills it after [`TERM_GRACE`].
fn end_group(child: &mut Child) -> io::Result<()> {
    let group = Pid::from_child(child);
    let asked = monotonic();
    // The group outlives its leader until the leader is reaped, so neither signal can meet a stranger.
    let _ = kill_process_group(group, Signal::TERM);
    while child.try_wait()?.is_none() {
        if asked.elapsed() >= TERM_GRACE {
            let _ = kill_process_group(group, Signal::KILL);
            child.wait()?;
            break;
        }
        std::thread::sleep(REAP_TICK);
    }
    Ok(())
}

impl Delivery for Command {
    fn wants(&self, notice: &Notice) -> bool {
        let Some(includes) = &self.includes else { return true };
        let (spelled, absolute) = (notice.spelled(), notice.absolute().into_os_string().into_vec());
        includes.iter().any(|include| include.is_match(&spelled) || include.is_match(&absolute))
    }

    fn deliver(&self, notice: &Notice) -> Result<(), Failure> {
        if self.stop.is_raised() {
            return Err(Failure::Stopped);
        }
        let (end, output) = self.run(notice)?;
        for line in String::from_utf8_lossy(&output).lines().take(OUTPUT_LINES_MAX) {
            info!("plugin command: {}: {line}", notice.path);
        }
        match end {
            End::Exit(status) if status.success() || self.ignore_error => Ok(()),
            End::Exit(status) => Err(Failure::Refused(format!("the command ended with {status}"))),
            End::Stopped => Err(Failure::Stopped),
            End::TooLong => {
                Err(Failure::Refused(format!("the command ran for {} s and was ended", self.time_limit.as_secs())))
            }
            End::Lost(failure) => Err(Failure::Refused(format!("the command was lost: {failure}"))),
        }
    }

    fn stop(&self) {
        self.stop.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l3_what_may_pass_is_tried_again() {
        use rustix::io::Errno;
        for (errno, lasting) in [
            (Errno::AGAIN, false),
            (Errno::NOMEM, false),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::TXTBSY, false),
            (Errno::NOENT, false),
            (Errno::ACCESS, false),
            (Errno::TOOBIG, true),
            (Errno::NAMETOOLONG, true),
        ] {
            assert_eq!(is_lasting(&errno.into()), lasting, "{errno}");
        }
    }
}
