//! The kernel's inotify limits: reads them, and raises them where that is needed, allowed and of use.
//!
//! The limits are the whole machine's. So they are only raised, only as root, only when something was refused for want of
//! room, and only as far as this machine's memory bears ([`Ceilings`]). After a raise the kernel is tried again. If it
//! refuses as before, another limit was met (that of a user namespace, say). Then the former value is put back, and there
//! is no other try while that value stands. sersync overwrote the limits at every start, and so lowered what an
//! administrator had set.

use std::io;
use std::path::{Path, PathBuf};

use inotify::{Inotify, WatchMask};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::LOG_TARGET;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How much the kernel allows one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InotifyLimits {
    pub watches: u64,
    pub queued_events: u64,
    pub instances: u64,
}

/// The length of the event queue that a busy tree needs: sersync's value. Unread events cost kernel memory, unused room
/// none.
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

    /// Whether this process may change the limits. In a container the files may be read-only even for root.
    pub fn may_write(&self) -> bool {
        use rustix::fs::{Access, AtFlags, CWD, accessat};
        accessat(CWD, self.dir.join("max_user_watches"), Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    /// Makes room for a queue of [`QUEUED_EVENTS`], as far as the memory bears it. Takes effect for descriptors opened
    /// afterwards. The error: the present limit cannot be read.
    pub fn widen_queue(&self) -> io::Result<()> {
        self.widen_queue_as(is_root(), Ceilings::of_this_machine().queued_events)
    }

    fn widen_queue_as(&self, is_root: bool, ceiling: u64) -> io::Result<()> {
        let (is, to) = (self.value(QUEUE)?, QUEUED_EVENTS.min(ceiling));
        if is >= to {
            return Ok(());
        }
        if !is_root {
            log::debug!(target: LOG_TARGET, limit = QUEUE, is, needed = to; "only root may raise it");
            return Ok(());
        }
        // In a container the file may be read-only even for root.
        match self.set(QUEUE, to) {
            Ok(()) => log::info!(target: LOG_TARGET, limit = QUEUE, from = is, to; "raised an inotify limit"),
            Err(error) => {
                log::warn!(target: LOG_TARGET, limit = QUEUE, is, needed = to, error:%; "cannot raise an inotify limit")
            }
        }
        Ok(())
    }

    fn set(&self, name: &str, value: u64) -> io::Result<()> {
        std::fs::write(self.dir.join(name), value.to_string())
    }

    fn value(&self, name: &str) -> io::Result<u64> {
        read_number(&self.dir.join(name))
    }
}

const QUEUE: &str = "max_queued_events";
const WATCHES: &str = "max_user_watches";
const INSTANCES: &str = "max_user_instances";

/// How far this machine's limits are raised. At these values each limit allows at most an eighth of the memory to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    watches: u64,
    instances: u64,
    queued_events: u64,
}

impl Ceilings {
    const SHARE: u64 = 8;
    /// The memory of a watch, with the inode that it keeps.
    const WATCH_BYTES: u64 = 1_080;
    /// The memory of an instance, with some events in its queue.
    const INSTANCE_BYTES: u64 = 64 << 10;
    /// The memory of an event, with its name.
    const EVENT_BYTES: u64 = 320;

    fn of(memory_bytes: u64) -> Self {
        let share = memory_bytes / Self::SHARE;
        Self {
            watches: share / Self::WATCH_BYTES,
            instances: share / Self::INSTANCE_BYTES,
            queued_events: share / Self::EVENT_BYTES,
        }
    }

    /// The ceilings of this machine. They are zero, so nothing is raised, if the size of its memory cannot be read.
    fn of_this_machine() -> Self {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
        let kib: u64 = total.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0);
        Self::of(kib.saturating_mul(1_024))
    }
}

/// The state of raising one limit after the kernel refused something. There is one for each limit, so that roots which meet
/// the same limit at the same time raise it once.
struct Remedy {
    limit: &'static str,
    /// The value at which a raise was found to be of no use, or would exceed the ceiling.
    stands_at: Mutex<Option<u64>>,
}

