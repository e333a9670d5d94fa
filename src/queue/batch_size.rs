//! How many jobs a batch takes, by the time that the last ones took. Pure.
//!
//! Each run costs a connection, so that a burst is cheapest in few batches; but what changes meanwhile waits for the run
//! under way. So a batch takes what the target has lately done in a third of a second, and of a long backlog an eighth,
//! since what comes next has to wait for it anyway.

use std::time::Duration;

/// Fewer are not worth a connection of their own; with more, rsync's cost per file is at its floor.
const JOBS_MIN: usize = 1_000;
const JOBS_MAX: usize = 8_000;
/// What a batch should take.
const DURATION: Duration = Duration::from_millis(330);
/// Of a backlog this part goes at once.
const SHARE: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub struct BatchSize {
    jobs: usize,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { jobs: JOBS_MIN }
    }
}

impl BatchSize {
    /// Jobs of the next batch at the most, with so many ready.
    pub fn next(&self, ready: usize) -> usize {
        self.jobs.max(ready / SHARE).clamp(JOBS_MIN, JOBS_MAX)
    }

    /// Notes what a batch took. Of a small one the connection is the greater part, which says nothing.
    pub fn note(&mut self, jobs: usize, took: Duration) {
        if jobs < JOBS_MIN / 2 {
            return;
        }
        let took_ms = usize::try_from(took.as_millis()).unwrap_or(usize::MAX).max(1);
        let fitting = jobs.saturating_mul(DURATION.as_millis() as usize) / took_ms;
        // One that was quick by chance should not be followed by one that takes very long.
        self.jobs = fitting.min(jobs * 2).clamp(JOBS_MIN, JOBS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_target_gets_larger_batches() {
        let ms = Duration::from_millis;
        let mut size = BatchSize::default();
        assert_eq!((size.next(10), size.next(20_000), size.next(1_000_000)), (1_000, 2_500, 8_000));
        for (jobs, took, next) in [
            (1, ms(10), 1_000),
            (1_000, ms(110), 2_000),
            (2_000, ms(220), 3_000),
            (3_000, ms(330), 3_000),
            (8_000, ms(0), 8_000),
            (300, ms(1), 8_000),
            (8_000, ms(660), 4_000),
            (4_000, Duration::from_secs(60), 1_000),
        ] {
            size.note(jobs, took);
            assert_eq!(size.next(0), next, "{jobs} in {took:?}");
        }
    }
}
