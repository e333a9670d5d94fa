//! How long a failed job or a troubled target waits before the next try. Pure: the attempt count and a random number
//! go in, a duration comes out.

use std::time::Duration;

/// Exponential backoff: `base`, `base * factor`, `base * factor²`, … up to `cap`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub base: Duration,
    pub factor: f64,
    pub cap: Duration,
}

/// The share of a wait that chance may add or take away, so that jobs that failed together do not come back together.
const JITTER: f64 = 0.1;

impl Backoff {
    /// The wait after the `attempts`-th failure in a row (1 for the first). `chance` is uniform in `[0, 1)`.
    ///
    /// The cap holds before jitter: a wait is never longer than `cap` plus a tenth of it.
    pub fn delay(&self, attempts: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let uncapped = self.base.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        // `min` also turns an infinite product into the cap.
        let capped = uncapped.min(self.cap.as_secs_f64());
        Duration::from_secs_f64(capped * (1.0 + JITTER * (2.0 * chance.clamp(0.0, 1.0) - 1.0)))
    }
}

/// The backoff of jobs: one second, doubling, at most an hour (the time after which sersync ran its list of failures).
impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(3600) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_from_the_base_to_the_cap() {
        let backoff = Backoff { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(60) };
        let waits: Vec<u64> = (1..=8).map(|n| backoff.delay(n, 0.5).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        let backoff = Backoff { base: Duration::from_secs(10), factor: 2.0, cap: Duration::from_secs(60) };
        assert_eq!(backoff.delay(1, 0.0), Duration::from_secs(9));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_secs(11));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_exceeds_the_cap_by_more_than_jitter(
            base_ms in 0u64..100_000, factor in -3.0f64..100.0, cap_ms in 0u64..10_000_000,
            attempts: u32, chance in 0.0f64..1.0,
        ) {
            let cap = Duration::from_millis(cap_ms);
            let backoff = Backoff { base: Duration::from_millis(base_ms), factor, cap };
            let wait = backoff.delay(attempts, chance);
            prop_assert!(wait <= cap.mul_f64(1.0 + JITTER) + Duration::from_micros(1));
        }
    }
}
