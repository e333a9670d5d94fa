//! The rsync program: where it is, and which of the processes that run it are ours.
//!
//! Its absence is told once at the start and not by every run. Each run carries its owner, the state directory, in its
//! environment. A daemon that was killed leaves its rsyncs running, and one of those may still write an older state
//! over what the next daemon sends; so that one ends them first.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::confine::Places;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What is run, and for whom.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: OsString,
    pub owner: OsString,
    /// A process that has read and written nothing for so long hangs.
    pub stall_limit: Duration,
    /// Where its runs have their business, if they are rsync's.
    pub places: Option<Arc<Places>>,
}

/// The variable that names the owner of a run.
pub(super) const OWNER: &str = "SYNCQ_STATE_DIR";

/// How long killed processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// There is no rsync.
#[derive(Debug, thiserror::Error)]
#[error("there is no rsync in PATH ({path})")]
pub struct NoRsync {
    path: String,
}

impl NoRsync {
    pub fn hint(&self) -> &'static str {
        "install it: apt-get install rsync"
    }
}

/// The rsync that runs will use.
pub fn find_rsync() -> Result<PathBuf, NoRsync> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("rsync"))
        .find(|file| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
        .ok_or_else(|| NoRsync { path: path.display().to_string() })
}

/// Ends what an earlier daemon of the same owner has left running, and waits until it is gone. Returns how many
/// processes that were. Needs no more rights than those processes have.
pub fn end_leftovers(owner: &Path) -> usize {
    end_marked(owner.as_os_str(), &|_| true)
}

/// Ends those processes of an owner that have the word `argument` in their command line.
pub(super) fn end_with_argument(owner: &OsStr, argument: &OsStr) {
    let names = |process: &Path| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|&b| b == 0).any(|word| word == argument.as_bytes())
    };
    end_marked(owner, &names);
}

fn end_marked(owner: &OsStr, concerns: &dyn Fn(&Path) -> bool) -> usize {
    let mark = [OWNER.as_bytes(), b"=", owner.as_bytes()].concat();
    let leftovers: Vec<_> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| leftover(&entry.ok()?.file_name(), &mark, concerns))
        .collect();
    for process in &leftovers {
        // One that has just ended is no loss.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    let begun = crate::clock::monotonic();
    for process in &leftovers {
        let left = GONE_WITHIN.saturating_sub(begun.elapsed());
        let mut gone = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut gone, rustix::event::Timespec::try_from(left).ok().as_ref());
    }
    leftovers.len()
}

/// The process of that name in `/proc`, if its environment has the mark. It is held before its environment is read, so
/// that it cannot be another one by the time it is signalled.
fn leftover(name: &OsStr, mark: &[u8], concerns: &dyn Fn(&Path) -> bool) -> Option<rustix::fd::OwnedFd> {
    let pid = Pid::from_raw(name.to_str()?.parse().ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let dir = Path::new("/proc").join(name);
    let environment = std::fs::read(dir.join("environ")).ok()?;
    let is_ours = environment.split(|&b| b == 0).any(|variable| variable == mark);
    (is_ours && concerns(&dir)).then_some(process)
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
        assert_eq!(end_leftovers(&owners.path().join("a")), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
