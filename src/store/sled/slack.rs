//! Keeps sled's idle threads asleep.
//!
//! sled's seven I/O threads live as long as the process and look for work once a second, although they are woken for each
//! piece of work. That makes 420 wake-ups a minute for nothing, and no setting of sled's changes it. But Linux may put
//! off a timed wait by as much as the thread's timer slack, and a thread inherits its slack from the thread that starts
//! it. So a thread that calls sled has a large slack during the call.

use std::num::NonZeroU64;

use rustix::thread::set_current_timer_slack;

/// An hour, in nanoseconds: how late sled's threads may find out that there is nothing to do.
const SLACK_NS: NonZeroU64 = NonZeroU64::new(3_600 * 1_000_000_000).unwrap();

/// Gives the thread the slack back with which it was started, even after a panic.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = set_current_timer_slack(None);
    }
}

/// Runs `work`, and lets the threads that it starts sleep as long as they like. On a kernel without timer slack they do
/// not.
pub fn with_slack<T>(work: impl FnOnce() -> T) -> T {
    let _restored = Restored;
    let _ = set_current_timer_slack(Some(SLACK_NS));
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slack(thread: &str) -> Option<u64> {
        std::fs::read_to_string(format!("/proc/{thread}/timerslack_ns")).ok()?.trim().parse().ok()
    }

    fn own_slack() -> Option<u64> {
        slack(&rustix::thread::gettid().as_raw_nonzero().to_string())
    }

    #[test]
    fn threads_inherit_the_slack_and_the_caller_gets_its_own_back() {
        let before = own_slack();
        let inherited = with_slack(|| std::thread::spawn(own_slack).join().unwrap());
        assert_eq!((inherited, own_slack()), (Some(SLACK_NS.get()), before));
        let panicked = std::panic::catch_unwind(|| with_slack(|| std::panic::resume_unwind(Box::new(()))));
        assert!(panicked.is_err() && own_slack() == before);
    }

    /// Without the slack an idle daemon would wake up seven times a second.
    #[test]
    fn the_threads_of_an_open_store_sleep() {
        let dir = tempfile::tempdir().unwrap();
        let tree = super::super::tree::Tree::open(dir.path()).unwrap();
        tree.write(vec![(b"key".to_vec(), Some(b"value".to_vec()))]).unwrap();
        let mut found = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
            // Threads of other tests may end meanwhile.
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            if read("comm").starts_with("sled-io-") {
                let slack = slack(&task.file_name().into_string().unwrap());
                assert!(slack.is_none() || slack == Some(SLACK_NS.get()), "{slack:?}");
                found += usize::from(slack.is_some());
            }
        }
        // The slack of another thread may be read with CAP_SYS_NICE alone.
        let may_look = rustix::process::geteuid().is_root();
        assert!(found >= 7 || !may_look, "{found} threads of sled sleep");
    }
}
