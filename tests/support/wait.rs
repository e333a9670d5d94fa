//! Waits for a condition with a deadline; the only place where a test sleeps.

use std::thread;
use std::time::{Duration, Instant};

const POLL_MIN: Duration = Duration::from_millis(5);
/// The longest pause between two checks. A condition that is expensive to check is checked less often.
const POLL_MAX: Duration = Duration::from_millis(500);

/// Seconds of a deadline, stretched by `SYNCQ_E2E_SLOW` on slow machines.
pub fn secs(n: u64) -> Duration {
    let factor = std::env::var("SYNCQ_E2E_SLOW").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    Duration::from_secs(n * factor)
}

/// Waits until `condition` holds.
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(deadline, what, || if condition() { Ok(()) } else { Err("not yet".to_owned()) });
}

/// Waits until `attempt` succeeds, and returns its value. After the deadline, fails with the last reason.
pub fn wait_for<T>(deadline: Duration, what: &str, attempt: impl FnMut() -> Result<T, String>) -> T {
    match try_for(deadline, attempt) {
        Ok(value) => value,
        Err(reason) => panic!("waited {} s for: {what}\n{reason}", deadline.as_secs()),
    }
}

/// Like [`wait_for`], but returns the last reason instead of failing.
pub fn try_for<T>(deadline: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        let before = Instant::now();
        let reason = match attempt() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if start.elapsed() >= deadline {
            return Err(reason);
        }
        // The checks share two cores with the processes that they wait for.
        thread::sleep((before.elapsed() * 2).clamp(POLL_MIN, POLL_MAX));
    }
}
