//! The kernel's inotify limits: reads them, and raises them where that is needed and allowed.
//!
//! Only ever upward, only as root, only when the tree does not fit: sersync overwrote them at every start, lowering
//! what an administrator had set.

use std::io;
use std::path::{Path, PathBuf};

/// What the kernel allows one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InotifyLimits {
    pub watches: u64,
    pub queued_events: u64,
    pub instances: u64,
}

/// Room left above what is needed, so that a growing tree does not hit the limit the next day.
const HEADROOM: u64 = 2;

/// The event queue that a busy tree wants: sersync's value. Unread events cost kernel memory, unused room none.
pub const QUEUED_EVENTS: u64 = 327_679;

/// The sysctl files of inotify.
#[derive(Debug, Clone)]
pub struct InotifySysctl {
    dir: PathBuf,
}

impl Default for InotifySysctl {
    fn default() -> Self {
        Self { dir: PathBuf::from("/proc/sys/fs/inotify") }
    }
}

impl InotifySysctl {
    pub fn read(&self) -> io::Result<InotifyLimits> {
        Ok(InotifyLimits {
            watches: self.value("max_user_watches")?,
            queued_events: self.value("max_queued_events")?,
            instances: self.value("max_user_instances")?,
        })
    }

    /// Whether this process may change the limits. In a container the files may be read-only even to root.
    pub fn may_write(&self) -> bool {
        use rustix::fs::{Access, AtFlags, CWD, accessat};
        accessat(CWD, self.dir.join("max_user_watches"), Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    /// Makes room for `watches_needed` watches, and for a queue of [`QUEUED_EVENTS`], if this process is root.
    /// Returns the limits that hold then. The queue's size counts for descriptors opened afterwards.
    pub fn ensure(&self, watches_needed: u64) -> io::Result<InotifyLimits> {
        self.ensure_as(watches_needed, rustix::process::geteuid().is_root())
    }

    fn ensure_as(&self, watches_needed: u64, is_root: bool) -> io::Result<InotifyLimits> {
        let limits = self.read()?;
        let wanted = [
            ("max_user_watches", limits.watches, watches_needed, watches_needed.saturating_mul(HEADROOM)),
            ("max_queued_events", limits.queued_events, QUEUED_EVENTS, QUEUED_EVENTS),
        ];
        for (name, is, needed, raised) in wanted {
            if is >= needed {
                continue;
            }
            if !is_root {
                log::debug!(limit = name, is, needed; "only root may raise it");
                continue;
            }
            // In a container the file may be read-only even to root.
            match std::fs::write(self.dir.join(name), raised.to_string()) {
                Ok(()) => log::info!(limit = name, from = is, to = raised; "raised an inotify limit"),
                Err(error) => log::warn!(limit = name, is, needed, error:%; "cannot raise an inotify limit"),
            }
        }
        self.read()
    }

    fn value(&self, name: &str) -> io::Result<u64> {
        read_number(&self.dir.join(name))
    }
}

/// Raises the limit of watches, all of which are in use.
pub fn make_room() {
    let sysctl = InotifySysctl::default();
    if let Err(failure) = sysctl.read().and_then(|limits| sysctl.ensure(limits.watches.saturating_add(1))) {
        log::warn!("cannot read the inotify limits: {failure}");
    }
}

fn read_number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{}: no number", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctl(watches: u64, events: u64) -> (tempfile::TempDir, InotifySysctl) {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, value) in [("max_user_watches", watches), ("max_queued_events", events), ("max_user_instances", 128)]
        {
            std::fs::write(dir.path().join(name), format!("{value}\n")).expect("a file");
        }
        let sysctl = InotifySysctl { dir: dir.path().to_owned() };
        (dir, sysctl)
    }

    #[test]
    fn limits_only_rise_and_only_for_root() {
        for (is, needed, is_root, expected) in [
            ((8_192, 16_384), 10_000, true, (20_000, QUEUED_EVENTS)),
            ((8_192, 16_384), 10_000, false, (8_192, 16_384)),
            ((8_192, 500_000), 8_192, true, (8_192, 500_000)),
            ((50_000_000, 16_384), 10, true, (50_000_000, QUEUED_EVENTS)),
        ] {
            let (_dir, sysctl) = sysctl(is.0, is.1);
            let limits = sysctl.ensure_as(needed, is_root).expect("limits");
            assert_eq!((limits.watches, limits.queued_events, limits.instances), (expected.0, expected.1, 128));
        }
    }
}