static FOR_WATCHES: Remedy = Remedy { limit: WATCHES, stands_at: Mutex::new(None) };
static FOR_INSTANCES: Remedy = Remedy { limit: INSTANCES, stands_at: Mutex::new(None) };

/// Raises the limit of watches after a watch was refused. Returns whether there is room now.
pub fn make_watches() -> bool {
    let ceiling = Ceilings::of_this_machine().watches;
    FOR_WATCHES.apply(&InotifySysctl::default(), is_root(), ceiling, &has_watches)
}

/// Raises the limit of instances after an instance was refused. Returns whether there is room now. An instance refused for
/// want of descriptors has met another limit.
pub fn make_instances() -> bool {
    let ceiling = Ceilings::of_this_machine().instances;
    FOR_INSTANCES.apply(&InotifySysctl::default(), is_root(), ceiling, &has_instances)
}

impl Remedy {
    /// Raises the limit if that is allowed. `has_room` tries whether the kernel would grant one more; `None`: it cannot be
    /// tried.
    fn apply(&self, sysctl: &InotifySysctl, is_root: bool, ceiling: u64, has_room: &dyn Fn() -> Option<bool>) -> bool {
        let mut stands_at = self.stands_at.lock();
        if has_room() == Some(true) {
            return true;
        }
        let limit = self.limit;
        let is = match sysctl.value(limit) {
            Ok(is) => is,
            Err(failure) => {
                log::warn!(target: LOG_TARGET, "cannot read the inotify limits: {failure}");
                return false;
            }
        };
        if !is_root || *stands_at == Some(is) {
            return false;
        }
        *stands_at = Some(is);
        let to = is.saturating_mul(2).min(ceiling);
        if to <= is {
            log::warn!(target: LOG_TARGET, "fs.inotify.{limit} is {is}, and syncq raises it no further by itself: what it allows could take an \
                 eighth of the memory; hint: sysctl -w fs.inotify.{limit}={}",
                is.saturating_mul(2)
            );
            return false;
        }
        // In a container the file may be read-only even for root.
        if let Err(error) = sysctl.set(limit, to) {
            log::warn!(target: LOG_TARGET, limit, is, needed = to, error:%; "cannot raise an inotify limit");
            return false;
        }
        match has_room() {
            Some(true) => {
                *stands_at = None;
                log::info!(target: LOG_TARGET, limit, from = is, to; "raised an inotify limit");
                true
            }
            // Nobody knows whether the raise was of use, so the limit is not raised again from there.
            None => {
                *stands_at = Some(to);
                log::info!(target: LOG_TARGET, limit, from = is, to; "raised an inotify limit");
                true
            }
            Some(false) => {
                log::warn!(target: LOG_TARGET, "raising fs.inotify.{limit} from {is} to {to} was of no use and is taken back: another limit is met, as \
                     that of a user namespace (/proc/sys/user/{}) or of a container",
                    limit.replace("user_", "inotify_")
                );
                // Another process may have set the limit since.
                if sysctl.value(limit).is_ok_and(|now| now == to)
                    && let Err(error) = sysctl.set(limit, is)
                {
                    log::warn!(target: LOG_TARGET, limit, error:%; "cannot put an inotify limit back");
                }
                false
            }
        }
    }
}

fn has_watches() -> Option<bool> {
    let inotify = Inotify::init().ok()?;
    match inotify.watches().add("/", WatchMask::DELETE_SELF) {
        Ok(_) => Some(true),
        Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => Some(false),
        Err(_) => None,
    }
}

