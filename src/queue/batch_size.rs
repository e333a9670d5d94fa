//! How many jobs a batch takes, and how long a batch waits for more of a burst, judged by the time that the last ones
//! took. Pure.
//!
//! Each run costs a connection, and a directory that is sent in pieces costs more than one that is sent whole. So a flood
//! is cheapest in few batches. Jobs go in the order in which they came: behind a long backlog, no job comes sooner
//! because batches are short. Two things bound a batch: one that breaks off is sent again, and a path in flight that
//! changes again waits for its end. So a batch takes as many jobs as the target has lately done in a second and a half,
//! and few after a batch that failed.
//!
//! While a burst goes on, a batch waits for as long as sending its jobs would take, a second at most. If the burst is
//! faster than the target, the wait costs nothing in the end; if it is slower, the wait is short.

use std::time::Duration;

/// Fewer jobs are not worth a connection of their own.
const JOBS_MIN: usize = 1_000;
/// With more jobs, rsync's cost per file is at its floor, and its list takes memory.
const JOBS_MAX: usize = 32_000;
/// The size as long as nothing is known of the target.
const JOBS_FIRST: usize = 10_000;
/// How long a batch should take.
const DURATION: Duration = Duration::from_millis(1_500);
/// The longest wait for more of a burst.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug)]
pub struct BatchSize {
    jobs: usize,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { jobs: JOBS_FIRST }
    }
}

impl BatchSize {
    /// The most jobs that the next batch takes.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// How long the oldest of `ready` jobs waits for the rest of its burst. Zero if the jobs fill a batch.
    pub fn hold(&self, ready: usize) -> Duration {
        if ready >= self.jobs {
            return Duration::ZERO;
        }
        let ms = DURATION.as_millis().saturating_mul(ready as u128) / self.jobs as u128;
        u64::try_from(ms).map_or(HOLD_MAX, Duration::from_millis).min(HOLD_MAX)
    }

    /// Notes how long a batch took. A small batch is ignored: the connection is the greater part of its time.
    pub fn note(&mut self, jobs: usize, took: Duration) {
        if jobs < JOBS_MIN / 2 {
            return;
        }
        let took_ms = usize::try_from(took.as_millis()).unwrap_or(usize::MAX).max(1);
        let fitting = jobs.saturating_mul(DURATION.as_millis() as usize) / took_ms;
        // A batch that was quick by chance should not be followed by one that takes very long.
        self.jobs = fitting.min(jobs.max(JOBS_FIRST) * 2).clamp(JOBS_MIN, JOBS_MAX);
    }

    /// Notes that a batch broke off. The next one is small, since it may be sent in vain as well.
    pub fn failed(&mut self) {
        self.jobs = JOBS_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_quick_target_gets_larger_batches() {
        let mut size = BatchSize::default();
        for (jobs, took, next) in [
            (1, ms(10), 10_000),
            (10_000, ms(1_000), 15_000),
            (15_000, ms(1_500), 15_000),
            (1_000, ms(100), 15_000),
            (15_000, ms(0), 30_000),
            (300, ms(1), 30_000),
            (30_000, ms(0), 32_000),
            (8_000, ms(3_000), 4_000),
            (4_000, Duration::from_secs(60), 1_000),
        ] {
            size.note(jobs, took);
            assert_eq!(size.jobs(), next, "{jobs} in {took:?}");
        }
    }

    #[test]
    fn after_a_failure_little_is_tried() {
        let mut size = BatchSize::default();
        size.failed();
        assert_eq!(size.jobs(), 1_000);
        size.note(1_000, ms(100));
        assert_eq!(size.jobs(), 15_000);
    }

    #[test]
    fn a_burst_waits_as_long_as_sending_it_takes() {
        let mut size = BatchSize::default();
        size.note(10_000, ms(1_500));
        for (ready, hold) in [(1, ms(0)), (100, ms(15)), (1_000, ms(150)), (9_999, ms(1_000)), (10_000, ms(0))] {
            assert_eq!(size.hold(ready), hold, "{ready}");
        }
    }
}
