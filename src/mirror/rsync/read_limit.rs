//! How fast a comparison may read.
//!
//! rsync's `--bwlimit` counts bytes on the wire, and a comparison reads nearly everything and sends nearly nothing: 400 MB
//! are compared in the same 0.2 s with `--bwlimit=2000` and without. So rsync is stopped (SIGSTOP) when it has read more
//! than the limit allows, and goes on when the time for those bytes has passed. The limit is on the reading of processes on
//! this machine: the source, and a target on this machine. A remote target reads the same files, hence on average no
//! faster, but it reads a directory's files in one go when the source has told all of them.

use std::time::{Duration, Instant};

use rustix::process::Pid;

/// How much idle time may be made up for by reading faster.
const CREDIT: Duration = Duration::from_millis(500);

/// How often the kernel's count of bytes read is looked at.
pub const LOOK: Duration = Duration::from_millis(10);

/// How many bytes a comparison has read, over all its runs, and how many it may.
#[derive(Debug)]
pub struct ReadLimit {
    bytes_per_s: Option<u64>,
    /// The moment at which the bytes read so far would be read at the allowed rate.
    paid_until: Option<Instant>,
    /// Bytes read by runs that have ended.
    before: u64,
    /// Bytes read by the run under way.
    now: u64,
}

impl ReadLimit {
    /// A limit in bytes per second. `None`: bytes are only counted.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s: bytes_per_s.map(|rate| rate.max(1)), paid_until: None, before: 0, now: 0 }
    }

    pub(in crate::mirror) fn is_bounded(&self) -> bool {
        self.bytes_per_s.is_some()
    }

    /// Bytes read so far, including those that are not compared (rsync itself, lists).
    pub fn read(&self) -> u64 {
        self.before.saturating_add(self.now)
    }

    /// Begins a new run, whose count starts at zero.
    pub fn next_run(&mut self) {
        self.before = self.read();
        self.now = 0;
    }

    /// Notes that the run has read `read` bytes since it began, and returns how long it has to rest.
    pub fn note(&mut self, read: u64, at: Instant) -> Duration {
        let more = read.saturating_sub(self.now);
        self.now = self.now.max(read);
        let Some(rate) = self.bytes_per_s else { return Duration::ZERO };
        let earliest = at.checked_sub(CREDIT).unwrap_or(at);
        let from = self.paid_until.map_or(at, |until| until.max(earliest));
        let until = from + Duration::from_secs_f64(more as f64 / rate as f64);
        self.paid_until = Some(until);
        until.saturating_duration_since(at)
    }
}

/// The bytes that a process and its children have read since they began, from files and from each other. `None` if the
/// kernel does not tell: of a process that has ended Linux 6.18 tells only root.
pub fn bytes_read(pid: Pid) -> Option<u64> {
    family(pid.as_raw_nonzero().get(), &|pid| {
        let counters = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        counters.lines().find_map(|line| line.strip_prefix("rchar:")?.trim().parse().ok())
    })
}

/// A measure of what a process and its children have done since they began: bytes moved plus processor ticks. Only useful
/// for comparison with an earlier value. `None` if the kernel does not tell.
pub fn moved(pid: Pid) -> Option<u64> {
    family(pid.as_raw_nonzero().get(), &|pid| {
        let counters = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        let bytes = |name: &str| counters.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before these fields may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let worked = ticks()?.saturating_add(ticks()?);
        Some(bytes("rchar:")?.saturating_add(bytes("wchar:")?).saturating_add(worked))
    })
}

fn family(pid: i32, read: &dyn Fn(i32) -> Option<u64>) -> Option<u64> {
    let own = read(pid)?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_ascii_whitespace().filter_map(|child| family(child.parse().ok()?, read));
    Some(below.fold(own, u64::saturating_add))
}

/// Whether the kernel tells how much a process of this user has read.
pub fn can_count() -> bool {
    bytes_read(rustix::process::getpid()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    #[test]
    fn what_is_read_has_to_be_paid_off() {
        let begun = monotonic();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut limit = ReadLimit::new(Some(1_000));
        assert_eq!(limit.note(0, at(0)), Duration::ZERO);
        assert_eq!(limit.note(2_000, at(100)), Duration::from_millis(1_900));
        assert_eq!(limit.note(2_000, at(2_000)), Duration::ZERO);
        // Ten seconds of rest do not allow ten seconds' worth to be read at once.
        assert_eq!(limit.note(4_000, at(12_000)), Duration::from_millis(1_500));
        limit.next_run();
        assert_eq!(limit.note(500, at(13_500)), Duration::from_millis(500));
        assert_eq!(limit.read(), 4_500);
        // A child that has ended may be missing from the count for a moment.
        assert_eq!(limit.note(400, at(14_000)), Duration::ZERO);
        assert_eq!(limit.read(), 4_500);
    }

    #[test]
    fn without_a_bound_it_only_counts() {
        let mut limit = ReadLimit::new(None);
        assert_eq!(limit.note(u64::MAX, monotonic()), Duration::ZERO);
        assert_eq!(limit.read(), u64::MAX);
        assert!(can_count());
    }
}
