//! Points in time as milliseconds since the Unix epoch. Pure: reading a clock is `crate::clock`'s work.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 00:00 UTC. Wall time, since it is stored and has to mean the same after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub const ZERO: Self = Self(0);

    /// The instant `duration` later, at most the end of time.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The instant `duration` earlier, at least the beginning of time.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub fn from_system(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn to_system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// RFC 3339 in UTC with milliseconds, as all of syncq's output has it.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime refuses years above 9999.
        const YEAR_9999_MS: u64 = 253_402_300_799_000;
        let shown = Self(self.0.min(YEAR_9999_MS)).to_system();
        write!(f, "{}", humantime::format_rfc3339_millis(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_rfc3339_and_never_panics() {
        assert_eq!(Timestamp(1_000).to_string(), "1970-01-01T00:00:01.000Z");
        assert!(Timestamp(u64::MAX).to_string().starts_with("9999"));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