fn has_instances() -> Option<bool> {
    match Inotify::init() {
        Ok(_) => Some(true),
        Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => Some(false),
        Err(_) => None,
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How many descriptors are asked for: each root needs some, and each rsync needs pipes.
const OPEN_FILES: u64 = 65_536;

/// Raises this process's limit of descriptors as far as it may, up to `OPEN_FILES`. Most shells start programs with a
/// limit of 1,024. No more is asked for, since some programs close each descriptor that they might have, one by one.
pub fn widen_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted)
        && let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        log::debug!(target: LOG_TARGET, "cannot raise the limit of open files: {errno}");
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

    fn machine(watches: u64) -> (tempfile::TempDir, InotifySysctl, Remedy) {
        let (dir, sysctl) = sysctl(watches, 16_384);
        (dir, sysctl, Remedy { limit: WATCHES, stands_at: Mutex::new(None) })
    }

    #[test]
    fn limits_only_rise_and_only_for_root() {
        for (is, is_root, ceiling, expected) in [
            (16_384, true, u64::MAX, QUEUED_EVENTS),
            (16_384, true, 100_000, 100_000),
            (16_384, true, 10_000, 16_384),
            (16_384, false, u64::MAX, 16_384),
            (500_000, true, u64::MAX, 500_000),
        ] {
            let (_dir, sysctl) = sysctl(8_192, is);
            sysctl.widen_queue_as(is_root, ceiling).expect("limits");
            assert_eq!(sysctl.read().expect("limits").queued_events, expected);
        }
        for (is, is_root, ceiling, expected) in [
            (8_192, true, u64::MAX, 16_384),
            (8_192, true, 10_000, 10_000),
            (8_192, true, 8_192, 8_192),
            (8_192, true, 100, 8_192),
            (8_192, false, u64::MAX, 8_192),
            (u64::MAX / 2 + 1, true, u64::MAX, u64::MAX),
        ] {
            let (_dir, sysctl, remedy) = machine(is);
            let has_room = || Some(sysctl.value(WATCHES).is_ok_and(|now| now > is));
            assert_eq!(remedy.apply(&sysctl, is_root, ceiling, &has_room), expected > is, "{is} {ceiling}");
            assert_eq!(sysctl.value(WATCHES).expect("a limit"), expected);
        }
    }

    /// The kernel met another limit, and each directory that could not be watched doubled this one.
    #[test]
    fn a_raise_that_is_of_no_use_is_taken_back_and_not_tried_again() {
        let (_dir, sysctl, remedy) = machine(8_192);
        let highest = std::cell::Cell::new(0);
        let refused = || {
            highest.set(highest.get().max(sysctl.value(WATCHES).expect("a limit")));
            Some(false)
        };
        for _ in 0..30 {
            assert!(!remedy.apply(&sysctl, true, u64::MAX, &refused));
        }
        assert_eq!((highest.get(), sysctl.value(WATCHES).expect("a limit")), (16_384, 8_192));
        // An administrator has raised the limit, so a raise is tried again.
        sysctl.set(WATCHES, 10_000).expect("a limit");
        let now_helps = || Some(sysctl.value(WATCHES).is_ok_and(|now| now >= 20_000));
        assert!(remedy.apply(&sysctl, true, u64::MAX, &now_helps));
    }

    #[test]
    fn many_that_are_refused_at_once_raise_a_limit_once_for_as_long_as_there_is_room() {
        let (_dir, sysctl, remedy) = machine(8_192);
        let mut needed = 10_000;
        for _ in 0..30 {
            assert!(remedy.apply(&sysctl, true, 1 << 40, &|| Some(sysctl.value(WATCHES).expect("a limit") > needed)));
        }
        assert_eq!(sysctl.value(WATCHES).expect("a limit"), 16_384);
        needed = 20_000;
        assert!(remedy.apply(&sysctl, true, 1 << 40, &|| Some(sysctl.value(WATCHES).expect("a limit") > needed)));
        assert_eq!(sysctl.value(WATCHES).expect("a limit"), 32_768);
        // Whether a raise helps cannot be tried here: it is made once, not thirty times.
        let (_dir, sysctl, remedy) = machine(8_192);
        for _ in 0..30 {
            remedy.apply(&sysctl, true, u64::MAX, &|| None);
        }
        assert_eq!(sysctl.value(WATCHES).expect("a limit"), 16_384);
    }

    #[test]
    fn the_memory_is_the_ceiling() {
        let of = |gib: u64| Ceilings::of(gib << 30);
        assert_eq!(of(0), Ceilings { watches: 0, instances: 0, queued_events: 0 });
        assert!(of(1).watches > 120_000 && of(1).instances > 1_000 && of(1).queued_events > QUEUED_EVENTS);
        assert!(of(64).watches < 9_000_000);
        assert!(Ceilings::of_this_machine().watches > 0);
    }
}
