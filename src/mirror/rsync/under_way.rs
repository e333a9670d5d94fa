//! How far the runs to a target have come, for a person who looks at a long run: since when the runs last, how much they
//! have sent, and whether they have a connection yet.
//!
//! The kernel counts the bytes that a process writes, and the thread that watches a run notes them here now and then. A run
//! that is over before the first look is never noted. Deliberately absent: how much is left, which rsync itself does not
//! know before its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::process::Pid;

/// The runs to one target at this moment, by the number of their process.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<BTreeMap<i32, Noted>>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    begun: Instant,
    sent_bytes: u64,
    /// When `sent_bytes` has last grown.
    moved: Instant,
    is_connecting: bool,
}

/// All runs to a target together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// The time since the oldest run began.
    pub elapsed: Duration,
    /// The sum over all runs, after compression.
    pub sent_bytes: u64,
    /// For how long none of the runs has sent anything.
    pub still: Duration,
    /// None of the runs has a connection.
    pub is_connecting: bool,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Noted>> {
        self.0.lock()
    }

    /// Notes how far a run has come that began at `begun`.
    pub(crate) fn note(&self, run: Pid, begun: Instant, sent_bytes: u64, is_connecting: bool, now: Instant) {
        let mut runs = self.lock();
        let before = runs.get(&run.as_raw_nonzero().get()).filter(|before| before.sent_bytes == sent_bytes);
        let moved = before.map_or(now, |before| before.moved);
        runs.insert(run.as_raw_nonzero().get(), Noted { begun, sent_bytes, moved, is_connecting });
    }

    pub(crate) fn forget(&self, run: Pid) {
        self.lock().remove(&run.as_raw_nonzero().get());
    }

    /// All noted runs together. `None`: no run takes its time.
    pub fn course(&self, now: Instant) -> Option<Course> {
        let runs = self.lock();
        let since = |moment: Instant| now.saturating_duration_since(moment);
        Some(Course {
            elapsed: runs.values().map(|run| since(run.begun)).max()?,
            sent_bytes: runs.values().map(|run| run.sent_bytes).sum(),
            still: runs.values().map(|run| since(run.moved)).min()?,
            is_connecting: runs.values().all(|run| run.is_connecting),
        })
    }
}

/// The bytes that a process has written since it began. `None` if the kernel does not tell.
pub(super) fn bytes_sent(pid: Pid) -> Option<u64> {
    let counters = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    counters.lines().find_map(|line| line.strip_prefix("wchar:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    /// A first fill was shown as `syncing` for as long as it took, and so was a run to a host that never answered.
    #[test]
    fn runs_to_one_target_are_told_together() {
        let runs = UnderWay::default();
        let begun = monotonic();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (one, two) = (Pid::from_raw(10).expect("a number"), Pid::from_raw(11).expect("a number"));
        assert_eq!(runs.course(begun), None);
        runs.note(one, begun, 0, true, at(1));
        assert!(
            runs.course(at(4)).is_some_and(|course| course.is_connecting && course.still == Duration::from_secs(3))
        );
        runs.note(one, begun, 700, false, at(5));
        runs.note(two, at(4), 300, true, at(6));
        runs.note(one, begun, 700, false, at(9));
        let expected = Course {
            elapsed: Duration::from_secs(10),
            sent_bytes: 1_000,
            still: Duration::from_secs(4),
            is_connecting: false,
        };
        assert_eq!(runs.course(at(10)), Some(expected));
        runs.forget(one);
        assert!(runs.course(at(10)).is_some_and(|course| course.is_connecting && course.sent_bytes == 300));
    }

    #[test]
    fn what_a_process_writes_is_counted() {
        let own = rustix::process::getpid();
        let before = bytes_sent(own).expect("a number");
        std::fs::write("/dev/null", [0; 10_000]).expect("written");
        assert!(bytes_sent(own).expect("a number") >= before + 10_000);
    }
}
