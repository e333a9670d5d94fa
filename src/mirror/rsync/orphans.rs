//! Ends the processes that a daemon which is no longer there has left running.
//!
//! Each run carries its owner, the state directory, in its environment (`program`). A killed daemon leaves its rsyncs
//! running, and one of them may still write an older state over what the next daemon sends. So the next daemon ends them
//! first, and keeps their connections to learn when the other side has ended too (`lingering`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::lingering::{self, Line};
use super::program::OWNER;

/// How long killed processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Ends the processes that an earlier daemon of the same owner has left running, and waits until they are gone. Returns
/// their number. Needs no more rights than those processes have.
pub fn end_leftovers(owner: &Path) -> usize {
    let leftovers = marked(owner.as_os_str(), &|_| true);
    let lines = lines(&leftovers);
    end(&leftovers);
    for line in lines {
        line.hold(Duration::ZERO);
    }
    leftovers.len()
}

/// Ends those processes of an owner that have `argument` among the words of their command line.
pub(in crate::mirror) fn end_with_argument(owner: &OsStr, argument: &OsStr) {
    let names = |process: &Path| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|&b| b == 0).any(|word| word == argument.as_bytes())
    };
    end(&marked(owner, &names));
}

/// Ends the other processes of a process group whose leader was killed: a local rsync has its receiver in the group.
pub(super) fn end_rest_of_group(owner: &OsStr, leader: Pid) {
    let leader = leader.as_raw_nonzero().to_string();
    let is_in_it = |process: &Path| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // The name in brackets may hold anything. Behind it: state, parent, group.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(2)) == Some(leader.as_str())
    };
    end(&marked(owner, &is_in_it));
}

/// A process and its place in `/proc`. The descriptor ensures that a signal meets this process and no later one of the same
/// number.
struct Marked {
    process: OwnedFd,
    dir: PathBuf,
}

fn marked(owner: &OsStr, concerns: &dyn Fn(&Path) -> bool) -> Vec<Marked> {
    let mark = [OWNER.as_bytes(), b"=", owner.as_bytes()].concat();
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| with_mark(&entry.ok()?.file_name(), &mark, concerns)).collect()
}

/// The process with this number in `/proc`, if its environment has the mark. Its descriptor is opened before its
/// environment is read.
fn with_mark(name: &OsStr, mark: &[u8], concerns: &dyn Fn(&Path) -> bool) -> Option<Marked> {
    let pid = Pid::from_raw(name.to_str()?.parse().ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let dir = Path::new("/proc").join(name);
    let environment = std::fs::read(dir.join("environ")).ok()?;
    let is_ours = environment.split(|&b| b == 0).any(|variable| variable == mark);
    (is_ours && concerns(&dir)).then_some(Marked { process, dir })
}

fn end(processes: &[Marked]) {
    for Marked { process, .. } in processes {
        // A process that has just ended needs no signal.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    let begun = crate::clock::monotonic();
    for Marked { process, .. } in processes {
        let left = GONE_WITHIN.saturating_sub(begun.elapsed());
        let mut gone = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut gone, rustix::event::Timespec::try_from(left).ok().as_ref());
    }
}

/// The connections of those processes that are rsyncs. An rsync may connect through another program (ssh). Then it is only
/// noted where that program's connection leads.
fn lines(processes: &[Marked]) -> Vec<Line> {
    let is_rsync = |process: &&Marked| std::fs::read(process.dir.join("comm")).is_ok_and(|name| name == b"rsync\n");
    let (rsyncs, others): (Vec<&Marked>, Vec<&Marked>) = processes.iter().partition(is_rsync);
    let (mut held, mut has_none) = (Vec::new(), false);
    for Marked { process, dir } in rsyncs {
        match lingering::lines_of(process, dir) {
            Ok(lines) if lines.is_empty() => has_none = true,
            Ok(lines) => held.extend(lines),
            // The process has ended meanwhile, or may not be looked into.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => lingering::note_blind(None),
            Err(_) => {}
        }
    }
    if has_none {
        let lines = others.iter().filter_map(|other| lingering::lines_of(&other.process, &other.dir).ok()).flatten();
        lines.for_each(|line| lingering::note_blind(Some(line.peer())));
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A killed daemon's rsync could finish after the next daemon's, and leave an older file on the target.
    #[test]
    fn only_what_carries_the_owners_mark_is_ended() {
        let owners = tempfile::tempdir().unwrap();
        let sleep =
            |owner: &str| Command::new("sleep").arg("60").env(OWNER, owners.path().join(owner)).spawn().unwrap();
        let (mut ours, mut others) = (sleep("a"), sleep("ab"));
        // The parent goes on a moment before the environment of a new program can be read.
        let can_be_read = |child: &std::process::Child| {
            std::fs::read(format!("/proc/{}/environ", child.id())).is_ok_and(|environment| !environment.is_empty())
                && std::fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| line.starts_with(b"sleep"))
        };
        let begun = crate::clock::monotonic();
        while !(can_be_read(&ours) && can_be_read(&others)) {
            assert!(begun.elapsed() < Duration::from_secs(10), "no sleep was started");
            std::thread::yield_now();
        }
        assert_eq!(end_leftovers(&owners.path().join("a")), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
