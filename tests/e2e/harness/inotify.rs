//! The kernel's inotify limits, changed for one daemon.
//!
//! `max_queued_events` exists once per machine, and holds for descriptors that are opened while it is set. So it is changed
//! only for the moment of a start. `max_inotify_watches` exists once per user namespace: a daemon in its own namespace has its
//! own limit.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

/// The directory of the limits.
pub const SYSCTL: &str = "/proc/sys/fs/inotify";

/// The file and the text that undo the current change.
static CHANGED: Mutex<Option<(PathBuf, String)>> = Mutex::new(None);

/// Keeps `max_queued_events` at another value until dropped. Only one such value exists at a time on the whole machine.
#[derive(Debug)]
pub struct EventQueueLimit {
    _alone: File,
}

impl EventQueueLimit {
    /// `sysctl` is the directory of the limits, or another mount of that directory. `None` if the limit may not be written.
    pub fn set(sysctl: &Path, events: u32) -> Option<Self> {
        let alone = File::create(std::env::temp_dir().join("syncq-e2e-inotify.lock")).ok()?;
        flock(&alone, FlockOperation::LockExclusive).ok()?;
        let file = sysctl.join("max_queued_events");
        let before = fs::read_to_string(&file).ok()?;
        *CHANGED.lock().unwrap_or_else(PoisonError::into_inner) = Some((file.clone(), before));
        let limit = Self { _alone: alone };
        fs::write(&file, events.to_string()).is_ok().then_some(limit)
    }
}

impl Drop for EventQueueLimit {
    fn drop(&mut self) {
        put_back();
    }
}

/// Undoes the current change, if there is one. For handlers of signals.
pub fn put_back() {
    let changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((file, before)) = changed
        && let Err(error) = fs::write(&file, &before)
    {
        eprintln!("cannot write {} back to {}: {error}", before.trim(), file.display());
    }
}

/// A wrapper for daemons of root, which would otherwise raise the limits at their start. `None` where that is not possible.
pub fn without_raising() -> Option<Vec<OsString>> {
    let script = format!("mount --bind -o ro {SYSCTL} {SYSCTL} && exec \"$@\"");
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    works(&words, &[]).then(|| words.map(OsString::from).to_vec())
}

/// A wrapper that gives a daemon of an ordinary user a limit of its own. `None` where that is not possible.
pub fn with_limit(name: &str, value: u32) -> Option<Vec<OsString>> {
    let script = format!("echo {value} > /proc/sys/user/{name} && exec \"$@\"");
    let words = ["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"];
    let user: &[&str] =
        if super::is_root() { &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] } else { &[] };
    works(&words, user).then(|| words.map(OsString::from).to_vec())
}

fn works(words: &[&str], user: &[&str]) -> bool {
    let mut all = user.iter().chain(words).chain(&["true"]);
    let Some(program) = all.next() else { return false };
    Command::new(program).args(all).output().is_ok_and(|output| output.status.success())
}
