//! The only place that reads a clock. Everything else takes time as a parameter or asks a [`Clock`], so that tests
//! decide what time it is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::model::{BootId, Moment, Timestamp};

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct SimulatedClock(AtomicU64);

impl SimulatedClock {
    pub fn new(start: Timestamp) -> Self {
        Self(AtomicU64::new(start.0))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A reading of the monotonic clock, for deadlines inside one run. Never stored.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// Microseconds on the monotonic clock, as other processes of this machine read it too.
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

/// The present by both clocks. The boot's name is unknown where `/proc` is missing: then each run of syncq is a boot of
/// its own.
pub fn moment() -> Moment {
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
    let uptime_ms = seconds * 1_000 + u64::try_from(uptime.tv_nsec).unwrap_or(0) / 1_000_000;
    Moment { wall: SystemClock.now(), boot: *boot(), uptime_ms }
}

/// The present run of the kernel.
fn boot() -> &'static BootId {
    static BOOT: OnceLock<BootId> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        BootId(u128::from_str_radix(&digits, 16).unwrap_or_else(|_| fastrand::u128(..)).to_be_bytes())
    })
}
